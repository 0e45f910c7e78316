"""A phone number and a user id that WhatsApp names together are one person's: part of the receipts.

Who hides their number writes under a business-scoped user id alone; what they say must reach the contact with the
number (docs/decisions/0064-who-wrote-to-which-number.md).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import msgspec
from loguru import logger

from harkara.bus.messages import Delivery
from harkara.gateway.plain import LONGEST_USER_ID
from harkara.gateway.told import InboundMessage, Preference, Webhook, quoting
from harkara.schemas.work import Inbound
from harkara.storage import holding, merging, naming, outbox
from harkara.storage.naming import Found, Learned, Named
from harkara.storage.receiving import Known, Moved

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What a contact may have, as its table says.
DIGITS = re.compile(r"[1-9][0-9]{5,14}")

#: How many contacts are remembered with what their statuses named.
MOST_REMEMBERED = 50_000

Who = tuple[str, UUID]


class Seen:
    """What statuses have named of whom: it need not be looked up again. By contact, as numbers change hands."""

    def __init__(self) -> None:
        self._named: OrderedDict[Who, Named] = OrderedDict()

    def __contains__(self, one: tuple[Who, Named]) -> bool:
        return self._named.get(one[0]) == one[1]

    def add(self, who: Who, named: Named) -> None:
        """Call it when what was learned of it is committed."""
        self._named[who] = named
        self._named.move_to_end(who)
        if len(self._named) > MOST_REMEMBERED:
            self._named.popitem(last=False)


class _Told(NamedTuple):
    """Who was named, by which webhook, and for a status the contact to whom its message went."""

    d: Delivery[Inbound]
    named: Named
    of: Who | None = None


@dataclass(slots=True)
class Met:
    """What came of it: contacts that have opted out of something by it, and which contacts are part of which now."""

    gained: list[tuple[Delivery[Inbound], Known]] = field(default_factory=list[tuple[Delivery[Inbound], Known]])
    merged: dict[UUID, UUID] = field(default_factory=dict[UUID, UUID])
    seen: list[tuple[Who, Named]] = field(default_factory=list[tuple[Who, Named]])

    def now(self, moved: dict[tuple[str, str], Moved]) -> dict[tuple[str, str], Moved]:
        """The same messages, of the contacts that are left."""
        if not self.merged:
            return moved
        return {
            key: msgspec.structs.replace(
                one, contact_id=one.contact_id and self.merged.get(one.contact_id, one.contact_id)
            )
            for key, one in moved.items()
        }


async def meet(
    con: Connection,
    webhooks: Sequence[tuple[Delivery[Inbound], Webhook]],
    moved: Mapping[tuple[str, str], Moved],
    seen: Seen,
) -> Met:
    """Make one of whom these webhooks name as one, before anything that they say is done.

    Of two contacts the one without a number goes up in the other, as when people merge them: consent is the stricter
    of the two. Two that have numbers of their own stay two.
    """
    told = list({one.named: one for one in _told(webhooks, moved, seen)}.values())
    met = Met()
    if not told:
        return met
    found = await naming.find(con, [one.named for one in told])
    twice = [(one, has) for one, has in zip(told, found, strict=True) if _is_twice(has)]
    if twice:
        await _merge(con, twice, met)
        found = await naming.find(con, [one.named for one in told])
    learned = _learned(told, found)
    by_contact = {one.contact_id: d for d, one in learned}
    gained = await naming.learn(con, [one for _, one in learned])
    met.gained = [(by_contact[known.id], known) for known in gained]
    met.seen = [
        (one.of, one.named) for one, has in zip(told, found, strict=True) if one.of is not None and not _is_torn(has)
    ]
    return met


async def learn(con: Connection, tenant: str, phone: str | None, user_id: str | None) -> list[Known]:
    """What `meet` could not find yet: the contact behind these was made, or got its number, only just before.

    Returns it if it has opted out of something by what it learns.
    """
    named = _named(tenant, phone, user_id)
    if named is None:
        return []
    (has,) = await naming.find(con, [named])
    learned = _learns(named, has)
    return await naming.learn(con, [] if learned is None else [learned])


def _told(
    webhooks: Sequence[tuple[Delivery[Inbound], Webhook]], moved: Mapping[tuple[str, str], Moved], seen: Seen
) -> Iterator[_Told]:
    """All that is named together, but what is known of statuses already."""
    for d, webhook in webhooks:
        for status in webhook.statuses:
            message, named = moved.get((d.tenant, status.wamid)), _named(d.tenant, status.phone, status.user_id)
            if message is not None and named is not None:
                # What went to a bare number is asked about each time: who had no contact may have one by now.
                of = (d.tenant, message.contact_id) if message.contact_id is not None else None
                if of is None or (of, named) not in seen:
                    yield _Told(d, named, of)
        who: list[InboundMessage | Preference] = [*webhook.messages, *webhook.preferences]
        yield from (_Told(d, named) for one in who if (named := _named(d.tenant, one.phone, one.user_id)) is not None)
        for user_id, wamid in quoting(webhook.messages):
            yield _Told(d, Named(d.tenant, user_id, None, wamid, UUID(d.message.sender_id)))


def _named(tenant: str, phone: str | None, user_id: str | None) -> Named | None:
    """None unless there are both, and a contact can have them: a group's id is no number."""
    digits = phone.removeprefix("+") if phone else ""
    if not user_id or len(user_id) > LONGEST_USER_ID or not DIGITS.fullmatch(digits):
        return None
    return Named(tenant, user_id, f"+{digits}")


