"""What clients of the Cloud API send, and what of it the Cloud API refuses.

Spelling differs in the wild: component types in any case, a button's index as number or string, unknown fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec

from harkara.gateway.sandbox.graph_error import GraphError

_EMPTY = msgspec.Raw(b"")
_PHONE = re.compile(r"[0-9]{5,20}")
_USER_ID = re.compile(r"^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$")
_IGNORED_IN_PHONES = str.maketrans("", "", "+ -().")
_BAD_PARAMETER = re.compile(r"[\n\t]| {5,}")

_T = TypeVar("_T")


class Context(msgspec.Struct):
    message_id: str = ""


class Typing(msgspec.Struct):
    type: str = "text"


class Request(msgspec.Struct, kw_only=True):
    """The body of `POST /{phone_number_id}/messages`; the type's own object stays undecoded until it is judged."""

    messaging_product: str = ""
    recipient_type: str = "individual"
    to: str | int | None = None
    recipient: str | None = None
    type: str = "text"
    context: Context | None = None
    biz_opaque_callback_data: str | None = None
    status: str | None = None
    message_id: str | None = None
    typing_indicator: Typing | None = None
    text: msgspec.Raw = _EMPTY
    image: msgspec.Raw = _EMPTY
    document: msgspec.Raw = _EMPTY
    video: msgspec.Raw = _EMPTY
    audio: msgspec.Raw = _EMPTY
    sticker: msgspec.Raw = _EMPTY
    template: msgspec.Raw = _EMPTY
    interactive: msgspec.Raw = _EMPTY
    reaction: msgspec.Raw = _EMPTY
    location: msgspec.Raw = _EMPTY
    contacts: msgspec.Raw = _EMPTY


class Text(msgspec.Struct):
    body: str = ""
    preview_url: bool | str = False


class MediaObject(msgspec.Struct):
    id: str | int | None = None
    link: str | None = None
    caption: str | None = None
    filename: str | None = None


class Parameter(msgspec.Struct):
    type: str
    text: str | int | float | None = None
    payload: str | None = None
    coupon_code: str | None = None
    parameter_name: str | None = None
    image: MediaObject | None = None
    video: MediaObject | None = None
    document: MediaObject | None = None


class Component(msgspec.Struct):
    type: str
    sub_type: str | None = None
    index: str | int | None = None
    parameters: list[Parameter] = []


class Language(msgspec.Struct):
    code: str


class TemplateObject(msgspec.Struct):
    name: str
    language: Language
    components: list[Component] | None = None


class Words(msgspec.Struct):
    text: str = ""


class Header(msgspec.Struct):
    type: str
    text: str | None = None
    image: MediaObject | None = None
    video: MediaObject | None = None
    document: MediaObject | None = None


class Reply(msgspec.Struct):
    id: str = ""
    title: str = ""


class Button(msgspec.Struct):
    type: str = "reply"
    reply: Reply | None = None


class Row(msgspec.Struct):
    id: str = ""
    title: str = ""
    description: str | None = None


class Section(msgspec.Struct):
    title: str | None = None
    rows: list[Row] = []


class LinkParameters(msgspec.Struct):
    display_text: str = ""
    url: str = ""


class InteractiveAction(msgspec.Struct):
    name: str | None = None
    parameters: LinkParameters | None = None
    buttons: list[Button] = []
    button: str | None = None
    sections: list[Section] = []


class InteractiveObject(msgspec.Struct):
    type: str
    body: Words | None = None
    header: Header | None = None
    footer: Words | None = None
    action: InteractiveAction | None = None


class Reaction(msgspec.Struct):
    message_id: str = ""
    emoji: str = ""


class Location(msgspec.Struct):
    latitude: float | str
    longitude: float | str
    name: str | None = None
    address: str | None = None


class Outgoing(NamedTuple):
    """A message that is fit to be accepted: `content` is the type's own JSON, `parsed` the same decoded."""

    to: str
    chat: str
    is_user_id: bool
    type: str
    content: bytes
    parsed: Any
    opaque: str | None
    context: str | None


_request = msgspec.json.Decoder(Request, strict=False)


def parse_request(body: bytes, content_type: str) -> Request:
    """Decode a request as JSON, or as a form whose values may be JSON. Raises GraphError."""
    if content_type == "application/x-www-form-urlencoded":
        body = msgspec.json.encode(_form(body))
    try:
        request = _request.decode(body)
    except msgspec.ValidationError as error:
        raise GraphError(100, f"Param {_place(error)} is not valid: {error}") from None
    except msgspec.DecodeError as error:
        raise GraphError(100, f"The body is not JSON: {error}") from None
    if request.messaging_product.lower() != "whatsapp":
        raise GraphError(100, "The parameter messaging_product is required and must be whatsapp.")
    return request


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=100)
    except ValueError:
        raise GraphError(100, "The body is not a form.") from None
    return {name: _form_value(value) for name, value in pairs}


def _form_value(value: str) -> Any:
    if not value.startswith(("{", "[")):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _place(error: msgspec.ValidationError) -> str:
    _, _, path = str(error).rpartition("$.")
    return path.rstrip("`") or "body"


