"""The gate, case by case."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from msgspec.structs import replace

from harkara.policy.gate import (
    ATTEMPT_EXPIRES,
    HELD_WAIT,
    PATIENCE,
    SENDER_PAUSED_WAIT,
    SOON,
    TEMPLATE_AGAIN,
    TEMPLATE_PATIENCE,
    TEMPLATE_READ,
    Ambiguous,
    Defer,
    Go,
    Park,
    Resend,
    Settled,
    Stale,
    Suppress,
    Verdict,
    Wait,
    judge,
)
from harkara.policy.templates import ENDED, HELD
from harkara.schemas.reasons import Reason
from harkara.storage.sending import Attempt, Facts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MESSAGE = uuid4()

STEP = {
    "now": NOW,
    "message_status": None,
    "attempts": 0,
    "attempted_at": None,
    "sender_status": "active",
    "contact_found": True,
    "opted_out": False,
    "consents_to_marketing": True,
    "enrollment_status": "active",
    "expected_message_id": MESSAGE,
    "started_at": NOW,
    "campaign_status": "active",
    "tenant_active": True,
}
ONE_OFF = STEP | {"enrollment_status": None, "expected_message_id": None, "started_at": None, "campaign_status": None}


ID = uuid4()


def attempt(lane: str = "marketing", **changed: Any) -> Attempt:
    """A step of an enrolment, unless changed."""
    return replace(Attempt(MESSAGE, "t", None, ID, ID, ID, 0, lane, "+919876543210", "{}", "", NOW), **changed)


def one_off(lane: str = "marketing", **changed: Any) -> Attempt:
    """A message of no campaign."""
    return attempt(lane, campaign_id=None, enrollment_id=None, step=None, **changed)


def of_step(**changed: object) -> Facts:
    return msgspec.convert(STEP | changed, Facts)


def of_one_off(**changed: object) -> Facts:
    return msgspec.convert(ONE_OFF | changed, Facts)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Go()),
        ({"message_status": "queued"}, Go()),
        ({"message_status": "sent"}, Settled("sent")),
        ({"message_status": "suppressed"}, Settled("suppressed")),
        # What happened to the message itself comes before everything else, even a stop.
        ({"message_status": "delivered", "enrollment_status": "stopped"}, Settled("delivered")),
        ({"message_status": "sending", "attempted_at": NOW - ATTEMPT_EXPIRES}, Ambiguous()),
        ({"enrollment_status": "stopped"}, Suppress("enrollment_stopped")),
        ({"enrollment_status": "completed"}, Stale()),
        ({"enrollment_status": "failed"}, Suppress("enrollment_stopped")),
        ({"enrollment_status": None}, Stale()),
        ({"enrollment_status": None, "message_status": "queued"}, Suppress("enrollment_stopped")),
        ({"expected_message_id": uuid4()}, Stale()),
        # Moved to a version without its step while it was on its way, and not taken.
        ({"expected_message_id": uuid4(), "message_status": "queued"}, Suppress("step_removed")),
        (
            {"expected_message_id": None, "enrollment_status": "completed", "message_status": "queued"},
            Suppress("step_removed"),
        ),
        ({"enrollment_status": "paused"}, Park()),
        ({"campaign_status": "paused"}, Park()),
        ({"campaign_status": "archived"}, Suppress("campaign_inactive", stop="campaign_archived")),
        (
            {"campaign_status": "archived", "enrollment_status": "stopped", "stopped_reason": "campaign_archived"},
            Suppress("campaign_inactive"),
        ),
        (
            {"campaign_status": "archived", "enrollment_status": "stopped", "stopped_reason": "reply"},
            Suppress("enrollment_stopped"),
        ),
        ({"campaign_status": "paused", "enrollment_status": "stopped"}, Suppress("enrollment_stopped")),
        ({"tenant_active": False}, Park()),
        # Moved to another version's step: what it was to say is out of date. A stop comes first.
        ({"expected_step_id": uuid4()}, Park()),
        ({"expected_step_id": uuid4(), "enrollment_status": "stopped"}, Suppress("enrollment_stopped")),
        ({"goal_met": True}, Suppress("goal_reached", stop="goal_reached")),
        ({"exit_met": True}, Suppress("exit_condition", stop="exit")),
        ({"goal_met": True, "exit_met": True}, Suppress("goal_reached", stop="goal_reached")),
        ({"opted_out": True}, Suppress("opted_out", stop="opt_out")),
        ({"held": True}, Wait(HELD_WAIT, "something that may stop it is accepted, and not done yet")),
        ({"held": True, "enrollment_status": "stopped"}, Suppress("enrollment_stopped")),
        ({"invoice_status": "open"}, Go()),
        ({"invoice_status": "paid"}, Suppress("invoice_paid", stop="invoice_paid")),
        ({"invoice_status": "void"}, Suppress("invoice_void", stop="invoice_void")),
        # Paying has stopped the enrolment before its step came: that is why, and there is nothing left to stop.
        ({"invoice_status": "paid", "enrollment_status": "stopped"}, Suppress("invoice_paid")),
        ({"invoice_status": "open", "enrollment_status": "stopped"}, Suppress("enrollment_stopped")),
        ({"consents_to_marketing": False}, Suppress("no_consent", stop="no_consent")),
        ({"sender_status": "paused"}, Wait(SENDER_PAUSED_WAIT, "the number is paused")),
        ({"sender_status": None}, Suppress("sender_deleted")),
        # A number that waits is no reason to send later what must not be sent at all.
        ({"sender_status": "paused", "opted_out": True}, Suppress("opted_out", stop="opt_out")),
    ],
)
def test_a_step_leaves_only_if_everything_still_holds(changed: dict[str, object], verdict: Verdict) -> None:
    assert judge(of_step(**changed), attempt()) == verdict


def test_a_step_whose_contact_is_gone_with_the_enrolment_says_so() -> None:
    facts = of_step(enrollment_status=None, message_status="queued", contact_found=False)
    assert judge(facts, attempt(contact_id=uuid4())) == Suppress("contact_deleted")


@pytest.mark.parametrize(
    ("changed", "lane", "verdict"),
    [
        ({}, "utility", Go()),
        ({"consents_to_marketing": False}, "utility", Go()),
        ({"consents_to_marketing": False}, "otp", Go()),
        ({"consents_to_marketing": False}, "marketing", Suppress("no_consent", stop="no_consent")),
        ({"opted_out": True}, "utility", Suppress("opted_out", stop="opt_out")),
        ({"tenant_active": False, "message_status": "queued"}, "utility", Suppress("tenant_inactive")),
        ({"tenant_active": False}, "utility", Stale()),
    ],
)
def test_a_one_off_message_needs_what_its_lane_needs(changed: dict[str, object], lane: str, verdict: Verdict) -> None:
    assert judge(of_one_off(**changed), one_off(lane)) == verdict


def test_a_copy_of_an_attempt_in_the_air_waits_until_its_result_must_be_there() -> None:
    facts = of_step(message_status="sending", attempted_at=NOW - timedelta(seconds=5))
    verdict = judge(facts, attempt())
    assert isinstance(verdict, Wait)
    assert timedelta(seconds=5) + verdict.after > ATTEMPT_EXPIRES


@pytest.mark.parametrize(
    ("written", "template", "verdict"),
    [
        (None, None, Suppress("outside_window")),
        (NOW - timedelta(hours=24), None, Suppress("outside_window")),
        (NOW - timedelta(hours=24) + timedelta(microseconds=1), None, Go()),
        (None, "offer", Go()),
    ],
)
def test_outside_the_window_only_templates_leave(
    written: datetime | None, template: str | None, verdict: Verdict
) -> None:
    message = attempt(template=template, language="en")
    assert judge(of_step(keeps_window=True, last_inbound_at=written), message) == verdict
    assert judge(of_step(keeps_window=False, last_inbound_at=written), message) == Go()


#: Noon in UTC is half past five in the afternoon in India.
EVENING, MORNING = '{"start":"17:00","end":"09:00"}', '{"start":"09:00","end":"17:00"}'
OPENS = datetime(2026, 3, 2, 3, 30, tzinfo=UTC)


def test_marketing_and_steps_wait_for_the_end_of_quiet_hours_and_nothing_else_does() -> None:
    quiet = {"quiet_hours": EVENING, "tenant_timezone": "UTC"}
    assert judge(of_step(**quiet), attempt()) == Defer(OPENS, "quiet_hours")
    assert judge(of_one_off(**quiet), one_off("marketing")) == Defer(OPENS, "quiet_hours")
    assert judge(of_one_off(**quiet), one_off("utility")) == Go()
    assert judge(of_one_off(**quiet), one_off("otp")) == Go()
    assert judge(of_step(quiet_hours=MORNING), attempt()) == Go()
    new_york = Defer(datetime(2026, 3, 1, 14, tzinfo=UTC), "quiet_hours")
    assert (
        judge(of_step(quiet_hours='{"start":"05:00","end":"09:00"}', timezone="America/New_York"), attempt())
        == new_york
    )
    # Whoever must not be written to at all is not written to later.
    assert judge(of_step(opted_out=True, **quiet), attempt()) == Suppress("opted_out", stop="opt_out")


def test_whom_whatsapp_gives_no_marketing_rests_and_gets_all_else() -> None:
    until = NOW + timedelta(hours=24)
    assert judge(of_step(rests_until=until), attempt()) == Defer(until, "contact_rests")
    assert judge(of_one_off(rests_until=until), one_off("marketing")) == Defer(until, "contact_rests")
    assert judge(of_one_off(rests_until=until), one_off("utility")) == Go()
    assert judge(of_one_off(rests_until=until), one_off("otp")) == Go()
    assert judge(of_step(rests_until=NOW), attempt()) == Go()
    long_due = attempt(due_at=until - PATIENCE - timedelta(seconds=1))
    assert judge(of_step(rests_until=until), long_due) == Suppress("contact_rests")
    doubted = of_step(rests_until=until, message_status="unknown", delivery="at_least_once", resend_at=NOW)
    assert judge(doubted, attempt()) == Settled("unknown", "contact_rests")
    assert judge(replace(doubted, rests_until=None), attempt()) == Resend()


def test_what_opens_in_a_moment_is_waited_for_in_hand() -> None:
    facts = of_step(quiet_hours=EVENING, now=OPENS - timedelta(milliseconds=300))
    assert judge(facts, attempt()) == Wait(timedelta(milliseconds=300), "quiet_hours")


def test_what_would_open_too_late_is_not_waited_for() -> None:
    assert judge(of_step(quiet_hours=EVENING), attempt(expires_at=OPENS)) == Suppress("expired")
    later = OPENS + timedelta(seconds=1)
    assert judge(of_step(quiet_hours=EVENING), attempt(expires_at=later)) == Defer(OPENS, "quiet_hours")
    assert judge(of_step(), attempt(expires_at=NOW)) == Suppress("expired")
    assert judge(of_step(), attempt(expires_at=NOW + timedelta(seconds=1))) == Go()


def test_a_template_must_be_there() -> None:
    message = attempt(template="offer", language="en")
    assert judge(of_step(templates_known=True), message) == Suppress("template_missing")
    # Of a number whose templates nobody has told us, WhatsApp has to say it.
    assert judge(of_step(templates_known=False), message) == Go()
    assert judge(of_step(templates_known=True), attempt()) == Go()


@pytest.mark.parametrize("status", ["approved", "flagged", "something new"])
def test_a_template_that_may_be_used_is_used(status: str) -> None:
    assert judge(of_step(templates_known=True, template_status=status), attempt(template="offer")) == Go()


@pytest.mark.parametrize(("status", "reason"), sorted(ENDED.items()))
def test_a_template_that_is_no_more_is_not_waited_for(status: str, reason: Reason) -> None:
    assert judge(of_step(template_status=status), attempt(template="offer")) == Suppress(reason)


@pytest.mark.parametrize(("status", "reason"), sorted(HELD.items()))
def test_a_template_that_may_come_back_is_waited_for_a_day_unless_it_is_a_code(status: str, reason: Reason) -> None:
    facts = of_step(template_status=status)
    assert judge(facts, attempt(template="offer")) == Defer(NOW + TEMPLATE_AGAIN, reason)
    late = attempt(template="offer", due_at=NOW - TEMPLATE_PATIENCE)
    assert judge(facts, late) == Suppress(reason)
    code = of_one_off(template_status=status)
    assert judge(code, one_off("otp", template="offer")) == Suppress(reason)
    # It may come back sooner than it is asked for again.
    for expires_at, until in ((NOW + timedelta(minutes=5),) * 2, (NOW + timedelta(days=2), NOW + TEMPLATE_AGAIN)):
        assert judge(facts, attempt(template="offer", expires_at=expires_at)) == Defer(until, reason)


@pytest.mark.parametrize(
    ("since", "waits"),
    [
        (timedelta(), TEMPLATE_READ),
        (timedelta(milliseconds=100), TEMPLATE_READ),
        (timedelta(minutes=5), timedelta(minutes=5)),
        (timedelta(days=1), TEMPLATE_AGAIN),
    ],
)
def test_what_may_be_marketing_waits_until_that_is_known(since: timedelta, waits: timedelta) -> None:
    """At first as long as reading takes; then as long again as it has waited."""
    unread = of_one_off(template_status="approved", template_unread_since=NOW - since)
    waiting = Defer(NOW + waits, "template_unread") if waits > SOON else Wait(waits, "template_unread")
    for lane in ("otp", "utility"):
        assert judge(unread, one_off(lane, template="offer")) == waiting
    assert judge(unread, one_off("utility", template="offer", expires_at=NOW + waits)) == Suppress("expired")
    assert judge(unread, one_off("marketing", template="offer")) == Go()


@pytest.mark.parametrize("lane", ["otp", "utility", "marketing"])
def test_a_marketing_template_is_judged_as_marketing_in_every_lane(lane: str) -> None:
    message = one_off(lane, template="offer")

    def verdict(**changed: object) -> Verdict:
        known = {"templates_known": True, "template_status": "approved", "marketing_template": True}
        return judge(of_one_off(**known | changed), message)

    assert verdict() == Go()
    assert verdict(consents_to_marketing=False) == Suppress("no_consent", stop="no_consent")
    assert verdict(quiet_hours=EVENING) == Defer(OPENS, "quiet_hours")
    until = NOW + timedelta(hours=20)
    assert verdict(rests_until=until) == Defer(until, "contact_rests")
    # How soon it is of no use is still the lane's to say.
    waits = Suppress("template_paused") if lane == "otp" else Defer(NOW + TEMPLATE_AGAIN, "template_paused")
    assert verdict(template_status="paused") == waits
