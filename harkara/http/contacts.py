"""Contacts: the people a tenant writes to, their consent and their further numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from tortoise.exceptions import IntegrityError

from harkara.http.accepting import Expected, accept
from harkara.http.checks import Faults, tidy_tags
from harkara.http.contact_search import Search
from harkara.http.context import Answer, Context
from harkara.http.holding import landed
from harkara.http.lists import cursor, newest, page
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import amend, shown
from harkara.schemas.api import (
    Accepted,
    Consent,
    ConsentShown,
    ContactDeletion,
    ContactQuery,
    ContactShown,
    NewContact,
    NewPhoneNumber,
    OptOut,
    Outcome,
    Page,
    Paging,
    PatchContact,
    PatchPhoneNumber,
    PhoneNumberShown,
)
from harkara.schemas.commands import EraseContact
from harkara.schemas.events import ContactOptedIn, ContactOptedOut, EnrollmentStopped
from harkara.schemas.work import ForgetMedia
from harkara.storage import dispatching, enrolling, holding, lines, media, opting
from harkara.storage.models import Contact, ContactMerge, PhoneNumber
from harkara.storage.opting import Standing, Word

if TYPE_CHECKING:
    from harkara.schemas.keywords import Category
    from harkara.storage.storage import Connection

#: Where a consent came from that was given as a plain `true`.
SOURCE = "api"

OWNERS_OF_PHONE = """
select id from contacts where phone = $1 union all select contact_id from phone_numbers where phone = $1
"""


async def index(ctx: Context[None, ContactQuery]) -> Page[ContactShown]:
    """Contacts, newest first.

    What few contacts have is found at once. Filters that are combined may give short pages: read on as long as there
    is a `next`.
    """
    async with ctx.transaction() as con:
        search = Search(ctx.tenant, ctx.query, await region(con) if ctx.query.phone else None)
        found = await search.page(con, ctx.query)
    return Page(items=[told(row) for row in found.rows], next=None if found.after is None else cursor(found.after))


async def show(ctx: Context[None, None]) -> ContactShown:
    """One contact."""
    async with ctx.transaction():
        return _shown(await get(ctx))


async def create(ctx: Context[NewContact, None]) -> ContactShown:
    """A new contact. 409 names the contact that has the number already, in whichever spelling.

    If somebody with this number had opted out and was deleted, it has opted out too (`remembered`), unless its consent
    is later and says where it comes from.
    """
    faults = Faults()
    async with ctx.transaction() as con:
        columns = check_new(ctx, faults, await region(con))
        faults.refuse()
        await lines.claim(con, [(ctx.tenant, columns["phone"])])
        await refuse_taken(ctx, con, columns["phone"])
        contact = await _saved(con, columns)
        await _remembered(ctx, contact)
    return _shown(contact)


def check_new(ctx: Context[NewContact, None], faults: Faults, region: str | None) -> dict[str, Any]:
    """The columns of a new contact."""
    wanted = ctx.body
    return {
        "name": faults.filled("name", wanted.name),
        "phone": faults.phone("phone", wanted.phone, region),
        "locale": faults.locale("locale", wanted.locale),
        "timezone": faults.timezone("timezone", wanted.timezone),
        "attributes": wanted.attributes,
        "tags": tidy_tags(wanted.tags),
        **_consent(wanted.consent, None, ctx.door.clock(), faults),
    }


async def _saved(con: Connection, columns: dict[str, Any]) -> Contact:
    try:
        return await Contact.create(**columns)
    except IntegrityError:
        raise conflict("another contact with this phone number was made at this moment: look it up by phone") from None


async def _remembered(ctx: Context[Any, Any], contact: Contact) -> None:
    """What the database remembers of a new number, as far as the request doesn't say otherwise."""
    await contact.refresh_from_db()
    await amend(contact, _opting(ctx.body, contact, ctx.door.clock()))


