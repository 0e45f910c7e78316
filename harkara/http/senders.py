"""Senders: WhatsApp business numbers. Their secrets go in encrypted and never come out."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import UNSET
from redis.exceptions import RedisError
from tortoise.exceptions import IntegrityError

from harkara.http import sandbox, templates
from harkara.http.checks import Faults
from harkara.http.contacts import region_for
from harkara.http.context import Answer, Context
from harkara.http.held_back import REDIS_PATIENCE_S, by_number, passing
from harkara.http.lists import listed, picked
from harkara.http.problems import Problem, conflict, not_found, operators
from harkara.http.route import PREFIX
from harkara.http.rows import amend
from harkara.http.webhooks import sender_changed
from harkara.schemas.api import NewSender, Page, PatchSender, SenderMade, SenderQuery, SenderShown, SessionShown
from harkara.schemas.work import Release
from harkara.storage import halting, pausing, redis_keys
from harkara.storage.idling import NOTHING, Passing
from harkara.storage.models import Campaign, Message, Sender

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The providers that lend a phone's account.
SESSIONS = ("evolution", "waha")

#: What each provider can't do without.
NEEDED = {
    "cloud": ("phone_number_id", "access_token", "app_secret"),
    "evolution": ("phone_number_id", "access_token"),
    "waha": ("phone_number_id", "access_token"),
    "sandbox": (),
}

#: What is copied from a provider's pages: `True` for what is made of Latin letters, digits and signs there.
COPIED = {
    "phone_number_id": False,
    "waba_id": False,
    "portfolio_id": False,
    "access_token": True,
    "app_secret": True,
    "verify_token": False,
}

#: What a row says of why its number rests.
_OF_A_REST = ("status_reason", "error_code")

#: Campaigns that are named when a sender can't be deleted because of them.
NAMED = 3

#: What to do instead of deleting one that something hangs on for good.
INSTEAD = 'pause it instead (PATCH {"status":"paused"})'


async def index(ctx: Context[None, SenderQuery]) -> Page[SenderShown]:
    """All senders, newest first."""
    query = ctx.query
    wanted = {"status": query.status, "provider": query.provider, "name__icontains": query.q}
    async with ctx.transaction():
        rows, last = await picked(Sender.all(), ctx.tenant, query, wanted)
    passes = await passing(ctx.door.redis, [row.id for row in rows])
    return listed([shown_sender(ctx, row, passes[row.id]) for row in rows], last)


async def show(ctx: Context[None, None]) -> SenderShown:
    """One sender."""
    async with ctx.transaction():
        sender = await get_sender(ctx)
    passes = await passing(ctx.door.redis, [sender.id])
    return shown_sender(ctx, sender, passes[sender.id])


async def create(ctx: Context[NewSender, None]) -> Answer[SenderMade]:
    """A new sender. One of the sandbox is registered there at once: 502 if that fails, and nothing is left of it.

    While an operator has paused the tenant it is `paused` like all others, and goes on with them.
    """
    faults = Faults()
    columns = check_new(ctx, faults, None if ctx.body.phone is None else await region_for(ctx, ctx.body.phone))
    faults.refuse()
    try:
        async with ctx.transaction() as con:
            if (why := await pausing.tenant_paused(con, ctx.tenant, hold=True)) is not None:
                columns |= {"status": "paused", "status_reason": why, "status_since": ctx.came_at}
            sender = await Sender.create(**columns)
            if templates.may_sync(sender):
                await templates.soon(ctx, con, sender.id)
    except IntegrityError:
        raise await _taken(ctx, str(columns["phone_number_id"])) from None
    made = SenderMade(
        verify_token=sender.verify_token,
        **msgspec.structs.asdict(shown_sender(ctx, sender)),
    )

    async def register() -> SenderMade:
        await _register(ctx, sender)
        return made

    return Answer(made, afterwards=register if sender.provider == "sandbox" else None)


def check_new(ctx: Context[NewSender, None], faults: Faults, region: str | None) -> dict[str, Any]:
    """The columns of a new sender."""
    wanted = ctx.body
    for name in () if faults.is_made_up("provider") else NEEDED[wanted.provider]:
        if getattr(wanted, name) is None:
            faults.add(name, f"is needed for the provider {wanted.provider}")
    copied = {name: check_copied(name, getattr(wanted, name), faults) for name in COPIED}
    access_token, app_secret, phone_number_id = map(copied.get, ("access_token", "app_secret", "phone_number_id"))
    if wanted.provider in SESSIONS and app_secret is None:
        app_secret = secrets.token_urlsafe(32)  # starting the session tells it to the gateway
    if wanted.provider == "sandbox":
        access_token, app_secret = access_token or secrets.token_urlsafe(24), app_secret or secrets.token_urlsafe(24)
        phone_number_id = phone_number_id or f"1{secrets.randbelow(10**14):014d}"
    return {
        "name": faults.filled("name", wanted.name),
        "provider": wanted.provider,
        "phone": None if wanted.phone is None else faults.phone("phone", wanted.phone, region),
        "phone_number_id": phone_number_id,
        "waba_id": copied["waba_id"],
        "access_token": ctx.door.vault.seal(access_token),
        "app_secret": ctx.door.vault.seal(app_secret),
        "verify_token": copied["verify_token"] or secrets.token_urlsafe(24),
        "mps": wanted.mps,
        "daily_limit": wanted.daily_limit,
        "portfolio_id": copied["portfolio_id"],
        "pair_limit": wanted.pair_limit,
        "window": wanted.window or ("enforce" if wanted.provider == "cloud" else "ignore"),
    }


def check_copied(name: str, value: str | None, faults: Faults) -> str | None:
    """A secret or an id as it was meant, however it was pasted."""
    return None if value is None else faults.credential(name, value, plain=COPIED[name])


async def _taken(ctx: Context[Any, Any], phone_number_id: str) -> Problem:
    async with ctx.transaction():
        other = await Sender.get_or_none(phone_number_id=phone_number_id)
    return conflict(
        "another sender has this phone_number_id: change that one, or delete it first",
        sender_id=other.id if other else None,
    )


async def _register(ctx: Context[Any, Any], sender: Sender) -> None:
    """The sandbox asks our webhook for the challenge during this call, so it comes after the commit."""
    vault = ctx.door.vault
    try:
        await sandbox.register(
            ctx.door.settings.whatsapp_gateway_url,
            sandbox.Registration(
                phone_number_id=sender.phone_number_id,
                url=webhook_url(ctx, sender),
                app_secret=vault.open(sender.app_secret) or "",
                verify_token=sender.verify_token,
                access_token=vault.open(sender.access_token) or "",
                display_phone_number=sender.phone or "",
                waba_id=sender.waba_id or "",
            ),
        )
    except BaseException as error:
        async with ctx.transaction():
            await sender.delete()
        if isinstance(error, sandbox.NotRegistered):
            raise Problem(502, f"the sandbox gateway did not take this sender: {error}") from None
        raise


def webhook_url(ctx: Context[Any, Any], sender: Sender) -> str:
    """Where the sender's gateway reports to."""
    kind = sender.provider if sender.provider in SESSIONS else "whatsapp"
    return f"{ctx.door.settings.public_url.rstrip('/')}{PREFIX}/webhooks/{kind}/{sender.id}"


