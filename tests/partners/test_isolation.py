"""One partner attacks another, and the platform, with all that the protocol allows. Nothing of it may come through.

Each test fails if nats/accounts.conf, or what the front door lets keys do, opens a way again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from door_client import Account, Api, a_phone, make_account
from nats.aio.msg import Msg
from nats.errors import Error
from partner_client import Join, Partner
from support import until

from harkara.bus.connection import Bus

STREAMS = ("COMMANDS", "WORK", "SEND", "INBOUND", "EVENTS", "DEAD")


@dataclass
class Scene:
    """Mallory, who attacks, and Victor, who only listens."""

    bus: Bus
    mallory: Partner
    victor: Partner
    #: All that came to each of them without their having asked.
    to_mallory: list[Msg] = field(default_factory=list)
    to_victor: list[Msg] = field(default_factory=list)

    def names(self, text: str) -> str:
        """The text with both tenants' names in it."""
        m, v = self.mallory, self.victor
        for name, value in (
            ("<m>", m.tenant), ("<v>", v.tenant), ("<m-key>", m.key_id), ("<v-key>", v.key_id),
            ("<m-durable>", m.durable), ("<v-durable>", v.durable),
        ):  # fmt: skip
            text = text.replace(name, value)
        return text

    async def publish(self, subject: str, data: bytes = b"{}", reply: str = "", **headers: str) -> None:
        """Mallory sends this; the broker has judged it."""
        head = {name.replace("_", "-"): self.names(value) for name, value in headers.items()}
        client = self.mallory.client
        await client.publish(self.names(subject), data, reply=self.names(reply), headers=head or None)
        await client.flush()

    async def kept(self) -> dict[str, Any]:
        """All that the platform holds of the two, and how far Victor's durable has come."""
        held = dict[str, Any]()
        for stream in STREAMS:
            for who in (self.mallory.tenant, self.victor.tenant):
                found = (await self.bus.js.stream_info(stream, subjects_filter=f"t.{who}.>")).state.subjects
                held |= {f"{stream} {subject}": count for subject, count in (found or {}).items()}
        async for one in _consumers(self.bus):
            if not _goes_by_itself(one):
                held[f"consumer {one.name}"] = True
        info = await self.bus.js.consumer_info("EVENTS", self.victor.durable)
        return held | {"pending": info.num_pending, "unacknowledged": info.num_ack_pending, "read": info.ack_floor}

    async def happens(self, who: Partner, what: str) -> int:
        """The platform tells an event, and it came to whose it is: so did all that was sent before.

        What is heard live comes at most once, so it is told again if need be: as often as this returns.
        """
        heard, body = self.to_victor if who is self.victor else self.to_mallory, _told(what)
        for times in range(1, 11):
            await self.bus.js.publish(f"t.{who.tenant}.evt.message.sent", body)
            with contextlib.suppress(AssertionError):
                await until(lambda: any(one.data == body for one in heard), "the event came", 3)
                return times
        raise AssertionError("an event was told ten times, and came never")

    async def ends_as_it_was(self, before: dict[str, Any]) -> None:
        """Fail if anything is kept, or has come to Victor, but what was there `before` and an event that ends it."""
        times, his = await self.happens(self.victor, "the end"), f"EVENTS t.{self.victor.tenant}.evt.message.sent"
        assert await self.kept() == before | {his: before[his] + times, "pending": before["pending"] + times}
        assert heard(self.to_victor) == {_told("the end")}


def _told(what: str) -> bytes:
    return json.dumps({"what": what}).encode()


def heard(messages: list[Msg]) -> set[bytes]:
    """What has come since the scene began: of what it began with, some may come late."""
    return {one.data for one in messages} - {_told("hers"), _told("his")}


def _goes_by_itself(consumer: Any) -> bool:
    """Whether the broker forgets it within the hour if nobody reads, as what other tests have left behind."""
    return consumer.name.startswith("tail-") or 0 < (consumer.config.inactive_threshold or 0) < 3600


async def _consumers(bus: Bus) -> AsyncIterator[Any]:
    for stream in STREAMS:
        for one in await bus.js.consumers_info(stream):
            yield one


@pytest.fixture(scope="module")
async def tenants(api: Api) -> list[Account]:
    """Mallory's and Victor's."""
    return [await make_account(api) for _ in range(2)]


