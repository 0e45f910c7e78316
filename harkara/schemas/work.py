"""Work: what actors hand to each other inside. Partners can neither publish nor read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import msgspec

from harkara.schemas.base import Message
from harkara.schemas.commands import Lane
from harkara.schemas.conditions import Condition
from harkara.schemas.content import Content
from harkara.schemas.reasons import Reason


class DueTick(Message, frozen=True):
    """The broker's tick, every second: whoever gets it claims what falls due."""

    subject: ClassVar[str] = "sys.tick.due"


class TemplatesTick(Message, frozen=True):
    """The broker's tick for numbers whose templates are to be read again."""

    subject: ClassVar[str] = "sys.tick.templates"


class Release(Message, frozen=True):
    """What held messages of these numbers back is over: judge again what waits for it.

    That is a template; without a name their limit of people a day, which is another one; or, if they are `resumed`, the
    rest that WhatsApp had asked for; or whatever `reasons` say.
    """

    subject: ClassVar[str] = "t.{tenant}.work.librarian.release"

    sender_ids: list[str]
    name: str | None = None
    language: str | None = None
    resumed: bool = False
    reasons: list[Reason] | None = None


class OutboxTick(Message, frozen=True):
    """The broker's tick for what the front door has to tell."""

    subject: ClassVar[str] = "sys.tick.outbox"


class EnrollPage(Message, frozen=True):
    """The next page of a bulk enrolment: contacts after `after`, in the order of their ids.

    Or, once they are `found`, those; the next page then begins after `after`, if there is one.
    """

    subject: ClassVar[str] = "t.{tenant}.work.enrollment.page"

    bulk_id: str
    campaign_id: str
    started_at: datetime
    contact_ids: list[str] | None = None
    condition: Condition | None = None
    after: str | None = None
    found: list[str] | None = None
    enrolled: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    tag: str | None = None
    said: str = ""


class LaunchAudience(Message, frozen=True):
    """A broadcast waits for its time, and is then launched."""

    subject: ClassVar[str] = "t.{tenant}.work.enrollment.launch"

    campaign_id: str
    said: str = ""


class MovePage(Message, frozen=True):
    """The next page of enrolments after `after` that go on with their campaign's current version."""

    subject: ClassVar[str] = "t.{tenant}.work.enrollment.move"

    move_id: str
    campaign_id: str
    after: str | None = None
    moved: int = 0
    said: str = ""


class StopPage(Message, frozen=True):
    """The next page of enrolments after `after` that end with their campaign, which was archived."""

    subject: ClassVar[str] = "t.{tenant}.work.enrollment.stop"

    campaign_id: str
    after: str | None = None
    said: str = ""


class ImportChunk(Message, frozen=True):
    """Store the next rows of a file: those with this number, counted from 0."""

    subject: ClassVar[str] = "t.{tenant}.work.importer.chunk"

    import_id: str
    number: int


class Send(Message, frozen=True):
    """Send one message through one number. It carries all that rendering needs; what may change is judged on leaving.

    A campaign step names its `enrollment_id` and `step_id` and brings the contact's variables; any other message brings
    its `content`, already rendered, and what it quotes, as its gateway calls that. One with an `invoice_id` leaves only
    while that invoice is open. One that `follows` its contact goes to whatever number that has by then.
    """

    subject: ClassVar[str] = "t.{tenant}.work.send.{sender_id}.{lane}"

    message_id: str
    sender_id: str
    lane: Lane
    contact_id: str | None
    to: str
    due_at: datetime
    enrollment_id: str | None = None
    campaign_id: str | None = None
    step_id: str | None = None
    step: int | None = None
    variables: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    content: Content | None = None
    confirms: bool = False
    expires_at: datetime | None = None
    invoice_id: str | None = None
    quoted: str | None = None
    follows: bool = False


class FetchMedia(Message, frozen=True):
    """Fetch a file that came with a message: `gateway_id` is what the gateway calls it."""

    subject: ClassVar[str] = "t.{tenant}.work.media.fetch"

    media_id: str
    sender_id: str
    gateway_id: str


class ForgetMedia(Message, frozen=True):
    """Delete files whose rows are gone."""

    subject: ClassVar[str] = "t.{tenant}.work.media.forget"

    media_ids: list[str]


class Inbound(Message, frozen=True):
    """A verified webhook exactly as it came, or a part of a large one, stored before it is answered."""

    subject: ClassVar[str] = "t.{tenant}.in.{source}"

    source: str
    sender_id: str
    body: msgspec.Raw
