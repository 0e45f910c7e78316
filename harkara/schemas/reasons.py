"""Why messages don't leave or don't arrive, in words, with what to do: the one table behind `why`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Words(NamedTuple):
    """One reason in words, and what can be done about it."""

    text: str
    todo: str


#: Every code that policy may give a message as its `reason`: why it was suppressed, or is deferred.
Reason = Literal[
    "cancelled",
    "opted_out",
    "no_consent",
    "contact_deleted",
    "sender_deleted",
    "number_changed",
    "tenant_inactive",
    "enrollment_stopped",
    "step_removed",
    "goal_reached",
    "exit_condition",
    "campaign_inactive",
    "invoice_paid",
    "invoice_void",
    "expired",
    "outside_window",
    "contact_rests",
    "quiet_hours",
    "frequency_cap",
    "template_missing",
    "template_pending",
    "template_unread",
    "template_paused",
    "template_rejected",
    "template_disabled",
    "plan_exhausted",
    "pair_limit",
    "portfolio_limit",
    "template_pace",
]

#: What each says, and what can be done.
POLICY: Mapping[str, Words] = {
    "cancelled": Words("it was cancelled while it waited", "nothing: send a new message if it is wanted after all"),
    "opted_out": Words(
        "the contact has opted out of such messages",
        "send none; once they agree again, PATCH the contact with consent",
    ),
    "no_consent": Words(
        "marketing needs consent, and none is recorded", "ask for it, and PATCH the contact with consent {source, at}"
    ),
    "contact_deleted": Words("its contact was deleted before its turn came", "nothing: there is nobody to send it to"),
    "sender_deleted": Words(
        "its number was deleted before its turn came", "send it with another: GET /senders lists them"
    ),
    "number_changed": Words(
        "the number that this code was asked for is not its contact's any more",
        "ask for a new code: whoever has the number by now must not read this one",
    ),
    "tenant_inactive": Words("this account is not active", "ask support to make it active again"),
    "enrollment_stopped": Words(
        "its enrolment was stopped before its turn came",
        "nothing: a stop, a reply or a number that nothing reaches ends a campaign",
    ),
    "step_removed": Words(
        "its enrolment goes on with a version of the campaign that does not have its step any more",
        "nothing: what comes next of that version comes at its time",
    ),
    "goal_reached": Words(
        "the contact had done what the campaign is for", "nothing: GET the campaign's funnel counts it under `goal`"
    ),
    "exit_condition": Words(
        "the campaign's exit condition held when its turn came", "nothing, or PATCH the campaign's `exit`"
    ),
    "pair_limit": Words(
        "WhatsApp takes a message every six seconds from one number to one phone, and this one got more at once",
        "nothing: it leaves when its turn comes; send this contact less at once",
    ),
    "portfolio_limit": Words(
        "the numbers of this business may write first to no more people within 24 hours",
        "nothing: it leaves when there is room; WhatsApp raises the limit with good quality (then PATCH daily_limit)",
    ),
    "template_pace": Words(
        "WhatsApp still watches how people take this template, so it leaves slowly",
        "nothing: it leaves when its turn comes",
    ),
    "campaign_inactive": Words("its campaign was archived before its turn came", "nothing: make a new campaign"),
    "invoice_paid": Words("the invoice that it is about is paid", "nothing: nothing is owed any more"),
    "invoice_void": Words(
        "the invoice that it is about is void", "nothing; if something is owed after all, make a new invoice"
    ),
    "expired": Words(
        "its turn came too late for it to be of use",
        "nothing, or allow more time: `expires_after_hours` of the step, `expires_at` of a message",
    ),
    "outside_window": Words(
        "the contact has not written to this number within 24 hours, and then WhatsApp delivers only templates",
        "send an approved template; or PATCH the sender's `window` if its gateway has no such rule",
    ),
    "contact_rests": Words(
        "WhatsApp gives this contact no more marketing for a day, whoever it comes from",
        "nothing if it is deferred: it leaves when the day is over; send this contact less marketing",
    ),
    "quiet_hours": Words(
        "it is quiet hours where the contact lives",
        "nothing: it is judged again when they are over, at `deferred_until`; or PATCH the `quiet_hours` that hold: its"
        " campaign's, if it has one with its own, else the tenant's",
    ),
    "frequency_cap": Words(
        "the contact was sent as much marketing lately as the tenant's frequency caps allow",
        "nothing if it is deferred: it leaves when one more fits; else send less, or PATCH the tenant's frequency_caps",
    ),
    "template_missing": Words(
        "WhatsApp has no such template for this number in this language",
        "check name and language; make it in the WhatsApp manager, then POST /senders/{sender_id}/templates/sync",
    ),
    "template_pending": Words(
        "its template is not approved yet", "wait for the review; what is due meanwhile is tried for a day"
    ),
    "template_unread": Words(
        "its template is new, and WhatsApp has yet to say whether it is marketing",
        "nothing: it leaves once that is known; if that takes long, POST /senders/{sender_id}/templates/sync says why",
    ),
    "template_paused": Words(
        "its template is paused",
        "mend the template, or use another; when it may be used again, POST /senders/{sender_id}/templates/sync",
    ),
    "template_rejected": Words(
        "WhatsApp has rejected its template", "edit the template in the WhatsApp manager, or use another"
    ),
    "template_disabled": Words("its template is disabled, or deleted", "use another template"),
    "plan_exhausted": Words(
        "this month's messages of the plan are used up", "choose a larger plan; the count begins anew next month"
    ),
}

#: What ended an enrolment, by its `stopped_reason`; partners give reasons of their own.
STOPPED_BY: Mapping[str, str] = {
    "opt_out": "the contact has opted out",
    "reply": "the contact has answered, and the campaign has `stop_on_reply`",
    "goal_reached": "the contact has reached the campaign's goal",
    "exit": "the campaign's exit condition held",
    "no_consent": "the contact's consent was withdrawn",
    "unreachable": "nothing reaches the contact's number",
    "merged": "the contact was merged into one that is enrolled too",
    "by_hand": "somebody stopped it by hand",
}

#: What WhatsApp says, by its error code.
GATEWAY = {
    130429: Words("the number sent more than WhatsApp allows it", "lower the sender's mps"),
    130497: Words(
        "WhatsApp lets this business write to nobody in this country", "send nothing there; ask Meta's support for why"
    ),
    130472: Words("WhatsApp kept it back: the phone is part of an experiment", "nothing: a later one may get through"),
    131021: Words("sender and recipient are the same number", "send to another number"),
    131026: Words(
        "WhatsApp can't deliver to this number", "check that the number is on WhatsApp and its app is up to date"
    ),
    131031: Words("Meta has locked this business account", "see in the WhatsApp manager why, and ask Meta's support"),
    368: Words(
        "Meta has blocked this business account for a while, for what it sent",
        "see in the WhatsApp manager why and for how long",
    ),
    131037: Words("the number's display name is not approved", "see to its display name in the WhatsApp manager"),
    131042: Words("Meta has no means of payment for this account", "add a means of payment in the WhatsApp manager"),
    131047: Words("the contact last wrote more than 24 hours ago", "send an approved template instead of a free text"),
    131048: Words("WhatsApp limits this number because of complaints", "send less, and to people who expect it"),
    131049: Words(
        "WhatsApp gives this contact no more marketing for now",
        "nothing: what else is due waits a day; send them less of it",
    ),
    131050: Words("the contact has turned off marketing from this business", "send none until they turn it on again"),
    131051: Words("WhatsApp does not know this type of message", "send text, a template, media or buttons"),
    131052: Words("WhatsApp could not fetch the media", "check that the link answers, publicly and quickly"),
    131053: Words("WhatsApp could not use the media", "check the file's type and size"),
    131056: Words("too many messages to this one contact in a short time", "send this contact less at once"),
    132000: Words("the number of parameters is not the template's", "give as many as the template has"),
    132001: Words("there is no such template in this language", "check its name and language, and that it is approved"),
    132005: Words("the template's text became too long", "shorten the parameters"),
    132007: Words("the template's content breaks a rule of WhatsApp's", "change the template"),
    132012: Words("a parameter has the wrong form for the template", "check what the template expects"),
    132015: Words("the template is paused because of its quality", "edit it, or use another"),
    132016: Words("the template is disabled for good", "make a new one"),
    132068: Words(
        "the flow of this template is blocked", "mend or replace the flow in the WhatsApp manager: until then it fails"
    ),
    131000: Words("WhatsApp could not send it, and does not say why", "if that goes on, ask Meta's support"),
    131016: Words("WhatsApp had too much to do", "if that goes on, look at https://metastatus.com"),
    131057: Words("WhatsApp is at work on this number", "if that goes on for an hour, ask Meta's support"),
    133010: Words("the number is not registered with the Cloud API", "register it in the WhatsApp manager"),
    190: Words("the access token is not valid any more", "PATCH the sender with a new access_token"),
}

#: What passes by itself, by its code: refused with it, a message is tried again; failed with it, it is not any more.
PASSING = frozenset(
    {130429, 131056, 131048, 131064, 80007, 4, 133015, 133016, 132069, 131057, 2, 133004, 131016, 131000, 1}
)

IN_DOUBT = Words(
    "WhatsApp may or may not have taken it: the answer to our request was lost",
    "wait: a receipt may still settle it. If there is a resend_at, it is sent once more then; else, if it must arrive, "
    "send a new one",
)

#: In the reason of one that was to be sent once more and is not, before the code of what stands against it.
NOT_AGAIN = "not sent once more: "

#: What is said of a message that still waits although the gate would not let it leave.
ENDED = {
    code: Words(f"{text}: as things stand it is suppressed when its turn comes, and does not leave", todo)
    for code, (text, todo) in POLICY.items()
}

#: What holds all messages of a campaign or number back, whatever policy says: by its code in `harkara ops trace`.
HELD_BACK: Mapping[str, Words] = {
    "campaign_paused": Words("its campaign is paused", "POST /campaigns/{campaign_id}/resume has it go on"),
    "number_stopped": Words(
        "its number is stopped",
        "see to what stopped it, if that is told, then POST /senders/{sender_id}/resume",
    ),
    "number_disconnected": Words(
        "no phone is linked to its number",
        "link one: POST /senders/{sender_id}/session/start, then scan what GET /senders/{sender_id}/qr shows",
    ),
    "number_rests": Words(
        "its number rests, as WhatsApp has asked", "nothing: it goes on by itself, at `held_until` of the sender"
    ),
    "gateway_away": Words(
        "its gateway does not answer",
        "check that it runs, and its address: nothing has left, and it is tried again by itself",
    ),
    "actor_paused": Words("the operator has paused all sending", "nothing: it leaves when the operator resumes it"),
}

#: What the reason of a message begins with that could not leave, before which gateway that is.
NO_GATEWAY = f"{HELD_BACK['gateway_away'].text}: "

#: What to do instead about a number, if WhatsApp's error code says what there is to see to `first`.
SEEN_TO: Mapping[str, str] = {
    "number_stopped": "{first}, then POST /senders/{sender_id}/resume",
    "number_rests": "{first}; it goes on by itself, at `held_until` of the sender, or with"
    " POST /senders/{sender_id}/resume",
}

#: With the same code as what pauses all sending, of a campaign.
ENROLLING_PAUSED = Words(
    "the operator has paused enrolling: who is enrolled now begins later",
    "nothing: all that was accepted is done when the operator resumes it",
)

_WAITING = "nothing: it is tried again by itself; cancel it with POST /messages/{id}/cancel"
_FAILED = "mend what the text says, and send a new message"
_NO_MORE = "it is not tried again by itself: send a new message if it is still wanted"


def addressed(todo: str, **ids: object) -> str:
    """What to do, with the ids of what it is to be done to in their places."""
    for name, id_ in ids.items():
        todo = todo.replace(f"{{{name}}}", str(id_))
    return todo


def _not_again(against: Words) -> Words:
    return Words(f"{IN_DOUBT.text}. It is not sent once more, because {against.text}", against.todo)


def words(status: str, reason: str | None, error_code: int | None) -> tuple[str, Words] | None:
    """The code, and in words, why a message of this status went no further; None if nothing stands in its way."""
    if status == "unknown":
        against = POLICY.get((reason or "").rpartition(NOT_AGAIN)[2])
        return "in_doubt", IN_DOUBT if against is None else _not_again(against)
    if status not in ("queued", "failed", "suppressed") or (reason is None and error_code is None):
        return None
    if status == "queued" and error_code is None and (reason or "").startswith(NO_GATEWAY):
        return "gateway_away", Words(str(reason), HELD_BACK["gateway_away"].todo)
    known = POLICY.get(reason or "") or GATEWAY.get(error_code or 0) or Words(reason or "no reason was given", "")
    code = str(error_code) if error_code else reason if reason in POLICY else status
    return str(code), Words(known.text, _todo(known.todo, status, error_code))


def stopped(why: Words, stopped_reason: str) -> Words:
    """The words for an enrolment that was stopped, with what stopped it."""
    return Words(f"{why.text}, because {STOPPED_BY.get(stopped_reason, stopped_reason)}", why.todo)


def _todo(todo: str, status: str, error_code: int | None) -> str:
    if error_code in PASSING:
        first = _WAITING if status == "queued" else _NO_MORE
        return f"{first}; {todo}" if todo else first
    return todo or (_WAITING if status == "queued" else _FAILED)
