"""Takes in what WhatsApp tells: statuses of our messages and messages to us.

takes: `in.whatsapp`, `in.evolution`, `in.waha`
says: message.sent, .delivered, .read, .failed, .queued; reply.received; contact.opted_out, .opted_in;
      contact.merged; enrollment.stopped, .goal_reached; sender.connected, .disconnected; template.updated; publishes
      `work.send.<sender>.utility` to confirm an opt-out
retries: while the database is away
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Protocol
from uuid import UUID

import msgspec
from loguru import logger

from harkara.actors.filing import Parts, file
from harkara.actors.halting import Refusal, halt_for
from harkara.actors.hearing import as_uuid, hear, storable
from harkara.actors.learning import Failure, Lessons, learn_late
from harkara.actors.librarian import updated_event
from harkara.actors.linking import TOO_EARLY_AGAIN, recognised, sessions, too_early
from harkara.actors.naming import Seen, meet
from harkara.actors.releasing import became
from harkara.actors.shares import Shares, weight
from harkara.actors.spelling import respelled
from harkara.actors.ticker import WAKE_SEND
from harkara.bus.handling import gives_up
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.publisher import Publisher
from harkara.bus.schedule import PATIENT, Schedule
from harkara.gateway.errors import rule_for
from harkara.gateway.reports import parse
from harkara.gateway.told import StatusUpdate, TemplateUpdate, Webhook
from harkara.gateway.unread import UNREADABLE
from harkara.ids import id_of
from harkara.policy import window
from harkara.schemas import events
from harkara.schemas.base import Message
from harkara.schemas.work import Inbound
from harkara.storage import enrolling, holding, outbox, receiving, resting, templates, usage
from harkara.storage.receiving import FORWARD, Moved, Receipt
from harkara.storage.resting import Rest
from harkara.storage.storage import Storage
from harkara.storage.usage import Priced, priced

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

_EVENTS: dict[str, type[events.MessageEvent]] = {
    "sent": events.MessageSent,
    "delivered": events.MessageDelivered,
    "read": events.MessageRead,
    "failed": events.MessageFailed,
}

#: Who reports under which source, in words.
GATEWAYS = {"whatsapp": "the Cloud API", "evolution": "the Evolution API", "waha": "WAHA"}

#: The statuses of a message that WhatsApp took.
_ARRIVED = ("sent", "delivered", "read")

Key = tuple[str, UUID]


class Counts(Lessons, Protocol):
    """Counts what comes in against the number's rate, and keeps what failures teach about it."""

    async def came_in(self, messages: Sequence[tuple[str, str, datetime]]) -> None: ...


