"""What the command line tells of a message, and the situations that messages come into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chaos.harness import Platform, Tenant, a_phone
from live.terminal import told
from support import until


async def now_of(live: Platform, id_: str) -> dict[str, Any]:
    """What `harkara ops trace` says of where something is; its words are all in `text`."""
    story: dict[str, Any] = {}

    async def everybody_was_asked() -> bool:
        story.update(await told(live, "trace", id_))
        return not story["unasked"]

    await until(everybody_was_asked, f"everybody says what they know of {id_}")
    [now] = [one for one in story["now"] if one["id"] == id_]
    return dict(now) | {"text": f"{now['where']}; {now['waits_for']}; {now['todo']}", "story": story}


async def until_it_says(live: Platform, id_: str, code: str) -> dict[str, Any]:
    """Trace it until the code is that; some things take a moment to be noticed."""
    found: list[dict[str, Any]] = []

    async def says() -> bool:
        found[:] = [await now_of(live, id_)]
        return bool(found[0]["code"] == code)

    try:
        await until(says, f"trace says {code}", 40, every=0.3)
    except AssertionError as error:
        raise AssertionError(f"{error}, but {found}") from None
    return found[0]


async def sent(tenant: Tenant, sender: Any, **more: Any) -> str:
    """The id of a message that was accepted."""
    wanted = {"sender_id": sender["id"], "to": a_phone(), "body": "Hi"} | more
    return str((await tenant.post("/messages", wanted))["id"])


@asynccontextmanager
async def faults(live: Platform, *wanted: dict[str, Any]) -> AsyncIterator[None]:
    """The gateway misbehaves inside the block."""
    await live.gateway.put("faults", list(wanted))
    try:
        yield
    finally:
        await live.gateway.put("faults", [])


@asynccontextmanager
async def paced(live: Platform, **wanted: int) -> AsyncIterator[None]:
    """Receipts come at another pace inside the block."""
    before = await live.gateway.get("pace")
    await live.gateway.put("pace", wanted)
    try:
        yield
    finally:
        await live.gateway.put("pace", before)


async def status_of(tenant: Tenant, id_: str, *statuses: str) -> None:
    async def is_so() -> bool:
        return (await tenant.message(id_))["status"] in statuses

    await until(is_so, f"the message is {' or '.join(statuses)}")


async def until_told(live: Platform, tenant: Tenant, type_: str, id_: str) -> None:
    """Wait until something is told of this, which is after it is written."""

    async def is_told() -> bool:
        return (type_, id_) in [(told, about) for _, told, about in await live.events(tenant.id)]

    await until(is_told, f"{type_} is told", every=0.2)
