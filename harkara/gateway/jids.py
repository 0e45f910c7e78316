"""How WhatsApp's own network names people and messages, which gateways that lend a phone's account pass on.

A person is a JID: `<digits>@s.whatsapp.net` (WAHA writes `@c.us`), or `<digits>@lid`, which hides the number. A message
is `<from me>_<JID>_<key>` or only its key; the JID in it may be either of a person's two, so only the key is compared.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LID = "@lid"

_PERSON = re.compile(r"^([0-9]{5,20})(?::[0-9]+)?@(s\.whatsapp\.net|c\.us|lid)$")
_DIGITS = re.compile(r"^\+?([0-9]{5,20})$")
_SERIALIZED = re.compile(r"^(?:true|false)_([^_]+@[^_]+)_([^_]+)")


class Who(NamedTuple):
    """A person: by number (digits only), or by an id that hides it."""

    phone: str | None
    user_id: str | None


def who(jid: str, other: str | None = None) -> Who | None:
    """Whose JID it is; `other` is the same person's other JID, if it is told. None for groups and broadcasts."""
    found = [match for match in (_PERSON.match(jid), _PERSON.match(other or "")) if match]
    if not found or not _PERSON.match(jid):
        return None
    phone = next((match[1] for match in found if match[2] != "lid"), None)
    lid = next((match[1] + LID for match in found if match[2] == "lid"), None)
    return Who(phone, lid)


def address(to: str) -> str | None:
    """A recipient as a gateway takes it: digits, or a JID that hides them. None if these gateways can't reach them."""
    match = _DIGITS.match(to)
    if match:
        return match[1]
    return to if to.endswith(LID) and _PERSON.match(to) else None


def key_of(message_id: str) -> str:
    """The part of a message's id that everything said about the message has in common."""
    match = _SERIALIZED.match(message_id)
    return match[2] if match else message_id


def chat_of(message_id: str) -> str | None:
    """The JID of the chat that a message's full id names; None if it names none."""
    match = _SERIALIZED.match(message_id)
    return match[1] if match else None


def full_id(jid: str, key: str, *, from_me: bool = False) -> str:
    """A message's full id."""
    return f"{'true' if from_me else 'false'}_{jid}_{key}"
