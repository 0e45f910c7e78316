"""What a tenant has used: by month and category, its own alone, page by page."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from door_client import Account, Api

from harkara.ids import uuid7
from harkara.storage.models import CategoryUsage, MonthlyUsage, Tenant
from harkara.storage.storage import Storage
from harkara.storage.usage import Priced, count, priced

MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)


async def used(storage: Storage, tenant: str) -> None:
    async with storage.tenant(tenant):
        for month, messages in ((MARCH, 7), (APRIL, 12)):
            id_ = uuid7(datetime(month.year, month.month, 1, tzinfo=UTC))
            await MonthlyUsage.create(id=id_, month=month, messages=messages)
        await CategoryUsage.create(month=APRIL, category="utility", billable=False, messages=2)
    async with storage.batch((tenant,)) as con:
        await count(con, [Priced(tenant, APRIL, "marketing", True)] * 3 + [Priced(tenant, APRIL, "utility", False)])
        await count(con, [Priced(tenant, APRIL, "marketing", True), Priced(tenant, MARCH, "marketing", True)])


async def test_usage_is_told_by_month_and_category(acme: Account, api: Api, storage: Storage) -> None:
    assert await acme.get("/usage") == {"items": [], "next": None}
    await used(storage, acme.tenant)
    async with storage.tenant(acme.tenant):
        await Tenant.filter(id=acme.tenant).update(plan="trial")
    newest = await acme.get("/usage?limit=1")
    assert newest["items"] == [
        {
            "month": "2026-04",
            "messages": 12,
            "included": 1000,
            "exhausted_at": None,
            "categories": [
                {"category": "marketing", "billable": True, "messages": 4},
                {"category": "utility", "billable": False, "messages": 3},
            ],
        }
    ]
    [before] = (await acme.get(f"/usage?cursor={newest['next']}"))["items"]
    assert (before["month"], before["messages"]) == ("2026-03", 7)
    assert before["categories"] == [{"category": "marketing", "billable": True, "messages": 1}]
    async with storage.tenant(acme.tenant):
        await Tenant.filter(id=acme.tenant).update(plan="standard")
    assert [one["included"] for one in (await acme.get("/usage"))["items"]] == [None, None]


async def test_nobody_sees_what_others_used(acme: Account, other: Account, storage: Storage) -> None:
    await used(storage, acme.tenant)
    assert await other.get("/usage") == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("pricing", "category", "billable"),
    [
        ({"category": "Marketing", "billable": True}, "marketing", True),
        ({"category": "service", "billable": False}, "service", False),
        ({"category": "marketing_lite"}, "marketing_lite", True),
        ({"category": None, "billable": "odd"}, "unknown", True),
        ({"category": "x" * 99 + "\0", "billable": True}, "x" * 32, True),
        ({}, "unknown", True),
    ],
)
def test_what_is_odd_about_a_price_is_no_reason_to_lose_it(
    pricing: dict[str, Any], category: str, billable: bool
) -> None:
    assert priced("acme", MARCH, json.dumps(pricing)) == Priced("acme", MARCH, category, billable)
