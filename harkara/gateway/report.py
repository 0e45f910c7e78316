"""What gateways that lend a phone's account report, as the Cloud API would say it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harkara.gateway import saying
from harkara.gateway.plain import a_text, an_id
from harkara.gateway.told import InboundMessage, StatusUpdate


@dataclass(frozen=True, slots=True)
class Said:
    """What a message says: its type and its part of that name as the Cloud API writes them, and what it quotes."""

    type: str
    part: Any
    quoted: str | None = None


def message(id_: str, who: tuple[str | None, str | None], name: str | None, second: int, said: Said) -> InboundMessage:
    """A message to us: `who` wrote it (number, id that hides it), at which second. Raises one of UNREADABLE."""
    phone, user_id = who
    told = {"id": id_, "from": phone, "from_user_id": user_id, "timestamp": str(second), "type": said.type}
    context = {"context": {"id": said.quoted}} if said.quoted else {}
    names = {key: a_text(name) for key in who if key}
    return saying.message({**told, said.type: said.part, **context}, names)


def status(wamid: str, status: str, at: datetime, error: str | None = None) -> StatusUpdate:
    """A status of one of our messages, in whole seconds. Raises ValueError if that is no id."""
    code = None if error is None else 0
    return StatusUpdate(an_id(wamid), status, at.replace(microsecond=0), None, code, error, None)
