"""Who has opted out is not forgotten with their contact: whoever has the number again starts opted out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from door_client import Account, a_phone
from support import one_row

from harkara.ids import uuid7
from harkara.storage import dispatching, holdings, naming, opting, receiving, sending
from harkara.storage.dispatching import NewMessage
from harkara.storage.naming import Learned
from harkara.storage.opting import Word
from harkara.storage.sending import Attempt
from harkara.storage.storage import Storage
from harkara.values import spellings

STOPPED = datetime(2026, 1, 31, 12, 30, 0, 250_000, tzinfo=UTC)


async def said(storage: Storage, tenant: str, contact: str, word: Word) -> None:
    async with storage.tenant(tenant) as con:
        await opting.hear(con, tenant, UUID(contact), word)


async def erased(acme: Account, storage: Storage, contact: str) -> None:
    """As the eraser does it."""
    shown = await acme.get(f"/contacts/{contact}")
    async with storage.tenant(acme.tenant) as con:
        await holdings.erase(con, acme.tenant, UUID(contact), [shown["phone"]], shown["wa_user_id"], uuid7())


async def forgotten(
    acme: Account, storage: Storage, category: Any = "all", phone: str | None = None, **more: Any
) -> str:
    """The number of a contact who opted out and was erased."""
    phone = phone or a_phone()
    contact = await acme.contact(phone=phone, **more)
    await said(storage, acme.tenant, contact, Word(category, True, STOPPED, "asked"))
    await erased(acme, storage, contact)
    return phone


async def remembered(storage: Storage, tenant: str) -> int:
    async with storage.tenant(tenant) as con:
        return int(await con.fetchval("select count(*) from suppressions"))


async def by_import(acme: Account, _: Storage, phone: str) -> str:
    answer = await acme.call(
        "POST", "/contacts/import", data=f"name,phone,consent\nAsha,{phone},yes\n".encode(),
        headers={"Content-Type": "text/csv"},
    )  # fmt: skip
    assert answer.body["created"] == 1
    [found] = (await acme.get(f"/contacts?phone={phone.replace('+', '%2B')}"))["items"]
    return str(found["id"])


async def by_request(acme: Account, _: Storage, phone: str) -> str:
    made = await acme.post("/contacts", {"name": "Asha", "phone": phone, "consent": True})
    assert made["opted_out_at"] is not None
    return str(made["id"])


async def by_writing_to_us(acme: Account, storage: Storage, phone: str) -> str:
    async with storage.tenant(acme.tenant) as con:
        return str((await receiving.contact_for(con, acme.tenant, phone, None, "Asha", uuid7())).id)


async def by_change(acme: Account, _: Storage, phone: str) -> str:
    contact = await acme.contact()
    answer = await acme.call("PATCH", f"/contacts/{contact}", body={"phone": phone, "consent": True})
    assert answer.body["opted_out_at"] is not None
    return contact


async def by_further_number(acme: Account, _: Storage, phone: str) -> str:
    contact = await acme.contact()
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": phone})
    return contact


async def by_learning(acme: Account, storage: Storage, phone: str) -> str:
    """Somebody known by the id of WhatsApp's alone shows their number."""
    async with storage.tenant(acme.tenant) as con:
        made = await receiving.contact_for(con, acme.tenant, None, "IN.1234", "Asha", uuid7())
        await naming.learn(con, [Learned(acme.tenant, made.id, phone, None)])
    return str(made.id)


async def by_new_number(acme: Account, storage: Storage, phone: str) -> str:
    contact = await acme.contact()
    async with storage.tenant(acme.tenant) as con:
        assert await receiving.renumber(con, acme.tenant, UUID(contact), phone, None)
    return contact


Back = Callable[[Account, Storage, str], Awaitable[str]]
WAYS = [
    by_import, by_request, by_writing_to_us, by_change, by_further_number, by_learning, by_new_number,
]  # fmt: skip

