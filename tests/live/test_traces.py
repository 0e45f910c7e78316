"""One trace from a request to the last receipt, over the bus, the database and the gateway, on a running platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from chaos.harness import Platform, a_phone, new_tenant, running
from live.listening import listening
from observing.collector import Collector, collecting
from support import quick_directory, until

DAY_S = 2.0

PACE = {"read_rate": 1.0, "sent_ms": 20, "delivered_ms": 50, "read_ms": 100}


@pytest.fixture(scope="module")
async def traced() -> AsyncIterator[tuple[Platform, Collector]]:
    """A platform that sends its traces to a collector."""
    async with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with quick_directory() as directory:
            async with running(directory, speed=24 * 3600 / DAY_S, **settings) as platform:
                await platform.gateway.put("pace", PACE)
                yield platform, collector


async def until_it_came(collector: Collector, trace: str, name: str, way: list[str]) -> None:
    """Wait until this span is known to come from those, the nearest first: each is told when it ends."""

    def came() -> list[str]:
        spans = collector.of(trace)
        return collector.ancestors(spans[name]) if name in spans else []

    try:
        await until(lambda: came() == way, f"{name} is traced to its origin", 30)
    except AssertionError as error:
        raise AssertionError(f"{error}: {came()} instead of {way}") from None


async def test_a_message_is_one_trace_that_its_caller_began(traced: tuple[Platform, Collector]) -> None:
    platform, collector = traced
    tenant = await new_tenant(platform.session, platform.url)
    sender, phone = await tenant.sender(), a_phone()
    trace, caller = uuid4().hex, uuid4().hex[:16]
    header = {"traceparent": f"00-{trace}-{caller}-01"}
    async with listening(tenant) as ear:
        wanted = {"sender_id": sender["id"], "to": phone, "body": "Your code is 493817", "lane": "otp"}
        answer = await platform.session.post(
            f"{platform.url}/api/v1/messages", json=wanted, headers=tenant.headers | header
        )
        assert answer.headers["X-Request-Id"] == str(UUID(trace))
        id_ = (await answer.json())["id"]
        await ear.until_heard("message.read", id_)
    way = [
        "POST WhatsApp",
        "process send",
        "process dispatcher",
        "publish cmd.message.send",
        "POST /api/v1/messages",
        caller,
    ]
    for receipt in ("evt.message.delivered", "evt.message.read"):
        await until_it_came(collector, trace, receipt, way)
    spans = collector.of(trace)
    assert spans["POST WhatsApp"].attributes["harkara.message_id"] == id_
    assert spans["POST WhatsApp"].attributes["harkara.answer"] == "accepted"
    assert spans["POST /api/v1/messages"].attributes["http.response.status_code"] == 202
    [webhook] = spans["evt.message.read"].links
    await until(lambda: "process receipts" in collector.of(webhook), "what took the webhook in is traced", 30)
    assert "POST /api/v1/webhooks/whatsapp/{sender_id}" in collector.of(webhook)
    key = tenant.headers["X-API-Key"]
    assert [secret for secret in (phone, phone[1:], "493817", key) if secret.encode() in collector.raw] == []


async def test_a_campaign_s_trace_goes_on_from_the_database(traced: tuple[Platform, Collector]) -> None:
    platform, collector = traced
    tenant = await new_tenant(platform.session, platform.url)
    sender = await tenant.sender()
    campaign = await tenant.campaign(sender["id"], 0, 24)
    contact = await tenant.contact()
    path = f"{platform.url}/api/v1/contacts/{contact['id']}/campaign/{campaign}/enroll"
    async with listening(tenant) as ear:
        answer = await platform.session.post(path, headers=tenant.headers)
        trace = UUID(answer.headers["X-Request-Id"]).hex
        await until(lambda: sum(one["type"] == "message.read" for one in ear.heard) == 2, "both steps are read", 30)

    def sent() -> list[str]:
        read = (one for one in collector.spans if (one.trace, one.name) == (trace, "evt.message.read"))
        return [one.attributes["harkara.message_id"] for one in read]

    await until(lambda: len({*sent()}) == 2, "both are traced", 30)
    request = "POST /api/v1/contacts/{contact_id}/campaign/{campaign_id}/enroll"
    way = ["POST WhatsApp", "process send", "publish work.send", request]
    await until_it_came(collector, trace, "evt.message.read", way)
    await until_it_came(collector, trace, "process enrollment", ["publish cmd.enrollment.start", request])
    assert collector.of(trace)[request].parent == ""


async def test_a_write_with_an_idempotency_key_is_traced_through_the_outbox(
    traced: tuple[Platform, Collector],
) -> None:
    platform, collector = traced
    tenant = await new_tenant(platform.session, platform.url)
    sender = await tenant.sender()
    campaign = await tenant.campaign(sender["id"], 1)
    contact = await tenant.contact()
    await tenant.post(f"/contacts/{contact['id']}/campaign/{campaign}/enroll")
    headers = tenant.headers | {"Idempotency-Key": uuid4().hex}
    path = f"{platform.url}/api/v1/contacts/{contact['id']}/campaign/{campaign}/stop"
    answer = await platform.session.post(path, headers=headers)
    assert answer.status < 300, await answer.text()
    trace = UUID(answer.headers["X-Request-Id"]).hex

    def from_the_request() -> bool:
        spans = collector.of(trace)
        way = collector.ancestors(spans["process enrollment"]) if "process enrollment" in spans else []
        return bool(way) and way[-1].startswith("POST /api/v1/contacts/")

    await until(from_the_request, "what lay in the outbox is traced", 30)


async def test_ticks_and_questions_how_we_are_are_not_traced(traced: tuple[Platform, Collector]) -> None:
    platform, collector = traced
    for path in ("healthz", "readyz", "metrics"):
        await platform.session.get(f"{platform.url}/{path}")
    tenant = await new_tenant(platform.session, platform.url)
    assert await tenant.get("/tenant")
    await until(lambda: any(one.name == "GET /api/v1/tenant" for one in collector.spans), "a request is traced", 30)
    names = {one.name for one in collector.spans}
    assert not {name for name in names if name.endswith(("/healthz", "/readyz", "/metrics", "/feed"))}
    assert not names & {"process ticker", "process herald"}
