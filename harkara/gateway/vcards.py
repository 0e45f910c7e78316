"""Contacts that somebody passes on, out of the vCards in which WhatsApp's own network sends them."""

from __future__ import annotations

import re
from typing import Any

#: A line that goes on in the next one.
_FOLD = re.compile(r"\r?\n[ \t]")
_NAME = re.compile(r"^(?:[\w-]+\.)?FN(?:;[^:\r\n]*)?:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_PHONE = re.compile(r"^(?:[\w-]+\.)?TEL((?:;[^:\r\n]*)?):([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_WA_ID = re.compile(r";waid=(\d+)", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")


def contact(vcard: str, name: str | None = None) -> dict[str, Any]:
    """A contact as the Cloud API writes it: what it is called, else its number; and its numbers."""
    text = _FOLD.sub("", vcard)
    phones = [_phone(parameters, number) for parameters, number in _PHONE.findall(text)]
    said = _NAME.search(text)
    named = name or (_ESCAPED.sub(r"\1", said[1]).strip() if said else "")
    called = named or (phones[0]["phone"] if phones else "")
    return {"name": {"formatted_name": called}, "phones": phones}


def _phone(parameters: str, number: str) -> dict[str, str]:
    known = _WA_ID.search(parameters)
    return {"phone": number.strip(), **({"wa_id": known[1]} if known else {})}
