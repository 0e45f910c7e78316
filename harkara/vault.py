"""Encryption of stored secrets with a key that comes from SECRET_KEY."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Vault:
    """Encrypts and decrypts short secrets (Fernet: AES-128-CBC with HMAC-SHA256)."""

    def __init__(self, secret_key: str) -> None:
        key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"harkara stored secrets").derive(
            secret_key.encode()
        )
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, secret: str | None) -> bytes | None:
        """The encrypted form to store; None stays None."""
        return None if secret is None else self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes | None) -> str | None:
        """The secret again. Raises ValueError if it was sealed with another SECRET_KEY."""
        if sealed is None:
            return None
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise ValueError("a stored secret was encrypted with another SECRET_KEY: restore that key") from None
