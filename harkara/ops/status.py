"""`harkara ops status` and `lag`: what runs, what waits, and for how long."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
from redis.exceptions import RedisError

from harkara.bus.api import Api, ApiError
from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.bus.overview import PARTNERS, ConsumerState, StreamState, consumers, stored_for, streams
from harkara.bus.parked import Parked, parked
from harkara.bus.pausing import POOLS, end_of
from harkara.bus.servers import addresses, greeting, without_secrets
from harkara.ops.places import redis_at, redis_of
from harkara.ops.reach import needed
from harkara.ops.terminal import at
from harkara.printing import counted, messages_wait
from harkara.schemas.reasons import HELD_BACK, NO_GATEWAY, addressed
from harkara.schemas.work import Send
from harkara.settings import Settings, SettingsError
from harkara.storage.engine import begin_statement
from harkara.storage.idling import NOTHING, Number, Passing, numbers, passing, standstill
from harkara.storage.pausing import AtRest, Stopped, at_rest, stopped
from harkara.storage.storage import StorageError, credentials, reason_of

#: Where messages wait for their numbers.
SENDING = POOLS["sender"]

#: How long a server has to answer.
PATIENCE_S = 3.0


#: Numbers that are named, and of which it is asked why they don't send.
_SOME = 20
_MOST_ASKED = 10_000

#: What to look at when a server doesn't answer.
SERVERS = {
    "broker": "check NATS_URL and NATS_CREDS, and that nats-server runs",
    "database": "check DATABASE_URL, and that PostgreSQL runs and lets harkara_app in",
    "redis": "check REDIS_URL, and that it runs; budgets are kept by each process alone meanwhile",
    "gateway": "check WHATSAPP_GATEWAY_URL, and that it can be reached from here",
    "front door": "start `harkara http`; check PUBLIC_URL, and the proxy before it",
}
#: The same of a gateway that numbers wait for.
GATEWAY_TODO = "check that it runs, and its address"

_ANY = "see that it runs, and that it is reached from here"


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a server answers, and after how many milliseconds; if not, `trouble` says why, `todo` what to look at.

    Without its setting it is not `asked`.
    """

    name: str
    answers: bool
    ms: float = 0
    trouble: str = ""
    todo: str = ""
    asked: bool = True

    @property
    def said(self) -> str:
        """All that is to be said of one that doesn't answer."""
        what = "does not answer" if self.asked else "was not asked"
        return ": ".join(filter(None, (f"{self.name} {what}", self.trouble, self.todo)))


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """A number that can send none of the messages that wait for it, though nobody has stopped it: why, what to do.

    Of one that rests for long they wait elsewhere, and `messages` are none.
    In `rests_s` seconds it goes on by itself, if that is so.
    """

    id: UUID
    tenant: str
    name: str
    messages: int
    why: str
    todo: str
    rests_s: float | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment. `trouble` is what somebody has to look at; empty if all is well.

    `unknown` are those of the lists that are empty because nobody could be asked.
    """

    at: datetime
    servers: list[ServerState]
    streams: list[StreamState]
    consumers: list[ConsumerState]
    parked: list[Parked]
    resting: list[AtRest]
    stopped: list[Stopped]
    idle: list[Idle]
    trouble: list[str]
    unknown: list[str]


async def status(settings: Settings, bus: Bus | BusError | SettingsError, most_age_s: float) -> Status:
    """Ask everybody at once. What waits for longer than `most_age_s` is trouble; `bus` is why, if there is none."""
    resting: list[AtRest] = []
    still: list[Stopped] = []
    brokers = addresses(settings.nats_url)
    checks = [
        # Of a cluster each: which of its copies are out of date the others find out in their own time.
        *(_server(f"broker {without_secrets(one)}", greeting(one)) for one in brokers if len(brokers) > 1),
        _server("database", _database(settings, resting, still)),
        _server("redis", _redis(settings)),
        _server("gateway", _page(settings.whatsapp_gateway_url)),
        _server("front door", _page(f"{settings.public_url}/readyz")),
    ]
    servers = list(await asyncio.gather(*checks))
    held: list[StreamState] = []
    readers: list[ConsumerState] = []
    waiting: list[Parked] = []
    unserved_s: float | None = None
    idle: list[Idle] = []
    knows = any(one.name == "database" and one.answers for one in servers)
    unknown = [] if knows else ["resting", "stopped", "idle"]
    if isinstance(bus, Bus):
        begun, api = time.monotonic(), Api(bus.link.request)
        held, readers = await streams(api, bus.topology), await consumers(api, bus.topology)
        unserved_s, waiting = await stored_for(api, SENDING, Send.subject_filter()), await parked(api, bus.topology)
        servers.insert(0, ServerState(name="broker", answers=True, ms=_since(begun)))
        gateway = next(one for one in servers if one.name == "gateway")
        try:
            idle = await _idle(settings, await _to_send(api), gateway) if knows else []
        except (OSError, asyncpg.PostgresError, ApiError):  # gone just now
            unknown.append("idle")
    else:
        # What it says ends with what to do.
        asked = isinstance(bus, BusError)
        servers.insert(0, ServerState(name="broker", answers=False, trouble=str(bus), asked=asked))
        unknown += ["streams", "consumers", "parked", *(["idle"] if knows else [])]
    return Status(
        at=datetime.now(UTC),
        servers=servers,
        streams=held,
        consumers=readers,
        parked=waiting,
        resting=resting,
        stopped=still,
        idle=idle,
        trouble=trouble_of(servers, held, readers, most_age_s, unserved_s, waiting, resting, still, idle),
        unknown=unknown,
    )


def trouble_of(
    servers: list[ServerState],
    held: list[StreamState],
    readers: list[ConsumerState],
    most_age_s: float,
    unserved_s: float | None,
    waiting: Sequence[Parked] = (),
    resting: Sequence[AtRest] = (),
    still: Sequence[Stopped] = (),
    idle: Sequence[Idle] = (),
) -> list[str]:
    """What somebody has to look at, line by line.

    `unserved_s` is for how long the first message for a number waits, `waiting` what is parked, `resting` are tenants,
    `still` and `idle` numbers.
    """
    return [
        *(one.said for one in servers if not one.answers),
        *_of_streams(held, readers),
        *_of_rows(resting, still),
        *(
            f"{_what_waits(one)}{one.name} of {one.tenant}: {one.why}: {one.todo}"
            for one in idle
            if one.rests_s is None or one.rests_s > most_age_s
        ),
        *_late(readers, most_age_s, unserved_s),
        *_put_off(waiting, most_age_s),
        *(
            f"{counted(one.messages, 'dead letter')}: look with `harkara ops dead list`"
            for one in held
            if one.name == "DEAD" and one.messages
        ),
    ]


def _what_waits(one: Idle) -> str:
    return f"{messages_wait(one.messages)} for " if one.messages else "the number "


def _of_streams(held: list[StreamState], readers: list[ConsumerState]) -> Iterator[str]:
    for one in held:
        if one.missing:
            yield f"stream {one.name} is missing: run `harkara topology apply`"
    for name, names in sorted(_behind(held).items()):
        lacking = ", ".join(names)
        yield f"the broker {name} has no complete copy of {lacking}: see that it runs, and give it time to catch up"
    resting = _paused(held, readers)
    for name in sorted(resting):
        yield f"the actor {name} is paused {end_of(resting[name])}: `harkara ops resume actor {name}`"


def _of_rows(resting: Sequence[AtRest], still: Sequence[Stopped]) -> Iterator[str]:
    for tenant in resting:
        if tenant.is_ending:
            yield f"the erasing of {tenant.tenant} has not ended: run `harkara ops erase tenant {tenant.tenant}` again"
        else:
            yield f"the tenant {tenant.tenant} is paused ({tenant.why}): `harkara ops resume tenant {tenant.tenant}`"
    for one in still:
        if one.why and one.kind == "campaign":
            todo = f"`harkara ops resume campaign {one.id}`"
            yield f"the campaign {one.name} of {one.tenant} is paused ({one.why}): {todo}"
        elif one.why:
            yield (
                f"the number {one.name} of {one.tenant} is stopped ({one.why}): see to that, then"
                f" `harkara ops resume sender {one.id}`"
            )


def _late(readers: list[ConsumerState], most_age_s: float, unserved_s: float | None) -> Iterator[str]:
    for one in readers:
        if one.oldest_s is None or one.oldest_s <= most_age_s or one.paused:
            continue
        # A partner who is away finds everything when it comes back; nobody here can hurry it. A number that somebody
        # serves has as much to send as it has, and goes no faster than it may.
        at_its_rate = one.stream == SENDING and bool(one.pullers or one.in_hand)
        if not one.name.startswith(PARTNERS) and not at_its_rate:
            yield f"{one.name} on {one.stream} is {one.oldest_s:.0f} s behind with {one.lag} messages"
    if unserved_s is not None and unserved_s > most_age_s and not any(one.stream == SENDING for one in readers):
        yield (
            f"messages wait in {SENDING} for {unserved_s:.0f} s, for numbers that nobody serves:"
            " `harkara ops doctor` says which are stopped"
        )


def _put_off(waiting: Sequence[Parked], most_age_s: float) -> Iterator[str]:
    for one in waiting:
        if one.failed and one.age_s > most_age_s:
            yield (
                f"{one.actor} has failed {one.failed} times at a message of {one.tenant} that came {one.age_s:.0f} s"
                f" ago, and tries again at {one.due_at:%H:%M:%S}: {one.reason}"
            )
        if one.overdue_s > most_age_s:
            late = f"{one.overdue_s:.0f} s ago"
            yield f"what {one.actor} has put off should have come back {late}: look into the broker's log"


def _behind(held: list[StreamState]) -> dict[str, list[str]]:
    """The servers of a cluster that lack something, and what."""
    found: dict[str, list[str]] = {}
    for stream in held:
        for name in stream.behind:
            found.setdefault(name, []).append(stream.name)
    return found


def _paused(held: list[StreamState], readers: list[ConsumerState]) -> dict[str, datetime | None]:
    """The actors that the broker hands nothing, and until when, if not until they are resumed."""
    pools = {stream: actor for actor, stream in POOLS.items()}
    found = {one.name: one.paused_until for one in readers if one.paused and one.stream not in pools}
    return found | {pools[one.name]: one.paused_until for one in held if one.paused}


async def _server(name: str, question: Awaitable[object]) -> ServerState:
    begun = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await question
    except (SettingsError, StorageError) as error:  # which say what to set
        return ServerState(name=name, answers=False, trouble=str(error), asked=False)
    except Exception as error:  # whatever it is: that is what is to be shown
        why = f"nothing within {PATIENCE_S:.0f} s" if isinstance(error, TimeoutError) else _why(error)
        return ServerState(name=name, answers=False, ms=_since(begun), trouble=why, todo=SERVERS.get(name, _ANY))
    return ServerState(name=name, answers=True, ms=_since(begun))


async def answering(name: str, url: str) -> ServerState:
    """Whether something answers there."""
    return await _server(name, _page(url))


def _why(error: Exception) -> str:
    """In words where the system gives its number for it."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number) if number and number > 0 else reason_of(error)


