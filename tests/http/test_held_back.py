"""What holds all of a campaign or number back is said by the campaign, and by each message that is due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from door_client import Account, a_phone
from nats.js.api import ConsumerConfig

from harkara.actors.budget import NOTHING, Budgets
from harkara.actors.learning import learn
from harkara.bus import pausing as actors
from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.overview import durables, streams
from harkara.gateway.protocol import Accepted, NotSent
from harkara.http.door import Door
from harkara.schemas.reasons import NO_GATEWAY
from harkara.storage import pausing, redis_keys
from harkara.storage.models import Message, Sender
from harkara.storage.storage import Storage

ASK = "ask the operator, who alone can have it go on"

Stop = Callable[[Account, Storage, UUID], Awaitable[None]]


def having(**columns: Any) -> Stop:
    """The number's row says so."""

    async def stop(acme: Account, storage: Storage, sender: UUID) -> None:
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 2))
        async with storage.tenant(acme.tenant) as con:
            await con.execute(f"update senders set {sets} where id = $1", sender, *columns.values())

    return stop


async def by_hand(acme: Account, _: Storage, sender: UUID) -> None:
    assert (await acme.call("PATCH", f"/senders/{sender}", body={"status": "paused"})).status == 200


async def with_its_tenant(acme: Account, storage: Storage, _: UUID) -> None:
    async with storage.tenant(acme.tenant) as con:
        assert await pausing.pause_tenant(con, acme.tenant, "unpaid")


async def alone(acme: Account, storage: Storage, sender: UUID) -> None:
    async with storage.tenant(acme.tenant) as con:
        assert await pausing.pause_sender(con, acme.tenant, sender, "complaints")


#: How a number is stopped; the code, the words and what to do, `{}` for its id.
STOPPED = (
    (by_hand, "number_stopped", "its number is stopped", "POST /senders/{}/resume"),
    (
        having(status="paused", status_reason="(#131031) Locked", error_code=131031),
        "number_stopped",
        "its number is stopped: (#131031) Locked",
        "see in the WhatsApp manager why, and ask Meta's support, then POST /senders/{}/resume",
    ),
    (with_its_tenant, "number_stopped", "its number is stopped: the operator has paused this tenant: unpaid", ASK),
    (alone, "number_stopped", "its number is stopped: paused by the operator: complaints", ASK),
    (
        having(status="blocked", error_code=190),
        "number_stopped",
        "its number is stopped: the access token is not valid any more",
        "PATCH the sender with a new access_token, then POST /senders/{}/resume",
    ),
    (
        having(held_until=datetime(2099, 1, 1, tzinfo=UTC), status_reason="(#131048) Spam", error_code=131048),
        "number_rests",
        "its number rests, as WhatsApp has asked: (#131048) Spam",
        "send less, and to people who expect it; it goes on by itself, at `held_until` of the sender, or with POST"
        " /senders/{}/resume",
    ),
    (having(session_state="scan_qr"), "number_disconnected", "no phone is linked to its number", "/senders/{}/qr"),
    (
        having(held_until=datetime(2099, 1, 1, tzinfo=UTC), status_reason="too many messages"),
        "number_rests",
        "its number rests, as WhatsApp has asked: too many messages",
        "at `held_until` of the sender",
    ),
)


async def waiting(storage: Storage, tenant: str, sender: UUID, *, due: float = -60, **more: Any) -> str:
    """The id of a message that waits, due in so many seconds."""
    row: dict[str, Any] = {
        "lane": "utility",
        "to": a_phone(),
        "content": {"body": "Hi"},
        "status": "queued",
        "cause": "",
    }
    due_at = datetime.now(UTC) + timedelta(seconds=due)
    async with storage.tenant(tenant):
        message = await Message.create(sender_id=sender, due_at=due_at, **row, **more)
    return str(message.id)


async def running(acme: Account) -> tuple[str, UUID]:
    """A campaign that is active, and its number, from which texts may leave at any time."""
    campaign = await acme.campaign()
    sender = (await acme.get(f"/campaigns/{campaign}"))["sender_id"]
    assert (await acme.call("PATCH", f"/senders/{sender}", body={"window": "ignore"})).status == 200
    return campaign, UUID(sender)


