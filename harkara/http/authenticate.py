"""The first layer: find out who is asking, and whether they may. Nothing is read from a body before that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from harkara.http.access import Access, Account, Public, role_suffices, scopes_suffice
from harkara.http.context import Context, answering
from harkara.http.identity import PERSON, BadToken, Claims, Identity
from harkara.http.keyring import Change, Key, Membership
from harkara.http.problems import Problem, forbidden, malformed, unauthenticated
from harkara.http.route import Route

Handler = Callable[[Context[Any, Any]], Awaitable[object]]

#: The first request of a member who was added by others: from then on this tenant is one of theirs.
ACCEPT = "update tenant_users set accepted_at = now(), updated_at = now() where user_id = $1 and accepted_at is null"


NO_ACCOUNT = "nobody here has the address of this Supabase login: confirm it there, and ask an owner to add you"


def authenticate(route: Route, inner: Handler) -> Handler:
    """Set `ctx.who`, or refuse: 401 unknown, 403 known but not allowed, 404 for a tenant one has no part in."""
    if isinstance(route.access, Public):
        return inner

    def known(ctx: Context[Any, Any]) -> Awaitable[object]:
        text = ctx.request.headers.get("X-API-Key")
        key = None if text is None else ctx.door.keyring.known_key(text)
        if key is None:
            return asked(ctx)
        ctx.who = _of_key(ctx, key)
        allow(ctx)
        return inner(ctx)

    async def asked(ctx: Context[Any, Any]) -> object:
        ctx.who = await identify(ctx)
        allow(ctx)
        return await inner(ctx)

    return known


async def identify(ctx: Context[Any, Any]) -> Identity:
    """Who makes this request, by its `Authorization` or `X-API-Key` header. Raises Problem 401, 404 or 400."""
    headers = ctx.request.headers
    key = headers.get("X-API-Key")
    if key is not None:
        return await _by_key(ctx, key)
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() == "bearer" and token.startswith("hk_"):
        return await _by_key(ctx, token)
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated("say who you are: `Authorization: Bearer …` with an access token, or `X-API-Key: hk_…`")
    return await _by_token(ctx, token)


async def _by_key(ctx: Context[Any, Any], text: str) -> Identity:
    return _of_key(ctx, await ctx.door.keyring.key(text))


def in_force(key: Key | None, now: datetime) -> Key:
    """The key, if it is good. Raises Problem 401 for one that is not, or no longer."""
    if key is None:
        raise unauthenticated("there is no such API key: check it, or make a new one with POST /api/v1/api-keys")
    if key.revoked_at is not None:
        raise unauthenticated("this API key was revoked: make a new one with POST /api/v1/api-keys")
    if key.expires_at is not None and key.expires_at <= now:
        raise unauthenticated("this API key has expired: make a new one with POST /api/v1/api-keys")
    return key


def _of_key(ctx: Context[Any, Any], found: Key | None) -> Identity:
    key = in_force(found, ctx.door.clock())
    if ctx.request.headers.get("X-Tenant-ID", key.tenant) != key.tenant:
        raise _no_such_tenant()
    return key.who


async def _by_token(ctx: Context[Any, Any], token: str) -> Identity:
    claims = await _claims(ctx, token)
    standing = await ctx.door.keyring.standing(claims.sub, claims.sid)
    if not standing.alive:
        raise unauthenticated("this login was ended: log in again")
    member = _meant(standing.memberships, ctx.request.headers.get("X-Tenant-ID"))
    if member is None:
        if isinstance(ctx.route.access, Account):
            return Identity(user_id=claims.sub, scopes=PERSON, session=claims.sid)
        raise _choose(standing.memberships)
    if not member.accepted:
        await _accept(ctx, member.tenant, claims.sub)
    return Identity(member.tenant, claims.sub, role=member.role, scopes=PERSON, session=claims.sid, until=claims.exp)


async def _claims(ctx: Context[Any, Any], token: str) -> Claims:
    """Whose token it is: ours, or Supabase's of somebody who has an account here."""
    door = ctx.door
    try:
        return door.tokens.verify_access(token, door.clock())
    except BadToken as error:
        if door.supabase is None or door.tokens.are_ours(token):
            raise unauthenticated(str(error)) from None
    try:
        person = door.supabase.verify(token, door.clock())
    except BadToken as error:
        raise unauthenticated(str(error)) from None
    user = await door.keyring.of_supabase(person.subject, person.email)
    if user is None:
        raise unauthenticated(NO_ACCOUNT)
    return Claims(sub=user, exp=person.until, jti=person.subject)


def _meant(members: tuple[Membership, ...], wanted: str | None) -> Membership | None:
    """The tenant that is named, or the only one; of several the only one where they have ever been."""
    if wanted is not None:
        for member in members:
            if member.tenant == wanted:
                return member
        raise _no_such_tenant()
    known = [member for member in members if member.accepted] or members
    return known[0] if len(known) == 1 else None


async def _accept(ctx: Context[Any, Any], tenant: str, user: UUID) -> None:
    async with answering(ctx.door.storage.tenant(tenant)) as con:
        await con.execute(ACCEPT, user)
    ctx.door.access_changed(Change(tenant=tenant, user_id=user))


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
