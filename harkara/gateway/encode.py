"""Content in the Cloud API's own JSON."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from harkara.schemas.content import Content, Interactive, Media, Section, Template, TemplateButton

_encoder = msgspec.json.Encoder()

#: A person known to this business alone, such as US.13491208655302741918: two letters of a country and an id.
_USER_ID = re.compile(r"[A-Z]{2}\.\w")


def encode_message(to: str, content: Content, opaque: str, reply_to: str | None = None) -> bytes:
    """The body of `POST /{phone_number_id}/messages` for rendered content, to a phone or a business-scoped user id.

    Raises ValueError if the content says nothing.
    """
    kind, value = _typed(content)
    message: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "recipient" if _USER_ID.match(to) else "to": to,
        "type": kind,
        kind: value,
    }
    if opaque:
        message["biz_opaque_callback_data"] = opaque
    if reply_to is not None:
        message["context"] = {"message_id": reply_to}
    return _encoder.encode(message)


def _typed(content: Content) -> tuple[str, dict[str, Any]]:
    if content.body is not None:
        return "text", {"body": content.body}
    if content.template is not None:
        return "template", _template(content.template)
    if content.media is not None:
        return content.media.type, _media(content.media)
    if content.interactive is not None:
        return "interactive", _interactive(content.interactive)
    raise ValueError("the content has neither body, template, media nor interactive: check it with faults()")


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _media(media: Media) -> dict[str, Any]:
    return _given(id=media.id, link=media.link, caption=media.caption, filename=media.filename)


def _template(template: Template) -> dict[str, Any]:
    components: list[dict[str, Any]] = []
    if template.header is not None:
        parameter = _given(**_header_parameter(template.header), parameter_name=template.header_name)
        components.append({"type": "header", "parameters": [parameter]})
    if template.parameters:
        components.append({"type": "body", "parameters": _body_parameters(template.parameters)})
    components.extend(_button(button, place) for place, button in enumerate(template.buttons))
    language = {"code": template.language}
    return _given(name=template.name, language=language, components=components or None)


def _header_parameter(header: str | Media) -> dict[str, Any]:
    if isinstance(header, str):
        return {"type": "text", "text": header}
    return {"type": header.type, header.type: _media(header)}


def _body_parameters(parameters: list[str] | dict[str, str]) -> list[dict[str, Any]]:
    if isinstance(parameters, dict):
        return [{"type": "text", "parameter_name": name, "text": text} for name, text in parameters.items()]
    return [{"type": "text", "text": text} for text in parameters]


_BUTTON_PARAMETER = {"url": "text", "quick_reply": "payload", "copy_code": "coupon_code"}


def _button(button: TemplateButton, place: int) -> dict[str, Any]:
    kind = _BUTTON_PARAMETER[button.type]
    index = place if button.index is None else button.index
    parameter = {"type": kind, kind: button.value}
    return {"type": "button", "sub_type": button.type, "index": str(index), "parameters": [parameter]}


def _interactive(interactive: Interactive) -> dict[str, Any]:
    header: dict[str, Any] | None = None
    if interactive.header is not None:
        header = _header_parameter(interactive.header)
    footer = None if interactive.footer is None else {"text": interactive.footer}
    return _given(
        type="button" if interactive.buttons else "list" if interactive.sections else "cta_url",
        header=header,
        body={"text": interactive.body},
        footer=footer,
        action=_action(interactive),
    )


def _action(interactive: Interactive) -> dict[str, Any]:
    if interactive.buttons:
        replies = [{"id": button.id, "title": button.title} for button in interactive.buttons]
        return {"buttons": [{"type": "reply", "reply": reply} for reply in replies]}
    if interactive.link is not None:
        parameters = {"display_text": interactive.link.title, "url": interactive.link.url}
        return {"name": "cta_url", "parameters": parameters}
    return {"button": interactive.button, "sections": [_section(part) for part in interactive.sections]}


def _section(section: Section) -> dict[str, Any]:
    rows = [_given(id=row.id, title=row.title, description=row.description) for row in section.rows]
    return _given(title=section.title, rows=rows)
