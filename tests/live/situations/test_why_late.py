"""Why is this message late? In each of ten situations the command line alone says it, in words."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from chaos.harness import Platform, Tenant
from live.situations.telling import faults, now_of, paced, sent, status_of, until_it_says
from live.terminal import ops, told
from support import an_invoice, quiet_now, until


async def test_its_number_is_blocked(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    async with faults(live, {"kind": "error", "code": 190, "phone_number_id": sender["phone_number_id"]}):
        id_ = await sent(tenant, sender)
        now = await until_it_says(live, id_, "number_stopped")
    assert "Shop" in now["text"]
    assert "paused" in now["text"]
    assert "access token" in now["text"].lower()
    assert f"harkara ops resume sender {sender['id']}" in now["todo"]
    number = f"the number Shop of {tenant.id} is stopped ("
    assert [line for line in (await told(live, "status", "--max-age", "3600"))["trouble"] if line.startswith(number)]
    status, out, _ = await ops(live, "status", "--max-age", "3600")
    assert (status, f"✗ {number}" in out, f"`harkara ops resume sender {sender['id']}`" in out) == (1, True, True)
    # What it says helps.
    await told(live, "resume", "sender", sender["id"], "--yes")
    await status_of(tenant, id_, "sent", "delivered", "read")
    assert (await tenant.get(f"/senders/{sender['id']}"))["status"] == "active"
    [entry] = (await tenant.get(f"/audit?entity=sender&entity_id={sender['id']}&action=update"))["items"]
    assert entry["via"] == "harkara ops resume sender"


@pytest.mark.parametrize(
    ("code", "how"), [(131048, "resume"), (131064, "ops"), (133016, "PATCH")], ids=["resume", "ops", "PATCH"]
)
async def test_its_number_rests_until_somebody_has_it_go_on(
    live: Platform, tenant: Tenant, code: int, how: str
) -> None:
    sender = await tenant.sender()
    async with faults(live, {"kind": "error", "code": code, "phone_number_id": sender["phone_number_id"]}):
        ids = [await sent(tenant, sender) for _ in range(3)]
        for id_ in ids:
            now = await until_it_says(live, id_, "number_rests")
    standing = (await told(live, "trace", sender["id"]))["standing"]
    assert [line for line in standing if line.startswith("it rests until 20")], standing
    lines = (await told(live, "status", "--max-age", "10"))["trouble"]
    number = rf"(the number|[0-9]+ messages? waits? for) Shop of {tenant.id}: its number rests.* until 20"
    assert [line for line in lines if re.match(number, line)], lines
    waits = [one["what"] for one in now["story"]["timeline"] if "put off" in one["what"]]
    assert all(re.fullmatch("put off until [-0-9 :]+: .+", what) for what in waits), waits
    if how == "ops":
        await told(live, "resume", "sender", sender["id"], "--yes")
    elif how == "resume":
        await tenant.post(f"/senders/{sender['id']}/resume")
    else:
        await tenant.call("PATCH", f"/senders/{sender['id']}", {"status": "active"})
    for id_ in ids:
        await status_of(tenant, id_, "sent", "delivered", "read")


async def test_its_numbers_budget_is_empty(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender(mps=1)
    ids = [await sent(tenant, sender) for _ in range(30)]  # they leave in so many seconds
    now = await until_it_says(live, ids[-1], "budget_empty")
    assert "may send 1 a second" in now["text"]
    assert re.search(r"messages? waits? for it", now["text"])


async def test_it_is_quiet_where_the_contact_lives(live: Platform, tenant: Tenant) -> None:
    await tenant.call("PATCH", "/tenant", {"quiet_hours": quiet_now()})
    contact = await tenant.contact(phone=f"+9198{uuid4().int % 10**8:08d}")
    id_ = await sent(tenant, await tenant.sender(), to=None, contact_id=contact["id"], lane="marketing")
    now = await until_it_says(live, id_, "quiet_hours")
    assert "quiet hours where the contact lives" in now["text"]
    assert "until 20" in now["text"]
    # The contact's own id leads there, too.
    story = await told(live, "trace", contact["id"])
    assert (story["kind"], [one["code"] for one in story["now"]]) == ("contact", ["quiet_hours"])


async def test_the_contact_opted_out(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(mps=1), await tenant.contact()
    for _ in range(20):  # so that it waits until the contact has written
        await sent(tenant, sender)
    id_ = await sent(tenant, sender, to=None, contact_id=contact["id"])
    await live.gateway.write(contact["phone"], sender["phone_number_id"], "STOP")
    now = await until_it_says(live, id_, "opted_out")
    assert "opted out" in now["text"]
    assert "suppressed" in now["where"]
    assert any("opted out of everything" in moment["what"] for moment in now["story"]["timeline"])


async def test_its_template_is_paused(live: Platform, tenant: Tenant) -> None:
    waba = str(uuid4().int % 10**15)
    async with live.session.post(
        f"{live.gateway.url}/v26.0/{waba}/message_templates",
        json={"name": "offer", "language": "en", "category": "UTILITY"},
        headers={"Authorization": "Bearer t"},
    ) as answer:
        assert answer.status == 200
    sender = await tenant.sender(waba_id=waba)
    await tenant.post(f"/senders/{sender['id']}/templates/sync", headers={"Prefer": "wait=30"})
    await live.gateway.template({"waba_id": waba, "name": "offer", "language": "en", "status": "paused"})

    async def is_paused() -> bool:
        [template] = (await tenant.get(f"/senders/{sender['id']}/templates"))["items"]
        return bool(template["status"] == "paused")

    await until(is_paused, "the template is paused")
    id_ = await sent(tenant, sender, body=None, template={"name": "offer"})
    now = await until_it_says(live, id_, "template_paused")
    assert "its template is paused" in now["text"]
    assert "templates/sync" in now["todo"]


async def test_an_actor_is_paused(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    await told(live, "pause", "actor", "dispatcher", "--yes")
    try:
        id_ = await sent(tenant, sender)
        now = await until_it_says(live, id_, "actor_paused")
        assert "in the stream COMMANDS" in now["text"]
        assert "the actor dispatcher, which is paused until somebody resumes it" in now["text"]
        assert now["todo"] == "`harkara ops resume actor dispatcher`"
        assert any("dispatcher" in line and "paused" in line for line in (await told(live, "status"))["trouble"])
    finally:
        await told(live, "resume", "actor", "dispatcher")
    await status_of(tenant, id_, "sent", "delivered", "read")


async def test_the_message_is_poison(live: Platform, tenant: Tenant) -> None:
    id_ = str(uuid4())
    async with live.streams() as js:
        headers = {"Nats-Msg-Id": f"{tenant.id}.{id_}"}
        await js.publish(f"t.{tenant.id}.cmd.message.send", b'{"body": ', headers=headers)
    await until(lambda: tenant.ids("/dead-letters"), "it is given up")
    now = await now_of(live, id_)
    assert now["code"] == "dead_letter"
    assert "dispatcher gave it up" in now["text"]
    assert "undecodable" in now["text"]
    [letter] = await tenant.ids("/dead-letters")
    assert f"harkara ops dead replay {letter}" in now["todo"]


async def test_the_broker_is_full_of_what_came_before(live: Platform, tenant: Tenant) -> None:
    """The database is slow, so commands pile up before it."""
    sender, ids = await tenant.sender(), list[str]()
    async with live.database() as con, con.transaction():
        await con.execute("lock table messages in exclusive mode")  # read it may be, written not
        for _ in range(45):  # more than the dispatcher takes at once
            ids += await asyncio.gather(*(sent(tenant, sender) for _ in range(10)))
        now = await until_it_says(live, ids[-1], "behind")
        assert "in the stream COMMANDS" in now["text"]
        assert "dispatcher is behind" in now["text"]
        assert "harkara ops lag" in now["todo"]
        first = await now_of(live, ids[0])
        assert first["code"] == "in_hand"
        assert "database" in first["todo"]
    await status_of(tenant, ids[-1], "sent", "delivered", "read")


async def test_the_gateway_is_slow(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender(mps=20)
    # A little less than what a request may take: there is time to look at it.
    slow = {"kind": "slow", "delay_ms": 10_000, "phone_number_id": sender["phone_number_id"]}
    async with faults(live, slow), paced(live, sent_ms=20_000):
        first = await sent(tenant, sender)
        in_the_air = await until_it_says(live, first, "gateway_slow")
        # More than a number has on its way at once, and takes in many seconds, so that the last waits behind them.
        await asyncio.gather(*(sent(tenant, sender) for _ in range(240)))
        behind = await until_it_says(live, await sent(tenant, sender), "gateway_slow")
    assert "in a request to WhatsApp" in in_the_air["where"]
    assert "its answer: the gateway is slow" in in_the_air["waits_for"]
    assert "in the queue of its number" in behind["where"]
    assert "the gateway, which is slow" in behind["waits_for"]
    assert "have no answer yet" in behind["waits_for"]


async def test_its_webhook_was_lost(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    lost = {"kind": "webhook_lost", "phone_number_id": sender["phone_number_id"], "count": 3}
    async with faults(live, lost):
        id_ = await sent(tenant, sender)

        async def is_lost() -> bool:
            [fault] = (await live.gateway.get("faults"))["faults"]
            return bool(fault.get("fired") == 3)

        await until(is_lost, "all its receipts are lost")
        await live.gateway.put("faults", [])
        await status_of(tenant, await sent(tenant, sender), "read")
    async with live.database() as con:  # time passes
        await con.execute("update messages set sent_at = sent_at - interval '15 s' where id = $1", id_)
    now = await now_of(live, id_)
    assert now["code"] == "no_receipt"
    assert "this webhook was lost on its way" in now["text"]
    assert "others have come since then" in now["text"]


async def test_its_invoice_is_paid(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    invoice = (await tenant.post("/invoices", an_invoice(contact["id"])))["id"]
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    id_ = await sent(tenant, sender, to=None, contact_id=contact["id"], invoice_id=invoice, send_at=later)
    await until_it_says(live, id_, "not_due")
    await tenant.post(f"/invoices/{invoice}/pay")
    now = await until_it_says(live, id_, "invoice_paid")
    assert "does not leave" in now["text"]
    # The invoice's own id leads there, too, and tells how it stands.
    story = await told(live, "trace", invoice)
    assert (story["kind"], [one["id"] for one in story["now"]]) == ("invoice", [id_])
    assert [one["what"] for one in story["timeline"] if one["where"] == "invoices"][-1].startswith("was paid")