@pytest.fixture
async def scene(tenants: list[Account], bus: Bus, join: Join) -> AsyncIterator[Scene]:
    """Two tenants with all rights that a key can have. Both have a durable with an event to read."""
    for tenant in tenants:
        for stream in STREAMS:
            await bus.js.purge_stream(stream, subject=f"t.{tenant.tenant}.>")
    mallory, victor = [await join(tenant) for tenant in tenants]
    made = Scene(bus, mallory, victor)
    for partner, heard in ((mallory, made.to_mallory), (victor, made.to_victor)):
        assert (await partner.told("events.open", {"since": 0}))["stream"] == "EVENTS"

        async def hear(message: Msg, heard: list[Msg] = heard) -> None:
            heard.append(message)

        await partner.client.subscribe(f"t.{partner.tenant}.evt.>", cb=hear)
        await partner.client.subscribe(f"_INBOX_{partner.tenant}.>", cb=hear)
        await partner.client.flush()
    await made.happens(mallory, "hers")
    await made.happens(victor, "his")
    made.to_victor.clear()
    made.to_mallory.clear()
    yield made
    for partner in (mallory, victor):
        await bus.js.delete_consumer("EVENTS", partner.durable)


#: What only the platform, or another, may say. Each is tried with an inbox that would take the answer.
NOT_HERS_TO_SAY = (
    # Another tenant's, and everybody's.
    "t.<v>.cmd.message.send",
    "t.<v>.evt.message.sent",
    "t.*.cmd.message.send",
    "t.>",
    ">",
    # What the platform says of her.
    "t.<m>.evt.message.sent",
    "t.<m>.work.send.x.otp",
    "t.<m>.at.send.x",
    "t.<m>.in.whatsapp",
    "t.<m>.dead.sender",
    "t.<m>.cmd",
    "sys.tick.due",
    "sys.at.due",
    "sys.access.changed",
    # Past the mapping, straight to where it leads.
    "partners.<v>.cmd.message.send",
    "partners.<m>.cmd.message.send",
    "partners.nowhere.<v>.message.sent",
    "partners.info.<v-durable>",
    # JetStream: administration, reading, deleting, others' consumers.
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.UPDATE.COMMANDS",
    "$JS.API.STREAM.PURGE.COMMANDS",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.STREAM.MSG.DELETE.EVENTS",
    "$JS.API.STREAM.SNAPSHOT.EVENTS",
    "$JS.API.DIRECT.GET.EVENTS",
    "$JS.API.DIRECT.GET.EVENTS.t.<v>.evt.message.sent",
    "$JS.API.CONSUMER.LIST.EVENTS",
    "$JS.API.CONSUMER.NAMES.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS.mine.t.<v>.evt.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.<m-durable>",
    "$JS.API.CONSUMER.DELETE.EVENTS.<v-durable>",
    "$JS.API.CONSUMER.PAUSE.EVENTS.<v-durable>",
    "$JS.API.CONSUMER.INFO.EVENTS.<v-durable>",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.<v-durable>",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.herald",
    "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.dispatcher",
    "$JS.API.CONSUMER.UNPIN.EVENTS.<v-durable>",
    "$JS.ACK.EVENTS.<v-durable>.1.1.1.1.0",
    "$JS.ACK.COMMANDS.dispatcher.1.1.1.1.0",
    "$JS.FC.EVENTS.<v-durable>.x",
    # The broker's own.
    "$SYS.REQ.USER.AUTH",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.SERVER.x.KICK",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PARTNERS.SUBSZ",
    "$SRV.PING",
    "_INBOX_<v>.x.y",
    "_INBOX_<v-key>.x.y",
    "_INBOX.x.y",
    "_R_.x",
)


@pytest.mark.parametrize("subject", NOT_HERS_TO_SAY)
async def test_what_is_not_hers_she_can_not_say(scene: Scene, subject: str) -> None:
    before = await scene.kept()
    answers = await scene.mallory.client.subscribe(scene.names("_INBOX_<m-key>.answer"))
    await scene.publish(subject, b'{"filter":"t.<v>.>"}', "_INBOX_<m-key>.answer")
    assert await scene.mallory.complains("permissions violation for publish"), scene.mallory.complaints
    await scene.ends_as_it_was(before)
    assert answers.pending_msgs == 0
    assert heard(scene.to_mallory) == set()


#: What others are told.
NOT_HERS_TO_HEAR = (
    ">",
    "*",
    "*.>",
    "t.>",
    "t.*.evt.>",
    "t.*.evt.message.sent",
    "t.<v>.>",
    "t.<v>.evt.>",
    "t.<v>.evt.message.sent",
    "t.<v>.cmd.>",
    "t.<m>.>",
    "t.<m>.cmd.>",
    "t.<m>.work.>",
    "partners.>",
    "partners.*.cmd.>",
    "sys.>",
    "_INBOX.>",
    "_INBOX_<v>.>",
    "_INBOX_<v-key>.>",
    "_R_.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.ACK.EVENTS.>",
    "$JS.EVENT.ADVISORY.>",
    "$SYS.>",
    "$SYS.REQ.USER.AUTH",
    "$SYS.ACCOUNT.PARTNERS.>",
    "$SRV.>",
)


