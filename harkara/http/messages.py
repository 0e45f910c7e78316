"""One-off messages: accepted here, sent by the actors; and every message with what happened to it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.http.accepting import Expected, accept
from harkara.http.checks import Faults
from harkara.http.contacts import region as region_of
from harkara.http.context import Answer, Context
from harkara.http.lists import newest, page
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import shown
from harkara.ids import time_of, uuid7
from harkara.schemas.api import (
    Accepted,
    AcceptedStory,
    MessageQuery,
    MessageShown,
    MessageStory,
    Moment,
    NewMessage,
    Outcome,
    Page,
)
from harkara.schemas.commands import SendMessage
from harkara.schemas.content import Content
from harkara.storage.models import Message
from harkara.templating import TemplateFault, compiled, variables

#: All that decides about one message, for many at once (`harkara/http/asking.py`). A phone is a contact's first number
#: or a further one.
FACTS = """
select s.status as sender_status, k.id as contact_id, k.name, k.phone, k.locale, k.attributes::text,
       k.opted_out_at is not null as opted_out,
       k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
         as consents
from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[]) with ordinality
     as i (tenant_id, sender_id, contact_id, phone, place)
left join senders s on s.id = i.sender_id and s.tenant_id || '' = i.tenant_id
left join lateral (
  select i.contact_id as id where i.contact_id is not null
  union all select c.id from contacts c where c.tenant_id = i.tenant_id and c.phone = i.phone
  union all select n.contact_id from phone_numbers n where n.tenant_id = i.tenant_id and n.phone = i.phone
  limit 1) who on true
left join contacts k on k.id = who.id and k.tenant_id || '' = i.tenant_id
order by i.place
"""

#: A message younger than this may still be on its way into the table, from any process.
YOUNG = timedelta(seconds=10)

#: How long to wait for such a one before saying that there is none.
PATIENCE = timedelta(seconds=1)

LOOK_EVERY = timedelta(milliseconds=20)

#: The events of which the first tells what became of a message.
OUTCOMES = frozenset({"message.sent", "message.failed", "message.suppressed", "message.unknown"})

#: When what happened: the column and the status it means, in order.
MOMENTS = (
    ("created_at", "queued"),
    ("attempted_at", "sending"),
    ("sent_at", "sent"),
    ("delivered_at", "delivered"),
    ("read_at", "read"),
    ("failed_at", "failed"),
)


class JustAccepted:
    """The messages this process accepted last: they exist, even before they have a row."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, UUID], datetime] = OrderedDict()

    def add(self, tenant: str, id_: UUID, at: datetime) -> None:
        """Remember one."""
        self._known[tenant, id_] = at
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def at(self, tenant: str, id_: UUID) -> datetime | None:
        """When it was accepted; None if it wasn't, or too long ago to matter."""
        return self._known.get((tenant, id_))


async def send(ctx: Context[NewMessage, None]) -> Answer[Accepted | Outcome]:
    """Accept one message. Consent and opt-outs are judged now, and again when it leaves."""
    wanted, faults = ctx.body, Faults()
    content = Content(body=wanted.body, template=wanted.template, media=wanted.media, interactive=wanted.interactive)
    if (wanted.contact_id is None) == (wanted.to is None):
        faults.add("contact_id", "give exactly one of contact_id and to")
    faults.content(content, complete=False)
    to = None if wanted.to is None else await _phone(ctx, wanted.to, faults)
    faults.refuse()
    facts = await ctx.door.questions.ask(FACTS, ctx.tenant, wanted.sender_id, wanted.contact_id, to)
    _refuse(wanted, facts)
    _render(content, facts, to)
    id_ = uuid7()
    command = SendMessage(
        sender_id=str(wanted.sender_id),
        content=content,
        contact_id=None if wanted.contact_id is None else str(wanted.contact_id),
        to=to,
        lane=wanted.lane,
    )
    answer = await accept(ctx, command, Accepted(id=id_), f"{PREFIX}/messages/{id_}", Expected(OUTCOMES, id_))
    ctx.door.accepted.add(ctx.tenant, id_, ctx.door.clock())
    return answer


