"""Work: what actors hand to each other inside. Partners can neither publish nor read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import msgspec

from harkara.schemas.base import Message
from harkara.schemas.commands import Lane
from harkara.schemas.content import Content


class DueTick(Message, frozen=True):
    """The broker's tick, every second: whoever gets it claims what falls due."""

    subject: ClassVar[str] = "sys.tick.due"


class EnrollPage(Message, frozen=True):
    """The next page of a bulk enrolment: contacts after `after`, in the order of their ids."""

    subject: ClassVar[str] = "t.{tenant}.work.enrollment.page"

    bulk_id: str
    campaign_id: str
    started_at: datetime
    contact_ids: list[str] | None = None
    tag: str | None = None
    after: str | None = None
    enrolled: int = 0


class Send(Message, frozen=True):
    """Send one message through one number. It carries all that rendering needs; what may change is judged on leaving.

    A campaign step names its `enrollment_id` and `step_id` and brings the contact's variables; any other message brings
    its `content`, already rendered.
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


class Inbound(Message, frozen=True):
    """A verified webhook exactly as it came, stored before it is answered."""

    subject: ClassVar[str] = "t.{tenant}.in.{source}"

    source: str
    sender_id: str
    body: msgspec.Raw
