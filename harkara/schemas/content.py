"""What is sent, as users write it: a text, template, media or interactive message, with the Cloud API's limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, cast

import msgspec

from harkara.schemas.base import Body

#: A fault in a body: where it is (`template.parameters[0]`) and what is wrong with it.
Fault: TypeAlias = tuple[str, str]

MediaType = Literal["image", "document", "video", "audio", "sticker"]

TEXT_LIMIT = 4096
CAPTION_LIMIT = 1024
FILENAME_LIMIT = 240
PARAMETER_LIMIT = 1024
HEADER_LIMIT = 60
FOOTER_LIMIT = 60
INTERACTIVE_TEXT_LIMIT = 1024
REPLY_BUTTONS = 3
SECTIONS = 10
ROWS = 10

_TEMPLATE_NAME = re.compile(r"^[a-z0-9_]{1,512}$")
_PARAMETER_NAME = re.compile(r"^[a-z0-9_]{1,128}\Z")
_LANGUAGE = re.compile(r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$")
_UNPRINTABLE_PARAMETER = re.compile(r"[\n\r\t]| {5,}")

#: What variables bring, whose length is not known before they are filled in.
_VARIABLE = re.compile(r"\{\{.*?\}\}", re.DOTALL)

#: What may take away from the text around it, or choose between parts of it.
_SHRINKS = ("{%", "{{-", "-}}")

#: Names that steer and are never rendered; every other string may contain `{{ variables }}`.
_FIXED = frozenset({"type", "name", "language", "index", "header_name"})

_KINDS = ("body", "template", "media", "interactive")


class Media(Body):
    """A file: the `id` of an uploaded one or a public `link`.

    A `caption` goes with all but audio and stickers, a `filename` with documents.
    """

    type: MediaType
    id: str | None = None
    link: str | None = None
    caption: str | None = None
    filename: str | None = None


class TemplateButton(Body):
    """What varies in a template's button: a URL's suffix, a quick reply's payload, or a code to copy."""

    type: Literal["url", "quick_reply", "copy_code"]
    value: str
    index: int | None = None


class Template(Body):
    """An approved template with its parameters: a list is positional, an object is by name.

    `header` is the text of the header's parameter, or its file. In a template whose parameters have names, the one of a
    text header is `header_name`.
    """

    name: str
    language: str = "en"
    parameters: list[str] | dict[str, str] = msgspec.field(default_factory=list[str])
    header: str | Media | None = None
    header_name: str | None = None
    buttons: list[TemplateButton] = msgspec.field(default_factory=list[TemplateButton])


class ReplyButton(Body):
    """A button whose tap comes back with its `id`."""

    id: str
    title: str


class Row(Body):
    """One choice of a list."""

    id: str
    title: str
    description: str | None = None


class Section(Body):
    """A titled group of choices; the title is needed when there are several."""

    rows: list[Row]
    title: str | None = None


class LinkButton(Body):
    """A button that opens a web page."""

    title: str
    url: str


class Interactive(Body):
    """A text with one of three: up to three reply `buttons`; a list, which is the `button` that opens it and its
    `sections`; or a `link` to a web page, as a button."""

    body: str
    header: str | Media | None = None
    footer: str | None = None
    buttons: list[ReplyButton] = msgspec.field(default_factory=list[ReplyButton])
    button: str | None = None
    sections: list[Section] = msgspec.field(default_factory=list[Section])
    link: LinkButton | None = None