async def _phone(ctx: Context[NewMessage, None], text: str, faults: Faults) -> str:
    """The number it goes to, if it is one; the tenant's region is asked for only if the number doesn't say its own."""
    if text.lstrip().startswith("+"):
        return faults.phone("to", text, None)
    async with ctx.transaction() as con:
        return faults.phone("to", text, await region_of(con))


def _refuse(wanted: NewMessage, facts: Any) -> None:
    if facts["sender_status"] is None:
        raise Problem(404, "there is no such sender: check sender_id", errors=[("sender_id", "is no sender")])
    if wanted.contact_id is not None and facts["contact_id"] is None:
        raise Problem(404, "there is no such contact: check contact_id", errors=[("contact_id", "is no contact")])
    if facts["sender_status"] != "active":
        raise conflict(f"this sender is {facts['sender_status']}: make it active, or send with another")
    if facts["opted_out"]:
        raise conflict(
            "this contact has opted out: once they agree again, PATCH the contact with consent {source, at}",
            contact_id=str(facts["contact_id"]),
        )
    if wanted.lane == "marketing" and not facts["consents"]:
        raise conflict(
            "marketing needs consent, and none is recorded: make a contact with it, or PATCH the contact's consent"
        )
    if wanted.contact_id is not None and facts["phone"] is None:
        raise conflict("this contact has no phone number: PATCH the contact with one")


def _render(content: Content, facts: Any, to: str | None) -> None:
    """Refuse a message that would have a hole, or be too long, for this very contact."""
    texts = list(content.texts())
    if not any("{" in text for _, text in texts):
        return
    faults = Faults()
    values = variables(
        name=facts["name"] or "",
        phone=facts["phone"] or to or "",
        locale=facts["locale"],
        attributes=msgspec.json.decode(facts["attributes"] or "{}"),
    )
    rendered: dict[str, str] = {}
    for path, text in texts:
        try:
            rendered[text] = compiled(text)(values)
        except TemplateFault as fault:
            faults.add(path, f"{fault}: this contact has no value for it, so give it a default")
    faults.refuse()
    for path, message in content.map_texts(rendered.__getitem__).faults(rendered=True):
        faults.add(path, message)
    faults.refuse()


async def index(ctx: Context[None, MessageQuery]) -> Page[MessageShown]:
    """Messages, newest first."""
    query = ctx.query
    async with ctx.transaction():
        rows = newest(Message.all(), ctx.tenant, query)
        for name in ("status", "campaign_id", "contact_id"):
            if (value := getattr(query, name)) is not None:
                rows = rows.filter(**{name: value})
        found = await rows
    return page([shown(row, MessageShown) for row in found], query)


async def show(ctx: Context[None, None]) -> MessageStory | AcceptedStory:
    """One message with its timeline. One that was accepted a moment ago is waited for, never denied."""
    id_ = ctx.id("message_id")
    message = await _find(ctx, id_)
    if message is None:
        accepted_at = ctx.door.accepted.at(ctx.tenant, id_)
        if accepted_at is None:
            raise not_found("message")
        return AcceptedStory(id=id_, status="accepted", timeline=[Moment(at=accepted_at, status="accepted")])
    return MessageStory(timeline=_timeline(message), **msgspec.structs.asdict(shown(message, MessageShown)))


async def _find(ctx: Context[None, None], id_: UUID) -> Message | None:
    now = ctx.door.clock()
    patience = PATIENCE if id_.version == 7 and abs(now - time_of(id_)) < YOUNG else timedelta()
    while True:
        async with ctx.transaction():
            message = await Message.get_or_none(id=id_)
        if message is not None or patience <= timedelta():
            return message
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        patience -= LOOK_EVERY


def _timeline(message: Message) -> list[Moment]:
    """In the order in which they must have been: WhatsApp tells whole seconds, so a receipt may seem to come early."""
    moments = [Moment(at=at, status=status) for name, status in MOMENTS if (at := getattr(message, name)) is not None]
    if all(moment.status != message.status for moment in moments):
        moments.append(Moment(at=message.updated_at, status=message.status))
    return moments
