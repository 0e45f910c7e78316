"""The people of a tenant: who belongs to it, as what, and since when.

An account is a person's own and may belong to several tenants. A tenant decides about its membership alone: it gives
the role, may call the person what it likes, and never touches their password or learns where else they belong.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from harkara.http.access import EVERYTHING, Role
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.keyring import Change
from harkara.http.lists import before, page
from harkara.http.problems import Problem, conflict, forbidden, not_found
from harkara.http.rows import amend
from harkara.ids import uuid7
from harkara.schemas.api import MemberMade, MemberQuery, MemberShown, NewMember, Page, PatchMember
from harkara.storage.models import TenantUser

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What a person calls themselves is shown once they have come; before that, what the tenant calls them.
MEMBERS = """
select u.id, u.email, coalesce(nullif(m.name, ''), case when m.accepted_at is not null then u.name end, '') as name,
       m.role, m.is_active, m.accepted_at, m.created_at, m.updated_at
from tenant_users m join users u on u.id = m.user_id where m.tenant_id = $1
"""
PAGE = f"""
select * from ({MEMBERS} and m.user_id < $2) p
where ($4::text is null or role = $4) and ($5::bool is null or is_active = $5)
  and ($6::text is null or position(lower($6) in lower(name || ' ' || email)) > 0)
order by id desc limit $3
"""  # noqa: S608 - our own words
ONE = MEMBERS + "and m.user_id = $2"

ADD = "select member, added from app.add_member($1, $2, $3, $4, $5, $6)"

#: Whoever changes who belongs to a tenant waits for the one before, so that what was checked is still true.
IN_TURN = "select from tenants where id = $1 for no key update"

AUTHORITY = "select role from tenant_users where tenant_id = $1 and user_id = $2 and is_active"

HAS_OWNER = """
select exists (select from tenant_users m join users u on u.id = m.user_id
               where m.tenant_id = $1 and m.role = 'owner' and m.is_active and u.is_active)
"""


async def index(ctx: Context[None, MemberQuery]) -> Page[MemberShown]:
    """The people of this tenant, those who were deactivated too."""
    async with ctx.transaction() as con:
        wanted = (ctx.query.role, ctx.query.is_active, ctx.query.q)
        rows = await con.fetch(PAGE, ctx.tenant, before(ctx.query), ctx.query.limit + 1, *wanted)
    return page([MemberShown(**row) for row in rows], ctx.query)


async def create(ctx: Context[NewMember, None]) -> MemberMade:
    """Add a person. Whoever has an account already keeps it as it is, password included, and just belongs here too.

    Without a password one is made up and shown once: it counts only for a new account, and which it was is not told.
    """
    wanted, faults = ctx.body, Faults()
    email = check_new(ctx, faults)
    faults.refuse()
    _check_key(ctx)
    password = wanted.password or secrets.token_urlsafe(12)
    hashed = await ctx.door.passwords.hash(password)
    async with ctx.transaction() as con:
        _check_gift(await _authority(ctx, con), wanted.role)
        row: Any = await con.fetchrow(ADD, uuid7(), uuid7(), email, " ".join(wanted.name.split()), hashed, wanted.role)
        if not row["added"]:
            raise _member_before(row["member"])
        made = await _shown(con, ctx.tenant, row["member"])
    ctx.when_committed(lambda: ctx.door.access_changed(Change(tenant=ctx.tenant, user_id=made.id)))
    return MemberMade(password=None if wanted.password else password, **msgspec.structs.asdict(made))


def check_new(ctx: Context[NewMember, None], faults: Faults, _region: str | None = None) -> str:
    """The address."""
    return faults.email("email", ctx.body.email)


def _member_before(member: UUID) -> Problem:
    problem = conflict("they are a member already: change them with PATCH /api/v1/users/{user_id}", user_id=member)
    problem.errors.append(("email", "is a member's already"))
    return problem


async def change(ctx: Context[PatchMember, None]) -> MemberShown:
    """Change somebody's role here, what they are called here, or whether they may come in at all."""
    body = ctx.body
    changes = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if body.name is not UNSET:
        changes["name"] = " ".join(body.name.split())
    if body.role is not UNSET or body.is_active is True:
        _check_key(ctx)
    async with ctx.transaction() as con:
        member = await _target(ctx, con, role=None if body.role is UNSET else body.role)
        await amend(member, changes)
        await _check_owner(ctx, con)
        made = await _shown(con, ctx.tenant, member.user_id)
    ctx.door.access_changed(Change(tenant=ctx.tenant, user_id=made.id))
    return made


async def remove(ctx: Context[None, None]) -> None:
    """Put somebody out of this tenant. Their account stays, and whatever else it belongs to."""
    async with ctx.transaction() as con:
        member = await _target(ctx, con)
        await member.delete()
        await _check_owner(ctx, con)
    ctx.door.access_changed(Change(tenant=ctx.tenant, user_id=member.user_id))


async def _target(ctx: Context[Any, Any], con: Connection, role: Role | None = None) -> TenantUser:
    """The member that is to be changed, perhaps to this role. Raises Problem 404, or 403 if that is not for the caller.

    From then on nobody else changes who belongs to this tenant until the transaction ends.
    """
    authority = await _authority(ctx, con)
    member = await TenantUser.get_or_none(user_id=ctx.id("user_id"))
    if member is None:
        raise not_found("user")
    if member.role == "owner" and authority != "owner":
        raise forbidden("only an owner, logged in as a person, changes an owner: ask one")
    if role is not None:
        _check_gift(authority, role)
    return member


async def _authority(ctx: Context[Any, Any], con: Connection) -> Role:
    """What the caller is at this moment, nobody else changing anybody meanwhile. A key is an admin at most."""
    await con.execute(IN_TURN, ctx.tenant)
    if ctx.who.user_id is None:
        return "admin"
    role: Role | None = await con.fetchval(AUTHORITY, ctx.tenant, ctx.who.user_id)
    if role not in ("admin", "owner"):
        raise forbidden("your role has just been changed: ask an owner")
    return role


def _check_key(ctx: Context[Any, Any]) -> None:
    """A person may do everything that their role allows: a key that may not can't make one who may."""
    if ctx.who.key_id is not None and EVERYTHING not in ctx.who.scopes:
        raise forbidden(f"a key can't give what it doesn't have: this needs the scope {EVERYTHING}")


def _check_gift(authority: Role, role: Role) -> None:
    if role == "owner" and authority != "owner":
        raise forbidden("only an owner, logged in as a person, makes owners: ask one")


async def _check_owner(ctx: Context[Any, Any], con: Connection) -> None:
    if not await con.fetchval(HAS_OWNER, ctx.tenant):
        raise conflict("the tenant would be left without an active owner: make somebody else owner first")


async def _shown(con: Connection, tenant: str, member: UUID) -> MemberShown:
    row: Any = await con.fetchrow(ONE, tenant, member)
    return MemberShown(**row)
