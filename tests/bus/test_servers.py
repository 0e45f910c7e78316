"""What NATS_URL names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harkara.bus.servers import addresses, greeting, options, without_secrets


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("nats://a:4222", {"servers": ["nats://a:4222"]}),
        ("a:1, b:2,", {"servers": ["a:1", "b:2"]}),
        ("nats://u:p@a:1", {"servers": ["nats://a:1"], "user": "u", "password": "p"}),
        ("nats://u:p@a:1,tls://u:p@b:2", {"servers": ["nats://a:1", "tls://b:2"], "user": "u", "password": "p"}),
        # Named once, it is meant for all.
        ("nats://u:p@a:1,nats://b:2", {"servers": ["nats://a:1", "nats://b:2"], "user": "u", "password": "p"}),
        ("u:p%40q%3A@a:1", {"servers": ["a:1"], "user": "u", "password": "p@q:"}),
        ("nats://token@a:1", {"servers": ["nats://a:1"], "token": "token"}),
        # Nobody can say which of two logins goes with a server that is only told of.
        ("nats://u:p@a:1,nats://v:q@b:2", {"servers": ["nats://u:p@a:1", "nats://v:q@b:2"]}),
    ],
)
def test_the_login_is_told_apart_from_the_addresses(url: str, wanted: dict[str, Any]) -> None:
    assert options(url) == wanted


def test_no_password_is_shown() -> None:
    assert without_secrets("nats://u:secret@a,tls://u:secret@b:7422,token@c:1") == "a:4222, b:7422, c:1"


async def test_a_broker_says_hello(nats_url: str) -> None:
    [one] = addresses(nats_url)
    await greeting(one)


async def test_who_is_no_broker_or_nobody_is_told_apart() -> None:
    async def other(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(OSError, match="no NATS server"):
            await greeting(f"nats://u:p@127.0.0.1:{port}")
    with pytest.raises(ConnectionRefusedError):
        await greeting(f"127.0.0.1:{port}")
