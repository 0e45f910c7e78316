"""`harkara ops doctor`: looks over the whole set-up, and says how to mend what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.bus import topology as streams_of
from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.overview import ConsumerState, consumers
from harkara.bus.pausing import POOLS
from harkara.ops.status import GATEWAY_TODO, Status, answering
from harkara.ops.terminal import age
from harkara.printing import counted, messages_wait
from harkara.schemas.reasons import HELD_BACK, addressed
from harkara.settings import DOTENV, OWN_GATEWAYS, Settings, named
from harkara.storage.idling import numbers, providers
from harkara.storage.migrate import names as migrations
from harkara.storage.storage import Storage, reason_of
from harkara.vault import Vault

#: Clocks that differ by more make steps late, and messages seem lost.
CLOCKS = timedelta(seconds=2)

#: The broker's clock ticks every second.
TICKS = timedelta(seconds=10)

#: A broker's disk that is fuller refuses soon.
FULL = 0.8

#: Secrets that are tried.
SOME = 20

#: A schema that can't say how new it is, is an older one.
_DATABASE = """
select now() as now, current_setting('fsync') as fsync,
       to_regclass('messages_' || to_char(now() + interval '1 month', 'YYYYMM')) is not null as next_month,
       to_regprocedure('app.newest_migration()') is not null as says_how_new
"""

_SECRETS = "select id, access_token from senders where access_token is not null order by id limit $1"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: whether it is well, what was found, and how to mend it if it isn't.

    What is wrong with a tenant, a number or one message is a `warning`: the installation works.
    """

    check: str
    well: bool
    found: str
    todo: str = ""
    warning: bool = False


Check = Callable[["Doctor"], AsyncIterator[Finding]]


class Doctor:
    """What checks may ask: each part is None if it is away, which the servers' check tells."""

    def __init__(self, settings: Settings, bus: Bus | None, storage: Storage | None, status: Status) -> None:
        self.settings, self.bus, self.storage, self.status = settings, bus, storage, status
        self.now = datetime.now(UTC)

    async def look(self) -> list[Finding]:
        """Every check; one that can't be made is a finding too."""
        found: list[Finding] = []
        for name, check in CHECKS.items():
            try:
                async with asyncio.timeout(10):
                    found += [finding async for finding in check(self)]
            except Exception as error:  # whatever it is: that is what is to be shown
                found.append(_bad(name, f"could not be looked at: {reason_of(error)}", "see the servers above"))
        return found


def _well(check: str, found: str) -> Finding:
    return Finding(check=check, well=True, found=found)


def _bad(check: str, found: str, todo: str) -> Finding:
    return Finding(check=check, well=False, found=found, todo=todo)


def _warning(check: str, found: str, todo: str) -> Finding:
    return Finding(check=check, well=False, found=found, todo=todo, warning=True)


async def _servers(doctor: Doctor) -> AsyncIterator[Finding]:
    for one in doctor.status.servers:
        name = f"server: {one.name}"
        if one.answers:
            yield _well(name, f"answers in {one.ms:.0f} ms")
        else:
            yield _bad(name, f"{'does not answer' if one.asked else 'was not asked'}: {one.trouble}", one.todo)


async def _disk(doctor: Doctor) -> AsyncIterator[Finding]:
    if doctor.bus is None:
        return
    info = await Api(doctor.bus.link.request).call("INFO")
    limits: dict[str, int] = info.get("limits") or {}
    used, most = int(info["storage"]), limits.get("max_storage", -1)
    if most <= 0:
        yield _well("broker's disk", f"{used / 1e6:.0f} MB used")
    elif used > FULL * most:
        todo = "raise max_file in nats/server.conf, or find out with `harkara ops status` which stream grows"
        yield _bad("broker's disk", f"{used / 1e6:.0f} of {most / 1e6:.0f} MB used", todo)
    else:
        yield _well("broker's disk", f"{used / 1e6:.0f} of {most / 1e6:.0f} MB used")


async def _topology(doctor: Doctor) -> AsyncIterator[Finding]:
    if doctor.bus is None:
        return
    replicas = max((one.replicas for one in doctor.status.streams), default=0)
    changes = await streams_of.diff(doctor.bus.js, replicas=replicas)
    for change in changes:
        yield _bad("topology", str(change), "`harkara topology apply`")
    if not changes:
        yield _well("topology", "the broker is as nats/topology.toml says")