async def change(ctx: Context[PatchContact, None]) -> ContactShown:
    """Change what is given and leave the rest.

    A number that is changed keeps its opt-out, for whoever gets it next; an opt-out that is remembered of the new one
    counts. What waits for the contact goes to the new one; a code that was asked for the old one is `suppressed`.
    """
    stops = ctx.body.opted_out is True or (ctx.body.opt_outs is not UNSET and any(ctx.body.opt_outs.values()))
    stops = stops or ctx.body.phone is not UNSET  # whoever has the old number next may say STOP at once
    faults = Faults()
    async with ctx.transaction() as con:
        changes = check_changes(ctx, faults, None if ctx.body.phone is UNSET else await region(con))
        faults.refuse()
        if "phone" in changes:
            await lines.claim(con, [(ctx.tenant, changes["phone"])])
        if stops:
            await holding.exclude(con, [ctx.id("contact_id")])
        contact = await get(ctx, lock=True)
        before = standing(contact)
        if changes.get("phone", contact.phone) != contact.phone:
            await refuse_taken(ctx, con, changes["phone"], instead_of=contact.phone)
        changes |= _consent(ctx.body.consent, contact, ctx.door.clock(), Faults())
        changes |= _opting(ctx.body, contact, ctx.door.clock())
        try:
            await amend(contact, changes)
        except IntegrityError:
            raise conflict("another contact got this phone number at this moment: look it up by phone") from None
        if "phone" in changes:
            await _remembered(ctx, contact)
        await _tell_opting(ctx, con, contact, before)
    if stops:
        await landed(ctx.transaction, ctx.tenant, [contact.id])
    return _shown(contact)


async def _tell_opting(ctx: Context[Any, Any], con: Connection, contact: Contact, before: Standing) -> None:
    """What a STOP does too: nothing more of what runs is sent, and everybody who listens hears of it."""
    id_, now = str(contact.id), standing(contact)
    new = now.outs.keys() - before.outs.keys()
    for category in sorted(new):
        source = now.outs[category].source
        out = ContactOptedOut(id=id_, reason=source, category=cast("Category", category), source=source)
        await ctx.tell(con, out, f"{id_}.opted_out.{category}.{ctx.cause}")
    for category in sorted(before.outs.keys() - now.outs.keys()):
        back = ContactOptedIn(id=id_, category=cast("Category", category), source=SOURCE)
        await ctx.tell(con, back, f"{id_}.opted_in.{category}.{ctx.cause}")
    if not new & opting.STOPS_CAMPAIGNS:
        return
    for row in await enrolling.stop_contacts(con, [(ctx.tenant, contact.id, "opt_out")]):
        stopped = EnrollmentStopped(id=str(row[0]), campaign_id=str(row[2]), contact_id=id_, reason=row[4])
        await ctx.tell(con, stopped, f"{row[0]}.stopped")


def check_changes(ctx: Context[PatchContact, None], faults: Faults, region: str | None) -> dict[str, Any]:
    """The columns that a change gives, but for those of consent, which depend on what is there."""
    body = ctx.body
    changes: dict[str, Any] = {}
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    if body.phone is not UNSET:
        changes["phone"] = faults.phone("phone", body.phone, region)
    if body.locale is not UNSET:
        changes["locale"] = faults.locale("locale", body.locale)
    if body.timezone is not UNSET:
        changes["timezone"] = faults.timezone("timezone", body.timezone)
    if body.attributes is not UNSET:
        changes["attributes"] = body.attributes
    if body.tags is not UNSET:
        changes["tags"] = tidy_tags(body.tags)
    _consent(body.consent, None, ctx.door.clock(), faults)
    if isinstance(body.consent, Consent):
        contradicted = {"opted_out": body.opted_out is True}
        contradicted["opt_outs"] = body.opt_outs is not UNSET and any(body.opt_outs.values())
        for path in (path for path, is_so in contradicted.items() if is_so):
            faults.add(path, "contradicts the consent: give one of them")
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
    return columns


def _opting(body: NewContact | PatchContact, contact: Contact, now: datetime) -> dict[str, Any]:
    """The columns of opt-outs: what is said outright, and what a consent that says where it comes from takes back."""
    before = after = standing(contact)
    if isinstance(body.consent, Consent):
        after = opting.consented(after, body.consent.at or now, body.consent.source, body.consent.categories)
    said: dict[Category, bool] = {}
    if isinstance(body, PatchContact):
        said = {} if body.opt_outs is UNSET else dict(body.opt_outs)
        said |= {"all": True} if body.opted_out is True else {}
    for category, out in said.items():
        after = opting.after(after, Word(category, out, now, SOURCE))
    return {} if after == before else opting.columns(after)


