"""The one table of Cloud API errors: what each code means for the message, and for what else it is bad."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Action(StrEnum):
    """What to do with a message that is refused at once.

    One that WhatsApp took and reports as failed later is never sent again, whatever the code: it may yet arrive, and
    then it would be there twice (docs/decisions/0066). Of all else that is in the scope the same holds then.
    """

    RETRY = "retry"
    """The same message again after a delay; others go on meanwhile."""
    BACK_OFF = "back_off"
    """Everything in the scope waits; then this message again."""
    GIVE_UP = "give_up"
    """This message fails for good; others go on."""
    STOP = "stop"
    """Nothing more goes out in the scope until a person has acted; this message waits for that, or fails."""


class Scope(StrEnum):
    """How far bad news reaches, from one message to everything."""

    MESSAGE = "message"
    RECIPIENT = "recipient"
    PAIR = "pair"
    TEMPLATE = "template"
    FLOW = "flow"
    COUNTRY = "country"
    NUMBER = "number"
    WABA = "waba"
    ACCOUNT = "account"
    APP = "app"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one error code asks for.

    The n-th wait is `delay * factor**(n-1)`, at most `ceiling`; `attempts` bounds how often the message is
    tried again (None: for as long as its own policy allows). With GIVE_UP, `delay` says how long nothing similar
    should go to the scope. `marketing` limits the scope to marketing messages; `alert` asks for a person's
    attention. `status` is the HTTP status that the sandbox answers with; nothing else depends on it.
    """

    action: Action
    scope: Scope
    title: str
    status: int = 400
    delay: timedelta = timedelta(0)
    factor: float = 2.0
    ceiling: timedelta = timedelta(hours=1)
    attempts: int | None = None
    marketing: bool = False
    alert: bool = False
    waits: bool = False
    """What is stopped may go on later, and the message waits for it; otherwise the message fails."""

    @property
    def rest(self) -> timedelta:
        """How long its recipient is to be sent no more marketing; zero if it is not about that."""
        return self.delay if self.action is Action.GIVE_UP and self.scope is Scope.RECIPIENT else timedelta()

    @property
    def unreachable(self) -> bool:
        """Whether nothing can be sent to its recipient, so that an enrolment ends with it."""
        return self.scope is Scope.RECIPIENT and not self.marketing

    def wait(self, attempt: int) -> timedelta:
        """How long to wait after the given attempt (1 is the first)."""
        seconds = self.delay.total_seconds() * self.factor ** min(attempt - 1, 64)
        return min(timedelta(seconds=min(seconds, self.ceiling.total_seconds())), self.ceiling)


def _retry(title: str, *, scope: Scope, status: int, delay_s: float, attempts: int | None = None) -> Rule:
    return Rule(Action.RETRY, scope, title, status=status, delay=timedelta(seconds=delay_s), attempts=attempts)


def _back_off(
    title: str,
    *,
    scope: Scope,
    delay_s: float,
    status: int = 400,
    factor: float = 2.0,
    alert: bool = False,
    attempts: int | None = None,
) -> Rule:
    delay = timedelta(seconds=delay_s)
    return Rule(
        Action.BACK_OFF,
        scope,
        title,
        status=status,
        delay=delay,
        factor=factor,
        ceiling=max(delay * 8, timedelta(minutes=10)),
        alert=alert,
        attempts=attempts,
    )


def _unwell(title: str, *, status: int) -> Rule:
    """An outage may last: the message is tried as long as it is of use, and when it is over that shows soon."""
    delay, ceiling = timedelta(seconds=5), timedelta(minutes=1)
    return Rule(Action.BACK_OFF, Scope.GLOBAL, title, status=status, delay=delay, ceiling=ceiling)


def _give_up(
    title: str,
    *,
    scope: Scope = Scope.MESSAGE,
    status: int = 400,
    delay_s: float = 0,
    marketing: bool = False,
) -> Rule:
    delay = timedelta(seconds=delay_s)
    return Rule(
        Action.GIVE_UP,
        scope,
        title,
        status=status,
        delay=delay,
        ceiling=max(delay, timedelta(hours=1)),
        marketing=marketing,
    )


def _stop(title: str, *, scope: Scope, status: int = 400, marketing: bool = False, waits: bool = False) -> Rule:
    waits = waits or scope in (Scope.NUMBER, Scope.WABA, Scope.ACCOUNT, Scope.APP)
    return Rule(Action.STOP, scope, title, status=status, marketing=marketing, alert=not marketing, waits=waits)


