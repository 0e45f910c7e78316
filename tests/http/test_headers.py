"""What every answer carries for browsers, and which pages may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import ClientSession
from door_client import Account, Api, make_account
from msgspec import structs

from harkara.http.door import Door
from harkara.http.server import listening
from harkara.settings import SettingsError, load

PAGE = "https://app.example"

STRICT = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "harkara",
}


@asynccontextmanager
async def door_with(door: Door, **settings: str) -> AsyncIterator[Api]:
    made = replace(door, settings=structs.replace(door.settings, **settings))
    async with listening(made, "127.0.0.1", 0) as port, ClientSession() as session:
        yield Api(f"http://127.0.0.1:{port}", session, made)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tenant", 200),
        ("GET", "/contacts/nonsense", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/tenant", 405),
        ("GET", "//healthz", 200),
        ("GET", "//metrics", 200),
        ("POST", "/auth/login", 415),
        ("GET", "/feed", 426),
    ],
)
async def test_every_answer_is_strict(acme: Account, method: str, path: str, status: int) -> None:
    answer = await acme.call(method, path)
    assert answer.status == status
    for name, value in STRICT.items():
        assert answer.headers.getall(name) == [value]
    assert len(answer.headers.getall("X-Request-Id")) == 1
    assert "Strict-Transport-Security" not in answer.headers


async def test_an_answer_without_a_body_has_no_length_and_keeps_the_connection(acme: Account) -> None:
    key = (await acme.post("/api-keys", {}))["id"]
    answer = await acme.call("DELETE", f"/api-keys/{key}")
    assert answer.status == 204
    assert "Content-Length" not in answer.headers
    assert "Content-Type" not in answer.headers
    assert (await acme.call("GET", "/tenant")).status == 200


async def test_who_comes_over_https_is_told_to_come_so_always(door: Door) -> None:
    async with door_with(door, public_url="https://api.example") as api:
        account = await make_account(api)
        for path in ("/tenant", "/nowhere"):
            assert (await account.call("GET", path)).headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_without_a_setting_no_page_from_elsewhere_may_read_anything(acme: Account) -> None:
    answer = await acme.call("GET", "/tenant", headers={"Origin": PAGE})
    assert "Access-Control-Allow-Origin" not in answer.headers
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
    assert (await acme.api.call("OPTIONS", "/tenant", headers=asked)).is_problem(405)


async def test_a_listed_origin_may_read_answers_and_nobody_else(door: Door) -> None:
    async with door_with(door, cors_origins=f"{PAGE}, http://localhost:5173/") as api:
        account = await make_account(api)
        for path, status in (("/tenant", 200), ("/contacts/nonsense", 404), ("/nowhere", 404)):
            answer = await account.call("GET", path, headers={"Origin": PAGE})
            assert answer.status == status
            assert answer.headers.getall("Access-Control-Allow-Origin") == [PAGE]
            assert answer.headers["Vary"] == "Origin"
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Location", "Retry-After", "X-Request-Id", "RateLimit-Remaining"} <= set(exposed)
            assert "Access-Control-Allow-Credentials" not in answer.headers
        assert (
            "Access-Control-Allow-Origin"
            in (await account.call("GET", "/tenant", headers={"Origin": "http://localhost:5173"})).headers
        )
        for origin in ("https://evil.example", "https://app.example.evil.example", "null", "http://app.example"):
            answer = await account.call("GET", "/tenant", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"


async def test_a_preflight_is_answered_from_the_route_table(door: Door) -> None:
    async with door_with(door, cors_origins=PAGE) as api:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "PATCH"}
        answer = await api.call("OPTIONS", "/tenant", headers=asked)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == {"GET", "HEAD", "PATCH"}
        assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
        assert (await api.call("OPTIONS", "/nowhere", headers=asked)).status == 404
        (await api.call("OPTIONS", "/tenant")).is_problem(405)
        evil = asked | {"Origin": "https://evil.example"}
        (await api.call("OPTIONS", "/tenant", headers=evil)).is_problem(405)


async def test_a_star_lets_every_page_read_and_none_use_credentials(door: Door) -> None:
    async with door_with(door, cors_origins="*") as api:
        account = await make_account(api)
        answer = await account.call("GET", "/tenant", headers={"Origin": "https://anywhere.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Vary" not in answer.headers


@pytest.mark.parametrize(
    "setting", ["*, https://a.example", "a.example", "https://a.example/path", "https://*.example"]
)
def test_what_is_no_list_of_origins_stops_the_start(setting: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        load({"CORS_ORIGINS": setting})


async def test_metrics_count_by_route_and_never_by_path(acme: Account) -> None:
    contact = await acme.contact()
    for _ in range(3):
        await acme.call("GET", f"/contacts/{contact}")
    await acme.call("GET", f"/nowhere/{contact}")
    answer = await acme.api.call("GET", "//metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    line = (
        'harkara_http_request_duration_seconds_count{method="GET",route="/api/v1/contacts/{contact_id}",status="2xx"}'
    )
    assert line in answer.text
    assert 'route="unmatched",status="4xx"' in answer.text
    assert contact not in answer.text
    assert acme.tenant not in answer.text
    for name in ("harkara_http_connections", "harkara_feed_sockets", "harkara_rate_limit_allowed_total", "python_info"):
        assert f"\n{name}" in answer.text