class Receipts:
    """Writes a batch of webhooks in one transaction: statuses all at once, then what contacts say, one by one."""

    name: ClassVar[str] = "receipts"
    takes: ClassVar[tuple[type[Message], ...]] = (Inbound,)
    retries: ClassVar[Schedule] = PATIENT
    batch: ClassVar[int] = 100
    in_flight: ClassVar[int] = 1

    def __init__(
        self, storage: Storage, publisher: Publisher, counts: Counts | None = None, *, speed: float = 1.0
    ) -> None:
        self._storage, self._publisher, self._counts, self._speed = storage, publisher, counts, speed
        self._seen, self._shares = Seen(), Shares()
        #: What was put off of a batch that failed otherwise, by stream and sequence.
        self._waits: dict[tuple[str, int], Retry] = {}

    async def handle(self, batch: Sequence[Delivery[Inbound]]) -> Sequence[Outcome]:
        """Take in each webhook; one that isn't Meta's, or is for a number that nobody has, goes to the dead letters.

        So does one of which something can't be read, once the rest is done. What is more than its tenant's share waits,
        also if something else in the batch fails, after which each is handed over alone.
        """
        if len(batch) == 1 and (waits := self._waits.pop((batch[0].stream, batch[0].seq), None)):
            return [waits]
        parsed = [_parsed(delivery) for delivery in batch]
        weights = [0 if isinstance(parts, Drop) else weight(parts.values()) for parts in parsed]
        later = self._shares.put_off([(d.tenant, heavy) for d, heavy in zip(batch, weights, strict=True)], monotonic())
        now = [place for place in range(len(batch)) if place not in later]
        begun = monotonic()
        try:
            done = await self._take_in([batch[place] for place in now], [parsed[place] for place in now])
        except Exception as error:
            if later:
                self._waits = {(batch[place].stream, batch[place].seq): waits for place, waits in later.items()}
            if len(batch) == 1 and gives_up(error, batch[0].attempt, self.retries):
                async with self._storage.batch({batch[0].tenant}) as con:
                    await _give_up(con, [(batch[0], [])])
            raise
        self._shares.took(sum(weights[place] for place in now), monotonic() - begun)
        outcomes = later | dict(zip(now, done, strict=True))
        return [outcomes[place] for place in range(len(batch))]

    async def _take_in(self, batch: Sequence[Delivery[Inbound]], parsed: Sequence[Parts | Drop]) -> Sequence[Outcome]:
        async with self._storage.batch({d.tenant for d in batch}) as con:
            filed, lost = await file(con, list(zip(batch, parsed, strict=True)))
            good = await respelled(con, await recognised(con, [(d, webhook) for _, d, webhook in filed]))
            moved = await _statuses(con, [(d, webhook.statuses) for d, webhook in good])
            met = await meet(con, good, moved, self._seen)
            moved = met.now(moved)
            ended = await _unreachable(con, moved.values())
            await resting.rest(con, _rests(good, moved, self._speed))
            heard = await hear(con, good, moved, met.gained)
            linked = await sessions(con, good)
            changed = [await _templates(con, d, webhook.templates) for d, webhook in good]
            await usage.count(con, *_prices(moved))
            told: list[list[Outgoing]] = [[] for _ in batch]
            for (place, _, _), (d, webhook), *news in zip(filed, good, heard.told, linked, changed, strict=True):
                told[place] += [*_told(d, webhook, moved), *chain(*news)]
            await _give_up(con, [(batch[place], told[place]) for place in lost])
        if self._counts is not None:
            await self._counts.came_in([one for d, webhook in good for one in _came_in(d, webhook)])
            await learn_late(self._counts, _failures(good, moved))
        for who, named in met.seen:
            self._seen.add(who, named)
        for tenant, sender_id in {(one.tenant, one.sender_id) for one in heard.answers}:
            self._publisher.wake(WAKE_SEND, f"{tenant} {sender_id} utility".encode())
        later = any(told[place] for place in lost) or any(webhook.templates for _, webhook in good)
        if ended or heard.later or met.merged or later:
            self._publisher.wake(outbox.WAKE)
        early = {place for (place, _, _), (d, webhook) in zip(filed, good, strict=True) if too_early(d, webhook, moved)}
        return [
            lost.get(place) or (_again() if place in early else Done(tuple(told[place]))) for place in range(len(batch))
        ]


def _came_in(d: Delivery[Inbound], webhook: Webhook) -> Iterator[tuple[str, str, datetime]]:
    """Who has written when to which number, by that under which they are written to; not what is told a day late."""
    for m in webhook.messages:
        who = f"+{m.phone}" if m.phone else m.user_id
        if who and m.type != "system" and window.is_open(m.at, d.at):
            yield d.message.sender_id, who, min(m.at, d.at)


def _again() -> Retry:
    return Retry("the answer that names its message is not written yet", TOO_EARLY_AGAIN, counts=False)


async def _give_up(con: Connection, lost: Sequence[tuple[Delivery[Inbound], list[Outgoing]]]) -> None:
    """What becomes a dead letter holds nobody; what was done of it, if there was more, is told nevertheless."""
    for one in chain(*(told for _, told in lost)):
        await outbox.put(con, one.tenant, one.message, one.id, one.cause)
    await holding.release(con, [(d.tenant, word) for d, _ in lost if (word := as_uuid(d.id))])


async def _templates(con: Connection, d: Delivery[Inbound], updates: Sequence[TemplateUpdate]) -> list[Outgoing]:
    """Write what became of templates; a status that is news is told."""
    told: list[Outgoing] = []
    sender_id = UUID(d.message.sender_id)
    for one in updates:
        at = one.at and min(one.at, d.at)
        if one.status is None:
            await templates.set_quality(
                con, d.tenant, sender_id, one.name, one.language, quality=one.quality, category=one.category
            )
        elif await became(
            con, d.tenant, sender_id, one.name, one.language, one.status, one.reason, d.cause or d.id, at
        ):
            told.append(
                updated_event(
                    d.tenant, sender_id, one.name, one.language, one.status, one.reason, d.id, d.cause or d.id
                )
            )
    return told