def outgoing(request: Request) -> Outgoing:
    """Judge a send request and take from it what is kept. Raises GraphError."""
    to, chat, is_user_id = _recipient(request)
    opaque = request.biz_opaque_callback_data
    if opaque is not None and len(opaque) > 512:
        raise GraphError(131009, "Param biz_opaque_callback_data must be at most 512 characters long.")
    kind = request.type.lower()
    judge = _TYPES.get(kind)
    if judge is None:
        choices = ", ".join(sorted(_TYPES))
        raise GraphError(100, f"Param type must be one of {choices}; got {request.type!r}.")
    raw: msgspec.Raw = getattr(request, kind)
    if not bytes(raw):
        raise GraphError(131008, f"The parameter {kind} is required.")
    content = bytes(raw)
    parsed = judge(kind, content)
    context = request.context.message_id if request.context is not None else None
    return Outgoing(to, chat, is_user_id, kind, content, parsed, opaque, context or None)


def _recipient(request: Request) -> tuple[str, str, bool]:
    """The recipient as written, as the key of its chat, and whether it is a business-scoped user id."""
    if request.to is not None and request.to != "":
        to = str(request.to)
        chat = digits(to)
        if not _PHONE.fullmatch(chat):
            raise GraphError(131009, f"Param to is not a valid phone number: {to!r}.")
        return to, chat, False
    if request.recipient:
        if not _USER_ID.match(request.recipient):
            raise GraphError(131009, "Param recipient is not a valid business-scoped user id.")
        return request.recipient, request.recipient, True
    raise GraphError(131008, "The parameter to is required.")


def digits(phone: str) -> str:
    """A phone number without the signs people write into it."""
    return phone.translate(_IGNORED_IN_PHONES)


def _decode(decoder: msgspec.json.Decoder[_T], kind: str, content: bytes) -> _T:
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        message = str(error)
        code = 131008 if "missing required field" in message else 100
        raise GraphError(code, f"Param {kind} is not valid: {message}") from None


def _longer(path: str, text: str | None, limit: int, *, required: bool = True) -> None:
    """Refuse a text that is missing or too long."""
    if required and not (text and text.strip()):
        raise GraphError(131008, f"The parameter {path} is required and must not be empty.")
    if text is not None and len(text) > limit:
        raise GraphError(131009, f"Param {path} must be at most {limit} characters long.")


_text = msgspec.json.Decoder(Text)
_media = msgspec.json.Decoder(MediaObject)
_template = msgspec.json.Decoder(TemplateObject)
_interactive = msgspec.json.Decoder(InteractiveObject)
_reaction = msgspec.json.Decoder(Reaction)
_location = msgspec.json.Decoder(Location)
_contacts = msgspec.json.Decoder(list[dict[str, Any]])


def _judge_text(kind: str, content: bytes) -> Text:
    text = _decode(_text, kind, content)
    _longer("text['body']", text.body, 4096)
    return text


def _judge_media(kind: str, content: bytes) -> MediaObject:
    media = _decode(_media, kind, content)
    _check_media(kind, media)
    if media.caption and kind in ("audio", "sticker"):
        raise GraphError(100, f"Param {kind}['caption'] is not supported for {kind}.")
    _longer(f"{kind}['caption']", media.caption, 1024, required=False)
    _longer(f"{kind}['filename']", media.filename, 240, required=False)
    return media


def _check_media(path: str, media: MediaObject) -> None:
    if (media.id is None or media.id == "") == (not media.link):
        raise GraphError(100, f"Param {path} must have exactly one of id and link.")
    if media.link and not media.link.startswith(("http://", "https://")):
        raise GraphError(131009, f"Param {path}['link'] is not a valid http or https address.")


def _judge_template(kind: str, content: bytes) -> TemplateObject:
    template = _decode(_template, kind, content)
    _longer("template['name']", template.name, 512)
    _longer("template['language']['code']", template.language.code, 20)
    for component in template.components or []:
        _judge_component(component)
    return template


def _judge_component(component: Component) -> None:
    kind = component.type.lower()
    if kind not in ("header", "body", "button", "footer", "carousel", "limited_time_offer"):
        raise GraphError(100, f"Param template['components'] has an unknown type {component.type!r}.")
    if kind == "button":
        _judge_button(component)
    for parameter in component.parameters:
        _judge_parameter(kind, parameter)


def _judge_button(component: Component) -> None:
    if not component.sub_type:
        raise GraphError(131008, "The parameter sub_type of a button component is required.")
    if component.index is None or not str(component.index).isdecimal() or int(component.index) > 9:
        raise GraphError(131008, "The parameter index of a button component is required: 0 to 9.")


def _judge_parameter(kind: str, parameter: Parameter) -> None:
    name = parameter.type.lower()
    if name == "text":
        text = "" if parameter.text is None else str(parameter.text)
        if not text.strip():
            raise GraphError(131008, f"Parameter of type text is missing text value in the {kind}.")
        _longer(f"the text of a {kind} parameter", text, 60 if kind == "header" else 1024)
        if _BAD_PARAMETER.search(text):
            raise GraphError(132018, "Param text cannot have new-line/tab characters or more than 4 consecutive spaces")
    elif name in ("image", "video", "document"):
        media: MediaObject | None = getattr(parameter, name)
        if media is None:
            raise GraphError(131008, f"The parameter {name} of the {kind} is required.")
        _check_media(name, media)


