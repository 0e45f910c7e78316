"""After SECRET_KEY was changed: whatever is written is under the newest key."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from door_client import SECRET, Account, Api

from harkara.storage.storage import Storage
from harkara.vault import Vault

NEWER = "a newer secret of thirty-two bytes, or more"


async def stored(storage: Storage, tenant: str, sender: str) -> Any:
    async with storage.tenant(tenant) as con:
        return await con.fetchrow("select access_token, app_secret from senders where id = $1", UUID(sender))


async def test_changing_a_sender_seals_its_secrets_with_the_newest_key(
    acme: Account, api: Api, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = await acme.sender(access_token="the token")
    monkeypatch.setattr(api.door, "vault", Vault(NEWER, SECRET))
    assert (await acme.call("PATCH", f"/senders/{sender}", body={"name": "New"})).status == 200
    row = await stored(storage, acme.tenant, sender)
    assert [Vault(NEWER).open(row[name]) for name in ("access_token", "app_secret")] == ["the token", "a-secret"]


async def test_secrets_that_no_key_opens_can_be_entered_again(
    acme: Account, api: Api, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = await acme.sender()
    monkeypatch.setattr(api.door, "vault", Vault(NEWER))
    assert (await acme.call("PATCH", f"/senders/{sender}", body={"access_token": "another"})).status == 200
    assert (await acme.call("PATCH", f"/senders/{sender}", body={"app_secret": "one more"})).status == 200
    row = await stored(storage, acme.tenant, sender)
    assert [Vault(NEWER).open(row[name]) for name in ("access_token", "app_secret")] == ["another", "one more"]
