"""A value that is not of its type: every fault of it, and the same value with something in the place of what is wrong.

What is mended is never used but to look for further faults, so that all can be told at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin
from uuid import UUID

import msgspec

from harkara.http.problems import Fault
from harkara.wording import alternatives, misfit

#: Two texts that stand in are not alike: where they must not be, that is no fault.
_NUMBERS = itertools.cycle(range(10_000))

#: What stands in the place of a value that is wrong or missing, by its type.
_STAND_INS: dict[Any, Callable[[], object]] = {
    str: lambda: f"x{next(_NUMBERS)}",
    int: lambda: 1,
    float: lambda: 1.0,
    bool: lambda: False,
    UUID: lambda: UUID(int=0),
    datetime: lambda: datetime.now(UTC),
    list: list,
    dict: dict,
}


class Mending:
    """Mends values and collects their `faults`. With `strict`, a text is no number."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.faults: list[Fault] = []

    def mend(self, value: object, type_: Any, path: str) -> Any:
        """The value as this type. msgspec stops at the first fault, so objects and lists are looked at part by part."""
        try:
            return msgspec.convert(value, type_, strict=self._strict)
        except msgspec.ValidationError as error:
            before = len(self.faults)
            mended = self._parts(value, type_, path)
            if len(self.faults) == before:
                where, message = misfit(error, type_, as_text=not self._strict)
                self.faults.append((f"{path}{where}" if where.startswith("[") else joined(path, where), message))
            return mended

    def is_about(self, path: str) -> bool:
        """Whether a fault was found at this path or above it: then what is there was put there."""
        return any(
            not known or path == known or path.startswith((f"{known}.", f"{known}[")) for known, _ in self.faults
        )

    def _parts(self, value: object, type_: Any, path: str) -> Any:
        for one in alternatives(type_):
            if isinstance(value, dict) and isinstance(one, type) and issubclass(one, msgspec.Struct):
                given = cast("dict[str, object]", value)
                if not _is_tagged_otherwise(given, one):
                    return self._object(given, one, path)
            elif isinstance(value, dict) and get_origin(one) is dict:
                given, (names, of) = cast("dict[str, object]", value), get_args(one)
                if get_origin(names) is Literal:
                    given = self._known(given, get_args(names), path)
                return {name: self.mend(item, of, joined(path, name)) for name, item in given.items()}
            elif isinstance(value, list) and get_origin(one) is list:
                items, of = cast("list[object]", value), get_args(one)[0]
                return [self.mend(item, of, f"{path}[{index}]") for index, item in enumerate(items)]
        return stand_in(type_)

    def _known(
        self, value: dict[str, object], names: Collection[str], path: str, but: str | None = None
    ) -> dict[str, object]:
        """What has one of these names, or `but`; each other one is a fault."""
        possible = f"possible are {', '.join(names)}" if names else "no body is needed"
        unknown = [name for name in value if name not in names and name != but]
        self.faults += [(joined(path, name), f"is unknown here: {possible}") for name in unknown]
        return {name: item for name, item in value.items() if name not in unknown}

    def _object(self, value: dict[str, object], type_: type[msgspec.Struct], path: str) -> msgspec.Struct:
        fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
        self._known(value, fields, path, but=type_.__struct_config__.tag_field)
        mended: dict[str, object] = {}
        for name, field in fields.items():
            if name in value:
                mended[field.name] = self.mend(value[name], field.type, joined(path, name))
            elif field.required:
                self.faults.append((joined(path, name), "is missing"))
                mended[field.name] = stand_in(field.type)
        return type_(**mended)


def stand_in(type_: Any) -> Any:
    """Something of this type, which is there: None only where nothing else is possible."""
    one = next((one for one in alternatives(type_) if one not in (NoneType, msgspec.UnsetType)), NoneType)
    origin = get_origin(one) or one
    if origin is Literal:
        return get_args(one)[0]
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        needed = [field for field in msgspec.structs.fields(origin) if field.required]
        return origin(**{field.name: stand_in(field.type) for field in needed})
    return _STAND_INS.get(origin, lambda: None)()


def joined(path: str, name: str) -> str:
    """The path of what has this name in the object at `path`; of the object itself without a name."""
    return f"{path}.{name}" if path and name else path or name


def _is_tagged_otherwise(value: dict[str, object], type_: type[msgspec.Struct]) -> bool:
    """Whether an object's tag says that it is not this one of several types."""
    config = type_.__struct_config__
    return config.tag_field is not None and value.get(config.tag_field) != config.tag
