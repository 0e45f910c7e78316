"""The bodies of the HTTP API: what users send, and what they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar, dataclass_transform
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from harkara.schemas.audience import Audience
from harkara.schemas.base import TENANT, Body
from harkara.schemas.commands import DeliveryPolicy, Lane
from harkara.schemas.conditions import Condition
from harkara.schemas.content import Content, Interactive, Media, Template
from harkara.schemas.keywords import Category, Keywords
from harkara.schemas.reasons import HELD_BACK, POLICY, Reason
from harkara.schemas.variants import Variant

T = TypeVar("T")

Name = Annotated[str, Meta(max_length=200)]
Instant = Annotated[datetime, Meta(tz=True)]
Tag = Annotated[str, Meta(min_length=1, max_length=64)]
Slug = Annotated[
    str,
    Meta(
        pattern=TENANT.pattern.replace("$", r"\Z"),
        extra={"words": "3 to 32 lower-case letters, digits and hyphens, from a letter to a letter or digit"},
    ),
]
TimeOfDay = Annotated[
    str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", extra={"words": "a time of day such as 21:00"})
]
Attribute = Annotated[str, Meta(max_length=4096)] | int | float | bool | None
Attributes = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=64)], Attribute], Meta(max_length=100)]
Tags = Annotated[list[Tag], Meta(max_length=100)]
DelayHours = Annotated[float, Meta(ge=0, le=8784)]
RoleName = Literal["viewer", "agent", "admin", "owner"]
NewPassword = Annotated[str, Meta(min_length=8, max_length=1024)]
Provider = Literal["cloud", "evolution", "waha", "sandbox"]
Window = Literal["enforce", "ignore"]
SessionState = Literal["unknown", "starting", "scan_qr", "working", "stopped", "failed"]
Mps = Annotated[
    int, Meta(ge=1, le=10_000, description="How many messages a second it sends at most: what WhatsApp grants it.")
]
DailyLimit = Annotated[
    int,
    Meta(
        ge=1,
        le=100_000,
        description="How many people it may write to first in 24 hours, with all senders of its portfolio. Only"
        " templates count, so it does nothing for a sender of Evolution API or WAHA.",
    ),
]
PhoneNumberId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="What its gateway calls it: Meta's phone number ID, an instance, or a session's name.",
    ),
]
WabaId = Annotated[
    str,
    Meta(min_length=1, max_length=64, description="Its WhatsApp Business account: templates are read from there."),
]
AccessToken = Annotated[
    str,
    Meta(
        min_length=1, max_length=4096, description="With what its gateway is called: a system user's token, an API key."
    ),
]
AppSecret = Annotated[
    str, Meta(min_length=1, max_length=4096, description="By which its gateway's webhooks are known to be its own.")
]
VerifyToken = Annotated[
    str,
    Meta(min_length=1, max_length=64, description="What Meta shows when the webhook is set up; made up if not given."),
]
PortfolioId = Annotated[
    str, Meta(min_length=1, max_length=64, description="Senders with the same one share `daily_limit`.")
]
MessageStatus = Literal["queued", "sending", "unknown", "sent", "delivered", "read", "failed", "suppressed"]
ConversationStatus = Literal["open", "closed"]
EnrollmentStatus = Literal["active", "completed", "stopped", "paused", "failed"]
SenderStatus = Literal["active", "paused", "blocked"]
ImportStatus = Literal["receiving", "queued", "running", "completed", "cancelled"]
MediaStatus = Literal["waiting", "stored", "failed"]
CampaignType = Literal["drip", "broadcast"]
CampaignStatus = Literal["draft", "active", "paused", "archived"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Shown(Struct, frozen=True, kw_only=True):
    """What users are shown: every field is there, even if it is null."""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list; `next` is the cursor of the one after it, null on the last."""

    items: list[T]
    next: str | None


Limit = Annotated[int, Meta(ge=1, le=200)]
Cursor = Annotated[str, Meta(max_length=64)]


class Paging(Body):
    """How much of a list, and from where."""

    limit: Limit = 50
    cursor: Cursor | None = None


SearchText = Annotated[str, Meta(max_length=200)]
Slight = Annotated[str, Meta(min_length=1, max_length=64)]


class Dated(Paging):
    """Of what was made from `since` on, and before `until`."""

    since: Instant | None = None
    until: Instant | None = None


class DeadLetterQuery(Paging):
    """Which dead letters: those of one actor."""

    actor: Annotated[str, Meta(pattern="^[a-z]{1,32}$", extra={"words": "an actor's name, such as sender"})] | None = (
        None
    )


class DeadLetterShown(Shown):
    """Work that was given up, by which actor, when and why; `body` is what it was told, without codes.

    One that is no JSON is null: `body_base64` is its bytes then, `body_begins` how it begins, with dots for what is no
    letter. `subject` is where it was first published, `cause` the request or webhook that set it off.
    """

    id: UUID
    at: datetime
    actor: str
    reason: str
    attempts: int
    subject: str
    message_id: str
    cause: str
    body: Any
    body_base64: str | None
    body_begins: str | None


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


class FaultShown(Shown):
    """One thing that is wrong with a body or a query: where (`steps[1].body`), and what."""

    path: str
    message: str


class ProblemDocument(Shown):
    """What went wrong (RFC 9457): `detail` says what to do, `errors` names every fault of what was sent.

    It may have further members, such as the id of what is in the way.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[FaultShown] | UnsetType = UNSET


# Accounts


class NewTenant(Body):
    """A tenant's id is a slug, fixed for life."""

    id: Slug
    name: Name


