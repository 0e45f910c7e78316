"""Work that is given up at once."""

from __future__ import annotations

import nats
from chaos.harness import Platform, Tenant
from support import until


async def a_dead_letter(live: Platform, tenant: Tenant) -> str:
    """A command that can't be read, as an actor gives it up; the id of the dead letter."""
    before = set(await tenant.ids("/dead-letters"))
    client = await nats.connect(live.nats_url)
    try:
        await client.jetstream().publish(f"t.{tenant.id}.cmd.enrollment.start", b"garbage")
    finally:
        await client.close()
    found: list[str] = []

    async def is_dead() -> bool:
        found[:] = [id_ for id_ in await tenant.ids("/dead-letters") if id_ not in before]
        return bool(found)

    await until(is_dead, "the command is a dead letter")
    return found[0]
