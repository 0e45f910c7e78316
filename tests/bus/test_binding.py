"""Every line that is written while a message is handled says which one, without the handler's doing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from bus.actors import Clerk
from loguru import logger

from harkara import log
from harkara.batching import Batcher
from harkara.bus import headers
from harkara.bus.handling import Handling
from harkara.bus.intake import Raw
from harkara.bus.messages import Ack, Delivery, Packet
from harkara.bus.outcomes import Done, Drop, Outcome


@contextmanager
def written(as_json: bool = True) -> Iterator[io.StringIO]:
    """What is logged inside the block."""
    lines = io.StringIO()
    sink = logger.add(lines, level="TRACE", format=log.line if as_json else log.text, diagnose=False, backtrace=False)
    try:
        yield lines
    finally:
        logger.remove(sink)


def a_raw(number: int, tenant: str = "acme", attempts: int = 1) -> Raw:
    named = {headers.ID: f"m-{number}", headers.CAUSE: f"c-{number}"}
    body = json.dumps({"number": number}).encode()
    subject, stream = f"t.{tenant}.cmd.enrollment.start", "COMMANDS"
    if attempts > 1:  # it was parked
        named |= {headers.ATTEMPT: str(attempts - 1), headers.SUBJECT: subject}
        subject, stream = f"t.{tenant}.work.enrollment.retry", "WORK"
    return Raw(subject, named, body, stream, number, 1, int(datetime.now(UTC).timestamp() * 1e9))


async def stored(packets: Sequence[Packet]) -> list[Any]:
    return [Ack("S", 1, duplicate=False) for _ in packets]


async def lines_of(batch: Sequence[Raw], answer: Any) -> list[dict[str, Any]]:
    with written() as lines:
        await Handling(Clerk(answer), stored, lambda: datetime.now(UTC)).work(batch)
    return [json.loads(one) for one in lines.getvalue().splitlines()]


def saying(delivery: Delivery[Any]) -> Outcome:
    logger.info("at work")
    return Done()


def failing(delivery: Delivery[Any]) -> Outcome:
    raise RuntimeError("+919876543210")


WHOLE = {"actor": "enrollment", "tenant": "acme", "cause": "c-1", "message_id": "m-1", "attempt": 2}


async def test_a_handlers_own_line_is_about_its_message() -> None:
    [line] = await lines_of([a_raw(1, attempts=2)], saying)
    assert line["message"] == "at work"
    assert line.items() >= WHOLE.items()


@pytest.mark.parametrize("answer", [failing, lambda _: Drop("not possible")], ids=["raises", "drops"])
async def test_what_the_bus_says_of_it_is_too(answer: Any) -> None:
    [line] = await lines_of([a_raw(1, attempts=2)], answer)
    assert line.items() >= WHOLE.items()
    assert "+919876543210" not in str(line)


async def test_of_several_only_what_they_share_is_told() -> None:
    one, *_ = await lines_of([a_raw(1), a_raw(2)], saying)
    assert (one["tenant"], one["deliveries"]) == ("acme", 2)
    two, *_ = await lines_of([a_raw(1), a_raw(2, "globex")], saying)
    assert "tenant" not in two
    assert "message_id" not in two


async def test_nothing_is_bound_afterwards() -> None:
    await lines_of([a_raw(1)], saying)
    assert log.about.get() is None


async def test_a_shared_batch_is_nobodys() -> None:
    async def run(items: Sequence[int]) -> list[int]:
        logger.info("together")
        return list(items)

    batcher: Batcher[int, int] = Batcher(run)
    before = log.about.set(lambda: {"message_id": "m-1"})
    try:
        with written() as lines:
            await batcher(1)
            logger.info("alone")
    finally:
        log.about.reset(before)
    said = {one["message"]: one for one in map(json.loads, lines.getvalue().splitlines())}
    assert "message_id" not in said["together"]
    assert said["alone"]["message_id"] == "m-1"


def test_people_are_told_it_at_the_end_of_the_line() -> None:
    before = log.about.set(lambda: {"tenant": "acme", "attempt": 2})
    try:
        with written(as_json=False) as lines:
            logger.bind(number="{n}").warning("so it is")
    finally:
        log.about.reset(before)
    assert lines.getvalue().endswith("so it is tenant=acme attempt=2 number={n}\n")
