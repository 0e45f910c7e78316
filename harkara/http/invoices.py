"""Invoices: what contacts owe. Once one is answered to be paid or void, nothing that reminds of it leaves any more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from msgspec import UNSET, structs
from tortoise.exceptions import IntegrityError

from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.holding import landed
from harkara.http.lists import given, listed, picked
from harkara.http.problems import Problem, conflict, invalid, not_found
from harkara.http.rows import amend, shown
from harkara.invoicing import CURRENCIES
from harkara.schemas.api import InvoiceQuery, InvoiceShown, NewInvoice, Page, PatchInvoice, PayInvoice
from harkara.schemas.events import EnrollmentStopped, InvoiceCreated, InvoicePaid, InvoiceVoided
from harkara.storage import holding, invoices
from harkara.storage.models import Contact, Invoice

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Filters that an index serves together with the order.
FOUND_BY = ("contact_id", "status", "number", "external_id")

_CONTACT = "select contact_id from invoices where id = $1"


async def index(ctx: Context[None, InvoiceQuery]) -> Page[InvoiceShown]:
    """Invoices, newest first."""
    query, faults = ctx.query, Faults()
    before, after = _instant(faults, "due_before", query.due_before), _instant(faults, "due_after", query.due_after)
    faults.refuse()
    async with ctx.transaction():
        found = Invoice.filter(**given(query, FOUND_BY))
        rows, last = await picked(found, ctx.tenant, query, {"due_at__lt": before, "due_at__gte": after})
    return listed([shown(row, InvoiceShown) for row in rows], last)


def _instant(faults: Faults, path: str, at: datetime | None) -> datetime | None:
    return None if at is None else faults.instant(path, at)


async def create(ctx: Context[NewInvoice, None]) -> InvoiceShown:
    """A new invoice of a contact. 409 if there is one of this number."""
    faults = Faults()
    columns = check_new(ctx, faults)
    faults.refuse()
    try:
        async with ctx.transaction() as con:
            if not await Contact.filter(id=ctx.body.contact_id).select_for_update().exists():
                raise not_found("contact")
            invoice = await Invoice.create(**columns)
            await ctx.tell(con, InvoiceCreated(**_news(invoice)), f"{invoice.id}.created")
    except IntegrityError:
        raise await _taken(ctx, columns["number"]) from None
    return shown(invoice, InvoiceShown)


def check_new(ctx: Context[NewInvoice, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """The columns of a new invoice."""
    return structs.asdict(ctx.body) | _checked(faults, structs.asdict(ctx.body))


def check_changes(ctx: Context[PatchInvoice, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """The columns that a change gives."""
    given = {name: value for name, value in structs.asdict(ctx.body).items() if value is not UNSET}
    return given | _checked(faults, given)


def _checked(faults: Faults, given: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if "number" in given:
        columns["number"] = faults.filled("number", given["number"])
    if "due_at" in given:
        columns["due_at"] = faults.instant("due_at", given["due_at"])
    if "currency" in given and given["currency"] not in CURRENCIES:
        faults.add("currency", "is no currency: give its code by ISO 4217, such as INR")
    return columns


async def _taken(ctx: Context[Any, Any], number: str) -> Problem:
    async with ctx.transaction():
        other = await Invoice.get_or_none(number=number)
    detail = f"there is an invoice {number} already: no two have the same number"
    extra = {} if other is None else {"invoice_id": str(other.id)}
    return Problem(409, detail, errors=[("number", detail)], extra=extra)


async def show(ctx: Context[None, None]) -> InvoiceShown:
    """One invoice."""
    async with ctx.transaction():
        return shown(await _get(ctx), InvoiceShown)


async def change(ctx: Context[PatchInvoice, None]) -> InvoiceShown:
    """Change what is given and leave the rest. 409 for what is fixed once it is paid or void."""
    faults = Faults()
    given = check_changes(ctx, faults)
    faults.refuse()
    try:
        async with ctx.transaction():
            invoice = await _get(ctx, lock=True)
            changes = {name: value for name, value in given.items() if value != getattr(invoice, name)}
            if invoice.status != "open" and changes.keys() - {"external_id"}:
                raise conflict(f"this invoice is {invoice.status}: only its external_id can be changed")
            await amend(invoice, changes)
    except IntegrityError:
        raise await _taken(ctx, given["number"]) from None
    return shown(invoice, InvoiceShown)


async def pay(ctx: Context[PayInvoice | None, None]) -> InvoiceShown:
    """Say that an invoice is paid: once this is answered, nothing that reminds of it leaves any more.

    Enrolments that are about it are stopped with the reason `invoice_paid`. One that is paid already stays as it is,
    with its `paid_at`. 409 for one that is void.
    """
    faults = Faults()
    paid_at = check_payment(ctx, faults)
    faults.refuse()
    return await _end(ctx, "paid", paid_at)


def check_payment(ctx: Context[PayInvoice | None, None], faults: Faults, _region: str | None = None) -> datetime:
    """When it was paid."""
    if ctx.body is None or ctx.body.paid_at is None:
        return ctx.came_at
    return faults.moment("paid_at", ctx.body.paid_at, ctx.came_at)


async def void(ctx: Context[None, None]) -> InvoiceShown:
    """Say that an invoice is owed no more: once this is answered, nothing that reminds of it leaves any more.

    Enrolments that are about it are stopped with the reason `invoice_void`. 409 for one that is paid.
    """
    return await _end(ctx, "void")


async def _end(
    ctx: Context[Any, None], status: Literal["paid", "void"], paid_at: datetime | None = None
) -> InvoiceShown:
    """End an invoice, or find it ended; wait for what left a moment before."""
    async with ctx.transaction() as con:
        contact_id: UUID | None = await con.fetchval(_CONTACT, ctx.id("invoice_id"))
        if contact_id is None:
            raise not_found("invoice")
        await holding.exclude(con, [contact_id])  # the gates that have read it as open
        invoice = await _get(ctx, lock=True)
        if invoice.status == "open":
            await amend(invoice, {"status": status, "paid_at": paid_at})
            await _tell_end(ctx, con, invoice)
        elif invoice.status != status:
            raise conflict(f"this invoice is {invoice.status}: only one that is open can be {_DONE[status]}")
    await landed(ctx.transaction, ctx.tenant, [contact_id])
    return shown(invoice, InvoiceShown)


_DONE = {"paid": "paid", "void": "voided"}


async def _tell_end(ctx: Context[Any, None], con: Connection, invoice: Invoice) -> None:
    paid = invoice.status == "paid"
    event = InvoicePaid(**_news(invoice)) if paid else InvoiceVoided(**_news(invoice))
    await ctx.tell(con, event, f"{invoice.id}.{_DONE[invoice.status]}")
    reason = f"invoice_{invoice.status}"
    for id_, campaign_id, contact_id in await invoices.stop(con, ctx.tenant, invoice.id, reason):
        stopped = EnrollmentStopped(
            id=str(id_), campaign_id=str(campaign_id), contact_id=str(contact_id), reason=reason
        )
        await ctx.tell(con, stopped, f"{id_}.stopped")


def _news(invoice: Invoice) -> dict[str, Any]:
    return {
        "id": str(invoice.id),
        "contact_id": str(invoice.contact_id),
        "number": invoice.number,
        "amount": invoice.amount,
        "currency": invoice.currency,
        "due_at": invoice.due_at,
        "external_id": invoice.external_id,
    }


async def _get(ctx: Context[Any, Any], *, lock: bool = False) -> Invoice:
    rows = Invoice.select_for_update() if lock else Invoice.all()
    invoice = await rows.get_or_none(id=ctx.id("invoice_id"))
    if invoice is None:
        raise not_found("invoice")
    return invoice


async def owed(ctx: Context[Any, Any], invoice_id: UUID, contact_id: UUID | None) -> Mapping[str, str] | None:
    """What a text may say of an invoice that a message to this contact is about.

    Raises Problem 422 if it is none of the contact's, 409 if it is owed no more.
    """
    row = await ctx.door.questions.ask(invoices.TERMS, ctx.tenant, invoice_id)
    if row["contact_id"] is None or row["contact_id"] != contact_id:
        raise invalid(("invoice_id", "is no invoice of this contact's"))
    if row["status"] != "open":
        raise conflict(f"this invoice is {row['status']}: nothing that reminds of it is sent any more")
    return invoices.variables(row)
