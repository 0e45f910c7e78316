"""What gateways report to us: verified on the raw bytes, stored, and only then answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import jwt
import msgspec
from aiohttp import web
from jwt.warnings import InsecureKeyLengthWarning
from loguru import logger

from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.messages import Ack, Outgoing
from harkara.gateway.parts import MOST_ITEMS, TooMany
from harkara.gateway.parts import parts as parts_of
from harkara.gateway.reports import parse
from harkara.gateway.told import InboundMessage, Preference, quoting
from harkara.gateway.unread import UNREADABLE
from harkara.http.context import Context, database_errors
from harkara.http.holding import holding_words, not_accepted
from harkara.http.pipeline import read
from harkara.http.problems import Problem, forbidden, malformed, not_found, unauthenticated, unavailable
from harkara.schemas.work import Inbound
from harkara.storage.halting import WAKE_SENDER
from harkara.storage.holding import Speakers
from harkara.storage.storage import Storage
from harkara.vault import Vault

if TYPE_CHECKING:
    from harkara.http.door import Door

#: Meta's own limit is 3 MB.
BODY_LIMIT = 3 * 1024 * 1024

#: How long a sender's secrets are believed without asking the database, should the nudge have been lost.
TRUSTED_FOR = timedelta(seconds=30)

#: Secrets that do not fit are asked for again, but not more often than this.
ASKED_AGAIN_AFTER = timedelta(seconds=1)

#: How long the broker has to store a webhook; a gateway that hears 503 sends it again.
PATIENCE = timedelta(seconds=4)

REMEMBERED = 10_000

#: A gateway's clock may differ from ours by so much.
CLOCKS_DIFFER = timedelta(minutes=1)

FIND_SENDER = "select app_secret, verify_token, provider from senders where id = $1"


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What the Cloud API asks when it is given our address."""

    mode: str = msgspec.field(name="hub.mode", default="")
    token: str = msgspec.field(name="hub.verify_token", default="")
    challenge: str = msgspec.field(name="hub.challenge", default="")


@dataclass(frozen=True, slots=True)
class Source:
    """A sender as its webhooks need it."""

    id: UUID
    tenant: str
    app_secret: str | None
    verify_token: str
    asked_at: datetime
    provider: str = "cloud"

    def signs(self, body: bytes, signature: str) -> bool:
        """Whether this signature (`sha256=` and hex digits) is this sender's on exactly this body. In constant time."""
        if self.app_secret is None:
            return False
        expected = "sha256=" + hmac.digest(self.app_secret.encode(), body, "sha256").hex()
        return hmac.compare_digest(expected.encode(), signature.encode())

    def signs_as_waha(self, body: bytes, signature: str) -> bool:
        """Whether these hex digits are WAHA's HMAC with SHA-512 of exactly this body. In constant time."""
        if self.app_secret is None:
            return False
        expected = hmac.digest(self.app_secret.encode(), body, "sha512").hex()
        return hmac.compare_digest(expected.encode(), signature.lower().encode())

    def admits(self, authorization: str) -> bool:
        """Whether a bearer shows this sender's secret: as it is, or as a token made with it (HS256) that holds."""
        kind, _, token = authorization.partition(" ")
        if self.app_secret is None or kind.lower() != "bearer":
            return False
        if hmac.compare_digest(self.app_secret.encode(), token.encode()):
            return True
        try:
            with warnings.catch_warnings():  # a short secret is the tenant's own choice
                warnings.simplefilter("ignore", InsecureKeyLengthWarning)
                jwt.decode(
                    token, self.app_secret, algorithms=["HS256"], options={"require": ["exp"]}, leeway=CLOCKS_DIFFER
                )
        except jwt.PyJWTError:
            return False
        return True

    def knows(self, token: str) -> bool:
        """Whether this is the sender's verify token. In constant time."""
        return hmac.compare_digest(self.verify_token.encode(), token.encode())


