"""Message templates as WhatsApp has them: read from the gateway, changed by its webhooks and by what it refuses.

A template belongs to a WhatsApp Business Account. Each of the account's numbers that a tenant has gets a row of its
own, so that the gate finds it by its number; what is told of one number's template is true of the others' too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from harkara.policy.templates import STOPPED
from harkara.schemas.reasons import Reason

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Account:
    """A number by which its account's templates are read; the token is encrypted."""

    provider: str
    phone_number_id: str
    access_token: bytes | None
    waba_id: str | None
    asked_at: datetime
    tried_at: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """A template as the gateway tells it; `components` is JSON."""

    name: str
    language: str
    category: str
    status: str
    reason: str | None
    quality: str | None
    components: str


#: Alerts that are over, by alert, and name and language of the template: the numbers that they were about.
Over: TypeAlias = dict[tuple[UUID, str, str], list[UUID]]

#: The numbers of the same account: this one, and those that name the same account.
_NUMBERS = """
numbers as (
  select o.id from senders s join senders o
    on o.tenant_id = s.tenant_id and (o.id = s.id or o.waba_id = s.waba_id)
  where s.tenant_id = $1 and s.id = $2)
"""

_SET_STATUS = f"""
with {_NUMBERS},
before as (
  select t.sender_id, t.status, t.reason from templates t join numbers on numbers.id = t.sender_id
  where t.tenant_id = $1 and t.name = $3 and t.language = $4),
changed as (
insert into templates (id, tenant_id, sender_id, name, language, status, reason, status_at)
select app.uuid7(), $1, numbers.id, $3, $4, $5, $6, $7 from numbers
on conflict (tenant_id, sender_id, name, language) do update
set status = excluded.status, reason = excluded.reason, status_at = coalesce(excluded.status_at, templates.status_at),
    updated_at = case when (templates.status, templates.reason) is distinct from (excluded.status, excluded.reason)
                      then now() else templates.updated_at end
where ((templates.status, templates.reason) is distinct from (excluded.status, excluded.reason)
       or excluded.status_at is not null)
  and (excluded.status_at < templates.status_at) is not true
returning sender_id)
select changed.sender_id, before.status from changed left join before on before.sender_id = changed.sender_id
where (before.status, before.reason) is distinct from ($5::text, $6::text)
"""  # noqa: S608 - our own words

_ALERTED = f"""
with {_NUMBERS}
update templates t set alert_id = $5 from numbers
where t.tenant_id = $1 and t.sender_id = numbers.id and t.name = $3 and t.language = $4
"""  # noqa: S608 - our own words

#: An alert is about all numbers of an account, each of which may hear by itself that it is over.
_TAKE_OVER = """
with over as (
  select distinct t.alert_id from templates t
  where t.tenant_id = $1 and t.sender_id = $2 and t.alert_id is not null and t.status <> all ($3::text[]))
update templates t set alert_id = null from over where t.tenant_id = $1 and t.alert_id = over.alert_id
returning over.alert_id, t.name, t.language, t.sender_id
"""

#: Messages that wait for a template; without a name of any. One in doubt does, if it was refused the second time.
_FOR_IT = """
m.tenant_id = $1 and m.sender_id = any ($2::uuid[]) and m.sent_at is null and m.status in ('queued', 'unknown')
and ($3::text is null or
     m.content -> 'template' ->> 'name' = $3 and coalesce(m.content -> 'template' ->> 'language', 'en') = $4::text)
"""

#: The gate held it back.
_DEFERRED = "m.deferred_until > now() and m.reason = any ($5::text[])"

#: What WhatsApp itself refused waits on the broker, whatever it is.
_WAITING = f"""
select m.id from messages m
where {_FOR_IT} and (m.enrollment_id is null and {_DEFERRED} or m.error_code = any ($6::int[])) and m.id > $7
order by m.id limit $8
"""  # noqa: S608 - our own words

#: What is claimed already is judged anyway.
_RELEASE_STEPS = f"""
with held as materialized (
  select m.id, m.enrollment_id from messages m where {_FOR_IT} and {_DEFERRED} and m.enrollment_id is not null),
locked as (
  select p.id from contact_campaign_progress p join held on held.enrollment_id = p.id and held.id = p.next_message_id
  where p.tenant_id || '' = $1 and p.status || '' = 'active' and p.next_claim_at < 'infinity'
    and p.deferred_until > now()
  order by p.id for no key update of p)
update contact_campaign_progress p
set next_claim_at = p.next_step_scheduled_at, deferred_until = null, updated_at = now()
from locked where p.id = locked.id
"""  # noqa: S608 - our own words

