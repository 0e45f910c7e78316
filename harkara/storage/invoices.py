"""Invoices as actors and the front door read and end them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.invoicing import Owed

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: All that a message or an enrolment may need of each (tenant, invoice), in order.
TERMS = """
select b.contact_id, b.status, b.number, b.amount, b.currency, b.due_at, t.timezone
from unnest($1::text[], $2::uuid[]) with ordinality as i (tenant_id, invoice_id, place)
left join invoices b on b.id = i.invoice_id and b.tenant_id || '' = i.tenant_id
left join tenants t on t.id = b.tenant_id
order by i.place
"""

_STOP = """
with locked as (
  select p.id from contact_campaign_progress p
  where p.tenant_id = $1 and p.invoice_id = $2 and p.status in ('active', 'paused') order by p.id for no key update)
update contact_campaign_progress p
set status = 'stopped', stopped_reason = $3, finished_at = now(), next_claim_at = null, updated_at = now()
from locked where p.id = locked.id
returning p.id, p.campaign_id, p.contact_id
"""


def variables(row: Any) -> dict[str, str] | None:
    """What texts may say of an invoice, from its row of TERMS; None if it is not there."""
    if row["status"] is None:
        return None
    return Owed(row["number"], row["amount"], row["currency"], row["due_at"]).variables(row["timezone"])


async def terms(con: Connection, wanted: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], dict[str, str]]:
    """What texts may say of each (tenant, invoice); one that is not there is missing."""
    if not wanted:
        return {}
    rows = await con.fetch(TERMS, *map(list, zip(*wanted, strict=True)))
    return {key: found for key, row in zip(wanted, rows, strict=True) if (found := variables(row)) is not None}


async def stop(con: Connection, tenant: str, invoice_id: UUID, reason: str) -> list[Any]:
    """Stop all that runs for an invoice. Returns those that ran: (id, campaign, contact)."""
    return list(await con.fetch(_STOP, tenant, invoice_id, reason))