#: Every documented code that a send or a status can carry, except 200 to 299: `_PERMISSIONS`.
RULES: dict[int, Rule] = {
    # Too fast.
    130429: _back_off("Rate limit hit", scope=Scope.NUMBER, delay_s=1),
    131056: _back_off(
        "(Business Account, Consumer Account) pair rate limit hit", scope=Scope.PAIR, delay_s=1, factor=4
    ),
    131048: _back_off("Spam rate limit hit", scope=Scope.NUMBER, delay_s=3600, alert=True),
    131064: _back_off("Messaging limit reached", scope=Scope.ACCOUNT, delay_s=3600, alert=True),
    80007: _back_off("WhatsApp Business Account rate limit hit", scope=Scope.WABA, delay_s=60),
    4: _back_off("Application request limit reached", scope=Scope.APP, delay_s=60),
    133015: _back_off("Please wait before registering again", scope=Scope.NUMBER, delay_s=300),
    133016: _back_off("Registration attempts exceeded", scope=Scope.NUMBER, delay_s=3600, alert=True),
    # Their side is unwell.
    131057: _back_off("Account in maintenance mode", scope=Scope.NUMBER, status=500, delay_s=15),
    2: _unwell("Service temporarily unavailable", status=503),
    133004: _unwell("Server temporarily unavailable", status=503),
    131016: _unwell("Service overloaded", status=500),
    131000: _retry("Something went wrong", scope=Scope.MESSAGE, status=500, delay_s=2, attempts=5),
    1: _retry("Invalid request or possible server error", scope=Scope.MESSAGE, status=400, delay_s=5, attempts=1),
    # This message, or this recipient.
    131047: _give_up("Re-engagement message"),
    131026: _give_up("Message undeliverable", scope=Scope.RECIPIENT),
    131030: _give_up("Recipient phone number not in allowed list", scope=Scope.RECIPIENT),
    131049: _give_up(
        "This message was not delivered to maintain healthy ecosystem engagement",
        scope=Scope.RECIPIENT,
        delay_s=86400,
        marketing=True,
    ),
    131050: _stop("User has stopped marketing messages", scope=Scope.RECIPIENT, marketing=True),
    130472: _give_up("User's number is part of an experiment"),
    130403: _give_up("Message blocked by WhatsApp"),
    131051: _give_up("Unsupported message type"),
    131052: _give_up("Media download error"),
    131053: _give_up("Media upload error"),
    131008: _give_up("Required parameter is missing"),
    131009: _give_up("Parameter value is not valid"),
    100: _give_up("Invalid parameter"),
    33: _give_up("Parameter value is not valid"),
    131021: _give_up("Recipient cannot be sender"),
    135000: _give_up("Generic user error"),
    131062: _give_up("Business-scoped user id is not supported for this message"),
    131063: _give_up("Marketing messages are disabled on Cloud API", marketing=True),
    137000: _give_up("Recipient identity key does not match"),
    # A template or a flow.
    132000: _give_up("Number of parameters does not match the expected number of params"),
    132001: _give_up("Template name does not exist in the translation", status=404),
    132005: _give_up("Translated text too long"),
    132007: _give_up("Template format character policy violated"),
    132008: _give_up("Template parameter value is not valid"),
    132012: _give_up("Parameter format does not match format in the created template"),
    132018: _give_up("There is an issue with the parameters of the template"),
    132015: _stop("Template is paused", scope=Scope.TEMPLATE, waits=True),
    132016: _stop("Template is disabled", scope=Scope.TEMPLATE),
    132068: _stop("Flow is blocked", scope=Scope.FLOW),
    132069: _back_off("Flow is throttled", scope=Scope.FLOW, delay_s=600),
    # The number, the account, the credentials: a person has to act.
    131042: _stop("Business eligibility payment issue", scope=Scope.WABA),
    131044: _stop("Business eligibility payment issue", scope=Scope.WABA),
    131037: _stop("Display name is not approved", scope=Scope.NUMBER),
    131045: _stop("Phone number registration error", scope=Scope.NUMBER, status=500),
    133010: _stop("Phone number not registered", scope=Scope.NUMBER),
    133000: _stop("Incomplete deregistration", scope=Scope.NUMBER, status=500),
    133005: _stop("Two-step verification PIN mismatch", scope=Scope.NUMBER),
    133006: _stop("Phone number needs to be verified before registering", scope=Scope.NUMBER),
    133008: _stop("Too many two-step verification PIN guesses", scope=Scope.NUMBER),
    133009: _stop("Two-step verification PIN guessed too fast", scope=Scope.NUMBER),
    368: _stop("Temporarily blocked for policy violations", scope=Scope.WABA, status=403),
    131031: _stop("Business Account has been locked", scope=Scope.WABA, status=403),
    130497: Rule(
        Action.GIVE_UP,
        Scope.COUNTRY,
        "Business account is restricted from messaging users in this country",
        status=403,
        alert=True,
    ),
    0: _stop("Authentication failed", scope=Scope.APP, status=401),
    190: _stop("Access token is invalid or has expired", scope=Scope.APP, status=401),
    10: _stop("Permission denied", scope=Scope.APP, status=403),
    131005: _stop("Access denied", scope=Scope.APP, status=403),
    3: _stop("Capability or permissions issue", scope=Scope.APP, status=500),
}

_PERMISSIONS = _stop("Permission is not granted or has been removed", scope=Scope.APP, status=403)

#: No request can be made of a number's credentials, such as a token with a line end; to say more would show the token.
#: The status is what a gateway says to a wrong one that reaches it.
UNFIT = _stop(
    "The access token, or the phone_number_id, has a line break or another character that no request can carry",
    scope=Scope.NUMBER,
    status=401,
)

#: A code that the table does not know: it was refused; try once more in case it was their fault, then give up.
UNLISTED = _retry("Unlisted error", scope=Scope.MESSAGE, status=400, delay_s=5, attempts=1)


def rule_for(code: int) -> Rule:
    """What an error code asks for."""
    if 200 <= code <= 299:
        return _PERMISSIONS
    return RULES.get(code, UNLISTED)


def rule_for_status(status: int) -> Rule | None:
    """What an HTTP status asks for when the answer carried no error object; None if it proves nothing.

    A 3xx or 4xx is a refusal, except those that a proxy sends after it may have passed the request on.
    """
    if status in (408, 425, 499) or not 300 <= status <= 499:
        return None
    if status == 429:
        return _back_off("Too many requests", scope=Scope.NUMBER, delay_s=1, status=429)
    if status in (401, 403, 407):
        return _stop("Access denied", scope=Scope.APP, status=status)
    if status in (400, 413, 415, 422, 431):
        return _give_up("Request refused", status=status)
    return _stop("The gateway's address does not answer as the Cloud API", scope=Scope.APP, status=status)
