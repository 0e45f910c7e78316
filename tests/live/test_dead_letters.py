"""What an actor gave up is seen, tried again and forgotten by whose it is."""

from __future__ import annotations

from base64 import b64decode

from chaos.harness import Platform, Tenant
from live.letters import a_dead_letter
from support import until


async def test_a_dead_letter_is_shown_tried_again_and_forgotten(live: Platform, tenant: Tenant, other: Tenant) -> None:
    id_ = await a_dead_letter(live, tenant)
    (letter,) = await tenant.every("/dead-letters")
    assert (letter["actor"], letter["subject"]) == ("enrollment", f"t.{tenant.id}.cmd.enrollment.start")
    assert "JSON" in letter["reason"]
    assert (letter["body"], letter["body_begins"]) == (None, "garbage")
    assert b64decode(letter["body_base64"]) == b"garbage", "it is no JSON"
    assert await other.every("/dead-letters") == []
    await tenant.post(f"/dead-letters/{id_}/replay")

    async def died_again() -> bool:
        return len(ids := await tenant.ids("/dead-letters")) == 1 and ids != [id_]

    await until(died_again, "it was tried again, and given up again")
    (again,) = await tenant.every("/dead-letters")
    assert (again["message_id"], again["subject"]) == (letter["message_id"], letter["subject"])
    await tenant.call("DELETE", f"/dead-letters/{again['id']}")
    assert await tenant.every("/dead-letters") == []
