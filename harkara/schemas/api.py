"""The bodies of the HTTP API: what users send, and what they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar, dataclass_transform
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from harkara.schemas.base import TENANT, Body
from harkara.schemas.commands import Lane
from harkara.schemas.content import Content, Interactive, Media, Template

T = TypeVar("T")

Name = Annotated[str, Meta(max_length=200)]
Instant = Annotated[datetime, Meta(tz=True)]
Secret = Annotated[str, Meta(min_length=1, max_length=4096)]
Token = Annotated[str, Meta(min_length=1, max_length=64)]
Tag = Annotated[str, Meta(min_length=1, max_length=64)]
Slug = Annotated[str, Meta(pattern=TENANT.pattern.replace("$", r"\Z"))]
Attribute = str | int | float | bool | None
Attributes = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=64)], Attribute], Meta(max_length=100)]
Tags = Annotated[list[Tag], Meta(max_length=100)]
DelayHours = Annotated[float, Meta(ge=0, le=8784)]
Provider = Literal["cloud", "evolution", "waha", "sandbox"]
Window = Literal["enforce", "ignore"]
Mps = Annotated[int, Meta(ge=1, le=10_000)]
MessageStatus = Literal["queued", "sending", "unknown", "sent", "delivered", "read", "failed", "suppressed"]
EnrollmentStatus = Literal["active", "completed", "stopped", "paused", "failed"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Shown(Struct, frozen=True, kw_only=True):
    """What users are shown: every field is there, even if it is null."""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list; `next` is the cursor of the one after it, null on the last."""

    items: list[T]
    next: str | None


class Paging(Body):
    """How much of a list, and from where."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: Annotated[str, Meta(max_length=64)] | None = None


class Accepted(Shown):
    """The bus has stored a command; `id` is the id of what it makes."""

    id: UUID
    status: Literal["accepted"] = "accepted"


class Outcome(Shown):
    """What became of a command, for whoever preferred to wait: the event that tells it."""

    id: UUID
    status: str
    type: str
    at: str
    data: dict[str, Any]


# Accounts


class NewTenant(Body):
    """A tenant's id is a slug, fixed for life."""

    id: Slug
    name: Name


class SignUp(Body):
    """A new tenant and its owner."""

    tenant: NewTenant
    email: Annotated[str, Meta(max_length=320)]
    password: Annotated[str, Meta(min_length=8, max_length=1024)]


class LogIn(Body):
    """An account's email and password."""

    email: Annotated[str, Meta(max_length=320)]
    password: Annotated[str, Meta(max_length=1024)]


class Refresh(Body):
    """The refresh token of the pair that is to be replaced, or ended."""

    refresh_token: Annotated[str, Meta(max_length=4096)]


class TenantName(Shown):
    """A tenant in short."""

    id: str
    name: str


class MemberOf(TenantName):
    """A tenant and one's role in it."""

    role: str


class TokenPair(Shown):
    """Tokens of a person; `expires_in` seconds for the access token. `tenant` is null for members of several."""

    access_token: str
    refresh_token: str
    expires_in: int
    tenant: TenantName | None
    tenants: list[MemberOf]
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token, not one


class Person(Shown):
    """A person who can log in."""

    id: UUID
    email: str
    name: str


class Me(Shown):
    """Who is asking: a person or an API key."""

    user: Person | None
    api_key_id: UUID | None
    tenant: TenantName | None
    role: str | None
    scopes: list[str]
    tenants: list[MemberOf]


class TenantShown(Shown):
    """A tenant's settings."""

    id: str
    name: str
    plan: str
    timezone: str
    default_region: str | None
    created_at: datetime
    updated_at: datetime


class PatchTenant(Body):
    """`default_region` is the country (two letters) of phone numbers that don't begin with +."""

    name: Name | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    default_region: str | UnsetType | None = UNSET


class NewApiKey(Body):
    """A key for machines; without scopes it may do all that its maker may."""

    name: Name = ""
    scopes: list[str] | None = None
    expires_at: Instant | None = None


class ApiKeyShown(Shown):
    """A key, without the key."""

    id: UUID
    name: str
    hint: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class ApiKeyMade(ApiKeyShown):
    """A new key: the one time that it is shown."""

    key: str


# Senders


class NewSender(Body):
    """A WhatsApp business number. A sandbox sender needs no more than a name."""

    name: Name
    provider: Provider
    phone: str | None = None
    phone_number_id: Token | None = None
    waba_id: Token | None = None
    access_token: Secret | None = None
    app_secret: Secret | None = None
    verify_token: Token | None = None
    mps: Mps = 80
    window: Window | None = None


