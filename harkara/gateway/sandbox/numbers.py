"""The business numbers that the sandbox knows, and where their webhooks go."""

from __future__ import annotations

import zlib

import msgspec

from harkara.gateway.sandbox.store import Store

_WABA = "100000000000001"


class Number(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A business number as `PUT /sandbox/webhook` describes it.

    Without `url` it has no webhook; without `app_secret` its webhooks are unsigned; without `verify_token` the address
    is not verified; without `access_token` any token will do.
    """

    phone_number_id: str
    url: str = ""
    app_secret: str = ""
    verify_token: str = ""
    access_token: str = ""
    display_phone_number: str = ""
    waba_id: str = ""

    @property
    def display(self) -> str:
        """The number as people see it."""
        return self.display_phone_number or self.phone_number_id

    @property
    def waba(self) -> str:
        """The WhatsApp Business Account; one for all numbers that don't name theirs."""
        return self.waba_id or _WABA


class Numbers:
    """Registered numbers, kept over restarts. Unregistered ones work too unless `strict`, but have no webhook."""

    def __init__(self, store: Store, *, strict: bool = False) -> None:
        self._store = store
        self.strict = strict
        rows = store.select("SELECT body FROM numbers")
        known = [msgspec.json.decode(body, type=Number) for (body,) in rows]
        self._known = {number.phone_number_id: number for number in known}

    def register(self, number: Number) -> None:
        """Add or replace a number."""
        self._known[number.phone_number_id] = number
        self._store.write("REPLACE INTO numbers VALUES (?, ?)", number.phone_number_id, msgspec.json.encode(number))

    def forget(self, phone_number_id: str) -> bool:
        """Remove a number; False if there was none."""
        self._store.write("DELETE FROM numbers WHERE id = ?", phone_number_id)
        return self._known.pop(phone_number_id, None) is not None

    def get(self, phone_number_id: str) -> Number | None:
        """A registered number."""
        return self._known.get(phone_number_id)

    def all(self) -> list[Number]:
        """All registered numbers."""
        return list(self._known.values())

    def find(self, name: str) -> str | None:
        """The id of a number, given its id or the number itself in any spelling; any id unless `strict`."""
        if name in self._known:
            return name
        digits = _digits(name)
        for number in self._known.values():
            if digits and _digits(number.display_phone_number) == digits:
                return number.phone_number_id
        return None if self.strict else name

    def only(self) -> str | None:
        """The id of the only registered number."""
        return next(iter(self._known)) if len(self._known) == 1 else None


def user_id(chat: str) -> str:
    """The business-scoped user id of a phone: made up, but always the same."""
    if not chat.isdecimal():
        return chat
    return f"US.{zlib.crc32(chat.encode()):010d}{int(chat) % 10**6:06d}"


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdecimal())
