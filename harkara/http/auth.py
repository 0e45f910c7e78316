"""Signing up, logging in, staying logged in, and out again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.identity import ACCESS_LIFETIME, REFRESH_LIFETIME, BadToken
from harkara.http.keyring import Change, Membership
from harkara.http.me import tenants_of
from harkara.http.problems import Problem, unauthenticated
from harkara.ids import uuid7
from harkara.schemas.api import LogIn, Refresh, SignUp, TenantName, TokenPair

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The same answer whether the account or the password is wrong.
WRONG = "email or password is wrong: check both"

SIGN_UP = "select app.signup($1, $2, $3, $4, $5, $6)"
ISSUE = "select app.refresh_issue($1, $2, $3, $4)"
ROTATE = "select member, good from app.refresh_rotate($1, $2, $3)"
REVOKE = "select app.refresh_revoke($1)"
REHASH = "select app.rehash($1, $2, $3)"


async def signup(ctx: Context[SignUp, None]) -> TokenPair:
    """A new tenant with its owner, who is logged in. 409 if the tenant's id or the email is taken."""
    wanted, faults = ctx.body, Faults()
    email, name = check_signup(ctx, faults)
    faults.refuse()
    await ctx.door.throttle.signup(ctx.customer)
    hashed = await ctx.door.passwords.hash(wanted.password)
    user, now = uuid7(), ctx.door.clock()
    try:
        async with ctx.before_tenants() as con:
            await con.execute(SIGN_UP, wanted.tenant.id, name, user, email, hashed, uuid7())
            token = await _issue(con, user, hashed, now)
    except asyncpg.UniqueViolationError as error:
        raise _taken(error) from None
    if token is None:  # closed in the very same moment
        raise unauthenticated(WRONG)
    return _pair(ctx, user, token, now, (Membership(wanted.tenant.id, name, "owner"),))


def check_signup(ctx: Context[SignUp, None], faults: Faults, _region: str | None = None) -> tuple[str, str]:
    """The address, and the tenant's name."""
    return faults.email("email", ctx.body.email), faults.filled("tenant.name", ctx.body.tenant.name)


def _taken(error: asyncpg.UniqueViolationError) -> Problem:
    if error.table_name == "tenants":
        path, detail = "tenant.id", "this tenant id is taken: choose another"
    else:
        path, detail = "email", "there is an account with this email: log in, or use another"
    return Problem(409, detail, errors=[(path, detail)])


async def login(ctx: Context[LogIn, None]) -> TokenPair:
    """A new pair of tokens. 401 takes as long and reads the same whether or not there is such an account."""
    email, now = ctx.body.email.strip(), ctx.door.clock()
    attempt = await ctx.door.throttle.login(email, ctx.customer)
    for _ in range(2):  # another log-in may hash the same password anew between our looking at it and our beginning
        user, hashed = await _right(ctx, email)
        async with ctx.before_tenants() as con:
            token = await _issue(con, user, hashed, now)
        if token is not None:
            await ctx.door.throttle.succeeded(attempt)
            return _pair(ctx, user, token, now, await ctx.door.keyring.memberships(user))
    raise unauthenticated(WRONG)


async def _right(ctx: Context[LogIn, None], email: str) -> tuple[UUID, str]:
    """Whose password it is, and its hash: with today's parameters from now on. Raises Problem 401 if it is wrong."""
    password, passwords = ctx.body.password, ctx.door.passwords
    async with ctx.before_tenants() as con:
        row = await con.fetchrow("select user_id, password_hash from app.login($1)", email)
    stored: str | None = row["password_hash"] if row else None
    if not await passwords.verify(stored, password) or row is None or stored is None:
        raise unauthenticated(WRONG)
    if passwords.is_old(stored):
        fresh = await passwords.hash(password)
        async with ctx.before_tenants() as con:
            if await con.fetchval(REHASH, row["user_id"], stored, fresh):
                stored = fresh
    return row["user_id"], stored


async def refresh(ctx: Context[Refresh, None]) -> TokenPair:
    """A new pair for a refresh token, which is used up. Using one twice ends the whole login."""
    now, token = ctx.door.clock(), uuid4()
    try:
        claims = ctx.door.tokens.verify_refresh(ctx.body.refresh_token, now)
    except BadToken as error:
        raise unauthenticated(str(error)) from None
    async with ctx.before_tenants() as con:
        row = await con.fetchrow(ROTATE, claims.jti, token, now + REFRESH_LIFETIME)
    if row is None or not row["good"]:
        if row is not None:  # the session has just been ended, its access tokens with it
            ended = Change(user_id=row["member"])
            ctx.when_committed(lambda: ctx.door.access_changed(ended))
        raise unauthenticated("this refresh token was used or revoked: log in again")
    user = row["member"]
    return _pair(ctx, user, token, now, await ctx.door.keyring.memberships(user))


async def logout(ctx: Context[Refresh | None, None]) -> None:
    """End a login, of the refresh token in the body or else of the access token: both are good for nothing then."""
    tokens, now = ctx.door.tokens, ctx.door.clock()
    try:
        if ctx.body is not None:
            session: UUID | None = tokens.verify_refresh(ctx.body.refresh_token, now).jti
        else:
            _, _, token = ctx.request.headers.get("Authorization", "").partition(" ")
            session = tokens.verify_access(token.strip(), now).sid
    except BadToken as error:
        raise unauthenticated(str(error)) from None
    async with ctx.before_tenants() as con:
        user = await con.fetchval(REVOKE, session)
    if user is not None:
        ctx.when_committed(lambda: ctx.door.access_changed(Change(user_id=user)))


async def _issue(con: Connection, user: UUID, hashed: str, now: datetime) -> UUID | None:
    """Begin a session; None if the password that was checked is not the account's any more."""
    token = uuid4()
    return token if await con.fetchval(ISSUE, token, user, hashed, now + REFRESH_LIFETIME) else None


def _pair(ctx: Context[Any, Any], user: UUID, token: UUID, now: datetime, members: tuple[Membership, ...]) -> TokenPair:
    known = [member for member in members if member.accepted] or members
    only = known[0] if len(known) == 1 else None
    return TokenPair(
        access_token=ctx.door.tokens.access(user, token, now),
        refresh_token=ctx.door.tokens.refresh(user, token, now),
        expires_in=int(ACCESS_LIFETIME.total_seconds()),
        tenant=TenantName(id=only.tenant, name=only.name) if only else None,
        tenants=tenants_of(members),
    )
