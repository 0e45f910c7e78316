"""One-off messages: accepted here, sent by the actors, and cancelled while they wait."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.http.accepting import Expected, accept
from harkara.http.checks import Faults
from harkara.http.contacts import region as region_of
from harkara.http.context import Answer, Context
from harkara.http.message_list import find
from harkara.http.problems import Problem, conflict, invalid, not_found
from harkara.http.route import PREFIX
from harkara.ids import uuid7
from harkara.schemas.api import Accepted, NewMessage, Outcome
from harkara.schemas.commands import CancelMessage, SendMessage
from harkara.schemas.content import Content
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

#: Whose number it is when none is named.
ONLY_SENDER = "select id from senders where status = 'active' limit 2"

#: How far ahead a message may be scheduled: the months it may fall into are prepared.
FURTHEST = timedelta(days=30)

#: The events of which the first tells what became of a message.
OUTCOMES = frozenset({"message.sent", "message.failed", "message.suppressed", "message.unknown"})


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
    send_at = None if wanted.send_at is None else _time(ctx, wanted.send_at, faults)
    to = None if wanted.to is None else await _phone(ctx, wanted.to, faults)
    faults.refuse()
    sender_id = wanted.sender_id or await _only_sender(ctx)
    facts = await ctx.door.questions.ask(FACTS, ctx.tenant, sender_id, wanted.contact_id, to)
    _refuse(wanted, facts)
    _render(content, facts, to)
    id_ = uuid7(send_at)  # an id tells when its message is due
    command = SendMessage(
        sender_id=str(sender_id),
        content=content,
        contact_id=None if wanted.contact_id is None else str(wanted.contact_id),
        to=to,
        lane=wanted.lane,
        send_at=send_at,
    )
    answer = await accept(ctx, command, Accepted(id=id_), f"{PREFIX}/messages/{id_}", Expected(OUTCOMES, id_))
    ctx.door.accepted.add(ctx.tenant, id_, ctx.door.clock())
    return answer


def _time(ctx: Context[NewMessage, None], at: datetime, faults: Faults) -> datetime | None:
    """When it shall leave; None for what is past, which means now."""
    now = ctx.door.clock()
    if at > now + FURTHEST:
        faults.add("send_at", f"lies too far ahead: at most {FURTHEST.days} days from now")
    return faults.instant("send_at", at) if at > now else None


async def _only_sender(ctx: Context[NewMessage, None]) -> UUID:
    async with ctx.transaction() as con:
        rows = await con.fetch(ONLY_SENDER)
    if not rows:
        raise conflict("there is no active sender: make one with POST /api/v1/senders, or make one active again")
    if len(rows) > 1:
        raise invalid(("sender_id", "is needed, because there are several senders: say which one sends it"))
    only: UUID = rows[0]["id"]
    return only


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


async def cancel(ctx: Context[None, None]) -> Answer[Accepted | Outcome]:
    """Cancel a message that still waits for its time or its number's turn.

    It is then `suppressed` with the reason `cancelled`. Between this answer and that it may leave after all, when its
    turn comes just then; `Prefer: wait=5` tells which it was. 409 for one that has left, or never will.
    """
    id_ = ctx.id("message_id")
    message = await find(ctx, id_)
    if message is None:
        raise not_found("message")
    if message.status != "queued" and (message.status, message.reason) != ("suppressed", "cancelled"):
        raise conflict(f"this message is {message.status}: only one that is queued can be cancelled")
    expected = Expected(OUTCOMES, id_) if message.status == "queued" else None
    return await accept(
        ctx, CancelMessage(message_id=str(id_)), Accepted(id=uuid7()), f"{PREFIX}/messages/{id_}", expected
    )
