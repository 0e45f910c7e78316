"""Ends the connections of keys that are no longer good, and of those who take more than their share.

A key that is revoked is told of over the bus and looked for at once. Because what is told may get lost, and not every
end is told (a key expires, a tenant is switched off), all connections are looked at twice a second besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from loguru import logger
from nats.aio.msg import Msg

from harkara.bus.api import Api
from harkara.bus.errors import BusError, Unavailable
from harkara.bus.link import Link, Listener
from harkara.bus.tasks import end
from harkara.http.authenticate import in_force
from harkara.http.door import Door
from harkara.http.keyring import Change
from harkara.http.problems import Problem
from harkara.partners import durables
from harkara.partners.admission import ACCOUNT
from harkara.partners.intake import FLOOD, Intake

EVERY = timedelta(seconds=0.5)

#: Connections of one tenant on one server; the newest ones over that are ended.
MOST_OF_TENANT = 200

#: So long a key that flooded is not let in again.
KEPT_OUT = timedelta(seconds=10)

#: Where every server tells of its connections, and where one is asked to end a connection.
CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
KICK = "$SYS.REQ.SERVER.{server}.KICK"

_ASKED = msgspec.json.encode({"auth": True, "acc": ACCOUNT, "limit": 20_000})


class Connection(msgspec.Struct, frozen=True):
    """One connection: its number, and whose it is."""

    cid: int
    authorized_user: str = ""

    @property
    def tenant(self) -> str:
        """Whose key it has."""
        return self.authorized_user.partition("/")[0]

    @property
    def named(self) -> bool:
        """Whether it has the name that it was admitted with.

        The broker puts a connection into its account first and names it an instant later; seen in between, it still has
        the name that its client brought, and is judged at the next look (auth_callout.go, nats-server 2.15).
        """
        return "/" in self.authorized_user


class _Connections(msgspec.Struct, frozen=True):
    server_id: str
    connections: list[Connection] = []


class _Told(msgspec.Struct, frozen=True):
    data: _Connections


class Watch:
    """Looks at the connections of partners."""

    def __init__(self, door: Door, link: Link, intake: Intake) -> None:
        self._door, self._link, self._intake = door, link, intake
        self._look_now = asyncio.Event()
        self._answers: Listener | None = None
        self._inbox = ""
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Until when: tenants with as many connections on a server as they may have, and keys that flooded.
        self._crowded: dict[str, float] = {}
        self._flooded: dict[str, float] = {}

    def keeps_out(self, tenant: str, digest: str) -> bool:
        """Whether no more connections of this tenant, or of the key with this hash, are let in for now."""
        until = max(self._flooded.get(f"{tenant}/{digest}", 0.0), self._crowded.get(tenant, 0.0))
        return until > time.monotonic()

    async def start(self) -> None:
        """Begin. Raises Unavailable."""
        self._inbox = self._link.inbox()
        self._answers = await self._link.listen(self._inbox, self._hear)
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End."""
        for task in (self._looking, *self._tasks):
            if task is not None:
                await end(task)
        if self._answers is not None:
            await self._answers.close()

    def heard(self, change: Change | None) -> None:
        """Somebody's access was changed: look at once. Of a key that was revoked nobody reads the durable any more."""
        self._look_now.set()
        if change is not None and change.key_id is not None:
            self._begin(self._forget(change.key_id))

    async def _forget(self, key_id: UUID) -> None:
        if self._door.bus is not None:
            with contextlib.suppress(BusError):  # the broker forgets it by itself, only later
                await durables.forget(Api(self._door.bus.link.request), durables.name_of(key_id))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        while True:
            if self._link.connected:
                head = f"PUB {CONNECTIONS} {self._inbox} {len(_ASKED)}\r\n".encode()
                self._link.write(head + _ASKED + b"\r\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY.total_seconds()):
                    await self._look_now.wait()
            self._look_now.clear()

    def _hear(self, message: Msg) -> None:
        """One server's answer: servers are many in a cluster, and each tells its own."""
        self._begin(self._judge(message.data))

    async def _judge(self, data: bytes) -> None:
        try:
            told = msgspec.json.decode(data, type=_Told).data
            connections = [one for one in told.connections if one.named]
            self._count(connections)
            for one, why in await self._ended(connections):
                logger.info("a partner's connection is ended: {} ({})", one.tenant, why)
                await self._link.request(KICK.format(server=told.server_id), msgspec.json.encode({"cid": one.cid}))
        except (msgspec.DecodeError, Unavailable, Problem) as error:
            logger.warning("partners' connections could not be looked at: {}", error)

    def _count(self, connections: Sequence[Connection]) -> None:
        """Who has as many as allowed waits until the next look, and a little longer."""
        now, of_tenant = time.monotonic(), Counter(one.tenant for one in connections)
        self._crowded = {tenant: until for tenant, until in self._crowded.items() if until > now}
        until = now + 2 * EVERY.total_seconds()
        self._crowded |= {tenant: until for tenant, count in of_tenant.items() if count >= MOST_OF_TENANT}

    async def _ended(self, connections: Sequence[Connection]) -> list[tuple[Connection, str]]:
        """Which have to end, and why. Raises Problem 503 if the database is away: then all stay."""
        now = time.monotonic()
        flooding, self._intake.flooding = self._intake.flooding, Counter()
        self._flooded = {name: until for name, until in self._flooded.items() if until > now}
        self._flooded |= {name: now + KEPT_OUT.total_seconds() for name, count in flooding.items() if count > FLOOD}
        why: dict[str, str] = dict.fromkeys(self._flooded, "flood")
        for name in {one.authorized_user for one in connections} - why.keys():
            if reason := await self._no_longer_good(name):
                why[name] = reason
        ended = [(one, why[one.authorized_user]) for one in connections if one.authorized_user in why]
        of_tenant: Counter[str] = Counter()
        for one in sorted(connections, key=lambda one: one.cid):
            of_tenant[one.tenant] += 1
            if of_tenant[one.tenant] > MOST_OF_TENANT and one.authorized_user not in why:
                ended.append((one, "too many"))
        return ended

    async def _no_longer_good(self, name: str) -> str:
        tenant, _, digest = name.partition("/")
        try:
            in_force(await self._door.keyring.key_by_hash(tenant, digest), self._door.clock())
        except Problem as problem:
            if problem.status >= 500:
                raise
            return problem.detail.partition(":")[0]
        return ""
