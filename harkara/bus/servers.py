"""Where the broker's servers are: what NATS_URL names, as nats-py wants to be told."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

#: Where a NATS server listens if nothing else is said.
_PORT = 4222


def options(url: str) -> dict[str, Any]:
    """nats-py's options for the comma-separated servers of `url`.

    Servers of a cluster tell their clients of each other, by address alone: a login in the URLs would not be used with
    those, and each server be known twice. So the one login that all of them have is told apart from the addresses.
    """
    servers = addresses(url)
    logins = {login for login, _ in map(_split, servers) if login}
    if len(logins) != 1:
        return {"servers": servers}
    user, colon, password = logins.pop().partition(":")
    login = {"user": unquote(user), "password": unquote(password)} if colon else {"token": unquote(user)}
    return {"servers": [address for _, address in map(_split, servers)], **login}


def addresses(url: str) -> list[str]:
    """The servers that `url` names."""
    return [one.strip() for one in url.split(",") if one.strip()]


def without_secrets(url: str) -> str:
    """The addresses without user and password, fit for logs and errors."""
    return ", ".join(_shown(one) for one in addresses(url))


async def greeting(server: str) -> None:
    """Wait until a server, one of those that `addresses` gives, says hello to whoever connects. Raises OSError.

    Over WebSocket nothing is said before it is asked for: there the connection has to do.
    """
    parts = _parts(server)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or _PORT)
    try:
        if parts.scheme not in ("ws", "wss") and not (await reader.readline()).startswith(b"INFO "):
            raise OSError("whatever listens there is no NATS server")
    finally:
        writer.close()


def _split(server: str) -> tuple[str, str]:
    """Login and the address without it."""
    scheme, mark, rest = server.rpartition("://")
    login, _, host = rest.rpartition("@")
    return login, f"{scheme}{mark}{host}"


def _shown(server: str) -> str:
    parts = _parts(server)
    return f"{parts.hostname or server}:{parts.port or _PORT}"


def _parts(server: str) -> SplitResult:
    return urlsplit(server if "://" in server else f"nats://{server}")
