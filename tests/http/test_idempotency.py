"""`Idempotency-Key`: the work is done once, whoever asks how often, at once or after everything died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from aiohttp import ClientSession, FormData
from aiohttp.test_utils import TestServer
from door_client import PASSWORD, Account, Answer, Api, a_phone
from support import Database, until

from harkara.bus.errors import Unavailable
from harkara.bus.messages import Ack, Outgoing
from harkara.http.context import Context
from harkara.http.door import Door, build
from harkara.ids import time_of, uuid7
from harkara.storage.storage import Storage

AT_ONCE = 20


def key(text: str | None = None) -> dict[str, str]:
    """The header, with a key that no other request has."""
    return {"Idempotency-Key": text or str(uuid4())}


async def at_once(account: Account, path: str, body: Any, header: dict[str, str]) -> list[Answer]:
    """The same request, with or without a body, many times at the same moment."""
    sent = {} if body is None else {"body": body}
    return await asyncio.gather(*(account.call("POST", path, headers=header, **sent) for _ in range(AT_ONCE)))


def the_one(answers: list[Answer], status: int) -> Answer:
    """The answer that all of them are: one of them first, the others again."""
    assert {answer.status for answer in answers} == {status}, [answer.text for answer in answers]
    assert {answer.text for answer in answers} == {answers[0].text}
    assert {answer.headers.get("Location") for answer in answers} == {answers[0].headers.get("Location")}
    assert {answer.headers["Content-Type"] for answer in answers} == {answers[0].headers["Content-Type"]}
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers].count(None) == 1
    return answers[0]


async def stored(door: Door, tenant: str) -> list[Any]:
    """The commands of a tenant that the broker holds."""
    assert door.bus is not None
    subject = f"t.{tenant}.cmd.>"
    info = await door.bus.js._jsm.stream_info("COMMANDS", subjects_filter=subject)
    return [name for name, count in (info.state.subjects or {}).items() for _ in range(count)]


async def test_a_contact_is_made_once(acme: Account) -> None:
    answer = the_one(await at_once(acme, "/contacts", {"name": "Asha", "phone": a_phone()}, key()), 201)
    contacts = (await acme.get("/contacts"))["items"]
    assert [contact["id"] for contact in contacts] == [answer.body["id"]]
    assert len((await acme.get("/audit?entity=contact"))["items"]) == 1


async def test_a_key_is_made_once_and_shown_again(acme: Account, api: Api) -> None:
    answer = the_one(await at_once(acme, "/api-keys", {"name": "CI"}, key()), 201)
    assert len((await acme.get("/api-keys"))["items"]) == 1
    assert (await api.call("GET", "/contacts", headers={"X-API-Key": answer.body["key"]})).status == 200


async def test_a_message_is_accepted_once(acme: Account, door: Door) -> None:
    wanted = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi", "lane": "utility"}
    the_one(await at_once(acme, "/messages", wanted, key()), 202)
    assert len(await stored(door, acme.tenant)) == 1


async def test_an_enrolment_is_accepted_once(acme: Account, door: Door) -> None:
    contact, campaign = await acme.contact(), await acme.campaign()
    the_one(await at_once(acme, f"/contacts/{contact}/campaign/{campaign}/enroll", None, key()), 202)
    assert len(await stored(door, acme.tenant)) == 1


async def test_many_are_enrolled_once(acme: Account, door: Door) -> None:
    contact, campaign = await acme.contact(), await acme.campaign()
    the_one(await at_once(acme, f"/campaigns/{campaign}/enroll", {"contact_ids": [contact]}, key()), 202)
    assert len(await stored(door, acme.tenant)) == 1


async def test_a_sender_of_the_sandbox_is_registered_once(acme: Account) -> None:
    """The sandbox asks our webhook while it is being registered, so the row must be committed by then."""
    wanted = {"name": "Shop", "provider": "sandbox"}
    answer = the_one(await at_once(acme, "/senders", wanted, key()), 201)
    assert [sender["id"] for sender in (await acme.get("/senders"))["items"]] == [answer.body["id"]]


async def test_what_could_not_be_registered_leaves_the_key_free(
    acme: Account, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, wanted = key(), {"name": "Shop", "provider": "sandbox"}
    monkeypatch.setattr(door, "settings", _elsewhere(door))
    (await acme.call("POST", "/senders", body=wanted, headers=header)).is_problem(502)
    assert (await acme.get("/senders"))["items"] == []
    monkeypatch.undo()
    assert (await acme.call("POST", "/senders", body=wanted, headers=header)).status == 201


def _elsewhere(door: Door) -> Any:
    return msgspec.structs.replace(door.settings, whatsapp_gateway_url="http://127.0.0.1:9")


async def test_another_body_path_or_query_under_the_same_key_is_refused(acme: Account) -> None:
    header, wanted = key(), {"name": "Asha", "phone": a_phone()}
    assert (await acme.call("POST", "/contacts", body=wanted, headers=header)).status == 201
    for path, body in (
        ("/contacts", wanted | {"name": "Bea"}),
        ("/contacts?", wanted | {"phone": a_phone()}),
        ("/api-keys", {}),
        ("/feed/ticket", None),
    ):
        refused = (await acme.call("POST", path, body=body, headers=header)).is_problem(422)
        assert "Idempotency-Key" in refused.faults()
    assert len((await acme.get("/contacts"))["items"]) == 1


async def test_equal_keys_of_two_callers_are_two_keys(acme: Account, other: Account, api: Api) -> None:
    header = key()
    machine = Account(api, acme.tenant, "", {}, {"X-API-Key": (await acme.post("/api-keys", {}))["key"]})
    ids = set[str]()
    for account in (acme, other, machine):
        answer = await account.call("POST", "/contacts", body={"name": "A", "phone": a_phone()}, headers=header)
        assert answer.status == 201, answer.text
        assert "Idempotent-Replayed" not in answer.headers
        ids.add(answer.body["id"])
    assert len(ids) == 3


async def test_what_was_refused_may_be_mended_under_the_same_key(acme: Account) -> None:
    header = key()
    (await acme.call("POST", "/contacts", body={"name": "", "phone": a_phone()}, headers=header)).is_problem(422)
    (await acme.call("POST", "/contacts", body={"name": "A", "phone": "1", "x": 1}, headers=header)).is_problem(422)
    assert (await acme.call("POST", "/contacts", body={"name": "A", "phone": a_phone()}, headers=header)).status == 201


async def test_of_many_that_are_refused_at_once_each_is_told_so(acme: Account) -> None:
    answers = await at_once(acme, "/contacts", {"name": "", "phone": "1"}, key())
    assert {answer.status for answer in answers} <= {422}


async def test_another_method_takes_no_notice(acme: Account) -> None:
    header, contact = key(), await acme.contact()
    for name in ("B", "C"):
        answer = await acme.call("PATCH", f"/contacts/{contact}", body={"name": name}, headers=header)
        assert (answer.status, answer.body["name"]) == (200, name)


@pytest.mark.parametrize("text", ["", "x" * 256, "schlüssel", "tab\there"])
async def test_what_is_no_key_is_refused_by_name(acme: Account, text: str) -> None:
    answer = await acme.call(
        "POST", "/contacts", body={"name": "A", "phone": a_phone()}, headers={"Idempotency-Key": text}
    )
    assert "Idempotency-Key" in answer.is_problem(400).faults()


@pytest.mark.parametrize("text", ["1", "x" * 255, "'; drop table contacts; --", "a b ~!@#$%^&*()"])
async def test_whatever_can_be_printed_is_a_key(acme: Account, text: str) -> None:
    wanted = {"name": "A", "phone": a_phone()}
    first, second = [await acme.call("POST", "/contacts", body=wanted, headers=key(text)) for _ in range(2)]
    assert (first.status, second.status, first.text) == (201, 201, second.text)


async def test_an_answer_without_a_body_comes_again_as_it_was(api: Api, acme: Account) -> None:
    header, body = key(), {"refresh_token": acme.tokens["refresh_token"]}
    for replayed in (None, "true"):
        answer = await api.call("POST", "/auth/logout", body=body, headers=header)
        assert (answer.status, answer.text, answer.headers.get("Idempotent-Replayed")) == (204, "", replayed)


async def test_signing_up_twice_gives_the_first_answer_again(api: Api) -> None:
    tenant, header = f"t-{uuid4().hex[:12]}", key()
    wanted = {"tenant": {"id": tenant, "name": "Shop"}, "email": f"o@{tenant}.example", "password": PASSWORD}
    answers = await asyncio.gather(
        *(api.call("POST", "/auth/signup", body=wanted, headers=header) for _ in range(AT_ONCE))
    )
    made = the_one(list(answers), 201)
    me = await api.call("GET", "/auth/me", headers={"Authorization": f"Bearer {made.body['access_token']}"})
    assert me.body["tenant"]["id"] == tenant
    another = wanted | {"tenant": {"id": f"{tenant}-2", "name": "Shop"}}
    (await api.call("POST", "/auth/signup", body=another, headers=header)).is_problem(422)


async def test_a_refresh_whose_answer_was_lost_is_no_theft(api: Api, acme: Account) -> None:
    """Without the key the second use of a token ends the whole log-in."""
    header, body = key(), {"refresh_token": acme.tokens["refresh_token"]}
    first, again = [await api.call("POST", "/auth/refresh", body=body, headers=header) for _ in range(2)]
    assert (first.status, again.status, first.text) == (200, 200, again.text)
    last = await api.call("POST", "/auth/refresh", body={"refresh_token": again.body["refresh_token"]})
    assert last.status == 200


async def test_a_wrong_password_is_not_remembered(api: Api, acme: Account) -> None:
    header = key()
    for _ in range(2):
        body = {"email": acme.email, "password": "wrong password"}
        answer = (await api.call("POST", "/auth/login", body=body, headers=header)).is_problem(401)
        assert "Idempotent-Replayed" not in answer.headers
    body = {"email": acme.email, "password": PASSWORD}
    assert (await api.call("POST", "/auth/login", body=body, headers=header)).status == 200


@asynccontextmanager
async def another(door: Door, **replaced: Any) -> AsyncIterator[Api]:
    """Another process' front door on the same servers: it remembers nothing of this one's."""
    made = Door(
        settings=door.settings, storage=door.storage, publisher=door.publisher, redis=door.redis, bus=door.bus,
        passwords=door.passwords, feed=door.feed,
    )  # fmt: skip
    for name, value in replaced.items():
        setattr(made, name, value)
    async with TestServer(build(made)) as server, ClientSession() as session:
        yield Api(str(server.make_url("")).rstrip("/"), session, made)


async def test_it_holds_across_processes_and_restarts(acme: Account, door: Door, database: Database) -> None:
    header, wanted = key(), {"name": "Asha", "phone": a_phone()}
    storage = Storage(database.app_url, pool=2)
    await storage.open()
    try:
        async with another(door) as one, another(replace_storage(door, storage)) as two:
            calls = [
                Account(api, acme.tenant, acme.email, {}, acme.headers).call(
                    "POST", "/contacts", body=wanted, headers=header
                )
                for api in (one, two, acme.api) * 4
            ]
            answer = the_one(list(await asyncio.gather(*calls)), 201)
    finally:
        await storage.close()
    async with another(door) as later:
        again = await Account(later, acme.tenant, acme.email, {}, acme.headers).call(
            "POST", "/contacts", body=wanted, headers=header
        )
    assert (again.text, again.headers["Idempotent-Replayed"]) == (answer.text, "true")


def replace_storage(door: Door, storage: Storage) -> Door:
    return Door(
        settings=door.settings, storage=storage, publisher=door.publisher, redis=door.redis, bus=door.bus,
        passwords=door.passwords, feed=door.feed,
    )  # fmt: skip


class DiesAfterStoring:
    """A publisher with whom the process dies: the broker has the command, and nobody hears of it."""

    def __init__(self, door: Door, die: Callable[[], Awaitable[None]]) -> None:
        self._inner, self._die = door.publisher, die

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, outgoing: Outgoing) -> Ack:
        await self._inner.publish(outgoing)
        await self._die()
        raise AssertionError("it is dead")


async def _lost() -> None:
    raise Unavailable("no answer")


async def _broken() -> None:
    raise RuntimeError("something else")


@pytest.mark.parametrize("die", [_lost, _broken])
async def test_a_command_that_was_stored_before_all_died_is_stored_once(
    acme: Account, door: Door, die: Callable[[], Awaitable[None]]
) -> None:
    wanted = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi", "lane": "utility"}
    header = key()
    async with another(door) as dying:
        dying.door.publisher = DiesAfterStoring(door, die)
        account = Account(dying, acme.tenant, acme.email, {}, acme.headers)
        assert (await account.call("POST", "/messages", body=wanted, headers=header)).status >= 500
    assert len(await stored(door, acme.tenant)) == 1
    answer = await acme.call("POST", "/messages", body=wanted, headers=header)
    assert (answer.status, answer.headers.get("Idempotent-Replayed")) == (202, None)
    assert len(await stored(door, acme.tenant)) == 1
    again = await acme.call("POST", "/messages", body=wanted, headers=header)
    assert (again.text, again.headers["Idempotent-Replayed"]) == (answer.text, "true")


async def test_a_request_whose_database_connection_dies_is_done_once_by_the_next(
    acme: Account, door: Door, admin: asyncpg.Connection
) -> None:
    """The command is stored, then the transaction that would keep the answer is killed before it commits."""
    header = key()
    contact, campaign = await acme.contact(), await acme.campaign()
    path = f"/contacts/{contact}/campaign/{campaign}/enroll"

    async def kill() -> None:
        killed = await admin.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where state = 'idle in transaction' and usename = 'harkara_app'"
        )
        assert killed

    async with another(door) as dying:
        publisher = door.publisher

        class Killing(DiesAfterStoring):
            async def publish(self, outgoing: Outgoing) -> Ack:
                ack = await publisher.publish(outgoing)
                await kill()
                return ack

        dying.door.publisher = Killing(door, kill)
        account = Account(dying, acme.tenant, acme.email, {}, acme.headers)
        (await account.call("POST", path, headers=header)).is_problem(503)
    answer = await acme.call("POST", path, headers=header)
    assert answer.status == 202, answer.text
    assert len(await stored(door, acme.tenant)) == 1


async def test_an_import_comes_again_whatever_boundary_its_form_has(acme: Account) -> None:
    """Each time a form is sent anew it has another boundary; and a large file is not held in memory."""
    rows = "\n".join(f"Asha {number},{a_phone()}" for number in range(3000))
    text, header, told = f"name,phone\n{rows}\n", key(), list[Answer]()
    for _ in range(2):
        form = FormData()
        form.add_field("file", text.encode(), filename="a.csv", content_type="text/csv")
        told.append(await acme.call("POST", "/contacts/import", data=form, headers=header))
    first, again = told
    assert (first.status, first.body["created"]) == (200, 3000)
    assert (again.text, again.headers["Idempotent-Replayed"]) == (first.text, "true")
    plain = await acme.call(
        "POST", "/contacts/import", data=text.encode(), headers={**header, "Content-Type": "text/csv"}
    )
    assert plain.status == 422, "the file alone is another body than the form"


async def test_who_prefers_to_wait_does_not_keep_a_transaction_open(
    acme: Account, door: Door, owner: asyncpg.Connection
) -> None:
    """No actor runs here, so the outcome never comes: the equal request is answered all the same."""
    wanted = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi", "lane": "utility"}
    header = key()
    first = asyncio.create_task(acme.call("POST", "/messages", body=wanted, headers=header | {"Prefer": "wait=30"}))
    kept = "select answer is not null from idempotency_keys where tenant_id = $1"
    await until(lambda: owner.fetchval(kept, acme.tenant), "the answer is kept")
    again = await acme.call("POST", "/messages", body=wanted, headers=header)
    assert (again.status, again.body["status"], again.headers["Idempotent-Replayed"]) == (202, "accepted", "true")
    assert not first.done()
    first.cancel()
    await asyncio.wait({first})


async def test_a_key_is_forgotten_after_a_day(acme: Account, owner: asyncpg.Connection, storage: Storage) -> None:
    header, wanted = key(), {"name": "A", "phone": a_phone()}
    assert (await acme.call("POST", "/contacts", body=wanted, headers=header)).status == 201
    aged = "update idempotency_keys set created_at = now() - interval '25 hours' where tenant_id = $1 returning id"
    assert await owner.fetchval(aged, acme.tenant)
    (await acme.call("POST", "/contacts", body=wanted, headers=header)).is_problem(409)
    wanted["phone"] = a_phone()
    assert (await acme.call("POST", "/contacts", body=wanted, headers=header)).status == 201
    assert await owner.fetchval(aged, acme.tenant)
    async with storage.anonymous() as con:
        assert await con.fetchval("select app.forget_keys(1000)") >= 1
    assert await owner.fetchval("select count(*) from idempotency_keys where tenant_id = $1", acme.tenant) == 0


async def test_what_is_kept_of_an_answer_is_encrypted(acme: Account, owner: asyncpg.Connection) -> None:
    made = await acme.call("POST", "/api-keys", body={}, headers=key())
    kept = await owner.fetchval("select answer from idempotency_keys where tenant_id = $1", acme.tenant)
    assert kept
    assert made.body["key"].encode() not in kept


async def test_an_equal_request_that_takes_too_long_is_told_to_come_again(
    acme: Account, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi", "lane": "utility"}
    header, stuck, go_on = key(), asyncio.Event(), asyncio.Event()

    class Slow(DiesAfterStoring):
        async def publish(self, outgoing: Outgoing) -> Ack:
            stuck.set()
            await go_on.wait()
            return await door.publisher.publish(outgoing)

    monkeypatch.setattr("harkara.http.idempotency.PATIENCE", timedelta(seconds=0.2))
    async with another(door) as slow, another(door) as third:
        slow.door.publisher = Slow(door, _lost)
        first = asyncio.create_task(
            Account(slow, acme.tenant, acme.email, {}, acme.headers).call(
                "POST", "/messages", body=wanted, headers=header
            )
        )
        await stuck.wait()
        for api in (slow, third):  # in the same process, and in another
            account = Account(api, acme.tenant, acme.email, {}, acme.headers)
            answer = (await account.call("POST", "/messages", body=wanted, headers=header)).is_problem(409)
            assert answer.headers["Retry-After"]
        go_on.set()
        assert (await first).status == 202


def test_ids_are_the_same_for_the_same_request() -> None:
    def ids(seed: UUID | None) -> list[UUID]:
        nothing: Any = None
        ctx: Context[Any, Any] = Context(nothing, nothing, nothing, "", None, None)
        ctx.seed = seed
        return [ctx.new_id() for _ in range(3)]

    seed = uuid7()
    assert ids(seed) == ids(seed)
    assert len({*ids(seed), *ids(uuid7()), *ids(None), *ids(None)}) == 12
    assert {time_of(id_) for id_ in ids(seed)} == {time_of(seed)}


@pytest.mark.parametrize("count", [3, 3000, 6000])
async def test_a_plain_file_is_read_as_it_was_sent(acme: Account, count: int) -> None:
    rows = "\n".join(f"Asha {number},{a_phone()}" for number in range(count))
    answer = await acme.call(
        "POST",
        "/contacts/import",
        data=f"name,phone\n{rows}\n".encode(),
        headers={**key(), "Content-Type": "text/csv"},
    )
    assert answer.status in {200, 202}, answer.text
