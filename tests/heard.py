"""One contact who is enrolled, and what the receipts hear of them; `from heard import World`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
from enrolled import Enrolled

from harkara.actors.receipts import Receipts
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done
from harkara.schemas.work import Inbound
from harkara.storage.models import Contact, Reply
from harkara.storage.storage import Storage

PHONE = "+919876543210"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Quiet:
    """A publisher that nobody hears."""

    def wake(self, *_: Any) -> None:
        """Nobody."""


@dataclass
class World:
    """One contact who is enrolled, and the receipts."""

    storage: Storage
    one: Enrolled

    @property
    def tenant(self) -> str:
        return self.one.tenant

    def delivery(
        self, *values: dict[str, Any], field: str = "messages", deliveries: int = 1, came: datetime = AT, seq: int = 1
    ) -> Delivery[Inbound]:
        changes = [{"field": field, "value": value} for value in values]
        body = json.dumps({"object": "whatsapp_business_account", "entry": [{"changes": changes}]}).encode()
        inbound = Inbound(source="whatsapp", sender_id=str(self.one.sender), body=msgspec.Raw(body))
        return Delivery(
            inbound, self.tenant, str(uuid4()), "", 1, f"t.{self.tenant}.in.whatsapp", "INBOUND", seq, came, deliveries
        )

    async def hears(self, *deliveries: Delivery[Inbound]) -> list[Outgoing]:
        """Everything that is told of webhooks that came at once."""
        quiet: Any = Quiet()
        outcomes = await Receipts(self.storage, quiet).handle(deliveries)
        told: list[Outgoing] = []
        for outcome in outcomes:
            assert isinstance(outcome, Done), outcome
            told += outcome.events
        return told

    async def hears_message(self, **message: Any) -> list[Outgoing]:
        return await self.hears(self.delivery(said(**message)))

    async def told_later(self) -> list[str]:
        """What is told once it is committed, by whoever empties the outbox."""
        async with self.storage.tenant(self.tenant) as con:
            subjects = [row[0] for row in await con.fetch("select subject from outbox order by id")]
        return [subject.rpartition(".evt.")[2] for subject in subjects]

    async def replies(self) -> Sequence[Reply]:
        async with self.storage.tenant(self.tenant):
            return await Reply.all().order_by("id")

    async def contact(self) -> Contact:
        async with self.storage.tenant(self.tenant):
            return await Contact.get(id=self.one.contact)


def said(*, second: int = 0, wamid: str | None = None, phone: str | None = PHONE, **message: Any) -> dict[str, Any]:
    """The value of a webhook with one message."""
    who = {"from": phone.removeprefix("+")} if phone else {}
    common = {"id": wamid or f"wamid.{uuid4()}", "timestamp": str(int((AT + timedelta(seconds=second)).timestamp()))}
    return {"messaging_product": "whatsapp", "messages": [who | common | message]}


def names(told: list[Outgoing]) -> list[str]:
    return [one.message.subject.rpartition(".evt.")[2] for one in told]
