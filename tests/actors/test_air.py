"""Numbers whose gateway does not answer leave the connections that others need."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from enrolled import enrolled
from redis.asyncio import Redis
from support import NewTenant, until

from harkara.actors import budget
from harkara.actors.air import CONNECTIONS, FEW, Air
from harkara.actors.budget import Budgets
from harkara.actors.numbers import Number
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery
from harkara.gateway.protocol import Accepted, Credentials
from harkara.storage.storage import Storage

FAST = 10_000.0


def fill(air: Air, number: str) -> int:
    """How many requests a number may make one after the other, none of which is answered."""
    count = 0
    while air.room(number) > 0:
        air.took_off(number)
        count += 1
    return count


def test_one_has_a_third_and_several_leave_room_for_more() -> None:
    air = Air()
    taken = [fill(air, number) for number in ("a", "b", "c", "d")]
    assert taken[0] == pytest.approx(CONNECTIONS / 3, abs=1)
    assert taken == sorted(taken, reverse=True)
    left = CONNECTIONS - sum(taken)
    assert left > CONNECTIONS / 6
    assert air.room("e") == left // 2


def test_however_many_hang_each_may_have_a_few() -> None:
    air = Air(100)
    assert all(fill(air, str(number)) >= FEW for number in range(50))


def test_what_has_landed_is_room_again_and_nothing_is_kept_of_who_has_none_in_the_air() -> None:
    air, called = Air(100), list[str]()
    assert fill(air, "a") == fill(Air(100), "a")
    air.wait("a", lambda: called.append("a"))
    air.landed("a")
    assert air.room("a") > 0
    assert called == ["a"]
    while air._of:
        air.landed("a")
    assert fill(air, "a") == fill(Air(100), "a")
    assert called == ["a"], "told once"


async def test_a_number_that_has_all_it_may_have_in_the_air_waits_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "PATIENCE_S", 60)
    client, air = Redis.from_url(redis_url), Air(40)
    budgets, hanging, other = Budgets(client, air=air), uuid.uuid4().hex, uuid.uuid4().hex
    fill(air, hanging)
    waiting = asyncio.ensure_future(budgets.acquire(hanging, FAST, "otp"))
    for _ in range(3):
        await asyncio.wait_for(budgets.acquire(other, FAST, "otp"), 30)
    assert not waiting.done()
    air.landed(hanging)
    await until(waiting.done, "its turn comes when one of its requests has landed")
    await budgets.close()
    await client.aclose()


class World:
    """A number with room, and a gateway that answers or breaks; `seen` is what is asked while it is asked."""

    def __init__(self, air: Air, *, breaks: bool) -> None:
        self.air, self.breaks, self.seen = air, breaks, list[int]()

    async def get(self, tenant: str, sender_id: str) -> Number:
        return Number(Credentials(sender_id=sender_id, phone_number_id="1", access_token="t"), 80)

    async def acquire(self, *_: Any) -> None:
        pass

    async def away(self, *_: Any) -> None:
        pass

    async def send(self, credentials: Credentials, *_: Any, **__: Any) -> Accepted:
        self.seen.append(self.air.room(credentials.sender_id))
        if self.breaks:
            raise ZeroDivisionError
        return Accepted("wamid.1")


@pytest.mark.parametrize("breaks", [False, True])
async def test_the_sender_says_what_leaves_and_what_has_landed(
    storage: Storage, new_tenant: NewTenant, breaks: bool
) -> None:
    one, air = await enrolled(storage, await new_tenant()), Air()
    world: Any = World(air, breaks=breaks)
    actor = Sender(storage, world, world, world, lambda: None, air=air)
    delivery = Delivery(one.work(), one.tenant, "id", "cause", 1, "subject", "SEND", 1, datetime.now(UTC), 1)
    if breaks:
        with pytest.raises(ZeroDivisionError):
            await actor.handle([delivery])
    else:
        await actor.handle([delivery])
    assert world.seen == [(CONNECTIONS - 1) // 2 - 1]
    assert air.room(str(one.sender)) == CONNECTIONS // 2
