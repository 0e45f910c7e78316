"""Logging: loguru, one sink, text for people or one JSON object a line for machines."""

from __future__ import annotations

import logging
import sys

from loguru import logger

TEXT = "{time:HH:mm:ss.SSS} {level: <7} {message}"


class _ToLoguru(logging.Handler):
    """Hands what libraries log to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info, depth=6).log(record.levelname, record.getMessage())


def configure(level: str = "INFO", *, json: bool = False) -> None:
    """Set up logging to standard error; `level` is the least that is shown."""
    logger.remove()
    # `diagnose` would print the values of variables into tracebacks, and with them secrets.
    logger.add(sys.stderr, level=level.upper(), format=TEXT, serialize=json, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    # nats-py reports every reconnect attempt here; the bus says it once.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
