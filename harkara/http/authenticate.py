"""The first layer: find out who is asking, and whether they may. Nothing is read from a body before that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from harkara.http.access import Access, Account, Public, Role, role_suffices, scopes_suffice
from harkara.http.context import Context, answering
from harkara.http.identity import PERSON, BadToken, Identity, hash_of, tenant_of_key
from harkara.http.problems import Problem, forbidden, malformed, unauthenticated
from harkara.storage.storage import Storage

#: How long another process may still believe what we have changed.
TRUSTED_FOR = timedelta(seconds=2)

#: Accounts remembered at once; when it is more, all are asked again.
REMEMBERED = 10_000

FIND_KEY = """
select k.id, k.scopes, k.expires_at, k.revoked_at from api_keys k join tenants t on t.id = k.tenant_id
where k.key_hash = $1 and t.is_active
"""

TOUCH_KEY = """
update api_keys set last_used_at = now()
where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')
"""


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in one tenant."""

    tenant: str
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of an API key."""

    id: UUID
    tenant: str
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None


class Keyring:
    """Memberships and keys, asked from the database and believed for two seconds."""

    def __init__(self, storage: Storage, clock: Callable[[], datetime]) -> None:
        self._storage, self._clock = storage, clock
        self._members: dict[UUID, tuple[datetime, tuple[Membership, ...]]] = {}
        self._keys: dict[str, tuple[datetime, Key]] = {}

    async def memberships(self, user: UUID) -> tuple[Membership, ...]:
        """The active tenants of an active user, by name; empty if there is none."""
        now = self._clock()
        known = self._members.get(user)
        if known is not None and known[0] > now:
            return known[1]
        async with answering(self._storage.anonymous()) as con:
            rows = await con.fetch("select tenant_id, tenant_name, role from app.memberships($1)", user)
        found = tuple(Membership(row["tenant_id"], row["tenant_name"], row["role"]) for row in rows)
        if len(self._members) >= REMEMBERED:
            self._members.clear()
        self._members[user] = (now + TRUSTED_FOR, found)
        return found

    async def key(self, text: str) -> Key | None:
        """What is known of a key; None if there is no such key. Whether it has expired is for the caller to see."""
        tenant = tenant_of_key(text)
        if tenant is None:
            return None
        now, digest = self._clock(), hash_of(text)
        known = self._keys.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        async with answering(self._storage.tenant(tenant)) as con:
            row = await con.fetchrow(FIND_KEY, digest)
            if row is None:
                return None
            await con.execute(TOUCH_KEY, row["id"])
        key = Key(row["id"], tenant, frozenset(row["scopes"]), row["expires_at"], row["revoked_at"])
        if len(self._keys) >= REMEMBERED:
            self._keys.clear()
        self._keys[digest] = (now + TRUSTED_FOR, key)
        return key

    def forget(self) -> None:
        """Ask the database again from now on: a key or a membership was changed here."""
        self._members.clear()
        self._keys.clear()


async def authenticate(ctx: Context[Any, Any], inner: Callable[[Context[Any, Any]], Awaitable[object]]) -> object:
    """Set `ctx.who`, or refuse: 401 unknown, 403 known but not allowed, 404 for a tenant one has no part in."""
    if not isinstance(ctx.route.access, Public):
        ctx.who = await identify(ctx)
        allow(ctx)
    return await inner(ctx)


async def identify(ctx: Context[Any, Any]) -> Identity:
    """Who makes this request, by its `Authorization` or `X-API-Key` header. Raises Problem 401, 404 or 400."""
    headers = ctx.request.headers
    key = headers.get("X-API-Key")
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if key is None and scheme.lower() == "bearer" and token.startswith("hk_"):
        key = token
    if key is not None:
        return await _by_key(ctx, key)
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated("say who you are: `Authorization: Bearer …` with an access token, or `X-API-Key: hk_…`")
    return await _by_token(ctx, token)


async def _by_key(ctx: Context[Any, Any], text: str) -> Identity:
    key = await ctx.door.keyring.key(text)
    if key is None:
        raise unauthenticated("there is no such API key: check it, or make a new one with POST /api/v1/api-keys")
    if key.revoked_at is not None:
        raise unauthenticated("this API key was revoked: make a new one with POST /api/v1/api-keys")
    if key.expires_at is not None and key.expires_at <= ctx.door.clock():
        raise unauthenticated("this API key has expired: make a new one with POST /api/v1/api-keys")
    if ctx.request.headers.get("X-Tenant-ID", key.tenant) != key.tenant:
        raise _no_such_tenant()
    return Identity(key.tenant, key_id=key.id, role="owner", scopes=key.scopes)


async def _by_token(ctx: Context[Any, Any], token: str) -> Identity:
    try:
        claims = ctx.door.tokens.verify_access(token, ctx.door.clock())
    except BadToken as error:
        raise unauthenticated(str(error)) from None
    members = await ctx.door.keyring.memberships(claims.sub)
    wanted = ctx.request.headers.get("X-Tenant-ID")
    anonymous = Identity(user_id=claims.sub, scopes=PERSON, session=claims.sid)
    if wanted is None and len(members) != 1:
        if isinstance(ctx.route.access, Account):
            return anonymous
        raise _choose(members)
    for member in members:
        if wanted in (None, member.tenant):
            return Identity(member.tenant, claims.sub, role=member.role, scopes=PERSON, session=claims.sid)
    raise _no_such_tenant()


def _choose(members: tuple[Membership, ...]) -> Problem:
    if not members:
        return forbidden("you are not an active member of any tenant: ask an owner to add you")
    names = ", ".join(member.tenant for member in members)
    return malformed(f"you belong to several tenants: name one in the header X-Tenant-ID ({names})")


def _no_such_tenant() -> Problem:
    return Problem(404, "there is no such tenant among yours: check the header X-Tenant-ID")


def allow(ctx: Context[Any, Any]) -> None:
    """Raise Problem 403 unless this identity may use this route."""
    rule, who = ctx.route.access, ctx.who
    if not isinstance(rule, Access):
        return
    if who.key_id is not None and not scopes_suffice(who.scopes, rule.scope):
        raise forbidden(f"this API key lacks the scope {rule.scope}: make one that has it")
    if who.user_id is not None and not role_suffices(who.role, rule.role):
        raise forbidden(f"this needs the role {rule.role}, you are {who.role}: ask an owner")
