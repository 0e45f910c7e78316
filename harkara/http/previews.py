"""What a step says to one contact: shown, or sent as a test. The same code renders it when it is really sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

import msgspec

from harkara import templating
from harkara.http.accepting import Expected, accept
from harkara.http.campaign_rows import content_of, get_campaign, variants_of
from harkara.http.checks import Faults
from harkara.http.contacts import region
from harkara.http.context import Answer, Context
from harkara.http.held_back import stopped
from harkara.http.invoices import owed
from harkara.http.messages import OUTCOMES
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.route import PREFIX
from harkara.policy.fits import fixed_length, overlong, wording
from harkara.rendering import Unsayable, choose
from harkara.rendering import said as filled
from harkara.schemas.api import Accepted, FaultShown, Outcome
from harkara.schemas.campaigns import Preview, PreviewStep, StepTest, VariableUsed
from harkara.schemas.commands import SendMessage
from harkara.schemas.content import Content
from harkara.schemas.variants import Variant
from harkara.storage.models import Campaign, CampaignStep, Contact, Sender, Template
from harkara.templating import TemplateFault, compiled, variables

#: How long templates are without their parameters, by name and language.
Lengths = Mapping[tuple[str, str], int]


async def preview(ctx: Context[PreviewStep, None]) -> Preview:
    """Exactly what a step would say to a contact, what its variables are and where from, and what is wrong with it."""
    async with ctx.transaction():
        campaign, step = await _step(ctx)
        contact = await _contact(ctx.body.contact_id)
        variant = variant_for(step, contact.id)
        said = variant.content() if variant else content_of(step)
        known = (
            None
            if said.template is None
            else await Template.get_or_none(
                sender_id=campaign.sender_id, name=said.template.name, language=said.template.language
            )
        )
    invoice = await _invoice(ctx)
    values = values_of(contact, invoice=invoice)
    content, faults = _filled(said, values, lengths_of([known] if known else []))
    return Preview(
        step_id=step.id,
        contact_id=contact.id,
        variant=variant.name if variant else None,
        content=None if content is None else msgspec.to_builtins(content),
        text=None if content is None else _read(content, known),
        variables=list(_variables(said, contact, values)),
        faults=[FaultShown(path=path, message=message) for path, message in faults],
    )


def _read(content: Content, known: Template | None) -> str | None:
    """What is read of a content, as far as it is known."""
    if content.template is None or known is None:
        return content.body
    return wording(content.template, known.components)


def variant_for(step: CampaignStep, contact_id: UUID) -> Variant | None:
    """The variant of a step that a contact gets, if there are any."""
    return choose(variants_of(step), step.origin or step.id, contact_id)


async def _invoice(ctx: Context[Any, Any]) -> Mapping[str, str] | None:
    """What texts may say of the invoice that is named, if one is."""
    wanted = ctx.body
    return None if wanted.invoice_id is None else await owed(ctx, wanted.invoice_id, wanted.contact_id)


def values_of(contact: Contact | None, phone: str = "", invoice: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The variables of a contact; of somebody who is none, only the phone number is known."""
    row: Any = contact
    if contact is None:
        return variables(name="", phone=phone, locale=None, attributes={}, invoice=invoice)
    phone = row.phone or row.wa_user_id or phone or "-"
    return variables(name=row.name, phone=phone, locale=row.locale, attributes=row.attributes, invoice=invoice)


def lengths_of(known: Iterable[Template]) -> Lengths:
    """How long these templates are without their parameters, as far as that is known, by name and language."""
    found = ((one.name, one.language, fixed_length(one.components)) for one in known)
    return {(name, language): length for name, language, length in found if length is not None}


def say(said: Content, contact: Contact | None, lengths: Lengths) -> tuple[Content | None, Faults]:
    """What is said once the variables are filled in, if it can be, and what is wrong with it."""
    return _filled(said, values_of(contact), lengths)


def _filled(said: Content, values: Mapping[str, Any], lengths: Lengths) -> tuple[Content | None, Faults]:
    try:
        content = filled(said, values)
    except Unsayable as fault:
        return fault.content, Faults(fault.faults)
    return content, Faults(overlong(content, lengths))


def _variables(said: Content, contact: Contact, values: dict[str, Any]) -> Iterator[VariableUsed]:
    names = {name for _, text in said.texts() for name in _used(text)}
    defaulted = {name for _, text in said.texts() for name in _used(text) if _renders(text, values)}
    for name in sorted(names):
        value, source = _value(name, values, contact)
        if source == "missing" and name in defaulted:
            source = "default"
        yield VariableUsed(name=name, value=value, source=source)