_SET_QUALITY = f"""
with {_NUMBERS}
update templates t set quality = coalesce($5, t.quality), category = coalesce($6, t.category), updated_at = now()
from numbers where t.tenant_id = $1 and t.sender_id = numbers.id and t.name = $3 and t.language = $4
"""  # noqa: S608 - our own words

_REPLACE = """
insert into templates (id, tenant_id, sender_id, name, language, category, status, reason, quality, components)
select app.uuid7(), $1, $2, i.name, i.language, i.category, i.status, i.reason, i.quality, i.components::jsonb
from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
  as i (name, language, category, status, reason, quality, components)
on conflict (tenant_id, sender_id, name, language) do update
set category = excluded.category, quality = excluded.quality, components = excluded.components, updated_at = now(),
    status = case when templates.updated_at > $10 then templates.status else excluded.status end,
    reason = case when templates.updated_at > $10 then templates.reason else excluded.reason end
"""

#: What an alert has told of one that is gone is over, for all numbers of its account.
_FORGET = """
with gone as (
  delete from templates t where t.tenant_id = $1 and t.sender_id = $2 and t.updated_at <= $5
  and not exists (select from unnest($3::text[], $4::text[]) as i (name, language)
                  where i.name = t.name and i.language = t.language)
  returning t.alert_id, t.name, t.language, t.sender_id),
others as (
  update templates t set alert_id = null from gone
  where t.tenant_id = $1 and t.alert_id = gone.alert_id and t.sender_id <> $2
  returning gone.alert_id, t.name, t.language, t.sender_id)
select * from gone where alert_id is not null union all select * from others
"""

_SYNCED = """
update senders set templates_synced_at = case when $3 then now() end, templates_tried_at = now()
where tenant_id = $1 and id = $2
"""


_ACCOUNT = """
select provider, phone_number_id, access_token, waba_id, clock_timestamp(), templates_tried_at
from senders where tenant_id = $1 and id = $2
"""

_STATUSES = "select name, language, status from templates where tenant_id = $1 and sender_id = $2"

#: Those that are known by their status alone are that once the account was asked and has not said what they are.
_ASKED = """
update templates set category = 'unknown' where tenant_id = $1 and sender_id = $2 and category = '' and updated_at <= $3
"""

_COMPONENTS = """
select components::text from templates
where tenant_id || '' = $1 and sender_id = $2 and name = $3 and language = $4
"""

_UNREAD_OF = "select name, language from templates where tenant_id = $1 and sender_id = $2 and category = ''"

#: Numbers whose account can be asked what a template is, which is known by its status alone.
_UNREAD = """
select s.id from senders s join templates t on t.sender_id = s.id and t.tenant_id = s.tenant_id
where s.tenant_id = $1 and s.id = any ($2::uuid[]) and s.waba_id is not null
  and t.name = $3 and t.language = $4 and t.category in ('', 'unknown')
"""

_STALE = "select tenant_id, sender_id, now() from app.stale_templates($1, $2)"


async def account(con: Connection, tenant: str, sender_id: UUID) -> Account | None:
    """How to ask for a number's templates; None if there is no such number."""
    row = await con.fetchrow(_ACCOUNT, tenant, sender_id)
    return Account(*row) if row else None


async def statuses(con: Connection, tenant: str, sender_id: UUID) -> dict[tuple[str, str], str]:
    """The status of each known template of a number, by name and language."""
    return {(row[0], row[1]): row[2] for row in await con.fetch(_STATUSES, tenant, sender_id)}


async def components(con: Connection, tenant: str, sender_id: UUID, name: str, language: str) -> str | None:
    """The parts of a number's template, as JSON; None if there is no such template."""
    found: str | None = await con.fetchval(_COMPONENTS, tenant, sender_id, name, language)
    return found


async def unread_of(con: Connection, tenant: str, sender_id: UUID) -> list[tuple[str, str]]:
    """The templates of a number, by name and language, of which nobody has said yet what they are."""
    return [(row[0], row[1]) for row in await con.fetch(_UNREAD_OF, tenant, sender_id)]


async def asked(con: Connection, tenant: str, sender_id: UUID, at: datetime) -> None:
    """Note that a number's account was asked at this time, and has said what it says."""
    await con.execute(_ASKED, tenant, sender_id, at)


