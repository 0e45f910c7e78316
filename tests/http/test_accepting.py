"""`Prefer: wait`: the outcome of a command for whoever wants to wait for it, and 202 in time for all others."""

from __future__ import annotations

import asyncio
import time

import pytest
from door_client import Account, Answer
from nats.js.errors import NotFoundError
from support import until

from harkara.bus.connection import Bus
from harkara.bus.messages import Outgoing
from harkara.http.accepting import LONGEST_WAIT_S, preferred_wait
from harkara.schemas.base import Message
from harkara.schemas.events import EnrollmentRefused, EnrollmentStarted, MessageQueued, MessageSent


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ("wait=7;foo=bar", 7),
        ("wait=99", LONGEST_WAIT_S),
        ("wait=0", 0),
        ("await=5", 0),
        ("wait=soon", 0),
        ("wait=99999999999", 0),
        ("", 0),
    ],
)
def test_a_preference_is_read_as_it_is_meant(header: str, seconds: int) -> None:
    assert preferred_wait({"Prefer": header}) == seconds


async def newest(bus: Bus, subject: str) -> str | None:
    """The id of the newest command on a subject, once there is one."""
    try:
        stored = await bus.js.get_last_msg("COMMANDS", subject)
    except NotFoundError:
        return None
    return str((stored.headers or {})["X-Msg-Id"])


async def waits(
    acme: Account, bus: Bus, path: str, command: str, *events: Message, **more: object
) -> tuple[Answer, str]:
    """A call that prefers to wait; the events about its command are published as soon as it lies in the stream."""
    asking = asyncio.create_task(acme.call("POST", path, headers={"Prefer": "wait=30"}, **more))
    id_ = await until(lambda: newest(bus, f"t.{acme.tenant}.cmd.{command}"), "the command is stored")
    for number, event in enumerate(events):
        await bus.publisher.publish(
            Outgoing(event.__class__(**_about(event, str(id_))), acme.tenant, f"{id_}.{number}")
        )
    return await asking, str(id_)


def _about(event: Message, id_: str) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__} | {"id": id_}


async def test_whoever_prefers_to_wait_is_told_the_outcome(acme: Account, live_bus: Bus) -> None:
    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"}
    events = MessageQueued(id=""), MessageSent(id="", wamid="wamid.7")
    answer, id_ = await waits(acme, live_bus, "/messages", "message.send", *events, body=body)
    assert answer.status == 200, answer.text
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert answer.headers["Location"] == f"/api/v1/messages/{id_}"
    assert (answer.body["id"], answer.body["status"], answer.body["data"]["wamid"]) == (id_, "sent", "wamid.7")


@pytest.mark.parametrize(("kind", "status"), [(EnrollmentStarted, "started"), (EnrollmentRefused, "refused")])
async def test_an_enrolments_outcome_may_be_a_refusal(
    acme: Account, live_bus: Bus, kind: type[EnrollmentStarted | EnrollmentRefused], status: str
) -> None:
    campaign, contact = await acme.campaign(), await acme.contact()
    event = kind(id="", campaign_id=campaign, contact_id=contact, reason=None)
    path = f"/contacts/{contact}/campaign/{campaign}/enroll"
    answer, id_ = await waits(acme, live_bus, path, "enrollment.start", event)
    assert (answer.status, answer.body["id"], answer.body["status"]) == (200, id_, status)


async def test_an_outcome_that_does_not_come_in_time_is_202(acme: Account) -> None:
    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"}
    begin = time.monotonic()
    answer = await acme.call("POST", "/messages", body=body, headers={"Prefer": "wait=1"})
    assert (answer.status, answer.body["status"]) == (202, "accepted")
    assert 0.9 < time.monotonic() - begin < LONGEST_WAIT_S
    assert "Preference-Applied" not in answer.headers


async def test_another_tenants_event_is_no_outcome(acme: Account, other: Account, live_bus: Bus) -> None:
    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"}
    asking = asyncio.create_task(acme.call("POST", "/messages", body=body, headers={"Prefer": "wait=1"}))
    id_ = await until(lambda: newest(live_bus, f"t.{acme.tenant}.cmd.message.send"), "the command is stored")
    await live_bus.publisher.publish(Outgoing(MessageSent(id=str(id_)), other.tenant, f"{id_}.x"))
    assert (await asking).status == 202
