"""From JSON and query strings to typed bodies, or to a problem that names every fault at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar, cast, get_origin

import msgspec
from multidict import MultiMapping

from harkara.http.mending import Mending, joined
from harkara.http.problems import Fault, Problem, invalid, malformed
from harkara.schemas.base import Body
from harkara.wording import alternatives

T = TypeVar("T", bound=Body)
S = TypeVar("S", bound=msgspec.Struct)

TOO_DEEP = "the body is nested too deeply: no body of this API is"

NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Misshapen(Problem):
    """422: JSON, but not of the type. `mended` is of it, with something in the place of all that is wrong."""

    def __init__(self, mending: Mending, mended: Any) -> None:
        problem = invalid(*mending.faults)
        super().__init__(problem.status, problem.detail, errors=mending.faults)
        self.mending, self.mended = mending, mended


@lru_cache(maxsize=256)
def _decoder(type_: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def decode_body(raw: bytes, type_: type[T]) -> T:
    """The body as this type. Raises Problem: 400 if it isn't JSON, 422 with every fault if it isn't this type."""
    try:
        body: T = _decoder(type_).decode(raw)
    except NOT_READ as error:
        raise _refused(raw, type_, error) from None
    if b"\\u0000" in raw and _nuls(msgspec.to_builtins(body)):
        raise _misshapen(msgspec.json.decode(raw), type_, strict=True)
    _refuse_twice(raw)
    return body


def decode_query(query: MultiMapping[str], type_: type[S]) -> S:
    """The query parameters as this type. Raises Problem 422 with every fault."""
    given = _given(query, type_)
    _refuse_nul(given)
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError:
        raise _misshapen(given, type_, strict=False) from None


def refuse_query(query: MultiMapping[str]) -> None:
    """Raise Problem 422 that names each query parameter, where none is known."""
    if query:
        raise invalid(*((name, "is unknown here: this route has no query parameters") for name in dict.fromkeys(query)))


def _given(query: MultiMapping[str], type_: type[msgspec.Struct]) -> dict[str, str | list[str]]:
    """The values by name. Raises Problem 422 for a name that comes twice where one value belongs."""
    if not query:
        return {}
    many = _many(type_)
    found = {name: query.getall(name) for name in dict.fromkeys(query)}
    twice = [(name, "is given more than once") for name, all_ in found.items() if len(all_) > 1 and name not in many]
    if twice:
        raise invalid(*twice)
    return {name: all_ if name in many else all_[0] for name, all_ in found.items()}


@lru_cache(maxsize=256)
def _many(type_: type[msgspec.Struct]) -> frozenset[str]:
    """The parameters that may come more than once: lists."""
    fields = msgspec.structs.fields(type_)
    return frozenset(one.encode_name for one in fields if any(get_origin(a) is list for a in alternatives(one.type)))


def _refused(raw: bytes, type_: type[Any], error: Exception) -> Problem:
    if isinstance(error, msgspec.ValidationError):
        try:
            return _misshapen(msgspec.json.decode(raw), type_, strict=True)
        except NOT_READ as worse:  # what msgspec had not come to yet
            error = worse
    if isinstance(error, RecursionError):
        return malformed(TOO_DEEP)
    if not raw.strip():
        return malformed("the body is empty: send a JSON object")
    if (place := _half_character(raw)) is not None:
        return malformed(
            f"{place or 'the body'} is not Unicode: an escape from \\ud800 to \\udfff is half of a character, and the"
            " other half is missing: give both, or the character itself"
        )
    return malformed(f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}")


def _half_character(raw: bytes) -> str | None:
    """The path of the first text with one half of a surrogate pair, if that is what is wrong with a body."""
    if _SURROGATE.search(raw) is None:
        return None
    try:
        texts = list(_strings(json.loads(raw), ""))
    except (ValueError, RecursionError):
        return None
    return next((path for path, text in texts if _HALF.search(text)), None)


def _misshapen(value: object, type_: type[Any], *, strict: bool) -> Misshapen:
    mending = Mending(strict=strict)
    mended = mending.mend(value, type_, "")
    mending.faults += _nuls(value)
    return Misshapen(mending, mended)


class _Twice(Exception):
    """A JSON object has this name more than once."""


def _once(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))


#: What may be half of a character, as it is escaped; and what is, once it is read.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")

#: Every name of a body without escapes; also some that are none, but leaves none out.
_NAME = re.compile(rb'"([^"]*)"\s*:')

_names = json.JSONDecoder(object_pairs_hook=_once, parse_int=len, parse_float=len)


def _refuse_twice(raw: bytes) -> None:
    """Raise Problem 422 for an object that has a name twice: msgspec takes the last, others might take the first."""
    if b"\\" not in raw:
        names = _NAME.findall(raw)
        if len(set(names)) == len(names):  # no name twice in the whole body, so in no object of it
            return
    try:
        _names.decode(raw.decode())
    except _Twice as twice:
        raise invalid((str(twice), "is there more than once")) from None
    except RecursionError:
        raise malformed(TOO_DEEP) from None


def _refuse_nul(value: object) -> None:
    if faults := _nuls(value):
        raise invalid(*faults)


def _nuls(value: object) -> list[Fault]:
    return [(path, "must not contain the character NUL") for path, text in _strings(value, "") if "\x00" in text]


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield from _strings(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for name, item in cast("dict[str, object]", value).items():
            yield path, name
            yield from _strings(item, joined(path, name))
