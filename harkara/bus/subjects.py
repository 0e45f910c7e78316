"""Reading subjects: which filter takes which, and what a token may hold."""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def matches(pattern: str, subject: str) -> bool:
    """Whether a filter with the wildcards `*` (one token) and `>` (one or more) takes this subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and _all_match(wanted[:-1], tokens)
    return len(tokens) == len(wanted) and _all_match(wanted, tokens)


def _all_match(wanted: list[str], tokens: list[str]) -> bool:
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


def covers(pattern: str, narrower: str) -> bool:
    """Whether every subject that `narrower` takes is also taken by `pattern`."""
    wide, thin = pattern.split("."), narrower.split(".")
    for index, want in enumerate(wide):
        if want == ">":
            return len(thin) > index
        if index >= len(thin) or thin[index] == ">" or want not in ("*", thin[index]):
            return False
    return len(thin) == len(wide)


def as_token(text: str) -> str:
    """The text as one safe subject token, at most 64 characters; different texts may become the same token."""
    return _UNSAFE.sub("-", text)[:64] or "-"