#: Those in which somebody becomes a second contact of a line.
SECOND = [by_writing_to_us, by_learning, by_new_number]


async def test_an_import_counts_whom_it_leaves_opted_out(acme: Account, storage: Storage) -> None:
    numbers = [await forgotten(acme, storage, category) for category in ("all", "marketing", "utility")]
    known, fresh, says_so = a_phone(), a_phone(), a_phone()
    await said(storage, acme.tenant, await acme.contact(phone=known), Word("all", True, STOPPED, "asked"))
    rows = "".join(f"Asha,{phone},yes,\n" for phone in (*numbers, known, fresh)) + f"Ravi,{says_so},,yes\n"
    file, headers = f"name,phone,consent,opted_out\n{rows}".encode(), {"Content-Type": "text/csv"}
    for query, expected in (("?preview=true", {"known": 1}), ("", {"created": 5}), ("", {"updated": 6})):
        told = (await acme.call("POST", f"/contacts/import{query}", data=file, headers=headers)).body
        assert (expected | {"opted_out": 3}).items() <= told.items()


@pytest.mark.parametrize("back", WAYS)
async def test_whoever_has_the_number_again_has_opted_out(acme: Account, storage: Storage, back: Back) -> None:
    contact = await back(acme, storage, await forgotten(acme, storage))
    shown = await acme.get(f"/contacts/{contact}")
    assert datetime.fromisoformat(shown["opted_out_at"]) == STOPPED
    assert shown["opted_out_reason"] == "remembered"
    assert [(out["category"], out["source"]) for out in shown["opt_outs"]] == [("all", "remembered")]
    assert await remembered(storage, acme.tenant) == 0, "it is the contact's again"


SPELLED = [
    ("+5511987654321", "+551187654321"),
    ("+525512345678", "+5215512345678"),
    ("+541123456789", "+5491123456789"),
]


@pytest.mark.parametrize(("one", "other"), [SPELLED[0], SPELLED[0][::-1]])
@pytest.mark.parametrize(
    ("back", "still_there"), [*((back, False) for back in WAYS), *((back, True) for back in SECOND)]
)
async def test_whoever_has_the_number_in_another_spelling_has_opted_out(
    acme: Account, storage: Storage, back: Back, one: str, other: str, still_there: bool
) -> None:
    if still_there:
        await said(storage, acme.tenant, await acme.contact(phone=one), Word("all", True, STOPPED, "asked"))
    else:
        await forgotten(acme, storage, phone=one)
    shown = await acme.get(f"/contacts/{await back(acme, storage, other)}")
    assert datetime.fromisoformat(shown["opted_out_at"]) == STOPPED
    assert shown["opted_out_reason"] == "remembered"
    assert await remembered(storage, acme.tenant) == 0


async def test_a_further_number_in_another_spelling_counts_and_what_was_taken_back_does_not(
    acme: Account, storage: Storage
) -> None:
    (one, other), contact = SPELLED[0], await acme.contact()
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": one})
    await said(storage, acme.tenant, contact, Word("marketing", True, STOPPED, "asked"))
    second = await by_writing_to_us(acme, storage, other)
    made = await acme.get(f"/contacts/{second}")
    assert [(out["category"], out["source"]) for out in made["opt_outs"]] == [("marketing", "remembered")]
    for id_ in (contact, second):
        await said(storage, acme.tenant, id_, Word("all", False, STOPPED + timedelta(seconds=1), "asked"))
    async with storage.tenant(acme.tenant) as con:
        await con.execute("delete from contacts where id = $1", UUID(second))
    made = await acme.get(f"/contacts/{await by_writing_to_us(acme, storage, other)}")
    assert (made["opted_out_at"], made["opt_outs"]) == (None, [])


