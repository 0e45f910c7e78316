"""What `harkara ops status` calls trouble."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from harkara.bus.errors import Unavailable
from harkara.bus.overview import ConsumerState, StreamState
from harkara.bus.parked import Parked
from harkara.ops.commands import show_status
from harkara.ops.status import Idle, status, trouble_of
from harkara.settings import load
from harkara.storage.pausing import AtRest, Stopped


def reader(name: str, stream: str = "EVENTS", oldest_s: float | None = 90) -> ConsumerState:
    return ConsumerState(stream=stream, name=name, pending=6, in_hand=0, redelivered=0, oldest_s=oldest_s)


def test_who_is_behind_is_trouble_and_a_partner_who_is_away_is_not() -> None:
    found = trouble_of([], [], [reader("receipts"), reader("partner-1"), reader("media", oldest_s=50)], 60, None)
    assert found == ["receipts on EVENTS is 90 s behind with 6 messages"]


def test_a_broker_that_lacks_copies_is_trouble_once_however_many_it_lacks() -> None:
    held = [StreamState(name=name, behind=("n2",)) for name in ("COMMANDS", "WORK")] + [StreamState(name="DEAD")]
    [found] = trouble_of([], held, [], 60, None)
    assert found.startswith("the broker n2 has no complete copy of COMMANDS, WORK: ")


@pytest.mark.parametrize(
    ("unserved_s", "readers", "troubled"),
    [
        (None, [], False),
        (59, [], False),
        (61, [], True),
        (61, [reader("send-t-1-marketing", "SEND", 61)], True),
        (61, [reader("send-t-1-marketing", "SEND", None)], False),
    ],
)
def test_messages_that_nobody_serves_are_trouble(
    unserved_s: float | None, readers: list[ConsumerState], troubled: bool
) -> None:
    assert bool(trouble_of([], [], readers, 60, unserved_s)) is troubled


def put_off(failed: int, age_s: float = 90, overdue_s: float = 0) -> Parked:
    due = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Parked(
        actor="receipts",
        tenant="acme",
        failed=failed,
        reason="RuntimeError",
        age_s=age_s,
        due_at=due,
        overdue_s=overdue_s,
    )


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (put_off(0), None),
        (put_off(4, age_s=50), None),
        (
            put_off(4),
            "failed 4 times at a message of acme that came 90 s ago, and tries again at 03:04:05: RuntimeError",
        ),
        (put_off(0, overdue_s=61), "should have come back 61 s ago"),
        (put_off(0, overdue_s=59), None),
    ],
)
def test_what_fails_again_and_again_or_does_not_come_back_is_trouble(one: Parked, said: str | None) -> None:
    found = trouble_of([], [], [], 60, None, [one])
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_tenants_that_an_operator_has_paused_or_has_begun_to_erase_are_trouble() -> None:
    found = trouble_of([], [], [], 60, None, [], [AtRest("acme", "unpaid", False), AtRest("gone", "", True)])
    assert found == [
        "the tenant acme is paused (unpaid): `harkara ops resume tenant acme`",
        "the erasing of gone has not ended: run `harkara ops erase tenant gone` again",
    ]


def test_numbers_that_whatsapp_or_an_operator_has_stopped_are_trouble_and_those_of_their_own_tenants_are_not() -> None:
    refused, own = (
        Stopped("number", UUID(int=1), "acme", "Shop", "the access token is refused"),
        Stopped("number", UUID(int=2), "acme", "", ""),
    )
    campaign = Stopped("campaign", UUID(int=3), "acme", "Spring", "paused by the operator: complaints")
    assert trouble_of([], [], [], 60, None, still=[campaign, refused, own]) == [
        "the campaign Spring of acme is paused (paused by the operator: complaints):"
        f" `harkara ops resume campaign {UUID(int=3)}`",
        "the number Shop of acme is stopped (the access token is refused): see to that, then"
        f" `harkara ops resume sender {UUID(int=1)}`",
    ]


async def test_what_nobody_could_be_asked_is_unknown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.ops.status.PATIENCE_S", 60.0)  # a busy machine may take a while to refuse us
    nowhere = "http://127.0.0.1:1"
    settings = load({"WHATSAPP_GATEWAY_URL": nowhere, "PUBLIC_URL": nowhere, "REDIS_URL": "redis://127.0.0.1:1"})
    found = await status(settings, Unavailable("no NATS server answers: start one, or set NATS_URL"), 60)
    assert sorted(found.unknown) == ["consumers", "idle", "parked", "resting", "stopped", "streams"]
    said = {one.name: one.said for one in found.servers}
    assert said["broker"] == "broker does not answer: no NATS server answers: start one, or set NATS_URL"
    assert said["database"].startswith("database was not asked: DATABASE_URL: is missing, and no `harkara up` runs")
    assert said["redis"].endswith(
        ": check REDIS_URL, and that it runs; budgets are kept by each process alone meanwhile"
    )
    assert said["gateway"].startswith("gateway does not answer: Connection refused: check WHATSAPP_GATEWAY_URL")
    show_status(found)
    out = capsys.readouterr().out
    assert "nobody is behind" not in out
    assert "who is behind is not known" in out
    assert "whether tenants are paused, or numbers stopped, is not known" in out


async def test_a_setting_that_is_wrong_is_named() -> None:
    settings = load({"DATABASE_URL": "here", "REDIS_URL": "there"})
    found = await status(settings, Unavailable("away"), 60)
    said = {one.name: one.said for one in found.servers}
    assert said["database"].startswith("database was not asked: DATABASE_URL must look like ")
    assert said["redis"].startswith("redis was not asked: REDIS_URL: ")


@pytest.mark.parametrize(
    ("rests_s", "messages", "begins"), [(None, 2, "2 messages wait for "), (61, 0, "the number "), (60, 2, None)]
)
def test_numbers_that_can_not_send_are_trouble_unless_they_soon_go_on_by_themselves(
    rests_s: float | None, messages: int, begins: str | None
) -> None:
    one = Idle(
        id=UUID(int=1), tenant="acme", name="Shop", messages=messages, why="it rests", todo="wait", rests_s=rests_s
    )
    found = trouble_of([], [], [], 60, None, idle=[one])
    assert found == ([] if begins is None else [f"{begins}Shop of acme: it rests: wait"])
