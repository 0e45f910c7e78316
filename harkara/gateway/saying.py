"""What a message to us says: its kind, its words, what may stop, its file, and what it quotes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from harkara.gateway.plain import a_text, a_time, an_id, an_object, texts, who
from harkara.gateway.told import Changed, File, InboundMessage

#: The kinds of message that bring a file.
FILES = frozenset({"image", "video", "audio", "document", "sticker"})

#: What the database can hold.
_LONGEST_TYPE = 32

#: A call, as a kind of message.
CALL = "call"

#: What a call offers to connect to is of no use once it is over.
_OFFERS = frozenset({"session", "connection"})


def message(told: dict[str, Any], names: Mapping[str, str | None]) -> InboundMessage:
    """A message as the Cloud API tells it, of somebody who has a name here. Raises one of UNREADABLE if it is none."""
    kind = a_text(told.get("type")) or "unknown"
    part = an_object(told.get(kind))
    phone, user_id = who(told.get("from"), told.get("from_user_id"))
    text, said = _words(kind, part, told.get(kind))
    quoted = part.get("message_id") if kind == "reaction" else an_object(told.get("context")).get("id")
    return InboundMessage(
        an_id(told["id"]),
        phone,
        user_id,
        named(names, phone, user_id),
        a_time(str(told.get("timestamp", "0"))),
        kind[:_LONGEST_TYPE],
        text,
        an_id(quoted) if quoted else None,
        told,
        said,
        _changed(part) if kind == "system" else None,
        _file(part) if kind in FILES else None,
    )


def call(told: dict[str, Any], names: Mapping[str, str | None]) -> InboundMessage | None:
    """A call to us, as a message without words; None for what else is told of calls: those of ours, and how all end."""
    if (told.get("event"), told.get("direction")) != ("connect", "USER_INITIATED"):
        return None
    return message({**{name: part for name, part in told.items() if name not in _OFFERS}, "type": CALL}, names)


def named(names: Mapping[str, str | None], phone: str | None, user_id: str | None) -> str | None:
    """The name of somebody, by number or id."""
    return names.get(phone or "") or names.get(user_id or "")


def _words(kind: str, part: dict[str, Any], whole: object) -> tuple[str | None, tuple[str, ...]]:
    """What a message says in words, and which of it may be a word that stops."""
    match kind:
        case "text":
            return a_text(part.get("body")), texts(part.get("body"))
        case "button":
            return a_text(part.get("text")), texts(part.get("text"), part.get("payload"))
        case "interactive":
            chosen = an_object(part.get(str(part.get("type", ""))))
            return a_text(chosen.get("title", chosen.get("body"))), texts(chosen.get("title"), chosen.get("id"))
        case "reaction":  # taken back, it has none
            return a_text(part.get("emoji")) or None, ()
        case "location":
            return a_text(part.get("name") or part.get("address")) or _place(part), ()
        case "contacts":
            cards = cast("list[object]", whole) if isinstance(whole, list) else []
            names = [a_text(an_object(an_object(card).get("name")).get("formatted_name")) for card in cards]
            return ", ".join(name for name in names if name) or None, ()
        case "order":
            return a_text(part.get("text")), ()
        case "system":
            return a_text(part.get("body")), ()
        case _:  # what is written under a picture is said; how a file is called is not
            return a_text(part.get("caption", part.get("filename"))), texts(part.get("caption"))


def _file(part: dict[str, Any]) -> File | None:
    id_ = a_text(part.get("id"))
    return File(id_, a_text(part.get("mime_type")), a_text(part.get("filename"))) if id_ else None


def _changed(system: dict[str, Any]) -> Changed | None:
    """A new number or id. Meta has named the fields of this news differently over the years."""
    phone = a_text(system.get("wa_id", system.get("new_wa_id")))
    user_id = a_text(system.get("user_id", system.get("new_user_id")))
    changes = str(system.get("type", "")).endswith(("changed_number", "changed_user_id", "user_id_changed"))
    return Changed(*who(phone, user_id)) if changes and (phone or user_id) else None


def _place(part: dict[str, Any]) -> str | None:
    latitude, longitude = part.get("latitude"), part.get("longitude")
    return None if latitude is None or longitude is None else f"{latitude}, {longitude}"
