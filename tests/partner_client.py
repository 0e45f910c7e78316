"""Partners for tests: keys of tenants, connected to the broker."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from door_client import Account
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from nats.errors import TimeoutError as NoAnswer
from support import until

#: Commands that change nothing when they come again.
HARMLESS = ("events.open", "events.close", "message.cancel")


@dataclass
class Partner:
    """Somebody with a key of a tenant, connected."""

    account: Account
    key_id: str
    key: str
    client: Client
    #: What the connection complained of, as the broker says it.
    complaints: list[str] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)

    @property
    def tenant(self) -> str:
        return self.account.tenant

    @property
    def durable(self) -> str:
        return f"partner-{self.key_id}"

    async def ask(self, command: str, body: Any = None, headers: dict[str, str] | None = None) -> Msg:
        """The answer to a command; a body that is no bytes is sent as JSON.

        Where that does no harm it is asked again: what is under way when a connection is made anew gets lost.
        """
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        subject = f"t.{self.tenant}.cmd.{command}"
        times = 3 if command in HARMLESS or "Nats-Msg-Id" in (headers or {}) else 1
        for _ in range(times - 1):
            with suppress(NoRespondersError, NoAnswer):
                return await self.client.request(subject, data, headers=headers, timeout=15)
        return await self.client.request(subject, data, headers=headers, timeout=30)

    async def told(self, command: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The same, decoded."""
        return json.loads((await self.ask(command, body, headers)).data)

    async def complains(self, of: str) -> bool:
        """Wait until the connection has complained of something like this."""
        await until(lambda: any(of in told for told in self.complaints), f"a complaint: {of}; {self.complaints}")
        return True


class Join(Protocol):
    """Connects a new key of a tenant, or one that was `made` before; `more` is what nats-py takes."""

    def __call__(
        self, account: Account, *, scopes: list[str] | None = None, made: dict[str, Any] | None = None, **more: Any
    ) -> Awaitable[Partner]: ...


async def join(
    url: str, account: Account, opened: Callable[[Client], None], scopes: list[str] | None, made: Any, more: Any
) -> Partner:
    """A partner at the broker with this address, without user and password.

    The broker gives up after two seconds if nobody tells it who that is: on a busy machine one comes again.
    """
    made = made or await account.post("/api-keys", {"scopes": scopes or ["*"]})
    complaints, lost = list[str](), list[bool]()

    async def complain(error: Exception) -> None:
        complaints.append(str(error).lower())

    async def lose() -> None:
        lost.append(True)

    options = {
        "servers": url,
        "user": account.tenant,
        "password": made["key"],
        "inbox_prefix": f"_INBOX_{made['id']}",
        "error_cb": complain,
        "disconnected_cb": lose,
        "allow_reconnect": False,
        "connect_timeout": 10,
    }

    async def admitted() -> Client | None:
        complaints.clear()
        lost.clear()
        client = Client()
        try:
            await client.connect(**(options | more))
            await client.flush()  # one that is admitted at the last moment may be ended all the same
        except (Error, OSError, TimeoutError):
            await client.close()  # it would leave its socket open
            return None
        return client

    client = await until(admitted, "the partner is let in", every=0.2)
    opened(client)
    return Partner(account, made["id"], made["key"], client, complaints, lost)
