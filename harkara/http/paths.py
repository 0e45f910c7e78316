"""How a route's path is told to the router: what is a fixed word beside an id is no id."""

from __future__ import annotations

from collections.abc import Collection, Iterator


def for_router(path: str, paths: Collection[str]) -> str:
    """The path, with ids that can't be words which other paths have in their place.

    Without that `PATCH /contacts/import` would be about a contact of that name, and not a method that is not there.
    """
    segments = path.split("/")
    return "/".join(_segment(segments, place, paths) for place in range(len(segments)))


def _segment(segments: list[str], place: int, paths: Collection[str]) -> str:
    segment = segments[place]
    words = sorted(set(_words(segments[:place], paths)))
    if not segment.endswith("_id}") or not words:
        return segment
    return f"{segment[:-1]}:(?!(?:{'|'.join(words)})(?:/|$))[^/]+}}"


def _words(before: list[str], paths: Collection[str]) -> Iterator[str]:
    """What other paths have after the same beginning, if it is no parameter."""
    for path in paths:
        segments = path.split("/")
        if len(segments) > len(before) and segments[: len(before)] == before and "{" not in segments[len(before)]:
            yield segments[len(before)]
