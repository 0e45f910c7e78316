"""Why a number sends nothing now, as its row says and, for what passes in seconds, Redis alone: the one source of all
that is said of it to tenants and operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.schemas.reasons import GATEWAY
from harkara.storage import redis_keys
from harkara.storage.linking import UNLINKED

if TYPE_CHECKING:
    import asyncpg
    from redis.asyncio import Redis

    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is not stopped; `told` is what its row says of whether it sends."""

    id: UUID
    tenant: str
    name: str
    provider: str
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standstill:
    """That a number sends nothing: a code of HELD_BACK and the reason; `error_code` is WhatsApp's, if that is why."""

    code: str
    reason: str | None = None
    error_code: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Passing:
    """What Redis alone knows of a number: until when it rests, and where nobody answered for it, and why."""

    rests_until: datetime | None = None
    away: str | None = None

    def standstill(self, now: datetime) -> Standstill | None:
        """Why a number sends nothing now of which its row says nothing; None if it does."""
        if self.rests_until is not None and self.rests_until > now:
            return Standstill("number_rests", until=self.rests_until)
        return Standstill("gateway_away", self.away) if self.away else None


NOTHING = Passing()

#: What of a sender's row says whether it sends.
TOLD = ("status", "status_reason", "error_code", "session_state", "session_detail", "held_until")


def standstill(row: Mapping[str, Any], passing: Passing, now: datetime) -> Standstill | None:
    """Why a number sends nothing now, by its row and by what passes; None if it does."""
    code: int | None = row["error_code"]
    reason = row["status_reason"] or (GATEWAY[code].text if code in GATEWAY else None)
    if row["status"] != "active":
        return Standstill("number_stopped", reason, code)
    if row["session_state"] in UNLINKED:
        return Standstill("number_disconnected", row["session_detail"])
    held: datetime | None = row["held_until"]
    if held is not None and held > now:
        return Standstill("number_rests", reason, code, max(held, passing.rests_until or held))
    return passing.standstill(now)  # what the row says of a rest that is over is not why it rests now


async def passing(redis: Redis, ids: Collection[UUID]) -> dict[UUID, Passing]:
    """What passes of each of these numbers. Raises what the driver raises if Redis is away."""
    keys = [key(id_) for id_ in ids for key in (redis_keys.hold, redis_keys.away)]
    told: Any = await redis.mget(keys) if keys else []
    return {id_: Passing(_instant(rests), away.decode() if away else None) for id_, rests, away in _threes(ids, told)}


def _threes(ids: Collection[UUID], told: Sequence[bytes | None]) -> Iterator[tuple[UUID, bytes | None, bytes | None]]:
    return zip(ids, told[::2], told[1::2], strict=True)


def _instant(told: bytes | None) -> datetime | None:
    return datetime.fromtimestamp(int(told) / 1e6, UTC) if told else None


_NUMBERS = f"""
select id, tenant_id, name, provider, {", ".join(TOLD)}
from senders where status = 'active'
  and case when $1::uuid[] is null then session_state in {UNLINKED} else id = any ($1) or held_until > now() end
order by tenant_id, name, id limit $2
"""  # noqa: S608 - our own words


async def numbers(con: Connection | asyncpg.Connection[Any], ids: Collection[UUID] | None, most: int) -> list[Number]:
    """Those of these numbers that are not stopped, and all that rest; without ids all that no phone is linked to."""
    rows = await con.fetch(_NUMBERS, None if ids is None else list(ids), most)
    return [Number(row["id"], row["tenant_id"], row["name"], row["provider"], dict(row)) for row in rows]


async def providers(con: Connection) -> set[str]:
    """Those whose numbers are not all stopped."""
    return {row[0] for row in await con.fetch("select distinct provider from senders where status = 'active'")}