def standing(contact: Contact) -> Standing:
    """What a contact has opted out of."""
    return opting.read(contact.opted_out_at, contact.opted_out_reason, contact.opt_outs, contact.opt_ins)


async def delete(ctx: Context[None, ContactDeletion]) -> Answer[Accepted | Outcome | None]:
    """Delete a contact with its enrolments, conversations and invoices; messages that were sent stay, without it.

    What still waits for it is `suppressed` at once, with the reason `contact_deleted`.

    409 for one who has opted out, of everything or of a category: keep it, to see who said so and when.

    With `?erase=true` it is erased for good instead, everywhere: rows, messages on their way, webhooks, events, dead
    letters, and what the audit log knows of it but who did something when. That is answered 202; `contact.erased` tells
    the end. Of one who has opted out a hash of each number stays, by which whoever has that number again has opted out.
    """
    if ctx.query.erase:
        accepted: Answer[Accepted | Outcome | None] = await _erase(ctx)
        return accepted
    async with ctx.transaction() as con:
        contact = await get(ctx, lock=True)
        if contact.opted_out_at or contact.opt_outs:
            raise conflict(
                "this contact has opted out: keep it, nothing that it does not want is sent to it; or erase it for good"
                " with ?erase=true, if it has asked for that"
            )
        files = await media.of_contacts(con, ctx.tenant, [contact.id])
        for suppressed in await dispatching.leave_none(con, ctx.tenant, contact.id):
            await ctx.tell(con, suppressed, f"{suppressed.id}.suppressed")
        await contact.delete()
        if files:
            await ctx.tell(con, ForgetMedia(media_ids=list(map(str, files))), f"{contact.id}.forget.{ctx.cause}")
    return Answer(None)


async def _erase(ctx: Context[Any, Any]) -> Any:
    async with ctx.transaction():
        contact = await get(ctx)
        further = await PhoneNumber.filter(contact_id=contact.id)
    phones = [phone for phone in (contact.phone, *(row.phone for row in further)) if phone]
    command = EraseContact(contact_id=str(contact.id), phones=phones, wa_user_id=contact.wa_user_id)
    expected = Expected(frozenset({"contact.erased"}), contact.id)
    answer = await accept(ctx, command, Accepted(id=ctx.new_id()), f"{PREFIX}/contacts/{contact.id}", expected)
    return answer if answer.status else replace(answer, status=202)


async def phone_numbers(ctx: Context[None, Paging]) -> Page[PhoneNumberShown]:
    """A contact's further numbers."""
    async with ctx.transaction():
        contact = await get(ctx)
        found = await newest(PhoneNumber.filter(contact_id=contact.id), ctx.tenant, ctx.query)
    return page([shown(row, PhoneNumberShown) for row in found], ctx.query)


async def add_phone_number(ctx: Context[NewPhoneNumber, None]) -> PhoneNumberShown:
    """A further number. 409 names the contact that has it already.

    If somebody with this number had opted out and was deleted, this contact has opted out too (`remembered`).
    """
    faults = Faults()
    async with ctx.transaction() as con:
        phone = check_phone(ctx, faults, await region(con))
        faults.refuse()
        await lines.claim(con, [(ctx.tenant, phone)])
        contact = await get(ctx, lock=True)
        before = standing(contact)
        await refuse_taken(ctx, con, phone)
        try:
            row = await PhoneNumber.create(contact_id=contact.id, phone=phone, label=ctx.body.label.strip())
        except IntegrityError:
            raise conflict("another contact got this phone number at this moment: look it up by phone") from None
        await contact.refresh_from_db()
        await _tell_opting(ctx, con, contact, before)
    return shown(row, PhoneNumberShown)


def check_phone(ctx: Context[NewPhoneNumber, None], faults: Faults, region: str | None) -> str:
    """A further number."""
    return faults.phone("phone", ctx.body.phone, region)


