"""What Prometheus reads of a platform at work: everything is told, is described, and tells nobody's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from aiohttp import ClientError
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


#: What `journey` makes of messages.
OUTCOMES = ("accepted", "sent", "delivered", "read", "suppressed")


def outcomes(page: str) -> dict[str, float]:
    """How many messages have come to what of a journey's."""
    return {outcome: value(page, "harkara_messages_total", outcome=outcome) for outcome in OUTCOMES}


async def test_labels_come_from_finite_sets_however_many_tenants_there_are(live: Platform, tenant: Tenant) -> None:
    before = outcomes(await page_of(live))
    names = await journey(live, tenant)
    names += await journey(live, await new_tenant(live.session, live.url))
    pages: list[str] = []

    async def counted() -> bool:  # a moment after it was told
        pages[:] = [page := await page_of(live)]
        return (
            all(count >= before[outcome] + 2 for outcome, count in outcomes(page).items())
            and value(page, "harkara_messages_suppressed_total", reason="cancelled") >= 2
            and value(page, "harkara_gateway_seconds_count", provider="sandbox", answer="accepted") >= 2
            and value(page, "harkara_actor_deliveries_total", actor="send", outcome="handled") >= 2
            and value(page, "harkara_turn_seconds_count", lane="utility") >= 2
        )

    await until(counted, "both journeys are counted", every=0.2)
    [later] = pages
    assert [name for name in names if name in later] == []
    strange = {
        (name, label, said[label])
        for name, found in samples(later).items()
        for said, _ in found
        for label in said
        if said[label] not in FINITE.get(label, set())
    }
    assert strange == set()
    assert value(later, "harkara_publish_seconds_count") > 2
    assert value(later, "harkara_database_connections") >= 1

    async def readers() -> bool:
        found = samples(await page_of(live)).get("harkara_reader_pending", ())
        return {said["reader"] for said, _ in found} >= {"dispatcher", "send.utility"}

    await until(readers, "the readers of all numbers are told together", every=0.5)


async def test_every_metric_is_described_and_nothing_else_is(live: Platform) -> None:
    table = (ROOT / "docs" / "observing.md").read_text("utf-8")
    described = set(re.findall(r"^\| `(harkara_\w+)`", table, re.MULTILINE))
    pages: list[str] = []

    async def all_told() -> bool:  # what a server does not answer in time is left out, for some seconds
        pages[:] = [await page_of(live)]
        return _told(pages[0]) >= described

    with suppress(AssertionError):
        await until(all_told, "all that is described is told", every=0.5)
    [page] = pages
    assert _told(page) == described
    for name, labels in re.findall(r"^\| `(harkara_\w+)` \| ([^|]*) \|", table, re.MULTILINE):
        found = [said for sample, values in samples(page).items() if _base(sample) == name for said, _ in values]
        for said in found:
            assert {*said} - {"le"} == set(re.findall(r"`(\w+)`", labels)), name


def _told(page: str) -> set[str]:
    return set(re.findall(r"^# TYPE (harkara_\w+)", page, re.MULTILINE))


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
            except (ClientError, OSError):
                return ""

        async def at_work() -> bool:
            of_librarian = 'harkara_actor_deliveries_total{actor="librarian",outcome="handled"}'
            page = await told()
            return of_librarian in page and value(page, "harkara_broker_connected") == 1

        await until(at_work, "it listens, and its actor is at work", 60, every=0.1)
        assert "harkara_http_connections" not in await told()
    finally:
        await process.stop()
