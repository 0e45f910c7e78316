"""Work that is given up at once."""

from __future__ import annotations

from chaos.harness import Platform, Tenant
from support import until


async def a_dead_letter(live: Platform, tenant: Tenant) -> str:
    """A command that can't be read, as an actor gives it up; the id of the dead letter."""
    before = set(await tenant.ids("/dead-letters"))
    async with live.streams() as js:
        await js.publish(f"t.{tenant.id}.cmd.enrollment.start", b"garbage")
    found: list[str] = []

    async def is_dead() -> bool:
        found[:] = [id_ for id_ in await tenant.ids("/dead-letters") if id_ not in before]
        return bool(found)

    await until(is_dead, "the command is a dead letter")
    return found[0]