def _judge_interactive(kind: str, content: bytes) -> InteractiveObject:
    interactive = _decode(_interactive, kind, content)
    flavour = interactive.type.lower()
    if interactive.header is not None:
        _judge_header(flavour, interactive.header)
    if interactive.footer is not None:
        _longer("interactive['footer']['text']", interactive.footer.text, 60)
    if flavour not in ("button", "list", "cta_url"):
        return interactive
    _longer("interactive['body']['text']", interactive.body.text if interactive.body else None, 1024)
    action = interactive.action
    if action is None:
        raise GraphError(131008, "The parameter interactive['action'] is required.")
    if flavour == "button":
        _judge_reply_buttons(action.buttons)
    elif flavour == "cta_url":
        _judge_link(action)
    else:
        _judge_sections(action)
    return interactive


def _judge_header(flavour: str, header: Header) -> None:
    kind = header.type.lower()
    if kind == "text":
        _longer("interactive['header']['text']", header.text, 60)
        return
    media: MediaObject | None = getattr(header, kind) if kind in ("image", "video", "document") else None
    if media is None or flavour == "list":
        raise GraphError(131009, f"Param interactive['header'] of type {header.type!r} is not valid here.")
    _check_media(f"interactive['header']['{kind}']", media)


def _judge_reply_buttons(buttons: list[Button]) -> None:
    if not 1 <= len(buttons) <= 3:
        raise GraphError(131009, "Invalid buttons count. Min allowed buttons: 1, Max allowed buttons: 3")
    replies = [button.reply or Reply() for button in buttons]
    for reply in replies:
        _longer("reply['id'] of a button", reply.id, 256)
        _longer("reply['title'] of a button", reply.title, 20)
    if len({reply.id for reply in replies}) < len(replies):
        raise GraphError(131009, "Duplicated button id")
    if len({reply.title for reply in replies}) < len(replies):
        raise GraphError(131009, "Duplicated button title")


def _judge_link(action: InteractiveAction) -> None:
    if action.name != "cta_url" or action.parameters is None:
        raise GraphError(131009, "Param interactive['action'] must have the name cta_url, and parameters.")
    _longer("display_text of the button", action.parameters.display_text, 20)
    if not action.parameters.url.startswith(("http://", "https://")):
        raise GraphError(131009, "Param url of the button is not a valid http or https address.")


def _judge_sections(action: InteractiveAction) -> None:
    _longer("interactive['action']['button']", action.button, 20)
    if not 1 <= len(action.sections) <= 10:
        raise GraphError(131009, "Invalid sections count. Min allowed sections: 1, Max allowed sections: 10")
    rows = [row for section in action.sections for row in section.rows]
    if not 1 <= len(rows) <= 10:
        raise GraphError(131009, "Total row count exceed max allowed count: 10, or there is none")
    for section in action.sections:
        _longer("the title of a section", section.title, 24, required=len(action.sections) > 1)
    for row in rows:
        _longer("the id of a row", row.id, 200)
        _longer("the title of a row", row.title, 24)
        _longer("the description of a row", row.description, 72, required=False)
    if len({row.id for row in rows}) < len(rows):
        raise GraphError(131009, "Duplicated row id")


def _judge_reaction(kind: str, content: bytes) -> Reaction:
    reaction = _decode(_reaction, kind, content)
    _longer("reaction['message_id']", reaction.message_id, 512)
    _longer("reaction['emoji']", reaction.emoji, 32, required=False)
    return reaction


def _judge_location(kind: str, content: bytes) -> Location:
    return _decode(_location, kind, content)


def _judge_contacts(kind: str, content: bytes) -> list[dict[str, Any]]:
    contacts = _decode(_contacts, kind, content)
    if not contacts:
        raise GraphError(131008, "The parameter contacts is required and must not be empty.")
    return contacts


_TYPES: dict[str, Callable[[str, bytes], Any]] = {
    "text": _judge_text,
    "image": _judge_media,
    "document": _judge_media,
    "video": _judge_media,
    "audio": _judge_media,
    "sticker": _judge_media,
    "template": _judge_template,
    "interactive": _judge_interactive,
    "reaction": _judge_reaction,
    "location": _judge_location,
    "contacts": _judge_contacts,
}


def media_ids(message: Outgoing) -> list[str]:
    """Every media id that a message refers to."""
    found: list[MediaObject | None] = []
    if isinstance(message.parsed, MediaObject):
        found = [message.parsed]
    elif isinstance(message.parsed, TemplateObject):
        for component in message.parsed.components or []:
            for parameter in component.parameters:
                found += [parameter.image, parameter.video, parameter.document]
    elif isinstance(message.parsed, InteractiveObject) and message.parsed.header is not None:
        header = message.parsed.header
        found = [header.image, header.video, header.document]
    return [str(media.id) for media in found if media is not None and media.id]