class PatchSender(Body):
    """What can be changed of a sender; its provider and phone_number_id can't."""

    name: Name | UnsetType = UNSET
    phone: str | UnsetType | None = UNSET
    waba_id: Token | UnsetType | None = UNSET
    access_token: Secret | UnsetType = UNSET
    app_secret: Secret | UnsetType = UNSET
    verify_token: Token | UnsetType = UNSET
    mps: Mps | UnsetType = UNSET
    window: Window | UnsetType = UNSET
    status: Literal["active", "paused"] | UnsetType = UNSET


class SenderShown(Shown):
    """A sender, without its secrets."""

    id: UUID
    name: str
    provider: str
    phone: str | None
    phone_number_id: str
    waba_id: str | None
    mps: int
    window: str
    status: str
    status_reason: str | None
    created_at: datetime
    updated_at: datetime


class SenderMade(SenderShown):
    """A new sender, with what the other side has to be told: once."""

    webhook_url: str
    verify_token: str


# Contacts


class Consent(Body):
    """When and where a contact agreed to hear from us; no categories means all of them."""

    source: Annotated[str, Meta(min_length=1, max_length=200)]
    at: Instant | None = None
    categories: list[Lane] = msgspec.field(default_factory=list[Lane])


class ConsentShown(Shown):
    """A contact's consent."""

    source: str | None
    at: datetime
    categories: list[str]


class NewContact(Body):
    """A person to write to. `consent` is `true`, or where and when it was given."""

    name: Name
    phone: str
    locale: str | None = None
    timezone: str | None = None
    attributes: Attributes = msgspec.field(default_factory=dict[str, Attribute])
    tags: Tags = msgspec.field(default_factory=list[str])
    consent: bool | Consent | None = None


class PatchContact(Body):
    """`attributes` and `tags` replace what was there. `consent: null` withdraws it."""

    name: Name | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    locale: str | UnsetType | None = UNSET
    timezone: str | UnsetType | None = UNSET
    attributes: Attributes | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    consent: bool | Consent | UnsetType | None = UNSET


class ContactShown(Shown):
    """A contact."""

    id: UUID
    name: str
    phone: str | None
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]
    tags: list[str]
    consent: ConsentShown | None
    opted_out_at: datetime | None
    opted_out_reason: str | None
    created_at: datetime
    updated_at: datetime


class ContactQuery(Paging):
    """Contacts with a tag, with a phone number, or whose name begins with `q`."""

    tag: str | None = None
    phone: str | None = None
    q: Annotated[str, Meta(max_length=200)] | None = None


class NewPhoneNumber(Body):
    """A further number of a contact."""

    phone: str
    label: Name = ""


class PhoneNumberShown(Shown):
    """A further number of a contact."""

    id: UUID
    contact_id: UUID
    phone: str
    label: str
    created_at: datetime


class RowError(Shown):
    """What is wrong with one row of a file; the header is row 1."""

    row: int
    path: str
    message: str


class Imported(Shown):
    """What an import did: every row is in one of these four.

    `duplicates` repeat a number of an earlier row and are left out. At most 1,000 errors are listed.
    """

    created: int
    updated: int
    duplicates: int
    errors: list[RowError]
    errors_left_out: int = 0


# Campaigns


class QuietHours(Body):
    """From when to when nothing is sent, in the contact's own time zone, else in the tenant's."""

    start: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
    end: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]


class NewCampaign(Body):
    """A campaign begins as a draft; its steps come next."""

    name: Name
    sender_id: UUID
    type: Literal["drip", "broadcast"] = "drip"
    stop_on_reply: bool = True
    quiet_hours: QuietHours | None = None


class PatchCampaign(Body):
    """The sender and the type can change only while the campaign is a draft."""

    name: Name | UnsetType = UNSET
    sender_id: UUID | UnsetType = UNSET
    type: Literal["drip", "broadcast"] | UnsetType = UNSET
    stop_on_reply: bool | UnsetType = UNSET
    quiet_hours: QuietHours | UnsetType | None = UNSET


class CampaignShown(Shown):
    """A campaign: draft, active, paused or archived."""

    id: UUID
    name: str
    type: str
    status: str
    sender_id: UUID
    stop_on_reply: bool
    quiet_hours: dict[str, str] | None
    activated_at: datetime | None
    created_at: datetime
    updated_at: datetime


class NewStep(Content, kw_only=True):
    """One message of a campaign, `delay_hours` after the enrolment."""

    delay_hours: DelayHours
    name: Name = ""


class PatchStep(Body):
    """Any of body, template, media and interactive replaces what the step says."""

    name: Name | UnsetType = UNSET
    delay_hours: DelayHours | UnsetType = UNSET
    body: str | UnsetType = UNSET
    template: Template | UnsetType = UNSET
    media: Media | UnsetType = UNSET
    interactive: Interactive | UnsetType = UNSET


