"""Statuses move forward only, whatever order they come in."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import uuid4

import pytest

from harkara.actors.receipts import further, merge
from harkara.gateway.told import StatusUpdate
from harkara.storage.receiving import Receipt

AT = datetime(2026, 3, 1, tzinfo=UTC)
ID = uuid4()


def status(name: str, second: int) -> StatusUpdate:
    failed = name == "failed"
    return StatusUpdate(
        "wamid.1",
        name,
        AT + timedelta(seconds=second),
        str(ID),
        131026 if failed else None,
        "gone" if failed else None,
        None,
    )


def merged(statuses: tuple[StatusUpdate, ...]) -> Receipt:
    receipt = None
    for one in statuses:
        receipt = merge(receipt, ID, "shop", one)
    assert receipt is not None
    return receipt


def test_any_order_of_webhooks_says_the_same() -> None:
    found = {merged(order) for order in permutations((status("sent", 1), status("delivered", 2), status("read", 3)))}
    assert len(found) == 1
    receipt = found.pop()
    assert receipt.status == "read"
    assert (receipt.sent_at, receipt.delivered_at, receipt.read_at) == tuple(
        AT + timedelta(seconds=second) for second in (1, 2, 3)
    )


def test_the_first_time_of_a_repeated_status_stays() -> None:
    receipt = merged((status("sent", 1), status("sent", 9)))
    assert receipt.sent_at == AT + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("one", "other", "result"),
    [
        ("sent", "delivered", "delivered"),
        ("read", "delivered", "read"),
        ("failed", "sent", "failed"),
        ("failed", "delivered", "delivered"),
        ("failed", "failed", "failed"),
    ],
)
def test_the_later_status_wins(one: str, other: str, result: str) -> None:
    assert further(one, other) == further(other, one) == result
