"""Encryption of stored secrets with a key that comes from SECRET_KEY."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Vault:
    """Encrypts and decrypts short secrets (Fernet: AES-128-CBC with HMAC-SHA256).

    What was sealed with one of the `previous` keys still opens; what is sealed now is sealed with the newest.
    """

    def __init__(self, secret_key: str, *previous: str) -> None:
        self._newest, *older = (_fernet(key) for key in (secret_key, *previous))
        self._all = MultiFernet([self._newest, *older])

    def seal(self, secret: str | None) -> bytes | None:
        """The encrypted form to store; None stays None."""
        return None if secret is None else self._newest.encrypt(secret.encode())

    def open(self, sealed: bytes | None) -> str | None:
        """The secret again. Raises ValueError if it was sealed with another SECRET_KEY."""
        if sealed is None:
            return None
        try:
            return self._all.decrypt(sealed).decode()
        except InvalidToken:
            raise ValueError(
                "a stored secret was encrypted with another SECRET_KEY: name that key in SECRET_KEY_PREVIOUS"
            ) from None

    def resealed(self, sealed: bytes | None) -> bytes | None:
        """The same secret under the newest key; None if it is sealed with that, or not at all. Raises as `open`."""
        if sealed is None:
            return None
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            return self.seal(self.open(sealed))
        return None


def _fernet(secret_key: str) -> Fernet:
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"harkara stored secrets").derive(
        secret_key.encode()
    )
    return Fernet(base64.urlsafe_b64encode(key))
