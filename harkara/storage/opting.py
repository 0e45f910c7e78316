"""What contacts have opted out of: by category, with when and how they said so.

`contacts.opted_out_at` and `opted_out_reason` are the opt-out of everything; `opt_outs` those of one category each, and
`opt_ins` what was last taken back: webhooks come in any order, and a STOP that is told late must not undo a START that
was written after it. Who reads and writes them here has the contact locked.

What a contact has opted out of is kept for its number when it loses it, and given to whoever gets it: the database does
that (migration 0024, docs/decisions/0062-an-opt-out-outlives-its-contact.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.schemas.keywords import Category

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Whether contact `k` has opted out of a category, which is SQL: a quoted word, or a column.
OUT_OF = "(k.opted_out_at is not null or k.opt_outs ? {category})"

#: Said once for all that is about campaigns: their steps are marketing.
OUT_OF_MARKETING = OUT_OF.format(category="'marketing'")

EVERYTHING: Category = "all"

#: Whoever opts out of these is sent nothing more of any campaign, whose steps are marketing: what runs is stopped.
STOPS_CAMPAIGNS = frozenset({"all", "marketing"})


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """When and how somebody opted out of something, or in again; `ended`: there was an opt-out to take back.

    `last` is when an opt-out was said again, if it was: only what is said after that takes it back. `by` names the
    message that said it, of which several may come in one second.
    """

    at: datetime
    source: str
    ended: bool = False
    last: datetime | None = None
    by: str = ""

    @property
    def latest(self) -> datetime:
        """When it was said last."""
        return self.last or self.at


@dataclass(frozen=True, slots=True)
class Word:
    """One thing somebody says: to hear nothing more of a category (`out`), or to hear of it again."""

    category: Category
    out: bool
    at: datetime
    source: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contact has opted out of, and what it took back."""

    outs: dict[str, Said] = field(default_factory=dict[str, Said])
    ins: dict[str, Said] = field(default_factory=dict[str, Said])


def after(before: Standing, word: Word) -> Standing:
    """How things stand once a word is heard, whatever order words are heard in. Of two at the same time STOP wins."""
    if word.out:
        taken_back = [before.ins[of].at for of in (word.category, EVERYTHING) if of in before.ins]
        if any(at > word.at for at in taken_back):
            return before
        said = before.outs.get(word.category)
        if said is not None:
            later = msgspec.structs.replace(said, last=max(said.latest, word.at))
            return before if word.at <= said.latest else Standing(before.outs | {word.category: later}, before.ins)
        return Standing(before.outs | {word.category: Said(word.at, word.source, by=word.by)}, before.ins)
    last = before.ins.get(word.category)
    if last is not None and last.at >= word.at:
        return before
    meant = before.outs if word.category == EVERYTHING else {word.category} & before.outs.keys()
    ended = {of for of in meant if before.outs[of].latest < word.at}
    left = {of: said for of, said in before.outs.items() if of not in ended}
    return Standing(left, before.ins | {word.category: Said(word.at, word.source, bool(ended), by=word.by)})


def consented(before: Standing, at: datetime, source: str, categories: Sequence[str]) -> Standing:
    """How things stand after a consent: it takes back what was opted out of before, if it is what the consent is for.

    Without categories it is for all of them. An opt-out of everything it takes back in any case.
    """
    now = before
    for of in (EVERYTHING, *(categories or before.outs)):
        if of in now.outs and now.outs[of].latest < at:
            left = {other: said for other, said in now.outs.items() if other != of}
            now = Standing(left, now.ins | {of: Said(at, source, True)})
    return now


def join(one: Standing, other: Standing) -> Standing:
    """How things stand for somebody who was two: an opt-out of either stands, since the first."""
    outs = {
        of: min((a.outs[of] for a in (one, other) if of in a.outs), key=lambda said: said.at)
        for of in one.outs | other.outs
    }
    ins = {
        of: max((a.ins[of] for a in (one, other) if of in a.ins), key=lambda said: said.at)
        for of in one.ins | other.ins
    }
    return Standing(outs, ins)


def stands(standing: Standing, word: Word) -> bool:
    """Whether this very word is why things stand as they do: also when it is heard a second time."""
    said = (standing.outs if word.out else standing.ins).get(word.category)
    if said is None or not (word.out or said.ended):
        return False
    return (said.at, said.source, said.by) == (word.at, word.source, word.by)


_decode = msgspec.json.Decoder(dict[str, Said]).decode


def read(opted_out_at: datetime | None, reason: str | None, outs: str | Any, ins: str | Any) -> Standing:
    """How things stand, by a contact's columns; JSON as text, or decoded."""
    said = _said(outs)
    more = said.pop(EVERYTHING, None)
    if opted_out_at is not None:
        said[EVERYTHING] = _everything(opted_out_at, reason or "", more)
    return Standing(said, _said(ins))


def _everything(at: datetime, source: str, more: Said | None) -> Said:
    """The opt-out of everything: two columns, and what they don't say."""
    if more is None or more.at != at:
        return Said(at, source)
    return msgspec.structs.replace(more, source=source)


def _said(found: Any) -> dict[str, Said]:
    return _decode(found) if isinstance(found, str) else msgspec.convert(found, dict[str, Said])


def columns(standing: Standing) -> dict[str, Any]:
    """A contact's columns, JSON decoded."""
    everything = standing.outs.get(EVERYTHING)
    return {
        "opted_out_at": everything.at if everything else None,
        "opted_out_reason": everything.source if everything else None,
        "opt_outs": msgspec.to_builtins(standing.outs),
        "opt_ins": msgspec.to_builtins(standing.ins),
    }


_STANDING = """
select opted_out_at, opted_out_reason, opt_outs::text, opt_ins::text from contacts
where tenant_id = $1 and id = $2 for no key update
"""

_WRITE = """
update contacts set opted_out_at = $3, opted_out_reason = $4, opt_outs = $5::jsonb, opt_ins = $6::jsonb,
                    updated_at = now()
where tenant_id = $1 and id = $2
"""


async def hear(con: Connection, tenant: str, contact_id: UUID, word: Word) -> bool:
    """Write down what a contact says. Returns whether that is how things stand now because of this very word."""
    row = await con.fetchrow(_STANDING, tenant, contact_id)
    if row is None:
        return False
    before = read(*row)
    now = after(before, word)
    if now != before:
        made = columns(now)
        outs, ins = (msgspec.json.encode(made[name]).decode() for name in ("opt_outs", "opt_ins"))
        await con.execute(_WRITE, tenant, contact_id, made["opted_out_at"], made["opted_out_reason"], outs, ins)
    return stands(now, word)