def _since(begun: float) -> float:
    return round((time.monotonic() - begun) * 1000, 1)


async def _database(settings: Settings, resting: list[AtRest], still: list[Stopped]) -> None:
    """Whether it answers; and, into `resting` and `still`, which tenants rest and which numbers are stopped."""
    async with _connected(settings) as connection:
        with suppress(asyncpg.UndefinedFunctionError):  # a schema that is older than this program: `doctor` says so
            resting += await at_rest(connection)
            await connection.execute(begin_statement(await connection.fetchval("select app.all_tenants()")))
            still += await stopped(connection, _SOME)
            await connection.execute("COMMIT")


async def _to_send(api: Api) -> dict[UUID, int]:
    """How much lies there to be sent, by number."""
    info = await api.call(f"STREAM.INFO.{SENDING}", {"subjects_filter": Send.subject_filter()})
    found: dict[UUID, int] = {}
    subjects: dict[str, int] = info["state"].get("subjects") or {}
    for subject, messages in subjects.items():
        id_ = UUID(subject.split(".")[4])
        found[id_] = found.get(id_, 0) + messages
    return found


async def _idle(settings: Settings, to_send: dict[UUID, int], gateway: ServerState) -> list[Idle]:
    """Those of these numbers that can't send: what is asked of gateways is asked once of each. `gateway` is told."""
    async with _connected(settings) as connection:
        await connection.execute(begin_statement(await connection.fetchval("select app.all_tenants()")))
        found = await numbers(connection, to_send, _MOST_ASKED)
        await connection.execute("COMMIT")
    answers = {settings.whatsapp_gateway_url: gateway}
    for provider in {one.provider for one in found}:
        if (url := settings.gateway_url(provider)) not in answers:
            answers[url] = await answering(f"gateway of {provider}", url)
    passes = await _passing(settings, [one.id for one in found])
    idle = [
        said
        for one in found
        if (said := _said(settings, one, to_send.get(one.id, 0), answers, passes.get(one.id, NOTHING))) is not None
    ]
    return sorted(idle, key=lambda one: -one.messages)[:_SOME]