@pytest.mark.parametrize("queue", ["", "harkara"])
@pytest.mark.parametrize("subject", NOT_HERS_TO_HEAR)
async def test_what_is_not_hers_she_can_not_hear(scene: Scene, subject: str, queue: str) -> None:
    subscription = await scene.mallory.client.subscribe(scene.names(subject), queue)
    assert await scene.mallory.complains("permissions violation for subscription"), scene.mallory.complaints
    await scene.happens(scene.victor, "his alone")
    assert (await scene.victor.told("message.cancel", {}))["status"] == 422
    await scene.mallory.client.flush()
    assert subscription.pending_msgs == 0
    assert heard(scene.to_mallory) == set()


#: What she may say, with an answer that would go where she may not speak.
HERS_TO_SAY = (
    "t.<m>.cmd.message.cancel",
    "t.<m>.cmd.events.open",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.<m-durable>",
    "$JS.API.CONSUMER.INFO.EVENTS.<m-durable>",
)
NOT_HERS_TO_BE_ANSWERED_ON = (
    "t.<v>.evt.message.sent",
    "t.<v>.evt.x",
    "t.<v>.cmd.message.send",
    "t.<v>.cmd.events.close",
    "partners.<v>.cmd.message.send",
    "sys.access.changed",
    "t.<v>.work.send.x.otp",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.<v-durable>",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.herald",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.ACK.EVENTS.<v-durable>.1.1.1.1.0",
    "$SYS.REQ.USER.AUTH",
)


@pytest.mark.parametrize("reply", NOT_HERS_TO_BE_ANSWERED_ON)
@pytest.mark.parametrize("subject", HERS_TO_SAY)
async def test_no_answer_becomes_somebody_elses_message(scene: Scene, subject: str, reply: str) -> None:
    before = await scene.kept()
    await scene.publish(subject, b"{}", reply)
    # Her own next command is answered: so the one before was, wherever that answer went.
    assert (await scene.mallory.told("message.cancel", {}))["status"] == 422
    await scene.ends_as_it_was(before)


#: What would have a stream forget, postpone, overwrite or forge, if it ever saw it.
HEADERS = (
    {"Nats_Schedule": "@at 2026-01-01T00:00:00Z", "Nats_Schedule_Target": "t.<v>.cmd.message.send"},
    {"Nats_Schedule": "@every 1s", "Nats_Schedule_Target": "t.<m>.cmd.message.send"},
    {"Nats_Rollup": "all"},
    {"Nats_Rollup": "sub"},
    {"Nats_Scheduler": "t.<v>.at.enrollment.x", "Nats_Schedule_Next": "purge"},
    {"Nats_Scheduler": "sys.at.due", "Nats_Schedule_Next": "purge"},
    {"Nats_TTL": "1s"},
    {"Nats_Batch_Id": "b", "Nats_Batch_Sequence": "1", "Nats_Batch_Commit": "1"},
    {"Nats_Expected_Stream": "EVENTS"},
    {"Nats_Expected_Last_Sequence": "1"},
    {"Nats_Incr": "1"},
    {"Nats_Marker_Reason": "MaxAge"},
    {"Nats_Request_Info": '{"acc":"PARTNERS","user":"<v>/x","host":"127.0.0.1"}'},
    {"Nats_Request_Info": '{"acc":"APP","user":"svc"}'},
    {"X_By": "somebody", "X_Cause": "x", "X_Msg_Id": "x", "X_Attempt": "8", "X_Subject": "t.<v>.cmd.message.send"},
    {"X_Tenant_ID": "<v>", "X_API_Key": "hk_x", "Authorization": "Bearer x"},
    {"X_Forwarded_For": "10.1.2.3"},
)


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: next(iter(headers)))
async def test_headers_of_a_command_reach_no_stream(scene: Scene, headers: dict[str, str]) -> None:
    sender, before = await scene.mallory.account.sender(), await scene.kept()
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    head = {name.replace("_", "-"): scene.names(value) for name, value in headers.items()}
    answer = await scene.mallory.told("message.send", wanted, head)
    assert answer["status"] == "accepted", answer
    mine = f"COMMANDS t.{scene.mallory.tenant}.cmd.message.send"
    await scene.ends_as_it_was(before | {mine: 1})
    stored = await scene.bus.js.get_last_msg("COMMANDS", mine.partition(" ")[2])
    assert set(stored.headers or {}) <= {"Nats-Msg-Id", "X-Msg-Id", "X-Cause", "X-By"}
    assert not set((stored.headers or {}).values()) & set(head.values())