def _parsed(delivery: Delivery[Inbound]) -> Parts | Drop:
    try:
        return parse(delivery.message.source, delivery.message.body, delivery.at)
    except UNREADABLE as error:
        return Drop(f"not a webhook of {GATEWAYS.get(delivery.message.source, 'a gateway')}: {error}")


def _told(d: Delivery[Inbound], webhook: Webhook, moved: dict[tuple[str, str], Moved]) -> list[Outgoing]:
    return [told for status in webhook.statuses for told in _status_events(d, status, moved)]


async def _statuses(
    con: Connection, found: Iterable[tuple[Delivery[Inbound], list[StatusUpdate]]]
) -> dict[tuple[str, str], Moved]:
    """Write all statuses. Returns what is known now of each message, by (tenant, wamid)."""
    updates = [(d, status) for d, statuses in found for status in statuses]
    strangers = [(d.tenant, s.wamid) for d, s in updates if _ours(s) is None]
    known = await receiving.by_wamid(con, strangers)
    receipts: dict[Key, Receipt] = {}
    named: dict[tuple[str, str], Key] = {}
    for d, status in updates:
        id_ = _ours(status) or known.get((d.tenant, status.wamid))
        if id_ is None:
            logger.info("a status of {} is for no message of ours (wamid {})", d.tenant, status.wamid)
        elif status.status in _EVENTS:
            key = (d.tenant, id_)
            receipts[key] = merge(receipts.get(key), id_, d.tenant, status)
            named[d.tenant, status.wamid] = key
    moved = await receiving.receive(con, [receipts[key] for key in sorted(receipts, key=lambda key: key[1])])
    await halt_for(
        con, [_refusal(d, s, _ours(s) or known.get((d.tenant, s.wamid))) for d, s in updates if s.error_code]
    )
    written = {(m.tenant, m.id): m for m in moved}
    return {name: written[key] for name, key in named.items() if key in written}


async def _unreachable(con: Connection, moved: Iterable[Moved]) -> bool:
    """End the enrolments whose messages have shown that nothing reaches their contacts. Returns whether any has ended.

    As when the gateway says so at once (`answers.py:decide`): most of the time WhatsApp says it only in a status.
    """
    causes = {
        (m.tenant, m.enrollment_id): m.cause
        for m in moved
        if m.enrollment_id and m.after == "failed" and rule_for(m.error_code or 0).unreachable
    }
    ended = await enrolling.unreachable(con, list(causes)) if causes else []
    for id_, tenant, campaign_id, contact_id, reason in ended:
        event = events.EnrollmentStopped(
            id=str(id_), campaign_id=str(campaign_id), contact_id=str(contact_id), reason=reason
        )
        await outbox.put(con, tenant, event, f"{id_}.failed", causes[tenant, id_])
    return bool(ended)


def _refusal(d: Delivery[Inbound], status: StatusUpdate, id_: UUID | None) -> tuple[Refusal, UUID | None]:
    code = status.error_code or 0
    rule, reason = rule_for(code), status.error or f"error {code}"
    return Refusal(
        d.tenant, UUID(d.message.sender_id), rule, code, reason, rule.wait(1), cause=d.cause or d.id, at=status.at
    ), id_


def _rests(
    found: Iterable[tuple[Delivery[Inbound], Webhook]], moved: dict[tuple[str, str], Moved], speed: float
) -> list[Rest]:
    """The contacts whom WhatsApp kept marketing from, because they have had enough of it for now."""
    refused = [(d.tenant, status) for d, webhook in found for status in webhook.statuses if status.error_code]
    return [
        Rest(tenant, message.contact_id, status.at + rest / speed)
        for tenant, status in refused
        if (rest := rule_for(status.error_code or 0).rest)
        and (message := moved.get((tenant, status.wamid)))
        and message.contact_id is not None
    ]