def _said(
    settings: Settings, one: Number, messages: int, answers: Mapping[str, ServerState], passes: Passing
) -> Idle | None:
    now, there = datetime.now(UTC), answers[settings.gateway_url(one.provider)]
    still = standstill(one.told, Passing(passes.rests_until), now)
    who = Idle(id=one.id, tenant=one.tenant, name=one.name, messages=messages, why="", todo=GATEWAY_TODO)
    if not there.answers:  # asked now, which goes before what was found of late
        place = f"{settings.gateway_place(one.provider)}: {there.trouble}"
        return msgspec.structs.replace(who, why=f"{NO_GATEWAY}{place}")
    if still is None:
        return None
    (text, todo), because = HELD_BACK[still.code], f" ({still.reason})" if still.reason else ""
    until = f" until {at(still.until)}" if still.until else ""
    return msgspec.structs.replace(
        who,
        why=f"{text}{until}{because}",
        todo=addressed(todo, sender_id=one.id),
        rests_s=(still.until - now).total_seconds() if still.until else None,
    )


async def _passing(settings: Settings, ids: Sequence[UUID]) -> dict[UUID, Passing]:
    """What Redis alone knows of these numbers; nothing if it is away, which is said of it anyway."""
    with suppress(SettingsError, StorageError, RedisError, OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S), redis_of(settings) as redis:
            return await passing(redis, ids)
    return {}


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncGenerator[Any]:
    needed(settings, "database_url")
    parts = credentials(settings.database_url)
    connection: Any = await asyncpg.connect(
        host=parts["host"],
        port=parts["port"],
        user=parts["user"],
        password=parts["password"],
        database=parts["database"],
        statement_cache_size=0,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def _redis(settings: Settings) -> None:
    redis = redis_at(settings)
    try:
        await redis.ping()
    finally:
        await redis.aclose()


async def _page(url: str) -> None:
    async with aiohttp.ClientSession() as client, client.get(url, allow_redirects=False) as answer:
        if answer.status >= 500:
            raise OSError(f"{url} answers {answer.status}")