async def test_nobodys_message_ids_are_in_anybodys_way(scene: Scene) -> None:
    ids = {}
    for partner in (scene.mallory, scene.victor):
        wanted = {"to": a_phone(), "sender_id": await partner.account.sender(), "body": "Hello"}
        for id_ in ("1", f"{scene.victor.tenant}.1"):
            ids[partner.tenant, id_] = (await partner.told("message.send", wanted, {"Nats-Msg-Id": id_}))["id"]
    assert len(set(ids.values())) == 4
    # Nor the id under which the platform stores another's message.
    wanted = {"to": a_phone(), "sender_id": await scene.mallory.account.sender(), "body": "Hello"}
    taken = f"{scene.victor.tenant}.{ids[scene.victor.tenant, '1']}"
    assert (await scene.mallory.told("message.send", wanted, {"Nats-Msg-Id": taken}))["status"] == "accepted"


async def test_a_trace_goes_nowhere_else(scene: Scene) -> None:
    for to in ("t.<v>.evt.message.sent", "sys.access.changed", "_INBOX_<v-key>.x"):
        scene.mallory.complaints.clear()
        await scene.publish("t.<m>.cmd.message.cancel", Nats_Trace_Dest=to)
        assert await scene.mallory.complains("permissions violation for publish")
    await scene.happens(scene.victor, "the end")
    assert heard(scene.to_victor) == {_told("the end")}


async def test_anothers_things_are_not_there(scene: Scene) -> None:
    campaign, contact = await scene.victor.account.campaign(), await scene.victor.account.contact()
    sender = await scene.victor.account.sender()
    attempts = {
        "enrollment.start": {"campaign_id": campaign, "contact_id": contact},
        "enrollment.bulk": {"campaign_id": campaign, "all": True},
        "message.send": {"contact_id": contact, "sender_id": sender, "body": "Hi"},
        "contact.erase": {"contact_id": contact},
        "template.sync": {"sender_id": sender},
    }
    for command, body in attempts.items():
        assert (await scene.mallory.told(command, body))["status"] == 404, command


async def test_a_payload_that_is_too_large_ends_the_connection(scene: Scene) -> None:
    before = await scene.kept()
    with contextlib.suppress(Error):
        await scene.publish("t.<m>.cmd.message.send", b" " * 1_048_577)
    await until(lambda: scene.mallory.lost, "the connection is ended")
    assert await scene.kept() == before


async def test_subscriptions_are_limited(scene: Scene) -> None:
    with contextlib.suppress(Error):
        for number in range(120):
            await scene.mallory.client.subscribe(scene.names(f"t.<m>.evt.x{number}"))
            await scene.mallory.client.flush()
    await until(lambda: scene.mallory.client.is_closed, "the connection is ended")
    assert "maximum subscriptions exceeded" in str(scene.mallory.client.last_error)
    await scene.happens(scene.victor, "the end")


async def test_events_are_fetched_in_reasonable_numbers(scene: Scene) -> None:
    mine = scene.names("$JS.API.CONSUMER.MSG.NEXT.EVENTS.<m-durable>")
    for request in ({"batch": 1_000_000}, {"batch": 1, "expires": 3_600_000_000_000}):
        answer = await scene.mallory.client.request(mine, json.dumps(request).encode(), timeout=30)
        assert answer.headers
        assert answer.headers["Status"] == "409"


async def test_a_tenants_other_keys_are_others_too(scene: Scene, join: Join) -> None:
    """A key without the right to events hears nothing of what the tenant's other keys are answered."""
    account = scene.victor.account
    lesser = await join(account, scopes=["messages:write"])
    for subject in (f"_INBOX_{account.tenant}.>", f"_INBOX_{scene.victor.key_id}.>", f"t.{account.tenant}.evt.>"):
        lesser.complaints.clear()
        await lesser.client.subscribe(subject)
        assert await lesser.complains("permissions violation for subscription"), subject
    other = await join(account)
    for subject in (
        f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{scene.victor.durable}",
        f"$JS.ACK.EVENTS.{scene.victor.durable}.1.1.1.1.0",
    ):
        for partner in (lesser, other):
            partner.complaints.clear()
            await partner.client.publish(subject, b"{}")
            assert await partner.complains("permissions violation for publish"), subject


async def test_while_she_floods_others_are_served(scene: Scene) -> None:
    sender = await scene.victor.account.sender()
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    for _ in range(3):
        with contextlib.suppress(Error):  # it may cost her the connection
            for _ in range(1_000):
                await scene.mallory.client.publish(scene.names("t.<m>.cmd.message.cancel"), b"{}")
        assert (await scene.victor.told("message.send", wanted))["status"] == "accepted"