def shown_sender(ctx: Context[Any, Any], row: Sender, passes: Passing = NOTHING) -> SenderShown:
    """A sender as users see it; a rest that passes in seconds looks like any other."""
    now = ctx.door.clock()
    made = {
        "session": shown_session(row),
        "why": by_number(row, passes, now),
        "webhook_url": webhook_url(ctx, row),
    }
    given = {name: getattr(row, name) for name in SenderShown.__struct_fields__ if name not in made}
    if row.status == "active" and (rests := passes.rests_until) is not None and rests > now:
        held = row.held_until if row.held_until is not None and row.held_until > now else None
        given |= {"held_until": max(rests, held or rests)} | ({} if held else dict.fromkeys(_OF_A_REST))
    return msgspec.convert(given | made, SenderShown)


def shown_session(row: Sender) -> SessionShown | None:
    """How its phone is linked, as far as is known; None for gateways without such sessions."""
    if row.provider not in SESSIONS:
        return None
    qr = f"{PREFIX}/senders/{row.id}/qr" if row.session_state == "scan_qr" else None
    found = {"state": row.session_state or "unknown", "detail": row.session_detail, "at": row.session_at, "qr_url": qr}
    return msgspec.convert(found, SessionShown)


#: The other numbers of the same portfolio, which use up the same limit.
_PORTFOLIO = """
select o.id from senders s join senders o
  on o.tenant_id = s.tenant_id and o.id <> s.id
    and coalesce(o.portfolio_id, o.waba_id) = coalesce(s.portfolio_id, s.waba_id)
where s.tenant_id = $1 and s.id = $2 order by o.id
"""


async def change(ctx: Context[PatchSender, None]) -> SenderShown:
    """Change what may change; a secret that is given replaces the one before.

    409 for the status of one that an operator has paused: only operators have it go on.
    """
    region = await region_for(ctx, ctx.body.phone) if isinstance(ctx.body.phone, str) else None
    async with ctx.transaction() as con:
        sender = await (get_sender(ctx, lock=True) if ctx.body.status is UNSET else _ours_to_change(ctx, con))
        changes, alert = _changes(ctx, sender, region), sender.alert_id
        await amend(sender, changes)
        if changes.get("status") == "active":
            await halting.went_on(con, ctx.tenant, [sender.id], ctx.cause)
            if alert is not None:
                await halting.resolved(con, ctx.tenant, alert, [sender.id], ctx.cause)
            ctx.telling = True
        if {"waba_id", "access_token"} & changes.keys() and templates.may_sync(sender):
            await templates.soon(ctx, con, sender.id)
        others = list[UUID]()
        if {"daily_limit", "portfolio_id"} & changes.keys():
            others = [row[0] for row in await con.fetch(_PORTFOLIO, ctx.tenant, sender.id)]
            shared = Release(sender_ids=[str(id_) for id_ in (sender.id, *others)])
            await ctx.tell(con, shared, str(ctx.new_id()))
    for id_ in (sender.id, *others):
        sender_changed(ctx.door, id_)
    if changes.get("status") == "active":
        await _let_go(ctx, sender.id)
    return shown_sender(ctx, sender)


