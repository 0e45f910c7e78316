"""The gate, case by case."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest

from harkara.actors.gate import (
    ATTEMPT_EXPIRES,
    SENDER_PAUSED_WAIT,
    Ambiguous,
    Go,
    Park,
    Settled,
    Stale,
    Suppress,
    Verdict,
    Wait,
    judge,
)
from harkara.storage.sending import Facts

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
        ({"enrollment_status": "failed"}, Stale()),
        ({"enrollment_status": None}, Stale()),
        ({"expected_message_id": uuid4()}, Stale()),
        ({"enrollment_status": "paused"}, Park()),
        ({"campaign_status": "paused"}, Park()),
        ({"campaign_status": "archived"}, Suppress("campaign_inactive", stop="campaign_archived")),
        ({"campaign_status": "paused", "enrollment_status": "stopped"}, Suppress("enrollment_stopped")),
        ({"tenant_active": False}, Park()),
        ({"opted_out": True}, Suppress("opted_out", stop="opt_out")),
        ({"consents_to_marketing": False}, Suppress("no_consent", stop="no_consent")),
        ({"sender_status": "paused"}, Wait(SENDER_PAUSED_WAIT, "the number is paused")),
        ({"sender_status": None}, Wait(SENDER_PAUSED_WAIT, "the number is gone")),
        # A number that waits is no reason to send later what must not be sent at all.
        ({"sender_status": "paused", "opted_out": True}, Suppress("opted_out", stop="opt_out")),
    ],
)
def test_a_step_leaves_only_if_everything_still_holds(changed: dict[str, object], verdict: Verdict) -> None:
    assert judge(of_step(**changed), message_id=MESSAGE, lane="marketing", of_enrollment=True) == verdict


@pytest.mark.parametrize(
    ("changed", "lane", "verdict"),
    [
        ({}, "utility", Go()),
        ({"consents_to_marketing": False}, "utility", Go()),
        ({"consents_to_marketing": False}, "otp", Go()),
        ({"consents_to_marketing": False}, "marketing", Suppress("no_consent", stop="no_consent")),
        ({"opted_out": True}, "utility", Suppress("opted_out", stop="opt_out")),
        ({"tenant_active": False}, "utility", Suppress("tenant_inactive")),
    ],
)
def test_a_one_off_message_needs_what_its_lane_needs(changed: dict[str, object], lane: str, verdict: Verdict) -> None:
    assert judge(of_one_off(**changed), message_id=MESSAGE, lane=lane, of_enrollment=False) == verdict


def test_a_copy_of_an_attempt_in_the_air_waits_until_its_result_must_be_there() -> None:
    facts = of_step(message_status="sending", attempted_at=NOW - timedelta(seconds=5))
    verdict = judge(facts, message_id=MESSAGE, lane="marketing", of_enrollment=True)
    assert isinstance(verdict, Wait)
    assert timedelta(seconds=5) + verdict.after > ATTEMPT_EXPIRES
