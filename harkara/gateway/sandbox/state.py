"""The sandbox itself: accepts what a business sends, takes what a phone writes, and remembers both."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from harkara.gateway.sandbox.faults import Faults
from harkara.gateway.sandbox.graph_error import GraphError
from harkara.gateway.sandbox.hub import Hub
from harkara.gateway.sandbox.media import Media
from harkara.gateway.sandbox.numbers import Numbers, user_id
from harkara.gateway.sandbox.policy import Enforcer, find_template
from harkara.gateway.sandbox.store import ARRIVED, DELIVERED, FAILED, READ, SENT, Row, Store, new_wamid
from harkara.gateway.sandbox.webhooks import Arrival, Webhooks
from harkara.gateway.sandbox.wire import Outgoing, digits, media_ids


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When statuses come, in milliseconds, each counted from the one before; null means never.

    `read_rate` is the share of messages that are read at all. A message keeps the pace it was accepted with.
    """

    sent_ms: int | None = 100
    delivered_ms: int | None = 300
    read_ms: int | None = 1500
    read_rate: float = 0.7

    def problem(self) -> str | None:
        """What is wrong with this pace, if anything."""
        if not 0 <= self.read_rate <= 1:
            return "read_rate must be from 0 to 1"
        waits = (self.sent_ms, self.delivered_ms, self.read_ms)
        return "a wait must not be negative" if any(wait is not None and wait < 0 for wait in waits) else None

    def times(self, now: int) -> tuple[int | None, int | None, int | None]:
        """When a message accepted now is sent, delivered and read."""
        sent = None if self.sent_ms is None else now + self.sent_ms
        delivered = None if sent is None or self.delivered_ms is None else sent + self.delivered_ms
        if delivered is None or self.read_ms is None or random.random() >= self.read_rate:  # noqa: S311
            return sent, delivered, None
        return sent, delivered, delivered + self.read_ms


