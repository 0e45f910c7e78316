"""Contacts: what is stored of them, who has a number already, and how consent comes and goes."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from door_client import Account, a_line, a_phone, is_uuid7
from support import waited_for

from harkara.ids import uuid7
from harkara.storage import holding, receiving
from harkara.storage.storage import Storage


async def test_a_contact_is_made_shown_changed_and_deleted(acme: Account) -> None:
    phone = a_phone()
    made = await acme.post(
        "/contacts",
        {
            "name": "  आशा \n राव ",
            "phone": phone[:3] + " " + phone[3:8] + "-" + phone[8:],
            "locale": "hi-IN",
            "timezone": "asia/kolkata",
            "attributes": {"city": "पुणे", "age": 31, "vip": True},
            "tags": [" new ", "new", "vip"],
            "consent": {"source": "shop", "at": "2026-01-02T03:04:05+05:30", "categories": ["marketing"]},
        },
    )
    assert is_uuid7(made["id"])
    assert made["name"] == "आशा राव"
    assert made["phone"] == phone
    assert made["timezone"] == "Asia/Kolkata"
    assert made["attributes"] == {"city": "पुणे", "age": 31, "vip": True}
    assert made["tags"] == ["new", "vip"]
    assert made["consent"] == {"source": "shop", "at": "2026-01-01T21:34:05Z", "categories": ["marketing"]}
    assert made["created_at"].endswith("Z")
    path = f"/contacts/{made['id']}"
    assert await acme.get(path) == made
    changed = await acme.call("PATCH", path, body={"name": "Asha", "tags": [], "timezone": None})
    assert changed.status == 200
    kept = {"attributes", "phone", "locale", "consent", "id", "created_at"}
    assert {name: changed.body[name] for name in kept} == {name: made[name] for name in kept}
    assert (changed.body["name"], changed.body["tags"], changed.body["timezone"]) == ("Asha", [], None)
    assert (await acme.call("DELETE", path)).status == 204
    (await acme.call("GET", path)).is_problem(404)
    (await acme.call("DELETE", path)).is_problem(404)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"phone": "call me"}, "phone"),
        ({"phone": "9876543210"}, "phone"),
        ({"phone": "+91987654"}, "phone"),
        ({"phone": ""}, "phone"),
        ({"phone": None}, "phone"),
        ({"phone": 919876543210}, "phone"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "\u202e\ufeff\u200b"}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"locale": "Hindi please"}, "locale"),
        ({"timezone": "Asia/Atlantis"}, "timezone"),
        ({"attributes": {"address": {"city": "Pune"}}}, "attributes.address"),
        ({"tags": ["ok", 7]}, "tags[1]"),
        ({"consent": "yes"}, "consent"),
        ({"consent": {"at": "2026-01-01T00:00:00Z"}}, "consent.source"),
        ({"consent": {"source": "web", "at": "2126-01-01T00:00:00Z"}}, "consent.at"),
        ({"consent": {"source": "web", "at": "2026-01-01T00:00:00"}}, "consent.at"),
        ({"consent": {"source": "web", "at": "0001-01-01T00:00:00+14:00"}}, "consent.at"),
        ({"consent": {"source": "web", "categories": ["spam"]}}, "consent.categories[0]"),
        ({"fone": "+919876543210"}, "fone"),
    ],
)
async def test_what_is_wrong_with_a_contact_is_named_and_nothing_is_stored(
    acme: Account, change: dict[str, Any], path: str
) -> None:
    body = {"name": "Asha", "phone": a_phone()} | change
    answer = await acme.call("POST", "/contacts", body=body)
    assert path in answer.is_problem(422).faults(), answer.text
    assert (await acme.get("/contacts"))["items"] == []


async def test_all_faults_are_told_at_once(acme: Account) -> None:
    body = {"name": 1, "phone": True, "tags": "x", "extra": 1}
    answer = await acme.call("POST", "/contacts", body=body)
    assert set(answer.is_problem(422).faults()) == {"name", "phone", "tags", "extra"}
    body = {"name": " ", "phone": "x", "timezone": "x", "locale": "?"}
    answer = await acme.call("POST", "/contacts", body=body)
    assert set(answer.is_problem(422).faults()) == {"name", "phone", "timezone", "locale"}


async def test_numbers_without_plus_are_understood_once_the_tenant_has_a_region(acme: Account) -> None:
    assert (await acme.call("PATCH", "/tenant", body={"default_region": "in"})).body["default_region"] == "IN"
    phone = a_phone()
    made = await acme.post("/contacts", {"name": "A", "phone": f"0{phone[3:]}"})
    assert made["phone"] == phone
    found = await acme.get(f"/contacts?phone={phone[3:]}")
    assert [one["id"] for one in found["items"]] == [made["id"]]


async def test_the_refusal_of_a_number_without_plus_says_how_such_numbers_would_be_read(acme: Account) -> None:
    async def refused(phone: str) -> str:
        answer = await acme.call("POST", "/contacts", body={"name": "A", "phone": phone})
        return answer.is_problem(422).faults()["phone"]

    assert await refused("98765 43210") == (
        "is not a phone number: begin with + and the country, such as +919876543210, or PATCH the tenant's"
        " default_region, by which numbers without + are read"
    )
    await acme.call("PATCH", "/tenant", body={"default_region": "IN"})
    impossible = "is not a possible phone number: it has too few or too many digits for"
    assert await refused("98765") == f"{impossible} IN, the tenant's default_region"
    assert await refused("+9198765") == f"{impossible} its country"
    assert await refused("soon") == "is not a phone number: it should look like +919876543210"
    assert (await acme.post("/contacts", {"name": "A", "phone": "98765 43210"}))["phone"] == "+919876543210"


async def test_a_number_belongs_to_one_contact_and_the_refusal_names_it(acme: Account, other: Account) -> None:
    phone, further = a_phone(), a_phone()
    first = await acme.contact(phone=phone)
    made = await acme.post(f"/contacts/{first}/phone-numbers", {"phone": further, "label": "work"})
    assert (made["phone"], made["label"]) == (further, "work")
    second = await acme.contact()
    for number in (phone, further):
        attempts = [
            await acme.call("POST", "/contacts", body={"name": "B", "phone": number}),
            await acme.call("PATCH", f"/contacts/{second}", body={"phone": number}),
            await acme.call("POST", f"/contacts/{second}/phone-numbers", body={"phone": number}),
        ]
        for answer in attempts:
            assert answer.is_problem(409).body["contact_id"] == first
    assert (await acme.get(f"/contacts/{second}/phone-numbers"))["items"] == []
    assert [one["phone"] for one in (await acme.get(f"/contacts/{first}/phone-numbers"))["items"]] == [further]
    await other.contact(phone=phone)


@pytest.mark.parametrize("long_first", [True, False])
async def test_a_line_belongs_to_one_contact_however_its_number_is_written(acme: Account, long_first: bool) -> None:
    lines = a_line(), a_line()
    (phone, spelled), (further, respelled) = lines if long_first else (line[::-1] for line in lines)
    first = await acme.contact(phone=phone)
    await acme.post(f"/contacts/{first}/phone-numbers", {"phone": further})
    second = await acme.contact()
    for number in (spelled, respelled):
        for method, path in (
            ("POST", "/contacts"), ("PATCH", f"/contacts/{second}"), ("POST", f"/contacts/{second}/phone-numbers"),
        ):  # fmt: skip
            body = {"phone": number} | ({"name": "B"} if path == "/contacts" else {})
            assert (await acme.call(method, path, body=body)).is_problem(409).body["contact_id"] == first
    changed = await acme.call("PATCH", f"/contacts/{first}", body={"phone": spelled})
    assert (changed.status, changed.body["phone"]) == (200, spelled), "it is its own"


async def test_of_two_contacts_with_one_line_the_refusal_names_the_one_with_that_spelling(
    acme: Account, storage: Storage
) -> None:
    line = a_line()
    async with storage.tenant(acme.tenant) as con:
        owners = [
            str((await receiving.contact_for(con, acme.tenant, phone, None, "Ana", uuid7())).id) for phone in line
        ]
    for phone, owner in zip(line, owners, strict=True):
        answer = await acme.call("POST", "/contacts", body={"name": "B", "phone": phone})
        assert answer.is_problem(409).body["contact_id"] == owner


async def test_one_line_sent_many_times_at_once_in_both_spellings_makes_one_contact(acme: Account) -> None:
    bodies = [{"name": "A", "phone": phone} for phone in a_line() * 4]
    answers = await asyncio.gather(*(acme.call("POST", "/contacts", body=body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201, *[409] * 7]


async def test_one_number_sent_many_times_at_once_makes_one_contact(acme: Account) -> None:
    body = {"name": "A", "phone": a_phone()}
    answers = await asyncio.gather(*(acme.call("POST", "/contacts", body=body) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409, 409]


async def test_contacts_are_listed_newest_first_page_by_page_while_more_arrive(acme: Account) -> None:
    made = [await acme.contact(name=f"C{number}") for number in range(5)]
    first = await acme.get("/contacts?limit=2")
    late = await acme.contact(name="late")
    second = await acme.get(f"/contacts?limit=2&cursor={first['next']}")
    third = await acme.get(f"/contacts?limit=2&cursor={second['next']}")
    ids = [one["id"] for page in (first, second, third) for one in page["items"]]
    assert ids == made[::-1]
    assert third["next"] is None
    assert (await acme.get("/contacts?limit=1"))["items"][0]["id"] == late


async def test_contacts_are_found_by_tag_phone_and_the_beginning_of_their_name(acme: Account) -> None:
    phone = a_phone()
    asha = await acme.contact(name="Asha 100%", phone=phone, tags=["vip", "pune"])
    ashok = await acme.contact(name="ashok", tags=["vip"])
    await acme.contact(name="Ravi")

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await acme.get(f"/contacts?{query}"))["items"]]

    assert await ids("tag=vip") == [ashok, asha]
    assert await ids("tag=pune") == [asha]
    assert await ids("tag=vi") == []
    assert await ids(f"phone={quote(phone)}") == [asha]
    assert await ids("q=ash") == [ashok, asha]
    assert await ids("q=asha%20100%25") == [asha]
    assert await ids("q=%25") == []
    assert await ids("q=ash&tag=pune") == [asha]


async def test_contacts_are_found_by_all_that_is_asked_for(acme: Account, other: Account) -> None:
    asha = await acme.contact(
        name="Asha Rao", phone="+12025550123", tags=["vip", "pune"], attributes={"city": "Pune", "age": 31, "ok": True}
    )
    ravi = await acme.contact(name="रवि  Ásha", phone="+919876543210", tags=["vip"], attributes={"city": "Pune: east"})
    # Nobody's number is left to chance, which would end one in 0123 some day.
    plain: dict[str, Any] = {"phone": "+919876500001", "consent": None}
    long = await acme.contact(name="Long", attributes={"note": "x" * 250}, **plain)
    await acme.contact(name="Longer", attributes={"note": "x" * 251}, **plain | {"phone": "+919876500002"})
    await acme.post(f"/contacts/{ravi}/phone-numbers", {"phone": "+441632960123"})
    await other.contact(name="Asha Rao", phone="+12025550123", tags=["vip"], attributes={"city": "Pune"})

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await acme.get(f"/contacts?{query}"))["items"]]

    assert await ids("attribute=city:Pune") == [asha]
    assert await ids("attribute=city:Pune:%20east") == [ravi]
    assert await ids("attribute=age:31&attribute=ok:true&attribute=city:Pune") == [asha]
    assert await ids("attribute=age:31&attribute=city:Goa") == []
    assert await ids(f"attribute=note:{'x' * 250}") == [long]
    assert await ids("tag=vip&tag=pune") == [asha]
    assert await ids("phone=%2B441632960123") == [ravi]
    assert await ids("q=rao%20ash") == [asha]
    assert await ids("q=RA") == [asha]
    assert await ids("q=%C3%A1sha") == [ravi, asha]
    assert await ids("q=%E0%A4%B0%E0%A4%B5") == [ravi]
    assert await ids("q=0123") == [ravi, asha]
    assert await ids("q=%2B1%20202") == [asha]
    assert await ids("q=098765%2043210") == [ravi]
    assert await ids("q=0123&tag=pune") == [asha]
    assert await ids("consent=true&q=ra") == [asha]
    assert len(await ids("consent=false")) == 2
    assert await ids("opted_out=true") == []
    assert (await acme.call("PATCH", f"/contacts/{asha}", body={"opted_out": True})).body["opted_out_reason"] == "api"
    assert await ids("opted_out=true") == [asha]
    assert await ids("opted_out=true&tag=vip") == [asha]
    assert await ids("opted_out=false&tag=vip") == [ravi]
    assert await ids("since=2126-01-01T00:00:00Z") == []
    assert len(await ids("since=2026-01-01T00:00:00Z&tag=vip")) == 2
    changed = {"name": "Devi", "tags": [], "attributes": {"city": "Goa"}, "phone": "+12025550199"}
    assert (await acme.call("PATCH", f"/contacts/{asha}", body=changed)).status == 200
    for gone in ("tag=pune", "attribute=city:Pune", "q=rao", "phone=%2B12025550123"):
        assert await ids(gone) == [], gone
    assert await ids("attribute=city:Goa&q=devi&phone=%2B12025550199") == [asha]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("José Núñez", ["jose", "JOSÉ", "josé nun", "nuñez", "Jose\u0301"]),
        ("Jose\u0301", ["jose", "josé"]),
        ("ÉLODIE Œuvrard", ["elodie", "éLODIE", "oeuv"]),
        ("Łukasz Øst Groß", ["lukasz", "łuk", "ost", "gross", "groß"]),
        ("İbrahim ILGIN Ilgın", ["ibrahim", "ılgın", "ilgin"]),
        ("Νίκος", ["νικος", "ΝΊΚΟΣ", "Νίκοσ"]),
        ("ＡＮＡ", ["ana"]),
        ("Юлия", ["юлия", "ЮЛ"]),
        ("हिन्दी", ["हिन्दी", "हिन्"]),
    ],
)
async def test_a_name_is_found_with_and_without_its_accents(acme: Account, name: str, words: list[str]) -> None:
    contact = await acme.contact(name=name)
    await acme.contact(name="Hana हन्दी")
    for text in words:
        assert [one["id"] for one in (await acme.get(f"/contacts?q={quote(text)}"))["items"]] == [contact], text


async def test_what_is_found_is_paged_and_the_cursor_goes_on(acme: Account) -> None:
    made = [await acme.contact(name=f"Asha {number}", tags=["vip"] if number % 2 else []) for number in range(6)]
    for query, expected in (("q=asha", made), ("tag=vip", made[1::2]), ("tag=vip&q=asha", made[1::2])):
        found: list[str] = []
        cursor = ""
        while True:
            page = await acme.get(f"/contacts?limit=2&{query}{cursor}")
            found += [one["id"] for one in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert found == expected[::-1], query


@pytest.mark.parametrize("query", ["q=asha", "q=asha&consent=true", "opted_out=false", "tag=vip&consent=true"])
async def test_a_page_looks_at_no_more_than_it_may_and_reading_on_finds_the_rest(
    acme: Account, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """What many have is looked for among the newest few; the old ones come with later pages."""
    monkeypatch.setattr("harkara.http.contact_search.LOOKED_AT", 3)
    old = await acme.contact(name="Asha old", tags=["vip"])
    for number in range(7):
        more = {} if number % 2 else {"consent": None}
        await acme.contact(name=f"Ashok {number}", tags=["vip"], **more)
    found: list[str] = []
    page, pages = await acme.get(f"/contacts?limit=2&{query}"), 1
    found += [one["id"] for one in page["items"]]
    while page["next"]:
        page, pages = await acme.get(f"/contacts?limit=2&{query}&cursor={page['next']}"), pages + 1
        found += [one["id"] for one in page["items"]]
    assert found == sorted(set(found), reverse=True)
    assert old in found
    assert pages < 9


async def test_a_further_number_becomes_the_one_we_write_to_and_can_be_taken_away(acme: Account) -> None:
    first, second = a_phone(), a_phone()
    contact = await acme.contact(phone=first)
    path = f"/contacts/{contact}/phone-numbers"
    row = await acme.post(path, {"phone": second, "label": "work"})
    swapped = await acme.call("PATCH", f"{path}/{row['id']}", body={"primary": True, "label": "old"})
    assert (swapped.status, swapped.body["phone"], swapped.body["label"]) == (200, first, "old")
    assert (await acme.get(f"/contacts/{contact}"))["phone"] == second
    for phone in (first, second):
        found = await acme.get(f"/contacts?phone={quote(phone)}")
        assert [one["id"] for one in found["items"]] == [contact]
    assert (await acme.call("DELETE", f"{path}/{row['id']}")).status == 204
    (await acme.call("DELETE", f"{path}/{row['id']}")).is_problem(404)
    assert (await acme.get(f"/contacts?phone={quote(first)}"))["items"] == []
    assert (await acme.get(path))["items"] == []


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("attribute=city", "attribute"),
        ("opted_out=maybe", "opted_out"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=%00", "cursor"),
        ("colour=red", "colour"),
        ("phone=abc", "phone"),
        ("q=%00", "q"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_name(acme: Account, query: str, path: str) -> None:
    assert path in (await acme.call("GET", f"/contacts?{query}")).is_problem(422).faults()


async def test_a_plain_consent_does_not_undo_an_opt_out_but_a_later_one_that_says_where_from_does(
    acme: Account, storage: Storage
) -> None:
    contact = await acme.contact()
    path = f"/contacts/{contact}"
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "update contacts set opted_out_at = now(), opted_out_reason = 'STOP' where id = $1", UUID(contact)
        )
    assert (await acme.call("PATCH", path, body={"consent": True})).body["opted_out_reason"] == "STOP"
    old = {"consent": {"source": "form", "at": "2020-01-01T00:00:00Z"}}
    assert (await acme.call("PATCH", path, body=old)).body["opted_out_at"] is not None
    new = await acme.call("PATCH", path, body={"consent": {"source": "form"}})
    assert new.body["opted_out_at"] is None
    assert new.body["consent"]["source"] == "form"
    assert (await acme.call("PATCH", path, body={"consent": None})).body["consent"] is None
    out = await acme.call("PATCH", path, body={"opted_out": True})
    assert out.body["opted_out_at"] is not None
    both = {"opted_out": True, "consent": {"source": "form"}}
    for refused in (both, {"opted_out": False}):
        assert "opted_out" in (await acme.call("PATCH", path, body=refused)).is_problem(422).faults()


async def test_opt_outs_are_set_and_cleared_one_by_one_and_noted(acme: Account) -> None:
    contact = await acme.contact()
    path = f"/contacts/{contact}"

    async def patched(body: Any) -> list[str]:
        answer = await acme.call("PATCH", path, body=body)
        return [one["category"] for one in answer.body["opt_outs"]]

    assert await patched({"opt_outs": {"marketing": True, "otp": True}}) == ["marketing", "otp"]
    assert await patched({"opt_outs": {"otp": False}}) == ["marketing"]
    assert await patched({"consent": {"source": "form", "categories": ["utility"]}}) == ["marketing"]
    assert await patched({"consent": {"source": "form", "categories": ["marketing"]}}) == []
    assert await patched({"opted_out": True}) == ["all"]
    assert await patched({"opt_outs": {"all": False}}) == []
    assert (await acme.get(path))["opted_out_at"] is None
    noted = (await acme.get(f"/audit?entity=contact&entity_id={contact}"))["items"]
    assert sum("opt_outs" in one["changes"]["after"] for one in noted if one["action"] == "update") >= 3
    for body, fault in (
        ({"opt_outs": {"newsletter": True}}, "opt_outs.newsletter"),
        ({"opt_outs": {"marketing": True}, "consent": {"source": "form"}}, "opt_outs"),
    ):
        faults = (await acme.call("PATCH", path, body=body)).is_problem(422).faults()
        assert any(fault in name for name in faults), faults


async def test_words_that_stop_are_the_tenants_own_too(acme: Account) -> None:
    keywords = {"stop": ["basta"], "ignored": ["cancel"], "confirmations": {"stop": "Done."}}
    answer = await acme.call("PATCH", "/tenant", body={"keywords": keywords})
    assert answer.body["keywords"] == (await acme.get("/tenant"))["keywords"]
    assert answer.body["keywords"]["stop"] == ["basta"]
    for body, path in (
        ({"start": ["!"]}, "keywords.start[0]"),
        ({"start": ["fine", "Stop."]}, "keywords.start[1]"),
        ({"ignored": ["STOP"]}, "keywords.ignored[0]"),
        ({"confirmations": {"stop": ""}}, "keywords.confirmations.stop"),
        ({"confirmations": {"start": "Welcome, {{ first_name }}"}}, "keywords.confirmations.start"),
    ):
        refused = await acme.call("PATCH", "/tenant", body={"keywords": body})
        assert path in refused.is_problem(422).faults(), body


async def test_a_malformed_id_is_unknown_not_an_error(acme: Account) -> None:
    for id_ in ("1", "not-a-uuid", "00000000-0000-0000-0000-000000000000"):
        (await acme.call("GET", f"/contacts/{id_}")).is_problem(404)


async def test_a_number_is_changed_once_nothing_leaves_to_the_old_one(acme: Account, storage: Storage) -> None:
    contact, sender, new = await acme.contact(), await acme.sender(), a_phone()
    async with storage.batch((acme.tenant,)) as con:
        await holding.share(con, [UUID(contact)])  # as a gate that has looked
        change = asyncio.create_task(acme.call("PATCH", f"/contacts/{contact}", body={"phone": new}))
        await waited_for(con, change)
        await con.execute(
            "insert into messages (id, tenant_id, contact_id, sender_id, lane, \"to\", content, status, due_at,"
            " attempted_at) values ($1, $2, $3, $4, 'utility', '+919876543210', '{}', 'sending', now(), now())",
            uuid7(), acme.tenant, UUID(contact), UUID(sender),
        )  # fmt: skip
    assert (await change).status == 503, "it is in the air"
    assert (await acme.get(f"/contacts/{contact}"))["phone"] == new
