"""What work asks for, as the attempt that the gate judges and the database keeps."""

from __future__ import annotations

from uuid import UUID

import msgspec

from harkara.actors.steps import Step
from harkara.ids import id_of
from harkara.rendering import Unsayable
from harkara.schemas.content import Content
from harkara.schemas.variants import Variant
from harkara.schemas.work import Send
from harkara.storage.sending import Attempt

_encode = msgspec.json.Encoder().encode


def said(work: Send, step: Step | None, variant: Variant | None) -> Content | Unsayable:
    """What the message says, or why that can't be said."""
    if step is None:
        return work.content or Unsayable([("", f"the step {work.step_id} is not there any more")])
    try:
        return step.said(work.variables, variant)
    except Unsayable as fault:
        return fault


def attempt_of(
    tenant: str,
    cause: str,
    work: Send,
    content: Content | Unsayable,
    step: Step | None,
    variant: Variant | None,
    speed: float,
) -> Attempt:
    """One message that is about to leave; `speed` is by how much steps' times are compressed.

    What breaks a limit is kept whole, so that it can be looked at.
    """
    kept = content.content if isinstance(content, Unsayable) else content
    template = kept.template if kept is not None else None
    return Attempt(
        id_of(work.message_id),
        tenant,
        _uuid(work.contact_id),
        id_of(work.sender_id),
        _uuid(work.campaign_id),
        _uuid(work.enrollment_id),
        work.step,
        work.lane,
        work.to,
        "{}" if kept is None else _encode(kept).decode(),
        cause,
        work.due_at,
        _uuid(work.step_id),
        variant.name if variant else None,
        confirms=work.confirms,
        template=template.name if template else None,
        language=template.language if template else None,
        expires_at=step.expires_at(work.due_at, speed) if step is not None else work.expires_at,
        delivery=step.delivery if step is not None else None,
        invoice_id=_uuid(work.invoice_id),
        follows=work.follows,
    )


def _uuid(text: str | None) -> UUID | None:
    return id_of(text) if text else None
