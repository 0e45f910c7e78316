"""A client of the front door, and shortcuts to what tests need there."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from aiohttp import ClientSession
from conformity import conformity
from msgspec import UNSET
from multidict import CIMultiDictProxy
from support import an_invoice

from harkara.bus import headers
from harkara.bus.messages import Ack, Packet
from harkara.http.door import Door
from harkara.ids import uuid7
from harkara.storage.media import key_of
from harkara.storage.storage import Storage

SECRET = "a secret of thirty-two bytes, or more"
PASSWORD = "correct horse battery"

#: All numbers of nine digits, in an order that looks like chance and gives none twice: of some thousands that are drawn
#: by lot, two are the same now and then.
_numbers = itertools.count(uuid4().int % 10**9, 618_033_989)


@dataclass(frozen=True)
class Answer:
    """What the front door said."""

    status: int
    body: Any
    headers: CIMultiDictProxy[str]
    text: str

    def is_problem(self, status: int) -> Answer:
        """Fail unless it is a problem document with this status; give it back."""
        assert self.status == status, f"{self.status} instead of {status}: {self.text[:500]}"
        assert self.headers["Content-Type"].startswith("application/problem+json")
        assert self.body["status"] == status
        assert self.body["type"]
        assert self.body["title"]
        assert self.body["detail"]
        return self

    def faults(self) -> dict[str, str]:
        """The named faults: path -> message."""
        return {error["path"]: error["message"] for error in self.body.get("errors", [])}


@dataclass
class Api:
    """The front door at an address."""

    url: str
    session: ClientSession
    door: Door

    async def call(
        self, method: str, path: str, *, body: Any = UNSET, data: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request under /api/v1, or exactly at a path that begins with `//`.

        Whatever comes back must be as the API's description says.
        """
        url = self.url + (path[1:] if path.startswith("//") else f"/api/v1{path}")
        sent = dict(headers or {})
        if body is not UNSET:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        async with self.session.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
            text = await response.text()
            kind = response.headers.get("Content-Type", "")
            conformity().check(method, response.url.path, response.status, kind, await response.read())
            is_json = kind.partition(";")[0].endswith("json")
            return Answer(response.status, json.loads(text) if is_json and text else None, response.headers, text)


@dataclass
class Account:
    """Somebody who calls the API for a tenant."""

    api: Api
    tenant: str
    email: str
    tokens: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        more["headers"] = {**self.headers, **more.get("headers", {})}
        return await self.api.call(method, path, **more)

    async def get(self, path: str, status: int = 200) -> Any:
        """The body of a GET that must answer with this status."""
        answer = await self.call("GET", path)
        assert answer.status == status, answer.text
        return answer.body

    async def post(self, path: str, body: Any = UNSET, status: int = 201) -> Any:
        """The body of a POST that must answer with this status."""
        answer = await self.call("POST", path, body=body)
        assert answer.status == status, answer.text
        return answer.body

    async def sender(self, **more: Any) -> str:
        """The id of a new sender whose provider isn't there."""
        wanted = {
            "name": "Shop", "provider": "cloud", "phone_number_id": str(uuid4().int)[:15],
            "access_token": "a-token", "app_secret": "a-secret",
        }  # fmt: skip
        return str((await self.post("/senders", wanted | more))["id"])

    async def contact(self, **more: Any) -> str:
        """The id of a new contact who consents."""
        wanted = {"name": "Asha Rao", "phone": a_phone(), "consent": True}
        return str((await self.post("/contacts", wanted | more))["id"])

    async def campaign(self, *steps: dict[str, Any], active: bool = True) -> str:
        """The id of a new campaign with these steps, or one greeting."""
        sender = await self.sender()
        made = (await self.post("/campaigns", {"name": "Welcome", "type": "drip", "sender_id": sender}))["id"]
        for step in steps or ({"name": "hello", "delay_hours": 0, "body": "Hi {{ first_name }}"},):
            await self.post(f"/campaigns/{made}/steps", step)
        if active:
            await self.post(f"/campaigns/{made}/activate", status=200)
        return str(made)


def a_phone() -> str:
    """An Indian number that no other test has."""
    return f"+919{next(_numbers) % 10**9:09d}"


def a_line() -> tuple[str, str]:
    """A Brazilian mobile number that no other test has, with its ninth digit and without."""
    rest = f"8{next(_numbers) % 10**7:07d}"
    return f"+55119{rest}", f"+5511{rest}"


async def make_account(api: Api) -> Account:
    """Sign up a new tenant."""
    tenant = f"t-{uuid4().hex[:12]}"
    email = f"owner@{tenant}.example"
    wanted = {"tenant": {"id": tenant, "name": tenant.upper()}, "email": email, "password": PASSWORD}
    answer = await api.call("POST", "/auth/signup", body=wanted)
    assert answer.status == 201, answer.text
    return Account(api, tenant, email, answer.body, {"Authorization": f"Bearer {answer.body['access_token']}"})


