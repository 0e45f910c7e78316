"""Ids, numbers, texts and times of a webhook, as the database can hold them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, cast

#: A phone number without its plus, and the longest ids, as the database can hold them.
_PHONE = re.compile("[1-9][0-9]{5,14}")
_LONGEST_ID = 128
_LONGEST_USER_ID = 64


def who(phone: object, user_id: object) -> tuple[str | None, str | None]:
    """The number (E.164 without `+`) and the user id of somebody.

    What is no phone number is left out if there is an id. Raises ValueError if nobody can be told by them.
    """
    known, id_ = a_number(phone), an_id(user_id, _LONGEST_USER_ID) if user_id else None
    if known is None and id_ is None:
        raise ValueError(f"{str(phone)[:_LONGEST_USER_ID]!r} is no phone number, and there is no user id")
    return known, id_


def a_number(phone: object) -> str | None:
    """Its digits, if it is a phone number."""
    digits = str(phone).removeprefix("+") if isinstance(phone, str | int) else ""
    return digits if _PHONE.fullmatch(digits) else None


def an_id(value: object, longest: int = _LONGEST_ID) -> str:
    """An id as the database can hold it. Raises ValueError if it can't."""
    text = str(value) if isinstance(value, str | int) else ""
    if not text or len(text) > longest or "\0" in text:
        raise ValueError(f"{str(value)[:_LONGEST_USER_ID]!r} is no id")
    return text


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
    """The time of so many seconds. Raises ValueError, OverflowError or OSError if it is none."""
    return datetime.fromtimestamp(int(timestamp), UTC)