class SignUp(Body):
    """A new tenant and its owner."""

    tenant: NewTenant
    email: Annotated[str, Meta(max_length=320)]
    password: NewPassword


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

    role: RoleName


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
    role: RoleName | None
    scopes: list[str]
    tenants: list[MemberOf]


class PatchMe(Body):
    """What people change of their own account; another `password` needs the `current_password`."""

    name: Name | UnsetType = UNSET
    password: NewPassword | UnsetType = UNSET
    current_password: Annotated[str, Meta(max_length=1024)] | UnsetType = UNSET


class NewMember(Body):
    """A person who is to belong to this tenant. The password counts only if they have no account yet."""

    email: Annotated[str, Meta(max_length=320)]
    role: RoleName
    name: Name = ""
    password: NewPassword | None = None


class PatchMember(Body):
    """What a tenant decides about its people: `name` is what it calls them."""

    name: Name | UnsetType = UNSET
    role: RoleName | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class MemberQuery(Paging):
    """People by their role, and whether they are active; `q` is a part of their name or address."""

    role: RoleName | None = None
    is_active: bool | None = None
    q: SearchText | None = None


class MemberShown(Shown):
    """Somebody who belongs to this tenant; `accepted_at` is when they first came, null before that."""

    id: UUID
    email: str
    name: str
    role: RoleName
    is_active: bool
    accepted_at: datetime | None
    created_at: datetime
    updated_at: datetime


class MemberMade(MemberShown):
    """A new member. `password` was made up because none was given: shown once, and good only for a new account."""

    password: str | None


class QuietHours(Body):
    """From when to when no marketing is sent, by the contact's own clock; what is due then leaves at `end`.

    That is the contact's `timezone`, else that of its phone number if such numbers have only one, else the tenant's.
    Over midnight if `end` is the earlier; never if both are the same. Codes and other utility messages leave anyway.
    """

    start: TimeOfDay
    end: TimeOfDay


class FrequencyCap(Body):
    """At most `max` marketing messages to one contact within any `per_hours` hours, over all campaigns and numbers."""

    max: Annotated[int, Meta(ge=1, le=1000)]
    per_hours: Annotated[float, Meta(gt=0, le=720)]


FrequencyCaps = Annotated[list[FrequencyCap], Meta(max_length=5)]


class TenantShown(Shown):
    """A tenant's settings.

    `quiet_hours` hold for campaigns that have none of their own, and for all other marketing.
    """

    id: str
    name: str
    plan: str
    timezone: str
    default_region: str | None
    keywords: Keywords
    quiet_hours: dict[str, str] | None
    frequency_caps: list[dict[str, float]] | None
    created_at: datetime
    updated_at: datetime


class PatchTenant(Body):
    """`default_region` is the country (two letters) of phone numbers that don't begin with + or 00.

    Such a number must be one that there is in that country; its own code may stand before it, as a spreadsheet leaves
    it that drops the +. Which of two numbers that there are is meant: the mobile one.
    `keywords` replaces the tenant's own words by which contacts opt out and in. `quiet_hours` hold for campaigns that
    have none of their own and for all other marketing, `frequency_caps` for all marketing; null is none.
    """

    name: Name | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    default_region: str | UnsetType | None = UNSET
    keywords: Keywords | UnsetType = UNSET
    quiet_hours: QuietHours | UnsetType | None = UNSET
    frequency_caps: FrequencyCaps | UnsetType | None = UNSET


class NewApiKey(Body):
    """A key for machines; without scopes it may do all that its maker may.

    A scope is `<area>:read`, or `<area>:write`, which may read the same things too: `messages:write` sends and sees all
    messages with their texts and numbers. The areas are tenant, senders, contacts, campaigns, messages, conversations,
    invoices, feed and audit; `*` is everything.
    """

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
    """A WhatsApp business number. A sandbox sender needs no more than a name.

    One of the Cloud API (`provider` `cloud`) needs `phone_number_id`, `access_token` and `app_secret`, and should have
    its `waba_id`; one of Evolution API or WAHA `phone_number_id` and `access_token`.
    `pair_limit` keeps WhatsApp's rule of a message every six seconds to one phone, `window` `enforce` that outside 24
    hours after a contact has written only templates leave; null is by provider: only the Cloud API has these rules.
    `phone` is the number itself, for people to see.
    """

    name: Name
    provider: Provider
    phone: str | None = None
    phone_number_id: PhoneNumberId | None = None
    waba_id: WabaId | None = None
    access_token: AccessToken | None = None
    app_secret: AppSecret | None = None
    verify_token: VerifyToken | None = None
    mps: Mps = 80
    daily_limit: DailyLimit | None = None
    portfolio_id: PortfolioId | None = None
    pair_limit: bool | None = None
    window: Window | None = None


class PatchSender(Body):
    """What can be changed of a sender; its provider and phone_number_id can't. The fields are NewSender's."""

    name: Name | UnsetType = UNSET
    phone: str | UnsetType | None = UNSET
    waba_id: WabaId | UnsetType | None = UNSET
    access_token: AccessToken | UnsetType = UNSET
    app_secret: AppSecret | UnsetType = UNSET
    verify_token: VerifyToken | UnsetType = UNSET
    mps: Mps | UnsetType = UNSET
    daily_limit: DailyLimit | UnsetType | None = UNSET
    portfolio_id: PortfolioId | UnsetType | None = UNSET
    pair_limit: bool | UnsetType | None = UNSET
    window: Window | UnsetType = UNSET
    status: Literal["active", "paused"] | UnsetType = UNSET


