"""Lists are cut to what is looked for: by status, kind, name and when things were made, page after page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from door_client import Account, in_order
from support import an_invoice

from harkara.ids import time_of
from harkara.storage.models import Campaign, Import, Template
from harkara.storage.storage import Storage


async def every(acme: Account, path: str, query: str = "", name: str = "name") -> list[Any]:
    """What all pages of a list show of this name, two things at a time, the oldest first."""
    found: list[Any] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = await acme.get(f"{path}?limit=2&{query}" + (f"&cursor={page['next']}" if page["next"] else ""))
        found += [one[name] for one in page["items"]]
    return found[::-1]


async def test_campaigns_are_found_by_status_type_number_and_name(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.lists.LOOKED_AT", 3)
    shop, office = await acme.sender(), await acme.sender()
    for number, name in enumerate(("Welcome", "Diwali 50%", "welcome back", "100_days", "Diwali 505", "WELCOME")):
        body = {"name": name, "sender_id": office if number % 2 else shop}
        body["type"] = "broadcast" if number == 4 else "drip"
        await acme.post("/campaigns", body)
    async with storage.tenant(acme.tenant):
        await Campaign.filter(name__in=["Welcome", "100_days"]).update(status="archived")
    assert len(await every(acme, "/campaigns")) == 6
    assert await every(acme, "/campaigns", "status=archived") == ["Welcome", "100_days"]
    assert await every(acme, "/campaigns", "type=broadcast") == ["Diwali 505"]
    assert await every(acme, "/campaigns", f"sender_id={office}") == ["Diwali 50%", "100_days", "WELCOME"]
    assert await every(acme, "/campaigns", "q=welcome") == ["Welcome", "welcome back", "WELCOME"]
    assert await every(acme, "/campaigns", f"q=elcome&sender_id={shop}&status=draft") == ["welcome back"]
    assert await every(acme, "/campaigns", f"q={quote('50%')}") == ["Diwali 50%"], "no pattern"
    assert await every(acme, "/campaigns", "q=0_d") == ["100_days"], "no pattern"
    assert await every(acme, "/campaigns", "q=%5C") == []
    assert "status" in (await acme.call("GET", "/campaigns?status=gone")).is_problem(422).faults()


async def test_what_was_made_before_and_after_an_instant(acme: Account, other: Account) -> None:
    sender, asha = await acme.sender(), await acme.contact(name="Asha")
    await acme.post("/campaigns", {"name": "Early", "sender_id": sender})
    before = [
        (await acme.post("/leads", {"contact_id": asha}))["id"],
        (await acme.post("/invoices", an_invoice(asha)))["id"],
    ]
    first = await acme.post("/campaigns", {"name": "Late", "sender_id": sender})
    middle = quote(time_of(UUID(first["id"])).isoformat())
    ravi = await acme.contact(name="Ravi")
    after = [
        (await acme.post("/leads", {"contact_id": ravi}))["id"],
        (await acme.post("/invoices", an_invoice(ravi)))["id"],
    ]
    await other.contact(name="Zoë")
    for path, name, early, late in (
        ("/campaigns", "name", "Early", "Late"),
        ("/contacts", "name", "Asha", "Ravi"),
        ("/leads", "id", before[0], after[0]),
        ("/invoices", "id", before[1], after[1]),
    ):
        assert await every(acme, path, f"until={middle}", name) == [early]
        assert await every(acme, path, f"since={middle}", name) == [late]
        assert await every(acme, path, f"since={middle}&until={middle}", name) == []
        odd = quote("0001-01-01T00:00:00+14:00")
        told = (await acme.call("GET", f"{path}?since={odd}&until={odd}")).is_problem(422).faults()
        assert set(told) == {"since", "until"}


async def test_enrolments_and_imports_have_their_time_too(acme: Account, storage: Storage) -> None:
    for query in ("since=2999-01-01T00:00:00Z", "until=2001-01-01T00:00:00Z", "status=active"):
        assert await every(acme, f"/campaigns/{await acme.campaign()}/enrollments", query, "id") == []
    file: dict[str, Any] = {"encoding": "utf-8", "delimiter": ",", "header": [], "acting": "", "cause": ""}
    file |= {"read_at": datetime.now(UTC), **dict.fromkeys(("rows", "rows_done", "chunks", "created", "updated"), 0)}
    file |= {"duplicates": 0, "errors": 0}
    early, late = in_order(2)
    async with storage.tenant(acme.tenant):
        await Import.create(id=early, status="completed", **file)
        await Import.create(id=late, status="queued", **file)
    assert await every(acme, "/contacts/imports", "status=queued", "id") == [str(late)]
    assert await every(acme, "/contacts/imports", "status=completed&until=2999-01-01T00:00:00Z", "id") == [str(early)]
    assert await every(acme, "/contacts/imports", "since=2999-01-01T00:00:00Z", "id") == []


async def test_senders_are_found_by_status_provider_and_name(acme: Account) -> None:
    await acme.sender(name="Shop Pune")
    phone = {"provider": "evolution", "app_secret": None}
    office = await acme.sender(name="Office", **phone)
    await acme.call("PATCH", f"/senders/{office}", body={"status": "paused"})
    assert await every(acme, "/senders", "status=paused") == ["Office"]
    assert await every(acme, "/senders", "provider=cloud") == ["Shop Pune"]
    assert await every(acme, "/senders", "q=pune") == ["Shop Pune"]
    assert await every(acme, "/senders", "q=pune&status=paused") == []


async def test_templates_are_found_by_status_category_language_and_name(acme: Account, storage: Storage) -> None:
    sender = UUID(await acme.sender())
    async with storage.tenant(acme.tenant):
        for name, language, category, status in (
            ("order_sent", "hi", "utility", "approved"),
            ("order_sent", "en", "utility", "paused"),
            ("diwali", "en", "marketing", "approved"),
        ):
            kinds: dict[str, Any] = {"language": language, "category": category, "status": status}
            await Template.create(sender_id=sender, name=name, components=[], **kinds)
    path = f"/senders/{sender}/templates"
    assert await every(acme, path, "status=APPROVED") == ["order_sent", "diwali"]
    assert await every(acme, path, "category=marketing") == ["diwali"]
    assert await every(acme, path, "language=hi") == ["order_sent"]
    assert await every(acme, path, "q=order&language=en&status=approved") == []


async def test_segments_and_people_are_found_by_what_they_are_called(acme: Account) -> None:
    for name in ("VIPs in Pune", "Old"):
        await acme.post("/segments", {"name": name, "condition": {"type": "tag", "tag": "vip"}})
    assert await every(acme, "/segments", "q=vips") == ["VIPs in Pune"]
    agent = f"ravi@{acme.tenant}.example"
    made = (await acme.post("/users", {"email": agent, "name": "Ravi Rao", "role": "agent"}))["id"]
    for query in ("role=agent", "q=RAVI", "q=Rao", "role=agent&is_active=true"):
        assert await every(acme, "/users", query, "email") == [agent]
    await acme.call("PATCH", f"/users/{made}", body={"is_active": False})
    assert await every(acme, "/users", "is_active=false", "email") == [agent]
    assert await every(acme, "/users", "role=agent&is_active=true", "email") == []
    assert await every(acme, "/users", "", "email") == [acme.email, agent]
