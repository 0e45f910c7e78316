"""Who may connect, and what they may do there: the broker asks for each connection (its auth callout)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Protocol

import msgspec
from loguru import logger
from nats.aio.msg import Msg

from harkara.bus.link import Link
from harkara.http.access import scopes_suffice
from harkara.http.address import customer_of
from harkara.http.authenticate import in_force
from harkara.http.door import Door
from harkara.http.feed import ACCESS as FEED
from harkara.http.identity import hash_of
from harkara.http.keyring import Key
from harkara.http.limits import Decision
from harkara.http.problems import Problem, unauthenticated
from harkara.nkeys import AccountKey, claims_of
from harkara.partners.durables import STREAM, name_of

#: Where the broker asks, in the account AUTH. All front doors together are one queue: one of them answers.
ASKED = "$SYS.REQ.USER.AUTH"
QUEUE = "harkara"

#: The account all partners are in.
ACCOUNT = "PARTNERS"

#: The broker gives up after two seconds.
PATIENCE = timedelta(seconds=1.8)

#: Questions answered at the same time; the broker asks the next ones again when their clients come again.
MOST_AT_ONCE = 1_000


class _Opened(msgspec.Struct):
    """What a client brings."""

    user: str = ""
    password: str = msgspec.field(name="pass", default="")


class _Client(msgspec.Struct):
    host: str = ""


class _Server(msgspec.Struct):
    id: str


class _Asked(msgspec.Struct):
    """The broker's question: who is it that comes to this server."""

    user_nkey: str
    server_id: _Server
    connect_opts: _Opened
    client_info: _Client


class Crowds(Protocol):
    """Knows who has too much already."""

    def keeps_out(self, tenant: str, digest: str) -> bool:
        """Whether no more connections of this tenant, or of the key with this hash, are let in for now."""
        ...


class Admission:
    """Answers the broker's questions."""

    def __init__(self, door: Door, link: Link, key: AccountKey, crowds: Crowds) -> None:
        self._door, self._link, self._account_key, self._crowds = door, link, key, crowds
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, message: Msg) -> None:
        """Answer one question: at once if the key is known, else in a task of its own."""
        try:
            asked = msgspec.convert(claims_of(message.data)["nats"], _Asked)
        except (ValueError, LookupError):
            logger.error("the broker's question about a connection can't be read")
            return
        try:
            known = self._known(asked)
        except Problem as problem:
            self._answer(message, asked, {"error": problem.detail})
            return
        if known is not None:
            self._answer(message, asked, self._granted(asked, known))
        elif len(self._tasks) < MOST_AT_ONCE:
            task = asyncio.create_task(self._look_up(message, asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Answer what was asked."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _look_up(self, message: Msg, asked: _Asked) -> None:
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                said = self._granted(asked, await self._admitted(asked))
        except Problem as problem:
            said = {"error": problem.detail}
        except TimeoutError:
            said = {"error": "the database does not answer: try again"}
        self._answer(message, asked, said)

    def _answer(self, message: Msg, asked: _Asked, said: dict[str, str]) -> None:
        claims = {
            "sub": asked.user_nkey,
            "aud": asked.server_id.id,
            "nats": {"type": "authorization_response", "version": 2, **said},
        }
        token = self._account_key.token(claims).encode()
        self._link.write(b"PUB %s %d\r\n%s\r\n" % (message.reply.encode(), len(token), token))

    def _granted(self, asked: _Asked, key: Key) -> dict[str, str]:
        """The permissions, as the broker wants them."""
        claims = permissions(key, hash_of(asked.connect_opts.password)) | {"sub": asked.user_nkey}
        return {"jwt": self._account_key.token(claims)}

    def _known(self, asked: _Asked) -> Key | None:
        """The key, if nobody has to be asked; None if the database has to. Raises Problem 429 for who is kept out."""
        counting = self._door.counting
        bucket = counting.stranger("refused", customer_of(asked.client_info.host))
        if bucket.empty_until and (wait := counting.limits.known_empty_for(bucket)):
            raise counting.refuse(Decision(bucket, 0, wait))
        key = self._door.keyring.known_key(asked.connect_opts.password)
        if key is None or key.tenant != asked.connect_opts.user:
            return None
        try:
            in_force(key, self._door.clock())
        except Problem:
            return None  # and counted as it is refused
        self._refuse_crowds(key, asked)
        return key

    async def _admitted(self, asked: _Asked) -> Key:
        """The key. Raises Problem 401 or 429: as over HTTP, who is refused too often is not even looked up."""
        counting = self._door.counting
        try:
            key = in_force(await self._door.keyring.key(asked.connect_opts.password), self._door.clock())
            if key.tenant != asked.connect_opts.user:
                raise unauthenticated("this API key is of another tenant: the user is the tenant's id")
        except Problem as problem:
            if problem.status < 500:
                await counting.limits.take((counting.stranger("refused", customer_of(asked.client_info.host)),))
            raise
        self._refuse_crowds(key, asked)
        return key

    def _refuse_crowds(self, key: Key, asked: _Asked) -> None:
        """Raise Problem 429 for a tenant that has as many connections as it may, and for a key that floods."""
        if self._crowds.keeps_out(key.tenant, hash_of(asked.connect_opts.password)):
            raise Problem(429, "this tenant has too many connections, or this key floods: come back later")


def permissions(key: Key, digest: str) -> dict[str, Any]:
    """What somebody with this key may do on the broker. What its scopes allow of commands is judged at each of them.

    The name goes with every command and every connection: it tells whose it is.
    """
    tenant, durable = key.tenant, name_of(key.id)
    publish, subscribe = [f"t.{tenant}.cmd.>"], [f"_INBOX_{key.id}.>"]
    if scopes_suffice(key.scopes, FEED.scope):
        # An inbox that all keys of the tenant share which may read its events: each sees what the others fetch.
        subscribe += [f"t.{tenant}.evt.>", f"_INBOX_{tenant}.>"]
        publish += [
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable}",
            f"$JS.API.CONSUMER.INFO.{STREAM}.{durable}",
            f"partners.info.{durable}",  # what the broker makes of the line before
            f"$JS.ACK.{STREAM}.{durable}.>",
        ]
    claims: dict[str, Any] = {
        "aud": ACCOUNT,
        "name": f"{tenant}/{digest}",
        "nats": {
            "type": "user",
            "version": 2,
            "pub": {"allow": publish},
            "sub": {"allow": subscribe},
            "subs": -1,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": ["STANDARD", "WEBSOCKET"],
        },
    }
    return claims if key.expires_at is None else claims | {"exp": int(key.expires_at.timestamp())}