def _used(text: str) -> frozenset[str]:
    try:
        return templating.used(text)
    except TemplateFault:
        return frozenset()


def _renders(text: str, values: dict[str, Any]) -> bool:
    try:
        compiled(text)(values)
    except TemplateFault:
        return False
    return True


def _value(name: str, values: dict[str, Any], contact: Contact) -> tuple[Any, str]:
    """A variable's value and where it comes from."""
    root, _, attribute = name.partition(".")
    if root == "invoice":
        value = values.get(root, {}).get(attribute)
        return value, "missing" if value is None else f"invoice.{attribute}"
    if root == "attributes":
        value = values["attributes"].get(attribute.split(".")[0])
        return value, "missing" if value is None else f"contact.attributes.{attribute}"
    if root == "locale" and not contact.locale:
        return values[root], "default"
    if root in ("name", "first_name"):
        return values[root], "contact.name" if contact.name.strip() else "contact.phone"
    return values.get(root), f"contact.{root}" if root in values else "missing"


async def test(ctx: Context[StepTest, None]) -> Answer[Accepted | Outcome]:
    """Send a step as a test, by the way that every message takes; it counts in no statistics of the campaign.

    With `to` it goes to that number, filled in for the contact if one is given; else to the contact itself.
    """
    wanted, faults = ctx.body, Faults()
    async with ctx.transaction() as con:
        to = check_test(ctx, faults, None if wanted.to is None else await region(con))
        faults.refuse()
        campaign, step = await _step(ctx)
        contact = await _contact(wanted.contact_id) if wanted.contact_id else None
        await _need_active(campaign)
        lengths = lengths_of(await Template.filter(sender_id=campaign.sender_id))
    variant = _tested(step, wanted)
    invoice = await _invoice(ctx)
    said = variant.content() if variant else content_of(step)
    content, faults = _filled(said, values_of(contact, to or "", invoice), lengths)
    faults.refuse()
    if contact is not None and to is None:
        if contact.opted_out_at is not None or "utility" in contact.opt_outs:  # the lane of tests
            raise conflict("this contact has opted out, of tests too: give another, or a number of your own in `to`")
        if contact.phone is None and contact.wa_user_id is None:
            raise conflict("this contact has no phone number: PATCH the contact with one, or give `to`")
    id_ = ctx.new_id()
    command = SendMessage(
        sender_id=str(campaign.sender_id),
        content=content or Content(),
        contact_id=str(contact.id) if contact is not None and to is None else None,
        to=to,
        is_test=True,
        filled_in=True,
        delivery="at_most_once",
    )
    answer = await accept(ctx, command, Accepted(id=id_), f"{PREFIX}/messages/{id_}", Expected(OUTCOMES, id_))
    ctx.door.accepted.add(ctx.tenant, id_, ctx.door.clock())
    return answer


def check_test(ctx: Context[StepTest, None], faults: Faults, region: str | None) -> str | None:
    """The number that a test goes to, if it doesn't go to the contact."""
    if ctx.body.invoice_id is not None and ctx.body.contact_id is None:
        faults.add("invoice_id", "is a contact's: give the contact_id too")
    if ctx.body.to is not None:
        return faults.phone("to", ctx.body.to, region)
    if ctx.body.contact_id is None:
        faults.add("to", "give a phone number of your own, or contact_id")
    return None


def _tested(step: CampaignStep, wanted: StepTest) -> Variant | None:
    variants = variants_of(step)
    if wanted.variant is not None:
        found = next((one for one in variants if one.name == wanted.variant), None)
        if found is None:
            names = ", ".join(one.name for one in variants) or "none"
            raise Problem(404, f"there is no such variant: possible are {names}", errors=[("variant", "is no variant")])
        return found
    if wanted.contact_id is not None:
        return variant_for(step, wanted.contact_id)
    return variants[0] if variants else None


async def _need_active(campaign: Campaign) -> None:
    sender = await Sender.get(id=campaign.sender_id)
    if sender.status != "active":
        raise conflict(f"the campaign's sender is {stopped(sender.id, sender.status, sender.status_reason)}")


async def _step(ctx: Context[Any, Any]) -> tuple[Campaign, CampaignStep]:
    campaign = await get_campaign(ctx)
    step = await CampaignStep.get_or_none(id=ctx.id("step_id"), campaign_id=campaign.id)
    if step is None:
        raise not_found("step")
    return campaign, step


async def _contact(contact_id: UUID) -> Contact:
    contact = await Contact.get_or_none(id=contact_id)
    if contact is None:
        raise Problem(404, "there is no such contact: check contact_id", errors=[("contact_id", "is no contact")])
    return contact
