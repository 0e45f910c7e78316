"""Which of the Cloud API's rules the sandbox enforces: throughput, pair limit, 24-hour window, templates."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from harkara.gateway.sandbox.graph_error import GraphError
from harkara.gateway.sandbox.store import Store
from harkara.gateway.sandbox.wire import Component, Outgoing, TemplateObject

#: Messages a second that a number carries, until told otherwise.
THROUGHPUT = 80

PAIR_INTERVAL_S = 6.0
PAIR_BURST = 45
WINDOW_MS = 24 * 3600 * 1000

#: What is answered to a template of this status.
UNUSABLE = {"PAUSED": 132015, "DISABLED": 132016, "REJECTED": 132001, "PENDING": 132001}

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_REMEMBERED_PAIRS = 100_000


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is enforced.

    `throughput` is true (80 a second and number), false, or messages a second; `numbers` sets single numbers.
    `templates` refuses templates that were not registered, and wrong parameters for those that were.
    """

    window: bool = False
    pair_limit: bool = False
    throughput: bool | int = True
    templates: bool = False
    numbers: dict[str, int] = {}

    def rate(self, number: str) -> int | None:
        """Messages a second for one number; None is unlimited."""
        if number in self.numbers:
            return self.numbers[number]
        if isinstance(self.throughput, bool):
            return THROUGHPUT if self.throughput else None
        return self.throughput

    def problem(self) -> str | None:
        """What is wrong with this policy, if anything."""
        rates = [*self.numbers.values(), 1 if isinstance(self.throughput, bool) else self.throughput]
        return None if min(rates) > 0 else "throughput must be more than 0 messages a second"


class _Bucket:
    """One number's throughput: a second's worth may go at once, then one every 1/rate seconds."""

    __slots__ = ("at", "tokens")

    def __init__(self, rate: int, now: float) -> None:
        self.tokens = float(rate)
        self.at = now

    def take(self, rate: int, now: float, *, forced: bool = False) -> bool:
        self.tokens = min(rate, self.tokens + (now - self.at) * rate)
        self.at = now
        if self.tokens < 1 and not forced:
            return False
        self.tokens -= 1
        return True


class _Pair:
    """One business and one customer: a message every six seconds; a burst borrows from what follows."""

    __slots__ = ("count", "free_at", "started")

    def __init__(self) -> None:
        self.started = 0.0
        self.count = 0
        self.free_at = 0.0

    def take(self, now: float) -> bool:
        if now >= self.free_at:
            self.started, self.count = now, 0
        elif now - self.started >= PAIR_INTERVAL_S or self.count >= PAIR_BURST:
            return False
        self.count += 1
        self.free_at = self.started + self.count * PAIR_INTERVAL_S
        return True


class Enforcer:
    """Judges sends by the policy in force. The policy survives a restart; counters start fresh."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.policy = store.setting("policy", Policy, Policy())
        self._buckets: dict[str, _Bucket] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._most_pairs = _REMEMBERED_PAIRS

    def set(self, policy: Policy) -> None:
        """Put another policy in force, with full buckets."""
        self.policy = policy
        self._buckets.clear()
        self._pairs.clear()
        self._store.save_setting("policy", policy)

    def check(self, number: str, waba: str | None, message: Outgoing) -> None:
        """Refuse what breaks a rule (GraphError); otherwise count it."""
        now = time.monotonic()
        if not self._take(number, now):
            raise GraphError(130429, "Cloud API message throughput has been reached.")
        if self.policy.pair_limit and not self._pair(number, message.chat).take(now):
            raise GraphError(131056, "Too many messages sent from this number to the same recipient in a short period.")
        if self.policy.window and message.type != "template":
            self._check_window(number, message.chat)
        if self.policy.templates and isinstance(message.parsed, TemplateObject):
            self._check_template(waba, message.parsed)

    def count_inbound(self, number: str) -> None:
        """Inbound messages use the same throughput, but are never refused."""
        self._take(number, time.monotonic(), forced=True)

    def _take(self, number: str, now: float, *, forced: bool = False) -> bool:
        rate = self.policy.rate(number)
        if rate is None:
            return True
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket(rate, now)
        return bucket.take(rate, now, forced=forced)

    def _pair(self, number: str, chat: str) -> _Pair:
        if len(self._pairs) >= self._most_pairs:
            now = time.monotonic()
            self._pairs = {key: pair for key, pair in self._pairs.items() if pair.free_at > now}
            # Those that still matter are kept, however many they are; the next look comes when they have doubled.
            self._most_pairs = max(_REMEMBERED_PAIRS, 2 * len(self._pairs))
        return self._pairs.setdefault((number, chat), _Pair())

    def _check_window(self, number: str, chat: str) -> None:
        since = self._store.now() - WINDOW_MS
        condition = "SELECT 1 FROM messages WHERE chat = ? AND number = ? AND inbound AND at > ? LIMIT 1"
        if not self._store.select(condition, chat, number, since):
            raise GraphError(
                131047,
                "Message failed to send because more than 24 hours have passed since the customer last replied "
                "to this number.",
            )

    def _check_template(self, waba: str | None, template: TemplateObject) -> None:
        registered = find_template(self._store, waba, template.name, template.language.code)
        if registered is None:
            raise GraphError(
                132001,
                f"template name ({template.name}) does not exist in {template.language.code}",
            )
        if code := UNUSABLE.get(registered.get("status", "APPROVED")):
            raise GraphError(code, f"template ({template.name}) is {registered['status']}")
        check_parameters(registered, template.components or [])


def find_template(store: Store, waba: str | None, name: str, language: str) -> dict[str, Any] | None:
    """A registered template, of the given account if that is known."""
    statement = "SELECT body FROM templates WHERE name = ? AND language = ? AND (? IS NULL OR waba = ?)"
    found = store.select(statement, name, language, waba, waba)
    return msgspec.json.decode(found[0][0]) if found else None


def check_parameters(registered: dict[str, Any], given: list[Component]) -> None:
    """Compare a message's parameters with what the template's texts ask for. Raises GraphError 132000 or 132012."""
    for part in registered.get("components", []):
        kind = str(part.get("type", "")).lower()
        if kind in ("body", "header"):
            expected = placeholders(str(part.get("text", "")))
            parameters = [p for c in given if c.type.lower() == kind for p in c.parameters]
            if kind == "header" and str(part.get("format", "TEXT")).upper() != "TEXT":
                expected = ["media"]
            _compare(kind, expected, [p.parameter_name for p in parameters])
        elif kind == "buttons":
            _check_buttons(part.get("buttons", []), given)


def _check_buttons(buttons: list[dict[str, Any]], given: list[Component]) -> None:
    for index, button in enumerate(buttons):
        expected = placeholders(str(button.get("url", "")))
        if expected:
            matching = [c for c in given if c.type.lower() == "button" and str(c.index) == str(index)]
            _compare(f"button {index}", expected, [None for c in matching for _ in c.parameters])


def _compare(where: str, expected: list[str], names: list[str | None]) -> None:
    if len(expected) != len(names):
        raise GraphError(
            132000,
            f"{where}: number of localizable_params ({len(names)}) does not match the expected number of params "
            f"({len(expected)})",
        )
    if expected and not expected[0].isdecimal() and expected != ["media"] and set(expected) != set(names):
        raise GraphError(132012, f"{where}: expected the named parameters {', '.join(sorted(expected))}")


def placeholders(text: str) -> list[str]:
    """The distinct variables of a template's text, in order."""
    found: Iterable[str] = _PLACEHOLDER.findall(text)
    return list(dict.fromkeys(found))
