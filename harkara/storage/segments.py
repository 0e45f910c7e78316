"""Conditions as SQL: a table of one piece for each kind; what users write comes in as parameters only.

Each piece is about one row of contacts with the alias `k`. Whoever builds the statement names the rows; the pieces find
what belongs to them by the contact's tenant and id, so they cost the same for one contact and for a page of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec

from harkara.schemas import conditions as c
from harkara.storage.opting import OUT_OF

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Who may be sent marketing, as far as consent goes: said once, for enrolling, segments and dry runs.
CONSENTS = "(k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories)))"

#: How far a message must have come, by what is asked.
CAME = {
    "sent": ("sent", "delivered", "read"),
    "delivered": ("delivered", "read"),
    "read": ("read",),
    "failed": ("failed",),
}

COMPARED = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}

#: A text that is a number. What is longer is none that anybody compares.
NUMBER = r"'^-?[0-9]{1,15}(\.[0-9]{1,15})?$'"


class Compiler:
    """Turns conditions into one SQL expression and its parameters, which begin after `taken` others.

    `since` is SQL for an instant: what a contact did counts only from then on.
    """

    def __init__(self, taken: int = 0, *, since: str | None = None) -> None:
        self.values: list[Any] = []
        self._taken, self._since = taken, since

    def compile(self, condition: c.Condition) -> str:
        """A condition as SQL that is true or false, never null."""
        return f"(({_PIECES[type(condition)](self, condition)}) is true)"

    def place(self, value: object, type_: str) -> str:
        """A parameter's place in the statement."""
        self.values.append(value)
        return f"${self._taken + len(self.values)}::{type_}"

    def recent(self, column: str, within_days: float | None) -> str:
        """What limits something to the last days, and to what counts at all."""
        limits = "" if within_days is None else f" and {column} > now() - {self.place(_days(within_days), 'interval')}"
        return limits if self._since is None else f"{limits} and {column} >= {self._since}"


def _days(days: float) -> timedelta:
    return timedelta(days=days)


def _all(to: Compiler, one: c.AllOf) -> str:
    return " and ".join(map(to.compile, one.of))


def _any(to: Compiler, one: c.AnyOf) -> str:
    return " or ".join(map(to.compile, one.of))


def _not(to: Compiler, one: c.NotOf) -> str:
    return f"not {to.compile(one.of)}"


def _tagged(to: Compiler, one: c.Tagged) -> str:
    return f"{to.place(one.tag, 'text')} = any (k.tags)"


def _attribute(to: Compiler, one: c.Attribute) -> str:
    return _compared(to, f"(k.attributes ->> {to.place(one.name, 'text')})", one.op, one.value)


def _field(to: Compiler, one: c.Field) -> str:
    return _compared(to, f"k.{one.name}", one.op, one.value)


def _compared(to: Compiler, text: str, op: str, value: object) -> str:
    """How a text is compared with a value of any kind."""
    if op == "exists":
        return f"coalesce({text}, '') <> ''"
    if op == "contains":
        return f"strpos(lower({text}), lower({to.place(value, 'text')})) > 0"
    if isinstance(value, bool):
        text, right = f"lower({text})", to.place("true" if value else "false", "text")
    elif isinstance(value, int | float):
        text, right = (
            f"(case when {text} ~ {NUMBER} then {text}::numeric end)",
            f"({to.place(value, 'float8')})::numeric",
        )
    else:
        text, right = f'({text} collate "C")', to.place(value, "text")
    if op in COMPARED:
        return f"{text} {COMPARED[op]} {right}"
    return f"{text} is {'not ' if op == 'eq' else ''}distinct from {right}"


def _consents(to: Compiler, one: c.Consents) -> str:
    category = to.place(one.category, "text")
    return (
        f"not {OUT_OF.format(category=category)} and k.opted_in_at is not null"
        f" and (k.consent_categories = '{{}}' or {category} = any (k.consent_categories))"
    )