class SessionShown(Shown):
    """How the phone of a sender is linked: while it is not `working` or `starting`, the sender's messages wait.

    `qr_url` is what the phone scans, while there is something to scan.
    """

    state: SessionState
    detail: str | None
    at: datetime | None
    qr_url: str | None


class StatsQuery(Body):
    """How many hours to look back."""

    hours: Annotated[int, Meta(ge=1, le=24 * 31)] = 24


class Percentiles(Shown):
    """How many seconds half of `count` messages took at most, and 95 and 99 of 100."""

    count: int
    p50_s: float
    p95_s: float
    p99_s: float


class SenderStats(Shown):
    """How long a sender's messages took: from being due until WhatsApp took them, until delivered, until read.

    A stage that no message has reached is null.
    """

    hours: int
    messages: int
    since: datetime | None
    sent: Percentiles | None
    delivered: Percentiles | None
    read: Percentiles | None


class QrQuery(Body):
    """How to get what the phone scans: an image (PNG), or the text that it holds."""

    format: Literal["image", "code"] = "image"


class SenderQuery(Paging):
    """Senders by how they stand and of a provider; `q` is a part of their name, in capitals or small letters."""

    status: SenderStatus | None = None
    provider: Provider | None = None
    q: SearchText | None = None


class SenderShown(Shown):
    """A sender, without its secrets.

    `daily_limit` is how many people it may write to first in 24 hours, together with all senders of the same portfolio
    (`portfolio_id`, else `waba_id`); null is the smallest that one of those has, else no limit. As WhatsApp's own limit
    it counts templates, which alone may begin a talk there: a text counts for nothing, also not where `window` is
    `ignore`, so it does nothing for a sender of Evolution API or WAHA. `pair_limit` is
    WhatsApp's rule of a message every six seconds to one phone; null is by provider: only the Cloud API has it.
    `paused` or `blocked`, it sends nothing until it is resumed; `held_until` a time, it goes on by itself then. `why`
    says what stopped it and what to do, the others since when and by which error. `session` is for gateways that lend a
    phone's account. `webhook_url` is where its gateway is to report to: the deployment's `PUBLIC_URL` and its path.
    """

    id: UUID
    name: str
    provider: Provider
    phone: str | None
    phone_number_id: str
    waba_id: str | None
    mps: int
    daily_limit: int | None
    portfolio_id: str | None
    pair_limit: bool | None
    window: Window
    status: SenderStatus
    status_reason: str | None
    status_since: datetime | None
    held_until: datetime | None
    error_code: int | None
    why: Why | None
    session: SessionShown | None
    webhook_url: str
    created_at: datetime
    updated_at: datetime


class TemplateQuery(Paging):
    """Templates by WhatsApp's words for their status and category, of a language; `q` is a part of their name."""

    status: Slight | None = None
    category: Slight | None = None
    language: Slight | None = None
    q: SearchText | None = None


class TemplateShown(Shown):
    """A message template as WhatsApp has it; `category`, `status` and `quality` are its own words, in lower case.

    The `category` is empty until the account was asked for it, and `unknown` if it did not say.
    """

    id: UUID
    sender_id: UUID
    name: str
    language: str
    category: str
    status: str
    reason: str | None
    quality: str | None
    components: list[dict[str, Any]]
    created_at: datetime
    updated_at: datetime


class SenderMade(SenderShown):
    """A new sender, with what the other side has to be told: once."""

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
    categories: list[Lane]


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
    """`attributes` and `tags` replace what was there. `consent: null` withdraws it, `opted_out: true` ends it for good.

    `opt_outs` sets or clears them one by one: `{"marketing": true, "utility": false}`; `all` is everything. A later
    consent that says where it comes from undoes an opt-out of everything, and those of the categories it is for.
    """

    name: Name | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    locale: str | UnsetType | None = UNSET
    timezone: str | UnsetType | None = UNSET
    attributes: Attributes | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    consent: bool | Consent | UnsetType | None = UNSET
    opted_out: Literal[True] | UnsetType = UNSET
    opt_outs: dict[Category, bool] | UnsetType = UNSET


class OptOut(Shown):
    """What a contact has opted out of: everything (`all`), or one category; when, and how they said so.

    `source` is `remembered` if a contact that had its number before had opted out of it.
    """

    category: Category
    at: datetime
    source: str


class ContactShown(Shown):
    """A contact. Who has a WhatsApp username may have no `phone`, but a `wa_user_id` of theirs for this business.

    Until `marketing_rests_until` WhatsApp gives it no marketing, and none is sent.
    """

    id: UUID
    name: str
    phone: str | None
    wa_user_id: str | None
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]
    tags: list[str]
    consent: ConsentShown | None
    opted_out_at: datetime | None
    opted_out_reason: str | None
    opt_outs: list[OptOut]
    marketing_rests_until: datetime | None
    created_at: datetime
    updated_at: datetime


class ContactFilter(Body):
    """Contacts that have all that is asked for.

    `tag` and `attribute` (`city:Pune`) may be repeated. `phone` is one of their numbers, in any spelling. Each word of
    `q` begins a word of the name, with or without its accents, or `q` is the beginning or the end of a number.
    `consent` and `opted_out` are how things stand; `since` and `until` are about when they were made.
    """

    tag: list[Tag] = msgspec.field(default_factory=list[str])
    attribute: list[Annotated[str, Meta(max_length=4200)]] = msgspec.field(default_factory=list[str])
    phone: Annotated[str, Meta(max_length=64)] | None = None
    q: Annotated[str, Meta(max_length=200)] | None = None
    consent: bool | None = None
    opted_out: bool | None = None
    since: Instant | None = None
    until: Instant | None = None


