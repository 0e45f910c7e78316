"""Hearing a tenant's feed, and waiting for what others do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from aiohttp import ClientError, WSMsgType
from chaos.harness import Tenant
from chaos.observed import Sandbox
from support import until


class Ear:
    """Listens from `since` on, and comes back with its last sequence whenever it is disconnected."""

    def __init__(self, tenant: Tenant, since: int = 0) -> None:
        self._tenant = tenant
        self._since = since
        self.heard: list[dict[str, Any]] = []
        self.connections = 0

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(ClientError, OSError):
                await self._once()
            await asyncio.sleep(0.05)

    async def _once(self) -> None:
        tenant = self._tenant
        async with tenant.session.ws_connect(f"{tenant.url}/api/v1/feed", headers=tenant.headers) as ws:
            self.connections += 1
            await ws.send_json({"subscribe": ["*"], "since": self._since})
            async for message in ws:
                if message.type is WSMsgType.ERROR:  # broken off in the middle of a message
                    return
                assert message.type is WSMsgType.TEXT, message
                told = json.loads(message.data)
                if told["type"] != "feed.closed":
                    self.heard.append(told)
                    self._since = told["seq"]

    def of(self, id_: str) -> list[str]:
        """What was heard about one thing, in order."""
        return [told["type"] for told in self.heard if told["data"].get("id") == id_]

    def of_type(self, type_: str) -> list[dict[str, Any]]:
        """What was heard of one kind, in order."""
        return [told for told in self.heard if told["type"] == type_]

    async def until_heard(self, type_: str, id_: str, within_s: float = 30) -> None:
        await until(lambda: type_ in self.of(id_), f"{type_} of {id_} is told", within_s)


@asynccontextmanager
async def listening(tenant: Tenant, since: int = 0) -> AsyncIterator[Ear]:
    """An ear, open until the block is left."""
    ear = Ear(tenant, since)
    task = asyncio.create_task(ear.listen())
    try:
        await until(lambda: ear.connections, "the feed is open")
        yield ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def enrollment(tenant: Tenant, campaign: str, contact: str) -> dict[str, Any]:
    """One contact's enrolment."""
    found = await tenant.get(f"/campaigns/{campaign}/enrollments?contact_id={contact}")
    assert len(found["items"]) == 1, found
    return dict(found["items"][0])


async def enroll(tenant: Tenant, campaign: str, contact: str) -> dict[str, Any]:
    """Enrol one contact; the enrolment once it is there."""
    await tenant.post(f"/contacts/{contact}/campaign/{campaign}/enroll")

    async def there() -> bool:
        return bool((await tenant.get(f"/campaigns/{campaign}/enrollments?contact_id={contact}"))["items"])

    await until(there, "the contact is enrolled")
    return await enrollment(tenant, campaign, contact)


async def until_accepted(sandbox: Sandbox, number: str, count: int, within_s: float = 30) -> list[dict[str, Any]]:
    """Wait until the gateway has accepted so many messages from a number; all that it has."""

    async def enough() -> bool:
        return len(await sandbox.accepted(number)) >= count

    await until(enough, f"the gateway has accepted {count} messages", within_s)
    return await sandbox.accepted(number)


def instant(text: str) -> datetime:
    """An instant as the API writes it."""
    return datetime.fromisoformat(text)