@pytest.mark.parametrize(("stop", "code", "text", "todo"), STOPPED)
async def test_a_campaign_and_its_messages_say_what_is_with_their_number(
    acme: Account, storage: Storage, stop: Stop, code: str, text: str, todo: str
) -> None:
    (campaign, sender), draft = await running(acme), await acme.campaign(active=False)
    shown = await acme.get(f"/campaigns/{campaign}")
    assert (shown["status"], shown["held_back_by"]) == ("active", None)
    assert (await acme.get(f"/senders/{sender}"))["why"] is None
    due, later = await waiting(storage, acme.tenant, sender), await waiting(storage, acme.tenant, sender, due=600)
    assert (await acme.get(f"/messages/{due}"))["why"] is None
    await stop(acme, storage, sender)
    told = (await acme.get(f"/campaigns/{campaign}"))["held_back_by"]
    assert (told["code"], told["text"]) == (code, text)
    assert todo.format(sender) in told["todo"]
    held_back = {one["id"]: one["held_back_by"] for one in (await acme.get("/campaigns"))["items"]}
    assert held_back == {campaign: told, draft: None}
    assert (await acme.get(f"/messages/{due}"))["why"] == told
    assert (await acme.get(f"/senders/{sender}"))["why"] == told
    assert told in [one["why"] for one in (await acme.get("/senders"))["items"]]
    assert (await acme.get(f"/messages/{later}"))["why"] is None, "its time has not come"
    paused = await acme.post(f"/campaigns/{campaign}/pause", status=200)
    assert (paused["status"], paused["held_back_by"]) == ("paused", None)


async def test_a_rest_that_is_in_redis_alone_is_said(acme: Account, storage: Storage, door: Door) -> None:
    campaign, sender = await running(acme)
    due = await waiting(storage, acme.tenant, sender)
    rests = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
    async with storage.tenant(acme.tenant):  # it has rested before, which is over
        before: dict[str, Any] = {
            "status_reason": "(#131048) Spam",
            "error_code": 131048,
            "held_until": rests - timedelta(days=1),
        }
        await Sender.filter(id=sender).update(**before)
    await door.redis.set(redis_keys.hold(sender), str(int(rests.timestamp() * 1e6)), ex=90)
    told = (await acme.get(f"/messages/{due}"))["why"]
    assert (told["code"], told["text"]) == ("number_rests", "its number rests, as WhatsApp has asked")
    shown = await acme.get(f"/senders/{sender}")
    assert (datetime.fromisoformat(shown["held_until"]), shown["why"]) == (rests, told)
    assert shown in (await acme.get("/senders"))["items"]
    assert (await acme.get(f"/campaigns/{campaign}"))["held_back_by"] == told
    assert [one["held_back_by"] for one in (await acme.get("/campaigns"))["items"]] == [told]
    await door.redis.set(redis_keys.hold(sender), str(int((rests - timedelta(days=1)).timestamp() * 1e6)), ex=90)
    assert (await acme.get(f"/messages/{due}"))["why"] is None, "it is over"


async def test_a_gateway_that_is_away_is_said_by_all_that_wait_for_it(
    acme: Account, storage: Storage, door: Door
) -> None:
    campaign, sender = await running(acme)
    due = await waiting(storage, acme.tenant, sender)
    place = "http://127.0.0.1:3499 (EVOLUTION_URL): ConnectError: Connection refused"
    budgets = Budgets(door.redis)
    await learn(budgets, str(sender), NOTHING, NotSent(f"{NO_GATEWAY}{place}"), timedelta())
    told = (await acme.get(f"/campaigns/{campaign}"))["held_back_by"]
    assert (told["code"], told["text"]) == ("gateway_away", f"its gateway does not answer: {place}")
    assert (await acme.get(f"/senders/{sender}"))["why"] == told
    assert (await acme.get(f"/messages/{due}"))["why"] == told
    assert [one["held_back_by"] for one in (await acme.get("/campaigns"))["items"]] == [told]
    await learn(budgets, str(sender), NOTHING, Accepted("wamid.1"), timedelta())
    assert (await acme.get(f"/campaigns/{campaign}"))["held_back_by"] is None
    assert (await acme.get(f"/messages/{due}"))["why"] is None


