"""A number as the tenant's contact has it, however WhatsApp writes it: part of the receipts.

In some countries WhatsApp goes on writing numbers as they were before a digit came or went (`values.py:spellings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from harkara.bus.messages import Delivery
from harkara.gateway.told import StatusUpdate, Webhook
from harkara.schemas.work import Inbound
from harkara.storage import lines, receiving
from harkara.values import line, spellings

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


async def respelled(
    con: Connection, webhooks: Sequence[tuple[Delivery[Inbound], Webhook]]
) -> list[tuple[Delivery[Inbound], Webhook]]:
    """The same webhooks with each number as a contact has it; if none has it, as it is told first.

    Whoever may become a contact by it is one person, even if somebody else makes a contact of them at this moment.
    """
    told = {(d.tenant, f"+{phone}"): None for d, webhook in webhooks for phone in _phones(webhook)}
    several = [(tenant, phone) for tenant, phone in told if len(spellings(phone)) > 1]
    if not several:
        return list(webhooks)
    known = await receiving.as_known(con, several)
    if unknown := [one for one in several if one not in known]:
        await lines.claim(con, unknown)
        known |= await receiving.as_known(con, unknown)
    first = {(tenant, line(phone)): phone for tenant, phone in reversed(unknown)}
    better = {(tenant, phone): known.get((tenant, phone)) or first[tenant, line(phone)] for tenant, phone in several}
    return [(d, _with(webhook, d.tenant, better)) for d, webhook in webhooks]


def _phones(webhook: Webhook) -> set[str]:
    """All numbers that are looked up; a status's only if it names an id with it."""
    found = {one.phone for one in webhook.statuses if one.phone and one.user_id}
    found |= {one.phone for one in webhook.preferences if one.phone}
    found |= {one.phone for one in webhook.messages if one.phone}
    return found | {one.changed.phone for one in webhook.messages if one.changed is not None and one.changed.phone}


def _with(webhook: Webhook, tenant: str, better: Mapping[tuple[str, str], str]) -> Webhook:
    def said(phone: str | None) -> str | None:
        return better.get((tenant, f"+{phone}"), f"+{phone}").removeprefix("+") if phone else None

    return replace(
        webhook,
        statuses=[_named(one, said(one.phone)) for one in webhook.statuses],
        preferences=[msgspec.structs.replace(one, phone=said(one.phone)) for one in webhook.preferences],
        messages=[
            msgspec.structs.replace(
                one,
                phone=said(one.phone),
                changed=replace(one.changed, phone=said(one.changed.phone)) if one.changed is not None else None,
            )
            for one in webhook.messages
        ],
    )


def _named(status: StatusUpdate, phone: str | None) -> StatusUpdate:
    return status if phone == status.phone else msgspec.structs.replace(status, phone=phone)