class ContactQuery(ContactFilter):
    """A page of contacts. It may hold fewer than `limit` although `next` is there: read on."""

    limit: Limit = 50
    cursor: Cursor | None = None


class SegmentQuery(Paging):
    """Segments; `q` is a part of their name, in capitals or small letters."""

    q: SearchText | None = None


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


class PatchPhoneNumber(Body):
    """`primary: true` makes it the one we write to; the one that was becomes a further number in its place."""

    label: Name | UnsetType = UNSET
    primary: Literal[True] | UnsetType = UNSET


class RowError(Shown):
    """What is wrong with one row of a file; the header is row 1."""

    row: int
    path: str
    message: str


class ImportAccepted(Accepted, kw_only=True):
    """A large file is taken: how it is read, and what to look at."""

    encoding: str
    delimiter: str
    hints: list[str] = []


class Imported(Shown):
    """What an import did, and how the file was read: every row is in one of the first four.

    `duplicates` repeat a number of an earlier row and are left out. At most 1,000 errors are listed. Of those created
    and updated, `opted_out` stay opted out of all or of marketing though the file doesn't say so: an opt-out outlives
    its contact, and no `consent` of a file takes it back. `hints` say what to look at though nothing is wrong: an
    encoding that was guessed, and how texts name the columns that became attributes.
    """

    created: int
    updated: int
    duplicates: int
    opted_out: int
    errors: list[RowError]
    encoding: str
    delimiter: str
    errors_left_out: int = 0
    hints: list[str] = []


class ImportQuery(Body):
    """How to read a file, where that can't be seen from it: all of this may be fields of a form too.

    `map.phone=Handy` says which column holds what, by its title. `preview` shows how the file would be read, and stores
    nothing.
    """

    preview: bool = False
    encoding: Annotated[str, Meta(max_length=32)] | None = None
    delimiter: Literal[",", ";", "\t", "|", "tab"] | None = None
    map_name: Name | None = msgspec.field(default=None, name="map.name")
    map_phone: Name | None = msgspec.field(default=None, name="map.phone")
    map_consent: Name | None = msgspec.field(default=None, name="map.consent")
    map_opted_out: Name | None = msgspec.field(default=None, name="map.opted_out")
    map_locale: Name | None = msgspec.field(default=None, name="map.locale")
    map_timezone: Name | None = msgspec.field(default=None, name="map.timezone")
    map_tags: Name | None = msgspec.field(default=None, name="map.tags")


class ImportColumn(Shown):
    """A column of a file: its title, and what it is taken for: a field, `attributes.…`, or nothing."""

    title: str
    target: str
    type: Literal["string", "number", "boolean", "date"]


class ImportRow(Shown):
    """A row of a file as the contact that it would become; `withdraws_consent`: its `consent` is an outright no."""

    row: int
    name: str
    phone: str
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]
    tags: list[str]
    consent_at: datetime | None
    consent_source: str | None
    consent_categories: list[Lane]
    withdraws_consent: bool
    opted_out_at: datetime | None


class ImportPreview(Shown):
    """How a file would be read: the first rows, and what is wrong in those. `known` of them are contacts already.

    `opted_out` of them stay opted out, though the file doesn't say so. `hints` say what else to look at.
    """

    encoding: str
    delimiter: str
    columns: list[ImportColumn]
    rows: list[ImportRow]
    errors: list[RowError]
    duplicates: int
    known: int
    opted_out: int
    hints: list[str] = []


class ImportsQuery(Dated):
    """Imports by how far they have come; `since` and `until` are about when they were made."""

    status: ImportStatus | None = None


class ImportShown(Shown):
    """An import of a large file and how far it has come; `errors` counts what `GET …/errors` lists.

    `hints` say what to look at though nothing is wrong, as the answer to the file did.
    """

    id: UUID
    status: ImportStatus
    filename: str | None
    encoding: str
    delimiter: str
    columns: list[ImportColumn]
    rows: int
    rows_done: int
    created: int
    updated: int
    duplicates: int
    opted_out: int
    errors: int
    created_at: datetime
    finished_at: datetime | None
    hints: list[str] = []


class MergeContact(Body):
    """The contact that becomes part of the one in the path, and is no more then."""

    contact_id: UUID


class ContactDeletion(Body):
    """`erase: true` erases for good, everywhere; without it, messages that were sent stay."""

    erase: bool = False


class ContactHeld(Shown):
    """Everything that is held about a contact: the rows of every table, as they are, newest first.

    Tables that are added later are sections of their own.
    """

    contact: ContactShown
    phone_numbers: list[dict[str, Any]]
    leads: list[dict[str, Any]]
    lead_changes: list[dict[str, Any]]
    enrollments: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    conversations: list[dict[str, Any]]
    replies: list[dict[str, Any]]
    invoices: list[dict[str, Any]]
    merged: list[dict[str, Any]]
    audit: list[dict[str, Any]]


class ExportQuery(ContactFilter):
    """The same filters as of the list. `bom` is the mark by which Excel knows UTF-8."""

    format: Literal["csv", "jsonl"] = "csv"
    bom: bool = False


# Leads


LeadStage = Literal["new", "contacted", "qualified", "proposal", "won", "lost"]
LeadScore = Annotated[int, Meta(ge=0, le=100)]
LeadSource = Annotated[str, Meta(max_length=200)]