async def test_what_waits_of_a_paused_campaign_says_so_whenever_it_is_due(acme: Account, storage: Storage) -> None:
    campaign, sender = await running(acme)
    deferred: dict[str, Any] = {"reason": "quiet_hours", "deferred_until": datetime.now(UTC) + timedelta(hours=1)}
    ids = [await waiting(storage, acme.tenant, sender, campaign_id=UUID(campaign), **more) for more in ({}, deferred)]
    await acme.post(f"/campaigns/{campaign}/pause", status=200)
    for id_ in ids:
        why = (await acme.get(f"/messages/{id_}"))["why"]
        assert (why["code"], why["text"]) == ("campaign_paused", "its campaign is paused")
        assert why["todo"] == f"POST /campaigns/{campaign}/resume has it go on"
    await acme.post(f"/campaigns/{campaign}/resume", status=200)
    assert (await acme.get(f"/messages/{ids[0]}"))["why"] is None
    assert (await acme.get(f"/messages/{ids[1]}"))["why"]["code"] == "quiet_hours"


async def test_a_message_and_its_campaign_say_that_an_operator_has_paused_all_sending(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    campaign, sender = await running(acme)
    await acme.campaign(active=False)
    due, fresh = await waiting(storage, acme.tenant, sender), await waiting(storage, acme.tenant, sender, due=600)
    api = Api(live_bus.link.request)
    await actors.pause(api, live_bus.topology, "sender", None)
    try:
        why = (await acme.get(f"/messages/{due}"))["why"]
        assert (why["code"], why["text"]) == ("actor_paused", "the operator has paused all sending")
        assert (await acme.get(f"/messages/{fresh}"))["why"] is None
        assert (await acme.get(f"/campaigns/{campaign}"))["held_back_by"] == why
        held_back = {one["status"]: one["held_back_by"] for one in (await acme.get("/campaigns"))["items"]}
        assert held_back == {"active": why, "draft": None}
    finally:
        await actors.resume(api, live_bus.topology, "sender")
    assert (await acme.get(f"/messages/{due}"))["why"] is None
    assert (await acme.get(f"/campaigns/{campaign}"))["held_back_by"] is None


async def test_a_campaign_says_that_an_operator_has_paused_enrolling(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    campaign, sender = await running(acme)
    due = await waiting(storage, acme.tenant, sender)
    config = ConsumerConfig(durable_name="enrollment", filter_subject="t.*.cmd.enrollment.stop")
    await live_bus.js.add_consumer("COMMANDS", config)
    api = Api(live_bus.link.request)
    try:
        await actors.pause(api, live_bus.topology, "enrollment", None)
        told = (await acme.get(f"/campaigns/{campaign}"))["held_back_by"]
        assert told["code"] == "actor_paused"
        assert told["text"].startswith("the operator has paused enrolling")
        assert (await acme.get(f"/messages/{due}"))["why"] is None
    finally:
        await live_bus.js.delete_consumer("COMMANDS", "enrollment")


@pytest.mark.parametrize("end", [None, datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)])
async def test_a_pause_without_an_end_has_none_wherever_it_is_shown(live_bus: Bus, end: datetime | None) -> None:
    mine = ("COMMANDS", "dispatcher")
    config = ConsumerConfig(durable_name="dispatcher", filter_subject="t.*.cmd.message.send")
    await live_bus.js.add_consumer("COMMANDS", config)
    api, topology = Api(live_bus.link.request), live_bus.topology
    try:
        for actor in ("sender", "dispatcher"):
            await actors.pause(api, topology, actor, end)
        [stream] = [one for one in await streams(api, topology) if one.name == "SEND"]
        [reader] = [one for one in await durables(api, topology) if (one.stream, one.name) == mine]
        for one in (stream, reader):
            assert (one.paused, one.paused_until) == (True, end)
        for actor in ("sender", "dispatcher"):
            await actors.resume(api, topology, actor)
        [reader] = [one for one in await durables(api, topology) if (one.stream, one.name) == mine]
        assert (reader.paused, reader.paused_until) == (False, None)
    finally:
        await live_bus.js.delete_consumer("COMMANDS", "dispatcher")
        await actors.resume(api, topology, "sender")
