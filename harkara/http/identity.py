"""Who is asking: access tokens, API keys, and what both say about a request."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec

from harkara.http.access import EVERYTHING, Role

ACCESS_LIFETIME = timedelta(minutes=15)
REFRESH_LIFETIME = timedelta(days=30)

ISSUER = "harkara"
FOR_ACCESS = "harkara"
FOR_REFRESH = "harkara-refresh"

#: Verified tokens that are remembered at once; the least used go first.
REMEMBERED = 10_000

_KEY = re.compile(r"^hk_([a-z][a-z0-9-]{1,30}[a-z0-9])_[A-Za-z0-9_-]{20,100}\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request: a person (`user_id`) or a machine (`key_id`), in which tenant, and what it may do there."""

    tenant: str = ""
    user_id: UUID | None = None
    key_id: UUID | None = None
    role: Role = "viewer"
    scopes: frozenset[str] = frozenset()
    session: UUID | None = None


NOBODY = Identity()

#: What a person may do is said by the role alone.
PERSON = frozenset({EVERYTHING})


class Claims(msgspec.Struct, frozen=True):
    """What we put into a token: the user, its own id, and the refresh token it was issued with."""

    sub: UUID
    exp: int
    jti: UUID
    sid: UUID | None = None


class BadToken(Exception):
    """A token that is not good (any more); the text says why."""


class Tokens:
    """Issues and verifies our tokens: HS256 with a key derived from SECRET_KEY."""

    def __init__(self, secret_key: str) -> None:
        self._key = hmac.digest(secret_key.encode(), b"harkara access tokens", "sha256")
        self._kid = hashlib.sha256(self._key).hexdigest()[:8]
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    def access(self, user: UUID, session: UUID, now: datetime) -> str:
        """A token that opens the door for ACCESS_LIFETIME; `session` is the refresh token issued with it."""
        return self._sign(FOR_ACCESS, user, uuid4(), now + ACCESS_LIFETIME, now, sid=str(session))

    def refresh(self, user: UUID, token: UUID, now: datetime) -> str:
        """A token that is good once, for a new pair."""
        return self._sign(FOR_REFRESH, user, token, now + REFRESH_LIFETIME, now)

    def _sign(self, audience: str, user: UUID, id_: UUID, until: datetime, now: datetime, **more: str) -> str:
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": str(user),
            "jti": str(id_),
            "iat": int(now.timestamp()),
            "exp": int(until.timestamp()),
            **more,
        }
        return jwt.encode(claims, self._key, algorithm="HS256", headers={"kid": self._kid})

    def verify_access(self, token: str, now: datetime) -> Claims:
        """The claims of an access token. Raises BadToken. A token verified before costs one hash."""
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._verify(token, FOR_ACCESS, now)
            self._verified[digest] = claims
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        elif claims.exp <= now.timestamp():
            del self._verified[digest]
            raise BadToken("the access token has expired: get a new one from /auth/refresh")
        else:
            self._verified.move_to_end(digest)
        return claims

    def verify_refresh(self, token: str, now: datetime) -> Claims:
        """The claims of a refresh token. Raises BadToken."""
        return self._verify(token, FOR_REFRESH, now)

    def _verify(self, token: str, audience: str, now: datetime) -> Claims:
        try:
            if jwt.get_unverified_header(token).get("kid") != self._kid:
                raise BadToken("the token was signed with another key: log in again")
            found: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=audience,
                issuer=ISSUER,
                options={"require": ["exp", "sub", "jti"], "verify_exp": False, "verify_iat": False},
            )
            claims = msgspec.convert(found, Claims)
        except (jwt.PyJWTError, msgspec.ValidationError):
            raise BadToken("the token is not valid: log in again") from None
        if claims.exp <= now.timestamp():
            raise BadToken("the token has expired: " + _renewal(audience))
        return claims


def _renewal(audience: str) -> str:
    return "get a new one from /auth/refresh" if audience == FOR_ACCESS else "log in again"


def new_key(tenant: str) -> str:
    """A new API key; it names its tenant, so that it is looked up inside that tenant's row-level security."""
    return f"hk_{tenant}_{secrets.token_urlsafe(32)}"


def tenant_of_key(key: str) -> str | None:
    """The tenant a key says it is of; None if it isn't shaped like a key."""
    match = _KEY.match(key)
    return match[1] if match else None


def hash_of(key: str) -> str:
    """What is stored of a key: its SHA-256, in hex. A key is random, so no salt and no slow hash are needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def utc_now() -> datetime:
    """Now, aware."""
    return datetime.now(UTC)
