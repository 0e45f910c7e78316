"""The gate: may this message leave now? Judged on current facts at the moment of sending; pure, without a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from harkara.policy import quiet_hours, window
from harkara.policy.templates import ENDED, HELD
from harkara.schemas.reasons import Reason

if TYPE_CHECKING:
    from harkara.storage.sending import Attempt, Facts

#: An attempt without a result for this long has none coming: longer than any request to the gateway may take.
ATTEMPT_EXPIRES = timedelta(seconds=15)

#: How soon a message is back in the queue of its number that may not send: nothing is fetched from there meanwhile.
SENDER_PAUSED_WAIT = timedelta(seconds=2)

#: A message whose template may not be used yet asks again this often, and for so long after it was due.
TEMPLATE_AGAIN = timedelta(hours=1)
TEMPLATE_PATIENCE = timedelta(hours=24)

#: Reading what a template is takes a moment. A message asks again after as long as that has taken: at least so long,
#: and at most as for one that may not be used.
TEMPLATE_READ = timedelta(seconds=1)

#: A message for which there is room again so soon after it was due waits for it: a day's cap puts it off to the next
#: day, a week's keeps it back.
PATIENCE = timedelta(hours=36)

#: What opens again so soon is waited for in hand.
SOON = timedelta(seconds=2)


#: What a message is suppressed for, and its enrolment stopped, by what has become of its invoice.
INVOICE_ENDED: Mapping[str, Reason] = {"paid": "invoice_paid", "void": "invoice_void"}

#: How long a message waits before it asks again whether what was accepted from its contact is done.
HELD_WAIT = timedelta(milliseconds=300)


class Go(msgspec.Struct, frozen=True, gc=False):
    """It may leave."""


class Suppress(msgspec.Struct, frozen=True, gc=False):
    """It must not leave, ever; `stop` is the reason for which its enrolment ends, if it does."""

    reason: Reason
    stop: str | None = None


class Ambiguous(msgspec.Struct, frozen=True, gc=False):
    """An earlier attempt has no result: it may have been accepted. It is not sent again."""


class InDoubt(msgspec.Struct, frozen=True, gc=False):
    """An earlier attempt may have been accepted. After this long without a receipt it may be sent once more."""

    after: timedelta


class Resend(msgspec.Struct, frozen=True, gc=False):
    """In doubt, the wait is over, and nothing else stands against it: once all receipts are in, send it once more."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Not now."""

    after: timedelta
    reason: str


class Defer(msgspec.Struct, frozen=True, gc=False):
    """Not before `until`. It waits outside of its number's queue, and is judged again then."""

    until: datetime
    reason: Reason


class Park(msgspec.Struct, frozen=True, gc=False):
    """Its campaign or tenant is paused: the enrolment keeps its place, and resuming schedules the message again.

    Or what it was to say is out of date, and it is scheduled again at once.
    """


class Readdress(msgspec.Struct, frozen=True, gc=False):
    """Its contact has another number by now: it is judged anew, as a message to that."""

    to: str


class Settled(msgspec.Struct, frozen=True, gc=False):
    """It was dealt with before, as `status` says: this is a second copy of the work.

    Or it is in doubt, and `against` says what stands against sending it once more.
    """

    status: str
    against: str | None = None


class Stale(msgspec.Struct, frozen=True, gc=False):
    """The enrolment no longer waits for this message: nothing to do."""


Verdict = Go | Suppress | Ambiguous | InDoubt | Resend | Wait | Defer | Park | Readdress | Settled | Stale

#: Clocks of two machines differ by less: what is due within that is due.
DUE_SOON = timedelta(milliseconds=500)

#: One rule: what it has against a message, or None.
Rule = Callable[["Facts", "Attempt"], Verdict | None]


def judge(facts: Facts, message: Attempt) -> Verdict:
    """Decide about one message: the first rule that has something against it says what becomes of it."""
    return _first(RULES, facts, message)


def _first(rules: Sequence[Rule], facts: Facts, message: Attempt) -> Verdict:
    for rule in rules:
        if (verdict := rule(facts, message)) is not None:
            return verdict
    return Go()


def category(facts: Facts, message: Attempt) -> str:
    """Whose rules hold for a message: marketing's, if its template is that to WhatsApp; else those of its lane."""
    return "marketing" if facts.marketing_template else message.lane


