"""A platform seen from outside: its database, its broker, its gateway; however it was started."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import asyncpg
import nats
from aiohttp import ClientError, ClientSession
from nats.js import JetStreamContext
from support import until

from harkara.bus import servers

#: What asking raises while a server is away, comes back, or elects who leads.
AWAY = (
    ClientError,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    nats.errors.Error,
)

#: How long the broker may take to answer.
_ANSWER_S = 30.0


async def once_it_answers(asked: Callable[[], Awaitable[bool]]) -> bool:
    """Whether it is so; not yet, if who is asked is away."""
    try:
        return await asked()
    except AWAY:
        return False


class Observed:
    """What can be asked of any platform."""

    session: ClientSession

    @property
    def url(self) -> str:
        """Its front door."""
        raise NotImplementedError

    @property
    def gateway(self) -> Sandbox:
        """What its messages go to."""
        raise NotImplementedError

    @property
    def nats_url(self) -> str:
        """Its broker's servers."""
        raise NotImplementedError

    def database_url(self, user: str) -> str:
        """Its database as one of its roles; `postgres` sees all rows."""
        raise NotImplementedError

    def outputs(self) -> list[str]:
        """What its processes have written."""
        raise NotImplementedError

    def complaints(self, most: int = 40) -> list[str]:
        """The last warnings and errors of its processes, all together."""
        lines = (line for output in self.outputs() for line in output.splitlines())
        return [line[:300] for line in lines if "WARNING" in line or "ERROR" in line][-most:]

    async def parked(self, most: int = 5) -> list[dict[str, Any]]:
        """Some of what waits on a schedule: its subject and headers."""
        async with self.streams() as js:
            info = await js.stream_info("WORK", subjects_filter="t.*.at.>")
            found = [await js.get_last_msg("WORK", subject) for subject in list(info.state.subjects or {})[:most]]
        return [{"subject": one.subject, "seq": one.seq} | (one.headers or {}) for one in found]

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[JetStreamContext]:
        """The broker's streams, with time to answer."""
        client = await nats.connect(**servers.options(self.nats_url))
        try:
            yield client.jetstream(timeout=_ANSWER_S)
        finally:
            await client.close()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection that sees the rows of all tenants."""
        connection = await asyncpg.connect(self.database_url("postgres"))
        try:
            yield connection
        finally:
            await connection.close()

    async def left_in_streams(self) -> dict[str, int]:
        """How much waits in the queues and for the receipts, and how many are dead, by stream and kind of subject."""
        found: dict[str, int] = {}
        async with self.streams() as js:
            for stream in ("COMMANDS", "WORK", "SEND", "DEAD"):
                info = await js.stream_info(stream, subjects_filter="t.>")
                for subject, count in (info.state.subjects or {}).items():
                    kind = f"{stream} {'.'.join(subject.split('.')[2:4])}"
                    found[kind] = found.get(kind, 0) + count
            receipts = await js.consumer_info("INBOUND", "receipts")
            if waiting := (receipts.num_pending or 0) + (receipts.num_ack_pending or 0):
                found["INBOUND"] = waiting
        return found

    async def events(self, tenant: str) -> list[tuple[int, str, str]]:
        """Everything in EVENTS for a tenant, in order: sequence, type and id of what it is about."""
        found: list[tuple[int, str, str]] = []
        async with self.streams() as js:
            subscription = await js.subscribe(f"t.{tenant}.evt.>", stream="EVENTS", ordered_consumer=True)
            left = (await js.stream_info("EVENTS", subjects_filter=f"t.{tenant}.evt.>")).state
            for _ in range(sum((left.subjects or {}).values())):
                message = await subscription.next_msg(timeout=_ANSWER_S)
                type_, seq = message.subject.split(".evt.")[1], message.metadata.sequence.stream
                found.append((seq, type_, json.loads(message.data)["id"]))
        return found


@dataclass
class Sandbox:
    """The gateway's own routes."""

    session: ClientSession
    url: str

    async def put(self, what: str, body: Any) -> Any:
        """Set policy, pace or faults."""
        async with self.session.put(f"{self.url}/sandbox/{what}", json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def get(self, what: str) -> Any:
        async with self.session.get(f"{self.url}/sandbox/{what}") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def accepted(self, phone_number_id: str, **filters: str) -> list[dict[str, Any]]:
        """What it has accepted from one number, in order."""
        query = "".join(f"&{name}={quote(value)}" for name, value in filters.items())
        found = await self.get(f"messages?limit=100000&from={phone_number_id}{query}")
        assert found["next"] is None
        return list(found["items"])

    async def template(self, change: dict[str, Any]) -> None:
        """Change a template of one number's account, and have that told: the front door may be too busy to listen."""

        async def told() -> bool:
            return bool((await self.put("template", change))["webhooks"] == [None])

        await until(told, "what became of the template is told", every=0.5)

    async def write(self, phone: str, to: str, text: str) -> None:
        """A phone writes to a number."""
        await self.tell(phone, to, type="text", text=text)

    async def tell(self, who: str, to: str, **message: Any) -> str:
        """Somebody sends a message of any kind to a number; its id."""
        body = {"from": who, "to": to} | message
        async with self.session.post(f"{self.url}/sandbox/inbound", json=body) as response:
            assert response.status == 200, await response.text()
            return str((await response.json())["id"])
