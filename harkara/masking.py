"""What may be shown to whoever looks after the platform: never a code, a secret or somebody's number."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

#: What a message says: of a one-time code nobody is shown it.
_SAID = frozenset({"body", "content", "template", "variables", "media"})

#: What gives access, or is somebody's number: keys and tokens by how they begin, passwords by their place in a URL, and
#: whatever is as long as a phone number. An id's groups of digits stay: they are part of words.
_SECRETS = (
    re.compile(r"\bhk_[\w-]+"),
    re.compile(r"\beyJ[\w-]+(?:\.[\w-]+)*"),
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),
    re.compile(r"(?<![\w-])\+?\d(?:[ ().-]{0,2}\d){6,}(?![\w-])"),
)


def without_secrets(text: str) -> str:
    """The text without keys, tokens, passwords in URLs and phone numbers."""
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return text


def without_codes(body: bytes) -> Any:
    """A message's body as JSON, None if it is none; of a one-time code it is not told what it says."""
    try:
        told: object = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(told, dict):
        return told
    fields = cast("dict[str, object]", told)
    if fields.get("lane") != "otp":
        return fields
    return {name: "***" if name in _SAID else value for name, value in fields.items()}