def _itself(facts: Facts, message: Attempt) -> Verdict | None:
    if facts.message_status in (None, "queued"):
        return None
    if facts.message_status == "unknown" and facts.resend_at is not None and not facts.resent:
        return _in_doubt(facts, message, facts.resend_at)
    if facts.message_status != "sending":
        return Settled(facts.message_status)
    since = facts.now - facts.attempted_at if facts.attempted_at else ATTEMPT_EXPIRES
    if since >= ATTEMPT_EXPIRES:
        return Ambiguous()
    return Wait(ATTEMPT_EXPIRES - since + timedelta(milliseconds=100), "an attempt is in the air")


def _in_doubt(facts: Facts, message: Attempt, resend_at: datetime) -> Verdict:
    """What is in doubt stays so if anything stands against sending it once more: the first may well have arrived.

    It leaves now if policy still lets it and all receipts are in, which `message.resend` says.
    """
    if resend_at - facts.now > DUE_SOON:
        return InDoubt(resend_at - facts.now)
    if (against := _against(facts, message)) is not None:
        return Settled("unknown", against)
    verdict = _first(POLICY, facts, message)
    if isinstance(verdict, Go):
        return verdict if message.resend else Resend()
    return Settled("unknown", verdict.reason) if isinstance(verdict, Suppress | Defer) else verdict


def _against(facts: Facts, message: Attempt) -> str | None:
    """What stands against sending a message once more, besides policy."""
    if not facts.tenant_active:
        return "tenant_inactive"
    if facts.delivery != "at_least_once":
        return facts.delivery
    if message.enrollment_id is None:
        return None
    if facts.enrollment_status in (None, "stopped", "paused", "failed"):
        return "enrollment_stopped"
    if facts.campaign_status != "active":
        return "campaign_inactive"
    if facts.goal_met:
        return "goal_reached"
    return "exit_condition" if facts.exit_met else None


def _tenant(facts: Facts, message: Attempt) -> Verdict | None:
    """Of one that is being erased nothing may be written anew."""
    if facts.tenant_active:
        return None
    if message.enrollment_id:
        return Park()
    return Suppress("tenant_inactive") if facts.message_status else Stale()


def _enrollment(facts: Facts, message: Attempt) -> Verdict | None:
    if message.enrollment_id is None:
        return None
    if facts.enrollment_status is None:  # it went with its contact, or as one of two when their contacts were merged
        return _contact(facts, message) or (Suppress("enrollment_stopped") if facts.message_status else Stale())
    if facts.expected_message_id != message.message_id or facts.enrollment_status == "completed":
        return Suppress("step_removed") if facts.message_status == "queued" else Stale()  # moved while it was tried
    if facts.enrollment_status in ("stopped", "failed"):  # failed: by what a status said of an earlier message
        if facts.stopped_reason == "campaign_archived":
            return Suppress("campaign_inactive")
        return Suppress(INVOICE_ENDED.get(facts.invoice_status or "", "enrollment_stopped"))
    if facts.enrollment_status == "paused" or facts.campaign_status == "paused":
        return Park()
    if facts.campaign_status != "active":
        return Suppress("campaign_inactive", stop="campaign_archived")
    if facts.expected_step_id != message.step_id:
        return Park()  # moved to another version: the ticker brings the same message again, as that one's step
    return None


def _conditions(facts: Facts, message: Attempt) -> Verdict | None:
    if facts.goal_met:
        return Suppress("goal_reached", stop="goal_reached")
    return Suppress("exit_condition", stop="exit") if facts.exit_met else None


def _contact(facts: Facts, message: Attempt) -> Verdict | None:
    """Deleted meanwhile; of one that was erased nothing may be written."""
    if message.contact_id is None or facts.contact_found:
        return None
    return Suppress("contact_deleted") if facts.message_status else Stale()


def _sender(facts: Facts, message: Attempt) -> Verdict | None:
    return Suppress("sender_deleted") if facts.sender_status is None else None


def _hold(facts: Facts, message: Attempt) -> Verdict | None:
    """What the contact said, or was asked for it, is accepted and not done yet."""
    return Wait(HELD_WAIT, "something that may stop it is accepted, and not done yet") if facts.held else None


def _invoice(facts: Facts, message: Attempt) -> Verdict | None:
    """Whatever it reminds of is owed no more."""
    ended = INVOICE_ENDED.get(facts.invoice_status or "")
    return Suppress(ended, stop=ended) if ended else None


def _opt_out(facts: Facts, message: Attempt) -> Verdict | None:
    """What confirms that an opt-out was heard is the one message that may follow it."""
    return Suppress("opted_out", stop="opt_out") if facts.opted_out and not message.confirms else None


