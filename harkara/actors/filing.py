"""Which number a webhook of the Cloud API is for: part of the receipts.

An app has one address for all its numbers, so what comes to one sender's address may be about another: the one whose
`phone_number_id` it names (docs/decisions/0064-who-wrote-to-which-number.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Drop
from harkara.gateway.told import Webhook
from harkara.schemas.work import Inbound
from harkara.storage import receiving

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: So many of the items that can't be read are named.
MOST_NAMED = 4

#: What a webhook tells, by the `phone_number_id` that it names.
Parts = dict[str | None, Webhook]


class Filed(NamedTuple):
    """What is told of one number, by the delivery as if it had come to that number's own address; and its place."""

    place: int
    d: Delivery[Inbound]
    webhook: Webhook


async def file(
    con: Connection, batch: Sequence[tuple[Delivery[Inbound], Parts | Drop]]
) -> tuple[list[Filed], dict[int, Drop]]:
    """All that can be filed, in order; and by its place each webhook of which something can't be."""
    named = {(d.tenant, number) for d, parts in batch if not isinstance(parts, Drop) for number in parts if number}
    senders = await receiving.by_number(con, named)
    filed: list[Filed] = []
    lost: dict[int, Drop] = {}
    for place, (d, parts) in enumerate(batch):
        if isinstance(parts, Drop):
            lost[place] = parts
            continue
        reasons: list[str] = []
        for number, webhook in parts.items():
            if webhook.unread:
                reasons.append(_not_read(webhook.unread))
            if number is None:
                filed.append(Filed(place, d, webhook))
            elif (sender_id := senders.get((d.tenant, number))) is not None:
                message = msgspec.structs.replace(d.message, sender_id=str(sender_id))
                filed.append(Filed(place, msgspec.structs.replace(d, message=message), webhook))
            else:
                reasons.append(_no_sender(number))
        if reasons:
            lost[place] = Drop("; ".join(reasons))
    return filed, lost


def _not_read(unread: Sequence[str]) -> str:
    more = f" and {len(unread) - MOST_NAMED} more" if len(unread) > MOST_NAMED else ""
    named = "; ".join(unread[:MOST_NAMED])
    return f"not all of it can be read (the rest is done; replay this once it can be): {named}{more}"


def _no_sender(number: str) -> str:
    return (
        f"no sender has the phone_number_id {number}, for which this is: add the number as a sender, then replay this;"
        " or have Meta send its webhooks elsewhere"
    )
