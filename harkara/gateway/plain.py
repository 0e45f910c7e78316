"""Ids, numbers, texts and times of a webhook, as the database can hold them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, cast

#: A phone number without its plus, and the longest ids, as the database can hold them. A user id is a country's two
#: letters, `ENT` if it is of several portfolios, and up to 128 characters, with periods between.
_PHONE = re.compile("[1-9][0-9]{5,14}")
_LONGEST_ID = 128
LONGEST_USER_ID = 2 + 1 + 3 + 1 + 128

#: So much is shown of what can't be read.
_LONGEST_SHOWN = 64


def who(phone: object, user_id: object) -> tuple[str | None, str | None]:
    """The number (E.164 without `+`) and the user id of somebody.

    What is none is left out if there is the other. Raises ValueError if nobody can be told by them.
    """
    known = a_number(phone)
    if known is not None:
        return known, str(user_id) if _fits(user_id, LONGEST_USER_ID) else None
    if not user_id:
        raise ValueError(f"{str(phone)[:_LONGEST_SHOWN]!r} is no phone number, and there is no user id")
    return None, an_id(user_id, LONGEST_USER_ID)


def a_number(phone: object) -> str | None:
    """Its digits, if it is a phone number."""
    digits = str(phone).removeprefix("+") if isinstance(phone, str | int) else ""
    return digits if _PHONE.fullmatch(digits) else None


def an_id(value: object, longest: int = _LONGEST_ID) -> str:
    """An id as the database can hold it. Raises ValueError if it can't."""
    if not _fits(value, longest):
        raise ValueError(f"{str(value)[:_LONGEST_SHOWN]!r} is no id")
    return str(value)


def _fits(id_: object, longest: int) -> bool:
    """Whether it is an id that the database can hold."""
    text = str(id_) if isinstance(id_, str | int) else ""
    return 0 < len(text) <= longest and "\0" not in text


def a_text(part: object) -> str | None:
    """A text as the database can hold it."""
    return None if part is None else str(part).replace("\0", "")


def texts(*parts: object) -> tuple[str, ...]:
    """Those that say something."""
    return tuple(text for part in parts if (text := a_text(part)))


def an_object(part: object) -> dict[str, Any]:
    """A JSON object as it is; anything else as an empty one."""
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def a_time(timestamp: str) -> datetime:
    """The time of so many seconds since 1970. Raises ValueError, OverflowError or OSError if it is none."""
    if (seconds := int(timestamp)) < 0:
        raise ValueError(f"{timestamp[:_LONGEST_SHOWN]!r} is no time")
    return datetime.fromtimestamp(seconds, UTC)
