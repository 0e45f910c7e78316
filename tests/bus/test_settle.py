"""What each outcome means, without any broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from bus.actors import Begun, begin

from harkara.bus import headers
from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.intake import Raw, attempt_of, original_subject, stored_at, without_content
from harkara.bus.messages import Ack, Outgoing, Packet
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.bus.settle import Acked, Nacked, Settler, Verdict, in_one_line

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Store:
    """Takes packets, or answers with the errors it was given."""

    def __init__(self, *errors: Exception | None) -> None:
        self.packets: list[Packet] = []
        self.errors = list(errors)

    async def send(self, packets: Sequence[Packet]) -> list[object]:
        self.packets.extend(packets)
        answers: list[object] = []
        for _ in packets:
            error = self.errors.pop(0) if self.errors else None
            answers.append(error or Ack("S", 1, False))
        return answers


def raw(subject: str = "t.acme.cmd.enrollment.start", deliveries: int = 1, **named: str) -> Raw:
    packet = begin(1).packet()
    extra = {key.replace("_", "-"): value for key, value in named.items()}
    return Raw(subject, {**packet.headers, **extra}, packet.body, "COMMANDS", 7, deliveries, int(NOW.timestamp() * 1e9))


async def settled(store: Store, outcome: Outcome, one: Raw | None = None) -> Verdict:
    settler = Settler("enrollment", Schedule.seconds(1, 3600), store.send, lambda: NOW)  # type: ignore[arg-type]
    (verdict,) = await settler.settle([(one or raw(), outcome)])
    return verdict


async def test_the_first_retry_is_a_short_nak_with_jitter() -> None:
    waits = [await settled(Store(), Retry("no")) for _ in range(50)]
    assert all(isinstance(one, Nacked) and 0.8 <= one.after.total_seconds() <= 1.2 for one in waits)
    assert len({one.after for one in waits if isinstance(one, Nacked)}) > 10


async def test_the_second_is_parked_under_a_subject_of_its_own() -> None:
    store = Store()
    second = raw(deliveries=2)
    second.failures = 1
    assert await settled(store, Retry("no"), second) == Acked(parked=True)
    (packet,) = store.packets
    assert packet.subject == "t.acme.at.enrollment.b-1.COMMANDS-7"
    assert packet.headers[headers.SCHEDULE_TARGET] == "t.acme.work.enrollment.retry"
    assert packet.headers[headers.ATTEMPT] == "2"
    assert packet.headers[headers.REASON] == "no"
    assert packet.headers[headers.SUBJECT] == "t.acme.cmd.enrollment.start"
    until = datetime.fromisoformat(packet.headers[headers.SCHEDULE].removeprefix("@at "))
    assert 0.8 * HOUR <= until - NOW <= 1.2 * HOUR


@pytest.mark.parametrize(
    ("subject", "slot", "target"),
    [
        ("t.acme.work.send.s-1.otp", "t.acme.at.send.b-1.COMMANDS-7", "t.acme.work.send.s-1.otp"),
        ("t.acme.in.whatsapp", "t.acme.at.enrollment.b-1.COMMANDS-7", "t.acme.work.enrollment.retry"),
        ("sys.tick.due", "sys.at.enrollment-COMMANDS-7", "sys.tick.due"),
    ],
)
async def test_the_schedule_lies_where_its_target_lies(subject: str, slot: str, target: str) -> None:
    store = Store()
    await settled(store, Retry("later", HOUR), raw(subject))
    assert (store.packets[0].subject, store.packets[0].headers[headers.SCHEDULE_TARGET]) == (slot, target)


@pytest.mark.parametrize("failures", [0, 2])
async def test_waiting_becomes_a_schedule_that_knows_what_failed_and_why_it_waits(failures: int) -> None:
    """However often others made it wait, or gave it back: it comes no nearer to hours of waiting, or to its end."""
    wait = Retry("its\ntime", timedelta(seconds=1), counts=False)
    assert await settled(Store(), wait, raw(deliveries=3)) == Nacked(timedelta(seconds=1), uncounted=True)
    store = Store()
    parked = raw("t.acme.work.enrollment.page", deliveries=9, X_Attempt="2")
    parked.failures = failures
    assert await settled(store, wait, parked) == Acked(parked=True)
    assert store.packets[0].headers[headers.ATTEMPT] == str(2 + failures)
    assert store.packets[0].headers[headers.REASON] == "its time"


async def test_what_waited_elsewhere_for_long_fails_for_the_first_time() -> None:
    verdict = await settled(Store(), Retry("no"), raw(deliveries=9))
    assert isinstance(verdict, Nacked)
    assert verdict.after.total_seconds() <= 1.2


async def test_a_wait_in_the_past_is_none() -> None:
    assert await settled(Store(), Retry("now", -HOUR)) == Nacked(timedelta())


@pytest.mark.parametrize("error", [Unavailable("away"), Full("full")])
async def test_what_cannot_be_stored_now_is_not_acked(error: Exception) -> None:
    event = Outgoing(Begun(number=1), "acme", "e")
    for outcome in (Done((event, event)), Drop("no"), Retry("later", HOUR)):
        verdict = await settled(Store(error), outcome)
        assert isinstance(verdict, Nacked)
        assert verdict.uncounted


async def test_what_can_never_be_stored_sends_the_message_to_the_dead() -> None:
    store = Store(Refused("too large"))
    assert await settled(store, Done((Outgoing(Begun(number=1), "acme", "e"),))) == Acked(dead=True)
    assert store.packets[-1].subject == "t.acme.dead.enrollment"
    assert "too large" in store.packets[-1].headers[headers.REASON]


async def test_a_letter_that_cannot_be_stored_either_keeps_its_message() -> None:
    verdict = await settled(Store(Refused("no"), Refused("no")), Drop("no"))
    assert isinstance(verdict, Nacked)
    assert verdict.uncounted


async def test_what_cannot_be_stored_for_long_is_parked_with_its_true_count() -> None:
    store = Store(Full("full"))
    event = Outgoing(Begun(number=1), "acme", "e")
    one = raw(deliveries=4)
    assert await settled(store, Done((event,)), one) == Acked(parked=True, away=True)
    assert store.packets[-1].headers[headers.ATTEMPT] == "0"
    assert headers.SCHEDULE in store.packets[-1].headers


async def test_an_event_without_a_subject_is_a_failed_attempt() -> None:
    bad = Outgoing(Begun(number=1), "a.b", "e")
    assert isinstance(await settled(Store(), Done((bad,))), Nacked)
    store, third = Store(), raw(deliveries=3)
    third.failures = 2
    assert await settled(store, Done((bad,)), third) == Acked(dead=True)
    assert "an event has no subject" in store.packets[0].headers[headers.REASON]


async def test_the_dead_of_the_system_have_no_tenant() -> None:
    store = Store()
    await settled(store, Drop("no"), raw("sys.tick.due"))
    assert store.packets[0].subject == "sys.dead.enrollment"


async def test_the_brokers_own_headers_do_not_follow_a_message() -> None:
    store = Store()
    one = raw(Nats_Rollup="all", Nats_Scheduler="x", traceparent="00-1")
    await settled(store, Drop("no"), one)
    named = store.packets[0].headers
    assert named["traceparent"] == "00-1"
    assert [key for key in named if key.startswith("Nats-")] == ["Nats-Msg-Id"]


def test_only_internal_subjects_are_believed() -> None:
    other, long_ago = "t.acme.cmd.other.thing", "1999-01-01T00:00:00+00:00"
    outside = raw(X_Attempt="9", X_Subject=other, X_At=long_ago)
    inside = raw("t.acme.work.enrollment.retry", X_Attempt="9", X_Subject=other, X_At=long_ago)
    assert (attempt_of(outside), original_subject(outside), stored_at(outside)) == (1, outside.subject, NOW)
    assert (attempt_of(inside), original_subject(inside)) == (10, other)
    assert stored_at(inside).year == 1999
    stranger = raw("t.acme.work.enrollment.retry", X_Subject="t.bravo.cmd.other.thing", X_Attempt="-1", X_At="soon")
    assert (original_subject(stranger), attempt_of(stranger), stored_at(stranger)) == (stranger.subject, 1, NOW)


def test_reasons_are_one_short_line_without_content() -> None:
    assert in_one_line("a\r\nb  c") == "a b c"
    assert len(in_one_line("x" * 9999)) == 400
    assert without_content('Invalid enum value "it\'s me" - at `$.a`') == "Invalid enum value … - at `$.a`"