class Sandbox:
    """All parts together. `start` and `stop` bracket everything else."""

    def __init__(self, data: Path, *, strict: bool = False) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.store = Store(data / "sandbox.db")
        self.numbers = Numbers(self.store, strict=strict)
        self.media = Media(self.store, data / "media")
        self.enforcer = Enforcer(self.store)
        self.faults = Faults(self.store)
        self.hub = Hub()
        self.webhooks = Webhooks(self.store, self.numbers, self.faults)
        self.pace = self.store.setting("pace", Pace, Pace())
        self.closing = asyncio.Event()

    async def start(self) -> None:
        """Take up what was left owing."""
        await self.webhooks.start()

    async def stop(self) -> None:
        """Stop delivering and close the files; nothing is lost."""
        self.close_streams()
        await self.webhooks.stop()
        self.store.close()

    def close_streams(self) -> None:
        """End the requests that would otherwise last for ever."""
        self.closing.set()
        self.hub.close()

    def set_pace(self, pace: Pace) -> None:
        """Change when statuses of messages accepted from now on come."""
        self.pace = pace
        self.store.save_setting("pace", pace)

    def check(self, number: str, message: Outgoing) -> None:
        """Refuse (GraphError) what names unknown files or breaks the policy."""
        for media_id in media_ids(message):
            if self.media.get(media_id) is None:
                raise GraphError(
                    131009,
                    f"Param {message.type}['id'] is not a valid whatsapp business account media attachment ID",
                )
        known = self.numbers.get(number)
        waba = known.waba_id or None if known is not None else None
        if known is not None and known.display_phone_number and digits(known.display_phone_number) == message.chat:
            raise GraphError(131021, "Recipient phone number cannot be the same as the sender phone number.")
        self.enforcer.check(number, waba, message)

    async def accept(self, number: str, message: Outgoing, failed: int | None) -> Row:
        """Keep a message and schedule its statuses; with `failed`, the only status is that failure."""
        store = self.store
        now = store.now()
        sent, delivered, read = self.pace.times(now)
        failed_at = None
        if failed is not None:
            failed_at, sent, delivered, read = sent or now, None, None, None
        registered = self.numbers.get(number)
        planned = 0
        if registered is not None and registered.url:
            planned = _bits(sent, delivered, read, failed_at)
        message_id = store.next_id()
        row = Row(
            message_id,
            0,
            new_wamid(message.chat, message_id),
            sys.intern(number),
            message.chat,
            message.to,
            sys.intern(message.type),
            message.content,
            message.opaque,
            message.context,
            now,
            sent,
            delivered,
            read,
            failed_at,
            failed,
            planned,
        )
        store.append(row)
        await store.committed()
        self.webhooks.plan(row)
        self._tell(row)
        return row

    async def receive(self, number: str, chat: str, kind: str, arrival: Arrival, context: str | None) -> Row:
        """Take a message that a phone writes to a business number, and owe its webhook."""
        store = self.store
        now = store.now()
        registered = self.numbers.get(number)
        planned = ARRIVED if registered is not None and registered.url else 0
        message_id = store.next_id()
        row = Row(
            message_id,
            1,
            new_wamid(chat, message_id),
            number,
            chat,
            chat,
            kind,
            msgspec.json.encode(arrival),
            None,
            context,
            now,
            planned=planned,
        )
        store.append(row)
        if arrival.contact.get("name"):
            store.write("REPLACE INTO contacts VALUES (?, ?)", chat, msgspec.json.encode(arrival.contact))
        await store.committed()
        self.enforcer.count_inbound(number)
        self.webhooks.plan(row)
        self._tell(row)
        return row

    async def mark_read(self, number: str, wamid: str, *, typing: bool) -> None:
        """The business has read a phone's messages up to this one. Raises GraphError if it doesn't exist."""
        row = self.store.by_wamid(wamid)
        if row is None or not row.inbound or row.number != number:
            raise GraphError(131009, "Param message_id is not a message that this number has received.")
        statement = (
            "UPDATE messages SET read_at = ? WHERE chat = ? AND number = ? AND inbound AND id <= ? AND read_at IS NULL"
        )
        self.store.write(statement, self.store.now(), row.chat, number, row.id)
        await self.store.committed()
        news = {"kind": "read", "number": number, "chat": row.chat, "id": row.id, "typing": typing}
        self.hub.tell(news)

    def _tell(self, row: Row) -> None:
        """Show a new message on the open pages."""
        if self.hub.listening:
            chat = self.chat(row.number, row.chat)
            self.hub.tell({"kind": "message", "chat": chat, "message": self.shown(row)})

    def chat(self, number: str, chat: str) -> dict[str, Any]:
        """A chat as the phone page gets it, with the profile name if it is known."""
        registered = self.numbers.get(number)
        found = self.store.select("SELECT json_extract(body, '$.name') FROM contacts WHERE chat = ?", chat)
        return {
            "number": number,
            "display": registered.display if registered is not None else number,
            "chat": chat,
            "name": found[0][0] or "" if found else "",
        }

    def shown(self, row: Row) -> dict[str, Any]:
        """A message as the phone page gets it: the page itself knows by the times which ticks to show."""
        template = self._template(row) if row.type == "template" and not row.inbound else None
        return {
            "template": template,
            "id": row.id,
            "wamid": row.wamid,
            "inbound": bool(row.inbound),
            "number": row.number,
            "chat": row.chat,
            "type": row.type,
            "content": said(row),
            "context": row.context,
            "at": row.at,
            "sent_at": row.sent_at,
            "delivered_at": row.delivered_at,
            "read_at": row.read_at,
            "failed_at": row.failed_at,
            "error": row.error,
        }

    def _template(self, row: Row) -> dict[str, Any] | None:
        """What a template message refers to, if that template was registered."""
        content = said(row)
        number = self.numbers.get(row.number)
        waba = number.waba_id or None if number is not None else None
        return find_template(self.store, waba, content["name"], content["language"]["code"])


def said(row: Row) -> Any:
    """What a message says: the object that its type names."""
    content = msgspec.json.decode(row.content)
    return content["fields"].get(row.type) if row.inbound else content


def accepted_answer(row: Row, *, is_user_id: bool) -> bytes:
    """The Cloud API's answer to an accepted message."""
    contact = {"input": row.address}
    contact |= {"user_id": user_id(row.chat)} if is_user_id else {"wa_id": row.chat}
    message = {"id": row.wamid}
    if row.type == "template":
        message["message_status"] = "accepted"
    return msgspec.json.encode({"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]})


def _bits(*times: int | None) -> int:
    bits = (SENT, DELIVERED, READ, FAILED)
    return sum(bit for bit, time in zip(bits, times, strict=True) if time is not None)


#: Where the handlers find the sandbox.
SANDBOX: web.AppKey[Sandbox] = web.AppKey("sandbox", Sandbox)
