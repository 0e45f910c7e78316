"""One's own account: who one is, what one is called, and one's password."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.keyring import Change, Membership
from harkara.http.problems import conflict, forbidden, invalid, unauthenticated
from harkara.schemas.api import Me, MemberOf, PatchMe, Person, TenantName

ACCOUNT = "select id, email, name, password_hash from app.account($1)"
CHANGE = "select app.change_account($1, $2, $3, $4, $5)"


async def show(ctx: Context[None, None]) -> Me:
    """Who is asking, where, and what they may do."""
    return await _me(ctx)


async def change(ctx: Context[PatchMe, None]) -> Me:
    """Change one's own name or password. Another password needs the one before, and ends all other logins at once."""
    user, faults = ctx.who.user_id, Faults()
    if user is None:
        raise forbidden("an API key has no account to change: log in as a person")
    name = check_changes(ctx, faults)
    faults.refuse()
    old_hash, new_hash = await _passwords(ctx)
    begin = ctx.transaction if ctx.tenant else ctx.before_tenants
    async with begin() as con:
        if not await con.fetchval(CHANGE, user, name, old_hash, new_hash, ctx.who.session):
            raise conflict("the password has just been changed by somebody else: log in again")
    if new_hash is not None:
        ctx.door.access_changed(Change(user_id=user))
    return await _me(ctx)


def check_changes(ctx: Context[PatchMe, None], faults: Faults, _region: str | None = None) -> str | None:
    """The name, if it changes; and whether what another password needs is there."""
    body = ctx.body
    if body.password is not UNSET and body.current_password is UNSET:
        faults.add("current_password", "is needed to set another password")
    return None if body.name is UNSET else " ".join(body.name.split())


async def _passwords(ctx: Context[PatchMe, None]) -> tuple[str | None, str | None]:
    """The hash of the password before, once it is known to be right, and of the new one; nothing if it stays."""
    body, passwords = ctx.body, ctx.door.passwords
    if body.password is UNSET or body.current_password is UNSET:
        return None, None
    async with ctx.before_tenants() as con:
        row = await con.fetchrow(ACCOUNT, ctx.who.user_id)
    if row is None:
        raise unauthenticated("this account was closed")
    stored = row["password_hash"]
    attempt = await ctx.door.throttle.login(row["email"], ctx.customer)
    if not await passwords.verify(stored, body.current_password):
        raise invalid(("current_password", "is wrong"))
    await ctx.door.throttle.succeeded(attempt)
    return stored, await passwords.hash(body.password)


async def _me(ctx: Context[Any, Any]) -> Me:
    who = ctx.who
    members = (await ctx.door.keyring.standing(who.user_id, who.session)).memberships if who.user_id else ()
    async with ctx.before_tenants() as con:
        row = await con.fetchrow(ACCOUNT, who.user_id) if who.user_id else None
    return Me(
        user=Person(id=row["id"], email=row["email"], name=row["name"]) if row else None,
        api_key_id=who.key_id,
        tenant=await _tenant(ctx) if who.tenant else None,
        role=who.role if who.tenant and who.user_id else None,
        scopes=sorted(who.scopes),
        tenants=tenants_of(members),
    )


async def _tenant(ctx: Context[Any, Any]) -> TenantName:
    async with ctx.transaction() as con:
        name = await con.fetchval("select name from tenants where id = $1", ctx.tenant)
    return TenantName(id=ctx.tenant, name=name)


def tenants_of(members: tuple[Membership, ...]) -> list[MemberOf]:
    """Memberships as they are shown."""
    return [MemberOf(id=member.tenant, name=member.name, role=member.role) for member in members]