class NewLead(Body):
    """What may become of a contact: how far it has come, how promising it is, and where it comes from."""

    contact_id: UUID
    stage: LeadStage = "new"
    score: LeadScore = 0
    source: LeadSource | None = None


class PatchLead(Body):
    """What can be changed of a lead; whose it is can't."""

    stage: LeadStage | UnsetType = UNSET
    score: LeadScore | UnsetType = UNSET
    source: LeadSource | UnsetType | None = UNSET


class LeadQuery(Dated):
    """Leads of a contact, of a stage or a source, and of at least a score.

    `since` and `until` are about when they were made.
    A page may hold fewer than `limit` although `next` is there: read on.
    """

    contact_id: UUID | None = None
    stage: LeadStage | None = None
    min_score: LeadScore | None = None
    source: LeadSource | None = None


class LeadShown(Shown):
    """A lead."""

    id: UUID
    contact_id: UUID
    stage: LeadStage
    score: int
    source: str | None
    created_at: datetime
    updated_at: datetime


class LeadChanges(Shown):
    """What was changed of a lead: only the fields that changed; `before` is null for its beginning."""

    before: dict[str, Any] | None
    after: dict[str, Any]


class LeadChangeShown(Shown):
    """Who changed a lead, and how: a user or an API key."""

    id: UUID
    at: datetime
    user_id: UUID | None
    api_key_id: UUID | None
    changes: LeadChanges


# Invoices


InvoiceNumber = Annotated[str, Meta(min_length=1, max_length=64)]
Amount = Annotated[int, Meta(ge=1, le=10**15, description="In minor units of the currency: 123450 is INR 1,234.50.")]
Currency = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z]{3}\Z",
        description="A code of ISO 4217, such as INR.",
        extra={"words": "a currency's code of three capital letters, such as INR"},
    ),
]
ExternalId = Annotated[str, Meta(max_length=200)]
InvoiceStatus = Literal["open", "paid", "void"]


class NewInvoice(Body):
    """What a contact owes, and by when. No two have the same number; `external_id` is another system's id.

    A text's `invoice.due_date` is the day of `due_at` by the tenant's time zone: PATCH /tenant with its `timezone`.
    """

    contact_id: UUID
    number: InvoiceNumber
    amount: Amount
    currency: Currency
    due_at: Instant
    external_id: ExternalId | None = None


class PatchInvoice(Body):
    """What can be changed of an invoice; whose it is can't. Of one that is paid or void only `external_id` can.

    The text of a message is filled in when it is accepted, that of a campaign's step when it falls due: what has been
    filled in, and waits, still says what was true then.
    """

    number: InvoiceNumber | UnsetType = UNSET
    amount: Amount | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET
    due_at: Instant | UnsetType = UNSET
    external_id: ExternalId | UnsetType | None = UNSET


class InvoiceQuery(Dated):
    """Invoices of a contact or of a status, due before or from an instant on; `number` and `external_id` are exact.

    `since` and `until` are about when they were made.
    A page may hold fewer than `limit` although `next` is there: read on.
    """

    contact_id: UUID | None = None
    number: InvoiceNumber | None = None
    external_id: ExternalId | None = None
    status: InvoiceStatus | None = None
    due_before: Instant | None = None
    due_after: Instant | None = None


class PayInvoice(Body):
    """When it was paid: now, unless `paid_at` says; not in the future."""

    paid_at: Instant | None = None


class InvoiceShown(Shown):
    """An invoice."""

    id: UUID
    contact_id: UUID
    number: str
    amount: int
    currency: str
    due_at: datetime
    status: InvoiceStatus
    paid_at: datetime | None
    external_id: str | None
    created_at: datetime
    updated_at: datetime


# Campaigns


class Reentry(Body):
    """So many days after its enrolment ended, a contact may be enrolled again."""

    after_days: Annotated[float, Meta(ge=0, le=3660)]


AgainWhen = Literal["never", "after_completion"] | Reentry


class NewCampaign(Body):
    """A campaign begins as a draft; its steps come next.

    `reentry`: whether a contact may be enrolled again once its enrolment has ended, however it did. `goal` and `exit`
    are judged when a step is about to leave, by what the contact did since it was enrolled: when one holds, nothing
    more is sent. What a contact writes may reach the goal at once; opting out never does: it ends the enrolment.
    A broadcast has one step; its `audience` is enrolled when it is activated, or at `scheduled_at`, of which the last
    five minutes mean now; if it is paused then, once it is resumed.
    `delivery` says what becomes of a message in doubt: `at_most_once` leaves it, `at_least_once` sends it once more.
    """

    name: Name
    sender_id: UUID
    type: CampaignType = "drip"
    stop_on_reply: bool = True
    quiet_hours: QuietHours | None = None
    reentry: AgainWhen = "never"
    goal: Condition | None = None
    exit: Condition | None = None
    audience: Audience | None = None
    scheduled_at: Instant | None = None
    delivery: DeliveryPolicy = "at_most_once"


class PatchCampaign(Body):
    """The sender and the type can change only while the campaign is a draft, a broadcast's launch until it happens.

    An active broadcast that waits for its time can be given another one, but not none: pause it to hold it back.
    """

    name: Name | UnsetType = UNSET
    sender_id: UUID | UnsetType = UNSET
    type: CampaignType | UnsetType = UNSET
    stop_on_reply: bool | UnsetType = UNSET
    quiet_hours: QuietHours | UnsetType | None = UNSET
    reentry: AgainWhen | UnsetType = UNSET
    goal: Condition | UnsetType | None = UNSET
    exit: Condition | UnsetType | None = UNSET
    audience: Audience | UnsetType | None = UNSET
    scheduled_at: Instant | UnsetType | None = UNSET
    delivery: DeliveryPolicy | UnsetType = UNSET