class Content(Body):
    """What one message says: exactly one of text `body`, `template`, `media` and `interactive`."""

    body: str | None = None
    template: Template | None = None
    media: Media | None = None
    interactive: Interactive | None = None

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text that may contain variables, with its path; empty ones are left out."""
        if type(self) is Content and self.body and (self.template, self.media, self.interactive) == (None, None, None):
            return iter((("body", self.body),))  # nearly always
        return _texts(self, "")

    def map_texts(self, render: Callable[[str], str]) -> Content:
        """The same content with `render` applied to every text that `texts` names."""
        if self.body is not None:
            return msgspec.structs.replace(self, body=render(self.body))
        return cast("Content", _mapped(self, render))

    def faults(self, *, rendered: bool = False) -> list[Fault]:
        """All that the Cloud API would refuse, as (path, message) pairs; empty when there is nothing.

        Before rendering, a text with variables is not measured, because its length is not known yet.
        """
        body, more = self.body, (self.template, self.media, self.interactive)
        if body and more == (None, None, None) and len(body) <= TEXT_LIMIT and not body.isspace():
            return []  # nearly always
        return list(_Check(rendered).content(self))


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield from _texts(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in cast("dict[str, object]", value).items():
            yield from _texts(item, f"{path}.{key}")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if name not in _FIXED:
                yield from _texts(getattr(value, name), f"{path}.{name}" if path else name)


def _mapped(value: object, render: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return render(value) if value else value
    if isinstance(value, list):
        return [_mapped(item, render) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _mapped(item, render) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, msgspec.Struct):
        names = [name for name in value.__struct_fields__ if name not in _FIXED]
        return msgspec.structs.replace(value, **{name: _mapped(getattr(value, name), render) for name in names})
    return value


class _Check:
    """Collects faults; knows whether variables have been filled in yet."""

    def __init__(self, rendered: bool) -> None:
        self.rendered = rendered

    def content(self, content: Content) -> Iterator[Fault]:
        given = [name for name in _KINDS if getattr(content, name) is not None]
        if len(given) != 1:
            what = "none is given" if not given else f"{' and '.join(given)} are given"
            yield "body", f"give exactly one of body, template, media and interactive ({what})"
        if content.body is not None:
            yield from self.text("body", content.body, TEXT_LIMIT)
        if content.template is not None:
            yield from self.template(content.template)
        if content.media is not None:
            yield from self.media("media", content.media)
        if content.interactive is not None:
            yield from self.interactive(content.interactive)

    def text(self, path: str, text: str, limit: int) -> Iterator[Fault]:
        """A text that must be there and be short enough, as far as that is known."""
        if not self.known(text):
            constant = len(_VARIABLE.sub("", text))
            if constant > limit and not any(mark in text for mark in _SHRINKS):
                yield path, f"must have at most {limit} characters (has {constant} beside its variables)"
        elif not text.strip():
            yield path, "must not be empty"
        elif len(text) > limit:
            yield path, f"must have at most {limit} characters (has {len(text)})"

    def known(self, text: str) -> bool:
        return self.rendered or ("{{" not in text and "{%" not in text)

    def template(self, template: Template) -> Iterator[Fault]:
        if not _TEMPLATE_NAME.match(template.name):
            yield "template.name", "must be a template's name: lower-case letters, digits and underscores"
        if not _LANGUAGE.match(template.language):
            yield "template.language", "must be a language code such as en or pt_BR"
        for path, text in _texts(template.parameters, "template.parameters"):
            yield from self.parameter(path, text)
        for path, text in _empty_parameters(template.parameters):
            yield from self.parameter(path, text)
        yield from self.header("template.header", template.header)
        if template.header_name is not None and not _PARAMETER_NAME.match(template.header_name):
            yield "template.header_name", "must be a parameter's name: lower-case letters, digits and underscores"
        if template.header_name is not None and not isinstance(template.header, str):
            yield "template.header_name", "is the name of a text header's parameter: give header too"
        for index, button in enumerate(template.buttons):
            yield from self.template_button(f"template.buttons[{index}]", button)
        if len(template.buttons) > 10:
            yield "template.buttons", "a template has at most 10 buttons"

    def parameter(self, path: str, text: str) -> Iterator[Fault]:
        yield from self.text(path, text, PARAMETER_LIMIT)
        if self.known(text) and _UNPRINTABLE_PARAMETER.search(text):
            yield path, "must not contain a line break, a tab or more than four spaces in a row"

    def template_button(self, path: str, button: TemplateButton) -> Iterator[Fault]:
        limit = {"url": 2000, "quick_reply": 128, "copy_code": 20}[button.type]
        yield from self.text(f"{path}.value", button.value, limit)
        if button.index is not None and not 0 <= button.index <= 9:
            yield f"{path}.index", "must be from 0 to 9"

    def header(self, path: str, header: str | Media | None) -> Iterator[Fault]:
        if isinstance(header, str):
            yield from self.text(path, header, HEADER_LIMIT)
        elif header is not None:
            if header.type in ("audio", "sticker"):
                yield f"{path}.type", "a header is an image, a video or a document"
            if header.caption is not None:
                yield f"{path}.caption", "a header has no caption"
            else:
                yield from self.media(path, header)

    def media(self, path: str, media: Media) -> Iterator[Fault]:
        if (media.id is None) == (media.link is None):
            yield path, "give exactly one of id (of an uploaded file) and link"
        if media.id is not None:
            yield from self.text(f"{path}.id", media.id, 256)
        if media.link is not None:
            yield from self.link(f"{path}.link", media.link)
        if media.caption is not None:
            if media.type in ("audio", "sticker"):
                yield f"{path}.caption", f"{media.type} has no caption"
            else:
                yield from self.text(f"{path}.caption", media.caption, CAPTION_LIMIT)
        if media.filename is not None:
            if media.type != "document":
                yield f"{path}.filename", "only a document has a filename"
            else:
                yield from self.text(f"{path}.filename", media.filename, FILENAME_LIMIT)

    def link(self, path: str, link: str) -> Iterator[Fault]:
        if self.known(link) and not _is_url(link):
            yield path, "must be an http or https address of at most 2048 characters"

    def interactive(self, interactive: Interactive) -> Iterator[Fault]:
        yield from self.text("interactive.body", interactive.body, INTERACTIVE_TEXT_LIMIT)
        yield from self.header("interactive.header", interactive.header)
        if interactive.footer is not None:
            yield from self.text("interactive.footer", interactive.footer, FOOTER_LIMIT)
        ways = (bool(interactive.buttons), bool(interactive.sections), interactive.link is not None)
        if ways.count(True) != 1:
            yield "interactive", "give exactly one of buttons, sections and link"
        yield from self.reply_buttons(interactive.buttons)
        if interactive.sections:
            yield from self.sections(interactive)
        elif interactive.button is not None:
            yield "interactive.button", "is the button that opens a list: give sections too"
        if interactive.link is not None:
            yield from self.text("interactive.link.title", interactive.link.title, 20)
            yield from self.link("interactive.link.url", interactive.link.url)

    def reply_buttons(self, buttons: list[ReplyButton]) -> Iterator[Fault]:
        if len(buttons) > REPLY_BUTTONS:
            yield "interactive.buttons", f"at most {REPLY_BUTTONS} buttons (has {len(buttons)})"
        for index, button in enumerate(buttons):
            yield from self.text(f"interactive.buttons[{index}].id", button.id, 256)
            yield from self.text(f"interactive.buttons[{index}].title", button.title, 20)
        yield from self.distinct("interactive.buttons", "id", [button.id for button in buttons])
        yield from self.distinct("interactive.buttons", "title", [button.title for button in buttons])

    def sections(self, interactive: Interactive) -> Iterator[Fault]:
        sections = interactive.sections
        if interactive.button is None:
            yield "interactive.button", "is needed: the text of the button that opens the list"
        else:
            yield from self.text("interactive.button", interactive.button, 20)
        if isinstance(interactive.header, Media):
            yield "interactive.header", "a list has a text header only"
        if len(sections) > SECTIONS:
            yield "interactive.sections", f"at most {SECTIONS} sections (has {len(sections)})"
        rows = [row for section in sections for row in section.rows]
        if len(rows) > ROWS:
            yield "interactive.sections", f"at most {ROWS} rows in all sections together (has {len(rows)})"
        yield from self.distinct("interactive.sections", "id", [row.id for row in rows])
        for index, section in enumerate(sections):
            yield from self.section(f"interactive.sections[{index}]", section, needs_title=len(sections) > 1)

    def section(self, path: str, section: Section, *, needs_title: bool) -> Iterator[Fault]:
        if section.title is not None:
            yield from self.text(f"{path}.title", section.title, 24)
        elif needs_title:
            yield f"{path}.title", "is needed when there are several sections"
        if not section.rows:
            yield f"{path}.rows", "at least one row"
        for index, row in enumerate(section.rows):
            yield from self.text(f"{path}.rows[{index}].id", row.id, 200)
            yield from self.text(f"{path}.rows[{index}].title", row.title, 24)
            if row.description is not None:
                yield from self.text(f"{path}.rows[{index}].description", row.description, 72)

    def distinct(self, path: str, what: str, values: list[str]) -> Iterator[Fault]:
        known = [value for value in values if self.known(value)]
        if len(set(known)) < len(known):
            yield path, f"two have the same {what}"


def _empty_parameters(parameters: list[str] | dict[str, str]) -> Iterator[tuple[str, str]]:
    """Empty parameters, which `_texts` leaves out and the Cloud API refuses."""
    if isinstance(parameters, dict):
        return ((f"template.parameters.{name}", "") for name, text in parameters.items() if not text)
    return ((f"template.parameters[{index}]", "") for index, text in enumerate(parameters) if not text)


def _is_url(link: str) -> bool:
    return link.startswith(("http://", "https://")) and len(link) <= 2048 and not re.search(r"\s", link)
