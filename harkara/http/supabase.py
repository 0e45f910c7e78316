"""Access tokens of Supabase Auth, for a deployment whose people log in there: SUPABASE_JWT_SECRET turns it on."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import jwt
import msgspec

from harkara.http.identity import BadToken
from harkara.settings import Settings

AUDIENCE = "authenticated"

#: What every project's issuer ends with.
ISSUED_AT = "/auth/v1"

REQUIRED = ["exp", "iss", "sub", "aud"]


class SupabaseUser(msgspec.Struct, frozen=True):
    """Who logged in at Supabase, until when the token says so, and their address, if it is confirmed."""

    subject: UUID
    until: int
    email: str | None


class _Claims(msgspec.Struct, frozen=True):
    """What matters of a token. `user_metadata` belongs to the user: see `_confirmed`."""

    sub: UUID
    exp: int
    iss: str
    role: str = ""
    email: str | None = None
    email_verified: bool | None = None
    is_anonymous: bool = False
    user_metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Supabase:
    """Verifies tokens that one Supabase project signed with its secret."""

    def __init__(self, secret: str, url: str = "") -> None:
        self._secret = secret
        self._issuer = url.rstrip("/") + ISSUED_AT if url else None

    @classmethod
    def of(cls, settings: Settings) -> Supabase | None:
        """As the settings say; None if they say nothing of Supabase."""
        if not settings.supabase_jwt_secret:
            return None
        return cls(settings.supabase_jwt_secret, settings.supabase_url)

    def verify(self, token: str, now: datetime) -> SupabaseUser:
        """Whose token it is. Raises BadToken, also for the project's keys, which belong to no person."""
        try:
            found: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                audience=AUDIENCE,
                options={"require": REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            claims = msgspec.convert(found, _Claims, strict=True)
        except (jwt.PyJWTError, msgspec.ValidationError):
            raise BadToken("the token is not valid: log in again") from None
        if claims.exp <= now.timestamp():
            raise BadToken("the token has expired: refresh it at Supabase")
        if claims.role != AUDIENCE or claims.is_anonymous or not self._is_issuer(claims.iss):
            raise BadToken("the token is not a person's login at this Supabase project: log in there")
        return SupabaseUser(claims.sub, claims.exp, claims.email if _confirmed(claims) else None)

    def _is_issuer(self, issuer: str) -> bool:
        if self._issuer is not None:
            return issuer == self._issuer
        return issuer.startswith(("https://", "http://")) and issuer.endswith(ISSUED_AT)


def _confirmed(claims: _Claims) -> bool:
    """Whether Supabase says that the address was confirmed.

    The token itself has no such claim unless a hook of the project adds one. Supabase notes it in `user_metadata`,
    which the user may edit: so it is worth no more than the project's own setting that nobody gets a token without
    confirming. That is why an account's subject, once it is stored, is the only one that it has.
    """
    told = claims.user_metadata.get("email_verified") if claims.email_verified is None else claims.email_verified
    return told is True and bool(claims.email)
