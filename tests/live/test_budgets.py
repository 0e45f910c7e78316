"""Budgets that keep back one message: the others go on, and it says why it waits."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from chaos.harness import Platform, Tenant, a_phone
from live.terminal import told
from redis.asyncio import Redis
from support import until

from harkara.actors.budget_script import PAIR_BURST
from harkara.storage import redis_keys


async def test_a_phone_that_gets_too_much_keeps_nobody_else_waiting(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender(pair_limit=True)
    to, number = a_phone(), sender["phone_number_id"]
    asked, waiting = 0, f"/messages?sender_id={sender['id']}&reason=pair_limit"

    async def kept_back() -> list[dict[str, object]]:
        """One more is asked for each time: the longer that takes, the more of them may leave."""
        nonlocal asked
        await tenant.post("/messages", {"to": to, "sender_id": sender["id"], "body": f"number {asked}"})
        asked += 1
        found = await tenant.every(waiting) if asked > PAIR_BURST else []
        return found if len(found) >= 3 else []

    async def the_rest_has_left() -> bool:
        still = await tenant.ids(waiting)
        return len(await live.gateway.accepted(number, to=to)) + len(still) >= asked

    found = await until(kept_back, "what is too much waits", 90)
    other = await tenant.post("/messages", {"to": a_phone(), "sender_id": sender["id"], "body": "for another"})
    story = await tenant.message(str(found[0]["id"]))
    assert story["why"]["code"] == "pair_limit"
    assert story["attempts"] == 0
    assert {message["status"] for message in found} == {"queued"}
    await until(the_rest_has_left, "all others of that phone have left")

    async def gone() -> bool:
        return (await tenant.message(other["id"]))["status"] in ("sent", "delivered", "read")

    await until(gone, "another phone's message has left", 30)


@pytest.mark.parametrize("how", ["resume", "ops", "PATCH"])
async def test_a_short_rest_is_over_when_somebody_has_the_number_go_on(
    live: Platform, tenant: Tenant, how: str
) -> None:
    """Redis alone knows of it."""
    sender, clients = await tenant.sender(), Redis
    path, redis = f"/senders/{sender['id']}", cast("Any", clients).from_url(live.redis_url)
    rests_until = time.time() + 600
    await redis.set(redis_keys.hold(sender["id"]), str(int(rests_until * 1e6)), ex=600)
    await redis.aclose()
    sent = await tenant.post("/messages", {"to": a_phone(), "sender_id": sender["id"], "body": "Hi"})
    await until(lambda: _rests(tenant, sent["id"]), "it waits for its number")
    if how == "ops":
        done = (await told(live, "resume", "sender", sender["id"], "--yes"))["done"]
        assert done == f"the sender {sender['id']} goes on: it rests no longer"
        assert (await told(live, "resume", "sender", sender["id"], "--yes"))["done"].startswith("nothing to do")
    elif how == "resume":
        assert (await tenant.post(f"{path}/resume"))["held_until"] is None
    else:
        await tenant.call("PATCH", path, {"status": "active"})

    async def gone() -> bool:
        return (await tenant.message(sent["id"]))["status"] in ("sent", "delivered", "read")

    await until(gone, "it has left", 30)


async def _rests(tenant: Tenant, id_: str) -> bool:
    why = (await tenant.message(id_))["why"]
    return why is not None and why["code"] == "number_rests"