class StepShown(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step; `position` counts from 0 in the order of the delays."""

    id: UUID
    campaign_id: UUID
    position: int
    name: str
    delay_hours: float
    body: str | UnsetType = UNSET
    template: dict[str, Any] | UnsetType = UNSET
    media: dict[str, Any] | UnsetType = UNSET
    interactive: dict[str, Any] | UnsetType = UNSET


class FunnelStep(Shown):
    """How far the messages of one step have come. Read ones were delivered, delivered ones sent: each counts in all."""

    step: int
    name: str
    delay_hours: float
    due: int
    queued: int
    sending: int
    sent: int
    delivered: int
    read: int
    failed: int
    suppressed: int
    unknown: int


class Funnel(Shown):
    """How far a campaign has come. `due` steps should have left by now."""

    campaign_id: UUID
    enrolled: int
    active: int
    completed: int
    stopped: int
    failed: int
    paused: int
    steps: list[FunnelStep]


class EnrollmentQuery(Paging):
    """Enrolments of one contact, or of one status."""

    contact_id: UUID | None = None
    status: EnrollmentStatus | None = None


class EnrollmentShown(Shown):
    """Where a contact stands in a campaign."""

    id: UUID
    campaign_id: UUID
    contact_id: UUID
    status: str
    stopped_reason: str | None
    current_step: int
    messages_sent: int
    started_at: datetime
    next_step_scheduled_at: datetime | None
    last_step_at: datetime | None
    finished_at: datetime | None


class EnrollMany(Body):
    """Exactly one of: these contacts, those with a tag, or all."""

    contact_ids: Annotated[list[UUID], Meta(min_length=1, max_length=10_000)] | None = None
    tag: Tag | None = None
    all: bool = False


class BulkAccepted(Accepted, kw_only=True):
    """`count` contacts can be enrolled as things stand; each is judged again when its turn comes."""

    count: int


# Messages


class NewMessage(Content, kw_only=True):
    """One message, to a contact or to a phone number; to a number that is no contact's, it makes none.

    A tenant with one sender need not name it. With `send_at` it leaves then, at most 30 days from now.
    """

    sender_id: UUID | None = None
    contact_id: UUID | None = None
    to: str | None = None
    lane: Lane = "utility"
    send_at: Instant | None = None


class MessageQuery(Paging):
    """Messages by what they are and what became of them; `since` and `until` are about when they were due.

    `reason` is a code such as `opted_out`. A page may hold fewer than `limit` although `next` is there: read on.
    """

    status: MessageStatus | None = None
    campaign_id: UUID | None = None
    contact_id: UUID | None = None
    sender_id: UUID | None = None
    lane: Lane | None = None
    to: Annotated[str, Meta(max_length=64)] | None = None
    reason: Annotated[str, Meta(max_length=200)] | None = None
    error_code: int | None = None
    since: Instant | None = None
    until: Instant | None = None


class MessageShown(Shown):
    """A message and where it is. `reason` says why it was not sent, or not delivered."""

    id: UUID
    status: str
    reason: str | None
    error_code: int | None
    lane: str
    to: str
    contact_id: UUID | None
    sender_id: UUID
    campaign_id: UUID | None
    enrollment_id: UUID | None
    step: int | None
    content: dict[str, Any]
    wamid: str | None
    attempts: int
    cause: str
    due_at: datetime
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None


class Moment(Shown):
    """One thing that happened to a message."""

    at: datetime
    status: str


class Why(Shown):
    """Why a message was not sent, or not yet, or not delivered: a code, in words, and what can be done."""

    code: str
    text: str
    todo: str


class MessageStory(MessageShown):
    """A message with all that happened to it, in order, and why it went no further, if so."""

    timeline: list[Moment]
    why: Why | None


class AcceptedStory(Shown):
    """A message that was accepted a moment ago and has no row yet."""

    id: UUID
    status: Literal["accepted"]
    timeline: list[Moment]


# Conversations


class ConversationShown(Shown):
    """What one contact and one number say to each other."""

    id: UUID
    contact_id: UUID
    contact_name: str
    contact_phone: str | None
    sender_id: UUID
    status: str
    last_inbound_at: datetime | None
    created_at: datetime


class ReplyQuery(Paging):
    """Replies of one contact."""

    contact_id: UUID | None = None


class ReplyShown(Shown):
    """One message from a contact."""

    id: UUID
    conversation_id: UUID
    contact_id: UUID
    sender_id: UUID
    type: str
    text: str | None
    payload: Any
    received_at: datetime


class Said(Shown):
    """One line of a conversation; `direction` is `in` from the contact, `out` from us."""

    id: UUID
    direction: Literal["in", "out"]
    at: datetime
    type: str
    text: str | None
    content: Any
    status: str | None
