"""Two records of one person become one, in the transaction of whoever finds out that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.ids import uuid7
from harkara.policy.gate import INVOICE_ENDED
from harkara.schemas.base import Message
from harkara.schemas.events import ContactMerged, EnrollmentStopped
from harkara.storage import enrolling, holding, opting
from harkara.storage.opting import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harkara.storage.storage import Connection

#: What hangs on a contact and simply moves. Conversations and enrolments are one each of a kind, and don't.
MOVED = (
    *("phone_numbers", "messages", "leads", "contact_merges", "replies", "invoices", "media"),
    "conversation_notes",
)

#: In the order of their ids, so that two merges can't block each other.
_LOCK = """
select id, name, phone, wa_user_id, locale, timezone, attributes::text, tags, opted_in_at, consent_source,
       consent_categories, opted_out_at, opted_out_reason, opt_outs::text, opt_ins::text, marketing_rests_until
from contacts where tenant_id = $1 and id = any ($2::uuid[]) order by id for update
"""

#: Of two conversations with the same number, the merged one's goes up in the kept one's.
_JOINED = """
with pairs as (
  select gone.id as gone_id, kept.id as kept_id, gone.last_inbound_at, gone.last_activity, gone.status, gone.assigned_to
  from conversations gone join conversations kept
    on kept.tenant_id = gone.tenant_id and kept.sender_id = gone.sender_id and kept.contact_id = $2
  where gone.tenant_id = $1 and gone.contact_id = $3),
replies as (
  update replies r set conversation_id = pairs.kept_id, contact_id = $2 from pairs
  where r.conversation_id = pairs.gone_id and r.tenant_id = $1),
notes as (
  update conversation_notes n set conversation_id = pairs.kept_id, contact_id = $2 from pairs
  where n.conversation_id = pairs.gone_id and n.tenant_id = $1)
update conversations c
set last_inbound_at = greatest(c.last_inbound_at, pairs.last_inbound_at),
    last_activity = greatest(c.last_activity, pairs.last_activity),
    assigned_to = coalesce(c.assigned_to, pairs.assigned_to),
    status = case when 'open' in (c.status, pairs.status) then 'open' else c.status end,
    closed_at = case when 'open' in (c.status, pairs.status) then null else c.closed_at end, updated_at = now()
from pairs where c.id = pairs.kept_id and c.tenant_id = $1 returning pairs.gone_id
"""

#: What was accepted and is not done yet holds the contact that is kept.
_HOLDS = """
update contact_holds h set contact_id = $2 where h.tenant_id = $1 and h.contact_id = $3 and not exists (
  select from contact_holds o where o.tenant_id = $1 and o.word = h.word and o.contact_id = $2)
"""

#: Those of both contacts, and whether a message of theirs is in the air: that one must be settled under its own id.
#: Who was enrolled again has a row for each run, of which only the last can still go on.
_ENROLLMENTS = """
select p.id, p.contact_id, p.campaign_id, p.status, p.current_step, p.stopped_reason, p.started_at, p.finished_at,
       p.next_message_id,
       p.run = max(p.run) over (partition by p.contact_id, p.campaign_id) as last,
       exists (select from messages m where m.id = p.next_message_id and m.tenant_id = $1) as in_the_air
from (select * from contact_campaign_progress where tenant_id = $1 and contact_id in ($2, $3)
      order by id for no key update) p
"""

#: Out of the way of those that are there already, until all are numbered anew.
_OUT_OF_THE_WAY = 100_000

#: A new message id makes void what waits in the broker for the merged contact: it is claimed anew, for the kept one.
_MOVE_ENROLLMENT = """
update contact_campaign_progress
set contact_id = $3, run = run + $6, updated_at = now(),
    next_message_id = case when status in ('active', 'paused') and not $5 then $4 else next_message_id end,
    next_claim_at = case when status = 'active' and not $5 then next_step_scheduled_at else next_claim_at end,
    deferred_until = case when status in ('active', 'paused') and not $5 then null else deferred_until end
where tenant_id = $1 and id = $2
"""

#: Runs from 1 in the order in which they began, the one that goes on last; in two moves, as they stay unique meanwhile.
_NUMBER_RUNS = """
update contact_campaign_progress p set run = 2 * $4 + o.run
from (select id, row_number() over (partition by campaign_id
                                    order by status in ('active', 'paused'), started_at, id) as run
      from contact_campaign_progress where tenant_id = $1 and contact_id = $2 and campaign_id = any ($3::uuid[])) o
