"""What isn't what it should be: each gets its status and a problem document, and nothing is stored."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from door_client import Account, Api

from harkara.http.decoding import decode_body, decode_query
from harkara.http.problems import Problem
from harkara.schemas.api import ContactQuery, NewContact, NewStep

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"   ", 400),
        (b'{"name": "A"', 400),
        (b"{'name': 'A'}", 400),
        (b"\xff\xfe", 400),
        (b'{"name": "\xff", "phone": "+919876543210"}', 400),
        (b'{"name": "\\ud800", "phone": "+919876543210"}', 400),
        (b'{"name": NaN}', 400),
        (b'{"name": "A", "phone": "+919876543210", "attributes": {"a": 1e999}}', 400),
        (b'{"x":' * 20_000, 400),
        (b"[" * 100_000, 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"name"', 422),
        (b"{}", 422),
    ],
)
async def test_what_is_no_json_object_is_refused(acme: Account, raw: bytes, status: int) -> None:
    (await acme.call("POST", "/contacts", data=raw, headers=JSON)).is_problem(status)
    assert (await acme.get("/contacts"))["items"] == []


async def test_a_body_over_the_limit_is_refused_without_being_read_whole(acme: Account) -> None:
    read = 0

    async def ten_megabytes() -> AsyncIterator[bytes]:
        nonlocal read
        yield b'{"name": "'
        for _ in range(1000):
            read += 10_000
            yield b"x" * 10_000
            await asyncio.sleep(0)

    answer = await acme.call("POST", "/contacts", data=ten_megabytes(), headers=JSON)
    answer.is_problem(413)
    whole = json.dumps({"name": "x" * 10_000_000, "phone": "+919876543210"}).encode()
    answer = await acme.call("POST", "/contacts", data=io.BytesIO(whole), headers=JSON)
    assert "1000000" in answer.is_problem(413).body["detail"]
    assert (await acme.get("/contacts"))["items"] == []


async def test_a_body_that_is_small_only_while_it_is_compressed_is_refused(acme: Account) -> None:
    bomb = gzip.compress(b'{"name": "' + b"x" * 20_000_000 + b'"}')
    packed = JSON | {"Content-Encoding": "gzip"}
    (await acme.call("POST", "/contacts", data=bomb, headers=packed)).is_problem(413)
    (await acme.call("POST", "/contacts", data=b"not gzip", headers=packed)).is_problem(400)


async def test_a_body_is_not_read_before_it_is_known_who_sends_it(api: Api) -> None:
    (await api.call("POST", "/contacts", data=io.BytesIO(b"x" * 5_000_000), headers=JSON)).is_problem(401)


async def test_a_length_that_is_announced_as_too_much_is_refused_before_a_byte_came(acme: Account) -> None:
    host, port = acme.api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/v1/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: {acme.headers['Authorization']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 10000000\r\n\r\n".encode())
    async with asyncio.timeout(5):
        status = await reader.readline()
    writer.close()
    assert b" 413 " in status


@pytest.mark.parametrize("path", ["//nowhere", "/nowhere", "/contacts/import/more", "//api/v2/contacts"])
async def test_an_unknown_path_is_a_problem_too(api: Api, path: str) -> None:
    (await api.call("GET", path)).is_problem(404)


async def test_a_method_that_is_not_possible_says_which_are(api: Api) -> None:
    answer = (await api.call("DELETE", "/contacts")).is_problem(405)
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


async def test_every_answer_has_an_id_of_its_own(acme: Account) -> None:
    answers = [await acme.call("GET", "/tenant"), await acme.call("GET", "/nowhere")]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 2


async def test_a_fault_of_ours_is_a_problem_that_tells_nothing_inside(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(type(acme.api.door.keyring), "memberships", lambda *_: fail(None))
    answer = (await acme.call("GET", "/tenant")).is_problem(500)
    assert "secret inside" not in answer.text
    assert answer.headers["X-Request-Id"] in answer.body["detail"]


def faults(raw: Any, type_: Any = NewContact) -> dict[str, str]:
    with pytest.raises(Problem) as caught:
        decode_body(json.dumps(raw).encode(), type_)
    assert caught.value.status == 422
    return dict(caught.value.errors)


def test_every_fault_is_named_by_its_path() -> None:
    found = faults(
        {
            "name": 5,
            "fone": "x",
            "attributes": {"a": [1], "b": 2},
            "tags": ["", 3, "ok"],
            "consent": {"source": "", "where": 1},
        }
    )
    assert set(found) == {
        "name", "fone", "phone", "attributes.a", "tags[0]", "tags[1]", "consent.source", "consent.where"
    }  # fmt: skip
    assert found["phone"] == "is missing"
    assert "name, phone" in found["fone"]
    assert "`int`" in found["name"]


def test_faults_inside_a_content_are_named_too() -> None:
    found = faults({"delay_hours": "1", "interactive": {"body": "x", "buttons": [{"id": "1"}, {"title": 2}]}}, NewStep)
    assert set(found) == {
        "delay_hours", "interactive.buttons[0].title", "interactive.buttons[1].id", "interactive.buttons[1].title"
    }  # fmt: skip


def test_the_character_nul_is_refused_wherever_it_is_and_its_spelling_is_not() -> None:
    body = {"name": "A", "phone": "1", "attributes": {"a\u0000b": "x", "c": "\u0000"}}
    assert set(faults(body)) == {"attributes", "attributes.c"}
    spelt = decode_body(json.dumps({"name": "\\u0000", "phone": "1"}).encode(), NewContact)
    assert spelt.name == "\\u0000"


def test_a_query_is_read_as_numbers_where_numbers_belong() -> None:
    assert decode_query({"limit": "7", "tag": "1"}, ContactQuery) == ContactQuery(limit=7, tag="1")
