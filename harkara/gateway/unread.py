"""Webhooks are read item by item where need be: what can't be read is noted with its place, and the rest counts."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import msgspec

#: How `parse` says that a body is no webhook of Meta's.
UNREADABLE = (msgspec.MsgspecError, KeyError, ValueError, OverflowError, OSError, RecursionError)

#: A webhook of Meta's has at most 1,000 items; one of which so many can't be read is none.
MOST_UNREAD = 1_000


def items(part: dict[str, Any], name: str, at: str, unread: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with its place. Whatever else is there is noted."""
    listed = part.get(name)
    for place, one in enumerate(cast("list[object]", listed) if isinstance(listed, list) else []):
        if isinstance(one, dict):
            yield f"{at}{name}[{place}]", cast("dict[str, Any]", one)
        else:
            _note(unread, f"{at}{name}[{place}]: it is no object")
    if listed is not None and not isinstance(listed, list):
        _note(unread, f"{at}{name}: it is no list")


@contextmanager
def noting(at: str, unread: list[str]) -> Generator[None]:
    """Note what can't be read in this place, and go on."""
    try:
        yield
    except KeyError as error:
        _note(unread, f"{at}: {error} is missing")
    except UNREADABLE as error:
        _note(unread, f"{at}: {error}")


def _note(unread: list[str], what: str) -> None:
    """Raises ValueError if it is too much, so that nobody can keep us busy."""
    unread.append(what)
    if len(unread) > MOST_UNREAD:
        raise ValueError(f"more than {MOST_UNREAD} of its items can't be read: {unread[0]}")


_S = TypeVar("_S")


def lenient(part: Any, type_: type[_S]) -> _S:
    """An object in which numbers may stand for texts, and texts for numbers. Raises msgspec.ValidationError."""
    try:
        return msgspec.convert(part, type_)
    except msgspec.ValidationError:
        return msgspec.convert(_as_texts(part), type_, strict=False)


def _as_texts(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _as_texts(one) for key, one in cast("dict[str, Any]", part).items()}
    if isinstance(part, list):
        return [_as_texts(one) for one in part]  # pyright: ignore[reportUnknownVariableType]
    return str(part) if isinstance(part, int) and not isinstance(part, bool) else part