def _consent(facts: Facts, message: Attempt) -> Verdict | None:
    if category(facts, message) != "marketing" or facts.consents_to_marketing:
        return None
    return Suppress("no_consent", stop="no_consent")


def _too_late(facts: Facts, message: Attempt) -> Verdict | None:
    return Suppress("expired") if message.expires_at is not None and facts.now >= message.expires_at else None


def _template(facts: Facts, message: Attempt) -> Verdict | None:
    if message.template is None:
        return None
    if facts.template_status is None:
        return Suppress("template_missing") if facts.templates_known else None
    if ended := ENDED.get(facts.template_status):
        return Suppress(ended)
    held = HELD.get(facts.template_status)
    if held is None:
        return _unread_template(facts, message)
    # A code that comes an hour late is of no use.
    if message.lane == "otp" or facts.now >= message.due_at + TEMPLATE_PATIENCE:
        return Suppress(held)
    again = facts.now + TEMPLATE_AGAIN  # or as soon as that is told, so that it waits as long as it is of use
    return _wait(facts, min(again, message.expires_at or again), held)


def _unread_template(facts: Facts, message: Attempt) -> Verdict | None:
    """What may be marketing is not sent as anything else, and not kept from whom it may be sent to as what it is."""
    if facts.template_unread_since is None or message.lane == "marketing":
        return None
    wait = max(TEMPLATE_READ, min(facts.now - facts.template_unread_since, TEMPLATE_AGAIN))
    return _until(facts, message, facts.now + wait, "template_unread")


def _window(facts: Facts, message: Attempt) -> Verdict | None:
    if message.template is not None or not facts.keeps_window or window.is_open(facts.last_inbound_at, facts.now):
        return None
    return Suppress("outside_window")


def _address(facts: Facts, message: Attempt) -> Verdict | None:
    """Whoever has the number that it was for may be somebody else. A code that was asked for it proves who has it."""
    if facts.address is None or facts.address == message.to:
        return None
    if message.lane == "otp" and not message.follows:
        return Suppress("number_changed")
    return Readdress(facts.address)


def _rest(facts: Facts, message: Attempt) -> Verdict | None:
    """WhatsApp gives the contact no more marketing for now: another try fails, and counts against the number."""
    if category(facts, message) != "marketing" or facts.rests_until is None or facts.rests_until <= facts.now:
        return None
    return later(facts, message, facts.rests_until, "contact_rests")


def _quiet(facts: Facts, message: Attempt) -> Verdict | None:
    """Only marketing, which all steps of campaigns are: a code or an answer is wanted now."""
    if facts.quiet_hours is None or category(facts, message) != "marketing":
        return None
    zone = quiet_hours.zone_of(facts.timezone, message.to, facts.tenant_timezone)
    until = quiet_hours.quiet_until(facts.now, quiet_hours.read(facts.quiet_hours), zone)
    return _until(facts, message, until, "quiet_hours") if until is not None else None


def _number(facts: Facts, message: Attempt) -> Verdict | None:
    if facts.sender_status == "active":
        return None
    return Wait(SENDER_PAUSED_WAIT, f"the number is {facts.sender_status}")


def _until(facts: Facts, message: Attempt, until: datetime, reason: Reason) -> Verdict:
    """Wait until then, if it will still be of use."""
    if message.expires_at is not None and until >= message.expires_at:
        return Suppress("expired")
    return _wait(facts, until, reason)


def _wait(facts: Facts, until: datetime, reason: Reason) -> Verdict:
    return Defer(until, reason) if until - facts.now > SOON else Wait(until - facts.now, reason)


def later(facts: Facts, message: Attempt, until: datetime, reason: Reason) -> Verdict:
    """What becomes of a message for which there is no room until then: it waits if that is soon after it was due."""
    if until - message.due_at > PATIENCE:
        return Suppress(reason)
    return _until(facts, message, until, reason)


#: Whether the contact may be written to at all, then whether now. What waits for its number is no reason to send later
#: what must not be sent at all.
POLICY: tuple[Rule, ...] = (
    _contact,
    _sender,
    _hold,
    _invoice,
    _opt_out,
    _consent,
    _too_late,
    _template,
    _window,
    _address,
    _rest,
    _quiet,
    _number,
)

#: Before that: what happened to the message itself, then whether anything still asks for it.
RULES: tuple[Rule, ...] = (_itself, _tenant, _enrollment, _conditions, *POLICY)
