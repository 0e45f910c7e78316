"""What may be shown to whoever looks after the platform: never a code, a secret or somebody's number."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any, NamedTuple, cast

import msgspec

#: What a message says: of a one-time code nobody is shown it.
_SAID = frozenset({"body", "content", "template", "variables", "media"})

#: What msgspec raises for a body that is no JSON.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: As many letters are shown of a body that is no JSON.
_LETTERS = 200

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
    except _NO_JSON:
        return None
    if not isinstance(told, dict):
        return told
    fields = cast("dict[str, object]", told)
    if fields.get("lane") != "otp":
        return fields
    return {name: "***" if name in _SAID else value for name, value in fields.items()}


class Raw(NamedTuple):
    """A body that is no JSON: its bytes, and how it begins, with dots for what is no letter. Both `***` of a code."""

    base64: str
    begins: str


def raw(body: bytes, subject: str) -> Raw | None:
    """The bytes of a body that was published there; None if it is JSON, which `without_codes` shows.

    Where nothing can be read, what looks like a one-time code's is taken for one.
    """
    try:
        msgspec.json.decode(body)
    except _NO_JSON:
        if b"otp" in body.lower() or subject.endswith(".otp"):
            return Raw("***", "***")
        text = body.decode("utf-8", "replace")[:_LETTERS]
        return Raw(b64encode(body).decode(), "".join(letter if letter.isprintable() else "·" for letter in text))
    return None