@pytest.mark.parametrize("erased_first", [False, True])
async def test_of_a_line_of_two_contacts_the_newest_word_counts_whichever_is_erased(
    acme: Account, storage: Storage, erased_first: bool
) -> None:
    gone, left = [await by_writing_to_us(acme, storage, phone) for phone in SPELLED[0]]
    for contact in (gone, left) if erased_first else (gone,):
        await said(storage, acme.tenant, contact, Word("all", True, STOPPED, "asked"))
    start = Word("all", False, STOPPED + timedelta(seconds=1), "asked")
    if not erased_first:
        await said(storage, acme.tenant, left, start)
    await erased(acme, storage, gone)
    assert await remembered(storage, acme.tenant) == 0, "whoever is left has the line"
    assert ((await acme.get(f"/contacts/{left}"))["opted_out_at"] is not None) == erased_first
    await said(storage, acme.tenant, left, start)
    again = await by_writing_to_us(acme, storage, SPELLED[0][0])
    for contact in (left, again):
        assert (await acme.get(f"/contacts/{contact}"))["opted_out_at"] is None


async def test_an_opt_out_of_a_contact_that_is_erased_is_with_who_is_left_of_the_line(
    acme: Account, storage: Storage
) -> None:
    further = a_phone()
    gone, left = await by_writing_to_us(acme, storage, SPELLED[0][0]), await acme.contact()
    async with storage.tenant(acme.tenant) as con:
        add = "insert into phone_numbers (id, tenant_id, contact_id, phone, label) values ($1, $2, $3, $4, '')"
        await con.execute(add, uuid7(), acme.tenant, UUID(left), SPELLED[0][1])
        await con.execute(add, uuid7(), acme.tenant, UUID(gone), further)
    await said(storage, acme.tenant, gone, Word("marketing", True, STOPPED, "asked"))
    await erased(acme, storage, gone)
    shown = await acme.get(f"/contacts/{left}")
    assert [(out["category"], out["source"]) for out in shown["opt_outs"]] == [("marketing", "remembered")]
    assert await remembered(storage, acme.tenant) == 1, "of the other number, which is nobody's"
    await erased(acme, storage, left)
    assert await remembered(storage, acme.tenant) == 3


async def test_the_database_spells_numbers_as_we_do(storage: Storage, acme: Account) -> None:
    others = ["+14155550100", "+551134567890", "+5511934567890", "+52551234567", "+5501187654321", "+55118765432100"]
    async with storage.tenant(acme.tenant) as con:
        for phone in [*others, *(phone for numbers in SPELLED for phone in numbers)]:
            assert tuple(await con.fetchval("select app.spellings($1)", phone)) == spellings(phone)


@pytest.mark.parametrize("gains", [by_change, by_further_number])
async def test_what_becomes_of_a_contact_that_gains_an_opt_out_is_told_and_noted(
    acme: Account, storage: Storage, gains: Back
) -> None:
    contact = await gains(acme, storage, await forgotten(acme, storage))
    [told] = [
        entry["changes"]["after"]
        for entry in (await acme.get(f"/audit?entity=contact&entity_id={contact}&action=update"))["items"]
        if "opted_out_at" in (entry["changes"]["after"] or {})
    ]
    assert told["opted_out_reason"] == "remembered"
    async with storage.tenant(acme.tenant) as con:
        event = await one_row(con, "select body from outbox where subject like '%contact.opted_out'")
    assert '"source":"remembered"' in event["body"]


async def test_only_the_category_is_remembered(acme: Account, storage: Storage) -> None:
    contact = await by_import(acme, storage, await forgotten(acme, storage, "marketing"))
    shown = await acme.get(f"/contacts/{contact}")
    assert shown["opted_out_at"] is None
    assert [(out["category"], out["source"]) for out in shown["opt_outs"]] == [("marketing", "remembered")]


async def test_a_number_that_is_changed_keeps_its_opt_out(acme: Account, storage: Storage) -> None:
    before, after = a_phone(), a_phone()
    contact = await acme.contact(phone=before)
    await said(storage, acme.tenant, contact, Word("all", True, STOPPED, "asked"))
    changed = await acme.call("PATCH", f"/contacts/{contact}", body={"phone": after})
    assert changed.body["opted_out_reason"] == "asked", "it is the same person"
    await by_request(acme, storage, before)


