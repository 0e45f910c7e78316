"""What isn't what it should be: each gets its status and a problem document, and nothing is stored."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from door_client import Account, Api, a_phone
from multidict import MultiDict

from harkara.http.decoding import decode_body, decode_query
from harkara.http.paths import for_router
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
    answer = (await acme.call("POST", "/contacts", data=raw, headers=JSON)).is_problem(status)
    assert set(answer.faults()) <= ({"name", "phone"} if raw == b"{}" else {""})  # no fault of what is not there
    assert (await acme.get("/contacts"))["items"] == []


@pytest.mark.parametrize(
    ("raw", "kind", "status", "paths"),
    [
        (b"", None, 200, set[str]()),
        (b"", "application/json", 200, set[str]()),
        (b"{}", "application/json", 200, set[str]()),
        (b'{"nonsense": 1, "more": 2}', "application/json", 422, {"nonsense", "more"}),
        (b"[]", "application/json", 422, {""}),
        (b"{", "application/json", 400, set[str]()),
        (b"rubbish", "text/plain", 415, set[str]()),
    ],
)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "1"}])
async def test_a_body_where_none_is_taken_is_empty_or_refused(
    acme: Account, raw: bytes, kind: str | None, status: int, paths: set[str], key: dict[str, str]
) -> None:
    campaign = await acme.campaign(active=False)
    headers = key if kind is None else key | {"Content-Type": kind}
    answer = await acme.call("POST", f"/campaigns/{campaign}/activate", data=raw, headers=headers)
    if status == 200:
        assert answer.status == status, answer.text
    else:
        assert set(answer.is_problem(status).faults()) == paths
    is_active = (await acme.get(f"/campaigns/{campaign}"))["status"] == "active"
    assert is_active == (status == 200)


async def test_what_is_no_json_is_said_once(acme: Account) -> None:
    answer = await acme.call("POST", "/contacts", data=b'{"name": "A"} x', headers=JSON)
    detail = answer.is_problem(400).body["detail"]
    assert detail.startswith("the body is not JSON: trailing characters"), detail


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (rb'{"name": "\ud800", "phone": "1"}', "name"),
        (rb'{"name": "A\uDC00B", "phone": "1"}', "name"),
        (rb'{"name": "A", "attributes": {"a": ["\ud83d\ude00", "\ud800\u0041"]}}', "attributes.a[1]"),
        (rb'{"name": "A", "attributes": {"\udfff": 1}}', "attributes"),
        (rb'{"\ud800": 1}', "the body"),
    ],
)
async def test_half_a_character_is_said_to_be_that(acme: Account, raw: bytes, place: str) -> None:
    detail = (await acme.call("POST", "/contacts", data=raw, headers=JSON)).is_problem(400).body["detail"]
    assert detail.startswith(f"{place} is not Unicode: an escape from \\ud800 to \\udfff is half of a character"), (
        detail
    )


@pytest.mark.parametrize("raw", [b'{"name": "\\ud800', b'{"name": "\\\\ud800",}', b'{"a": "\\ud83d\\ude00", 1}'])
async def test_what_is_no_json_either_is_said_to_be_that(acme: Account, raw: bytes) -> None:
    detail = (await acme.call("POST", "/contacts", data=raw, headers=JSON)).is_problem(400).body["detail"]
    assert detail.startswith("the body is not JSON: "), detail


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


async def test_a_compressed_body_is_refused_without_being_unpacked(acme: Account) -> None:
    bomb = gzip.compress(b'{"name": "' + b"x" * 20_000_000 + b'"}')
    packed = JSON | {"Content-Encoding": "gzip"}
    for body in (bomb, b"not gzip", b"{}"):
        answer = await acme.call("POST", "/contacts", data=body, headers=packed)
        assert answer.is_problem(415).headers["Accept-Encoding"] == "identity"


async def test_a_body_is_not_read_before_it_is_known_who_sends_it(api: Api) -> None:
    answer = await api.call("POST", "/contacts", data=io.BytesIO(b"x" * 5_000_000), headers=JSON)
    # The connection ends with the rest of the body: another request behind it would be lost.
    assert answer.is_problem(401).headers["Connection"] == "close"


async def test_a_length_that_is_announced_as_too_much_is_refused_before_a_byte_came(acme: Account) -> None:
    host, port = acme.api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/v1/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: {acme.headers['Authorization']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 10000000\r\n\r\n".encode())
    async with asyncio.timeout(30):
        status = await reader.readline()
    writer.close()
    assert b" 413 " in status


@pytest.mark.parametrize("path", ["//", "//nowhere", "/nowhere", "/contacts/import/more", "//api/v2/contacts"])
async def test_an_unknown_path_is_a_problem_too(api: Api, path: str) -> None:
    assert "/docs" in (await api.call("GET", path)).is_problem(404).body["detail"]


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

    monkeypatch.setattr(type(acme.api.door.keyring), "standing", lambda *_: fail(None))
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
    assert found["name"] == "must be a string"


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
    assert decode_query(MultiDict({"limit": "7", "tag": "1"}), ContactQuery) == ContactQuery(limit=7, tag=["1"])


def test_a_name_that_comes_twice_is_refused() -> None:
    for raw in (b'{"name":"A","phone":"1","name":"B"}', b'{"name":"A","phone":"1","attributes":{"a":1,"a":2}}'):
        with pytest.raises(Problem) as caught:
            decode_body(raw, NewContact)
        assert caught.value.status == 422
        assert caught.value.errors[0][1] == "is there more than once"


async def test_a_body_that_says_it_is_no_json_is_refused_and_one_that_says_nothing_is_read(acme: Account) -> None:
    raw = json.dumps({"name": "A", "phone": a_phone()}).encode()
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/xml"):
        (await acme.call("POST", "/contacts", data=raw, headers={"Content-Type": kind})).is_problem(415)
    assert (await acme.get("/contacts"))["items"] == []
    host, port = acme.api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/v1/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: {acme.headers['Authorization']}\r\n"
    writer.write(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    async with asyncio.timeout(30):
        assert b" 201 " in await reader.readline()
    writer.close()


async def test_query_parameters_that_are_not_known_are_refused_by_name(acme: Account) -> None:
    for path in ("/contacts?tagg=x", "/tenant?verbose=1&verbose=2", "/auth/me?tagg="):
        assert "is unknown here" in str((await acme.call("GET", path)).is_problem(422).faults())
    assert (await acme.call("GET", "/contacts?limit=1&limit=2")).is_problem(422).faults() == {
        "limit": "is given more than once"
    }


async def test_every_get_has_its_head_and_other_methods_are_told(acme: Account) -> None:
    for path in ("/contacts", "/tenant", "//openapi.json", "//healthz"):
        told, whole = await acme.call("HEAD", path), await acme.call("GET", path)
        assert (told.status, told.text) == (200, "")
        assert told.headers["Content-Type"] == whole.headers["Content-Type"]
    for method in ("OPTIONS", "PUT", "TRACE"):
        answer = (await acme.call(method, "/tenant")).is_problem(405)
        assert {"GET", "HEAD", "PATCH"} == set(answer.headers["Allow"].split(", "))


async def test_a_word_beside_an_id_is_no_id(acme: Account) -> None:
    for method, path, allowed in (
        ("PATCH", "/contacts/import", {"POST"}),
        ("DELETE", "/contacts/imports", {"GET", "HEAD"}),
    ):
        answer = (await acme.call(method, path)).is_problem(405)
        assert set(answer.headers["Allow"].split(", ")) == allowed
    (await acme.call("GET", "/contacts/important")).is_problem(404)
    assert for_router("/a/{a_id}/b", {"/a/{a_id}/b", "/b/c"}) == "/a/{a_id}/b"


async def test_a_slash_too_many_is_another_path(acme: Account) -> None:
    for path in ("/contacts/", "/tenant/", "//openapi.json/"):
        (await acme.call("GET", path)).is_problem(404)


async def test_what_a_client_would_rather_have_is_not_asked(acme: Account) -> None:
    answer = await acme.call("GET", "/tenant", headers={"Accept": "application/xml"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b'{"name":"A","phone":"1","attributes":{"a":' + b"9" * 5000 + b"}}", 400),
        (b'{"name":"A","phone":"+919876543210","attributes":{"a":1e400}}', 400),
        (b'{"name":"A","phone":"+919876543210","attributes":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}", 400),
        (b'{"name":"\\ud83d","phone":"+919876543210"}', 400),
        (b'{"name":"\xed\xa0\xbd","phone":"+919876543210"}', 400),
        (b'{"name":"\\u0000","phone":"+919876543210"}', 422),
        (b'\xef\xbb\xbf{"name":"A","phone":"+919876543210"}', 400),
    ],
)
async def test_odd_values_are_refused_and_nothing_is_stored(acme: Account, raw: bytes, status: int) -> None:
    (await acme.call("POST", "/contacts", data=raw, headers=JSON)).is_problem(status)
    assert (await acme.get("/contacts"))["items"] == []
