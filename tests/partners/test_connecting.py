"""Who may connect, over which transport, and when a connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from door_client import Account, Api, make_account
from nats.aio.client import Client
from nats.errors import Error
from partner_client import Join
from support import Database, Tell, until

from harkara.embedded.stack import Urls
from harkara.http import keyring
from harkara.http.door import Door
from harkara.partners import intake, watch
from harkara.partners.service import serving
from harkara.storage import ending
from harkara.storage.storage import Storage


async def let_in(broker: str, **options: Any) -> bool:
    """Whether the broker lets somebody in who comes with this."""

    async def ignore(_: Exception) -> None:
        return

    client = Client()
    try:
        await client.connect(broker, allow_reconnect=False, connect_timeout=10, error_cb=ignore, **options)
    except Error:
        return False
    finally:
        await client.close()  # also of one that was refused: it leaves its socket open
    return True


async def comes_in(broker: str, **options: Any) -> None:
    """Fail unless the broker lets them in: on a busy machine, not every time."""
    await until(lambda: let_in(broker, **options), "they are let in", every=0.2)


async def test_only_a_tenant_with_its_own_good_key_comes_in(acme: Account, api: Api, broker: str) -> None:
    other, key = await make_account(api), (await acme.post("/api-keys", {}))["key"]
    await comes_in(broker, user=acme.tenant, password=key)
    refused: list[dict[str, Any]] = [
        {},
        {"user": acme.tenant},
        {"user": acme.tenant, "password": ""},
        {"user": acme.tenant, "password": "p"},
        {"user": acme.tenant, "password": key[:-1]},
        {"user": acme.tenant, "password": key + "x"},
        {"user": acme.tenant, "password": (await other.post("/api-keys", {}))["key"]},
        {"user": other.tenant, "password": key},
        {"user": "", "password": key},
        {"user": "svc", "password": key},
        {"user": "sys", "password": ""},
        {"user": "auth", "password": "auth"},
        {"token": key},
    ]
    for one in refused:
        assert not await let_in(broker, **one), one


async def test_a_key_that_has_ended_opens_nothing(acme: Account, broker: str, storage: Storage) -> None:
    made = await acme.post("/api-keys", {})
    await comes_in(broker, user=acme.tenant, password=made["key"])
    assert (await acme.call("DELETE", f"/api-keys/{made['id']}")).status == 204
    assert not await let_in(broker, user=acme.tenant, password=made["key"])
    made = await acme.post("/api-keys", {})
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update api_keys set expires_at = now() - interval '1 hour' where id = $1::uuid", made["id"])
    assert not await let_in(broker, user=acme.tenant, password=made["key"])


async def test_revoking_a_key_ends_its_connections(acme: Account, join: Join, tell: Tell) -> None:
    made = await acme.post("/api-keys", {})
    ending = [await join(acme, made=made) for _ in range(3)]
    staying = await join(acme)
    begun = time.perf_counter()
    assert (await acme.call("DELETE", f"/api-keys/{made['id']}")).status == 204
    await until(lambda: all(one.lost for one in ending), "the key's connections are ended")
    tell(f"a revoked key's connections were ended after {time.perf_counter() - begun:.3f} s (2 s are promised)")
    assert not staying.lost
    assert (await staying.told("message.cancel", {}))["status"] == 422


async def test_a_revocation_that_nobody_heard_of_counts_too(
    acme: Account, join: Join, storage: Storage, tell: Tell
) -> None:
    partner = await join(acme)
    begun = time.perf_counter()
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update api_keys set revoked_at = now() where id = $1::uuid", partner.key_id)
    await until(lambda: partner.lost, "the connection is ended")
    tell(f"a connection was ended {time.perf_counter() - begun:.3f} s after a revocation that nobody told of")


async def test_a_tenant_that_is_being_erased_has_no_partners(
    acme: Account, join: Join, broker: str, database: Database
) -> None:
    made = await acme.post("/api-keys", {})
    partner = await join(acme, made=made)
    async with ending.owner(database.owner_url) as con:
        await ending.mark(con, acme.tenant)
    await until(lambda: partner.lost, "the connection is ended")
    assert not await let_in(broker, user=acme.tenant, password=made["key"])


async def test_a_connection_ends_with_its_key(acme: Account, join: Join) -> None:
    until_then = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()  # so long may it take to connect
    partner = await join(acme, made=await acme.post("/api-keys", {"expires_at": until_then}))
    assert (await partner.told("message.cancel", {}))["status"] == 422
    await until(lambda: partner.lost, "the connection is ended")


async def test_a_command_of_a_revoked_key_is_refused_before_its_connection_ends(
    acme: Account, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = await join(acme)
    monkeypatch.setattr(watch, "KICK", "nobody.{server}")
    assert (await acme.call("DELETE", f"/api-keys/{partner.key_id}")).status == 204
    assert (await partner.told("message.cancel", {}))["status"] == 401


@pytest.mark.filterwarnings("ignore:parameter 'timeout':DeprecationWarning")  # nats-py's way of asking aiohttp
async def test_websockets_are_the_same(acme: Account, join: Join, stack: Urls) -> None:
    partner = await join(acme, servers=stack.nats_websocket)
    assert (await partner.told("message.cancel", {}))["status"] == 422
    assert not await let_in(stack.nats_websocket, user=acme.tenant, password="p")
    assert (await acme.call("DELETE", f"/api-keys/{partner.key_id}")).status == 204
    await until(lambda: partner.lost, "the connection is ended")


async def test_one_of_several_front_doors_answers(acme: Account, door: Door, join: Join) -> None:
    sender = await acme.sender()
    async with serving(door):
        partners = [await join(acme) for _ in range(8)]
        wanted = {"to": "+919876543210", "sender_id": sender, "body": "Hello"}
        answers = await asyncio.gather(*(one.told("message.send", wanted) for one in partners))
        assert len({answer["id"] for answer in answers}) == 8
        made = await acme.post("/api-keys", {})
        ended = await join(acme, made=made)
        await acme.call("DELETE", f"/api-keys/{made['id']}")
        await until(lambda: ended.lost, "the connection is ended")
    assert (await partners[0].told("message.cancel", {}))["status"] == 422  # the other one goes on


async def test_who_has_too_many_connections_loses_the_newest(
    acme: Account, join: Join, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    partners = [await join(acme) for _ in range(5)]
    monkeypatch.setattr(watch, "MOST_OF_TENANT", 3)  # sooner, a look in between would keep the last ones out
    await until(lambda: sum(map(bool, (one.lost for one in partners))) == 2, "two connections are ended")
    assert [bool(one.lost) for one in partners] == [False, False, False, True, True]
    key = (await acme.post("/api-keys", {}))["key"]

    async def turned_away() -> bool:  # by what the last look saw, which was a moment ago
        return not await let_in(broker, user=acme.tenant, password=key)

    await until(turned_away, "there is no room")
    await partners[0].client.close()
    await comes_in(broker, user=acme.tenant, password=key)


async def test_who_floods_is_cut_off(acme: Account, join: Join, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_IN_HAND", 10)
    monkeypatch.setattr(watch, "FLOOD", 100)
    monkeypatch.setattr(watch, "KEPT_OUT", timedelta(minutes=5))
    partner, quiet = await join(acme), await join(acme)
    with contextlib.suppress(Error):  # it may be over before they are all written
        for _ in range(5_000):
            await partner.client.publish(f"t.{acme.tenant}.cmd.message.cancel", b"{}")
    await until(lambda: partner.lost, "the flood is ended")
    assert not quiet.lost
    assert not await let_in(broker, user=acme.tenant, password=partner.key)

    async def served() -> bool:
        return bool((await quiet.told("message.cancel", {}))["status"] == 422)

    await until(served, "others are served")


async def test_while_the_database_is_away_nobody_is_cut_off(
    acme: Account, join: Join, door: Door, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = await join(acme)
    key = (await acme.post("/api-keys", {}))["key"]
    monkeypatch.setattr(keyring, "FIND_KEYS", "select pg_sleep(0) from nowhere")
    door.keyring.forget()
    assert not await let_in(broker, user=acme.tenant, password=key)
    monkeypatch.undo()

    async def served() -> bool:  # a question that was on its way fails for all who wait for its answer
        return bool((await partner.told("message.cancel", {}))["status"] == 422)

    await until(served, "commands are taken again")
    assert not partner.lost
