"""The books find what a demo must not hide."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.demo.books import Books
from harkara.demo.client import Accepted
from harkara.ids import uuid7
from harkara.schemas.api import ConsentShown, ContactShown, EnrollmentShown, EnrollmentStatus, MessageShown

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANNA = uuid7()


def contact(id_: UUID = ANNA, *, consents: bool = True) -> ContactShown:
    return ContactShown(
        id=id_,
        name="Anna",
        phone="+12025550123",
        wa_user_id=None,
        locale=None,
        timezone=None,
        attributes={},
        tags=[],
        consent=ConsentShown(source="import", at=NOW, categories=[]) if consents else None,
        opted_out_at=None,
        opted_out_reason=None,
        opt_outs=[],
        marketing_rests_until=None,
        created_at=NOW,
        updated_at=NOW,
    )


def enrollment(status: EnrollmentStatus = "completed", reason: str | None = None) -> EnrollmentShown:
    return EnrollmentShown(
        id=uuid7(),
        campaign_id=uuid7(),
        version_id=uuid7(),
        contact_id=ANNA,
        run=1,
        status=status,
        stopped_reason=reason,
        current_step=3,
        messages_sent=3,
        started_at=NOW,
        next_step_scheduled_at=None,
        last_step_at=NOW,
        finished_at=NOW,
        goal_at=None,
        invoice_id=None,
    )


def message(step: int, status: str = "read", **fields: Any) -> MessageShown:
    values: dict[str, Any] = dict.fromkeys(MessageShown.__struct_fields__) | {
        "id": uuid7(),
        "status": status,
        "lane": "marketing",
        "to": "+12025550123",
        "contact_id": ANNA,
        "sender_id": uuid7(),
        "step": step,
        "content": {},
        "attempts": 1,
        "cause": "",
        "due_at": NOW,
        "created_at": NOW,
    }
    return MessageShown(**(values | fields))


def taken(of: MessageShown, **fields: Any) -> Accepted:
    one = Accepted(f"wamid.{of.id}", of.to, str(of.id), NOW.isoformat(), of.status)
    return msgspec.structs.replace(one, **fields)


def books(**changes: Any) -> Books:
    """Anna got all three steps, and both sides know it."""
    messages = [message(step) for step in range(3)]
    kept: dict[str, Any] = {
        "steps": 3,
        "contacts": [contact()],
        "enrollments": [enrollment()],
        "messages": messages,
        "accepted": [taken(one) for one in messages],
        "answered": {},
    }
    return Books(**(kept | changes))


def test_good_books_have_no_shortfall() -> None:
    assert books().shortfalls() == []


def test_whoever_did_not_consent_is_accounted_for() -> None:
    kept = books(contacts=[contact(), contact(uuid7(), consents=False)])
    assert kept.shortfalls() == []
    assert kept.not_enrolled == {"they did not agree to marketing": 1}


def test_whoever_consented_must_be_enrolled() -> None:
    (fault,) = books(contacts=[contact(), contact(uuid7())]).shortfalls()
    assert fault.endswith("was not enrolled, and nobody says why")


def test_a_missing_step_is_found() -> None:
    messages = [message(0), message(1, "failed", reason="Message undeliverable"), message(2)]
    kept = books(messages=messages, accepted=[taken(messages[0]), taken(messages[2])])
    assert kept.shortfalls() == ["Anna +12025550123: got the steps 0, 2 (step 1 failed: Message undeliverable)"]


def test_a_message_that_went_out_twice_is_found() -> None:
    kept = books()
    (fault,) = books(messages=kept.messages, accepted=[*kept.accepted, kept.accepted[1]]).shortfalls()
    assert fault == "step 1 for +12025550123 is 2 times with the gateway"


def test_a_step_that_went_out_as_two_messages_is_found() -> None:
    messages = [message(0), message(1), message(1), message(2)]
    found = books(messages=messages, accepted=[taken(one) for one in messages]).shortfalls()
    assert f"step 1 went to contact {ANNA} 2 times" in found


def test_a_message_that_only_one_side_knows_is_found() -> None:
    kept = books()
    found = books(messages=kept.messages, accepted=kept.accepted[1:]).shortfalls()
    assert found == ["step 0 for +12025550123 is read here, and the gateway does not have it"]
    stranger = Accepted("wamid.x", "+12025550123", None, NOW.isoformat(), "read")
    found = books(messages=kept.messages, accepted=[*kept.accepted, stranger]).shortfalls()
    assert found == ["the gateway has a message that is not ours: without an id"]


def test_a_lost_receipt_is_found() -> None:
    kept = books()
    late = [taken(kept.messages[0], status="delivered"), *kept.accepted[1:]]
    assert books(messages=kept.messages, accepted=late).shortfalls() == [
        "step 0 for +12025550123 is read here and delivered at the gateway"
    ]


def stopped(reason: str, messages: list[MessageShown]) -> list[str]:
    return books(
        enrollments=[enrollment("stopped", reason)],
        messages=messages,
        accepted=[taken(one) for one in messages if one.status != "suppressed"],
        answered={ANNA: "opt_out"},
    ).shortfalls()


def test_whoever_asked_to_stop_got_what_came_before_and_nothing_after() -> None:
    assert stopped("opt_out", [message(0), message(1, "suppressed", reason="enrollment_stopped")]) == []
    (fault,) = stopped("opt_out", [message(0), message(1, created_at=NOW + timedelta(seconds=5))])
    assert fault.endswith("got step 1 although they had asked to stop")
    (fault,) = stopped("by_hand", [message(0)])
    assert fault.endswith("instead of stopped by opt_out")


def test_an_enrolment_that_ended_otherwise_is_found() -> None:
    kept = books(enrollments=[enrollment("failed", "unreachable")])
    assert kept.shortfalls() == ["Anna +12025550123: their enrolment is failed (unreachable)"]


def test_many_shortfalls_are_named_in_part() -> None:
    found = books(contacts=[contact(uuid7()) for _ in range(9)]).shortfalls()
    assert len(found) == 6
    assert found[-1] == "… and 4 more of this kind"