async def stale(con: Connection, most: int, age: timedelta) -> list[tuple[str, UUID, datetime]]:
    """Numbers (tenant, sender) of all tenants whose templates nobody asked for within that time; now somebody does.

    The third is when: it stands as the account's `tried_at` until somebody else has read them.
    """
    return [(row[0], row[1], row[2]) for row in await con.fetch(_STALE, most, age)]


async def set_status(
    con: Connection,
    tenant: str,
    sender_id: UUID,
    name: str,
    language: str,
    status: str,
    reason: str | None = None,
    at: datetime | None = None,
) -> dict[UUID, str | None]:
    """Note a template's status (Meta's words, in any case) for all numbers of its account.

    `at` is when it became so, if a webhook tells that: it is no news if another one has told of a later time. Returns
    the numbers for which it is news, with what it was before. A template that isn't known yet becomes so.
    """
    rows = await con.fetch(_SET_STATUS, tenant, sender_id, name, language, status.lower(), reason, at)
    return {row[0]: row[1] for row in rows}


async def unread(con: Connection, tenant: str, sender_ids: Iterable[UUID], name: str, language: str) -> list[UUID]:
    """Those of these numbers that know a template's status alone, and whose account can be asked for the rest."""
    return [row[0] for row in await con.fetch(_UNREAD, tenant, list(sender_ids), name, language)]


async def pause(con: Connection, tenant: str, sender_id: UUID, name: str, language: str, reason: str) -> bool:
    """Hold back whatever uses this template, and nothing else, until WhatsApp says that it may be used again."""
    return bool(await set_status(con, tenant, sender_id, name, language, "paused", reason))


async def alerted(con: Connection, tenant: str, sender_id: UUID, name: str, language: str, alert: UUID) -> None:
    """Note which alert told that a template may not be used."""
    await con.execute(_ALERTED, tenant, sender_id, name, language, alert)


async def take_over(con: Connection, tenant: str, sender_id: UUID) -> Over:
    """The alerts that are over, because their templates may be used again. Each is returned once."""
    return _over(await con.fetch(_TAKE_OVER, tenant, sender_id, [*STOPPED]))


def _over(rows: Iterable[Any]) -> Over:
    over: Over = {}
    for alert, name, language, sender_id in rows:
        over.setdefault((alert, name, language), []).append(sender_id)
    return over


async def waiting(
    con: Connection,
    tenant: str,
    sender_ids: Sequence[UUID],
    name: str | None,
    language: str | None,
    reasons: Sequence[Reason],
    codes: Sequence[int],
    after: UUID,
    most: int,
) -> list[UUID]:
    """Messages that wait on the broker, from the one after `after` on, in the order of their ids.

    Of a template, or without a name of any: those that the gate holds back for one of these reasons, and those that
    WhatsApp has refused with one of these codes.
    """
    rows = await con.fetch(_WAITING, tenant, sender_ids, name, language, reasons, codes, after, most)
    return [row[0] for row in rows]


async def release_steps(
    con: Connection,
    tenant: str,
    sender_ids: Sequence[UUID],
    name: str | None,
    language: str | None,
    reasons: Sequence[Reason],
) -> None:
    """Have the steps judged again now, of a template or of any, that the gate holds back for one of these reasons."""
    await con.execute(_RELEASE_STEPS, tenant, sender_ids, name, language, reasons)


async def set_quality(
    con: Connection,
    tenant: str,
    sender_id: UUID,
    name: str,
    language: str,
    *,
    quality: str | None = None,
    category: str | None = None,
) -> None:
    """Note a known template's quality or category."""
    lower = [text.lower() if text is not None else None for text in (quality, category)]
    await con.execute(_SET_QUALITY, tenant, sender_id, name, language, *lower)


async def replace(con: Connection, tenant: str, sender_id: UUID, found: Sequence[Found], asked_at: datetime) -> Over:
    """Note what the gateway has for one number: exactly these. None at all says nothing, and what is known stays.

    What was heard of a template after `asked_at`, when the gateway was asked, is newer than its answer. Returns the
    alerts that are over, because their templates are gone.
    """
    names, languages = [one.name for one in found], [one.language for one in found]
    await con.execute(
        _REPLACE,
        tenant,
        sender_id,
        names,
        languages,
        [one.category for one in found],
        [one.status for one in found],
        [one.reason for one in found],
        [one.quality for one in found],
        [one.components for one in found],
        asked_at,
    )
    gone = await con.fetch(_FORGET, tenant, sender_id, names, languages, asked_at) if found else []
    await con.execute(_SYNCED, tenant, sender_id, bool(found))
    return _over(gone)
