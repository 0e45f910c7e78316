"""Sentry, as a stand-in of ours receives it: what failed and where, once, and nothing that somebody sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support import until

from harkara.masking import without_secrets
from harkara.observing.server import telling
from harkara.settings import SettingsError

PHONE, KEY, PASSWORD = "+919876543210", "hk_acme_abcdefghijkl", "s3cret-words"

#: A process that meets errors in every way there is. It gets its settings as every command does.
PROGRAM = f"""
import asyncio, sys
from datetime import UTC, datetime
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from bus.actors import Clerk
from harkara.bus.errors import Unavailable
from harkara.bus.handling import Handling
from harkara.bus.intake import Raw
from harkara.bus.messages import Ack
from harkara.cli import settings_for
from harkara.settings import SettingsError
from loguru import logger
import sentry_sdk

def fails(delivery):
    phone = {PHONE!r}
    if delivery.message.number == 1:
        raise Unavailable("the broker is away")
    if delivery.message.number == 2:
        raise ValueError(f"no such phone {{phone}}, password {PASSWORD}")
    raise SettingsError(f"{{phone}} and {KEY} and postgres://u:{PASSWORD}@host/x")

async def stored(packets):
    return [Ack("S", 1, False) for _ in packets]

async def main():
    handling = Handling(Clerk(fails), stored, lambda: datetime.now(UTC))
    for number in (1, 2, 2, 2, 3):
        named = {{"X-Msg-Id": "m", "X-Cause": "0199c0de-0000-7000-8000-000000000001"}}
        body = b'{{"number": %d}}' % number
        await handling.work([Raw("t.acme.cmd.enrollment.start", named, body, "COMMANDS", number, 1, 0)])

settings_for()
sentry_sdk.get_client().options["shutdown_timeout"] = 60.0  # a busy machine may take longer than is waited for usually
logger.error("this has no exception")
asyncio.run(main())
raise KeyError({PASSWORD!r})
"""


class Sentry:
    """Takes envelopes and keeps them."""

    def __init__(self) -> None:
        self.raw = ""
        self.events: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        text = gzip.decompress(body).decode() if body[:2] == b"\x1f\x8b" else body.decode()
        self.raw += text
        lines = text.split("\n")
        for head, item in pairwise(lines):
            if '"type":"event"' in head.replace(" ", ""):
                self.events.append(json.loads(item))
        return web.json_response({})


@pytest.fixture
async def sentry() -> AsyncIterator[tuple[Sentry, str]]:
    made = Sentry()
    app = web.Application()
    app.router.add_post("/api/7/envelope/", made.take)
    async with TestServer(app) as server:
        yield made, f"http://key@{server.host}:{server.port}/7"


async def run(program: str, **settings: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **settings},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_what_is_unexpected_is_reported_once_and_without_values(sentry: tuple[Sentry, str]) -> None:
    received, dsn = sentry
    status, said = await run(PROGRAM, SENTRY_DSN=dsn, ENVIRONMENT="development")
    assert status == 1, said
    await until(lambda: len(received.events) >= 3, "the three kinds are reported")
    kinds = [event["exception"]["values"][-1]["type"] for event in received.events]
    assert sorted(kinds) == ["KeyError", "SettingsError", "ValueError"], said
    assert [secret for secret in (PHONE, KEY, PASSWORD) if secret in received.raw] == []
    for secret in ("9876543210", "no such phone"):
        assert secret not in received.raw
    [value] = [event for event in received.events if event["exception"]["values"][-1]["type"] == "ValueError"]
    assert value["tags"] == {"actor": "enrollment", "tenant": "acme"}
    assert value["extra"]["cause"] == "0199c0de-0000-7000-8000-000000000001"
    assert value["environment"] == "development"
    assert value["release"].startswith("harkara@")
    assert value["logentry"]["message"] == "Handling failed"
    assert value["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "fails"
    [ours] = [event for event in received.events if event["exception"]["values"][-1]["type"] == "SettingsError"]
    assert ours["exception"]["values"][-1]["value"] == "*** and *** and postgres://***@host/x"


@pytest.mark.parametrize("dsn", ["nonsense", "https://host/7"])
async def test_a_dsn_that_is_none_stops_the_start_with_one_line(dsn: str) -> None:
    status, said = await run("from harkara.cli import main; main(['migrate'])", SENTRY_DSN=dsn)
    assert status == 2
    assert said.startswith("harkara: SENTRY_DSN: ")
    assert len(said.splitlines()) == 1


async def test_without_a_dsn_nothing_of_it_is_loaded() -> None:
    loaded = "{'sentry_sdk', 'opentelemetry.sdk.trace', 'prometheus_client'} & set(sys.modules)"
    program = f"import sys, harkara.cli, harkara.app, harkara.up; harkara.cli.settings_for(); sys.exit(str({loaded}))"
    _, said = await run(program, SENTRY_DSN="")
    assert said.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call +91 98765-43210 now", "call *** now"),
        ("(0172 3456789)", "(***)"),
        ("hk_acme_x-Y_9 is no key", "*** is no key"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("eyJhbGciOi.eyJz-dW.sig_", "***"),
        ("nats://svc:pass@host:4222", "nats://***@host:4222"),
        ("0199c0de-0000-7000-8000-000000000001", "0199c0de-0000-7000-8000-000000000001"),
    ],
)
def test_secrets_and_numbers_are_masked_and_ids_are_not(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("settings", "missing", "line"),
    [
        ({"SENTRY_DSN": "https://key@host/7"}, "sentry_sdk", "SENTRY_DSN: needs one package more"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
            "opentelemetry.sdk",
            "OTEL_EXPORTER_OTLP_ENDPOINT: needs some packages more",
        ),
    ],
)
async def test_a_package_that_is_missing_is_named_in_one_line(
    settings: dict[str, str], missing: str, line: str
) -> None:
    needed = dict.fromkeys(("DATABASE_URL", "NATS_URL", "REDIS_URL", "SECRET_KEY"), "x" * 40)
    program = f"import sys; sys.modules[{missing!r}] = None; from harkara.cli import main; main(['actor', 'ticker'])"
    status, said = await run(program, **needed, **settings)
    assert status == 2, said
    assert line in said
    assert "pip install 'harkara[" in said
    assert len(said.splitlines()) == 1


async def test_a_port_for_figures_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        nothing: Any = None
        with pytest.raises(SettingsError, match="METRICS_PORT: can't listen on"):
            async with telling(nothing, "127.0.0.1", taken.getsockname()[1]):
                raise AssertionError("it listens")
