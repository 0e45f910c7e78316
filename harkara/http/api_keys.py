"""API keys: shown once, stored as a hash, revoked but never forgotten."""

from __future__ import annotations

import msgspec

from harkara.http.access import EVERYTHING, SCOPES, scopes_suffice
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.identity import hash_of, new_key
from harkara.http.keyring import Change
from harkara.http.lists import newest, page
from harkara.http.problems import forbidden, not_found
from harkara.http.rows import amend, shown
from harkara.schemas.api import ApiKeyMade, ApiKeyShown, NewApiKey, Page, Paging
from harkara.storage.models import ApiKey


async def index(ctx: Context[None, Paging]) -> Page[ApiKeyShown]:
    """All keys of the tenant, revoked ones too."""
    async with ctx.transaction():
        keys = await newest(ApiKey.all(), ctx.tenant, ctx.query)
    return page([shown(key, ApiKeyShown) for key in keys], ctx.query)


async def create(ctx: Context[NewApiKey, None]) -> ApiKeyMade:
    """A new key. It may do no more than who makes it: 403 otherwise."""
    wanted = ctx.body
    scopes = sorted(ctx.who.scopes if wanted.scopes is None else set(wanted.scopes))
    _check(ctx, scopes)
    text = new_key(ctx.tenant)
    async with ctx.transaction():
        key = await ApiKey.create(
            name=wanted.name.strip(),
            key_hash=hash_of(text),
            hint=f"…{text[-4:]}",
            scopes=scopes,
            expires_at=wanted.expires_at,
        )
    return ApiKeyMade(key=text, **msgspec.structs.asdict(shown(key, ApiKeyShown)))


def _check(ctx: Context[NewApiKey, None], scopes: list[str]) -> None:
    faults = Faults()
    check_new(ctx, faults)
    faults.refuse()
    beyond = [scope for scope in scopes if not _may_give(ctx.who.scopes, scope)]
    if beyond:
        raise forbidden(f"a key can't give what it doesn't have: {', '.join(beyond)}")


def check_new(ctx: Context[NewApiKey, None], faults: Faults, _region: str | None = None) -> None:
    """Its scopes, and until when it is good."""
    possible = ", ".join(sorted(SCOPES))
    for index, scope in enumerate(ctx.body.scopes or ()):
        if scope not in SCOPES:
            faults.add(f"scopes[{index}]", f"is no scope: possible are {possible}")
    if ctx.body.scopes == []:
        faults.add("scopes", f"must not be empty: possible are {possible}")
    if ctx.body.expires_at is not None and faults.instant("expires_at", ctx.body.expires_at) <= ctx.door.clock():
        faults.add("expires_at", "must lie in the future")


def _may_give(own: frozenset[str], scope: str) -> bool:
    return EVERYTHING in own or (scope != EVERYTHING and scopes_suffice(own, scope))


async def revoke(ctx: Context[None, None]) -> None:
    """End a key for good, at once and everywhere."""
    async with ctx.transaction():
        key = await ApiKey.get_or_none(id=ctx.id("key_id"))
        if key is None:
            raise not_found("API key")
        if key.revoked_at is None:
            await amend(key, {"revoked_at": ctx.door.clock()})
    ctx.door.access_changed(Change(tenant=ctx.tenant, key_id=key.id))
