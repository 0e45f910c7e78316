"""Messages as they are told: page by page, or one with all that happened to it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.lists import before, cursor
from harkara.http.problems import not_found
from harkara.http.rows import shown
from harkara.schemas.api import AcceptedStory, MessageQuery, MessageShown, MessageStory, Moment, Page, Why
from harkara.schemas.reasons import words
from harkara.storage.models import Message

#: Messages looked at for one page at most: a page of what is rare is as quick as any other, and may be short.
LOOKED_AT = 10_000

#: Filters that an index serves together with the order, and those that only pick among what is found.
FOUND_BY = ("contact_id", "campaign_id")
PICKED_BY = ("status", "sender_id", "lane", "reason", "error_code", "to")

#: What is true of every message of a status, and of few others: small indexes hold those.
IMPLIED = {
    "queued": "sent_at is null",
    "sending": "sent_at is null",
    "unknown": "sent_at is null",
    "suppressed": "sent_at is null",
    "failed": "failed_at is not null",
}

COLUMNS = ", ".join(f'"{name}"' for name in MessageShown.__struct_fields__)

#: A message younger than this may still be on its way into the table, from any process.
YOUNG = timedelta(seconds=10)

#: How long to wait for such a one before saying that there is none.
PATIENCE = timedelta(seconds=1)

LOOK_EVERY = timedelta(milliseconds=20)

#: When what happened: the column and the status it means, in order.
MOMENTS = (
    ("created_at", "queued"),
    ("attempted_at", "sending"),
    ("sent_at", "sent"),
    ("delivered_at", "delivered"),
    ("read_at", "read"),
    ("failed_at", "failed"),
)


class Search:
    """The statement of one page. Names the tenant although row-level security does too: see `lists.newest`."""

    def __init__(self, tenant: str, query: MessageQuery) -> None:
        self.values: list[Any] = []
        self._limit = query.limit + 1
        first = before(query)
        if query.until is not None:
            first = min(first, _floor(query.until))
        found = [self._is("tenant_id", tenant), f"id < {self._place(first)}"]
        if query.since is not None:
            found.append(f"id >= {self._place(_floor(query.since))}")
        found += [self._is(name, value) for name in FOUND_BY if (value := getattr(query, name)) is not None]
        if query.status in IMPLIED:
            found.append(IMPLIED[query.status])
        self._found = " and ".join(found)
        self._seen = len(self.values)
        picked = [self._is(name, value) for name in PICKED_BY if (value := getattr(query, name)) is not None]
        self._picked = " and ".join(picked)

    def _place(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def _is(self, name: str, value: object) -> str:
        return f'"{name}" = {self._place(value)}'

    @property
    def page(self) -> str:
        """The page, and one more if there are more."""
        rows = f"select * from messages where {self._found} order by id desc limit "  # noqa: S608 - names, no values
        if self._picked:
            rows = f"select * from ({rows} {LOOKED_AT}) m where {self._picked} order by id desc limit "  # noqa: S608
        return f"select {COLUMNS} from ({rows} {self._limit}) m order by id desc"  # noqa: S608

    @property
    def last(self) -> tuple[str, list[Any]] | None:
        """What tells the last message that was looked at, if more are left than a page looks at."""
        if not self._picked:
            return None
        where = f"select id from messages where {self._found} order by id desc"  # noqa: S608
        return f"{where} offset {LOOKED_AT - 1} limit 1", self.values[: self._seen]


def _floor(at: datetime) -> UUID:
    """Less than every id of this instant and later ones."""
    return UUID(int=max(int(at.timestamp() * 1000), 0) << 80)


async def index(ctx: Context[None, MessageQuery]) -> Page[MessageShown]:
    """Messages, newest first: by when they were due.

    A filter that few messages pass gives short pages: read on as long as there is a `next`.
    """
    query, faults = ctx.query, Faults()
    for name in ("since", "until"):
        if (at := getattr(query, name)) is not None:
            faults.instant(name, at)
    faults.refuse()
    search = Search(ctx.tenant, query)
    async with ctx.transaction() as con:
        rows = await con.fetch(search.page, *search.values)
        last: UUID | None = rows[query.limit - 1]["id"] if len(rows) > query.limit else None
        if last is None and search.last is not None:
            statement, values = search.last
            last = await con.fetchval(statement, *values)
    items = [_shown(row) for row in rows[: query.limit]]
    return Page(items=items, next=None if last is None else cursor(last))


def _shown(row: Any) -> MessageShown:
    return msgspec.convert({**row, "content": msgspec.json.decode(row["content"])}, MessageShown)


async def show(ctx: Context[None, None]) -> MessageStory | AcceptedStory:
    """One message with its timeline and, if it went no further, why.

    One that was accepted a moment ago is waited for, never denied.
    """
    id_ = ctx.id("message_id")
    message = await find(ctx, id_)
    if message is None:
        accepted_at = ctx.door.accepted.at(ctx.tenant, id_)
        if accepted_at is None:
            raise not_found("message")
        return AcceptedStory(id=id_, status="accepted", timeline=[Moment(at=accepted_at, status="accepted")])
    return MessageStory(
        timeline=_timeline(message), why=_why(message), **msgspec.structs.asdict(shown(message, MessageShown))
    )


async def find(ctx: Context[None, None], id_: UUID) -> Message | None:
    """The message; a young one may still be on its way, and is waited for. None if there is none."""
    now = ctx.door.clock()
    accepted_at = ctx.door.accepted.at(ctx.tenant, id_)
    young = _young(id_, now) if accepted_at is None else now - accepted_at < YOUNG
    patience = PATIENCE if young else timedelta()
    while True:
        async with ctx.transaction():
            message = await Message.get_or_none(id=id_)
        if message is not None or patience <= timedelta():
            return message
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        patience -= LOOK_EVERY


def _young(id_: UUID, now: datetime) -> bool:
    milliseconds = id_.int >> 80  # what is no UUIDv7 has no time there, and may be far from any
    return id_.version == 7 and abs(now.timestamp() * 1000 - milliseconds) < YOUNG.total_seconds() * 1000


def _timeline(message: Message) -> list[Moment]:
    """In the order in which they must have been: WhatsApp tells whole seconds, so a receipt may seem to come early."""
    moments = [Moment(at=at, status=status) for name, status in MOMENTS if (at := getattr(message, name)) is not None]
    if all(moment.status != message.status for moment in moments):
        moments.append(Moment(at=message.updated_at, status=message.status))
    return moments


def _why(message: Message) -> Why | None:
    found = words(message.status, message.reason, message.error_code)
    if found is None:
        return None
    code, (text, todo) = found
    return Why(code=code, text=text, todo=todo.replace("{id}", str(message.id)))
