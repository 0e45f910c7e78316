"""What a tenant has used, month by month, for whoever pays for it."""

from __future__ import annotations

from typing import Any

from harkara.http.context import Context
from harkara.http.lists import newest, page
from harkara.policy.allowance import MESSAGES_A_MONTH
from harkara.schemas.api import CategoryUsageShown, Page, UsageQuery, UsageShown
from harkara.storage.models import CategoryUsage, MonthlyUsage, Tenant


async def index(ctx: Context[None, UsageQuery]) -> Page[UsageShown]:
    """Messages by month, newest first, and what WhatsApp charges of them by its categories.

    A message counts in the month (of the calendar, in UTC) in which it left first, and not if WhatsApp refused it at
    once. Its category follows when WhatsApp tells the price: mostly when it is delivered.
    """
    async with ctx.transaction():
        tenant = await Tenant.get(id=ctx.tenant)
        months: list[Any] = list(await newest(MonthlyUsage.all(), ctx.tenant, ctx.query))
        wanted = [row.month for row in months]
        priced: list[Any] = []
        if wanted:
            priced = list(await CategoryUsage.filter(tenant_id=ctx.tenant, month__in=wanted, messages__gt=0))
    categories: dict[Any, list[Any]] = {}
    for row in priced:
        categories.setdefault(row.month, []).append(row)
    shown = page(months, ctx.query)
    included = MESSAGES_A_MONTH.get(tenant.plan)
    return Page(items=[_shown(row, included, categories.get(row.month, [])) for row in shown.items], next=shown.next)


def _shown(row: Any, included: int | None, priced: list[Any]) -> UsageShown:
    return UsageShown(
        month=f"{row.month:%Y-%m}",
        messages=row.messages,
        included=included,
        exhausted_at=row.exhausted_at,
        categories=[
            CategoryUsageShown(category=one.category, billable=one.billable, messages=one.messages)
            for one in sorted(priced, key=lambda one: (one.category, one.billable))
        ],
    )
