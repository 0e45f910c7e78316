"""Why messages don't leave or don't arrive, in words, with what to do: the one table behind `why`."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """One reason in words, and what can be done about it."""

    text: str
    todo: str


#: What policy says, by the code in a suppressed message's `reason`.
POLICY = {
    "cancelled": Words("it was cancelled while it waited", "nothing: send a new message if it is wanted after all"),
    "opted_out": Words(
        "the contact has opted out", "send nothing more; once they agree again, PATCH the contact with consent"
    ),
    "no_consent": Words(
        "marketing needs consent, and none is recorded", "ask for it, and PATCH the contact with consent {source, at}"
    ),
    "tenant_inactive": Words("this account is not active", "ask support to make it active again"),
    "enrollment_stopped": Words(
        "its enrolment was stopped before its turn came", "nothing: a stop or a reply of the contact ends a campaign"
    ),
    "campaign_inactive": Words("its campaign was archived before its turn came", "nothing: make a new campaign"),
}

#: What WhatsApp says, by its error code.
GATEWAY = {
    130429: Words("the number sent more than WhatsApp allows it", "nothing: it is tried again; lower the sender's mps"),
    130472: Words("WhatsApp kept it back: the phone is part of an experiment", "nothing: a later one may get through"),
    131021: Words("sender and recipient are the same number", "send to another number"),
    131026: Words(
        "WhatsApp can't deliver to this number", "check that the number is on WhatsApp and its app is up to date"
    ),
    131042: Words("Meta has no means of payment for this account", "add one in the WhatsApp manager"),
    131047: Words("the contact last wrote more than 24 hours ago", "send an approved template instead of a free text"),
    131048: Words("WhatsApp limits this number because of complaints", "send less, and to people who expect it"),
    131049: Words("WhatsApp gives this contact no more marketing for now", "wait a day or more before the next one"),
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
    133010: Words("the number is not registered with the Cloud API", "register it in the WhatsApp manager"),
    190: Words("the access token is not valid any more", "PATCH the sender with a new access_token"),
}

IN_DOUBT = Words(
    "WhatsApp may or may not have taken it: the answer to our request was lost",
    "wait: a receipt may still settle it. It is never sent again by itself; if it must arrive, send a new one",
)

_WAITING = "nothing: it is tried again by itself; cancel it with POST /messages/{id}/cancel"
_FAILED = "mend what the text says, and send a new message"


def words(status: str, reason: str | None, error_code: int | None) -> tuple[str, Words] | None:
    """The code, and in words, why a message of this status went no further; None if nothing stands in its way."""
    if status == "unknown":
        return "in_doubt", IN_DOUBT
    if status not in ("queued", "failed", "suppressed") or (reason is None and error_code is None):
        return None
    known = POLICY.get(reason or "") or GATEWAY.get(error_code or 0)
    code = str(error_code) if error_code else reason if reason in POLICY else status
    return str(code), known or Words(reason or "no reason was given", _WAITING if status == "queued" else _FAILED)
