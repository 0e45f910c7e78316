"""The tenant that is there to try things with, and the next one once that was erased."""

from __future__ import annotations

from pathlib import Path

from door_client import Api

from harkara.http.keyring import Change
from harkara.storage.storage import Storage
from harkara.up import DemoTenant, _demo_tenant  # pyright: ignore[reportPrivateUsage]


async def works(api: Api, demo: DemoTenant) -> bool:
    answer = await api.call("GET", "/tenant", headers={"Authorization": f"Bearer {demo.api_key}"})
    login = await api.call("POST", "/auth/login", body={"email": demo.email, "password": demo.password})
    return (answer.status, login.status) == (200, 200)


async def test_credentials_that_are_printed_work(api: Api, storage: Storage, tmp_path: Path) -> None:
    first = await _demo_tenant(api.url, tmp_path)
    assert await works(api, first)
    assert await _demo_tenant(api.url, tmp_path) == first
    async with storage.tenant(first.id) as con:
        await con.execute("update tenants set is_active = false where id = $1", first.id)
    api.door.access_changed(Change(tenant=first.id))
    second = await _demo_tenant(api.url, tmp_path)
    assert second.id != first.id
    assert await works(api, second)
    assert await _demo_tenant(api.url, tmp_path) == second
