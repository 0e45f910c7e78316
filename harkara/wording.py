"""What a value must be, in the words of JSON and of whoever sends it: msgspec says it in those of Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

_TIME = "2026-01-31T09:00:00Z"

#: Kinds of values by msgspec's names.
_KINDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "a boolean (true or false)",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "uuid": "an id (a UUID)",
    "datetime": f"a time such as {_TIME}",
}

#: Kinds that a type which lists its values may have beside them.
_LISTED: dict[Any, str] = {int: _KINDS["int"], NoneType: _KINDS["null"]}

_PARTS = {"str": "characters", "array": "entries", "object": "entries"}

_BOUNDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}

#: What msgspec says, and what is said instead.
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"Expected `(.+)`, got `.+`", lambda found: f"must be {_any_of(found[1].split(' | '))}"),
    (r"Expected `(?:int|float)` ([<>]=?) (.+)", lambda found: f"must be {_BOUNDS[found[1]]} {float(found[2]):.16g}"),
    (r"Expected `\w+` of length >= 1", lambda _: "must not be empty"),
    (
        r"Expected `(\w+)` of length ([<>]=?) (\d+)",
        lambda found: f"must have {_BOUNDS[found[2]]} {found[3]} {_PARTS[found[1]]}",
    ),
    (r"Expected `datetime` with a timezone component", lambda _: f"must tell its time zone, as {_TIME} does"),
    (r"Invalid RFC3339 encoded datetime", lambda _: f"must be {_KINDS['datetime']}"),
    (r"Invalid UUID", lambda _: f"must be {_KINDS['uuid']}"),
    (r"Object missing required field `.+`", lambda _: "is missing"),
)

_PLACE = re.compile(r"(?P<message>.*?)(?: - at `(?P<name>key` in `)?\$\.?(?P<where>.*)`)?", re.DOTALL)


def misfit(error: msgspec.ValidationError, type_: Any, *, as_text: bool = False) -> tuple[str, str]:
    """Where in a value of this type the fault lies (empty for the value itself), and what must be there.

    `as_text`: the value came as text, as from a query or the environment, which has no null.
    """
    found = _PLACE.fullmatch(str(error))
    message, where = (found["message"], found["where"] or "") if found else (str(error), "")
    if found and found["name"]:
        return where, f"its names {_in_words(message)}"
    field, choices = _choices(type_)
    choices = [choice for choice in choices if choice != _KINDS["null"] or not as_text]
    if message == f"Object missing required field `{field}`":
        where = field
    if choices and where == field:
        return where, f"must be {'one of: ' if len(choices) > 1 else ''}{', '.join(choices)}"
    if " matching regex " in message and (own := _own_words(type_)):
        return where, f"must be {own}"
    return where, _in_words(message.replace(" | null", "") if as_text else message)


def alternatives(type_: Any) -> Iterator[Any]:
    """The plain types of a union, without their annotations."""
    for one in _members(type_):
        yield get_args(one)[0] if get_origin(one) is Annotated else one


def _members(type_: Any) -> Iterator[Any]:
    origin = get_origin(type_)
    if origin in (Union, UnionType):
        for one in get_args(type_):
            yield from _members(one)
    elif origin is Annotated and get_origin(get_args(type_)[0]) in (Union, UnionType):
        yield from _members(get_args(type_)[0])
    else:
        yield type_


def _choices(type_: Any) -> tuple[str, list[str]]:
    """What a value may be if its type lists it: its own values, or those of the field that tells objects apart."""
    types = list(alternatives(type_))
    configs = [one.__struct_config__ for one in types if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    if tagged := [config for config in configs if config.tag_field]:
        return str(tagged[0].tag_field), [str(config.tag) for config in tagged]
    values = [_shown(value) for one in types if get_origin(one) is Literal for value in get_args(one)]
    return "", [*values, *(_LISTED[one] for one in types if one in _LISTED)] if values else []


def _shown(value: object) -> str:
    """As in JSON, but a word without quotes."""
    return value if isinstance(value, str) and re.fullmatch(r"\w+", value) else msgspec.json.encode(value).decode()


def _own_words(type_: Any) -> str:
    """What a type with a pattern says of itself."""
    metas = (meta for one in _members(type_) for meta in get_args(one) if isinstance(meta, msgspec.Meta))
    return next((str(meta.extra["words"]) for meta in metas if meta.extra), "")


def _in_words(message: str) -> str:
    for pattern, words in _RULES:
        if found := re.fullmatch(pattern, message):
            return words(found)
    return message[:1].lower() + message[1:]


def _any_of(kinds: list[str]) -> str:
    """In words; of a number that need not be whole, not also that it may be."""
    *some, last = [_KINDS.get(kind, kind) for kind in kinds if kind != "int" or "float" not in kinds]
    return f"{', '.join(some)} or {last}" if some else last