async def resume(ctx: Context[None, None]) -> SenderShown:
    """Have a stopped number send again, and all that were stopped with it, such as its account's.

    409 for one that an operator has paused, or whose tenant: only operators have it go on.
    """
    async with ctx.transaction() as con:
        await _ours_to_change(ctx, con)
        resumed = await halting.resume(con, ctx.tenant, ctx.id("sender_id"), ctx.cause)
        ctx.telling = True
        sender = await get_sender(ctx)
    for id_ in resumed or [sender.id]:  # which may rest by what only Redis knows
        sender_changed(ctx.door, id_)
        await _let_go(ctx, id_)
    return shown_sender(ctx, sender)


async def _ours_to_change(ctx: Context[Any, Any], con: Connection) -> Sender:
    """The sender, locked for its status to change. Raises Problem 409 if that is an operator's to say."""
    why = await pausing.tenant_paused(con, ctx.tenant, hold=True)
    sender = await get_sender(ctx, lock=True)
    if why is None and pausing.by_operator(sender.status_reason):
        why = sender.status_reason
    if why is not None:
        raise operators(why)
    return sender


async def _let_go(ctx: Context[Any, Any], id_: UUID) -> None:
    """A number that somebody has seen to need not rest any longer; without Redis its rest ends by itself."""
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(REDIS_PATIENCE_S):
            await ctx.door.redis.delete(redis_keys.hold(id_))


def _changes(ctx: Context[PatchSender, None], sender: Sender, region: str | None) -> dict[str, Any]:
    body, faults = ctx.body, Faults()
    changes = check_changes(ctx, faults, region)
    for secret in ("access_token", "app_secret", "verify_token"):
        if secret in changes and sender.provider == "sandbox":
            faults.add(secret, "is fixed for a sandbox sender: the sandbox knows it already; make a new sender instead")
    for secret in ("access_token", "app_secret"):
        if secret in changes:
            changes[secret] = ctx.door.vault.seal(changes[secret])
        else:
            with suppress(ValueError):  # one that no key opens stays as it is, until it is entered again
                if (resealed := ctx.door.vault.resealed(getattr(sender, secret))) is not None:
                    changes[secret] = resealed
    if body.status is not UNSET:
        gone = dict.fromkeys(("status_reason", "error_code", "alert_id", "held_until"))
        changes |= gone | {"status_since": ctx.came_at}
    faults.refuse()
    return changes


def check_changes(ctx: Context[PatchSender, None], faults: Faults, region: str | None) -> dict[str, Any]:
    """What a change gives, whatever it is to be changed of."""
    body = ctx.body
    changes = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    changes |= {name: check_copied(name, changes[name], faults) for name in COPIED if name in changes}
    if isinstance(body.phone, str):
        changes["phone"] = faults.phone("phone", body.phone, region)
    return changes


async def delete(ctx: Context[None, None]) -> None:
    """Delete a sender that nothing hangs on; 409 says what does, and what to do.

    A campaign that was activated keeps its sender, also when it is archived: then the sender is paused instead.
    """
    async with ctx.transaction():
        sender = await get_sender(ctx, lock=True)
        campaigns = await Campaign.filter(sender_id=sender.id).limit(NAMED + 1)
        if campaigns:
            names = ", ".join(f"`{campaign.name}`" for campaign in campaigns[:NAMED])
            more = " and more" if len(campaigns) > NAMED else ""
            kept = await Campaign.filter(sender_id=sender.id).exclude(status="draft").exists()
            todo = f"those once activated keep it, so {INSTEAD}" if kept else "give them another or delete them first"
            raise conflict(
                f"campaigns use this sender: {names}{more}; {todo}",
                campaign_ids=[str(campaign.id) for campaign in campaigns[:NAMED]],
            )
        if await Message.filter(sender_id=sender.id).exists():
            raise conflict(f"messages were sent with this sender: {INSTEAD}")
        await sender.delete()
    sender_changed(ctx.door, sender.id)


async def get_sender(ctx: Context[Any, Any], *, lock: bool = False) -> Sender:
    """The sender that the path names. Raises Problem 404."""
    rows = Sender.select_for_update() if lock else Sender.all()
    sender = await rows.get_or_none(id=ctx.id("sender_id"))
    if sender is None:
        raise not_found("sender")
    return sender