where p.id = o.id and p.tenant_id = $1
"""
_NUMBERED = """
update contact_campaign_progress set run = run - 2 * $4
where tenant_id = $1 and contact_id = $2 and campaign_id = any ($3::uuid[])
"""

#: What the other one says counts where the kept one says nothing.
_JOIN = """
update contacts
set phone = coalesce(phone, $3), wa_user_id = coalesce(wa_user_id, $4), name = coalesce(nullif(name, ''), $5),
    locale = coalesce(nullif(locale, ''), $6), timezone = coalesce(nullif(timezone, ''), $7),
    attributes = $8::jsonb || attributes, tags = $9::text[],
    opted_in_at = $10, consent_source = $11, consent_categories = $12::text[],
    opted_out_at = $13, opted_out_reason = $14, opt_outs = $15::jsonb, opt_ins = $16::jsonb,
    marketing_rests_until = greatest(marketing_rests_until, $17), updated_at = now()
where tenant_id = $1 and id = $2
"""
_FURTHER_NUMBER = "insert into phone_numbers (id, tenant_id, contact_id, phone, label) values ($1, $2, $3, $4, '')"
_KEPT = """
select g.id, g.contact_id from unnest($1::text[], $2::uuid[]) as i (tenant_id, id)
join contact_merges g on g.id = i.id and g.tenant_id || '' = i.tenant_id
"""
_MERGED = "insert into contact_merges (id, tenant_id, contact_id) values ($1, $2, $3)"

_RUNS = ("active", "paused")

#: How far an enrolment has come, by its status first.
_FURTHER = ("failed", "stopped", "paused", "active", "completed")

#: An event, and its id.
Told = tuple[Message, str]


async def lock(con: Connection, tenant: str, ids: Sequence[UUID]) -> dict[UUID, Any]:
    """These contacts as they are, locked until the transaction ends; those that there are not are missing.

    Gates that look at them are waited for first: they may wait for the rows.
    """
    await holding.exclude(con, ids)
    return {row["id"]: row for row in await con.fetch(_LOCK, tenant, list(ids))}


async def kept(con: Connection, contacts: Sequence[tuple[str, UUID]]) -> dict[UUID, UUID]:
    """Into whom those of these (tenant, contact) were merged that were: what is asked of them is asked of the kept."""
    return {row[0]: row[1] for row in await con.fetch(_KEPT, *map(list, zip(*contacts, strict=True)))}


async def merge(con: Connection, tenant: str, kept: Any, gone: Any) -> list[Told]:
    """Make `gone` part of `kept`, two rows as `lock` gave them. Returns what is to be told of it.

    Where both say something (name, attributes, time zone), the kept one's word stays. Consent is the stricter of the
    two: an opt-out of either stands and stops what runs, and only what both agreed to is agreed to.
    """
    told = await _move(con, tenant, kept["id"], gone["id"])
    standing = opting.join(_standing(kept), _standing(gone))
    await _join(con, tenant, kept, gone, standing)
    told.append((ContactMerged(id=str(kept["id"]), merged_id=str(gone["id"])), f"{gone['id']}.merged"))
    if opting.STOPS_CAMPAIGNS & standing.outs.keys():
        for row in await enrolling.stop_contacts(con, [(tenant, kept["id"], "opt_out")]):
            told.append(_stopped(row[0], row[2], kept["id"], row[4]))
    return told


async def _move(con: Connection, tenant: str, kept: UUID, gone: UUID) -> list[Told]:
    """Everything that hangs on the other one. Returns the enrolments that end with it."""
    joined = [row[0] for row in await con.fetch(_JOINED, tenant, kept, gone)]
    await con.execute("delete from conversations where tenant_id = $1 and id = any ($2::uuid[])", tenant, joined)
    for table in ("conversations", *MOVED):
        statement = f"update {table} set contact_id = $2 where tenant_id = $1 and contact_id = $3"  # noqa: S608
        await con.execute(statement, tenant, kept, gone)
    await con.execute(_HOLDS, tenant, kept, gone)
    rows, told = list(await con.fetch(_ENROLLMENTS, tenant, kept, gone)), list[Told]()
    for loser in _overtaken(rows, kept):
        await con.execute("delete from contact_campaign_progress where tenant_id = $1 and id = $2", tenant, loser["id"])
        if loser["status"] in _RUNS:
            told.append(_stopped(loser["id"], loser["campaign_id"], kept, "merged"))
            told += await enrolling.end_messages(con, tenant, [loser["next_message_id"]], "enrollment_stopped")
        rows.remove(loser)
    moving = [row for row in rows if row["contact_id"] == gone]
    for row in moving:
        await con.execute(_MOVE_ENROLLMENT, tenant, row["id"], kept, uuid7(), row["in_the_air"], _OUT_OF_THE_WAY)
    campaigns = list({row["campaign_id"] for row in moving})
    await con.execute(_NUMBER_RUNS, tenant, kept, campaigns, _OUT_OF_THE_WAY)
    await con.execute(_NUMBERED, tenant, kept, campaigns, _OUT_OF_THE_WAY)
    return told


def _overtaken(rows: list[Any], kept: UUID) -> list[Any]:
    """Of each campaign that both are enrolled in, the last run that has not come as far as the other's.

    Or the one that runs, if the other was stopped since it began: whoever is one person has stopped both.
    """
    best: dict[UUID, Any] = {}
    losers: list[Any] = []
    for row in (row for row in rows if row["last"]):
        other = best.setdefault(row["campaign_id"], row)
        if other is not row:
            worse, better = sorted((other, row), key=lambda one: _progress(one, kept))
            if _stops(worse, better):
                worse, better = better, worse
            best[row["campaign_id"]] = better
            losers.append(worse)
    return losers


def _stops(row: Any, other: Any) -> bool:
    """Whether this one was stopped while the other ran, and not because of an invoice, which is its own."""
    if row["status"] != "stopped" or row["stopped_reason"] in INVOICE_ENDED.values():
        return False
    return other["status"] in _RUNS and row["finished_at"] > other["started_at"]


def _progress(row: Any, kept: UUID) -> tuple[int, int, bool]:
    return row["current_step"], _FURTHER.index(row["status"]), row["contact_id"] == kept


def _stopped(id_: UUID, campaign: UUID, contact: UUID, reason: str) -> Told:
    event = EnrollmentStopped(id=str(id_), campaign_id=str(campaign), contact_id=str(contact), reason=reason)
    return event, f"{id_}.stopped"


async def _join(con: Connection, tenant: str, kept: Any, gone: Any, standing: Standing) -> None:
    """What the two say of themselves, and the end of the other."""
    opted = opting.columns(standing)
    await con.execute("delete from contacts where tenant_id = $1 and id = $2", tenant, gone["id"])
    await con.execute(
        _JOIN,
        tenant,
        kept["id"],
        *(gone[name] or None for name in ("phone", "wa_user_id")),
        gone["name"],
        *(gone[name] or None for name in ("locale", "timezone")),
        gone["attributes"],
        list(dict.fromkeys([*kept["tags"], *gone["tags"]])),
        *_consent(kept, gone),
        *(opted[name] for name in ("opted_out_at", "opted_out_reason")),
        *(msgspec.json.encode(opted[name]).decode() for name in ("opt_outs", "opt_ins")),
        gone["marketing_rests_until"],
    )
    if kept["phone"] and gone["phone"]:
        await con.execute(_FURTHER_NUMBER, uuid7(), tenant, kept["id"], gone["phone"])
    await con.execute(_MERGED, gone["id"], tenant, kept["id"])


def _standing(row: Any) -> Standing:
    return opting.read(row["opted_out_at"], row["opted_out_reason"], row["opt_outs"], row["opt_ins"])


def _consent(kept: Any, gone: Any) -> tuple[Any, Any, list[str]]:
    """The stricter of the two: when, from where, and for which categories."""
    mine: list[str] = kept["consent_categories"]
    theirs: list[str] = gone["consent_categories"]
    both = [lane for lane in mine or theirs if lane in (theirs or [lane])]
    if gone["opted_in_at"] is None or kept["opted_in_at"] is None or (mine and theirs and not both):
        return None, None, []
    return kept["opted_in_at"], kept["consent_source"], both
