"""Logging: loguru, one sink, text for people or one JSON object a line for machines; never what somebody sent.

What a line is about, such as tenant, cause, message, actor and attempt, is bound once, by the bus (`about`).

Of an exception its type and where it was raised are logged. Its text only if it is one of ours, which are written to be
read: a database's or a parser's repeats the values it stumbled over, and those may be secrets.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec
from loguru import logger

if TYPE_CHECKING:
    from loguru import Record

#: Frames of a traceback that are shown: the ones nearest to the fault.
FRAMES = 12

#: Tells what is being worked on in this context. A function, because it is set for every message and hardly ever asked.
about: ContextVar[Callable[[], dict[str, Any]] | None] = ContextVar("about", default=None)

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Seldom:
    """Lines of which a flood may bring thousands: the first of a kind is written, of the others how many there were."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._more: dict[Hashable, int] = {}

    def first(self, kind: Hashable, level: str, text: str) -> bool:
        """Whether this one is to be written. If not, `text` is, once in `every_s` seconds, with the number of them.

        To be called inside a running loop.
        """
        if kind in self._more:
            self._more[kind] += 1
            return False
        self._wait(kind, level, text)
        return True

    def _wait(self, kind: Hashable, level: str, text: str) -> None:
        self._more[kind] = 0
        asyncio.get_running_loop().call_later(self._every_s, self._tell, kind, level, text)

    def _tell(self, kind: Hashable, level: str, text: str) -> None:
        more = self._more.pop(kind)
        if more:
            logger.log(level, "{}: {} times more in {:g} s", text, more, self._every_s)
            self._wait(kind, level, text)


class _ToLoguru(logging.Handler):
    """Hands what libraries log to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info, depth=6).log(record.levelname, record.getMessage())


def facts(record: Record) -> dict[str, Any]:
    """What a line is about: what is bound where it is written, after what is bound for all that is going on there."""
    asked = about.get()
    bound = {} if asked is None else asked()
    return bound | {name: value for name, value in record["extra"].items() if not name.startswith("_")}


def text(record: Record) -> str:
    """The format of a line for people; an exception's frames follow on lines of their own."""
    error = _error(record)
    record["extra"]["_about"] = "".join(f" {name}={value}" for name, value in facts(record).items())
    record["extra"]["_trace"] = "".join(f"\n    {line}" for line in error)
    return "{time:HH:mm:ss.SSS} {level: <7} {message}{extra[_about]}{extra[_trace]}\n"


def line(record: Record) -> str:
    """The format of a line for machines: one JSON object."""
    said: dict[str, Any] = {
        "at": record["time"].isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
        **facts(record),
    }
    if error := _error(record):
        said["error"] = error
    record["extra"]["_line"] = _encode(said).decode()
    return "{extra[_line]}\n"


def _error(record: Record) -> list[str]:
    """What failed, and where, from the outside in; an exception that caused another comes first."""
    exception = record["exception"]
    told: list[str] = []
    error = exception.value if exception else None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        where = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        told = [*where, _named(error), *told]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


def _named(error: BaseException) -> str:
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {error}" if kind.__module__.partition(".")[0] == "harkara" else name


def configure(level: str = "INFO", *, json: bool = False) -> None:
    """Set up logging to standard error; `level` is the least that is shown."""
    logger.remove()
    logger.add(sys.stderr, level=level.upper(), format=line if json else text, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    # nats-py reports every reconnect attempt here; the bus says it once.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
