"""What Prometheus reads of a platform at work: everything is told, is described, and tells nobody's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from chaos.harness import Platform, Process, Tenant, a_phone, environment, new_tenant
from live.listening import listening
from prometheus_client.parser import text_string_to_metric_families
from support import until

from harkara.app import ACTORS
from harkara.bus.topology import load
from harkara.embedded.ports import free_ports
from harkara.gateway.errors import RULES
from harkara.gateway.providers import ANSWERS
from harkara.http.routes import ROUTES
from harkara.measures import BOUNDS, LONG_BOUNDS, OTHER
from harkara.schemas import commands, events, work
from harkara.schemas.base import Message, kind_of
from harkara.schemas.commands import LANES
from harkara.schemas.reasons import Reason

ROOT = Path(__file__).parents[2]

#: Actors have the names of their durables; the sender is `send` there.
NAMES = {*ACTORS} - {"sender"} | {"send"}


def kinds() -> Iterator[str]:
    for module in (commands, events, work):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Message) and hasattr(kind, "subject"):
                yield kind_of(kind)


#: All that a label may ever say.
FINITE: dict[str, set[str]] = {
    "outcome": {
        *("accepted", "queued", "sent", "delivered", "read", "failed", "suppressed", "deferred", "unknown", "resent"),
        *("handled", "retried", "dead"),
    },
    "reason": {*get_args(Reason), OTHER},
    "kind": {*kinds()},
    "why": {"unavailable", "full", "refused", "too many", "no HTTP", "slow head", "long head", "failed"},
    "actor": NAMES,
    "reader": NAMES | {f"send.{lane}" for lane in LANES} | {OTHER},
    "stream": {stream.name for stream in load().streams},
    "provider": {"cloud", "sandbox", "evolution", "waha"},
    "answer": {*ANSWERS.values()},
    "code": {*map(str, RULES), OTHER},
    "lane": {*LANES},
    "state": {"in_use", "free"},
    "method": {*(route.method for route in ROUTES), "ANY"},
    "route": {*(route.path for route in ROUTES), "unmatched"},
    "status": {f"{digit}xx" for digit in range(1, 6)},
    "limit": {"key", "tenant", "address", "strangers"},
    "le": {*map(str, (*BOUNDS, *LONG_BOUNDS)), "+Inf"},
}


async def page_of(platform: Platform) -> str:
    async with platform.session.get(f"{platform.url}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


def samples(page: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples of ours by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("harkara_"):
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(page: str, name: str, **labels: str) -> float:
    """The sum of all samples of a name with these labels."""
    wanted = labels.items()
    return sum(value for said, value in samples(page).get(name, ()) if wanted <= said.items())


async def journey(platform: Platform, tenant: Tenant) -> list[str]:
    """A message that is read, one that is cancelled, refused requests; gives what no metric may say."""
    sender = await tenant.sender()
    contact = await tenant.contact(name="Asha Rao")
    async with listening(tenant) as ear:
        wanted: dict[str, Any] = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Hello"}
        id_ = (await tenant.post("/messages", wanted))["id"]
        await ear.until_heard("message.read", id_)
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        waits = (await tenant.post("/messages", {**wanted, "send_at": later}))["id"]
        await ear.until_heard("message.queued", waits)
        await tenant.post(f"/messages/{waits}/cancel")
        await ear.until_heard("message.suppressed", waits)
    await tenant.ask("GET", f"/contacts/{contact['phone']}")
    await tenant.ask("GET", f"/nowhere/{a_phone()}")
    return [tenant.id, sender["id"], sender["phone_number_id"], contact["id"], contact["phone"], id_]


async def test_labels_come_from_finite_sets_however_many_tenants_there_are(live: Platform, tenant: Tenant) -> None:
    names = await journey(live, tenant)
    page = await page_of(live)
    others = await new_tenant(live.session, live.url)
    names += await journey(live, others)
    later = await page_of(live)
    assert [name for name in names if name in later] == []
    strange = {
        (name, label, said[label])
        for name, found in samples(later).items()
        for said, _ in found
        for label in said
        if said[label] not in FINITE.get(label, set())
    }
    assert strange == set()
    outcomes = {said["outcome"]: count for said, count in samples(later)["harkara_messages_total"]}
    before = {said["outcome"]: count for said, count in samples(page)["harkara_messages_total"]}
    for outcome in ("accepted", "sent", "delivered", "read", "suppressed"):
        assert outcomes[outcome] >= before[outcome] + 1, outcome
    assert value(later, "harkara_messages_suppressed_total", reason="cancelled") >= 2
    assert value(later, "harkara_gateway_seconds_count", provider="sandbox", answer="accepted") >= 2
    assert value(later, "harkara_actor_deliveries_total", actor="send", outcome="handled") >= 2
    assert value(later, "harkara_turn_seconds_count", lane="utility") >= 2
    assert value(later, "harkara_publish_seconds_count") > 2
    assert value(later, "harkara_database_connections") >= 1

    async def readers() -> bool:
        found = samples(await page_of(live)).get("harkara_reader_pending", ())
        return {said["reader"] for said, _ in found} >= {"dispatcher", "send.utility"}

    await until(readers, "the readers of all numbers are told together")


async def test_every_metric_is_described_and_nothing_else_is(live: Platform) -> None:
    page = await page_of(live)
    told = set(re.findall(r"^# TYPE (harkara_\w+)", page, re.MULTILINE))
    table = (ROOT / "docs" / "observing.md").read_text("utf-8")
    described = set(re.findall(r"^\| `(harkara_\w+)`", table, re.MULTILINE))
    assert told == described
    for name, labels in re.findall(r"^\| `(harkara_\w+)` \| ([^|]*) \|", table, re.MULTILINE):
        found = [said for sample, values in samples(page).items() if _base(sample) == name for said, _ in values]
        for said in found:
            assert {*said} - {"le"} == set(re.findall(r"`(\w+)`", labels)), name


def _base(sample: str) -> str:
    """The metric that a sample belongs to."""
    return re.sub(r"_(bucket|sum|count)$", "", sample) if "seconds" in sample else sample


async def test_a_process_of_actors_tells_where_it_was_told_to(live: Platform) -> None:
    (port,) = free_ports(1)
    settings = {
        "DATABASE_URL": live.database_url("harkara_app"),
        "NATS_URL": live.nats_url,
        "REDIS_URL": live.redis_url,
        "SECRET_KEY": (live.data / "secret-key").read_text(),
        "METRICS_PORT": str(port),
    }
    process = Process(["actor", "librarian"], live.data / "librarian.log", environment(**settings))
    await process.spawn()
    try:

        async def told() -> str:
            try:
                async with live.session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    return await answer.text()
            except OSError:
                return ""

        await until(told, "it listens", 30)
        page = await told()
        assert 'harkara_actor_deliveries_total{actor="librarian",outcome="handled"}' in page
        assert "harkara_http_connections" not in page
        assert value(page, "harkara_broker_connected") == 1
    finally:
        await process.stop()
