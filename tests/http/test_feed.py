"""The live feed: only this tenant's events, in stream order, without a gap, whatever is restarted."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession
from feed_client import Front, make_key, opened, say, sent
from nats_server import Server
from support import NewTenant, until

from harkara.bus.connection import Bus, connect
from harkara.bus.tail import Page
from harkara.bus.topology import apply
from harkara.http.feed_protocol import TYPES
from harkara.http.identity import ACCESS_LIFETIME
from harkara.schemas.events import ContactOptedOut, EnrollmentCompleted, EnrollmentStarted, MessageRead
from harkara.storage.storage import Storage


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A broker that these tests may kill."""
    made = Server(tmp_path_factory.mktemp("nats"))
    await made.start()
    yield made
    made.stop()


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[Bus]:
    async with await connect(server.url, patience=timedelta(seconds=60)) as made:  # so long may a restart take
        await apply(made.js)
        yield made


@pytest.fixture
async def front(bus: Bus, redis_url: str, storage: Storage) -> AsyncIterator[Front]:
    async with opened(bus, redis_url, storage) as made:
        yield made


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> str:
    return await new_tenant()


@pytest.fixture
async def key(storage: Storage, tenant: str) -> str:
    return await make_key(storage, tenant)


def seqs(messages: list[dict[str, Any]]) -> list[int]:
    return [message["seq"] for message in messages]


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [int(message["data"]["id"]) for message in messages]


async def test_an_event_is_told_with_its_sequence_type_time_and_body(
    front: Front, bus: Bus, key: str, tenant: str
) -> None:
    wish = {"subscribe": ["message.*"], "since": front.feed.position}
    async with front.listen(key, wish) as listening:
        [seq] = await say(bus, tenant, sent(7))
        told = await listening.next()
    at = datetime.fromisoformat(told.pop("at"))
    assert told == {"seq": seq, "type": "message.sent", "data": {"id": "7", "wamid": "wamid.x"}}
    assert at.tzinfo is not None
    assert abs((datetime.now(at.tzinfo) - at).total_seconds()) < 60


