"""The tenant's own settings."""

from __future__ import annotations

from msgspec import UNSET

from harkara.http.checks import Faults, is_region
from harkara.http.context import Context
from harkara.http.rows import amend, shown
from harkara.schemas.api import PatchTenant, TenantShown
from harkara.storage.models import Tenant


async def show(ctx: Context[None, None]) -> TenantShown:
    """The tenant of this request."""
    async with ctx.transaction():
        return shown(await Tenant.get(id=ctx.tenant), TenantShown)


async def change(ctx: Context[PatchTenant, None]) -> TenantShown:
    """Change name, time zone or the region of national phone numbers."""
    changes = _changes(ctx.body)
    async with ctx.transaction():
        tenant = await Tenant.select_for_update().get(id=ctx.tenant)
        await amend(tenant, changes)
    ctx.door.keyring.forget()
    return shown(tenant, TenantShown)


def _changes(body: PatchTenant) -> dict[str, object]:
    faults, changes = Faults(), dict[str, object]()
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    if body.timezone is not UNSET:
        changes["timezone"] = faults.timezone("timezone", body.timezone)
    if body.default_region is not UNSET:
        region = body.default_region.strip().upper() if body.default_region else None
        if region is not None and not is_region(region):
            faults.add("default_region", "is not a country: give two letters such as IN")
        changes["default_region"] = region
    faults.refuse()
    return changes
