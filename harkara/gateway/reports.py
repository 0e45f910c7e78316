"""What gateways report, in one language: that of the Cloud API, with what only phones' own accounts have besides.

A gateway that lends a phone's account has a reader of its own, which puts what it understands as a webhook of the
Cloud API would say it. So everything behind this knows one language, whoever spoke.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from harkara.gateway import evolution_reports, inbound, waha_reports
from harkara.gateway.told import InboundMessage, Preference, StatusUpdate, Webhook

#: A gateway's clock may be ahead of ours.
CLOCKS_DIFFER = timedelta(minutes=5)

#: What is told without a time has this one: nothing happened so long ago.
NO_TIME = datetime.fromtimestamp(0, UTC)

T = TypeVar("T", StatusUpdate, InboundMessage, Preference)

Reader = Callable[[bytes | msgspec.Raw, datetime], Webhook]

#: By the source that the front door names; what is not listed speaks as the Cloud API does.
READERS: dict[str, Reader] = {"evolution": evolution_reports.read, "waha": waha_reports.read}


def parse(source: str, body: bytes | msgspec.Raw, at: datetime) -> dict[str | None, Webhook]:
    """What a webhook tells that came from `source` at this time, by the `phone_number_id` that it names.

    What lends a phone's account names none. What can't be read keeps nothing else from being read. Nothing happened
    after it was told: a time that lies ahead is that at which it came, and so is one that is left out. Else a START
    from there would outdo every STOP, or a STOP without a time be outdone by any, and a 24-hour window stay open for
    years. Raises one of UNREADABLE if it is none of that gateway's.
    """
    reader = READERS.get(source)
    told: dict[str | None, Webhook] = inbound.parse(body) if reader is None else {None: reader(body, at)}
    for webhook in told.values():
        _by_now(webhook.statuses, at)
        _by_now(webhook.messages, at)
        _by_now(webhook.preferences, at)
    return told


def _by_now(told: list[T], at: datetime) -> None:
    latest = at + CLOCKS_DIFFER
    for place, one in enumerate(told):
        if one.at > latest or one.at == NO_TIME:
            told[place] = replace(one, at=at.replace(microsecond=0))
