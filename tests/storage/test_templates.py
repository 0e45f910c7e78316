"""What is known of message templates."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from support import NewTenant

from harkara.ids import uuid7
from harkara.storage import templates
from harkara.storage.models import Sender, Template
from harkara.storage.storage import Storage
from harkara.storage.templates import Found

HELLO = Found("hello", "en_US", "utility", "approved", None, "green", '[{"type":"BODY","text":"Hi"}]')
OFFER = Found("offer", "en_US", "marketing", "approved", None, None, "[]")


async def number(storage: Storage, tenant: str, waba: str | None) -> UUID:
    """A number of an account."""
    id_ = uuid7()
    async with storage.tenant(tenant):
        await Sender.create(
            id=id_,
            name="Shop",
            provider="cloud",
            phone_number_id=str(id_),
            waba_id=waba,
            verify_token="t",
            window="enforce",
        )
    return id_


async def known(storage: Storage, tenant: str, sender: UUID) -> dict[str, Any]:
    """Templates of a number, by name: status and reason."""
    async with storage.tenant(tenant):
        return {row.name: (row.status, row.reason) for row in await Template.filter(sender_id=sender)}


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> str:
    """A tenant of this test's own."""
    return await new_tenant()


async def test_a_pause_is_for_all_numbers_of_the_account_and_for_nothing_else(
    storage: Storage, tenant: str, new_tenant: NewTenant
) -> None:
    one, two, other = [await number(storage, tenant, waba) for waba in ("1", "1", "2")]
    loose = await number(storage, tenant, None)
    stranger_tenant = await new_tenant()
    stranger = await number(storage, stranger_tenant, "1")
    for sender, owner in ((one, tenant), (two, tenant), (other, tenant), (stranger, stranger_tenant)):
        async with storage.batch((owner,)) as con:
            await templates.replace(con, owner, sender, [HELLO, OFFER], datetime.now(UTC))
    async with storage.batch((tenant,)) as con:
        assert await templates.pause(con, tenant, one, "offer", "en_US", "132015: it is paused")
        assert not await templates.pause(con, tenant, one, "offer", "en_US", "132015: it is paused")
        assert await templates.pause(con, tenant, loose, "new", "en", "132015")
    paused = {"hello": ("approved", None), "offer": ("paused", "132015: it is paused")}
    assert await known(storage, tenant, one) == await known(storage, tenant, two) == paused
    assert (await known(storage, tenant, other))["offer"] == ("approved", None)
    assert (await known(storage, stranger_tenant, stranger))["offer"] == ("approved", None)
    assert await known(storage, tenant, loose) == {"new": ("paused", "132015")}


async def test_what_the_gateway_has_replaces_what_was_known(storage: Storage, tenant: str) -> None:
    sender = await number(storage, tenant, "1")
    async with storage.batch((tenant,)) as con:
        await templates.replace(con, tenant, sender, [HELLO, OFFER], datetime.now(UTC))
        await templates.pause(con, tenant, sender, "hello", "en_US", "132015")
        await templates.replace(con, tenant, sender, [HELLO], datetime.now(UTC))
        await templates.set_quality(con, tenant, sender, "hello", "en_US", quality="RED")
    async with storage.tenant(tenant):
        [template] = await Template.filter(sender_id=sender)
        assert (template.status, template.quality, template.category) == ("approved", "red", "utility")
        assert template.components == [{"type": "BODY", "text": "Hi"}]
        assert (await Sender.get(id=sender)).templates_synced_at is not None
    async with storage.batch((tenant,)) as con:
        await templates.pause(con, tenant, sender, "hello", "en_US", "132015")
        await templates.replace(con, tenant, sender, [], datetime.now(UTC))
    assert await known(storage, tenant, sender) == {"hello": ("paused", "132015")}
    async with storage.tenant(tenant):
        assert (await Sender.get(id=sender)).templates_synced_at is None
