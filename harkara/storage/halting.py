"""Numbers that may not send: paused until somebody acts, or held for a while; told in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.ids import uuid7
from harkara.schemas.events import AlertRaised, AlertResolved
from harkara.schemas.work import Release
from harkara.storage import outbox

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


#: Tells whoever keeps something of a number in memory that it was changed; its data is the sender's id.
WAKE_SENDER = "sys.wake.sender"


@dataclass(frozen=True, slots=True)
class Bad:
    """Bad news from the gateway: what it is about (`number`, `waba`, …), why, what to do, and its error code."""

    scope: str
    reason: str
    todo: str
    error_code: int | None = None
    #: It is about all numbers of the account, not only about the one that heard of it.
    of_account: bool = False
    #: When it happened, if it is told late: what was before somebody last saw to a number doesn't stop it again.
    at: datetime | None = None


#: Begin the reasons of what an operator has paused: numbers with their tenant; numbers and campaigns by themselves.
WITH_TENANT = "the operator has paused this tenant"
BY_OPERATOR = "paused by the operator"

#: The numbers that are meant: this one, or all of its account, as far as the tenant has said which one that is.
_MEANT = """
meant as (
  select o.id from senders s join senders o
    on o.tenant_id = s.tenant_id and (o.id = s.id or $6 and o.waba_id = s.waba_id)
  where s.tenant_id = $1 and s.id = $2 order by o.id for no key update of o)
"""

_PAUSE = f"""
with {_MEANT}
update senders s set status = 'paused', status_reason = $3, error_code = $4, status_since = clock_timestamp(),
  alert_id = $5, updated_at = now()
from meant where s.id = meant.id and s.tenant_id = $1 and s.status = 'active'
  and coalesce(s.status_since < $7, true)
returning s.id
"""  # noqa: S608 - our own words

#: A number that is held longer already stays so.
_HOLD = f"""
with {_MEANT}, before as (select s.id, s.held_until from senders s join meant on meant.id = s.id where s.tenant_id = $1)
update senders s set held_until = clock_timestamp() + $7, status_reason = $3, error_code = $4,
  status_since = case when before.held_until > now() then s.status_since else clock_timestamp() end,
  alert_id = case when before.held_until > now() then coalesce(s.alert_id, $5) else $5 end, updated_at = now()
from before where s.id = before.id and s.tenant_id = $1 and s.status = 'active'
  and coalesce(s.status_since < $8, true) and coalesce(before.held_until, '-infinity') < clock_timestamp() + $7
returning s.id, coalesce(before.held_until > now(), false)
"""  # noqa: S608 - our own words

#: What an operator has paused meanwhile goes on only if it is named itself.
_RESUME = f"""
with before as (select id, alert_id from senders where tenant_id = $1 and id = $2),
meant as (
  select o.id, o.alert_id from senders o join before on o.id = before.id or o.alert_id = before.alert_id
    and not starts_with(coalesce(o.status_reason, ''), '{WITH_TENANT}')
    and not starts_with(coalesce(o.status_reason, ''), '{BY_OPERATOR}')
  where o.tenant_id = $1 order by o.id for no key update of o)
update senders s set status = 'active', status_reason = null, error_code = null, status_since = clock_timestamp(),
  alert_id = null, held_until = null, updated_at = now()
from meant where s.id = meant.id and s.tenant_id = $1 and (s.status <> 'active' or s.held_until > now())
returning s.id, meant.alert_id
"""  # noqa: S608 - our own words


_TEMPLATE = """
select m.content -> 'template' ->> 'name', coalesce(m.content -> 'template' ->> 'language', 'en')
from messages m where m.id = $2 and m.tenant_id || '' = $1 and m.content ? 'template'
"""


_RECIPIENT = """select m."to" from messages m where m.id = $2 and m.tenant_id || '' = $1"""


async def template_of(con: Connection, tenant: str, message_id: UUID) -> tuple[str, str] | None:
    """Name and language of the template that a message was made of; None if of none."""
    row = await con.fetchrow(_TEMPLATE, tenant, message_id)
    return None if row is None else (row[0], row[1])


async def recipient_of(con: Connection, tenant: str, message_id: UUID) -> str:
    """To whom a message goes; empty if there is none of that id."""
    return await con.fetchval(_RECIPIENT, tenant, message_id) or ""


async def pause(con: Connection, tenant: str, sender_id: UUID, bad: Bad, cause: str = "") -> list[UUID]:
    """Stop these numbers until somebody has them go on. Returns those that were active."""
    alert = uuid7()
    rows = await con.fetch(_PAUSE, tenant, sender_id, bad.reason, bad.error_code, alert, bad.of_account, bad.at)
    paused = [row[0] for row in rows]
    if paused:
        await tell(con, tenant, alert, "paused", bad, cause, sender_ids=paused)
    return paused


async def hold(
    con: Connection, tenant: str, sender_id: UUID, bad: Bad, wait: timedelta, cause: str = "", *, alert: bool = False
) -> list[UUID]:
    """Let these numbers rest for so long; they go on by themselves. Returns those whose rest is new or longer."""
    id_ = uuid7()
    rows = await con.fetch(_HOLD, tenant, sender_id, bad.reason, bad.error_code, id_, bad.of_account, wait, bad.at)
    fresh = [row[0] for row in rows if not row[1]]
    if alert and fresh:
        await tell(con, tenant, id_, "held", bad, cause, sender_ids=fresh)
    return [row[0] for row in rows]


async def resume(con: Connection, tenant: str, sender_id: UUID, cause: str = "") -> list[UUID]:
    """Have a number go on, and all that were stopped with it. Returns those that do.

    One that nothing stops may rest for some seconds, which only Redis knows: what that has put off is sent at once too.
    """
    rows = await con.fetch(_RESUME, tenant, sender_id)
    resumed = [row[0] for row in rows]
    await went_on(con, tenant, resumed or [sender_id], cause)
    for alert in {row[1] for row in rows if row[1] is not None}:
        await resolved(con, tenant, alert, resumed, cause)
    return resumed


async def went_on(con: Connection, tenant: str, sender_ids: list[UUID], cause: str = "") -> None:
    """Have what was refused, because these numbers had to rest, sent at once after this transaction commits."""
    work = Release(sender_ids=[str(id_) for id_ in sorted(sender_ids)], resumed=True)
    await outbox.put(con, tenant, work, f"release.{uuid7()}", cause)


async def resolved(
    con: Connection,
    tenant: str,
    alert: UUID,
    senders: list[UUID],
    cause: str = "",
    *,
    template: str | None = None,
    reason: str | None = None,
) -> None:
    """Tell that these numbers, or their template, go on, which an alert had told were stopped.

    Or, with a reason, that the alert is over although they don't.
    """
    sender_ids = [str(id_) for id_ in sorted(senders)]
    event = AlertResolved(id=str(alert), sender_ids=sender_ids, template=template, reason=reason)
    await outbox.put(con, tenant, event, f"{alert}.resolved.{len(senders)}", cause)


async def tell(
    con: Connection,
    tenant: str,
    alert: UUID,
    kind: str,
    bad: Bad,
    cause: str = "",
    *,
    sender_ids: list[UUID],
    template: str | None = None,
) -> None:
    """Have an alert published if this transaction commits."""
    event = AlertRaised(
        id=str(alert),
        kind=kind,
        scope=bad.scope,
        reason=bad.reason,
        todo=bad.todo,
        error_code=bad.error_code,
        sender_ids=[str(id_) for id_ in sorted(sender_ids)],
        template=template,
    )
    await outbox.put(con, tenant, event, f"{alert}.raised", cause)
