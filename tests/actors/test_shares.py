"""No tenant keeps the others waiting while much of its own is read."""

from __future__ import annotations

from typing import Any

import pytest
from enrolled import enrolled
from heard import PHONE, Quiet, World, said
from support import NewTenant

from harkara.actors.receipts import Receipts
from harkara.actors.shares import Shares
from harkara.bus.outcomes import Done, Retry
from harkara.gateway.parts import MOST, SAID
from harkara.storage.storage import Storage

PART = MOST


def waits(shares: Shares, *webhooks: tuple[str, int], now: float = 0.0) -> dict[int, float]:
    """By place how long each of (tenant, weight) waits that does."""
    later = shares.put_off(webhooks, now)
    return {place: one.after.total_seconds() for place, one in later.items() if one.after is not None}


def test_a_tenants_share_of_a_batch_is_a_part_and_what_is_said_alone() -> None:
    crowd, alone = ("a", PART), ("a", SAID)
    assert list(waits(Shares(), crowd, alone, crowd, ("b", PART), ("b", SAID), crowd)) == [2, 5]
    assert not waits(Shares(), *[alone] * 100)
    assert not waits(Shares(), *[("a", PART // 10)] * 10)
    assert not waits(Shares(), ("a", 100 * PART))


def test_what_is_put_off_comes_back_one_after_the_other_as_fast_as_it_can_be_read() -> None:
    shares = Shares()
    shares.took(PART, 2.0)
    assert waits(shares, *[("a", PART)] * 4) == {1: 2.0, 2: 4.0, 3: 6.0}
    assert waits(shares, *[("a", PART)] * 2, *[("b", PART)] * 2, now=1.0) == {1: 7.0, 3: 2.0}
    assert waits(shares, *[("a", PART)] * 2, now=100.0) == {1: 2.0}
    shares.took(SAID, 60.0)  # one that waited for something says nothing of the others
    assert waits(shares, *[("b", PART)] * 2, now=200.0) == {1: 2.0}


@pytest.fixture
async def worlds(storage: Storage, new_tenant: NewTenant) -> list[World]:
    return [World(storage, await enrolled(storage, await new_tenant())) for _ in range(2)]


def line(text: str, phone: str = PHONE) -> dict[str, Any]:
    return said(phone=phone, type="text", text={"body": text})


def crowd(first: int, many: int = PART // SAID) -> dict[str, Any]:
    value = line("hi")
    value["messages"] = [line("hi", phone=f"+9166{n:08}")["messages"][0] for n in range(first, first + many)]
    return value


async def test_a_word_of_another_tenant_is_heard_with_the_first_part_of_a_crowd(worlds: list[World]) -> None:
    one, other = worlds
    batch = [one.delivery(crowd(100 * n)) for n in range(4)] + [other.delivery(line("STOP")), one.delivery(line("hi"))]
    quiet: Any = Quiet()
    receipts = Receipts(one.storage, quiet)
    done = await receipts.handle(batch)
    assert [type(outcome) for outcome in done] == [Done, Retry, Retry, Retry, Done, Done]
    assert all(isinstance(one, Retry) and one.park and not one.counts and one.after for one in done[1:4])
    assert (await other.contact()).opted_out_at
    assert len(await one.replies()) == PART // SAID + 1
    for place in range(1, 4):  # each comes back alone, and all goes on where it ended
        assert isinstance((await receipts.handle([batch[place]]))[0], Done)
        assert len(await one.replies()) == (place + 1) * PART // SAID + 1


async def test_what_was_put_off_waits_also_if_the_rest_of_its_batch_fails(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure each delivery is handed over alone; a crowd would then be read without a break."""
    one, other = worlds
    batch = [one.delivery(crowd(100 * n), seq=n) for n in range(3)] + [other.delivery(line("STOP"), seq=9)]
    quiet: Any = Quiet()
    receipts = Receipts(one.storage, quiet)

    async def fails(*_: Any) -> None:
        raise ValueError("poisoned")

    with monkeypatch.context() as broken:
        broken.setattr("harkara.actors.receipts.hear", fails)
        with pytest.raises(ValueError, match="poisoned"):
            await receipts.handle(batch)
    alone = [(await receipts.handle([delivery]))[0] for delivery in batch]
    assert [type(outcome) for outcome in alone] == [Done, Retry, Retry, Done]
    assert isinstance((await receipts.handle([batch[1]]))[0], Done)