def _is_twice(has: Found) -> bool:
    """Whether they are one person's two contacts, of which one has no number."""
    return _is_torn(has) and has.phone_of_user is None


def _is_torn(has: Found) -> bool:
    return None not in (has.by_phone, has.by_user_id) and has.by_phone != has.by_user_id


async def _merge(con: Connection, twice: Sequence[tuple[_Told, Found]], met: Met) -> None:
    """All that are looked at by gates are waited for at once, so that two who merge never wait for each other."""
    pairs = {(one.named.tenant, kept, gone): one for one, (kept, _, _, gone, _) in twice if kept and gone}
    await holding.exclude(con, [id_ for _, *both in pairs for id_ in both])
    for (tenant, kept_id, gone_id), one in sorted(pairs.items(), key=lambda pair: pair[0]):
        rows = await merging.lock(con, tenant, [kept_id, gone_id])
        kept, gone = rows.get(kept_id), rows.get(gone_id)
        if kept is None or gone is None or (gone["wa_user_id"], gone["phone"]) != (one.named.user_id, None):
            continue  # another process has done it, or somebody gave it a number
        for event, name in await merging.merge(con, tenant, kept, gone):
            await outbox.put(con, tenant, event, name, one.d.cause or one.d.id)
        met.merged[gone_id] = kept_id


def _learned(told: Sequence[_Told], found: Sequence[Found]) -> list[tuple[Delivery[Inbound], Learned]]:
    """What contacts have from now on, each number and id once: of what contradicts itself the last counts."""
    learned: dict[object, tuple[Delivery[Inbound], Learned]] = {}
    for one, has in zip(told, found, strict=True):
        what = _learns(one.named, has)
        if what is not None:
            learned[what.tenant, one.named.user_id] = one.d, what
        elif _is_torn(has) and one.of is None:
            logger.bind(tenant=one.named.tenant, contact=str(has.by_phone)).warning(
                "WhatsApp says that this contact and {} are one, but both have numbers: merge them", has.by_user_id
            )
    for key in ("contact_id", "phone"):
        learned = {(what.tenant, getattr(what, key) or what.contact_id): (d, what) for d, what in learned.values()}
    return list(learned.values())


def _learns(named: Named, has: Found) -> Learned | None:
    """What one of the contacts learns: what nobody else has, and an id anew, for it is the last that WhatsApp says."""
    if has.by_user_id is None and has.by_phone is not None:
        # To a further number may belong another account of the same person's than the one that is known.
        replaces = has.user_id is None or has.phone == named.phone
        return Learned(named.tenant, has.by_phone, None, named.user_id) if replaces else None
    if has.by_phone is None and has.by_user_id is not None and has.phone_of_user is None and named.phone is not None:
        return Learned(named.tenant, has.by_user_id, named.phone, None)
    return None