def in_order(count: int) -> list[UUID]:
    """So many new ids, each surely younger than the one before: within a millisecond their order is chance."""
    now = datetime.now(UTC)
    return [uuid7(now - timedelta(milliseconds=10 * (count - number))) for number in range(count)]


def is_uuid7(text: str) -> bool:
    return UUID(text).version == 7


@dataclass
class Things:
    """One of everything that has an id, by the name of its path parameter."""

    ids: dict[str, str]
    campaign_draft: str


async def dead_letter(account: Account, actor: str = "enrollment", was: str = "cmd.enrollment.start") -> UUID:
    """Work of this tenant that this actor gave up; the id of the dead letter."""
    bus = account.api.door.bus
    assert bus is not None
    told = {
        headers.DEDUPE: f"dead.{uuid7()}",
        headers.ID: str(uuid7()),
        headers.SUBJECT: f"t.{account.tenant}.{was}",
        headers.ACTOR: actor,
        headers.REASON: "gave up after 8 attempts",
        headers.ATTEMPT: "8",
    }
    subject = f"t.{account.tenant}.dead.{actor}"
    (stored,) = await bus.publisher.send([Packet(subject, b'{"lane":"otp","body":"secret 4711"}', told)])
    assert isinstance(stored, Ack), stored
    found = [one async for one in bus.dead.find(account.tenant, actor) if one.seq == stored.seq]
    return found[0].id


async def things(account: Account, storage: Storage) -> Things:
    """Make one of everything."""
    contact, campaign = await account.contact(name="Secret person"), await account.campaign()
    draft = await account.campaign(active=False)
    sender = (await account.get(f"/campaigns/{campaign}"))["sender_id"]
    key = (await account.post("/api-keys", {}))["id"]
    user = (await account.post("/users", {"email": f"agent@{account.tenant}.example", "role": "agent"}))["id"]
    conversation, message, import_, media = uuid7(), uuid7(), uuid7(), uuid7()
    async with storage.tenant(account.tenant) as con:
        await con.execute(
            "insert into imports (id, status, encoding, delimiter, header, acting, cause, read_at, rows, rows_done,"
            " chunks, created, updated, duplicates, errors)"
            " values ($1, 'queued', 'utf-8', ',', '[]', '', '', now(), 0, 0, 0, 0, 0, 0, 0)",
            import_,
        )
        await con.execute(
            "insert into conversations (id, contact_id, sender_id) values ($1, $2, $3)",
            conversation,
            UUID(contact),
            UUID(sender),
        )
        await con.execute(
            'insert into messages (id, contact_id, sender_id, campaign_id, lane, "to", content, status, due_at)'
            " values ($1, $2, $3, $4, 'utility', '+919876543210', '{\"body\":\"secret\"}', 'sent', now())",
            message,
            UUID(contact),
            UUID(sender),
            UUID(campaign),
        )
        await con.execute(
            "insert into replies (id, conversation_id, contact_id, sender_id, wamid, type, text, payload, received_at)"
            " values ($1, $2, $3, $4, 'w', 'text', 'secret', '{}', now())",
            uuid7(),
            conversation,
            UUID(contact),
            UUID(sender),
        )
        await con.execute(
            "insert into media (id, reply_id, contact_id, gateway_id, status, size)"
            " values ($1, $2, $3, '1', 'stored', 3)",
            media,
            uuid7(),
            UUID(contact),
        )
    assert account.api.door.blobs is not None
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"abc")
        file.flush()
        await account.api.door.blobs.put(key_of(account.tenant, media), Path(file.name), "image/png")
    step = (await account.get(f"/campaigns/{draft}/steps"))["items"][0]["id"]
    version = (await account.get(f"/campaigns/{draft}/versions"))["items"][0]["id"]
    segment = (await account.post("/segments", {"name": "VIPs", "condition": {"type": "tag", "tag": "vip"}}))["id"]
    phone = (await account.post(f"/contacts/{contact}/phone-numbers", {"phone": a_phone()}))["id"]
    lead = (await account.post("/leads", {"contact_id": contact}))["id"]
    invoice = (await account.post("/invoices", an_invoice(contact)))["id"]
    ids = {
        "contact_id": contact,
        "campaign_id": campaign,
        "sender_id": sender,
        "key_id": key,
        "user_id": user,
        "step_id": step,
        "version_id": version,
        "segment_id": segment,
        "conversation_id": str(conversation),
        "message_id": str(message),
        "phone_id": phone,
        "lead_id": lead,
        "invoice_id": invoice,
        "import_id": str(import_),
        "letter_id": str(await dead_letter(account)),
        "media_id": str(media),
    }
    return Things(ids, draft)