async def change_phone_number(ctx: Context[PatchPhoneNumber, None]) -> PhoneNumberShown:
    """Label a further number, or make it the one we write to: then the answer is the one that was."""
    async with ctx.transaction() as con:
        contact = await get(ctx, lock=True)
        row = await _phone_number(ctx, contact)
        changes: dict[str, Any] = {} if ctx.body.label is UNSET else {"label": ctx.body.label.strip()}
        phone: Any = contact.phone
        if ctx.body.primary is True and phone is not None:
            await refuse_elsewhere(con, contact.id, row.phone, phone)
            await amend(contact, {"phone": row.phone})
            changes["phone"] = phone
        elif ctx.body.primary is True:
            raise conflict("this contact has no number that we write to yet: set it with PATCH /contacts/{id} {phone}")
        await amend(row, changes)
    return shown(row, PhoneNumberShown)


async def refuse_elsewhere(con: Connection, contact: UUID, *phones: str) -> None:
    """Raise Problem 409 if another contact has one of these numbers."""
    for phone in phones:
        for record in await con.fetch(OWNERS_OF_PHONE, phone):
            if record[0] != contact:
                raise taken(record[0])


async def delete_phone_number(ctx: Context[None, None]) -> None:
    """Take a further number away from a contact."""
    async with ctx.transaction():
        await (await _phone_number(ctx, await get(ctx, lock=True))).delete()


async def _phone_number(ctx: Context[Any, Any], contact: Contact) -> PhoneNumber:
    row = await PhoneNumber.get_or_none(id=ctx.id("phone_id"), contact_id=contact.id)
    if row is None:
        raise not_found("phone number")
    return row


async def get(ctx: Context[Any, Any], *, lock: bool = False) -> Contact:
    """The contact of this path. Raises Problem 404, or 410 if it was merged into another one, and says which."""
    id_ = ctx.id("contact_id")
    rows = Contact.select_for_update() if lock else Contact.all()
    contact = await rows.get_or_none(id=id_)
    if contact is not None:
        return contact
    merged = await ContactMerge.get_or_none(id=id_)
    if merged is None:
        raise not_found("contact")
    raise merged_into(merged.contact_id)


def merged_into(kept: UUID) -> Problem:
    """410: it was, and is part of another now."""
    detail = f"this contact was merged into contact {kept}: ask for that one"
    return Problem(410, detail, headers={"Location": f"{PREFIX}/contacts/{kept}"}, extra={"contact_id": str(kept)})


async def region(con: Connection) -> str | None:
    """Where this tenant's numbers without + belong."""
    found: str | None = await con.fetchval("select default_region from tenants")
    return found


async def region_for(ctx: Context[Any, Any], phone: str) -> str | None:
    """Where this number belongs, asked for only if it has no +."""
    if phone.lstrip().startswith("+"):
        return None
    async with ctx.transaction() as con:
        return await region(con)


async def refuse_taken(ctx: Context[Any, Any], con: Connection, phone: str, instead_of: str | None = None) -> None:
    """Raise Problem 409 if a contact has this number, in any spelling, but for the one that it is to replace."""
    owner = await lines.owner(con, ctx.tenant, phone, but=instead_of)
    if owner is not None:
        raise taken(owner)


def taken(owner: UUID) -> Problem:
    """409: a phone number belongs to one contact."""
    detail = f"contact {owner} has this phone number: change that one, or delete it first"
    return Problem(409, detail, errors=[("phone", detail)], extra={"contact_id": str(owner)})


def _shown(contact: Contact) -> ContactShown:
    return told(vars(contact))


def told(row: Any) -> ContactShown:
    """A row, by the names of its columns, as users are shown it."""
    attributes, given = row["attributes"], row["opted_in_at"]
    outs = opting.read(row["opted_out_at"], row["opted_out_reason"], row["opt_outs"], {}).outs
    consent = ConsentShown(source=row["consent_source"], at=given, categories=row["consent_categories"])
    return ContactShown(
        id=row["id"],
        name=row["name"],
        phone=row["phone"],
        wa_user_id=row["wa_user_id"],
        locale=row["locale"],
        timezone=row["timezone"],
        attributes=msgspec.json.decode(attributes) if isinstance(attributes, str) else attributes,
        tags=row["tags"],
        consent=consent if given else None,
        opted_out_at=row["opted_out_at"],
        opted_out_reason=row["opted_out_reason"],
        opt_outs=[
            OptOut(category=cast("Category", of), at=said.at, source=said.source) for of, said in sorted(outs.items())
        ],
        marketing_rests_until=row["marketing_rests_until"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
