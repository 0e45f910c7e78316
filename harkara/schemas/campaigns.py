"""The bodies of the API around campaigns: versions, previews, tests, dry runs and segments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType

from harkara.schemas.api import EnrollMany, FaultShown, Instant, Name, Shown
from harkara.schemas.base import Body
from harkara.schemas.conditions import Condition


class VersionShown(Shown):
    """One state of a campaign's steps, and how those fare who were enrolled in it or moved to it.

    Contacts are enrolled in the `current` one; the `draft` becomes current when the campaign is activated again.
    """

    id: UUID
    number: int
    state: Literal["draft", "current", "earlier"]
    steps: int
    enrolled: int
    active: int
    paused: int
    completed: int
    stopped: int
    failed: int
    frozen_at: datetime | None
    created_at: datetime


class PreviewStep(Body):
    """For whom, and about which open invoice of theirs, as if they had been enrolled with it."""

    contact_id: UUID
    invoice_id: UUID | None = None


class VariableUsed(Shown):
    """A variable of a text: what it is for this contact, and where that comes from.

    `source` is a field of the contact or of the invoice, `default` (the text says what stands there instead) or
    `missing`.
    """

    name: str
    value: Any
    source: str


class Preview(Shown):
    """What a step says to a contact: exactly what would be sent, or why it can't be.

    `text` is what the contact reads: of a template its header, body and footer, if WhatsApp has told them.
    """

    step_id: UUID
    contact_id: UUID
    variant: str | None
    content: dict[str, Any] | None
    text: str | None
    variables: list[VariableUsed]
    faults: list[FaultShown]


class StepTest(Body):
    """A test of a step: to a contact, or to a phone number of one's own (`to`), filled in for `contact_id` if given.

    `variant` names the one to be tested; without it, it is the one that this contact gets. `invoice_id` is an open
    invoice of that contact's, for what the step says of one.
    """

    contact_id: UUID | None = None
    invoice_id: UUID | None = None
    to: Annotated[str, Meta(max_length=64)] | None = None
    variant: Annotated[str, Meta(max_length=32)] | None = None


class NewDryRun(EnrollMany, frozen=True):
    """Whom it would be about (exactly one of these), and when they would be enrolled: now, unless `at` says."""

    at: Instant | None = None


class DryFault(Shown):
    """What is wrong with a text once its variables are filled in: where, what (of one contact), and for how many."""

    path: str
    message: str
    contacts: int


class DryStep(Shown):
    """When a step would leave at the earliest, and to how many; `faults` say to whom it could not be said."""

    step: int
    name: str
    delay_hours: float
    at: datetime
    contacts: int
    faults: list[DryFault]


class DryMessage(Shown):
    """What one contact would get: when, and which variant. A fault says why it could not be sent.

    If it is quiet hours then, it leaves at `deferred_until`.
    """

    step: int
    at: datetime
    variant: str | None
    in_quiet_hours: bool
    deferred_until: datetime | None
    fault: str | None


class DryContact(Shown):
    """What would become of one contact: `reason` says why nothing would."""

    contact_id: UUID
    name: str
    reason: str | None
    messages: list[DryMessage]


class DryRun(Shown):
    """Who would get what when, and who would not, as things stand.

    `blockers` stand in the way of everybody, `warnings` may. `refused` counts the others by reason. A step takes the
    number about `seconds_a_step` at its rate. `items` are contacts in the order of their ids. Texts with variables were
    filled in for `tried` of the enrolled, the first of them if there are more than 10,000.
    """

    campaign_id: UUID
    version: int
    at: datetime
    audience: int
    enrolled: int
    tried: int
    refused: dict[str, int]
    blockers: list[FaultShown]
    warnings: list[FaultShown]
    seconds_a_step: float
    steps: list[DryStep]
    items: list[DryContact]
    next: str | None


class NewSegment(Body):
    """A group of contacts by a condition, which is judged whenever the group is used."""

    name: Name
    condition: Condition


class PatchSegment(Body):
    """What can be changed of a segment."""

    name: Name | UnsetType = UNSET
    condition: Condition | UnsetType = UNSET


class SegmentShown(Shown):
    """A segment."""

    id: UUID
    name: str
    condition: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class SegmentCount(Shown):
    """How many contacts a segment has now, and how many of them may be sent marketing."""

    contacts: int
    reachable: int
