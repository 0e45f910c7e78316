"""A line is one contact's, whoever brings it at the same moment; and is found however its number is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from door_client import Account, a_line, a_phone
from enrolled import enrolled
from heard import AT, World, said
from support import waited_for

from harkara.actors.spelling import respelled
from harkara.gateway.reports import parse
from harkara.ids import uuid7
from harkara.importing.reading import Column, Row
from harkara.importing.rows import Batch, Meaning, batch
from harkara.storage import dispatching, holding, importing, lines, linking, receiving
from harkara.storage.holding import Speakers
from harkara.storage.models import Contact
from harkara.storage.storage import Storage

STOP: dict[str, Any] = {"type": "text", "text": {"body": "STOP"}}

LINES = [
    ("+5511987654321", "+551187654321"),
    ("+525512345678", "+5215512345678"),
    ("+541123456789", "+5491123456789"),
]


def a_file(*phones: str) -> bytes:
    return ("name,phone\n" + "".join(f"Ana,{phone}\n" for phone in phones)).encode()


def read(*phones: str) -> Batch:
    meaning = Meaning([Column("name", "name"), Column("phone", "phone")], None, AT)
    return batch([Row(number, ["Ana", phone]) for number, phone in enumerate(phones, start=2)], meaning)


async def owners(acme: Account, storage: Storage, *spelled: str) -> list[UUID]:
    async with storage.tenant(acme.tenant) as con:
        found = await con.fetch(
            "select id from contacts where phone = any ($1::text[])"
            " union all select contact_id from phone_numbers where phone = any ($1::text[])",
            list(spelled),
        )
    return [row[0] for row in found]


async def by_import(acme: Account, _: Storage, *phones: str, **headers: str) -> int:
    answer = await acme.call(
        "POST", "/contacts/import", data=a_file(*phones), headers={"Content-Type": "text/csv", **headers}
    )
    assert answer.status == 200, answer.text
    return int(answer.body["created"])


async def by_request(acme: Account, _: Storage, phone: str) -> int:
    answer = await acme.call("POST", "/contacts", body={"name": "Ana", "phone": phone})
    return {201: 1, 409: 0}[answer.status]


async def by_change(acme: Account, _: Storage, phone: str) -> int:
    answer = await acme.call("PATCH", f"/contacts/{await acme.contact()}", body={"phone": phone})
    return {200: 1, 409: 0}[answer.status]


async def by_further_number(acme: Account, _: Storage, phone: str) -> int:
    path = f"/contacts/{await acme.contact()}/phone-numbers"
    return {201: 1, 409: 0}[(await acme.call("POST", path, body={"phone": phone})).status]


async def by_stop(acme: Account, storage: Storage, phone: str) -> int:
    """Somebody writes to us, whom nobody knows."""
    await World(storage, await enrolled(storage, acme.tenant)).hears_message(phone=phone, **STOP)
    return 0


Way = Callable[[Account, Storage, str], Coroutine[Any, Any, int]]
WAYS: list[Way] = [by_import, by_request, by_change, by_further_number, by_stop]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("line", LINES)
async def test_who_brings_a_line_waits_for_an_import_of_its_other_spelling(
    acme: Account, storage: Storage, way: Way, line: tuple[str, str]
) -> None:
    # People's numbers of Mexico are read without the 1, so there only WhatsApp has another.
    imported, brought = line if way is by_stop or line[0][:3] != "+52" else line[::-1]
    async with storage.tenant(acme.tenant) as con:
        if way is not by_stop and line[0][:3] == "+52":
            await receiving.contact_for(con, acme.tenant, imported, None, "Ana", uuid7())
            await lines.claim(con, [(acme.tenant, imported)])
        else:
            await importing.store(con, acme.tenant, uuid4(), read(imported), 1, "")
        other = asyncio.create_task(way(acme, storage, brought))
        await waited_for(con, other)
    assert await other == 0
    [owner] = await owners(acme, storage, *line)
    async with storage.tenant(acme.tenant):
        assert (await Contact.get(id=owner)).phone == imported
        assert ((await Contact.get(id=owner)).opted_out_at is not None) == (way is by_stop)


@pytest.mark.parametrize("line", [*LINES, LINES[0][::-1]])
async def test_an_import_waits_for_a_first_stop_in_the_other_spelling(
    acme: Account, storage: Storage, line: tuple[str, str]
) -> None:
    imported, told = line
    world = World(storage, await enrolled(storage, acme.tenant))
    d = world.delivery(said(phone=told, **STOP))
    async with storage.tenant(acme.tenant) as con:
        [(_, webhook)] = await respelled(con, [(d, parse("whatsapp", d.message.body, AT)[None])])
        await receiving.contact_for(con, acme.tenant, f"+{webhook.messages[0].phone}", None, "Ana", uuid7())
        await con.execute("update contacts set opted_out_at = now(), opted_out_reason = 'asked' where phone = $1", told)
        other = asyncio.create_task(by_import(acme, storage, imported))
        await waited_for(con, other)
    assert await other == 0
    [owner] = await owners(acme, storage, *line)
    assert (await acme.get(f"/contacts/{owner}"))["opted_out_reason"] == "asked"


async def test_forty_lines_that_come_in_both_spellings_at_once_are_forty_contacts(
    acme: Account, storage: Storage
) -> None:
    """From two files in opposite orders, from requests and from people who write."""
    world = World(storage, await enrolled(storage, acme.tenant))
    found = [a_line() for _ in range(40)]
    stops = [world.delivery(said(phone=line[at % 2], **STOP)) for at, line in enumerate(found) if at % 3 == 0]
    await asyncio.gather(
        by_import(acme, storage, *(line[0] for line in found)),
        by_import(acme, storage, *(line[1] for line in reversed(found))),
        *(by_request(acme, storage, line[at % 2]) for at, line in enumerate(found)),
        *(world.hears(stop) for stop in stops),
    )
    made = [await owners(acme, storage, *line) for line in found]
    assert [len(one) for one in made] == [1] * 40
    async with storage.tenant(acme.tenant):
        out = {one.id for one in await Contact.filter(opted_out_at__isnull=False)}
    assert out == {one[0] for at, one in enumerate(made) if at % 3 == 0}


async def test_two_spellings_of_one_stranger_in_one_batch_are_one_contact(acme: Account, storage: Storage) -> None:
    world, line = World(storage, await enrolled(storage, acme.tenant)), a_line()
    await world.hears(*(world.delivery(said(second=at, phone=phone, **STOP)) for at, phone in enumerate(line)))
    [owner] = await owners(acme, storage, *line)
    async with storage.tenant(acme.tenant):
        assert (await Contact.get(id=owner)).phone == line[0], "as it was told first"


async def test_a_claim_is_of_one_line_of_one_tenant_and_ends_with_its_transaction(
    acme: Account, other: Account, storage: Storage
) -> None:
    line, another, third = a_line(), a_line(), a_line()
    async with storage.tenant(acme.tenant) as con:
        await lines.claim(con, [(acme.tenant, line[0]), (acme.tenant, line[1])])
        async with asyncio.timeout(30):
            assert await by_request(acme, storage, another[0]) == 1
            assert await by_request(other, storage, line[0]) == 1
        waits = asyncio.create_task(by_request(acme, storage, line[1]))
        await waited_for(con, waits)
    assert await waits == 1
    async with storage.tenant(other.tenant) as con:
        await lines.claim(con, [(acme.tenant, third[0])])
        async with asyncio.timeout(30):
            assert await by_request(acme, storage, third[0]) == 1, "nobody claims what is another tenant's"


@pytest.mark.parametrize("way", ["first number", "further number"])
async def test_a_request_that_waits_for_a_line_holds_no_contact(acme: Account, storage: Storage, way: str) -> None:
    """The import that it waits for may be about to write that very contact."""
    phone, line = a_phone(), a_line()
    contact = await acme.contact(phone=phone)
    async with storage.tenant(acme.tenant) as con:
        await importing.store(con, acme.tenant, uuid4(), read(line[0]), 1, "")
        if way == "first number":
            asked = acme.call("PATCH", f"/contacts/{contact}", body={"phone": line[1]})
        else:
            asked = acme.call("POST", f"/contacts/{contact}/phone-numbers", body={"phone": line[1]})
        waits = asyncio.create_task(asked)
        await waited_for(con, waits)
        async with asyncio.timeout(30):
            stored = await importing.store(con, acme.tenant, uuid4(), read(phone), 1, "")
        assert stored.updated == 1
    (await waits).is_problem(409)


@pytest.mark.parametrize("lined", [False, True])
async def test_two_files_that_are_one_transaction_each_do_not_block_each_other(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch, lined: bool
) -> None:
    monkeypatch.setattr("harkara.http.contact_import.CHUNK_ROWS", 1)
    phones = [a_line()[0], a_phone()] if lined else [a_phone(), a_phone()]
    store, first = importing.store, asyncio.Event()

    async def watched(con: Any, *args: Any) -> Any:
        stored = await store(con, *args)
        if not first.is_set():
            first.set()
            await waited_for(con)
        return stored

    monkeypatch.setattr(importing, "store", watched)
    one = asyncio.create_task(by_import(acme, storage, *phones, **{"Idempotency-Key": str(uuid4())}))
    await first.wait()
    monkeypatch.setattr(importing, "store", store)
    other = asyncio.create_task(by_import(acme, storage, *phones[::-1], **{"Idempotency-Key": str(uuid4())}))
    assert [await one, await other] == [2, 0]


# -- found ------------------------------------------------------------------------------------------------------------


async def known_as(acme: Account, storage: Storage, phone: str) -> str:
    """A contact who has written to us under this spelling."""
    async with storage.tenant(acme.tenant) as con:
        return str((await receiving.contact_for(con, acme.tenant, phone, None, "José", uuid7())).id)


@pytest.mark.parametrize("line", [*LINES, *(line[::-1] for line in LINES)])
@pytest.mark.parametrize("further", [False, True])
async def test_a_contact_is_found_by_its_number_in_any_spelling(
    acme: Account, storage: Storage, line: tuple[str, str], further: bool
) -> None:
    known, asked = line
    first = a_phone() if further else known
    contact = await known_as(acme, storage, first)
    if further:
        async with storage.tenant(acme.tenant) as con:
            add = "insert into phone_numbers (id, tenant_id, contact_id, phone, label) values ($1, $2, $3, $4, '')"
            await con.execute(add, uuid7(), acme.tenant, UUID(contact), known)
    await acme.contact()
    for spelled in line:
        for query in (f"phone={quote(spelled)}", f"q={quote(spelled)}", f"phone={quote(spelled)}&q=jos"):
            assert [one["id"] for one in (await acme.get(f"/contacts?{query}"))["items"]] == [contact], query
    assert (await acme.get(f"/contacts?phone={quote(asked)}&q=nobody"))["items"] == []
    assert (await acme.get(f"/contacts?phone={quote(asked)}&tag=none"))["items"] == []
    # It is the contact that is written to, under the number that it has.
    sender, text = UUID(await acme.sender()), {"to": asked, "body": "Hello {{ name }}"}
    accepted = await acme.post("/messages", text | {"sender_id": str(sender)}, status=202)
    async with storage.batch({acme.tenant}) as con:
        [to] = await dispatching.recipients(con, [(acme.tenant, sender, None, asked, "utility")])
        assert (str(to.contact_id), to.phone, to.name) == (contact, known, "José")
        assert await holding.who(con, acme.tenant, Speakers([asked])) == [UUID(contact)]
        new = dispatching.NewMessage(
            UUID(accepted["id"]), acme.tenant, to.contact_id, sender, "utility", known, "{}", "queued", None, "", AT
        )
        await dispatching.queue(con, [new])
        sent = "update messages set status = 'unknown', attempted_at = $1 where tenant_id = $2"
        await con.execute(sent, AT, acme.tenant)
        echoed = await linking.unanswered(con, acme.tenant, sender, asked, None, "wamid.x", (AT, AT))
        assert [id_ for id_, _ in echoed] == [new.id]
    for spelled in line:
        assert [one["id"] for one in (await acme.get(f"/messages?to={quote(spelled)}"))["items"]] == [accepted["id"]]


async def test_of_two_contacts_of_one_line_the_one_with_this_very_spelling_is_meant(
    acme: Account, storage: Storage
) -> None:
    line, sender = a_line(), UUID(await acme.sender())
    two = [await known_as(acme, storage, phone) for phone in line]
    async with storage.batch({acme.tenant}) as con:
        wanted = [(acme.tenant, sender, None, phone, "utility") for phone in line]
        assert [str(one.contact_id) for one in await dispatching.recipients(con, wanted)] == two
    found = await acme.get(f"/contacts?phone={quote(line[0])}")
    assert [one["id"] for one in found["items"]] == two[::-1], "both have it"


async def test_other_tenants_find_nobody(acme: Account, other: Account, storage: Storage) -> None:
    line = a_line()
    await acme.contact(phone=line[0])
    for phone in line:
        assert (await other.get(f"/contacts?phone={quote(phone)}"))["items"] == []
        async with storage.tenant(other.tenant) as con:
            assert await lines.owner(con, acme.tenant, phone) is None
