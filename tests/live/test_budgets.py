"""Budgets that keep back one message: the others go on, and it says why it waits."""

from __future__ import annotations

from chaos.harness import Platform, Tenant, a_phone
from support import until

from harkara.actors.budget_script import PAIR_BURST


async def test_a_phone_that_gets_too_much_keeps_nobody_else_waiting(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender(pair_limit=True)
    to, number = a_phone(), sender["phone_number_id"]
    for n in range(PAIR_BURST + 3):
        await tenant.post("/messages", {"to": to, "sender_id": sender["id"], "body": f"number {n}"})
    other = await tenant.post("/messages", {"to": a_phone(), "sender_id": sender["id"], "body": "for another"})

    async def kept_back() -> list[dict[str, object]]:
        found = await tenant.every(f"/messages?sender_id={sender['id']}&reason=pair_limit")
        return found if len(found) >= 3 and len(await live.gateway.accepted(number, to=to)) == sent(found) else []

    def sent(found: list[dict[str, object]]) -> int:
        return PAIR_BURST + 3 - len(found)

    found = await until(kept_back, "what is too much waits", 60)
    assert {message["status"] for message in found} == {"queued"}
    story = await tenant.get(f"/messages/{found[0]['id']}")
    assert story["why"]["code"] == "pair_limit"
    assert story["attempts"] == 0

    async def gone() -> bool:
        return (await tenant.get(f"/messages/{other['id']}"))["status"] in ("sent", "delivered", "read")

    await until(gone, "another phone's message has left", 30)
