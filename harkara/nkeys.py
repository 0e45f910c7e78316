"""The broker's own kind of keys and tokens: Ed25519 keys that are written in base32, and the JWTs they sign.

`python -m harkara.nkeys` makes an account key, as the front doors' setting and as that of the broker.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: What a key is for is its first letter: S for a seed, A for an account.
_SEED, _ACCOUNT = 18 << 3, 0

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class BadSeed(ValueError):
    """A text that is no account's seed."""


class AccountKey:
    """Signs in an account's name."""

    def __init__(self, secret: bytes) -> None:
        """From the 32 secret bytes."""
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        #: As the broker's configuration names it: `A…`.
        self.public = _written(bytes([_ACCOUNT]) + self._key.public_key().public_bytes_raw())

    @classmethod
    def derived(cls, secret: str) -> AccountKey:
        """The key that belongs to this secret text: always the same one."""
        return cls(hashlib.sha256(b"harkara account key:" + secret.encode()).digest())

    @classmethod
    def of_seed(cls, seed: str) -> AccountKey:
        """The key with this seed, `SA…`. Raises BadSeed."""
        try:
            raw = base64.b32decode(seed.strip() + "=" * (-len(seed.strip()) % 8))
        except binascii.Error:
            raw = b""
        if len(raw) != 36 or raw[:2] != _SEED_OF_ACCOUNT or binascii.crc_hqx(raw[:-2], 0) != _checksum(raw):
            raise BadSeed("is no seed of an account key: it begins with SA; `python -m harkara.nkeys` makes one")
        return cls(raw[2:-2])

    @property
    def seed(self) -> str:
        """The secret as a text: `SA…`."""
        return _written(_SEED_OF_ACCOUNT + self._secret)

    def token(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims, issued now and by this key."""
        said = {**claims, "iss": self.public, "iat": int(time.time())}
        said["jti"] = base64.b32encode(hashlib.sha256(msgspec.json.encode(said)).digest()).decode().rstrip("=")
        signed = f"{_part(_HEADER)}.{_part(said)}"
        return f"{signed}.{_base64(self._key.sign(signed.encode()))}"


def claims_of(token: bytes) -> Any:
    """What a JWT says, whoever signed it: for what comes from where nobody else can send. Raises ValueError."""
    _, claims, _ = token.split(b".")
    return msgspec.json.decode(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))


def _written(data: bytes) -> str:
    checked = data + binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _checksum(raw: bytes) -> int:
    return int.from_bytes(raw[-2:], "little")


def _part(value: Mapping[str, Any]) -> str:
    return _base64(msgspec.json.encode(value))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


#: Five bits of the letter S, then the whole letter of what the seed is of, over two bytes.
_SEED_OF_ACCOUNT = bytes([_SEED | _ACCOUNT >> 5, (_ACCOUNT & 31) << 3])


if __name__ == "__main__":
    made = AccountKey(os.urandom(32))
    sys.stdout.write(f"NATS_PARTNERS_SEED={made.seed}\nNATS_PARTNERS_ISSUER='\"{made.public}\"'\n")
