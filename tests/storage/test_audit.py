"""What the database notes in the audit log by itself: the changes of transactions that say who acts, and no others."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from support import NewTenant

from harkara.ids import uuid7
from harkara.storage.models import Contact, Sender
from harkara.storage.storage import Storage

USER, KEY = uuid7(), uuid7()


def who(**more: Any) -> str:
    """Who acts, as the front door says it."""
    said = {"user_id": str(USER), "request_id": "r-1", "address": "192.0.2.7", "via": "POST /contacts"}
    return json.dumps(said | more)


async def noted(storage: Storage, tenant: str) -> list[Any]:
    """All notes of a tenant, those of one entity as it was made, changed and deleted."""
    async with storage.tenant(tenant) as con:
        rows = await con.fetch("select * from audit_log order by entity, id")
    return [{**row, **{side: json.loads(row[side] or "null") for side in ("before", "after")}} for row in rows]


async def test_notes_are_read_in_the_order_in_which_things_happened(storage: Storage, new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    names = [f"Asha {number}" for number in range(50)]
    async with storage.tenant(tenant, who()):
        contact = await Contact.create(name="Asha", phone="+919876543210")
        for name in names:
            await Contact.filter(id=contact.id).update(name=name)
    async with storage.tenant(tenant) as con:
        rows = await con.fetch("select after ->> 'name' from audit_log order by id")
    assert [row[0] for row in rows] == ["Asha", *names]


async def test_what_is_made_changed_and_deleted_is_noted_with_who_did_it(
    storage: Storage, new_tenant: NewTenant
) -> None:
    tenant = await new_tenant()
    async with storage.tenant(tenant, who()):
        contact = await Contact.create(name="Asha", phone="+919876543210", tags=["a"])
    async with storage.tenant(tenant, who(user_id=None, api_key_id=str(KEY), via="PATCH /contacts/{contact_id}")):
        await Contact.filter(id=contact.id).update(name="Asha Rao")
    async with storage.tenant(tenant, who()):
        await Contact.filter(id=contact.id).delete()
    made, changed, gone = await noted(storage, tenant)
    assert [one["action"] for one in (made, changed, gone)] == ["create", "update", "delete"]
    assert {(one["tenant_id"], one["entity"], one["entity_id"]) for one in (made, changed, gone)} == {
        (tenant, "contact", str(contact.id))
    }
    assert (made["user_id"], made["api_key_id"], made["request_id"], made["address"], made["via"]) == (
        USER,
        None,
        "r-1",
        "192.0.2.7",
        "POST /contacts",
    )
    assert (changed["user_id"], changed["api_key_id"]) == (None, KEY)
    assert made["before"] is None
    assert (made["after"]["name"], made["after"]["phone"], made["after"]["tags"]) == ("Asha", "+919876543210", ["a"])
    assert (changed["before"], changed["after"]) == ({"name": "Asha"}, {"name": "Asha Rao"})
    assert (gone["before"]["name"], gone["after"]) == ("Asha Rao", None)
    assert all(one["id"].version == 7 for one in (made, changed, gone))


async def test_who_does_not_say_who_acts_leaves_no_trace(storage: Storage, new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    async with storage.tenant(tenant):
        await Contact.create(name="Asha")
    async with storage.batch((tenant,)) as con:
        await con.execute("update contacts set name = 'Asha Rao'")
    assert await noted(storage, tenant) == []


async def test_what_is_undone_is_not_noted(storage: Storage, new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    with suppress(ZeroDivisionError):
        async with storage.tenant(tenant, who()):
            await Contact.create(name="undone")
            raise ZeroDivisionError
    async with storage.tenant(tenant, who()):
        with suppress(ZeroDivisionError):
            async with storage.tenant(tenant, who()):
                await Contact.create(name="undone too")
                raise ZeroDivisionError
        async with storage.tenant(tenant, who()):
            await Contact.create(name="kept")
    assert [one["after"]["name"] for one in await noted(storage, tenant)] == ["kept"]


async def test_secrets_are_masked(storage: Storage, new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    async with storage.tenant(tenant, who()):
        sender = await Sender.create(
            name="Shop",
            provider="cloud",
            phone_number_id="1",
            verify_token="open",
            window="enforce",
            app_secret=b"sesame",
        )
        await Sender.filter(id=sender.id).update(access_token=b"hunter2", verify_token="simsim", mps=10)
    made, changed = await noted(storage, tenant)
    assert {made["after"][name] for name in ("verify_token", "app_secret")} == {"…"}
    assert made["after"]["access_token"] is None
    assert changed["before"] == {"access_token": None, "verify_token": "…", "mps": 80}
    assert changed["after"] == {"access_token": "…", "verify_token": "…", "mps": 10}
    everything = json.dumps([made, changed], default=str)
    for secret in ("open", "sesame", "hunter2", "simsim", b"sesame".hex(), b"hunter2".hex()):
        assert secret not in everything


UPSERT = """
insert into contacts (id, name, phone)
select * from unnest($1::uuid[], $2::text[], $3::text[])
on conflict (tenant_id, phone) do update set name = excluded.name, updated_at = now()
returning xmax = 0
"""


async def test_an_upsert_notes_what_it_made_and_what_it_changed(storage: Storage, new_tenant: NewTenant) -> None:
    """It still returns what it returned, and a row that it wrote as it was is no change."""
    tenant, phones = await new_tenant(), ["+919876500001", "+919876500002", "+919876500003"]

    async def store(names: list[str], count: int) -> list[bool]:
        async with storage.tenant(tenant, who()) as con:
            rows = await con.fetch(UPSERT, [uuid7() for _ in range(count)], names, phones[:count])
        return [row[0] for row in rows]

    assert await store(["A", "B"], 2) == [True, True]
    assert await store(["A", "Bea", "C"], 3) == [False, False, True]
    told = [(one["action"], one["before"], one["after"].get("name")) for one in await noted(storage, tenant)]
    assert sorted(told, key=str) == [
        ("create", None, "A"),
        ("create", None, "B"),
        ("create", None, "C"),
        ("update", {"name": "B"}, "Bea"),
    ]


async def test_what_falls_with_its_parent_is_noted(storage: Storage, new_tenant: NewTenant) -> None:
    tenant, contact = await new_tenant(), uuid7()
    async with storage.tenant(tenant) as con:
        await con.execute("insert into contacts (id, name) values ($1, 'Asha')", contact)
        await con.execute(
            "insert into phone_numbers (id, contact_id, phone, label) values ($1, $2, '+919876500000', 'shop')",
            uuid7(),
            contact,
        )
    async with storage.tenant(tenant, who()) as con:
        await con.execute("delete from contacts where id = $1", contact)
    assert {(one["action"], one["entity"]) for one in await noted(storage, tenant)} == {
        ("delete", "contact"),
        ("delete", "phone_number"),
    }


async def test_the_tenant_and_its_people_are_noted(storage: Storage, new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    async with storage.tenant(tenant, who()) as con:
        await con.execute("update tenants set name = 'New'")
        await con.execute("update users set name = 'Asha', password_hash = 'other'")
    about, person = await noted(storage, tenant)
    assert (about["entity"], about["entity_id"], about["after"]) == ("tenant", tenant, {"name": "New"})
    assert person["entity"] == "user"
    assert person["after"] == {"name": "Asha", "password_hash": "…"}


async def test_signing_up_is_noted_for_the_tenant_that_comes_of_it(storage: Storage) -> None:
    tenant = f"t-{uuid7().hex[-12:]}"
    async with storage.anonymous(who(user_id=None)) as con:
        await con.execute(
            "select app.signup($1, 'Shop', $2, $3, 'a hash', $4)", tenant, uuid7(), f"o@{tenant}.example", uuid7()
        )
    entries = await noted(storage, tenant)
    assert {(one["action"], one["entity"]) for one in entries} == {("create", "tenant"), ("create", "member")}


@pytest.mark.parametrize("name", ["o'hara", 'say "hi"', "back\\slash", "'; drop table contacts; --", "नमस्ते", "\n"])
async def test_whatever_is_said_about_who_acts_is_only_text(storage: Storage, new_tenant: NewTenant, name: str) -> None:
    tenant = await new_tenant()
    async with storage.tenant(tenant, who(address=name, via=name)) as con:
        await con.execute("insert into contacts (id, name) values ($1, 'Asha')", uuid7())
    assert [(one["address"], one["via"]) for one in await noted(storage, tenant)] == [(name, name)]


async def test_who_acts_does_not_stay_on_the_connection(database: Any, new_tenant: NewTenant) -> None:
    tenant, storage = await new_tenant(), Storage(database.app_url, pool=1)
    await storage.open()
    try:
        async with storage.tenant(tenant, who()):
            await Contact.create(name="noted")
        async with storage.tenant(tenant):
            await Contact.create(name="not noted")
        assert len(await noted(storage, tenant)) == 1
    finally:
        await storage.close()


async def test_a_note_cannot_be_written_for_another_tenant(storage: Storage, new_tenant: NewTenant) -> None:
    tenant, other = await new_tenant(), await new_tenant()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with storage.tenant(tenant) as con:
            await con.execute(
                "insert into audit_log (id, tenant_id, action, entity, request_id, address, via)"
                " values ($1, $2, 'create', 'contact', '', '', '')",
                uuid7(),
                other,
            )


async def test_a_person_who_is_erased_is_forgotten_here_too(storage: Storage, new_tenant: NewTenant) -> None:
    """What was done stays, what it said of them goes; another tenant's notes are out of reach."""
    tenant, other, contact = await new_tenant(), await new_tenant(), uuid7()
    for one in (tenant, other):
        async with storage.tenant(one, who()) as con:
            await con.execute(
                "insert into contacts (id, name) values ($1, 'Asha')", contact if one == tenant else uuid7()
            )
    async with storage.tenant(tenant, who()) as con:
        theirs: UUID = UUID((await noted(storage, tenant))[0]["entity_id"])
        assert await con.fetchval("select app.audit_forget($1)", [str(theirs)]) == 1
    async with storage.tenant(other) as con:
        assert await con.fetchval("select app.audit_forget($1)", [str(contact)]) == 0
    assert [(one["action"], one["after"]) for one in await noted(storage, tenant)] == [("create", {})]
    assert [one["after"]["name"] for one in await noted(storage, other)] == ["Asha"]