async def _actors(doctor: Doctor) -> AsyncIterator[Finding]:
    if doctor.bus is None:
        return
    from harkara.app import ACTORS

    readers = await consumers(Api(doctor.bus.link.request), doctor.bus.topology)
    for name in ACTORS:
        yield _actor(name, [one for one in readers if _reads(one, name)], doctor)


def _reads(reader: ConsumerState, actor: str) -> bool:
    return reader.stream == POOLS.get(actor) or reader.name == actor


def _actor(name: str, readers: Sequence[ConsumerState], doctor: Doctor) -> Finding:
    check, behind = f"actor: {name}", sum(one.lag for one in readers)
    pool = next((one for one in doctor.status.streams if one.name == POOLS.get(name)), None)
    if any(one.paused for one in readers) or (pool and pool.paused):
        return _bad(check, f"is paused; {messages_wait(behind)}", f"`harkara ops resume actor {name}`")
    if pool is not None:
        if pool.messages and not readers:
            return _bad(check, f"{messages_wait(pool.messages)} and nobody reads them", f"start `harkara actor {name}`")
        if not readers:
            return _well(check, "nothing waits to be sent")
        lately = "one for each number and lane that had something to send lately"
        return _well(check, f"{messages_wait(behind)}, in {counted(len(readers), 'queue')}: {lately}")
    if not readers:
        todo = f"start `harkara actor {name}`" + (", with MEDIA_URL" if name == "media" else "")
        return _bad(check, "has never run on this broker", todo)
    if not any(one.pullers or one.in_hand for one in readers):
        return _bad(check, f"no process of it runs; {messages_wait(behind)}", f"start `harkara actor {name}`")
    return _well(check, f"runs; {messages_wait(behind)}")


async def _clock(doctor: Doctor) -> AsyncIterator[Finding]:
    """The broker's ticks, without which nothing falls due."""
    if doctor.bus is None:
        return
    info = await Api(doctor.bus.link.request).call("CONSUMER.INFO.WORK.ticker")
    at = info["delivered"].get("last_active")
    last = None if at is None else msgspec.convert(at, datetime)
    if last is None or doctor.now - last > TICKS:
        ago = "never" if last is None else f"{age((doctor.now - last).total_seconds())} ago"
        todo = "start `harkara actor ticker`; if it runs, `harkara topology apply` sets the schedules anew"
        yield _bad("the clock", f"the last tick was taken {ago}", todo)
    else:
        yield _well("the clock", "ticks")


async def _database(doctor: Doctor) -> AsyncIterator[Finding]:
    if doctor.storage is None:
        return
    asked = datetime.now(UTC)
    async with doctor.storage.anonymous() as con:
        row: Any = await con.fetchrow(_DATABASE)
        newest: str = await con.fetchval("select app.newest_migration()") if row["says_how_new"] else ""
    yield schema(newest)
    if not row["next_month"]:
        yield _bad("next month", "has no partition yet", "start `harkara actor ticker`, which makes them")
    else:
        yield _well("next month", "has its partitions")
    apart = abs(row["now"] - asked)
    if apart > CLOCKS:
        yield _bad("clocks", f"here and at the database differ by {age(apart.total_seconds())}", "let both follow NTP")
    else:
        yield _well("clocks", "agree")
    if row["fsync"] != "on" and doctor.settings.environment == "production" and not _embedded():
        yield _bad("fsync", "is off: a crash of the machine can lose what was written", "set fsync = on in PostgreSQL")


def schema(newest: str) -> Finding:
    """Whether the newest migration that has run is the newest that this program has."""
    needed = migrations()[-1]
    if newest < needed:
        return _bad("schema", "is older than this program", f"`harkara migrate` brings it to {needed}")
    if newest > needed:
        return _bad(
            "schema", f"is newer than this program: {newest}", "run the Harkara that migrated it, or a newer one"
        )
    return _well("schema", "has what this program needs")


def _embedded() -> bool:
    """Whether the database is that of a running `harkara up`."""
    return "database_url" not in named(DOTENV)


