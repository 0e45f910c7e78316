"""Contacts: the people a tenant writes to, their consent and their further numbers."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import UNSET, UnsetType
from tortoise.exceptions import IntegrityError

from harkara.http.checks import Faults, tidy_tags
from harkara.http.context import Context
from harkara.http.lists import newest, page
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.rows import amend, shown
from harkara.schemas.api import (
    Consent,
    ConsentShown,
    ContactQuery,
    ContactShown,
    NewContact,
    NewPhoneNumber,
    Page,
    Paging,
    PatchContact,
    PhoneNumberShown,
)
from harkara.storage.models import Contact, PhoneNumber

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Where a consent came from that was given as a plain `true`.
SOURCE = "api"

OWNER_OF_PHONE = """
select id from contacts where phone = $1
union all select contact_id from phone_numbers where phone = $1 limit 1
"""


async def index(ctx: Context[None, ContactQuery]) -> Page[ContactShown]:
    """Contacts, newest first."""
    query, faults = ctx.query, Faults()
    async with ctx.transaction() as con:
        rows = newest(Contact.all(), ctx.tenant, query)
        if query.tag is not None:
            rows = rows.filter(tags__contains=[query.tag])
        if query.q:
            rows = rows.filter(name__istartswith=query.q)
        if query.phone is not None:
            rows = rows.filter(phone=faults.phone("phone", query.phone, await region(con)))
        faults.refuse()
        found = await rows
    return page([_shown(contact) for contact in found], query)


async def show(ctx: Context[None, None]) -> ContactShown:
    """One contact."""
    async with ctx.transaction():
        return _shown(await get(ctx))


async def create(ctx: Context[NewContact, None]) -> ContactShown:
    """A new contact. 409 names the contact that has the number already."""
    wanted, faults = ctx.body, Faults()
    async with ctx.transaction() as con:
        phone = faults.phone("phone", wanted.phone, await region(con))
        columns = {
            "name": faults.filled("name", wanted.name),
            "phone": phone,
            "locale": faults.locale("locale", wanted.locale),
            "timezone": faults.timezone("timezone", wanted.timezone),
            "attributes": wanted.attributes,
            "tags": tidy_tags(wanted.tags),
            **_consent(wanted.consent, None, ctx.door.clock(), faults),
        }
        faults.refuse()
        await refuse_taken(con, phone)
        contact = await _saved(con, columns)
    return _shown(contact)


async def _saved(con: Connection, columns: dict[str, Any]) -> Contact:
    try:
        return await Contact.create(**columns)
    except IntegrityError:
        raise conflict("another contact with this phone number was made at this moment: look it up by phone") from None


async def change(ctx: Context[PatchContact, None]) -> ContactShown:
    """Change what is given and leave the rest."""
    async with ctx.transaction() as con:
        contact = await get(ctx, lock=True)
        changes = await _changes(ctx, con, contact)
        try:
            await amend(contact, changes)
        except IntegrityError:
            raise conflict("another contact got this phone number at this moment: look it up by phone") from None
    return _shown(contact)


async def _changes(ctx: Context[PatchContact, None], con: Connection, contact: Contact) -> dict[str, Any]:
    body, faults = ctx.body, Faults()
    changes: dict[str, Any] = {}
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    if body.phone is not UNSET:
        changes["phone"] = faults.phone("phone", body.phone, await region(con))
    if body.locale is not UNSET:
        changes["locale"] = faults.locale("locale", body.locale)
    if body.timezone is not UNSET:
        changes["timezone"] = faults.timezone("timezone", body.timezone)
    if body.attributes is not UNSET:
        changes["attributes"] = body.attributes
    if body.tags is not UNSET:
        changes["tags"] = tidy_tags(body.tags)
    changes |= _consent(body.consent, contact, ctx.door.clock(), faults)
    faults.refuse()
    if changes.get("phone", contact.phone) != contact.phone:
        await refuse_taken(con, changes["phone"])
    return changes


def _consent(
    given: bool | Consent | UnsetType | None, contact: Contact | None, now: datetime, faults: Faults
) -> dict[str, Any]:
    """The columns of a consent. Only one that says where it comes from outlives an earlier opt-out."""
    if given is UNSET or (given is True and contact is not None and contact.opted_in_at is not None):
        return {}
    if not given:
        return {"opted_in_at": None, "consent_source": None, "consent_categories": []}
    if not isinstance(given, Consent):
        return {"opted_in_at": now, "consent_source": SOURCE, "consent_categories": []}
    at = faults.moment("consent.at", given.at or now, now)
    columns: dict[str, Any] = {
        "opted_in_at": at,
        "consent_source": given.source,
        "consent_categories": list(dict.fromkeys(given.categories)),
    }
    if contact is not None and contact.opted_out_at is not None and at > contact.opted_out_at:
        columns |= {"opted_out_at": None, "opted_out_reason": None}
    return columns


async def delete(ctx: Context[None, None]) -> None:
    """Delete a contact with its enrolments and conversations; messages that were sent stay, without it."""
    async with ctx.transaction():
        await (await get(ctx, lock=True)).delete()


async def phone_numbers(ctx: Context[None, Paging]) -> Page[PhoneNumberShown]:
    """A contact's further numbers."""
    async with ctx.transaction():
        contact = await get(ctx)
        found = await newest(PhoneNumber.filter(contact_id=contact.id), ctx.tenant, ctx.query)
    return page([shown(row, PhoneNumberShown) for row in found], ctx.query)


async def add_phone_number(ctx: Context[NewPhoneNumber, None]) -> PhoneNumberShown:
    """A further number. 409 names the contact that has it already."""
    faults = Faults()
    async with ctx.transaction() as con:
        contact = await get(ctx)
        phone = faults.phone("phone", ctx.body.phone, await region(con))
        faults.refuse()
        await refuse_taken(con, phone)
        try:
            row = await PhoneNumber.create(contact_id=contact.id, phone=phone, label=ctx.body.label.strip())
        except IntegrityError:
            raise conflict("another contact got this phone number at this moment: look it up by phone") from None
    return shown(row, PhoneNumberShown)


async def get(ctx: Context[Any, Any], *, lock: bool = False) -> Contact:
    """The contact of this path. Raises Problem 404."""
    rows = Contact.select_for_update() if lock else Contact.all()
    contact = await rows.get_or_none(id=ctx.id("contact_id"))
    if contact is None:
        raise not_found("contact")
    return contact


async def region(con: Connection) -> str | None:
    """Where this tenant's numbers without + belong."""
    found: str | None = await con.fetchval("select default_region from tenants")
    return found


async def refuse_taken(con: Connection, phone: str) -> None:
    """Raise Problem 409 if a contact has this number."""
    owner: UUID | None = await con.fetchval(OWNER_OF_PHONE, phone)
    if owner is not None:
        raise taken(owner)


def taken(owner: UUID) -> Problem:
    """409: a phone number belongs to one contact."""
    detail = f"contact {owner} has this phone number: change that one, or delete it first"
    return Problem(409, detail, errors=[("phone", detail)], extra={"contact_id": str(owner)})


def _shown(contact: Contact) -> ContactShown:
    row: Any = contact
    given = row.opted_in_at
    return ContactShown(
        id=row.id,
        name=row.name,
        phone=row.phone,
        locale=row.locale,
        timezone=row.timezone,
        attributes=row.attributes,
        tags=row.tags,
        consent=ConsentShown(source=row.consent_source, at=given, categories=row.consent_categories) if given else None,
        opted_out_at=row.opted_out_at,
        opted_out_reason=row.opted_out_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
