"""Which messages of a dry run could not be said, counted over many contacts: texts are filled in as for the real ones.

Only what texts name is read of a contact, and what reads alike is filled in once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara import templating
from harkara.http.campaign_rows import content_of, variants_of
from harkara.policy.fits import overlong
from harkara.rendering import Unsayable, choose, said
from harkara.schemas.campaigns import DryFault
from harkara.schemas.content import Content
from harkara.schemas.variants import Variant
from harkara.storage.models import CampaignStep
from harkara.templating import TemplateFault, variables

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Contacts whose texts are tried at most: 0.3 s of CPU for three steps, less where many read alike.
TRIED = 10_000

#: Of contacts whom nothing else keeps from being enrolled: what texts may name.
PEOPLE = """
select m.id, k.name, coalesce(k.phone, k.wa_user_id, '-') as phone, k.locale,
       (select jsonb_object_agg(a.key, a.value) from jsonb_each(k.attributes) a where a.key = any (${names}))::text
         as attributes
from (select id from ({meant}) m where reason is null order by id limit {limit}) m join contacts k on k.id = m.id
"""

#: Variables that are fields of the contact, by what else has to be alike for the same text to come out.
FIELDS = {"name": "name", "first_name": "name", "phone": "phone", "locale": "locale"}


@dataclass(slots=True)
class Faults:
    """How many contacts can't be sent a step, by what is wrong first; `message` is that of one of them."""

    message: dict[str, str] = field(default_factory=dict[str, str])
    contacts: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, path: str, message: str) -> None:
        """One more."""
        self.message.setdefault(path, message)
        self.contacts[path] = self.contacts.get(path, 0) + 1

    def shown(self) -> list[DryFault]:
        """Those that most have first."""
        paths = sorted(self.contacts, key=self.contacts.__getitem__, reverse=True)
        return [DryFault(path=path, message=self.message[path], contacts=self.contacts[path]) for path in paths]


class _Saying:
    """What one step, or one variant of it, says: to whom it can't be said."""

    def __init__(self, content: Content, lengths: Mapping[tuple[str, str], int]) -> None:
        self._content, self._lengths = content, lengths
        names = _named(content)
        self.varies = bool(names)
        self._fields = sorted({FIELDS[name] for name in names if name in FIELDS})
        self.attributes = frozenset(name.split(".")[1] for name in names if name.startswith("attributes."))
        self._known: dict[tuple[Any, ...], tuple[str, str] | None] = {}

    def fault(self, person: Any, attributes: dict[str, Any]) -> tuple[str, str] | None:
        """The first fault for somebody, looked for once for all who read alike."""
        key = (person["attributes"], *(person[name] for name in self._fields))
        if key not in self._known:
            self._known[key] = self._look(person, attributes)
        return self._known[key]

    def _look(self, person: Any, attributes: dict[str, Any]) -> tuple[str, str] | None:
        values = variables(name=person["name"], phone=person["phone"], locale=person["locale"], attributes=attributes)
        try:
            faults = overlong(said(self._content, values), self._lengths)
        except Unsayable as fault:
            return fault.faults[0]
        return faults[0] if faults else None


class Trial:
    """The steps of a version, tried on contacts."""

    def __init__(self, steps: Sequence[CampaignStep], lengths: Mapping[tuple[str, str], int]) -> None:
        self._steps = [
            (step, variants, [_Saying(content, lengths) for content in _contents(step, variants)])
            for step in steps
            for variants in [variants_of(step)]
        ]
        self.varies = any(saying.varies for _, _, sayings in self._steps for saying in sayings)

    async def people(self, con: Connection, meant: str, values: Sequence[Any]) -> list[Any]:
        """What is read of the contacts on whom the steps are tried; nobody if texts are the same for all."""
        if not self.varies:
            return []
        names = {name for _, _, sayings in self._steps for saying in sayings for name in saying.attributes}
        sql = PEOPLE.format(names=len(values) + 1, meant=meant, limit=TRIED)
        return list(await con.fetch(sql, *values, sorted(names)))

    async def faults(self, people: Sequence[Any]) -> list[Faults]:
        """By step, how many of them can't be sent it. Others are served meanwhile."""
        return await asyncio.to_thread(self._faults, people)

    def _faults(self, people: Iterable[Any]) -> list[Faults]:
        found, decoded = [Faults() for _ in self._steps], dict[str | None, dict[str, Any]]()
        for person in people:
            text = person["attributes"]
            if text not in decoded:
                decoded[text] = msgspec.json.decode(text) if text else {}
            for (step, variants, sayings), faults in zip(self._steps, found, strict=True):
                fault = _of(step, variants, sayings, person["id"]).fault(person, decoded[text])
                if fault is not None:
                    faults.add(*fault)
        return found


def _contents(step: CampaignStep, variants: Sequence[Variant]) -> list[Content]:
    return [variant.content() for variant in variants] or [content_of(step)]


def _of(step: CampaignStep, variants: Sequence[Variant], sayings: Sequence[_Saying], contact: UUID) -> _Saying:
    chosen = choose(variants, step.origin or step.id, contact)
    return sayings[0] if chosen is None else sayings[variants.index(chosen)]


def _named(content: Content) -> set[str]:
    names = set[str]()
    for _, text in content.texts():
        try:
            names |= templating.used(text)
        except TemplateFault:  # it is nobody's: every contact meets it
            names.add("name")
    return names
