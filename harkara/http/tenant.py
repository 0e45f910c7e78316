"""The tenant's own settings."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from harkara.http.checks import Faults, is_region
from harkara.http.context import Context
from harkara.http.keyring import Change
from harkara.http.rows import amend, shown
from harkara.keywords import ALWAYS, plain
from harkara.schemas.api import PatchTenant, TenantShown
from harkara.schemas.keywords import Keywords
from harkara.schemas.reasons import Reason
from harkara.schemas.work import Release
from harkara.storage.models import Sender, Tenant

#: What decides about messages that wait, and the reason that they wait for.
HOLDING_BACK: dict[str, Reason] = {
    "quiet_hours": "quiet_hours",
    "timezone": "quiet_hours",
    "frequency_caps": "frequency_cap",
}


async def show(ctx: Context[None, None]) -> TenantShown:
    """The tenant of this request."""
    async with ctx.transaction():
        return shown(await Tenant.get(id=ctx.tenant), TenantShown)


async def change(ctx: Context[PatchTenant, None]) -> TenantShown:
    """Change name, time zone, the region of national phone numbers, the words that stop, or what holds marketing back.

    Messages and steps of campaigns that wait for that are judged again at once.
    """
    faults = Faults()
    changes = check_changes(ctx, faults)
    faults.refuse()
    reasons: list[Reason] = sorted({HOLDING_BACK[name] for name in HOLDING_BACK.keys() & changes.keys()})
    async with ctx.transaction() as con:
        tenant = await Tenant.select_for_update().get(id=ctx.tenant)
        await amend(tenant, changes)
        if reasons:
            senders = [str(id_) for id_ in await Sender.all().order_by("id").values_list("id", flat=True)]
            await ctx.tell(con, Release(sender_ids=senders, reasons=reasons), str(ctx.new_id()))
    ctx.door.access_changed(Change(tenant=ctx.tenant))
    return shown(tenant, TenantShown)


def check_changes(ctx: Context[PatchTenant, None], faults: Faults, _region: str | None = None) -> dict[str, object]:
    """The columns that a change gives."""
    body, changes = ctx.body, dict[str, object]()
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    if body.timezone is not UNSET:
        changes["timezone"] = faults.timezone("timezone", body.timezone)
    if body.default_region is not UNSET:
        region = body.default_region.strip().upper() if body.default_region else None
        if region is not None and not is_region(region):
            faults.add("default_region", "is not a country: give two letters such as IN")
        changes["default_region"] = region
    if body.keywords is not UNSET:
        _check_keywords(body.keywords, faults)
        changes["keywords"] = msgspec.to_builtins(body.keywords)
    if body.quiet_hours is not UNSET:
        changes["quiet_hours"] = msgspec.to_builtins(body.quiet_hours)
    if body.frequency_caps is not UNSET:
        changes["frequency_caps"] = msgspec.to_builtins(body.frequency_caps) or None
    return changes


def _check_keywords(keywords: Keywords, faults: Faults) -> None:
    for name in ("stop", "stop_marketing", "start", "ignored"):
        for index, word in enumerate(getattr(keywords, name)):
            if not plain(word):
                faults.add(f"keywords.{name}[{index}]", "has no letters or digits, so no message is ever this word")
            elif name != "stop" and plain(word) in ALWAYS:
                faults.add(f"keywords.{name}[{index}]", "always means to stop: it can't be given another meaning")
    for name, text in msgspec.to_builtins(keywords.confirmations).items():
        if text and "{{" in text:
            faults.add(f"keywords.confirmations.{name}", "is sent as it stands: no {{ … }} is filled in here")