async def test_only_the_own_tenants_events_are_told(
    front: Front, bus: Bus, storage: Storage, new_tenant: NewTenant
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    start = front.feed.position
    await say(bus, theirs, sent(1))
    await say(bus, ours, sent(2))
    async with front.listen(await make_key(storage, ours), {"subscribe": ["*"], "since": start}) as listening:
        await listening.take(1)
        await say(bus, theirs, sent(3))
        await say(bus, ours, sent(4))
        await listening.take(1)
        assert numbers(listening.got) == [2, 4]


async def test_the_filter_says_which_types(front: Front, bus: Bus, key: str, tenant: str) -> None:
    start = front.feed.position
    wish = {"subscribe": ["message.*", "enrollment.completed"], "since": start}
    both = (
        EnrollmentStarted(id="1", campaign_id="c", contact_id="k"),
        MessageRead(id="2"),
        ContactOptedOut(id="3", reason="stop"),
        EnrollmentCompleted(id="4", campaign_id="c", contact_id="k"),
        sent(5),
    )
    await say(bus, tenant, *both)
    async with front.listen(key, wish) as before, front.listen(key, {**wish, "subscribe": ["*"]}) as all_of_it:
        assert numbers(await before.take(3)) == [2, 4, 5]
        assert numbers(await all_of_it.take(5)) == [1, 2, 3, 4, 5]
        await say(bus, tenant, *both)
        assert numbers(await before.take(3)) == [2, 4, 5]
        assert numbers(await all_of_it.take(5)) == [1, 2, 3, 4, 5]


async def test_now_means_from_now_on(front: Front, bus: Bus, key: str, tenant: str) -> None:
    await say(bus, tenant, sent(1))
    async with front.listen(key, {"subscribe": ["message.*"], "since": "now"}) as listening:
        for number in range(100, 1000):  # until the subscription has arrived, nobody listens
            await say(bus, tenant, sent(number))
            try:
                told = await listening.next(within_s=0.1)
            except TimeoutError:
                continue
            assert int(told["data"]["id"]) >= 100
            return
    pytest.fail("nothing was told")


async def test_a_new_wish_takes_the_place_of_the_old(front: Front, bus: Bus, key: str, tenant: str) -> None:
    start = front.feed.position
    await say(bus, tenant, sent(1), MessageRead(id="2"))
    async with front.listen(key, {"subscribe": ["message.sent"], "since": start}) as listening:
        await listening.take(1)
        await listening.wish({"subscribe": ["message.read"], "since": start})
        await listening.take(1)
        await say(bus, tenant, sent(3), MessageRead(id="4"))
        await listening.take(1)
        assert numbers(listening.got) == [1, 2, 4]


async def test_whoever_comes_back_with_the_last_sequence_misses_nothing_and_gets_nothing_twice(
    front: Front, bus: Bus, key: str, tenant: str, new_tenant: NewTenant
) -> None:
    """Three thousand events while the client goes and comes back at random, with another tenant's in between."""
    chance = random.Random(7)
    other = await new_tenant()
    start, expected = front.feed.position, list[int]()

    async def publish() -> None:
        for page in range(60):
            expected.extend(await say(bus, tenant, *(sent(page * 50 + one) for one in range(50))))
            await say(bus, other, sent(0))

    publishing = asyncio.create_task(publish())
    got: list[dict[str, Any]] = []
    while len(got) < 3000:
        since = got[-1]["seq"] if got else start
        async with front.listen(key, {"subscribe": ["message.*"], "since": since}) as listening:
            got += await listening.take(min(chance.randint(1, 400), 3000 - len(got)))
    await publishing
    assert seqs(got) == expected
    assert numbers(got) == list(range(3000))


async def test_what_happens_while_history_is_read_comes_after_it(
    front: Front, bus: Bus, key: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live end is joined while the last of the history is still on its way."""
    hub, history = front.feed._hub, front.feed._history  # pyright: ignore[reportPrivateUsage]
    read, pages = history.page, list[int]()

    async def page(subject: str, after: int, most: int) -> Page:
        found = await read(subject, after, most)
        pages.append(len(found.messages))
        [seq] = await say(bus, tenant, sent(100 + len(pages)))
        await until(lambda: front.feed.position >= seq and hub._timer is None, "the live end has told it")
        return found

    monkeypatch.setattr(history, "page", page)
    start = front.feed.position
    await say(bus, tenant, sent(1), sent(2))
    async with front.listen(key, {"subscribe": ["message.*"], "since": start}) as listening:
        assert numbers(await listening.take(4)) == [1, 2, 101, 102]
    assert pages == [2, 1]


async def test_what_history_tells_before_the_live_end_does_is_not_told_twice(
    front: Front, bus: Bus, key: str, tenant: str
) -> None:
    """The live end may lag behind what a client has already read."""
    session = front.feed._hub._tail._session  # pyright: ignore[reportPrivateUsage]
    assert session is not None
    late: list[Any] = []
    queue = session.listener.sub._pending_queue  # type: ignore[union-attr]
    queue._on = late.append
    [first, *_] = await say(bus, tenant, sent(1), sent(2), sent(3))
    async with front.listen(key, {"subscribe": ["message.*"], "since": first}) as listening:
        assert numbers(await listening.take(2)) == [2, 3]
        await until(lambda: len(late) >= 3, "the live end was held up")
        for message in late:
            session.on(message)
        queue._on = session.on
        await say(bus, tenant, sent(4))
        assert numbers(await listening.take(1)) == [4]


async def test_a_history_that_is_outrun_is_read_again(
    front: Front, bus: Bus, key: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So much comes while the last page is read that it can't be kept: nothing is lost by that."""
    monkeypatch.setattr("harkara.http.listener.BACKLOG", 2000)
    hub, history = front.feed._hub, front.feed._history  # pyright: ignore[reportPrivateUsage]
    read, said = history.page, list(range(1, 4))

    async def page(subject: str, after: int, most: int) -> Page:
        found = await read(subject, after, most)
        if len(said) < 200:
            more = [len(said) + 1 + one for one in range(50)]
            seqs = await say(bus, tenant, *map(sent, more))
            said.extend(more)
            await until(lambda: front.feed.position >= seqs[-1] and hub._timer is None, "the live end has told them")
        return found

    monkeypatch.setattr(history, "page", page)
    start = front.feed.position
    await say(bus, tenant, *map(sent, said))
    async with front.listen(key, {"subscribe": ["message.*"], "since": start}) as listening:
        assert numbers(await listening.take(203)) == list(range(1, 204))


async def test_a_replica_that_lags_behind_hides_nothing(
    front: Front, bus: Bus, key: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """History may be read from a replica that has not heard of the last events yet: the leader is asked."""
    history = front.feed._history  # pyright: ignore[reportPrivateUsage]
    read, answers = history.page, iter((False, False, False, True))

    async def page(subject: str, after: int, most: int) -> Page:
        return await read(subject, after, most) if next(answers, True) else Page([], more=False)

    monkeypatch.setattr(history, "page", page)
    start = front.feed.position
    [*_, last] = await say(bus, tenant, sent(1), sent(2))
    await until(lambda: front.feed.position >= last, "the live end has passed them")
    async with front.listen(key, {"subscribe": ["message.*"], "since": start}) as listening:
        await listening.take(2)
        await say(bus, tenant, sent(3))
        await listening.take(1)
        assert numbers(listening.got) == [1, 2, 3]


async def test_nothing_is_missed_when_the_broker_is_killed(
    server: Server, front: Front, bus: Bus, key: str, tenant: str
) -> None:
    start = front.feed.position
    async with front.listen(key, {"subscribe": ["message.*"], "since": start}) as listening:

        async def publish() -> None:
            for number in range(300):
                await say(bus, tenant, sent(number))

        publishing = asyncio.create_task(publish())
        for told in (50, 120, 200):
            await listening.take(told - len(listening.got))
            server.kill()
            await server.start()
        await listening.take(300 - len(listening.got), within_s=60)
        await publishing
    assert numbers(listening.got) == list(range(300))


async def test_who_comes_while_the_broker_is_away_gets_everything_later(
    server: Server, front: Front, bus: Bus, key: str, tenant: str
) -> None:
    start = front.feed.position
    await say(bus, tenant, *(sent(number) for number in range(5)))
    server.kill()
    async with front.listen(key, {"subscribe": ["message.*"], "since": start}) as listening:
        await server.start()
        assert numbers(await listening.take(5)) == [0, 1, 2, 3, 4]


async def test_nothing_is_missed_when_the_front_door_restarts(
    bus: Bus, redis_url: str, storage: Storage, key: str, tenant: str
) -> None:
    async with opened(bus, redis_url, storage) as front:
        start = front.feed.position
        async with front.listen(key, {"subscribe": ["message.*"], "since": start}) as listening:
            await say(bus, tenant, sent(0))
            await listening.take(1)
            await asyncio.gather(front.feed.stop(), listening.closing())
            assert listening.ws.close_code == 1001
            last = listening.got[-1]["seq"]
    await say(bus, tenant, sent(1), sent(2))
    wish = {"subscribe": ["message.*"], "since": last}
    async with opened(bus, redis_url, storage) as front, front.listen(key, wish) as listening:
        await say(bus, tenant, sent(3))
        assert numbers(await listening.take(3)) == [1, 2, 3]


async def test_a_gap_is_told_when_the_stream_no_longer_has_what_comes_next(
    front: Front, bus: Bus, key: str, tenant: str
) -> None:
    kept = await say(bus, tenant, *(sent(number) for number in range(10)))
    await bus.js.purge_stream("EVENTS", seq=kept[6])
    async with front.listen(key, {"subscribe": ["message.*"], "since": kept[2]}) as listening:
        gap = await listening.next()
        assert gap["type"] == "feed.gap"
        assert gap["seq"] == kept[5]
        assert gap["data"]["since"] == kept[2]
        assert gap["data"]["first"] == kept[6]
        assert numbers(await listening.take(4)) == [6, 7, 8, 9]


async def test_a_sequence_that_does_not_exist_yet_is_told_as_a_gap(
    front: Front, bus: Bus, key: str, tenant: str
) -> None:
    [last] = await say(bus, tenant, sent(1))
    async with front.listen(key, {"subscribe": ["message.*"], "since": last + 1000}) as listening:
        gap = await listening.next()
        assert (gap["type"], gap["seq"]) == ("feed.gap", last)
        await say(bus, tenant, sent(2))
        assert numbers(await listening.take(1)) == [2]


async def test_from_the_very_beginning_there_is_no_gap(front: Front, bus: Bus, key: str, tenant: str) -> None:
    kept = await say(bus, tenant, *(sent(number) for number in range(3)))
    await bus.js.purge_stream("EVENTS", seq=kept[1])
    async with front.listen(key, {"subscribe": ["message.*"], "since": 0}) as listening:
        assert numbers(await listening.take(2)) == [1, 2]


async def test_listeners_are_told_when_the_stream_was_made_anew(
    server: Server, front: Front, bus: Bus, key: str, tenant: str
) -> None:
    [last] = await say(bus, tenant, *(sent(number) for number in range(1)))
    async with front.listen(key, {"subscribe": ["message.*"], "since": last - 1}) as listening:
        await listening.take(1)
        await bus.js.delete_stream("EVENTS")
        await apply(bus.js)
        code, reason = await listening.closing()
        assert code == 1013
        assert "interrupted" in reason
    async with front.listen(key, {"subscribe": ["message.*"], "since": last + 1}) as listening:
        assert (await listening.next())["type"] == "feed.gap"
        await say(bus, tenant, sent(9))
        assert numbers(await listening.take(1)) == [9]


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        ("{", "JSON"),
        ('{"subscribe":["message.*"],"sinse":1}', "sinse"),
        ('{"subscribe":["message.*"],"since":-1}', "since"),
        ('{"subscribe":["message.*"],"since":"yesterday"}', "since"),
        ('{"subscribe":[]}', "subscribe"),
        ('{"subscribe":["Message Sent"]}', "subscribe"),
        ('{"since":1}', "subscribe"),
        ("[]", ": the message must be an object"),
        ('{"subscribe":["message.*","nope.*"]}', ": subscribe: no type of event fits nope.*: there are alert.raised, "),
        ('{"subscribe":["message.snet","message"]}', "no type of event fits message.snet, message: "),
        ('{"subscribe":["message.*.>"]}', "reply.received"),
    ],
)
async def test_a_wish_that_cannot_be_understood_is_refused_with_the_reason(
    front: Front, key: str, wish: str, named: str
) -> None:
    async with front.listen(key) as listening:
        await listening.ws.send_str(wish)
        code, reason = await listening.closing()
    assert code == 1008
    assert named in reason
    assert '{"subscribe":["message.*"],"since":"now"}' in reason


@pytest.mark.parametrize("pattern", [*TYPES, "*", ">", "*.*", "message.>", "*.sent", "enrollment.*", "feed.*"])
async def test_every_type_of_event_and_family_of_types_may_be_subscribed_to(
    front: Front, bus: Bus, key: str, tenant: str, pattern: str
) -> None:
    async with front.listen(key, {"subscribe": [pattern, "message.sent"], "since": front.feed.position}) as listening:
        await say(bus, tenant, sent(1))
        assert numbers(await listening.take(1)) == [1]


async def test_binary_messages_and_far_too_long_ones_are_refused(front: Front, key: str) -> None:
    async with front.listen(key) as listening:
        await listening.ws.send_bytes(b"\x00")
        assert (await listening.closing())[0] == 1003
    async with front.listen(key) as listening:
        await listening.ws.send_str("x" * 20_000)
        assert (await listening.ws.receive(30)).data == 1009


async def test_a_ticket_opens_the_feed_once(front: Front, bus: Bus, key: str, tenant: str) -> None:
    async with front.session.post(front.url("/feed/ticket"), headers={"X-API-Key": key}) as response:
        assert response.status == 201
        issued = await response.json()
    assert issued["expires_in"] == 30
    await say(bus, tenant, sent(1))
    url = front.url(f"/feed?ticket={issued['ticket']}")
    async with front.session.ws_connect(url) as ws:
        await ws.send_json({"subscribe": ["*"], "since": issued["seq"]})
        assert (await ws.receive_json(timeout=30))["data"]["id"] == "1"
    async with front.session.get(url, headers=UPGRADE) as response:
        assert response.status == 401
        assert "ticket" in (await response.json())["detail"]


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_a_ticket_lives_thirty_seconds_and_is_not_kept_readable(front: Front, key: str, tenant: str) -> None:
    async with front.session.post(front.url("/feed/ticket"), headers={"X-API-Key": key}) as response:
        ticket = (await response.json())["ticket"]
    redis = front.door.redis
    kept: dict[bytes, Any] = {name: await redis.get(name) async for name in redis.scan_iter("feed:ticket:*")}
    # Other tests leave tickets behind, which may expire at any moment.
    [name] = [name for name, holder in kept.items() if holder and tenant.encode() in holder]
    assert ticket.encode() not in name + kept[name]
    assert 0 < await redis.pttl(name) <= 30_000


@pytest.mark.parametrize("query", ["", "?ticket=", "?ticket=nonsense"])
async def test_strangers_hear_nothing(front: Front, query: str) -> None:
    async with front.session.get(front.url("/feed") + query, headers=UPGRADE) as response:
        assert response.status == 401
        assert response.content_type == "application/problem+json"


async def test_a_key_without_the_scope_is_refused(front: Front, storage: Storage, tenant: str) -> None:
    key = await make_key(storage, tenant, "contacts:read")
    async with front.session.get(front.url("/feed"), headers={**UPGRADE, "X-API-Key": key}) as response:
        assert response.status == 403
        assert "feed:read" in (await response.json())["detail"]
    async with front.session.post(front.url("/feed/ticket"), headers={"X-API-Key": key}) as response:
        assert response.status == 403


async def test_an_ordinary_request_is_told_to_use_a_websocket(front: Front, key: str) -> None:
    async with front.session.get(front.url("/feed"), headers={"X-API-Key": key}) as response:
        assert response.status == 426
        assert "WebSocket" in (await response.json())["detail"]


async def test_a_withdrawn_key_hears_nothing_more(front: Front, storage: Storage, key: str, tenant: str) -> None:
    other = await make_key(storage, tenant, "feed:read")
    async with front.listen(key) as listening, front.listen(other) as stays:
        await until(lambda: front.feed.listeners == 2, "both listen")
        async with storage.tenant(tenant) as con:
            await con.execute("update api_keys set revoked_at = now() where scopes = '{*}'")
        await front.feed.recheck()
        code, reason = await listening.closing()
        assert code == 1008
        assert "withdrawn" in reason
        assert not stays.ws.closed


@pytest.mark.parametrize("back", ["now", 0, 2])
async def test_who_is_closed_before_anything_came_comes_back_to_where_they_were(
    front: Front, bus: Bus, storage: Storage, key: str, tenant: str, back: str | int
) -> None:
    start = front.feed.position
    for _ in range(3):
        await say(bus, tenant, ContactOptedOut(id="1", reason="x"))
    await until(lambda: front.feed.position >= start + 3, "the door has heard of them")
    newest = front.feed.position
    since = back if isinstance(back, str) else newest - back
    async with front.listen(key, {"subscribe": ["reply.received"], "since": since}) as listening:
        await until(lambda: tenant in front.feed._hub._groups, "it has read what there was")
        async with storage.tenant(tenant) as con:
            await con.execute("update api_keys set revoked_at = now()")
        await front.feed.recheck()
        told = await listening.next()
    assert told["type"] == "feed.closed"
    assert told["seq"] == (newest if since == "now" else since)


async def test_a_member_who_was_put_out_hears_nothing_more(front: Front, storage: Storage, tenant: str) -> None:
    async with storage.tenant(tenant) as con:
        user = await con.fetchval("select user_id from tenant_users")
    token = front.door.tokens.access(user, None, front.door.clock())
    headers = {"Authorization": f"Bearer {token}"}
    async with front.session.ws_connect(front.url("/feed"), headers=headers) as ws:
        await front.feed.recheck()
        await ws.send_json({"subscribe": ["*"]})
        async with storage.tenant(tenant) as con:
            await con.execute("update tenant_users set is_active = false")
        await front.feed.recheck()
        assert (await ws.receive_json(timeout=30))["type"] == "feed.closed"


async def test_a_feed_ends_with_the_access_token_it_was_opened_with(
    front: Front, storage: Storage, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One opened with a ticket ends with the token that the ticket was issued to."""
    async with storage.tenant(tenant) as con:
        user = await con.fetchval("select user_id from tenant_users")
    token = front.door.tokens.access(user, None, front.door.clock())
    headers = {"Authorization": f"Bearer {token}"}
    async with front.session.post(front.url("/feed/ticket"), headers=headers) as response:
        ticket = (await response.json())["ticket"]
    async with (
        front.session.ws_connect(front.url("/feed"), headers=headers) as ws,
        front.session.ws_connect(front.url(f"/feed?ticket={ticket}")) as browser,
    ):
        await until(lambda: front.feed.listeners == 2, "both listen")
        await front.feed.recheck()
        assert not ws.closed
        assert not browser.closed
        later = front.door.clock() + ACCESS_LIFETIME + timedelta(seconds=1)
        monkeypatch.setattr("harkara.http.feed.utc_now", lambda: later)
        front.feed.recheck_soon()
        for one in (ws, browser):
            told = await one.receive_json(timeout=30)
            assert (told["type"], "expired" in told["data"]["reason"]) == ("feed.closed", True)
            assert (await one.receive(30)).data == 1008


@asynccontextmanager
async def raw_listener(front: Front, key: str, since: int) -> AsyncIterator[asyncio.StreamReader]:
    """A listener that reads only when it is told to, behind a small window."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (front.server.host, front.server.port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=4096)
    head = {"Host": "front", "X-API-Key": key, **UPGRADE}
    writer.write(
        b"GET /api/v1/feed HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode()
    )
    writer.write(b"\r\n")
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    wish = json.dumps({"subscribe": ["*"], "since": since}).encode()
    # A client's frame is masked; with a mask of zeros it stays readable.
    writer.write(b"\x81" + bytes([0x80 | len(wish)]) + bytes(4) + wish)
    try:
        yield reader
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_slow_reader_is_told_so_and_dropped_and_slows_nobody(
    front: Front, bus: Bus, key: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It begins to read only after all that is to come: till then it must not be cut off.
    monkeypatch.setattr("harkara.http.listener.CLOSING", timedelta(seconds=90))
    start = front.feed.position
    large = ContactOptedOut(id="1", reason="x" * 100_000)
    async with (
        raw_listener(front, key, start) as reader,
        front.listen(key, {"subscribe": ["*"], "since": start}) as quick,
    ):
        await until(lambda: front.feed.listeners == 2, "both listen")
        for _ in range(120):
            await say(bus, tenant, large)
            await quick.take(1)
        everything = await reader.read(-1)
    assert b'"type":"feed.closed"' in everything
    assert b"too slow" in everything
    assert everything[-150:].find((1013).to_bytes(2, "big")) >= 0, "the close frame comes last"
    assert everything.count(b"contact.opted_out") < 120


async def test_a_reader_that_reads_nothing_more_is_cut_off(
    front: Front, bus: Bus, key: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.listener.CLOSING", timedelta(seconds=0.2))
    async with raw_listener(front, key, front.feed.position):
        await until(lambda: front.feed.listeners == 1, "it listens")
        large = ContactOptedOut(id="1", reason="x" * 100_000)
        for _ in range(120):
            await say(bus, tenant, large)
        await until(lambda: front.feed.listeners == 0, "it was cut off")


async def test_history_waits_for_a_slow_reader(front: Front, bus: Bus, key: str, tenant: str) -> None:
    """Past events are read as fast as the client takes them: nothing is dropped, nothing gathers here."""
    start = front.feed.position
    await say(bus, tenant, *(ContactOptedOut(id=str(number), reason="x" * 100_000) for number in range(60)))
    everything = bytearray()
    async with raw_listener(front, key, start) as reader, asyncio.timeout(60):
        while everything.count(b"contact.opted_out") < 60:
            everything += await reader.read(200_000)
    assert b"feed." not in everything


async def test_a_client_that_reads_no_history_at_all_is_dropped(
    front: Front, bus: Bus, key: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.listener.PATIENCE", timedelta(seconds=0.2))
    monkeypatch.setattr("harkara.http.listener.CLOSING", timedelta(seconds=0.2))
    start = front.feed.position
    await say(bus, tenant, *(ContactOptedOut(id=str(number), reason="x" * 100_000) for number in range(100)))
    async with raw_listener(front, key, start):
        await until(lambda: front.feed.listeners == 1, "it listens")
        await until(lambda: front.feed.listeners == 0, "it was dropped")


async def test_somebody_can_wait_for_one_event(front: Front, bus: Bus, tenant: str, new_tenant: NewTenant) -> None:
    coming = front.feed.expect(tenant, {"message.read"}, "42")
    await say(bus, await new_tenant(), MessageRead(id="42"))
    await say(bus, tenant, sent(42), MessageRead(id="41"), MessageRead(id="42"))
    async with asyncio.timeout(30):
        event = await coming
    assert (event.type, event.data) == ("message.read", b'{"id":"42"}')


async def test_waiting_in_vain_leaves_nothing_behind(front: Front, bus: Bus, tenant: str) -> None:
    coming = front.feed.expect(tenant, {"message.read"}, "42")
    coming.cancel()
    seen = front.feed.position
    await say(bus, tenant, MessageRead(id="42"))
    await until(lambda: front.feed.position > seen, "the event was handed on")
    assert front.feed._hub._expected == {}  # pyright: ignore[reportPrivateUsage]


async def test_stopping_does_not_wait_for_clients_that_do_not_answer(
    bus: Bus, redis_url: str, storage: Storage, key: str
) -> None:
    async with opened(bus, redis_url, storage) as front, ClientSession() as session:
        # autoclose=False: this client never answers the server's close.
        ws = await session.ws_connect(front.url("/feed"), headers={"X-API-Key": key}, autoclose=False)
        await until(lambda: front.feed.listeners == 1, "it listens")
        async with asyncio.timeout(25):  # less than what a socket that answers no heartbeat is given
            await front.feed.stop()
        await ws.close()
