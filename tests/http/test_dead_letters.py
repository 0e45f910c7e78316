"""Dead letters over HTTP: a tenant sees and repairs its own."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from door_client import Account, dead_letter

from harkara.bus.dead import DeadLetter
from harkara.bus.messages import Ack
from harkara.ids import uuid7


async def test_what_was_given_up_is_shown_but_no_code(acme: Account, other: Account) -> None:
    id_ = await dead_letter(acme)
    (letter,) = (await acme.get("/dead-letters"))["items"]
    assert (letter["id"], letter["actor"], letter["attempts"]) == (str(id_), "enrollment", 8)
    assert letter["reason"] == "gave up after 8 attempts"
    assert letter["body"] == {"lane": "otp", "body": "***"}
    assert (await other.get("/dead-letters"))["items"] == []


async def test_the_list_goes_page_by_page_and_by_actor(acme: Account) -> None:
    ids = [str(await dead_letter(acme, actor)) for actor in ("enrollment", "dispatcher", "enrollment")]
    first = await acme.get("/dead-letters?limit=2")
    rest = await acme.get(f"/dead-letters?limit=2&cursor={first['next']}")
    assert [one["id"] for one in first["items"] + rest["items"]] == ids
    assert rest["next"] is None
    of_one = await acme.get("/dead-letters?actor=dispatcher")
    assert [one["id"] for one in of_one["items"]] == ids[1:2]


async def test_one_that_is_tried_again_goes_to_who_gave_it_up_and_is_gone(acme: Account) -> None:
    id_ = await dead_letter(acme, "dispatcher", "cmd.message.send")
    bus = acme.api.door.bus
    assert bus is not None
    (letter,) = [one async for one in bus.dead.find(acme.tenant)]
    alive = letter.alive()
    assert alive.subject == f"t.{acme.tenant}.work.dispatcher.retry"
    assert alive.headers["X-Msg-Id"] == letter.message_id
    assert "X-Attempt" not in alive.headers, "it has all its attempts before it"
    assert (await acme.post(f"/dead-letters/{id_}/replay", status=202))["id"] == str(id_)
    assert (await acme.get("/dead-letters"))["items"] == []
    await bus.dead.replay(letter)
    (stored,) = await bus.publisher.send([alive])
    assert isinstance(stored, Ack)
    assert stored.duplicate, "done twice it is done once"
    (await acme.call("POST", f"/dead-letters/{id_}/replay")).is_problem(404)
    (entry,) = (await acme.get("/audit?entity=dead_letter"))["items"]
    assert (entry["action"], entry["entity_id"]) == ("replay", str(id_))


async def test_one_that_is_forgotten_is_gone_and_that_is_noted(acme: Account) -> None:
    id_ = await dead_letter(acme)
    assert (await acme.call("DELETE", f"/dead-letters/{id_}")).status == 204
    (await acme.call("DELETE", f"/dead-letters/{id_}")).is_problem(404)
    (entry,) = (await acme.get("/audit?entity=dead_letter"))["items"]
    assert entry["action"] == "delete"
    assert entry["changes"]["after"]["reason"] == "gave up after 8 attempts"


@pytest.mark.parametrize("how", ["another's", "of another time", "of nothing"])
async def test_an_id_leads_to_a_letter_only_if_it_is_the_letters_and_ones_own(
    acme: Account, other: Account, how: str
) -> None:
    id_ = await dead_letter(other)
    wrong = {"another's": id_, "of another time": UUID(int=id_.int ^ 1 << 80), "of nothing": uuid7()}[how]
    (await acme.call("DELETE", f"/dead-letters/{wrong}")).is_problem(404)
    if wrong != id_:
        (await other.call("DELETE", f"/dead-letters/{wrong}")).is_problem(404)
    assert len((await other.get("/dead-letters"))["items"]) == 1


def test_work_goes_back_to_where_it_lay() -> None:
    told = {"X-Subject": "t.acme.work.send.s1.utility", "X-Actor": "send", "X-Msg-Id": "m", "Nats-Msg-Id": "dead.1"}
    letter = DeadLetter(7, datetime.now(UTC), "t.acme.dead.send", b"{}", told)
    assert letter.alive().subject == "t.acme.work.send.s1.utility"
    assert letter.alive().headers == {"X-Msg-Id": "m", "Nats-Msg-Id": f"acme.replay.{letter.id}"}
