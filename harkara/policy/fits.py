"""Whether what a message gives a template is what that takes, as WhatsApp describes it: known before it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from harkara.schemas.content import Content, Fault, Media, Template, TemplateButton

#: Characters of a template's text with its parameters filled in, and of a one-time code.
BODY_LIMIT, CODE_LIMIT = 1024, 15

_PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_ADDRESS = re.compile(r"https?://|www\.", re.IGNORECASE)


class Button(msgspec.Struct, frozen=True):
    """One button of a template."""

    type: str = ""
    url: str = ""


class Component(msgspec.Struct, frozen=True):
    """A part of a template; Meta adds fields, so unknown ones are ignored."""

    type: str = ""
    format: str = "TEXT"
    text: str = ""
    buttons: list[Button] = []


#: Kinds of a template's buttons, in Meta's words, by what fills them in.
_FILLED_BY = {"url": ("URL", "OTP"), "quick_reply": ("QUICK_REPLY",), "copy_code": ("COPY_CODE",)}


def components(raw: Any) -> list[Component] | None:
    """A template's parts; None if nothing is known about them."""
    try:
        return msgspec.convert(raw, list[Component]) or None
    except msgspec.ValidationError:
        return None


def refused(template: Template, raw: Any, category: str) -> list[Fault]:
    """What WhatsApp would refuse of a template that is filled in for somebody; nothing if its parts are not known."""
    parts = components(raw)
    return [] if parts is None else list(misfits(template, parts, category))


def misfits(template: Template, parts: Sequence[Component], category: str) -> Iterator[Fault]:
    """What WhatsApp would refuse of a template that is filled in for somebody, as (path, message) pairs."""
    by_type = {part.type.upper(): part for part in parts}
    body, header = by_type.get("BODY", Component()), by_type.get("HEADER")
    yield from _parameters(template, body.text)
    yield from _header(template, header)
    yield from _buttons(template, by_type.get("BUTTONS", Component()).buttons)
    if category.lower() == "authentication":
        yield from _code(template)


def wording(template: Template, raw: Any) -> str | None:
    """What a template says with its parameters in their places: header, body and footer, each a line of its own.

    None if its text is not known. What is not given stands as the template has it.
    """
    said = {part.type.upper(): part.text for part in components(raw) or ()}
    header = {template.header_name or "1": template.header} if isinstance(template.header, str) else dict[str, str]()
    given = template.parameters
    body = given if isinstance(given, dict) else {str(place): text for place, text in enumerate(given, 1)}
    lines = [_with(said.get("HEADER", ""), header), _with(said.get("BODY", ""), body), said.get("FOOTER", "")]
    return "\n".join(filter(None, lines)) or None


def _with(text: str, given: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: given.get(place[1], place[0]), text)


def _parameters(template: Template, text: str) -> Iterator[Fault]:
    places, given = list(dict.fromkeys(_PLACE.findall(text))), template.parameters
    named = any(not place.isdecimal() for place in places)
    if isinstance(given, dict):
        if places and not named:
            yield "template.parameters", f"this template counts its parameters: give a list of {len(places)}"
        elif set(given) != set(places):
            yield "template.parameters", f"this template takes {_listed(places)}, and {_listed(list(given))} are given"
    elif named and given:
        yield "template.parameters", f"this template names its parameters: give an object with {_listed(places)}"
    elif len(given) != len(places):
        takes = f"{len(places)} parameter{'' if len(places) == 1 else 's'}"
        yield "template.parameters", f"this template takes {takes}, not {len(given)}"
    yield from too_long(template, len(_PLACE.sub("", text)))


def fixed_length(raw: Any) -> int | None:
    """How long a template's text is without its parameters; None if its parts are not known."""
    parts = components(raw)
    return None if parts is None else sum(len(_PLACE.sub("", p.text)) for p in parts if p.type.upper() == "BODY")


def overlong(content: Content, lengths: Mapping[tuple[str, str], int]) -> list[Fault]:
    """That its template becomes too long with what is put into it, if it does; `lengths` are by name and language."""
    template = content.template
    fixed = None if template is None else lengths.get((template.name, template.language))
    return [] if template is None or fixed is None else list(too_long(template, fixed))


def too_long(template: Template, fixed: int) -> Iterator[Fault]:
    """That the text becomes longer than WhatsApp takes, if it does; without its parameters it is `fixed` long."""
    given = template.parameters
    length = fixed + sum(map(len, given.values() if isinstance(given, dict) else given))
    if length > BODY_LIMIT:
        yield "template.parameters", f"the template's text becomes {length} characters long: {BODY_LIMIT} are possible"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _header(template: Template, part: Component | None) -> Iterator[Fault]:
    given, kind = template.header, "text" if part is None else part.format.lower()
    if kind == "text":
        yield from _text_header(template, [] if part is None else _PLACE.findall(part.text))
    elif kind not in ("image", "video", "document"):
        yield (
            "template.header",
            f"this template's header takes a {kind}, which can't be given here: use another",
        )
    elif not isinstance(given, Media) or given.type != kind:
        yield "template.header", f"this template's header takes a file of the type {kind}"


def _text_header(template: Template, places: list[str]) -> Iterator[Fault]:
    given = template.header
    if places and not isinstance(given, str):
        yield "template.header", "this template's header takes a text"
    elif given is not None and not places:
        yield "template.header", "this template's header takes nothing: leave it out"
    elif places and (template.header_name or "1") != places[0]:
        how = f"give {places[0]}" if not places[0].isdecimal() else "leave it out"
        yield "template.header_name", f"is not what this template calls its header's parameter: {how}"


def _buttons(template: Template, known: Sequence[Button]) -> Iterator[Fault]:
    filled = set[int]()
    for place, button in enumerate(template.buttons):
        index = place if button.index is None else button.index
        fault = _misfit(button, known[index] if index < len(known) else None, index)
        if index in filled:
            fault = f"the template's button {index} is given twice"
        filled.add(index)
        if fault is not None:
            yield f"template.buttons[{place}]", fault
    for index, one in enumerate(known):
        if index not in filled and _is_open(one):
            yield "template.buttons", f"the template's button {index} ({one.type.lower()}) has to be filled in"


def _misfit(button: TemplateButton, known: Button | None, index: int) -> str | None:
    if known is None:
        return f"this template has no button {index}"
    if known.type.upper() not in _FILLED_BY[button.type]:
        return f"the template's button {index} is of the type {known.type.lower()}"
    if button.type == "url" and not _is_open(known):
        return f"the address of the template's button {index} is fixed: leave it out"
    return None


def _is_open(button: Button) -> bool:
    """Whether it must be filled in. What a quick reply sends back may be left out."""
    kind = button.type.upper()
    return kind in ("COPY_CODE", "OTP") or (kind == "URL" and bool(_PLACE.search(button.url)))


def _code(template: Template) -> Iterator[Fault]:
    """A one-time code stands in the body and in its button, and is nothing else."""
    given = template.parameters
    codes = list(given.values()) if isinstance(given, dict) else given
    for code in codes:
        if len(code) > CODE_LIMIT:
            yield "template.parameters", f"a code has at most {CODE_LIMIT} characters (this has {len(code)})"
        if _ADDRESS.search(code):
            yield "template.parameters", "a code is no web address"
    if codes and [button.value for button in template.buttons if button.type == "url"] != codes[:1]:
        yield "template.buttons", "a code is given twice: as parameter, and as value of the url button"