async def _gateways(doctor: Doctor) -> AsyncIterator[Finding]:
    """Those of the providers in use that have an address of their own, and that no address stands for two."""
    if doctor.storage is None:
        return
    settings = doctor.settings
    async with doctor.storage.anonymous() as con:
        tenants: list[str] = await con.fetchval("select app.all_tenants()")
    async with doctor.storage.batch(tenants) as con:
        used = await providers(con)
        unlinked = await numbers(con, None, SOME)
    for provider in sorted(used & OWN_GATEWAYS.keys()):
        check, place, url = f"gateway: {provider}", settings.gateway_place(provider), settings.gateway_url(provider)
        others = sorted(one for one in used - {provider} if settings.gateway_url(one) == url)
        found = await answering(check, url)
        if others and not getattr(settings, OWN_GATEWAYS[provider]):
            what = f"is looked for at {place}, as is that of {' and '.join(others)}"
            yield _warning(check, what, f"set {OWN_GATEWAYS[provider].upper()}")
        elif found.answers:
            yield _well(check, f"{place} answers in {found.ms:.0f} ms")
        else:
            yield _bad(check, f"{place} does not answer: {found.trouble}", GATEWAY_TODO)
    for one in unlinked:
        words = HELD_BACK["number_disconnected"]
        why = one.told["session_detail"] or one.told["session_state"]
        what = f"no phone is linked to {one.name} of {one.tenant}: {why}"
        yield _warning("number", what, addressed(words.todo, sender_id=one.id))


async def _numbers(doctor: Doctor) -> AsyncIterator[Finding]:
    if doctor.storage is None:
        return
    async with doctor.storage.anonymous() as con:
        tenants: list[str] = await con.fetchval("select app.all_tenants()")
    if not tenants:
        yield _bad("tenants", "there are none", "`harkara tenant create`, or POST /api/v1/auth/signup")
        return
    yield _well("tenants", str(len(tenants)))
    for tenant in doctor.status.resting:
        if tenant.is_ending:
            todo = f"run `harkara ops erase tenant {tenant.tenant}` again"
            yield _bad("tenant", f"the erasing of {tenant.tenant} has not ended", todo)
        else:
            found = f"{tenant.tenant} is paused with all its numbers: {tenant.why}"
            yield _warning("tenant", found, f"`harkara ops resume tenant {tenant.tenant}`")
    for one in doctor.status.stopped:
        whose = f"{one.name} of {one.tenant}"
        if one.kind == "campaign":
            yield _warning("campaign", f"{whose} is paused: {one.why}", f"`harkara ops resume campaign {one.id}`")
        elif one.why:
            todo = f"see to that, then `harkara ops resume sender {one.id}`"
            yield _warning("number", f"{whose} is stopped: {one.why}", todo)
        else:
            yield _well("number", f"{whose} was paused by its own tenant")
    if doctor.settings.secret_key:
        async with doctor.storage.batch(tenants) as con:
            rows = await con.fetch(_SECRETS, SOME)
        yield _secrets(Vault(*doctor.settings.secret_keys), {row["id"]: row["access_token"] for row in rows})


def _secrets(vault: Vault, sealed: dict[UUID, bytes | None]) -> Finding:
    closed: list[UUID] = []
    for id_, secret in sealed.items():
        try:
            vault.open(secret)
        except ValueError:
            closed.append(id_)
    if closed:
        todo = "set the SECRET_KEY that they were stored under, or enter them again: PATCH /senders/{id}"
        return _bad("secrets", f"SECRET_KEY opens not those of {', '.join(map(str, closed[:3]))}", todo)
    return _well("secrets", "SECRET_KEY opens them")


async def _work(doctor: Doctor) -> AsyncIterator[Finding]:
    """What `status` finds besides servers and pauses: who is behind, and dead letters."""
    for line in doctor.status.trouble:
        if "dead letter" in line:
            yield _warning("dead letters", line.partition(":")[0], "`harkara ops dead list`")
        elif " behind " in line:
            yield _bad("backlog", line, "`harkara ops lag --watch`; start one more process of that actor if it grows")


#: In the order in which they are shown: what others rest on first.
CHECKS: dict[str, Check] = {
    "servers": _servers,
    "disk": _disk,
    "topology": _topology,
    "actors": _actors,
    "clock": _clock,
    "database": _database,
    "gateways": _gateways,
    "numbers": _numbers,
    "work": _work,
}
