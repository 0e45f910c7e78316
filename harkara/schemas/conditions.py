"""Conditions on a contact: a small tree of typed tests, for segments, goals and exits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType

from harkara.schemas.base import Body
from harkara.schemas.commands import Lane

#: Tests of one tree, and how deep it may be: far more than people write, and little work for the database.
MOST = 50
DEEPEST = 6

Days = Annotated[float, Meta(gt=0, le=3660)]
Instant = Annotated[datetime, Meta(tz=True)]
Value = Annotated[str, Meta(max_length=4096)] | Annotated[int, Meta(ge=-(10**15), le=10**15)] | float | bool
Operator = Literal["eq", "ne", "gt", "ge", "lt", "le", "contains", "exists"]


class AllOf(Body, frozen=True, tag_field="type", tag="all"):
    """Every one of these holds."""

    of: Annotated[list[Condition], Meta(min_length=1, max_length=MOST)]


class AnyOf(Body, frozen=True, tag_field="type", tag="any"):
    """At least one of these holds."""

    of: Annotated[list[Condition], Meta(min_length=1, max_length=MOST)]


class NotOf(Body, frozen=True, tag_field="type", tag="not"):
    """This does not hold."""

    of: Condition


class Tagged(Body, frozen=True, tag_field="type", tag="tag"):
    """The contact has this tag."""

    tag: Annotated[str, Meta(min_length=1, max_length=64)]


class Attribute(Body, frozen=True, tag_field="type", tag="attribute"):
    """What an attribute of the contact is compared with. One that is not there is unequal to everything.

    Numbers are compared as numbers, also if the attribute is a text such as "42"; texts in the order of their letters,
    so that dates like 2026-01-31 compare too. `exists` takes no value.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    op: Operator = "eq"
    value: Value | UnsetType = UNSET


class Field(Body, frozen=True, tag_field="type", tag="field"):
    """The same for what every contact has: its name, phone (`contains` "+91"), locale or time zone."""

    name: Literal["name", "phone", "locale", "timezone"]
    op: Operator = "eq"
    value: Value | UnsetType = UNSET


class Consents(Body, frozen=True, tag_field="type", tag="consent"):
    """The contact has agreed to messages of this category, and has not opted out since."""

    category: Lane = "marketing"


class Created(Body, frozen=True, tag_field="type", tag="created"):
    """The contact was made within the last so many days, or since then, or before then."""

    within_days: Days | None = None
    since: Instant | None = None
    before: Instant | None = None


class Messaged(Body, frozen=True, tag_field="type", tag="message"):
    """A message to the contact came so far: of this campaign, of this step of it (from 0), within the last days."""

    did: Literal["sent", "delivered", "read", "failed"]
    campaign_id: UUID | None = None
    step: Annotated[int, Meta(ge=0, le=200)] | None = None
    within_days: Days | None = None


class Replied(Body, frozen=True, tag_field="type", tag="replied"):
    """The contact wrote to us: in answer to this campaign, or to this step of it, within the last days.

    `not` of it with `within_days` finds who has been silent for so long.
    """

    campaign_id: UUID | None = None
    step: Annotated[int, Meta(ge=0, le=200)] | None = None
    within_days: Days | None = None


class HasLead(Body, frozen=True, tag_field="type", tag="lead"):
    """The contact is a lead: at this stage, with at least this score."""

    stage: Annotated[str, Meta(max_length=16)] | None = None
    min_score: Annotated[int, Meta(ge=0, le=100)] | None = None


class InCampaign(Body, frozen=True, tag_field="type", tag="campaign"):
    """The contact is, or was, enrolled in a campaign; with `status` only if it stands so."""

    campaign_id: UUID
    status: Literal["active", "completed", "stopped", "paused", "failed"] | None = None


Condition = (
    AllOf | AnyOf | NotOf | Tagged | Attribute | Field | Consents | Created | Messaged | Replied | HasLead | InCampaign
)


def faults(condition: Condition) -> list[tuple[str, str]]:
    """What is wrong with a tree beyond its shape: where, and what would be right."""
    found: list[tuple[str, str]] = []
    count = 0
    for path, depth, one in walk(condition):
        count += 1
        if depth == DEEPEST + 1:
            found.append((path, f"is nested too deeply: at most {DEEPEST} levels"))
        found += [(f"{path}.{name}" if path else name, message) for name, message in _faults(one)]
    if count > MOST:
        found.append(("", f"has {count} tests: at most {MOST} are possible"))
    return found


def walk(condition: Condition, path: str = "", depth: int = 1) -> Iterator[tuple[str, int, Condition]]:
    """Every node of a tree with its path and its depth."""
    yield path, depth, condition
    inner = f"{path}.of" if path else "of"
    if isinstance(condition, NotOf):
        yield from walk(condition.of, inner, depth + 1)
    elif isinstance(condition, AllOf | AnyOf):
        for index, one in enumerate(condition.of):
            yield from walk(one, f"{inner}[{index}]", depth + 1)


def _faults(one: Condition) -> Iterator[tuple[str, str]]:
    if isinstance(one, Attribute | Field):
        if (one.op == "exists") != (one.value is UNSET):
            yield "value", "must not be given with exists" if one.op == "exists" else f"is needed with {one.op}"
        if one.op == "contains" and not isinstance(one.value, str):
            yield "value", "must be a text with contains"
    elif isinstance(one, Created):
        if one.within_days is None and one.since is None and one.before is None:
            yield "within_days", "give at least one of within_days, since and before"
        yield from _out_of_range(one)
    elif isinstance(one, Messaged | Replied) and one.step is not None and one.campaign_id is None:
        yield "campaign_id", "is needed with step"


def _out_of_range(one: Created) -> Iterator[tuple[str, str]]:
    for name, at in (("since", one.since), ("before", one.before)):
        try:
            _ = at is None or at.astimezone(UTC)
        except OverflowError:
            yield name, "is out of the calendar's range in UTC"