def _created(to: Compiler, one: c.Created) -> str:
    limits = [
        None if one.within_days is None else f"k.created_at > now() - {to.place(_days(one.within_days), 'interval')}",
        None if one.since is None else f"k.created_at >= {to.place(one.since, 'timestamptz')}",
        None if one.before is None else f"k.created_at < {to.place(one.before, 'timestamptz')}",
    ]
    return " and ".join(limit for limit in limits if limit)


def _messaged(to: Compiler, one: c.Messaged) -> str:
    came = f" and m.status = any ({to.place(list(CAME[one.did]), 'text[]')})"
    which = _of_campaign(to, "m", one.campaign_id, one.step)
    return (
        "exists (select from messages m where m.tenant_id = k.tenant_id and m.contact_id = k.id"
        f"{came}{which}{to.recent('m.due_at', one.within_days)})"
    )


def _replied(to: Compiler, one: c.Replied) -> str:
    """By when it was written down: WhatsApp tells whole seconds, which may lie before what a reply answers."""
    which = _of_campaign(to, "r", one.campaign_id, one.step)
    return (
        "exists (select from replies r where r.tenant_id = k.tenant_id and r.contact_id = k.id"
        f"{which}{to.recent('r.created_at', one.within_days)})"
    )


def _of_campaign(to: Compiler, alias: str, campaign_id: UUID | None, step: int | None) -> str:
    """Campaigns are compared as text, because the index by contact is to serve."""
    which = "" if campaign_id is None else f" and {alias}.campaign_id::text = {to.place(str(campaign_id), 'text')}"
    return which if step is None else f"{which} and {alias}.step = {to.place(step, 'int')}"


def _in_campaign(to: Compiler, one: c.InCampaign) -> str:
    status = "" if one.status is None else f" and e.status = {to.place(one.status, 'text')}"
    return (
        "exists (select from contact_campaign_progress e where e.tenant_id = k.tenant_id and e.contact_id = k.id"
        f" and e.campaign_id = {to.place(one.campaign_id, 'uuid')}{status})"
    )


def _has_lead(to: Compiler, one: c.HasLead) -> str:
    stage = "" if one.stage is None else f" and l.stage = {to.place(one.stage, 'text')}"
    score = "" if one.min_score is None else f" and l.score >= {to.place(one.min_score, 'int')}"
    return f"exists (select from leads l where l.tenant_id = k.tenant_id and l.contact_id = k.id{stage}{score})"


_PIECES: dict[type[Any], Callable[[Compiler, Any], str]] = {
    c.AllOf: _all,
    c.AnyOf: _any,
    c.NotOf: _not,
    c.Tagged: _tagged,
    c.Attribute: _attribute,
    c.Field: _field,
    c.Consents: _consents,
    c.Created: _created,
    c.Messaged: _messaged,
    c.Replied: _replied,
    c.HasLead: _has_lead,
    c.InCampaign: _in_campaign,
}

_decode = msgspec.json.Decoder(c.Condition).decode


def read(condition: str | bytes | object) -> c.Condition:
    """A condition as the database or a message on the bus has it: JSON text, or what that means."""
    if isinstance(condition, str | bytes):
        return cast("c.Condition", _decode(condition))
    return cast("c.Condition", msgspec.convert(condition, c.Condition))


def compiled(condition: c.Condition | None, taken: int) -> tuple[str, list[Any]]:
    """A condition as SQL and its parameters, after `taken` others; without one, everybody is meant."""
    if condition is None:
        return "true", []
    to = Compiler(taken)
    return to.compile(condition), to.values


_CONDITION = "select condition::text from segments where id = $1 and tenant_id || '' = $2"


async def condition_of(con: Connection, tenant: str, segment_id: UUID) -> c.Condition | None:
    """A segment's condition, or None if there is no such segment."""
    found: str | None = await con.fetchval(_CONDITION, segment_id, tenant)
    return None if found is None else read(found)
