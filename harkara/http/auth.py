"""Signing up, logging in, staying logged in, and who one is."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from harkara.http.authenticate import Membership
from harkara.http.checks import Faults
from harkara.http.context import Context, answering
from harkara.http.identity import ACCESS_LIFETIME, REFRESH_LIFETIME, BadToken
from harkara.http.problems import Problem, unauthenticated
from harkara.ids import uuid7
from harkara.schemas.api import LogIn, Me, MemberOf, Person, Refresh, SignUp, TenantName, TokenPair

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The same answer whether the account or the password is wrong.
WRONG = "email or password is wrong: check both"

SIGN_UP = "select app.signup($1, $2, $3, $4, $5, $6)"
ISSUE = "select app.refresh_issue($1, $2, $1, $3)"
ROTATE = "select app.refresh_rotate($1, $2, $3)"
REVOKE = "select app.refresh_revoke($1)"


async def signup(ctx: Context[SignUp, None]) -> TokenPair:
    """A new tenant with its owner, who is logged in. 409 if the tenant's id or the email is taken."""
    wanted, faults = ctx.body, Faults()
    email = faults.email("email", wanted.email)
    name = faults.filled("tenant.name", wanted.tenant.name)
    faults.refuse()
    hashed = await ctx.door.passwords.hash(wanted.password)
    user, now = uuid7(), ctx.door.clock()
    try:
        async with ctx.before_tenants() as con:
            await con.execute(SIGN_UP, wanted.tenant.id, name, user, email, hashed, uuid7())
            token = await _issue(con, user, now)
    except asyncpg.UniqueViolationError as error:
        raise _taken(error) from None
    return _pair(ctx, user, token, now, (Membership(wanted.tenant.id, name, "owner"),))


def _taken(error: asyncpg.UniqueViolationError) -> Problem:
    if error.table_name == "tenants":
        path, detail = "tenant.id", "this tenant id is taken: choose another"
    else:
        path, detail = "email", "there is an account with this email: log in, or use another"
    return Problem(409, detail, errors=[(path, detail)])


async def login(ctx: Context[LogIn, None]) -> TokenPair:
    """A new pair of tokens. 401 takes as long and reads the same whether or not there is such an account."""
    async with ctx.before_tenants() as con:
        row = await con.fetchrow("select user_id, password_hash from app.login($1)", ctx.body.email.strip())
    stored = row["password_hash"] if row else None
    if not await ctx.door.passwords.verify(stored, ctx.body.password) or row is None:
        raise unauthenticated(WRONG)
    user, now = row["user_id"], ctx.door.clock()
    async with ctx.before_tenants() as con:
        token = await _issue(con, user, now)
    return _pair(ctx, user, token, now, await ctx.door.keyring.memberships(user))


async def refresh(ctx: Context[Refresh, None]) -> TokenPair:
    """A new pair for a refresh token, which is used up. Using one twice ends the whole login."""
    now, token = ctx.door.clock(), uuid4()
    try:
        claims = ctx.door.tokens.verify_refresh(ctx.body.refresh_token, now)
    except BadToken as error:
        raise unauthenticated(str(error)) from None
    async with ctx.before_tenants() as con:
        user = await con.fetchval(ROTATE, claims.jti, token, now + REFRESH_LIFETIME)
    if user is None:
        raise unauthenticated("this refresh token was used or revoked: log in again")
    return _pair(ctx, user, token, now, await ctx.door.keyring.memberships(user))


async def logout(ctx: Context[Refresh | None, None]) -> None:
    """End a login: of the refresh token in the body, else of the access token. Access tokens last out their minutes."""
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
        await con.execute(REVOKE, session)


async def me(ctx: Context[None, None]) -> Me:
    """Who is asking, where, and what they may do."""
    who = ctx.who
    members = await ctx.door.keyring.memberships(who.user_id) if who.user_id else ()
    tenant = who.tenant or (members[0].tenant if members else "")
    user, name = await _person(ctx, tenant) if tenant else (None, "")
    return Me(
        user=user,
        api_key_id=who.key_id,
        tenant=TenantName(id=who.tenant, name=name) if who.tenant else None,
        role=who.role if who.tenant and who.user_id else None,
        scopes=sorted(who.scopes),
        tenants=_shown(members),
    )


async def _person(ctx: Context[None, None], tenant: str) -> tuple[Person | None, str]:
    async with answering(ctx.door.storage.tenant(tenant)) as con:
        row = await con.fetchrow("select id, email, name from users where id = $1", ctx.who.user_id)
        name = await con.fetchval("select name from tenants where id = $1", tenant)
    return (Person(id=row["id"], email=row["email"], name=row["name"]) if row else None), name


async def _issue(con: Connection, user: UUID, now: datetime) -> UUID:
    token = uuid4()
    await con.execute(ISSUE, token, user, now + REFRESH_LIFETIME)
    return token


def _pair(ctx: Context[Any, Any], user: UUID, token: UUID, now: datetime, members: tuple[Membership, ...]) -> TokenPair:
    only = members[0] if len(members) == 1 else None
    return TokenPair(
        access_token=ctx.door.tokens.access(user, token, now),
        refresh_token=ctx.door.tokens.refresh(user, token, now),
        expires_in=int(ACCESS_LIFETIME.total_seconds()),
        tenant=TenantName(id=only.tenant, name=only.name) if only else None,
        tenants=_shown(members),
    )


def _shown(members: tuple[Membership, ...]) -> list[MemberOf]:
    return [MemberOf(id=member.tenant, name=member.name, role=member.role) for member in members]
