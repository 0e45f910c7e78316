"""What gateways that lend a phone's account report, as the Cloud API puts it, and what only such accounts have."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from harkara.gateway.told import Echo, SessionChange


@dataclass(slots=True)
class Report:
    """What a reader understands: contacts, messages and statuses as the Cloud API writes them, and the rest."""

    contacts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    statuses: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sessions: list[SessionChange] = field(default_factory=list[SessionChange])
    echoes: list[Echo] = field(default_factory=list[Echo])

    def message(self, id_: str, who: tuple[str | None, str | None], name: str | None, at: int, said: Said) -> None:
        """Add a message to us: `who` wrote it (number, id that hides it), at which second, and what it says."""
        phone, user_id = who
        self.contacts.append({"profile": {"name": name}, "wa_id": phone, "user_id": user_id})
        message = {"id": id_, "from": phone, "from_user_id": user_id, "timestamp": str(at), "type": said.type}
        context = {"context": {"id": said.quoted}} if said.quoted else {}
        self.messages.append({**message, said.type: said.part, **context})

    def status(self, wamid: str, status: str, at: datetime, error: str | None = None) -> None:
        """Add a status of one of our messages."""
        errors = {"errors": [{"title": error}]} if error else {}
        self.statuses.append({"id": wamid, "status": status, "timestamp": str(int(at.timestamp())), **errors})


@dataclass(frozen=True, slots=True)
class Said:
    """What a message says: its type and its part of that name as the Cloud API writes them, and what it quotes."""

    type: str
    part: dict[str, Any]
    quoted: str | None = None