def _failures(found: Iterable[tuple[Delivery[Inbound], Webhook]], moved: dict[tuple[str, str], Moved]) -> list[Failure]:
    """What has failed with this; told again, it is no news."""
    now = datetime.now(UTC)
    return [
        Failure(str(message.sender_id), message.to, status.error_code, now - status.at)
        for d, webhook in found
        for status in webhook.statuses
        if (message := moved.get((d.tenant, status.wamid))) and message.after == "failed" != message.before
        if status.error_code
    ]


def merge(before: Receipt | None, id_: UUID, tenant: str, status: StatusUpdate) -> Receipt:
    """What is known of a message once one more status is taken in: webhooks come in any order, and more than once."""
    at = {name: status.at for name in ("sent", "delivered", "read", "failed") if status.status == name}
    furthest = further(before.status, status.status) if before else status.status
    return Receipt(
        id_,
        tenant,
        furthest,
        status.wamid if before is None or furthest != before.status else before.wamid,
        (before and before.sent_at) or at.get("sent"),
        (before and before.delivered_at) or at.get("delivered"),
        (before and before.read_at) or at.get("read"),
        (before and before.failed_at) or at.get("failed"),
        status.error_code or (before and before.error_code) or None,
        status.error or (before and before.error) or None,
        *_price(before, status),
    )


def _price(before: Receipt | None, status: StatusUpdate) -> tuple[str | None, str | None]:
    """What is charged, and which status says so: WhatsApp charges for what arrives, and the furthest one knows best."""
    told = (before.pricing, before.priced_by) if before else (None, None)
    if not status.pricing or _place(status.status) <= _place(told[1]):
        return told
    return msgspec.json.encode(storable({**status.pricing, "status": status.status})).decode(), status.status


def _place(status: str | None) -> int:
    return FORWARD.index(status) + 1 if status in FORWARD else 0 if status else -1


def _prices(moved: dict[tuple[str, str], Moved]) -> tuple[list[Priced], list[Priced]]:
    """What is charged as is told now, and what of it was counted before as something else."""
    new = [m for m in set(moved.values()) if m.pricing]
    return (
        [priced(m.tenant, m.month, m.pricing) for m in new if m.pricing],
        [priced(m.tenant, m.month, m.priced_before) for m in new if m.priced_before],
    )


def further(one: str, other: str) -> str:
    """The later of two statuses. A failure is final unless the message was seen to arrive."""
    if "failed" in (one, other):
        arrived = {one, other} & {"delivered", "read"}
        return arrived.pop() if arrived else "failed"
    return max(one, other, key=FORWARD.index)


def _ours(status: StatusUpdate) -> UUID | None:
    try:
        return id_of(status.opaque) if status.opaque else None
    except ValueError:
        return None


def _status_events(d: Delivery[Inbound], status: StatusUpdate, moved: dict[tuple[str, str], Moved]) -> list[Outgoing]:
    """The events of one status. Stable ids make a repeated webhook the same events.

    A status that a later one has overtaken is told too, so that whoever counts deliveries counts right.
    """
    message = moved.get((d.tenant, status.wamid))
    if message is None:
        return []
    names = _news(status.status, message, again=d.deliveries > 1)
    return [_status_event(d.tenant, _EVENTS[name], name, message) for name in names]


def _news(status: str, message: Moved, *, again: bool) -> list[str]:
    """What a status tells. `again`: it may have been written before, and not told."""
    if status == "failed":
        return ["failed"] if message.after == "failed" else []
    # Of a message that was in doubt nobody else tells that it was sent, and perhaps no webhook of its own does.
    told = ["sent"] if status in _ARRIVED and (again or message.before in ("sending", "unknown")) else []
    return [*told, status] if status in ("delivered", "read") and message.after in _ARRIVED else told


def _status_event(tenant: str, kind: type[events.MessageEvent], name: str, message: Moved) -> Outgoing:
    event = kind(
        id=str(message.id),
        contact_id=str(message.contact_id) if message.contact_id else None,
        sender_id=str(message.sender_id),
        campaign_id=str(message.campaign_id) if message.campaign_id else None,
        enrollment_id=str(message.enrollment_id) if message.enrollment_id else None,
        step=message.step,
        wamid=message.wamid,
        reason=message.reason if name == "failed" else None,
        error_code=message.error_code if name == "failed" else None,
        variant=message.variant,
    )
    return Outgoing(event, tenant, f"{message.id}.{name}", message.cause)
