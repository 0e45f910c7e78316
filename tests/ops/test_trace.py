"""What `harkara ops trace` tells of rows, told without a broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from enrolled import Enrolled, enrolled
from redis.asyncio import Redis
from support import NewTenant

from harkara.actors.budget import Budgets
from harkara.ops.trace.story import Teller
from harkara.storage import redis_keys
from harkara.storage.models import Message, Sender
from harkara.storage.storage import Storage

MADE = datetime(2026, 3, 1, 12, 0, 3, 412_000, tzinfo=UTC)
LATER = MADE + timedelta(days=9999)


async def waiting(storage: Storage, one: Enrolled, **more: Any) -> str:
    """The id of a message that is due."""
    row: dict[str, Any] = {"lane": "utility", "to": "+919876543210", "content": {"body": "Hi"}, "due_at": MADE}
    row |= {"status": "queued", "cause": ""} | more
    async with storage.tenant(one.tenant):
        return str((await Message.create(contact_id=one.contact, sender_id=one.sender, **row)).id)


async def test_receipts_in_whole_seconds_keep_their_order_and_say_so(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant())
    whole = MADE.replace(microsecond=0)
    times: dict[str, Any] = {"created_at": MADE, "attempted_at": MADE, "sent_at": MADE + timedelta(milliseconds=80)}
    times |= {"delivered_at": whole, "read_at": whole + timedelta(seconds=2)}
    id_ = await waiting(storage, one, status="read", **times)
    story = await Teller(storage, None).tell(id_, one.tenant)
    assert story is not None
    assert [(moment.at, moment.what) for moment in story.timeline] == [
        (MADE, "was written down, queued"),
        (MADE, "left for WhatsApp"),
        (times["sent_at"], "was taken by WhatsApp"),
        (times["sent_at"], "reached the phone (at 12:00:03 by WhatsApp, which tells whole seconds)"),
        (times["read_at"], "was read"),
    ]


@pytest.mark.parametrize(
    ("columns", "todo"),
    [
        ({"reason": "(#131000) Something went wrong", "error_code": 131000}, "POST /messages/{id}/cancel"),
        (
            {"reason": "template_paused", "deferred_until": LATER},
            "POST /senders/{sender}/templates/",
        ),
        ({"status": "suppressed", "reason": "template_missing"}, "POST /senders/{sender}/templates/sync"),
    ],
)
async def test_what_to_do_names_what_it_is_to_be_done_to(
    storage: Storage, new_tenant: NewTenant, columns: dict[str, Any], todo: str
) -> None:
    one = await enrolled(storage, await new_tenant())
    id_ = await waiting(storage, one, attempts=1, **columns)
    story = await Teller(storage, None).tell(id_, one.tenant)
    assert story is not None
    assert todo.format(id=id_, sender=one.sender) in story.now[0].todo


@pytest.mark.parametrize(
    ("columns", "waits_for"),
    [
        ({}, "a receipt that settles it"),
        (
            {"resend_at": LATER},
            f"a receipt that settles it, or its time to be sent once more, {LATER:%Y-%m-%d %H:%M:%S}",
        ),
        (
            {"resend_at": MADE},
            "a receipt that settles it: those that have come are read first, then it is sent once more",
        ),
        ({"resend_at": LATER, "resent": True}, "a receipt that settles it"),
    ],
)
async def test_what_is_in_doubt_says_what_it_waits_for(
    storage: Storage, new_tenant: NewTenant, columns: dict[str, Any], waits_for: str
) -> None:
    one = await enrolled(storage, await new_tenant())
    story = await Teller(storage, None).tell(await waiting(storage, one, status="unknown", **columns), one.tenant)
    assert story is not None
    assert story.now[0].waits_for == waits_for


async def test_what_waits_for_a_gateway_that_is_away_says_where_it_was_looked_for(
    storage: Storage, new_tenant: NewTenant, redis_url: str
) -> None:
    one = await enrolled(storage, await new_tenant())
    place = "http://127.0.0.1:3499 (EVOLUTION_URL): ConnectError: Connection refused"
    tried = await waiting(storage, one, attempts=1, reason=f"its gateway does not answer: {place}")
    async with Redis.from_url(redis_url) as redis:
        await Budgets(redis).away(str(one.sender), place)
        for id_ in (tried, await waiting(storage, one)):  # one that was tried, and one behind it
            story = await Teller(storage, None, redis).tell(id_, one.tenant)
            assert story is not None
            [now] = story.now
            assert (now.code, now.waits_for) == ("gateway_away", f"its gateway, which does not answer: {place}")
            assert now.todo.startswith("check that it runs, and its address")


@pytest.mark.parametrize(
    ("key", "told", "said"),
    [
        (
            redis_keys.away,
            "http://127.0.0.1:1: refused",
            "the gateway of {} does not answer (http://127.0.0.1:1: refused)",
        ),
        (redis_keys.hold, str(int(LATER.timestamp() * 1e6)), f"{{}} rests until {LATER:%Y-%m-%d %H:%M:%S}"),
    ],
)
async def test_a_campaign_and_its_number_say_what_holds_them_back_for_seconds(
    storage: Storage, new_tenant: NewTenant, redis_url: str, key: Callable[[object], str], told: str, said: str
) -> None:
    one = await enrolled(storage, await new_tenant())
    async with Redis.from_url(redis_url) as redis:
        await redis.set(key(one.sender), told, ex=60)
        for id_, it in ((one.sender, "it"), (one.campaign, "its number Shop")):
            story = await Teller(storage, None, redis).tell(str(id_), one.tenant)
            assert story is not None
            assert said.format(it) in story.standing


@pytest.mark.parametrize("kind", ["message", "campaign", "sender"])
async def test_what_waits_for_a_phone_says_so(storage: Storage, new_tenant: NewTenant, kind: str) -> None:
    one = await enrolled(storage, await new_tenant())
    async with storage.tenant(one.tenant):
        await Sender.filter(id=one.sender).update(session_state="scan_qr", session_detail="logged out")
    named = {"message": await waiting(storage, one), "campaign": str(one.campaign), "sender": str(one.sender)}[kind]
    story = await Teller(storage, None).tell(named, one.tenant)
    assert story is not None
    if kind == "message":
        [now] = story.now
        assert (now.code, f"POST /senders/{one.sender}/session/start" in now.todo) == ("number_disconnected", True)
        assert now.waits_for == "its number Shop (1), which no phone is linked to: logged out"
    else:
        assert f"no phone is linked to {'it' if kind == 'sender' else 'its number Shop'} (logged out)" in story.standing
