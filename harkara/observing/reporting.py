"""Reporting unexpected errors to Sentry, if SENTRY_DSN says where: what failed, in which line, never with which values.

What is unexpected is logged as an error with its exception; that is where it is taken from, so nothing is wrapped and
nothing costs anything until something fails. Sentry's own hooks into other libraries stay off.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from loguru import logger

from harkara.log import facts
from harkara.masking import without_secrets
from harkara.settings import SettingsError

if TYPE_CHECKING:
    from loguru import Message, Record

#: The same error at the same place is reported again after so many seconds, with the number of those in between.
AGAIN_S = 60.0

#: More kinds of errors than these are not told apart: then all are forgotten.
MOST_KINDS = 1000

#: By what one looks for errors; ids of single messages are shown with an event, and are no tags.
TAGS = ("actor", "tenant")


def report_errors(dsn: str, environment: str) -> None:
    """Report what is logged as an error with an exception, and what ends the process, from now on.

    Raises SettingsError if the DSN is none, or if the package is missing.
    """
    try:
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
        from sentry_sdk.integrations.excepthook import ExcepthookIntegration
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise SettingsError("SENTRY_DSN: needs one package more: pip install 'harkara[sentry]'") from None
    try:
        sentry_sdk.init(
            dsn,
            environment=environment,
            release=f"harkara@{version('harkara')}",
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[ExcepthookIntegration(), AtexitIntegration(callback=_say_nothing)],
            before_send=lambda event, hint: scrubbed(event),
            include_local_variables=False,
            send_default_pii=False,
            max_breadcrumbs=0,
            auto_session_tracking=False,
            enable_metrics=False,
        )
    except BadDsn as error:
        raise SettingsError(f"SENTRY_DSN: {error}: it looks like https://key@host/project") from None
    logger.add(_Reporter(), level="ERROR", filter=_unexpected, format="{message}")


def _say_nothing(_pending: int, _timeout: float) -> None:
    """On leaving, what is left is sent, without a word about it."""


def _unexpected(record: Record) -> bool:
    return record["exception"] is not None


class _Reporter:
    """A sink of the log."""

    def __init__(self) -> None:
        self._last: dict[Hashable, float] = {}
        self._more: dict[Hashable, int] = {}

    def __call__(self, message: Message) -> None:
        record = message.record
        error = record["exception"].value if record["exception"] else None
        if error is None:
            return
        kind, now = _kind(error), time.monotonic()
        if now - self._last.get(kind, -AGAIN_S) < AGAIN_S:
            self._more[kind] = self._more.get(kind, 0) + 1
            return
        if len(self._last) >= MOST_KINDS:
            self._last.clear()
            self._more.clear()
        self._last[kind] = now
        _report(error, record, self._more.pop(kind, 0))


def _kind(error: BaseException) -> Hashable:
    """Errors of one type that were raised in the same line are the same error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ()
    return type(error), where


def _report(error: BaseException, record: Record, more: int) -> None:
    import sentry_sdk
    from sentry_sdk.utils import event_from_exception

    event, hint = event_from_exception(error, sentry_sdk.get_client().options, {"type": "loguru", "handled": True})
    bound = {name: str(value) for name, value in facts(record).items()}
    event["level"] = "error"
    event["logger"] = record["name"] or ""
    # What stands behind a colon is the error's own text, which may be anything.
    event["logentry"] = {"message": record["message"].partition(":")[0]}
    event["tags"] = {name: bound.pop(name) for name in TAGS if name in bound}
    event["extra"] = {**bound, **({"since_the_last_one": more} if more else {})}
    sentry_sdk.capture_event(event, hint)


def scrubbed(event: Any) -> Any:
    """The event without values: texts only of errors of our own, and in these no secrets and no phone numbers."""
    for name in ("request", "user", "breadcrumbs"):
        event.pop(name, None)
    errors: list[dict[str, Any]] = event.get("exception", {}).get("values", [])
    for error in errors:
        ours = str(error.get("module")).partition(".")[0] == "harkara"
        error["value"] = without_secrets(str(error.get("value"))) if ours else ""
    for part in ("extra", "tags", "logentry"):
        event[part] = _without_secrets(event.get(part) or {})
    return event


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in values.items()}
