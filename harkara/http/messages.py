"""One-off messages: accepted here, sent by the actors, and cancelled while they wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from harkara.gateway.abilities import lacks
from harkara.http.accepting import Expected, accept
from harkara.http.checks import Faults
from harkara.http.contacts import region_for
from harkara.http.context import Answer, Context
from harkara.http.held_back import stopped
from harkara.http.invoices import owed
from harkara.http.message_list import find
from harkara.http.problems import Problem, conflict, invalid, not_found, operators
from harkara.http.route import PREFIX
from harkara.ids import text_of
from harkara.policy.fits import refused
from harkara.rendering import Unsayable, said
from harkara.schemas.api import Accepted, NewMessage, Outcome, ReplyTo
from harkara.schemas.commands import CancelMessage, SendMessage
from harkara.schemas.content import Content
from harkara.storage import pausing
from harkara.templating import variables

#: All that decides about one message, for many at once (`harkara/http/asking.py`). A phone is a contact's first number
#: or a further one, in any spelling.
FACTS = """
select s.id as sender_id, s.status as sender_status, s.status_reason, s.provider, k.id as contact_id, k.name, k.phone,
       k.locale, k.attributes::text,
       case when k.id is null and i.phone is not null then app.opted_out(i.tenant_id, i.phone, i.lane)
            else k.opted_out_at is not null or k.opt_outs ? i.lane
              or e.category = 'marketing' and k.opt_outs ? 'marketing' end as opted_out, k.wa_user_id,
       k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
         as consents, e.category, e.components::text
from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[]) with ordinality
     as i (tenant_id, sender_id, contact_id, phone, lane, template, language, place)
left join senders s on s.id = i.sender_id and s.tenant_id || '' = i.tenant_id
left join lateral (
  select i.contact_id as id where i.contact_id is not null
  union all select l.contact_id from app.line(i.tenant_id, i.phone) l
  limit 1) who on true
left join contacts k on k.id = who.id and k.tenant_id || '' = i.tenant_id
left join templates e
  on e.tenant_id = i.tenant_id and e.sender_id = i.sender_id and e.name = i.template and e.language = i.language
order by i.place
"""

#: Whose number it is when none is named.
ONLY_SENDER = "select id from senders where status = 'active' limit 2"

_STOPPED = "select id, status, status_reason from senders where tenant_id = $1 and status <> 'active' limit 100"

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
    return await accept_message(ctx, ctx.body)


class Quoted(NamedTuple):
    """What a message quotes: our id of it, and its gateway's."""

    id: UUID
    wamid: str


async def accept_message(
    ctx: Context[Any, Any], wanted: NewMessage, quoted: Quoted | None = None, *, further: str | None = None
) -> Answer[Accepted | Outcome]:
    """Accept this message, whatever the request's own body looks like; `further` is one of its contact's numbers."""
    faults = Faults()
    region = None if wanted.to is None else await region_for(ctx, wanted.to)
    content, send_at, to = _checked(ctx, wanted, faults, region)
    faults.refuse()
    sender_id = wanted.sender_id or await _only_sender(ctx)
    template = (None, None) if content.template is None else (content.template.name, content.template.language)
    facts = await ctx.door.questions.ask(FACTS, ctx.tenant, sender_id, wanted.contact_id, to, wanted.lane, *template)
    _refuse(wanted, facts)
    invoice = None
    if wanted.invoice_id is not None:
        invoice = await owed(ctx, wanted.invoice_id, facts["contact_id"])
    if missing := lacks(facts["provider"], content):
        raise invalid(*missing)
    _refuse_misfits(_rendered(content, facts, to, invoice), facts)
    id_ = ctx.new_id(send_at)  # an id tells when its message is due
    command = SendMessage(
        sender_id=text_of(sender_id),
        content=content,
        contact_id=None if wanted.contact_id is None else text_of(wanted.contact_id),
        to=to or further,
        lane=wanted.lane,
        send_at=send_at,
        delivery=wanted.delivery,
        expires_at=None if wanted.expires_at is None else wanted.expires_at.astimezone(UTC),
        invoice_id=None if wanted.invoice_id is None else text_of(wanted.invoice_id),
        reply_to=None if quoted is None else text_of(quoted.id),
        quoted=None if quoted is None else quoted.wamid,
    )
    answer = await accept(ctx, command, Accepted(id=id_), f"{PREFIX}/messages/{text_of(id_)}", Expected(OUTCOMES, id_))
    ctx.door.accepted.add(ctx.tenant, id_, ctx.door.clock())
    return answer


def check_new(ctx: Context[NewMessage, None], faults: Faults, region: str | None) -> object:
    """All of a message that doesn't depend on whom it is for."""
    return _checked(ctx, ctx.body, faults, region)


def check_reply(ctx: Context[ReplyTo, None], faults: Faults, _region: str | None) -> None:
    """What is said."""
    faults.content(_content(ctx.body), complete=False)


