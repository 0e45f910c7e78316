"""What the client makes of silence, half answers and nobody at home."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from gateway import certificates
from gateway.sandboxes import NUMBER, Caller, serving
from support import until

from harkara.gateway import cloud as cloud_module
from harkara.gateway.cloud import CloudGateway
from harkara.gateway.errors import Action
from harkara.gateway.protocol import (
    Accepted,
    Answer,
    Credentials,
    Done,
    Downloaded,
    MediaInfo,
    NotSent,
    Refused,
    Unknown,
    Uploaded,
)
from harkara.schemas.content import Content

_TEXT = Content(body="Namaste")
_ACCEPTED = b'{"messages":[{"id":"wamid.1"}]}'


def _answer(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Peer:
    """A raw TCP server: counts the requests that arrived whole, and does with each what the test says."""

    def __init__(self, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.requests = 0
        self.connections = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                await reader.readexactly(length)
                self.requests += 1
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def peer(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]], patience: timedelta = timedelta(seconds=30)
) -> AsyncIterator[tuple[Peer, CloudGateway]]:
    """A peer and a client of it, which waits longer than any busy machine takes, unless silence is what it is for."""
    server_side = Peer(answer)
    server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gateway = CloudGateway(f"http://127.0.0.1:{port}", connect_timeout=patience, answer_timeout=patience)
    try:
        yield server_side, gateway
    finally:
        await gateway.close()
        server.close()
        await server.wait_closed()


async def _send(gateway: CloudGateway, credentials: Credentials) -> Answer:
    return await gateway.send(credentials, "+919876543210", _TEXT, opaque="m1")


async def test_nobody_listens(credentials: Credentials) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gateway = CloudGateway(f"http://127.0.0.1:{free.getsockname()[1]}")
        answer = await _send(gateway, credentials)
        await gateway.close()
    assert isinstance(answer, NotSent), answer


async def test_a_name_that_does_not_exist(credentials: Credentials) -> None:
    gateway = CloudGateway("http://gateway.invalid")
    answer = await _send(gateway, credentials)
    await gateway.close()
    assert isinstance(answer, NotSent), answer


async def test_a_connection_that_is_never_made_is_not_sent_within_its_time_out(credentials: Credentials) -> None:
    # A full accept queue: the kernel leaves further connections hanging.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        gateway = CloudGateway(
            f"http://127.0.0.1:{full.getsockname()[1]}",
            connect_timeout=timedelta(milliseconds=100),
            answer_timeout=timedelta(seconds=20),
        )
        answer = await asyncio.wait_for(_send(gateway, credentials), 15)
        await gateway.close()
        for client in waiting:
            client.close()
    assert isinstance(answer, NotSent), answer


async def test_a_full_pool_is_not_sent(credentials: Credentials) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def held(request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response(body=_ACCEPTED)

    app = web.Application()
    app.router.add_post("/{path:.*}", held)
    async with serving(app) as url:
        # Long enough for the first to connect on a busy machine: it is how long the second waits for its place.
        gateway = CloudGateway(url, connections=1, connect_timeout=timedelta(seconds=3))
        first = asyncio.create_task(_send(gateway, credentials))
        await arrived.wait()
        second = await _send(gateway, credentials)
        release.set()
        assert isinstance(second, NotSent), second
        assert await first == Accepted("wamid.1")
        await gateway.close()


async def test_no_answer_in_time_is_unknown(credentials: Credentials) -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        await writer.drain()

    async with peer(never, timedelta(seconds=1.5)) as (server_side, gateway):
        answer = await _send(gateway, credentials)
        assert isinstance(answer, Unknown), answer
        await until(lambda: server_side.requests, "the request has arrived whole")
        assert server_side.requests == 1


async def test_an_answer_that_trickles_in_for_ever_is_unknown(credentials: Credentials) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(3000):
            writer.write(b"X-Slow: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with peer(trickle, timedelta(seconds=1.5)) as (_, gateway):
        assert isinstance(await asyncio.wait_for(_send(gateway, credentials), 30), Unknown)


async def test_a_connection_closed_or_reset_without_an_answer_is_unknown(credentials: Credentials) -> None:
    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def half_an_answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()

    for misbehave in (close, reset, half_an_answer):
        async with peer(misbehave) as (server_side, gateway):
            answer = await _send(gateway, credentials)
            assert isinstance(answer, Unknown), (misbehave.__name__, answer)
            assert server_side.requests == 1, "a POST must never be repeated"


async def test_a_stale_kept_alive_connection_never_makes_two_messages_of_one(credentials: Credentials) -> None:
    """The server closes each connection right after its first answer, so that later sends race with the close."""

    async def answer_then_close(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(200, _ACCEPTED))
        await writer.drain()
        writer.close()

    async with peer(answer_then_close) as (server_side, gateway):
        answers = [await _send(gateway, credentials) for _ in range(200)]
    accepted = sum(isinstance(answer, Accepted) for answer in answers)
    unknown = sum(isinstance(answer, Unknown) for answer in answers)
    assert accepted <= server_side.requests <= accepted + unknown
    assert accepted > 0


async def test_who_cannot_prove_to_be_the_gateway_is_sent_nothing(
    credentials: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fine(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(200, _ACCEPTED))

    authority, context = certificates.made(tmp_path)
    server_side = Peer(fine)
    server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    stranger, known = CloudGateway(url), CloudGateway(url)
    answer = await _send(stranger, credentials)
    assert isinstance(answer, NotSent), answer
    assert "certificate" in answer.reason
    assert server_side.requests == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert isinstance(await _send(known, credentials), Accepted)
    for gateway in (stranger, known):
        await gateway.close()
    server.close()


async def test_a_handshake_that_breaks_off_or_never_ends_is_not_sent(credentials: Credentials) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for behave in (hang_up, say_nothing):
        server = await asyncio.start_server(behave, "127.0.0.1", 0)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        gateway = CloudGateway(url, connect_timeout=timedelta(milliseconds=200))
        answer = await _send(gateway, credentials)
        assert isinstance(answer, NotSent), (behave.__name__, answer)
        await gateway.close()
        server.close()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_5xx_without_json_is_unknown(status: int, credentials: Credentials) -> None:
    async def sorry(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(status, b"<html>sorry</html>"))

    async with peer(sorry) as (_, gateway):
        assert isinstance(await _send(gateway, credentials), Unknown)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"messages":[]}', b"<html>"])
async def test_a_200_without_a_message_id_is_unknown(body: bytes, credentials: Credentials) -> None:
    async def odd(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(200, body))

    async with peer(odd) as (_, gateway):
        assert isinstance(await _send(gateway, credentials), Unknown)


async def test_a_5xx_with_an_error_object_is_a_refusal(credentials: Credentials) -> None:
    async def refuse(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(500, b'{"error":{"code":131000,"message":"Something went wrong"}}'))

    async with peer(refuse) as (_, gateway):
        answer = await _send(gateway, credentials)
        assert isinstance(answer, Refused), answer
        assert answer.rule.action is Action.RETRY


@pytest.mark.parametrize("token", ["EAAG-test\n", "EAAG\r\nX-Other: 1", "EAAG\0test"])
async def test_a_token_that_no_request_can_carry_is_a_wrong_one(token: str, credentials: Credentials) -> None:
    async def take(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(200, _ACCEPTED))

    async def nowhere(_: bytes) -> None:
        pass

    async with peer(take) as (server_side, gateway):
        wrong = msgspec.structs.replace(credentials, access_token=token)
        answers: list[Any] = [await _send(gateway, wrong) for _ in range(2)]
        answers += [await gateway.mark_read(wrong, "wamid.1"), await gateway.templates(wrong, "1")]
        answers += [await gateway.fetch(wrong, "http://127.0.0.1:9/x", nowhere)]
        for answer in answers:
            assert isinstance(answer, Refused), answer
            assert (answer.rule.action, answer.rule.alert, answer.rule.waits) == (Action.STOP, True, True)
            assert "EAAG" not in f"{answer.title} {answer.details}"
        assert server_side.connections == 0


async def test_a_redirect_is_not_followed_with_the_token(credentials: Credentials) -> None:
    async def elsewhere(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(307, b"", "Location: http://127.0.0.1:1/"))

    async with peer(elsewhere) as (server_side, gateway):
        answer = await _send(gateway, credentials)
        assert isinstance(answer, Refused), answer
        assert (answer.rule.action, server_side.requests) == (Action.STOP, 1)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ('X-Business-Use-Case-Usage: {"1":[{"estimated_time_to_regain_access":5,"type":"x"}]}', timedelta(minutes=5)),
        ("Retry-After: 7", timedelta(seconds=7)),
        ("Retry-After: 99999999", timedelta(days=1)),
        ("Retry-After: soon", None),
        ("X-Business-Use-Case-Usage: nonsense", None),
        ('X-Business-Use-Case-Usage: {"1":[{"estimated_time_to_regain_access":1e300}]}', timedelta(days=1)),
    ],
)
async def test_how_long_to_wait_is_taken_from_the_answer(
    header: str, wait: timedelta | None, credentials: Credentials
) -> None:
    async def limit(writer: asyncio.StreamWriter) -> None:
        writer.write(_answer(400, b'{"error":{"code":80007,"error_data":{"details":"slow down"}}}', header))

    async with peer(limit) as (_, gateway):
        answer = await _send(gateway, credentials)
        assert isinstance(answer, Refused), answer
        assert (answer.retry_after, answer.details) == (wait, "slow down")


async def test_a_cancelled_send_stays_cancelled_and_the_client_usable(credentials: Credentials) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.write(_answer(200, _ACCEPTED))

    async with peer(slowly) as (_, gateway):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_send(gateway, credentials), 0.01)
        assert isinstance(await _send(gateway, credentials), Accepted)


async def test_hundreds_of_sends_at_once(sandbox: Caller, credentials: Credentials) -> None:
    await sandbox.put("policy", {"throughput": False})
    # More than a listener's queue holds: some of them have to knock again.
    gateway = CloudGateway(sandbox.url, connect_timeout=timedelta(seconds=60), answer_timeout=timedelta(seconds=60))
    answers = await asyncio.gather(
        *(gateway.send(credentials, f"+91900000{n:04d}", _TEXT, opaque=f"m{n}") for n in range(600))
    )
    await gateway.close()
    assert len({answer.wamid for answer in answers if isinstance(answer, Accepted)}) == 600


async def test_reading_and_files(sandbox: Caller, cloud: CloudGateway, credentials: Credentials) -> None:
    await sandbox.register()
    wamid = await sandbox.inbound(**{"from": "+919876543210", "text": "hello"})
    assert await cloud.mark_read(credentials, wamid, typing=True) == Done()
    assert isinstance(await cloud.mark_read(credentials, "wamid.unknown"), Refused)

    stored = await cloud.upload_media(credentials, b"%PDF-1.4", "application/pdf", "invoice.pdf")
    assert isinstance(stored, Uploaded), stored
    info = await cloud.media_info(credentials, stored.media_id)
    assert isinstance(info, MediaInfo), info
    assert (info.size, info.mime_type) == (8, "application/pdf")
    assert await cloud.download(credentials, info.url) == Downloaded(b"%PDF-1.4", "application/pdf")
    assert isinstance(await cloud.download(credentials, info.url + "0"), Refused)
    assert isinstance(await cloud.media_info(credentials, f"{NUMBER}/nothing"), Refused)
    assert isinstance(await cloud.upload_media(credentials, b"MZ", "application/x-msdownload", "x.exe"), Refused)


async def test_a_download_has_a_limit(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"x" * (2 << 20)
    stored = await cloud.upload_media(credentials, data, "text/plain", "a.txt")
    assert isinstance(stored, Uploaded), stored
    info = await cloud.media_info(credentials, stored.media_id)
    assert isinstance(info, MediaInfo), info
    assert await cloud.download(credentials, info.url) == Downloaded(data, "text/plain")
    monkeypatch.setattr(cloud_module, "DOWNLOAD_LIMIT", len(data) - 1)
    assert isinstance(await cloud.download(credentials, info.url), Unknown)


def test_credentials_never_show_their_token(credentials: Credentials) -> None:
    assert credentials.access_token not in repr(credentials)
    assert credentials.access_token not in f"{credentials}"
