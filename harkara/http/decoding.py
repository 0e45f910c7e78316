"""From JSON and query strings to typed bodies, or to a problem that names every fault at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec

from harkara.http.problems import Fault, Problem, invalid, malformed
from harkara.schemas.base import Body

T = TypeVar("T", bound=Body)

NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@lru_cache(maxsize=256)
def _decoder(type_: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def decode_body(raw: bytes, type_: type[T]) -> T:
    """The body as this type. Raises Problem: 400 if it isn't JSON, 422 with every fault if it isn't this type."""
    try:
        body: T = _decoder(type_).decode(raw)
    except NOT_READ as error:
        raise _refused(raw, type_, error) from None
    if b"\\u0000" in raw:
        _refuse_nul(msgspec.to_builtins(body))
    return body


def decode_query(query: Mapping[str, str], type_: type[T]) -> T:
    """The query parameters as this type. Raises Problem 422 with every fault."""
    given = dict(query)
    _refuse_nul(given)
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError:
        raise invalid(*_faults(given, type_, "", strict=False)) from None


def _refused(raw: bytes, type_: type[Any], error: Exception) -> Problem:
    if isinstance(error, msgspec.ValidationError):
        try:
            return invalid(*_faults(msgspec.json.decode(raw), type_, "", strict=True))
        except NOT_READ as worse:  # what msgspec had not come to yet
            error = worse
    if isinstance(error, RecursionError):
        return malformed("the body is nested too deeply: no body of this API is")
    if not raw.strip():
        return malformed("the body is empty: send a JSON object")
    return malformed(f"the body is not JSON: {error}")


def _refuse_nul(value: object) -> None:
    faults = [(path, "must not contain the character NUL") for path, text in _strings(value, "") if "\x00" in text]
    if faults:
        raise invalid(*faults)


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield from _strings(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for name, item in cast("dict[str, object]", value).items():
            yield path, name
            yield from _strings(item, _joined(path, name))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _faults(value: object, type_: Any, path: str, *, strict: bool) -> Iterator[Fault]:
    """Every fault of a value. msgspec stops at the first, so objects and lists are looked at part by part."""
    try:
        msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        inner = list(_parts(value, type_, path, strict))
        yield from inner or [_told(str(error), path)]


def _parts(value: object, type_: Any, path: str, strict: bool) -> Iterator[Fault]:
    for one in _alternatives(type_):
        if isinstance(value, dict) and isinstance(one, type) and issubclass(one, msgspec.Struct):
            yield from _of_object(cast("dict[str, object]", value), one, path, strict)
        elif isinstance(value, dict) and get_origin(one) is dict:
            for name, item in cast("dict[str, object]", value).items():
                yield from _faults(item, get_args(one)[1], _joined(path, name), strict=strict)
        elif isinstance(value, list) and get_origin(one) is list:
            for index, item in enumerate(cast("list[object]", value)):
                yield from _faults(item, get_args(one)[0], f"{path}[{index}]", strict=strict)


def _of_object(value: dict[str, object], type_: type[msgspec.Struct], path: str, strict: bool) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    for name in value:
        if name not in fields:
            yield _joined(path, name), f"is unknown here: possible are {', '.join(fields)}"
    for name, field in fields.items():
        if name in value:
            yield from _faults(value[name], field.type, _joined(path, name), strict=strict)
        elif field.required:
            yield _joined(path, name), "is missing"


def _alternatives(type_: Any) -> Iterator[Any]:
    """The plain types of a union, without their annotations."""
    origin = get_origin(type_)
    if origin is Annotated:
        yield from _alternatives(get_args(type_)[0])
    elif origin in (Union, UnionType):
        for one in get_args(type_):
            yield from _alternatives(one)
    else:
        yield type_


def _told(text: str, path: str) -> Fault:
    """msgspec's own words, with our path: `Expected `int`, got `str` - at `$.a[0]``."""
    message, _, where = text.partition(" - at `$")
    where = where.rstrip("`").removeprefix(".") if where else ""
    full = path + where if where.startswith("[") else _joined(path, where) if where else path
    return full, message[:1].lower() + message[1:]
