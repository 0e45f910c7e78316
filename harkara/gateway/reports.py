"""What gateways report, in one language: that of the Cloud API, with what only phones' own accounts have besides.

A gateway that lends a phone's account has a reader of its own, which writes what it understands as a webhook of the
Cloud API would say it. So everything behind this knows one language, whoever spoke.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import msgspec

from harkara.gateway import evolution_reports, inbound, waha_reports
from harkara.gateway.report import Report
from harkara.gateway.told import Webhook

Reader = Callable[[bytes | msgspec.Raw, datetime], Report]

#: By the source that the front door names; what is not listed speaks as the Cloud API does.
READERS: dict[str, Reader] = {"evolution": evolution_reports.read, "waha": waha_reports.read}


def parse(source: str, body: bytes | msgspec.Raw, at: datetime) -> dict[str | None, Webhook]:
    """What a webhook tells that came from `source` at this time, by the `phone_number_id` that it names.

    What lends a phone's account names none. Raises msgspec.MsgspecError, KeyError or ValueError if it is none of that
    gateway's.
    """
    reader = READERS.get(source)
    if reader is None:
        return inbound.parse(body)
    report = reader(body, at)
    value = {"contacts": report.contacts, "messages": report.messages, "statuses": report.statuses}
    change = {"field": "messages", "value": value}
    webhook = inbound.parse(msgspec.json.encode({"entry": [{"changes": [change]}]}))[None]
    return {None: replace(webhook, sessions=report.sessions, echoes=report.echoes)}
