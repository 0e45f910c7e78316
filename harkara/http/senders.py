"""Senders: WhatsApp business numbers. Their secrets go in encrypted and never come out."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET
from tortoise.exceptions import IntegrityError

from harkara.http import sandbox
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.lists import newest, page
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import amend, shown
from harkara.http.webhooks import sender_changed
from harkara.schemas.api import NewSender, Page, Paging, PatchSender, SenderMade, SenderShown
from harkara.storage.models import Campaign, Message, Sender

#: What each provider can't do without.
NEEDED = {
    "cloud": ("phone_number_id", "access_token", "app_secret"),
    "evolution": ("phone_number_id", "access_token"),
    "waha": ("phone_number_id", "access_token"),
    "sandbox": (),
}

#: Campaigns that are named when a sender can't be deleted because of them.
NAMED = 3


async def index(ctx: Context[None, Paging]) -> Page[SenderShown]:
    """All senders, newest first."""
    async with ctx.transaction():
        rows = await newest(Sender.all(), ctx.tenant, ctx.query)
    return page([shown(row, SenderShown) for row in rows], ctx.query)


async def show(ctx: Context[None, None]) -> SenderShown:
    """One sender."""
    async with ctx.transaction():
        return shown(await _get(ctx), SenderShown)


async def create(ctx: Context[NewSender, None]) -> SenderMade:
    """A new sender. One of the sandbox is registered there at once: 502 if that fails, and nothing is left of it."""
    wanted = ctx.body
    faults = Faults()
    columns = _columns(ctx, wanted, faults)
    faults.refuse()
    try:
        async with ctx.transaction():
            sender = await Sender.create(**columns)
    except IntegrityError:
        raise await _taken(ctx, str(columns["phone_number_id"])) from None
    if sender.provider == "sandbox":
        await _register(ctx, sender)
    made = msgspec.structs.asdict(shown(sender, SenderShown))
    return SenderMade(webhook_url=_webhook_url(ctx, sender.id), verify_token=sender.verify_token, **made)


def _columns(ctx: Context[NewSender, None], wanted: NewSender, faults: Faults) -> dict[str, Any]:
    for name in NEEDED[wanted.provider]:
        if getattr(wanted, name) is None:
            faults.add(name, f"is needed for the provider {wanted.provider}")
    access_token, app_secret, phone_number_id = wanted.access_token, wanted.app_secret, wanted.phone_number_id
    if wanted.provider == "sandbox":
        access_token, app_secret = access_token or secrets.token_urlsafe(24), app_secret or secrets.token_urlsafe(24)
        phone_number_id = phone_number_id or f"1{secrets.randbelow(10**14):014d}"
    return {
        "name": faults.filled("name", wanted.name),
        "provider": wanted.provider,
        "phone": None if wanted.phone is None else faults.phone("phone", wanted.phone, None),
        "phone_number_id": phone_number_id,
        "waba_id": wanted.waba_id,
        "access_token": ctx.door.vault.seal(access_token),
        "app_secret": ctx.door.vault.seal(app_secret),
        "verify_token": wanted.verify_token or secrets.token_urlsafe(24),
        "mps": wanted.mps,
        "window": wanted.window or ("enforce" if wanted.provider == "cloud" else "ignore"),
    }


async def _taken(ctx: Context[Any, Any], phone_number_id: str) -> Problem:
    async with ctx.transaction():
        other = await Sender.get_or_none(phone_number_id=phone_number_id)
    return conflict(
        "another sender has this phone_number_id: change that one, or delete it first",
        sender_id=other.id if other else None,
    )


async def _register(ctx: Context[Any, Any], sender: Sender) -> None:
    """The sandbox asks our webhook for the challenge during this call, so the row is committed by now."""
    vault = ctx.door.vault
    try:
        await sandbox.register(
            ctx.door.settings.whatsapp_gateway_url,
            sandbox.Registration(
                phone_number_id=sender.phone_number_id,
                url=_webhook_url(ctx, sender.id),
                app_secret=vault.open(sender.app_secret) or "",
                verify_token=sender.verify_token,
                access_token=vault.open(sender.access_token) or "",
                display_phone_number=sender.phone or "",
            ),
        )
    except BaseException as error:
        async with ctx.transaction():
            await sender.delete()
        if isinstance(error, sandbox.NotRegistered):
            raise Problem(502, f"the sandbox gateway did not take this sender: {error}") from None
        raise


def _webhook_url(ctx: Context[Any, Any], sender: UUID) -> str:
    return f"{ctx.door.settings.public_url.rstrip('/')}{PREFIX}/webhooks/whatsapp/{sender}"


async def change(ctx: Context[PatchSender, None]) -> SenderShown:
    """Change what may change; a secret that is given replaces the one before."""
    async with ctx.transaction():
        sender = await _get(ctx, lock=True)
        await amend(sender, _changes(ctx, sender))
    sender_changed(ctx.door, sender.id)
    return shown(sender, SenderShown)


def _changes(ctx: Context[PatchSender, None], sender: Sender) -> dict[str, Any]:
    body, faults = ctx.body, Faults()
    changes = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    if isinstance(body.phone, str):
        changes["phone"] = faults.phone("phone", body.phone, None)
    for secret in ("access_token", "app_secret", "verify_token"):
        if secret in changes and sender.provider == "sandbox":
            faults.add(secret, "is fixed for a sandbox sender: the sandbox knows it already; make a new sender instead")
    for secret in ("access_token", "app_secret"):
        if secret in changes:
            changes[secret] = ctx.door.vault.seal(changes[secret])
    if body.status is not UNSET:
        changes["status_reason"] = None
    faults.refuse()
    return changes


async def delete(ctx: Context[None, None]) -> None:
    """Delete a sender that nothing hangs on; 409 says what does."""
    async with ctx.transaction():
        sender = await _get(ctx, lock=True)
        campaigns = await Campaign.filter(sender_id=sender.id).limit(NAMED + 1)
        if campaigns:
            names = ", ".join(f"`{campaign.name}`" for campaign in campaigns[:NAMED])
            more = " and more" if len(campaigns) > NAMED else ""
            raise conflict(
                f"campaigns use this sender: {names}{more}; give them another or delete them first",
                campaign_ids=[str(campaign.id) for campaign in campaigns[:NAMED]],
            )
        if await Message.filter(sender_id=sender.id).exists():
            raise conflict('messages were sent with this sender: pause it instead (PATCH {"status":"paused"})')
        await sender.delete()
    sender_changed(ctx.door, sender.id)


async def _get(ctx: Context[Any, Any], *, lock: bool = False) -> Sender:
    rows = Sender.select_for_update() if lock else Sender.all()
    sender = await rows.get_or_none(id=ctx.id("sender_id"))
    if sender is None:
        raise not_found("sender")
    return sender
