"""Who asked for a command, said by the front door in a header that nobody else can write."""

from __future__ import annotations

import hashlib
import hmac

_MAC_BYTES = 16


class Callers:
    """Signs what the front door says of a caller, for one command, and tells what was signed. It gives no rights."""

    def __init__(self, secret_key: str, *previous: str) -> None:
        keys = (secret_key, *previous)
        self._keys = [hmac.digest(key.encode(), b"harkara commands' callers", "sha256") for key in keys]

    def sign(self, tenant: str, command: str, said: str) -> str:
        """The header's value; `said` is JSON in ASCII."""
        return f"{_mac(self._keys[0], tenant, command, said)} {said}"

    def read(self, tenant: str, command: str, header: str) -> str:
        """What was said; empty if nothing was, or not by us and of this command."""
        mac, _, said = header.partition(" ")
        known = (_mac(key, tenant, command, said) for key in self._keys)
        return said if any(hmac.compare_digest(mac.encode(), one.encode()) for one in known) else ""


def _mac(key: bytes, tenant: str, command: str, said: str) -> str:
    # Keyed BLAKE2b is a MAC by itself (RFC 7693), and each command gets one: an HMAC would cost four times as much.
    return hashlib.blake2b(f"{tenant} {command} {said}".encode(), digest_size=_MAC_BYTES, key=key).hexdigest()