class CampaignQuery(Dated):
    """Campaigns by how they stand, of a type or a number; `q` is a part of their name, in capitals or small letters.

    `since` and `until` are about when they were made. A page may hold fewer than `limit` although `next` is there: read
    on.
    """

    status: CampaignStatus | None = None
    type: CampaignType | None = None
    sender_id: UUID | None = None
    q: SearchText | None = None


class CampaignShown(Shown):
    """A campaign: draft, active, paused or archived.

    `version` is the one that contacts are enrolled in; `draft_version` the one that is edited beside it, if there is.
    `status_reason` says why it is paused, if an operator has paused it; `held_back_by` why nothing of an active one
    leaves, if that is so: its number is stopped, by itself or with its tenant, or rests, or no phone is linked to it.
    Where campaigns are read, also that it rests for some seconds, that its gateway does not answer, or that an operator
    has paused all sending, or all enrolling.
    """

    id: UUID
    name: str
    type: CampaignType
    status: CampaignStatus
    status_reason: str | None
    held_back_by: Why | None
    sender_id: UUID
    version: int
    draft_version: int | None
    stop_on_reply: bool
    quiet_hours: dict[str, str] | None
    reentry: AgainWhen
    goal: dict[str, Any] | None
    exit: dict[str, Any] | None
    audience: dict[str, Any] | None
    scheduled_at: datetime | None
    delivery: DeliveryPolicy
    launched_at: datetime | None
    activated_at: datetime | None
    created_at: datetime
    updated_at: datetime


class CampaignActivated(CampaignShown):
    """A campaign that is open, how many still run on its earlier versions, and what may keep steps from leaving."""

    running_on_earlier: int
    warnings: list[FaultShown]


class VersionQuery(Body):
    """One version of a campaign, by its number."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class StepQuery(Paging):
    """The steps of one version; without it those that changes go to: the draft's, if there is one."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


Variants = Annotated[list[Variant], Meta(min_length=2, max_length=10)]


ExpiresAfterHours = Annotated[float, Meta(gt=0, le=8760)]


class NewStep(Content, kw_only=True):
    """One message of a campaign, `delay_hours` after the enrolment.

    It says one thing (body, template, media or interactive), or has `variants`: a contact gets always the same one.
    If it has not left `expires_after_hours` after it was due, it is passed over. `delivery` says what becomes of it in
    doubt; without it the campaign's does.
    """

    delay_hours: DelayHours
    expires_after_hours: ExpiresAfterHours | None = None
    delivery: DeliveryPolicy | None = None
    name: Name = ""
    variants: Variants | None = None


class PatchStep(Body):
    """Any of body, template, media, interactive and variants replaces what the step says."""

    name: Name | UnsetType = UNSET
    delay_hours: DelayHours | UnsetType = UNSET
    expires_after_hours: ExpiresAfterHours | UnsetType | None = UNSET
    delivery: DeliveryPolicy | UnsetType | None = UNSET
    variants: Variants | UnsetType = UNSET
    body: str | UnsetType = UNSET
    template: Template | UnsetType = UNSET
    media: Media | UnsetType = UNSET
    interactive: Interactive | UnsetType = UNSET


