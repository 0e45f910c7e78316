"""Credentials as nobody sane sends them: over a bare socket, because clients refuse to."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest
from argon2 import PasswordHasher
from door_client import PASSWORD, Account, Api
from support import Database

from harkara.http.passwords import Passwords
from harkara.storage.storage import Storage


async def asked(api: Api, *lines: bytes, path: bytes = b"/api/v1/tenant") -> int:
    """The status of a request with these header lines; 0 if the connection was closed without one."""
    where = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    async with asyncio.timeout(30):
        answer = await reader.readline()
    writer.close()
    return int(answer.split()[1]) if answer else 0


@pytest.mark.parametrize(
    "value",
    [
        b"\x00", b"hk_acme_\x00" + b"x" * 40, b"\xff\xfe\xfd", b"hk_acme_" + b"x" * 7_000, b"hk_" + b"a" * 7_000,
        "hk_acmé_".encode() + b"x" * 40, b"hk_acme_" + b"x" * 40 + b" ", b"hk_acme'--_" + b"x" * 40,
        b"hk_acme_%00" + b"x" * 40, b"\xed\xa0\x80", b"x" * 100_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("header", [b"X-API-Key: ", b"Authorization: Bearer ", b"Authorization: ", b"X-Tenant-ID: "])
async def test_no_credential_is_a_fault_of_ours(api: Api, acme: Account, header: bytes, value: bytes) -> None:
    own = acme.headers["Authorization"].encode()
    lines = [header + value] + ([b"Authorization: " + own] if header.startswith(b"X-Tenant") else [])
    status = await asked(api, *lines)
    assert status in (400, 401, 404, 431), status
    assert await asked(api, b"Authorization: " + own) == 200, "and everybody else notices nothing"


async def test_two_credentials_that_differ_do_not_add_up(api: Api, acme: Account, other: Account) -> None:
    own, theirs = acme.headers["Authorization"].encode(), other.headers["Authorization"].encode()
    key = (await other.post("/api-keys", {"scopes": ["contacts:read"]}))["key"].encode()
    assert await asked(api, b"Authorization: " + own, b"X-API-Key: " + key) == 403, "the key alone counts"
    assert await asked(api, b"Authorization: nonsense", b"Authorization: " + own) in (400, 401)
    assert await asked(api, b"Authorization: " + theirs, b"X-Tenant-ID: " + acme.tenant.encode()) == 404


@pytest.mark.parametrize(
    "email", ["\x00", "a\x00@b.example", "x" * 400, "\ud800", "' or 1=1 --", "%", "a@b\u202e.example"]
)
async def test_no_address_is_a_fault_of_ours(api: Api, email: str) -> None:
    body = json.dumps({"email": email, "password": "wrong password"}).encode()
    for path in ("/auth/login", "/auth/signup"):
        answer = await api.call("POST", path, data=body, headers={"Content-Type": "application/json"})
        assert answer.status in (400, 401, 422), answer.text


async def test_a_password_hashed_with_other_parameters_is_hashed_anew_when_it_is_used(
    acme: Account, api: Api, storage: Storage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"email": acme.email, "password": PASSWORD}

    async def stored() -> str:
        async with storage.anonymous() as con:
            return str(await con.fetchval("select password_hash from app.login($1)", acme.email))

    before = await stored()
    monkeypatch.setattr(api.door, "passwords", Passwords(PasswordHasher(time_cost=2, memory_cost=64)))
    assert (await api.call("POST", "/auth/login", body=login | {"password": "wrong password"})).status == 401
    assert await stored() == before
    pairs = await asyncio.gather(*(api.call("POST", "/auth/login", body=login) for _ in range(3)))
    assert "t=2" in await stored()
    assert [pair.status for pair in pairs] == [200, 200, 200]
    for pair in pairs:
        body = {"refresh_token": pair.body["refresh_token"]}
        assert (await api.call("POST", "/auth/refresh", body=body)).status == 200