class Sources:
    """Senders by id, with their secrets: asked from the database and believed for half a minute."""

    def __init__(self, storage: Storage, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._storage, self._vault, self._clock = storage, vault, clock
        self._known: dict[UUID, Source] = {}

    async def get(self, sender: UUID, fits: Callable[[Source], bool]) -> Source:
        """The sender, whether it fits or not; asked for anew if what is known of it does not fit.

        Raises Problem 404 if there is none, 503 if it can't be known now.
        """
        known, now = self._known.get(sender), self._clock()
        if known is not None:
            age = now - known.asked_at
            if age < ASKED_AGAIN_AFTER or (age < TRUSTED_FOR and fits(known)):
                return known
        found = await self._ask(sender, now)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[sender] = found
        return found

    def forget(self, sender: bytes) -> None:
        """Ask the database again: the sender with this id (as text) was changed here or elsewhere."""
        with suppress(ValueError):
            self._known.pop(UUID(sender.decode()), None)

    async def _ask(self, sender: UUID, now: datetime) -> Source:
        self._known.pop(sender, None)
        with database_errors():
            async with self._storage.anonymous() as con:
                tenant = await con.fetchval("select app.sender_tenant($1)", sender)
            if tenant is None:
                raise not_found("sender")
            async with self._storage.batch((tenant,)) as con:
                row = await con.fetchrow(FIND_SENDER, sender)
        if row is None:
            raise not_found("sender")
        try:
            secret = self._vault.open(row["app_secret"])
        except ValueError as error:
            logger.bind(tenant=tenant, sender=str(sender)).error("A webhook can't be verified: {}", error)
            raise unavailable("the store of secrets", retry_after_s=60) from None
        return Source(sender, tenant, secret, row["verify_token"], now, row["provider"])


def sender_changed(door: Door, sender: UUID) -> None:
    """Secrets that were known of this sender count no longer, in no process. Call it when the change is committed."""
    changed = str(sender).encode()
    door.sources.forget(changed)
    door.publisher.wake(WAKE_SENDER, changed)


async def confirm_whatsapp(ctx: Context[None, Challenge]) -> web.Response:
    """The handshake with which the Cloud API makes sure that this address is ours: give its challenge back."""
    token, challenge = ctx.query.token, ctx.query.challenge
    source = await ctx.door.sources.get(ctx.id("sender_id"), lambda one: one.knows(token))
    if ctx.query.mode != "subscribe" or not challenge:
        raise malformed("hub.mode=subscribe, hub.verify_token and hub.challenge are needed")
    if not source.knows(token):
        raise forbidden("hub.verify_token is not this sender's: use the one shown when the sender was made")
    return web.Response(text=challenge, headers={"X-Content-Type-Options": "nosniff"})


async def receive_whatsapp(ctx: Context[None, None]) -> dict[str, str]:
    """A Cloud API webhook: statuses and messages. Answered when the broker has stored it, so that nothing is lost.

    Once it is answered, nothing leaves that what it says will stop.
    """
    sender = ctx.id("sender_id")
    signature = ctx.request.headers.get("X-Hub-Signature-256", "")
    await ctx.door.sources.get(sender, lambda _: True)
    body = await read(ctx.request, BODY_LIMIT)
    source = await ctx.door.sources.get(sender, lambda one: one.signs(body, signature))
    if not signature:
        raise unauthenticated("X-Hub-Signature-256 is missing: sign the raw body with the sender's app secret")
    if not source.signs(body, signature):
        raise unauthenticated("X-Hub-Signature-256 does not fit the body: check the sender's app_secret")
    await _store(ctx, source, "whatsapp", _readable(body), uuid5(sender, signature))
    return {"status": "accepted"}


async def receive_evolution(ctx: Context[None, None]) -> dict[str, str]:
    """An Evolution API webhook: messages, acknowledgements, and how the phone is linked.

    Evolution signs no body: `Authorization: Bearer` must be the sender's app_secret, or a token made with it, which
    Evolution sends by itself where the header `jwt_key` was set for the webhook (starting the session does that).
    """
    sender = ctx.id("sender_id")
    shown = ctx.request.headers.get("Authorization", "")
    source = await ctx.door.sources.get(sender, lambda one: one.admits(shown))
    body = await read(ctx.request, BODY_LIMIT)
    if not _of_provider(source, "evolution").admits(shown):
        raise unauthenticated(
            "Authorization must be Bearer with the app_secret, or a token made with it: start the sender's session"
        )
    await _store(ctx, source, "evolution", _readable(body), uuid5(sender, hashlib.sha256(body).hexdigest()))
    return {"status": "accepted"}


async def receive_waha(ctx: Context[None, None]) -> dict[str, str]:
    """A WAHA webhook: messages, acknowledgements, and how the phone is linked; signed with the sender's app_secret."""
    sender = ctx.id("sender_id")
    signature = ctx.request.headers.get("X-Webhook-Hmac", "")
    await ctx.door.sources.get(sender, lambda _: True)
    body = await read(ctx.request, BODY_LIMIT)
    source = _of_provider(await ctx.door.sources.get(sender, lambda one: one.signs_as_waha(body, signature)), "waha")
    if not signature:
        raise unauthenticated("X-Webhook-Hmac is missing: set the webhook's hmac.key, or start the sender's session")
    if not source.signs_as_waha(body, signature):
        raise unauthenticated("X-Webhook-Hmac does not fit the body: check the sender's app_secret")
    await _store(ctx, source, "waha", _readable(body), uuid5(sender, hashlib.sha256(body).hexdigest()))
    return {"status": "accepted"}


def _of_provider(source: Source, provider: str) -> Source:
    """Raises Problem 404 if it is another kind of sender's: what one gateway says is no proof at another's address."""
    if source.provider != provider:
        raise not_found(f"{provider} sender")
    return source


#: An escape in a JSON text; one that is half of a surrogate pair without the other is named `half`.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _readable(body: bytes) -> bytes:
    """The body as what it says can be read. Raises Problem 400 if it is no JSON object.

    Names and texts that a gateway has cut in the middle of a character hold half of it: refused for that, the whole
    body would never be heard, and a word of somebody else's may stand beside it.
    """
    try:
        return _checked(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        whole = body.decode("utf-8", "replace").encode()
        mended = _ESCAPE.sub(lambda found: rb"\ufffd" if found["half"] else found[0], whole)
    try:
        return _checked(mended)
    except msgspec.ValidationError:
        raise malformed("the body is JSON, but no object: a webhook's body is one") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed(f"the body is not a JSON object: {error}") from None


def _checked(body: bytes) -> bytes:
    str(body, "utf-8")
    msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return body


async def _store(ctx: Context[Any, Any], source: Source, name: str, body: bytes, id_: UUID) -> None:
    """Store it under ids that are the same when the same body comes again. Raises Problem 503 unless all is stored.

    What says much is stored in parts, each a webhook of its own, so that it is read in pieces and by turns.
    """
    try:
        parts = dict(zip(_ids(id_), parts_of(name, body), strict=False))
    except TooMany:
        raise malformed(f"the webhook has more than {MOST_ITEMS} items: Meta's have at most 1,000") from None
    if len(parts) > 1 and (wait_s := ctx.door.crowds.wait_s(source.tenant, len(parts))):
        told = "this tenant's large webhooks are still being read: come back after the seconds that Retry-After says"
        raise Problem(503, told, headers={"Retry-After": str(ceil(wait_s))})
    outs = [
        Outgoing(
            Inbound(source=name, sender_id=str(source.id), body=msgspec.Raw(part)), source.tenant, str(word), ctx.cause
        )
        for word, part in parts.items()
    ]
    words = {word: who for word, part in parts.items() if any(who := _who_speaks(name, part, ctx.came_at))}
    if not words:
        await _publish(ctx, outs)
        return
    storage = ctx.door.storage
    async with holding_words(storage, source.tenant, words) as held:
        acks = await _publish(ctx, outs)
        for word, ack in zip(parts, acks, strict=True):
            if ack.duplicate and word in held:  # nobody will do again what was done
                await not_accepted(storage, source.tenant, word, held[word])


def _ids(whole: UUID) -> Iterator[UUID]:
    """The ids of a webhook's parts; the first is the webhook's own."""
    yield whole
    yield from (uuid5(whole, str(place)) for place in count(1))


#: Statuses of the Cloud API, of which there are many more, say nothing that stops anything.
_SPEAKS = re.compile(rb'"(?:messages|user_preferences|calls)"\s*:')


def _who_speaks(source: str, body: bytes, at: datetime) -> Speakers:
    """Those who say something in a webhook."""
    if source == "whatsapp" and not _SPEAKS.search(body):
        return Speakers()
    try:
        found = parse(source, body, at).values()
    except UNREADABLE:  # nobody can do what it says
        return Speakers()
    messages = [one for webhook in found for one in webhook.messages]
    who: list[InboundMessage | Preference] = [*messages, *(one for webhook in found for one in webhook.preferences)]
    phones = {f"+{one.phone}" for one in who if one.phone}
    users = {one.user_id for one in who if one.user_id}
    return Speakers(sorted(phones), sorted(users), sorted({wamid for _, wamid in quoting(messages)}))


async def _publish(ctx: Context[Any, Any], outs: Sequence[Outgoing]) -> list[Ack]:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            return await ctx.door.publish_all(outs)
    except (Unavailable, Full, TimeoutError):
        raise unavailable("the broker", retry_after_s=5) from None
    except Refused as error:
        raise Problem(422, f"the broker refuses this webhook: {error}") from None
