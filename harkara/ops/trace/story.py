"""One timeline of all that happened to an id, with the waits between, and where everything is now."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from harkara.bus import headers
from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.ids import time_of
from harkara.masking import without_codes
from harkara.ops.trace.crowd import CROWDS, MOST_MOMENTS, MOST_WAITING, standing
from harkara.ops.trace.rows import Row, Rows, as_uuid, gather, kind_of, whose
from harkara.ops.trace.streams import Lying, Search, Streams, ids_in
from harkara.ops.trace.words import Case, Now, now_of
from harkara.printing import times
from harkara.storage.idling import NOTHING, Passing, passing
from harkara.storage.storage import Storage, is_away, reason_of

#: How long Redis has to say what passes of numbers.
REDIS_PATIENCE_S = 1.0

#: Of messages, the moments that their rows remember.
MOMENTS = (
    ("created_at", "was written down, queued"),
    ("attempted_at", "left for WhatsApp"),
    ("sent_at", "was taken by WhatsApp"),
    ("delivered_at", "reached the phone"),
    ("read_at", "was read"),
    ("failed_at", "failed"),
)


#: Said of a receipt's time that lies before what must have been before it: it is told with that.
_EARLY = " (at {:%H:%M:%S} by WhatsApp, which tells whole seconds)"

#: A message of another status waits for nothing that was put off.
_WAITS = frozenset({"queued", "sending", "unknown"})

#: Said of a crowd of which not everything is told.
_EACH = "only the newest is told of so many: `harkara ops trace` of one message or contact tells all of it"

_ENDED = {"paid": "paid: nothing that reminds of it leaves any more", "void": "voided: it is owed no more"}


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: when, where that is known from, what, to which id."""

    at: datetime
    where: str
    what: str
    id: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of an id. `kind` is what it is the id of; `unasked` says what could not be asked, and why.

    `standing` says in lines how a campaign or number stands; of such a crowd `timeline` and `now` tell only the newest.
    """

    id: str
    tenant: str
    kind: str
    at: datetime
    timeline: list[Moment]
    now: list[Now]
    unasked: list[str]
    standing: list[str] = []


class Teller:
    """Tells stories from a database and a broker, either of which may be away."""

    def __init__(self, storage: Storage | None, bus: Bus | None, redis: Redis | None = None) -> None:
        self._storage, self._bus, self._redis = storage, bus, redis
        self._unasked: list[str] = []

    async def tell(self, named: str, tenant: str, unasked: Iterable[str] = ()) -> Story | None:
        """The story of an id; None if nobody knows it. Without `tenant` it is looked for at all of them."""
        self._unasked = list(unasked)
        rows = await self._rows(named, tenant)
        streams = await self._streams(named, rows, tenant)
        if not rows.kind and not (streams.kept or streams.queued or streams.parked or streams.letters):
            return None
        passes = await self._passing(rows.senders)
        cases = await self._cases(named, rows, streams, passes)
        moments = sorted(_moments(rows, streams), key=lambda moment: moment.at)
        now = [said for case in cases if (said := now_of(case)) is not None]
        left_out: list[str] = [
            f"{name}: there is more than is read; what lies behind is not shown" for name in streams.cut
        ]
        standing = await self._standing(named, rows, passes)
        if rows.kind in CROWDS:
            if len(moments) > MOST_MOMENTS or len(now) > MOST_WAITING:
                standing.append(_EACH)
            left_out = []
            moments, now = moments[-MOST_MOMENTS:], now[-MOST_WAITING:]
        return Story(
            id=named,
            tenant=rows.tenant,
            kind=rows.kind or "message of the bus",
            at=datetime.now(UTC),
            timeline=moments,
            now=now,
            unasked=self._unasked + left_out,
            standing=standing,
        )

    async def _standing(self, named: str, rows: Rows, passes: Mapping[UUID, Passing]) -> list[str]:
        id_ = as_uuid(named)
        if self._storage is None or id_ is None:
            return []
        try:
            return await standing(self._storage, rows, id_, _since(named, rows), passes)
        except Exception as error:
            if not is_away(error):
                raise
            self._unasked.append(f"database: {reason_of(error)}")
            return []

    async def _rows(self, named: str, tenant: str) -> Rows:
        if self._storage is None:
            return Rows(tenant=tenant)
        try:
            if tenant:
                return await gather(self._storage, tenant, await kind_of(self._storage, tenant, named), named)
            tenant, kind = await whose(self._storage, named)
            return await gather(self._storage, tenant, kind, named) if tenant else Rows()
        except Exception as error:
            if not is_away(error):
                raise
            self._unasked.append(f"database: {reason_of(error)}")
            return Rows(tenant=tenant)

    async def _streams(self, named: str, rows: Rows, tenant: str) -> Streams:
        if self._bus is None:
            return Streams()
        ids = {named} | _ids(rows)
        try:
            found = await Search(self._bus, ids, rows.tenant or tenant, _since(named, rows)).run()
            if not rows.kind and (others := ids_in(found.letters) - ids):
                # It is a dead letter's own id: what it was about has one of its own.
                rows.kind, rows.tenant = "dead letter", found.letters[0].tenant
                await self._more(rows, others)
        except BusError as error:
            self._unasked.append(f"broker: {error}")
            return Streams()
        if not rows.tenant:
            told = [one.tenant for one in (*found.queued, *found.kept, *found.parked)]
            rows.tenant = next(iter([*told, *(letter.tenant for letter in found.letters)]), "")
        return found

    async def _more(self, rows: Rows, others: set[str]) -> None:
        for other in sorted(others) if self._storage is not None else ():
            kind = await kind_of(self._storage, rows.tenant, other) if self._storage else ""
            if kind and self._storage:
                found = await gather(self._storage, rows.tenant, kind, other)
                for name in ("messages", "enrollments", "contacts", "senders", "campaigns", "answers"):
                    setattr(rows, name, getattr(found, name))

    async def _cases(self, named: str, rows: Rows, streams: Streams, passes: Mapping[UUID, Passing]) -> list[Case]:
        cases: list[Case] = []
        enrolled = {row["id"]: row for row in rows.enrollments}
        for message in rows.messages:
            case = Case(str(message["id"]), rows, streams, message=message, sender_id=message["sender_id"])
            row = enrolled.get(message["enrollment_id"])
            if row is not None and row["next_message_id"] == message["id"]:
                case.enrollment = row if row["status"] != "active" or message["status"] == "queued" else None
            cases.append(case)
        written = {message["id"] for message in rows.messages}
        for row in rows.enrollments:
            if row["next_message_id"] not in written and _concerns(row, rows, named):
                sender = rows.campaigns.get(row["campaign_id"], {}).get("sender_id")
                cases.append(_of_step(row, rows, streams, sender))
        known = {case.id for case in cases} | {str(row["id"]) for row in rows.enrollments}
        for item in streams.queued:
            if (id_ := _id_of(item)) not in known:
                cases.append(Case(id_, rows, streams, kind=_kind(item), item=item, sender_id=_sender_of(item)))
                known.add(id_)
        for letter in streams.letters:
            if letter.message_id not in known:
                cases.append(Case(letter.message_id, rows, streams, kind="command", letter=letter))
                known.add(letter.message_id)
        for case in cases:
            _place(case, streams)
            case.passes = passes.get(case.sender_id, NOTHING) if case.sender_id else NOTHING
        return cases

    async def _passing(self, senders: Collection[UUID]) -> dict[UUID, Passing]:
        """What of these numbers only Redis knows."""
        if self._redis is None:
            return {}
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                return await passing(self._redis, senders)
        except Exception as error:  # whatever it is: the story is told without
            self._unasked.append(f"redis: {reason_of(error)}")
        return {}


def _concerns(row: Row, rows: Rows, named: str) -> bool:
    """Whether what comes next in an enrolment is part of the story: not if an earlier message of it was asked for."""
    return rows.kind != "message" or str(row["next_message_id"]) == named


def _of_step(row: Row, rows: Rows, streams: Streams, sender: UUID | None) -> Case:
    step = rows.steps.get(row["next_step_id"])
    kind = f"step {step['position']}" if step else "enrollment"
    if step and step["name"]:
        kind += f" ({step['name']})"
    return Case(str(row["next_message_id"] or row["id"]), rows, streams, enrollment=row, sender_id=sender, kind=kind)


def _place(case: Case, streams: Streams) -> None:
    """Where its work lies, and the dead letter about it, if there are any."""
    ids = {case.id} | ({str(case.enrollment["id"])} if case.enrollment else set[str]())
    case.item = case.item or next((one for one in streams.queued if _id_of(one) in ids), None)
    case.parked = next((one for one in streams.parked if _id_of(one) in ids), None)
    case.letter = case.letter or next((one for one in reversed(streams.letters) if one.message_id in ids), None)


def _id_of(item: Lying) -> str:
    """What a message of the bus is about: send work names the message itself."""
    told = without_codes(item.body)
    if isinstance(told, dict) and isinstance(told.get("message_id"), str) and ".work." in item.subject:  # pyright: ignore
        return str(told["message_id"])  # pyright: ignore
    dedupe = item.headers.get(headers.DEDUPE, "")
    return item.headers.get(headers.ID) or dedupe.partition(".")[2]


def _told_of(item: Lying) -> str:
    """What an event is about; anything else is about itself."""
    told: Any = without_codes(item.body)
    if ".evt." in item.subject and isinstance(told, dict):
        return str(told.get("id", ""))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return _id_of(item)


def _kind(item: Lying) -> str:
    tokens = item.subject.split(".")
    return "command " + ".".join(tokens[3:]) if tokens[2] == "cmd" else "work for " + tokens[3]


def _sender_of(item: Lying) -> UUID | None:
    tokens = item.subject.split(".")
    return as_uuid(tokens[4]) if tokens[2:4] == ["work", "send"] and len(tokens) > 4 else None


def _ids(rows: Rows) -> set[str]:
    found: list[Any] = [row["id"] for row in (*rows.messages, *rows.enrollments)]
    found += [row["wamid"] for row in rows.messages]
    if rows.kind != "message":
        found += [row["next_message_id"] for row in rows.enrollments]
    return {str(one) for one in found if one}


def _since(named: str, rows: Rows) -> datetime:
    """From when on the streams may have something: the oldest id tells, or the request that set it off."""
    now = datetime.now(UTC)
    told = [as_uuid(named), *(as_uuid(row["cause"]) for row in rows.messages)]
    times = [time_of(one) for one in told if one is not None and one.version == 7]
    times += [row["created_at"] for row in rows.messages]
    return max(min([*times, now]) - timedelta(seconds=60), now - timedelta(days=90))


def _moments(rows: Rows, streams: Streams) -> Iterator[Moment]:
    yield from _of_rows(rows)
    for note in rows.audit:
        by = f" by {note['address']}" if note["address"] else ""
        what = f"{note['action']} {note['entity']}: {note['via']}{by}"
        yield Moment(at=note["created_at"], where="audit log", what=what, id=note["entity_id"] or "")
    for one in (*streams.kept, *streams.queued):
        yield Moment(at=one.at, where=f"stream {one.stream}", what=_said(one), id=_told_of(one))
    settled = {str(row["id"]) for row in rows.messages if row["status"] not in _WAITS}
    for one in streams.parked:
        if _id_of(one) in settled:
            continue  # it was cancelled, or has left otherwise: what comes back then does nothing
        until = f" until {one.due:%Y-%m-%d %H:%M:%S}" if one.due else ""
        yield Moment(at=one.at, where=f"stream {one.stream}", what=f"put off{until}{_tried(one)}", id=_id_of(one))
    for letter in streams.letters:
        what = f"{letter.actor} gave it up after {letter.attempts} attempts: {letter.reason}"
        yield Moment(at=letter.at, where="stream DEAD", what=what, id=letter.message_id)


def _of_rows(rows: Rows) -> Iterator[Moment]:
    for message in rows.messages:
        id_, where = str(message["id"]), "messages"
        if (cause := as_uuid(message["cause"])) is not None and cause.version == 7:
            yield Moment(at=time_of(cause), where="request", what="what set it off came in", id=message["cause"])
        if message["due_at"] != message["created_at"]:
            yield Moment(at=message["due_at"], where=where, what="was due", id=id_)
        before = message["created_at"]
        for column, what in MOMENTS:
            if (instant := message[column]) is not None:
                said = _EARLY.format(instant) if instant < before else ""
                before = max(before, instant)
                yield Moment(at=before, where=where, what=what + said, id=id_)
        if message["status"] in ("suppressed", "unknown") or message["deferred_until"]:
            what = f"{message['status']}: {message['reason'] or 'no reason was given'}"
            yield Moment(at=message["updated_at"], where=where, what=what, id=id_)
    for row in rows.enrollments:
        id_, where = str(row["id"]), "enrollment"
        yield Moment(at=row["started_at"], where=where, what="was enrolled", id=id_)
        if row["finished_at"] is not None:
            reason = f": {row['stopped_reason']}" if row["stopped_reason"] else ""
            yield Moment(at=row["finished_at"], where=where, what=f"{row['status']}{reason}", id=id_)
    for invoice in rows.invoices.values():
        id_, made = str(invoice["id"]), f"was made, number {invoice['number']}: it is {invoice['status']} now"
        yield Moment(at=invoice["created_at"], where="invoices", what=made, id=id_)
        if invoice["status"] != "open":
            yield Moment(at=invoice["updated_at"], where="invoices", what=f"was {_ENDED[invoice['status']]}", id=id_)
    for contact in rows.contacts.values():
        if contact["opted_out_at"] is not None:
            what = f"opted out of everything: {contact['opted_out_reason'] or 'no reason was given'}"
            yield Moment(at=contact["opted_out_at"], where="contact", what=what, id=str(contact["id"]))
    for reply in rows.replies:
        yield Moment(
            at=reply["received_at"], where="replies", what=f"wrote to us ({reply['type']})", id=str(reply["id"])
        )


def _said(one: Lying) -> str:
    """An event by its name, anything else by its subject; never what it says."""
    kind, _, rest = one.subject.split(".", 2)[2].partition(".")
    told = without_codes(one.body)
    reason = f": {told['reason']}" if isinstance(told, dict) and told.get("reason") else ""  # pyright: ignore
    names = {"evt": f"told: {rest}{reason}", "in": f"a webhook of {rest} came", "cmd": f"command {rest} waits"}
    return names.get(kind, f"work {rest} waits")


def _tried(one: Lying) -> str:
    """Why it was put off, and how often it had failed; what failed through no fault of its own counts for nothing."""
    reason, failed = one.headers.get(headers.REASON), int(one.headers.get(headers.ATTEMPT, "0"))
    return (f": {reason}" if reason else "") + (f", failed {times(failed)}" if failed else "")
