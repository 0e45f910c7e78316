"""A webhook that says much, in parts that say little each: nobody waits for all of it to be read.

Items stay as they came, byte for byte; what lies around them is repeated as far as it is read. What one contact says
stays together and in order. What has not the shape that is known stays whole, for whoever reads it to say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from harkara.gateway.inbound import CHANGES_WITH_ITEMS

#: What a part weighs at most, and what is in it: what somebody says is written alone, a status among hundreds.
MOST, SAID, TOLD = 1_000, 20, 1

#: Meta says that a webhook has at most 1,000 items. What has so many more is nobody's, and would keep us busy.
MOST_ITEMS = 20_000

#: What is shorter than this weighs less than a part.
_SHORT = 2_000

#: The lists of a change, what an item of each weighs, and under which names it says whose it is.
_LISTS = {
    "statuses": (TOLD, ("recipient_id", "recipient_user_id")),
    "messages": (SAID, ("from", "from_user_id")),
    "user_preferences": (SAID, ("wa_id", "user_id")),
    "calls": (SAID, ("from", "from_user_id")),
}
_OF_CONTACTS = ("wa_id", "user_id")

#: What is repeated in each part, unless it is longer than anything that a gateway writes there.
_REPEATED = frozenset({"object", "id", "time", "field", "messaging_product", "metadata", "event", "date_time"})
_LONGEST_REPEATED = 512

Object = dict[str, msgspec.Raw]

_object = msgspec.json.Decoder(Object).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str | int).decode


class _Atom(NamedTuple):
    """What is never cut, and where it lies: in which entry, change and list; as the list itself if that is none."""

    raw: msgspec.Raw
    weight: int = SAID
    entry: int = 0
    in_entry: Object | None = None
    change: int = 0
    in_change: Object | None = None
    in_value: Object | None = None
    name: str = ""
    listed: bool = True
    contacts: tuple[msgspec.Raw, ...] = ()


class TooMany(ValueError):
    """A webhook has more items than any gateway sends at once."""


def parts(source: str, body: bytes) -> list[bytes]:
    """The webhook in parts, in order; it alone if it says little. Together they say what it says. Raises TooMany."""
    if len(body) < _SHORT:
        return [body]
    whole = _object(body)
    runs = _of_list(whole) if source == "evolution" else _of_cloud(whole)
    groups = list(_groups(runs))
    if len(groups) < 2:
        return [body]
    around, write = _around(whole), _list_with if source == "evolution" else _cloud_with
    return [msgspec.json.encode(around | write(group)) for group in groups]


def _groups(runs: Iterable[list[_Atom]]) -> Iterator[list[_Atom]]:
    """As many runs as a part may weigh; a run is cut only if it weighs more than that alone."""
    group, weight, many = list[_Atom](), 0, 0
    for run in runs:
        many += len(run)
        if many > MOST_ITEMS:
            raise TooMany
        for few in _cut(run):
            more = sum(one.weight for one in few)
            if group and weight + more > MOST:
                yield group
                group, weight = [], 0
            group += few
            weight += more
    if group:
        yield group


def _cut(run: list[_Atom]) -> Iterator[list[_Atom]]:
    many = MOST // run[0].weight
    return (run[begin : begin + many] for begin in range(0, len(run), many))


def _of_list(whole: Object) -> Iterator[list[_Atom]]:
    """What the Evolution API reports, several at once."""
    return ([_Atom(one)] for one in _listed(whole.get("data")) or ())


def _list_with(group: list[_Atom]) -> dict[str, Any]:
    return {"data": [one.raw for one in group]}


def _of_cloud(whole: Object) -> Iterator[list[_Atom]]:
    for place, entry in enumerate(_listed(whole.get("entry")) or ()):
        inside = _inside(entry)
        changes = _listed(inside.get("changes")) if inside else None
        if inside is None or changes is None:
            yield [_Atom(entry, entry=place)]
            continue
        for number, change in enumerate(changes):
            yield from _of_change(_Atom(change, entry=place, in_entry=_around(inside), change=number))


def _of_change(whole: _Atom) -> Iterator[list[_Atom]]:
    """What contacts say by who says it, in the order in which they begin; anything else one by one."""
    inside = _inside(whole.raw)
    value = _inside(inside["value"]) if inside and "value" in inside else None
    if inside is None or value is None or _str(inside.get("field")) not in CHANGES_WITH_ITEMS:
        yield [whole]
        return
    here = whole._replace(in_change=_around(inside), in_value=_around(value))
    contacts, odd = _contacts(value.get("contacts"))
    yield from ([here._replace(raw=one, weight=TOLD, name="contacts")] for one in odd)
    for name in ("contacts", *_LISTS):
        listed = _listed(value.get(name))
        if name in value and listed is None:
            yield [here._replace(raw=value[name], name=name, listed=False)]
        elif name in _LISTS:
            yield from _by_speaker(here._replace(name=name), listed or [], contacts)


def _by_speaker(here: _Atom, listed: list[msgspec.Raw], contacts: dict[str, msgspec.Raw]) -> Iterator[list[_Atom]]:
    weight, names = _LISTS[here.name]
    runs: dict[object, list[_Atom]] = {}
    for place, one in enumerate(listed):
        whose = [key.removeprefix("+") for key in _keys(one, names)]
        known = tuple(contacts[key] for key in whose if key in contacts)
        run = whose[0] if whose and weight == SAID else place
        runs.setdefault(run, []).append(here._replace(raw=one, weight=weight, contacts=known))
    return iter(runs.values())


def _contacts(told: msgspec.Raw | None) -> tuple[dict[str, msgspec.Raw], list[msgspec.Raw]]:
    """Those that are named, by number and id; and what else is there, which nobody will look for."""
    named: dict[str, msgspec.Raw] = {}
    odd: list[msgspec.Raw] = []
    for one in _listed(told) or ():
        keys = _keys(one, _OF_CONTACTS) if len(bytes(one)) <= _LONGEST_REPEATED else []
        named.update(dict.fromkeys(keys, one))
        if not keys:
            odd.append(one)
    return named, odd


def _cloud_with(group: list[_Atom]) -> dict[str, Any]:
    entries: list[Any] = []
    for _, of_entry in groupby(group, lambda one: one.entry):
        atoms = list(of_entry)
        changes = [_change(list(of_change)) for _, of_change in groupby(atoms, lambda one: one.change)]
        shell = atoms[0].in_entry
        entries.append(atoms[0].raw if shell is None else shell | {"changes": changes})
    return {"entry": entries}


def _change(atoms: list[_Atom]) -> Any:
    first = atoms[0]
    if first.in_change is None:
        return first.raw
    value: dict[str, Any] = dict(first.in_value or {})
    if contacts := {bytes(contact): contact for one in atoms for contact in one.contacts}:
        value["contacts"] = list(contacts.values())
    for one in atoms:
        if one.listed:
            value.setdefault(one.name, []).append(one.raw)
        else:
            value[one.name] = one.raw
    return first.in_change | {"value": value}


def _around(told: Object) -> dict[str, Any]:
    return {name: raw for name, raw in told.items() if name in _REPEATED and len(bytes(raw)) <= _LONGEST_REPEATED}


def _inside(raw: msgspec.Raw) -> Object | None:
    try:
        return _object(raw)
    except msgspec.DecodeError:
        return None


def _listed(raw: msgspec.Raw | None) -> list[msgspec.Raw] | None:
    try:
        listed = None if raw is None else _list(raw)
    except msgspec.DecodeError:
        return None
    if listed and len(listed) > MOST_ITEMS:
        raise TooMany
    return listed


def _keys(raw: msgspec.Raw, names: Iterable[str]) -> list[str]:
    inside = _inside(raw) or {}
    return [key for name in names if (key := _str(inside.get(name)))]


def _str(raw: msgspec.Raw | None) -> str | None:
    try:
        return None if raw is None else str(_text(raw))
    except msgspec.DecodeError:
        return None