async def test_further_numbers_are_remembered_too(acme: Account, storage: Storage) -> None:
    first, second = a_phone(), a_phone()
    contact = await acme.contact(phone=first)
    number = await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": second})
    await said(storage, acme.tenant, contact, Word("all", True, STOPPED, "asked"))
    path = f"/contacts/{contact}/phone-numbers/{number['id']}"
    assert (await acme.call("PATCH", path, body={"primary": True})).status == 200
    assert await remembered(storage, acme.tenant) == 0, "both are still the contact's"
    await erased(acme, storage, contact)
    assert await remembered(storage, acme.tenant) == 2
    for phone in (first, second):
        await by_request(acme, storage, phone)


async def test_a_later_consent_that_says_where_it_comes_from_counts(acme: Account, storage: Storage) -> None:
    early, late = ({"source": "form", "at": (STOPPED + timedelta(hours=by)).isoformat()} for by in (-1, 1))
    phones = [await forgotten(acme, storage) for _ in range(2)]
    made = await acme.post("/contacts", {"name": "Asha", "phone": phones[0], "consent": late})
    assert (made["opted_out_at"], made["opt_outs"]) == (None, [])
    assert made == await acme.get(f"/contacts/{made['id']}")
    made = await acme.post("/contacts", {"name": "Asha", "phone": phones[1], "consent": early})
    assert made["opted_out_at"] is not None
    lifted = await acme.call("PATCH", f"/contacts/{made['id']}", body={"consent": late})
    assert lifted.body["opted_out_at"] is None


async def test_who_comes_back_by_their_own_word_is_not_opted_out_any_more(acme: Account, storage: Storage) -> None:
    phone = await forgotten(acme, storage)
    contact = await by_writing_to_us(acme, storage, phone)
    await said(storage, acme.tenant, contact, Word("all", False, STOPPED + timedelta(seconds=1), "asked"))
    assert (await acme.get(f"/contacts/{contact}"))["opted_out_at"] is None
    await erased(acme, storage, contact)
    made = await acme.post("/contacts", {"name": "Asha", "phone": phone})
    assert made["opted_out_at"] is None


async def test_what_was_taken_back_since_is_not_given_back(acme: Account, storage: Storage) -> None:
    """Of two names of one person the second is known again only after they have said START."""
    phone = a_phone()
    async with storage.tenant(acme.tenant) as con:
        gone = (await receiving.contact_for(con, acme.tenant, phone, "IN.77", "Asha", uuid7())).id
    await said(storage, acme.tenant, str(gone), Word("all", True, STOPPED, "asked"))
    await erased(acme, storage, str(gone))
    contact = await by_writing_to_us(acme, storage, phone)
    await said(storage, acme.tenant, contact, Word("all", False, STOPPED + timedelta(seconds=1), "asked"))
    async with storage.tenant(acme.tenant) as con:
        await naming.learn(con, [Learned(acme.tenant, UUID(contact), None, "IN.77")])
    shown = await acme.get(f"/contacts/{contact}")
    assert (shown["wa_user_id"], shown["opted_out_at"], shown["opt_outs"]) == ("IN.77", None, [])


