"""After SECRET_KEY was changed: one command brings all stored secrets under the newest key."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support import NewDatabase

from harkara.resealing import reseal
from harkara.settings import Settings, SettingsError
from harkara.storage.migrate import migrate
from harkara.storage.storage import Storage, StorageError
from harkara.vault import Vault

NEWER = "a newer secret of thirty-two bytes, or more"
OLDER = "an older secret of thirty-two bytes and more"


# Migrations, and the command in a process of its own.
@pytest.mark.timeout(300)
async def test_one_command_brings_all_of_a_database_under_the_newest_key(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await new_database()
    await migrate(database.owner_url)
    storage = Storage(database.app_url, pool=2)
    await storage.open()
    monkeypatch.setattr("harkara.resealing.AT_ONCE", 2)
    try:
        sealed = Vault(NEWER).seal("already"), Vault("quite another secret of 32 bytes").seal("lost")
        await _senders(storage, 5, Vault(OLDER).seal("token"))
        settings = Settings(secret_key=NEWER, database_direct_url=database.owner_url)
        rotating = Settings(secret_key=NEWER, secret_key_previous=OLDER, database_direct_url=database.owner_url)
        with pytest.raises(StorageError, match="SECRET_KEY_PREVIOUS"):
            await reseal(settings)
        assert await reseal(rotating) == 10
        assert await reseal(rotating) == 0
        assert await reseal(settings) == 0
        await _senders(storage, 1, sealed[0])
        assert await reseal(settings) == 0
        await _senders(storage, 1, sealed[1])
        with pytest.raises(StorageError, match="senders"):
            await reseal(rotating)
        with pytest.raises(SettingsError, match="DATABASE_DIRECT_URL"):
            await reseal(Settings(secret_key=NEWER))
    finally:
        await storage.close()


async def _senders(storage: Storage, count: int, sealed: bytes | None) -> None:
    tenant = f"t-{uuid4().hex[:12]}"
    async with storage.anonymous() as con:
        await con.execute("select app.signup($1, $1, $2, $3, '', $4)", tenant, uuid4(), f"{tenant}@x.example", uuid4())
    async with storage.tenant(tenant) as con:
        for number in range(count):
            await con.execute(
                'insert into senders (id, name, provider, phone_number_id, verify_token, mps, "window", status,'
                " access_token, app_secret) values ($1, 'S', 'cloud', $2, 'v', 80, 'enforce', 'active', $3, $3)",
                uuid4(),
                str(number),
                sealed,
            )
