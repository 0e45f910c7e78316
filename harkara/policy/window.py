"""The customer-service window: for 24 hours after a contact wrote or called, its number may answer with anything."""

from __future__ import annotations

from datetime import datetime, timedelta

#: Meta's rule for the Cloud API; outside of it only templates are delivered (error 131047).
WINDOW = timedelta(hours=24)


def closes_at(last_inbound_at: datetime | None) -> datetime | None:
    """Until when anything may be sent; None if the contact never wrote."""
    return last_inbound_at + WINDOW if last_inbound_at is not None else None


def is_open(last_inbound_at: datetime | None, now: datetime) -> bool:
    """Whether anything may be sent now."""
    return last_inbound_at is not None and now < last_inbound_at + WINDOW