def _checked(
    ctx: Context[Any, Any], wanted: NewMessage, faults: Faults, region: str | None
) -> tuple[Content, datetime | None, str | None]:
    """What is said, when, and to which number."""
    content = _content(wanted)
    if (wanted.contact_id is None) == (wanted.to is None):
        faults.add("contact_id", "give exactly one of contact_id and to")
    if wanted.invoice_id is not None and wanted.contact_id is None:
        faults.add("invoice_id", "is a contact's: give the contact_id, and no number in `to`")
    faults.content(content, complete=False)
    send_at = None if wanted.send_at is None else _time(ctx, wanted.send_at, faults)
    if wanted.expires_at is not None and faults.instant("expires_at", wanted.expires_at) <= (send_at or ctx.came_at):
        faults.add("expires_at", "must lie after the time at which the message is to leave")
    return content, send_at, None if wanted.to is None else faults.phone("to", wanted.to, region)


def _content(said: Content) -> Content:
    return Content(body=said.body, template=said.template, media=said.media, interactive=said.interactive)


def _time(ctx: Context[Any, Any], at: datetime, faults: Faults) -> datetime | None:
    """When it shall leave; None for now, which the last minutes mean too. Before that a day or a time zone is wrong."""
    now = ctx.came_at
    if at > now + FURTHEST:
        faults.add("send_at", f"lies too far ahead: at most {FURTHEST.days} days from now")
    faults.not_past("send_at", at, now, "leave it out to send now")
    return faults.instant("send_at", at) if at > now else None


async def _only_sender(ctx: Context[Any, Any]) -> UUID:
    async with ctx.transaction() as con:
        rows = await con.fetch(ONLY_SENDER)
        others = [] if rows else await con.fetch(_STOPPED, ctx.tenant)
        why = None if rows else await pausing.tenant_paused(con, ctx.tenant)
    if why := why or next((row[2] for row in others if pausing.by_operator(row[2])), None):
        raise _paused(why)
    if others:
        raise conflict(f"there is no active sender: {others[0][0]} is {stopped(*others[0])}")
    if not rows:
        raise conflict("there is no sender: make one with POST /api/v1/senders")
    if len(rows) > 1:
        raise invalid(("sender_id", "is needed, because there are several senders: say which one sends it"))
    only: UUID = rows[0]["id"]
    return only


def _paused(why: str) -> Problem:
    return operators(f"sending is paused: {why}")


def _refuse(wanted: NewMessage, facts: Any) -> None:
    if facts["sender_status"] is None:
        raise Problem(404, "there is no such sender: check sender_id", errors=[("sender_id", "is no sender")])
    if wanted.contact_id is not None and facts["contact_id"] is None:
        raise Problem(404, "there is no such contact: check contact_id", errors=[("contact_id", "is no contact")])
    if pausing.by_operator(facts["status_reason"]) and facts["sender_status"] != "active":
        raise _paused(facts["status_reason"])
    if facts["sender_status"] != "active":
        how = stopped(facts["sender_id"], facts["sender_status"], facts["status_reason"])
        raise conflict(f"this sender is {how}; or send with another")
    if facts["opted_out"] and facts["contact_id"] is None:
        raise conflict(
            "whoever has this number has opted out: once they agree again, POST a contact with consent {source, at}"
        )
    if facts["opted_out"]:
        raise conflict(
            "this contact has opted out: once they agree again, PATCH the contact with consent {source, at}",
            contact_id=str(facts["contact_id"]),
        )
    if "marketing" in (wanted.lane, facts["category"]) and not facts["consents"]:
        what = "marketing" if wanted.lane == "marketing" else "its template is marketing to WhatsApp, which"
        raise conflict(
            f"{what} needs consent, and none is recorded: make a contact with it, or PATCH the contact's consent"
        )
    if wanted.contact_id is not None and facts["phone"] is None and facts["wa_user_id"] is None:
        raise conflict("this contact has no phone number: PATCH the contact with one")


def _rendered(content: Content, facts: Any, to: str | None, invoice: Mapping[str, str] | None) -> Content:
    """What is said to this very contact. Raises Problem 422 for what would have a hole, or be too long."""
    if not any("{" in text for _, text in content.texts()):
        return content
    values = variables(
        name=facts["name"],
        phone=facts["phone"] or to or facts["wa_user_id"] or "",
        locale=facts["locale"],
        attributes=msgspec.json.decode(facts["attributes"] or "{}"),
        invoice=invoice,
    )
    try:
        return said(content, values)
    except Unsayable as fault:
        raise invalid(*fault.faults) from None


def _refuse_misfits(content: Content, facts: Any) -> None:
    """Raise Problem 422 for what a template doesn't take, if it is known what it takes."""
    if content.template is None or facts["components"] is None:
        return
    if faults := refused(content.template, msgspec.json.decode(facts["components"]), facts["category"]):
        raise invalid(*faults)


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
        ctx, CancelMessage(message_id=str(id_)), Accepted(id=ctx.new_id()), f"{PREFIX}/messages/{id_}", expected
    )
