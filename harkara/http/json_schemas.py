"""From msgspec types to JSON Schemas as OpenAPI 3.1 takes them: what msgspec writes, with its gaps put right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, cast, get_args, get_origin

import msgspec
from msgspec import Struct, UnsetType

Schema: TypeAlias = dict[str, Any]

WHERE = "#/components/schemas/{name}"

_GENERIC = re.compile(r"^(\w+)\[(\w+)\]$")


class Schemas:
    """The schemas of all these types, made at once, so that what they share is described once."""

    def __init__(self, types: Iterable[Any]) -> None:
        single = list(dict.fromkeys(one for type_ in types for one in alternatives(type_)))
        made, components = msgspec.json.schema_components(single, ref_template=WHERE)
        renamed = {name: _name(schema.get("title", name)) for name, schema in components.items()}
        always = _always_told(single)
        self._made = {type_: _mended(schema, renamed) for type_, schema in zip(single, made, strict=True)}
        #: By the names that `$ref` gives them.
        self.components: dict[str, Schema] = {}
        for name, schema in components.items():
            mended = cast("Schema", _mended(schema, renamed))
            if name in always:
                mended["required"] = always[name]
            self.components[renamed[name]] = mended

    def of(self, type_: Any) -> Schema:
        """The schema of one of the types, or of a union of several."""
        found = [self._made[one] for one in alternatives(type_)]
        return found[0] if len(found) == 1 else {"anyOf": found}


def parameters(type_: type[Struct]) -> Iterator[tuple[str, Schema, bool]]:
    """The query parameters that a Struct stands for: name, schema, and whether it is needed.

    A parameter can be left out but can't be null.
    """
    (_,), components = msgspec.json.schema_components([type_], ref_template=WHERE)
    whole = cast("Schema", _mended(components[type_.__name__], {}))
    for name, schema in whole["properties"].items():
        yield name, _without_null(schema), name in whole.get("required", ())


def alternatives(type_: Any) -> tuple[Any, ...]:
    """The types of a union of several Structs, which msgspec takes only one by one."""
    if get_origin(type_) in (Union, UnionType):
        return tuple(one for one in get_args(type_) if one is not type(None))
    return (type_,)


def structs(types: Iterable[Any]) -> set[type[Struct]]:
    """Every Struct that these types consist of, however deep."""
    found: set[type[Struct]] = set()
    left = list(types)
    while left:
        one = left.pop()
        origin = get_origin(one)
        if isinstance(one, type) and issubclass(one, Struct) and one not in found:
            found.add(one)
            left += [field.type for field in msgspec.structs.fields(one)]
        elif isinstance(origin, type) and issubclass(origin, Struct):
            left += get_args(one)
        elif origin is Annotated:
            left.append(get_args(one)[0])
        elif origin is not None:
            left += get_args(one)
    return found


def _always_told(types: Iterable[Any]) -> dict[str, list[str]]:
    """By name of a Struct that is told whole: the fields that are always there, with a default too."""
    return {
        one.__name__: [field.encode_name for field in msgspec.structs.fields(one) if not _may_be_unset(field.type)]
        for one in structs(types)
        if not one.__struct_config__.omit_defaults
    }


def _may_be_unset(type_: Any) -> bool:
    return type_ is UnsetType or any(_may_be_unset(one) for one in get_args(type_))


def _name(title: str) -> str:
    """`Page[ContactShown]` is a ContactShownPage."""
    generic = _GENERIC.match(title)
    return generic[2] + generic[1] if generic else title


def _mended(value: Any, renamed: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_mended(one, renamed) for one in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    made = {key: _mended(one, renamed) for key, one in cast("Schema", value).items()}
    if isinstance(made.get("$ref"), str):
        name = made["$ref"].rpartition("/")[2]
        made["$ref"] = WHERE.format(name=renamed.get(name, name))
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(r"\Z", "$")  # the same, where $ means nothing but the end
    if isinstance(made.get("description"), str):
        made["description"] = cleandoc(made["description"])
    if isinstance(made.get("title"), str):
        made["title"] = _name(made["title"])
    if made.get("required") == []:
        del made["required"]
    return made


def _without_null(schema: Schema) -> Schema:
    schema = {key: one for key, one in schema.items() if not (key == "default" and one is None)}
    some = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    if len(some) == 1:
        return {**some[0], **schema}
    return {**schema, "anyOf": some} if some else schema