async def test_a_merged_contact_leaves_nothing_behind(acme: Account, storage: Storage) -> None:
    kept, phone = await acme.contact(), a_phone()
    gone = await acme.contact(phone=phone)
    await said(storage, acme.tenant, gone, Word("all", True, STOPPED, "asked"))
    merged = await acme.post(f"/contacts/{kept}/merge", {"contact_id": gone}, status=200)
    assert merged["opted_out_reason"] == "asked"
    assert await remembered(storage, acme.tenant) == 0


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("phone", "spelled"), [(None, None), SPELLED[0], SPELLED[0][::-1]])
async def test_a_number_that_is_no_contacts_is_sent_nothing(
    acme: Account, storage: Storage, phone: str | None, spelled: str | None, known: bool
) -> None:
    phone, sender = await forgotten(acme, storage, "utility", phone), UUID(await acme.sender())
    if spelled and known:
        await by_further_number(acme, storage, phone)
    phone = spelled or phone
    wanted = {"sender_id": str(sender), "to": phone, "body": "Hi", "lane": "utility"}
    refused = (await acme.call("POST", "/messages", body=wanted)).is_problem(409)
    who = "this contact" if spelled and known else "whoever has this number"
    assert refused.body["detail"].startswith(f"{who} has opted out")
    assert (await acme.call("POST", "/messages", body=wanted | {"lane": "otp"})).status == 202
    id_, now = uuid7(), datetime.now(UTC)
    attempts = [
        Attempt(id_, acme.tenant, None, sender, None, None, None, lane, phone, "{}", "", now)
        for lane in ("utility", "otp")
    ]
    async with storage.batch({acme.tenant}) as con:
        wants = [(acme.tenant, sender, None, phone, lane) for lane in ("utility", "otp")]
        assert [one.opted_out for one in await dispatching.recipients(con, wants)] == [True, False]
        queued = NewMessage(id_, acme.tenant, None, sender, "utility", phone, "{}", "queued", None, "", now)
        await dispatching.queue(con, [queued])
        assert [one.opted_out for one in await sending.facts(con, attempts)] == [True, False]


async def test_what_waits_for_a_number_that_was_nobodys_is_not_sent_once_it_has_opted_out(
    acme: Account, storage: Storage
) -> None:
    phone, sender, id_, now = a_phone(), UUID(await acme.sender()), uuid7(), datetime.now(UTC)
    async with storage.batch({acme.tenant}) as con:
        await dispatching.queue(
            con, [NewMessage(id_, acme.tenant, None, sender, "utility", phone, "{}", "queued", None, "", now)]
        )
    contact = await by_writing_to_us(acme, storage, phone)
    await said(storage, acme.tenant, contact, Word("utility", True, STOPPED, "asked"))
    attempt = Attempt(id_, acme.tenant, None, sender, None, None, None, "utility", phone, "{}", "", now)
    async with storage.batch({acme.tenant}) as con:
        assert [one.opted_out for one in await sending.facts(con, [attempt])] == [True]


async def test_a_further_number_is_its_contacts_for_the_dispatcher_too(acme: Account, storage: Storage) -> None:
    contact, further, sender = await acme.contact(), a_phone(), UUID(await acme.sender())
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": further})
    await said(storage, acme.tenant, contact, Word("all", True, STOPPED, "asked"))
    async with storage.batch({acme.tenant}) as con:
        [found] = await dispatching.recipients(con, [(acme.tenant, sender, None, further, "utility")])
    assert (found.contact_id, found.phone, found.opted_out) == (UUID(contact), further, True)


async def test_other_tenants_learn_nothing(acme: Account, other: Account, storage: Storage) -> None:
    phone = await forgotten(acme, storage)
    made = await other.post("/contacts", {"name": "Asha", "phone": phone})
    assert made["opted_out_at"] is None
    async with storage.tenant(other.tenant) as con:
        assert await con.fetchval("select app.opted_out($1, $2, 'otp')", acme.tenant, phone) is False
        assert await con.fetchval("select count(*) from suppressions") == 0
    async with storage.tenant(acme.tenant) as con:
        assert await con.fetchval("select app.opted_out($1, $2, 'otp')", acme.tenant, phone) is True
        row = await one_row(con, "select s::text as text from suppressions s")
        assert phone.removeprefix("+") not in row["text"]


@pytest.mark.parametrize("sql", ["select key from app.suppression_key", "select app.suppressed('a', 'b')"])
async def test_the_application_can_t_try_numbers(acme: Account, storage: Storage, sql: str) -> None:
    async with storage.tenant(acme.tenant) as con:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await con.fetchval(sql)
