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
    """Who makes a request: a person (`user_id`) or a machine (`key_id`), in which tenant, and what it may do there.

    `until` is when a person's access token ends, in seconds since 1970: what stays open longer ends with it.
    """

    tenant: str = ""
    user_id: UUID | None = None
    key_id: UUID | None = None
    role: Role = "viewer"
    scopes: frozenset[str] = frozenset()
    session: UUID | None = None
    until: float | None = None


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
    """Issues and verifies our tokens: HS256 with a key derived from SECRET_KEY, which each token names by its `kid`.

    Tokens that were signed with one of the `previous` keys are still good; new ones are signed with the newest.
    """

    def __init__(self, secret_key: str, *previous: str) -> None:
        keys = [hmac.digest(one.encode(), b"harkara access tokens", "sha256") for one in (secret_key, *previous)]
        self._keys = {hashlib.sha256(key).hexdigest()[:8]: key for key in keys}
        self._kid = next(iter(self._keys))
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    def access(self, user: UUID, session: UUID | None, now: datetime) -> str:
        """A token that opens the door for ACCESS_LIFETIME, and no longer than the session: the refresh token issued
        with it."""
        more = {} if session is None else {"sid": str(session)}
        return self._sign(FOR_ACCESS, user, uuid4(), now + ACCESS_LIFETIME, now, **more)

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
        return jwt.encode(claims, self._keys[self._kid], algorithm="HS256", headers={"kid": self._kid})

    def verify_access(self, token: str, now: datetime) -> Claims:
        """The claims of an access token. Raises BadToken. A token verified before costs one hash."""
        if not token.isascii():  # bytes of a header that are no text can't even be encoded again
            raise BadToken("the token is not valid: log in again")
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

    def are_ours(self, token: str) -> bool:
        """Whether a token at least says that we issued it, good or not."""
        if not token.isascii():
            return True  # nor anybody else's
        try:
            return jwt.get_unverified_header(token).get("kid") in self._keys
        except jwt.PyJWTError:
            return False

    def _verify(self, token: str, audience: str, now: datetime) -> Claims:
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                raise BadToken("the token was signed with another key: log in again")
            found: dict[str, Any] = jwt.decode(
                token,
                key,
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