class StepShown(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step; `position` counts from 0 in the order of the delays.

    The answer to a change of a live campaign says how many run on its earlier versions, which the change is not for,
    and warns that nothing of it is sent before the campaign is activated again.
    """

    id: UUID
    campaign_id: UUID
    version: int
    position: int
    name: str
    delay_hours: float
    expires_after_hours: float | None = None
    delivery: DeliveryPolicy | None = None
    body: str | UnsetType = UNSET
    template: dict[str, Any] | UnsetType = UNSET
    media: dict[str, Any] | UnsetType = UNSET
    interactive: dict[str, Any] | UnsetType = UNSET
    variants: list[dict[str, Any]] | UnsetType = UNSET
    running_on_earlier: int | UnsetType = UNSET
    warnings: list[FaultShown] | UnsetType = UNSET


class FunnelVariant(Shown):
    """How one variant of a step does; `replied`, `opted_out` and `goal` count contacts."""

    name: str
    sent: int
    delivered: int
    read: int
    failed: int
    replied: int
    opted_out: int
    goal: int


class FunnelStep(Shown):
    """How far the messages of one step have come. Read ones were delivered, delivered ones sent: each counts in all.

    `replied` are the contacts who answered it, `opted_out` those whose answer was that they want no more.
    `suppressed_by` and `deferred_by` (of those that are queued) count by the code of the reason.
    """

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
    replied: int
    opted_out: int
    suppressed_by: dict[str, int]
    deferred_by: dict[str, int]
    variants: list[FunnelVariant]


class FunnelTotals(Shown):
    """The messages of all steps together, and the contacts who answered them."""

    sent: int
    delivered: int
    read: int
    failed: int
    suppressed: int
    unknown: int
    replied: int
    opted_out: int
    suppressed_by: dict[str, int]
    deferred_by: dict[str, int]


class Funnel(Shown):
    """How far a campaign has come. `due` steps should have left by now.

    `steps` are those of one version, the current one unless another is asked for. Enrolments and `totals` are of all
    versions, or of that one. `goal` counts whoever reached it, during the campaign or after.
    """

    campaign_id: UUID
    version: int
    enrolled: int
    active: int
    completed: int
    stopped: int
    failed: int
    paused: int
    goal: int
    stopped_by: dict[str, int]
    totals: FunnelTotals
    steps: list[FunnelStep]


class EnrollmentQuery(Dated):
    """Enrolments of one contact, about one invoice, or of one status, begun from `since` on and before `until`."""

    contact_id: UUID | None = None
    invoice_id: UUID | None = None
    status: EnrollmentStatus | None = None


class EnrollmentShown(Shown):
    """Where a contact stands in a campaign."""

    id: UUID
    campaign_id: UUID
    version_id: UUID
    contact_id: UUID
    run: int
    status: EnrollmentStatus
    stopped_reason: str | None
    current_step: int
    messages_sent: int
    started_at: datetime
    next_step_scheduled_at: datetime | None
    last_step_at: datetime | None
    finished_at: datetime | None
    goal_at: datetime | None
    invoice_id: UUID | None


class EnrollOne(Body):
    """With `invoice_id`, an open invoice of the contact's, the enrolment ends when that is paid or void."""

    invoice_id: UUID | None = None


class EnrollMany(Body):
    """Exactly one of: these contacts, those with a tag, those of a segment, or all."""

    contact_ids: Annotated[list[UUID], Meta(min_length=1, max_length=10_000)] | None = None
    tag: Tag | None = None
    segment_id: UUID | None = None
    all: bool = False


class BulkAccepted(Accepted, kw_only=True):
    """`count` contacts can be enrolled as things stand; each is judged again when its turn comes.

    `refused` counts the others by reason, as a dry run does.
    """

    count: int
    refused: dict[str, int] = msgspec.field(default_factory=dict[str, int])


# Messages


class NewMessage(Content, kw_only=True):
    """One message, to a contact or to a phone number; to a number that is no contact's, it makes none.

    A tenant with one sender need not name it. With `send_at` it leaves then, at most 30 days from now; the last five
    minutes mean now, because clocks differ, and what lies longer ago is refused.
    `lane` says how soon its number sends it, and which rules hold: `marketing` needs consent, and keeps quiet hours and
    frequency caps. So does what is a marketing template to WhatsApp, in every lane.
    `delivery` says what becomes of it if WhatsApp's answer is lost and no receipt comes: `at_most_once` leaves it
    `unknown`, `at_least_once` sends it once more. By default the lane `utility` is sent again, the others are not.
    At `expires_at` it is of no use any more, and is not sent if it has not left by then.
    With `invoice_id`, an open invoice of the contact's, it is not sent either if that has been paid or voided by then.
    Its text is filled in now: what changes later, of the contact or of the invoice, is not in it.
    """

    sender_id: UUID | None = None
    contact_id: UUID | None = None
    to: str | None = None
    lane: Lane = "utility"
    send_at: Instant | None = None
    expires_at: Instant | None = None
    delivery: DeliveryPolicy | None = None
    invoice_id: UUID | None = None


class MessageQuery(Dated):
    """Messages by what they are and what became of them; `since` and `until` are about when they were due.

    `reason` is a code such as `quiet_hours`: docs/why-not-sent.md lists all that policy gives. `to` is a number in any
    spelling, or a user id. A page may hold fewer than `limit` although `next` is there: read on.
    """

    status: MessageStatus | None = None
    campaign_id: UUID | None = None
    contact_id: UUID | None = None
    invoice_id: UUID | None = None
    sender_id: UUID | None = None
    lane: Lane | None = None
    to: Annotated[str, Meta(max_length=135)] | None = None
    reason: Reason | None = None
    error_code: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None


class MessageShown(Shown):
    """A message and where it is. `reason` says why it was not sent, not yet, or not delivered.

    One in doubt that no receipt settles before `resend_at` is sent once more then, and is `resent`. If something stands
    against that, such as an opt-out, `resend_at` is null again, and `reason` says what it is. `reply_to` is the message
    or the reply that it quotes.
    """

    id: UUID
    status: MessageStatus
    reason: str | None
    error_code: int | None
    lane: Lane
    to: str
    contact_id: UUID | None
    sender_id: UUID
    campaign_id: UUID | None
    enrollment_id: UUID | None
    step: int | None
    variant: str | None
    is_test: bool
    content: dict[str, Any]
    wamid: str | None
    reply_to: UUID | None
    attempts: int
    delivery: DeliveryPolicy
    resent: bool
    resend_at: datetime | None
    cause: str
    due_at: datetime
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    deferred_until: datetime | None
    invoice_id: UUID | None


class Moment(Shown):
    """One thing that happened to a message."""

    at: datetime
    status: MessageStatus | Literal["accepted"]


#: For whoever reads the description of the API.
CODES = (
    f"What policy says: {', '.join(POLICY)}; what holds all back: {', '.join(HELD_BACK)} (docs/why-not-sent.md);"
    " WhatsApp's error code as text, if it has refused the message; `in_doubt`; or the status, if there is nothing more"
    " to say."
)


class Why(Shown):
    """Why a message, or all of a campaign, is not sent, or not yet, or not delivered: a code, words, and what to do."""

    code: Annotated[str, Meta(description=CODES)]
    text: str
    todo: str


class PricingShown(Shown):
    """How WhatsApp charges a message, as far as it has told: `origin` is where its conversation began."""

    billable: bool | None
    model: str | None
    type: str | None
    category: str | None
    origin: str | None


class MessageStory(MessageShown):
    """A message with all that happened to it, in order, and why it went no further, if so."""

    timeline: list[Moment]
    why: Why | None
    pricing: PricingShown | None


class AcceptedStory(Shown):
    """A message that was accepted a moment ago and has no row yet."""

    id: UUID
    status: Literal["accepted"]
    timeline: list[Moment]


# Conversations


UserOrMe = Annotated[
    str,
    Meta(
        pattern=r"^(me|[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})\Z", extra={"words": "a user's id, or me"}
    ),
]


class ConversationQuery(Paging):
    """Conversations by whose they are and how they stand; `unassigned=true` are those that nobody has.

    `assigned_to=me` are those of the user who asks.
    Of several filters together a page may hold fewer than `limit` although `next` is there: read on.
    """

    status: ConversationStatus | None = None
    assigned_to: UserOrMe | None = None
    unassigned: bool = False
    sender_id: UUID | None = None
    contact_id: UUID | None = None


class ConversationShown(Shown):
    """What one contact and one number say to each other.

    `window_until` is until when any message may be sent; after that, or if it is null, only templates. It is null too
    for senders that don't enforce the 24-hour window: for those it makes no difference. `read_at` is when somebody here
    last read it.
    """

    id: UUID
    contact_id: UUID
    contact_name: str
    contact_phone: str | None
    sender_id: UUID
    status: ConversationStatus
    assigned_to: UUID | None
    last_inbound_at: datetime | None
    last_activity_at: datetime
    read_at: datetime | None
    window_until: datetime | None
    closed_at: datetime | None
    created_at: datetime


class ReplyTo(Content):
    """What to answer in a conversation: exactly one of text `body`, `template`, `media` and `interactive`.

    With `reply_to`, the id of a message or a reply in this conversation, it quotes that.
    """

    reply_to: UUID | None = None


class Assign(Body):
    """Who shall answer: a member of the tenant, or null for nobody in particular."""

    user_id: UUID | None


class NewNote(Body):
    """A remark for colleagues, which the contact never sees."""

    text: Annotated[str, Meta(min_length=1, max_length=4096)]


class NoteShown(Shown):
    """A remark in a conversation, by a member (`user_id`) or a key."""

    id: UUID
    conversation_id: UUID
    text: str
    user_id: UUID | None
    api_key_id: UUID | None
    created_at: datetime


class MarkRead(Body):
    """`typing` also shows the contact, for some seconds, that somebody is writing."""

    typing: bool = False


class ReplyQuery(Dated):
    """Replies of one contact, in one conversation, or to one sender; `since` and `until` are about when they came."""

    contact_id: UUID | None = None
    conversation_id: UUID | None = None
    sender_id: UUID | None = None


class MediaShown(Shown):
    """A file that came with a message: read it at `url` once its status is `stored`. `size` is in bytes."""

    id: UUID
    status: MediaStatus
    reason: str | None
    mime_type: str | None
    size: int | None
    filename: str | None
    url: str


class ReplyShown(Shown):
    """One message from a contact.

    `reply_to` is the message of ours, or the reply, that it quotes or reacts to; null if there is none, or none that is
    known here. WhatsApp's id of it is `reply_to_wamid`.
    """

    id: UUID
    conversation_id: UUID
    contact_id: UUID
    sender_id: UUID
    type: str
    text: str | None
    payload: Any
    received_at: datetime
    reply_to: UUID | None
    reply_to_wamid: str | None
    media: MediaShown | None


class Said(Shown):
    """One line of a conversation, which quotes the line `reply_to`.

    `direction` is `in` from the contact, `out` from us; `reply_to_wamid` is known of the former. `text` is what stands
    there to be read: of a template its header, body and footer, if WhatsApp has told them. `why` says of one of ours
    why it was not said, or not yet.
    """

    id: UUID
    direction: Literal["in", "out"]
    at: datetime
    type: str
    text: str | None
    content: Any
    status: MessageStatus | None
    why: Why | None
    reply_to: UUID | None
    reply_to_wamid: str | None
    media: MediaShown | None


class AuditQuery(Dated):
    """Entries of the audit log by who, what and when. A page may hold fewer than `limit` although `next` is there."""

    user_id: UUID | None = None
    api_key_id: UUID | None = None
    action: Annotated[str, Meta(max_length=32)] | None = None
    entity: Annotated[str, Meta(max_length=32)] | None = None
    entity_id: Annotated[str, Meta(max_length=64)] | None = None
    request_id: Annotated[str, Meta(max_length=64)] | None = None


class Changes(Shown):
    """The fields that changed, as they were and as they became: nothing was before what was made, nor after what was
    deleted. Secrets show as `…`."""

    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditShown(Shown):
    """Something that was done. `action` is `create`, `update`, `delete`, or what was done with many, such as `export`.

    `user_id` or `api_key_id` says who; both are null for a partner's command on NATS and for who signed up. `via` is
    the route, or the command's subject.
    """

    id: UUID
    at: datetime
    user_id: UUID | None
    api_key_id: UUID | None
    action: str
    entity: str
    entity_id: str | None
    request_id: str
    address: str
    via: str
    changes: Changes


class UsageQuery(Paging):
    """A page of months, newest first."""


class CategoryUsageShown(Shown):
    """Messages of one of WhatsApp's categories, in its words, whose price it has told: charged, or free."""

    category: str
    billable: bool
    messages: int


class UsageShown(Shown):
    """A month of the calendar, in UTC, such as `2026-03`. Months without a message are left out.

    `included` is how many messages a month today's plan has; without it there is no limit. `exhausted_at` is when one
    was first kept back because there were no more.
    """

    month: str
    messages: int
    included: int | None
    exhausted_at: datetime | None
    categories: list[CategoryUsageShown]
