"""What log lines are about: tenant, cause, message, actor and attempt, for everything that handling a message calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harkara.bus import headers
from harkara.bus.intake import Raw, attempt_of, message_id
from harkara.bus.messages import Delivery
from harkara.schemas.base import tenant_of
from harkara.schemas.work import Send


def of_batch(actor: str, batch: Sequence[Delivery[Any]]) -> dict[str, Any]:
    """Of one delivery everything; of several only what they have in common, and how many they are."""
    if len(batch) == 1:
        return of_delivery(actor, batch[0])
    tenants = {delivery.tenant for delivery in batch}
    return {"actor": actor, "deliveries": len(batch), **({"tenant": tenants.pop()} if len(tenants) == 1 else {})}


def of_delivery(actor: str, delivery: Delivery[Any]) -> dict[str, Any]:
    """A delivery that was opened; work to send names the message that it is about."""
    message = delivery.message
    return {
        "actor": actor,
        "tenant": delivery.tenant,
        "cause": delivery.cause,
        "message_id": message.message_id if isinstance(message, Send) else delivery.id,
        "attempt": delivery.attempt,
    }


def of_raw(actor: str, raw: Raw) -> dict[str, Any]:
    """A delivery as the carrier has it."""
    return {
        "actor": actor,
        "tenant": tenant_of(raw.subject),
        "cause": raw.headers.get(headers.CAUSE) or message_id(raw),
        "message_id": message_id(raw),
        "attempt": attempt_of(raw),
    }
