"""Linking a phone to a sender whose gateway lends a phone's account: the session, and the code that the phone scans."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from harkara.gateway.protocol import Credentials, Hook, NotSent, Problem, Qr, Refused, Session, Sessions, Unknown
from harkara.http import problems
from harkara.http.context import Context
from harkara.http.problems import conflict
from harkara.http.rows import amend
from harkara.http.senders import get_sender, shown_session, webhook_url
from harkara.schemas.api import QrQuery, SessionShown
from harkara.storage.models import Sender

#: What a person does next, by the session's state, when there is nothing to scan.
NEXT = {
    "working": "the phone is linked already: log it out first to link another",
    "starting": "the session is starting: ask again in some seconds",
    "scan_qr": "the code is being made: ask again in some seconds",
}


async def show(ctx: Context[None, None]) -> SessionShown:
    """How the phone is linked, asked from the gateway now."""
    return await _do(ctx, lambda phone, who, _: phone.state(who))


async def start(ctx: Context[None, None]) -> SessionShown:
    """Make the session at the gateway if there is none, have it report to us, and start it. Then GET /senders/{id}/qr.

    Doing it again does no harm. The gateway is told the address in `webhook_url` and the secret that its reports show.
    """
    return await _do(ctx, lambda phone, who, hook: phone.start(who, hook))


async def restart(ctx: Context[None, None]) -> SessionShown:
    """Connect anew, without linking the phone again: for a session that hangs."""
    return await _do(ctx, lambda phone, who, _: phone.restart(who))


async def logout(ctx: Context[None, None]) -> SessionShown:
    """Unlink the phone: the sender's messages wait until one is linked again."""
    return await _do(ctx, lambda phone, who, _: phone.logout(who))


async def qr(ctx: Context[None, QrQuery]) -> web.Response:
    """What the phone scans to be linked: an image, or with `format=code` its text. It changes every half a minute."""
    async with ctx.transaction():
        sender = await get_sender(ctx)
    phone, credentials, _ = _phone(ctx, sender)
    image = ctx.query.format == "image"
    found = await phone.qr(credentials, image=image)
    if isinstance(found, Session):
        await _noted(ctx, found)
        raise conflict(NEXT.get(found.state, f"the session is {found.state}: POST …/session/start first"))
    if not isinstance(found, Qr):
        raise _problem(ctx, sender, found)
    if image:
        return web.Response(body=found.image or b"", content_type="image/png")
    return web.Response(text=found.code or "", content_type="text/plain")


Call = Callable[[Sessions, Credentials, Hook], Awaitable[Session | Problem]]


async def _do(ctx: Context[None, None], call: Call) -> SessionShown:
    async with ctx.transaction():
        sender = await get_sender(ctx)
    found = await call(*_phone(ctx, sender))
    if not isinstance(found, Session):
        raise _problem(ctx, sender, found)
    return await _noted(ctx, found)


def _phone(ctx: Context[Any, Any], sender: Sender) -> tuple[Sessions, Credentials, Hook]:
    """Whom to ask, and what it has to know. Raises Problem 409 for senders without a session."""
    phone = ctx.door.sessions.get(sender.provider)
    if phone is None:
        raise conflict(f"a sender of the provider {sender.provider} has no session: it needs no phone")
    vault = ctx.door.vault
    credentials = Credentials(
        sender_id=str(sender.id),
        phone_number_id=sender.phone_number_id,
        access_token=vault.open(sender.access_token) or "",
        provider=sender.provider,
    )
    return phone, credentials, Hook(webhook_url(ctx, sender), vault.open(sender.app_secret) or "")


async def _noted(ctx: Context[Any, Any], found: Session) -> SessionShown:
    """Write down what the gateway said just now; its reports go on from there."""
    async with ctx.transaction():
        sender = await get_sender(ctx, lock=True)
        if (sender.session_state, sender.session_detail) != (found.state, found.detail):
            changes = {"session_state": found.state, "session_detail": found.detail, "session_at": ctx.door.clock()}
            await amend(sender, changes)
    session = shown_session(sender)
    assert session is not None, "only a sender with a session gets here"  # noqa: S101
    return session


def _problem(ctx: Context[Any, Any], sender: Sender, found: Problem) -> problems.Problem:
    gateway = f"the gateway at {ctx.door.settings.gateway_place(sender.provider)}"
    match found:
        case Refused(title=title, details=details):
            return problems.Problem(502, f"{gateway} refuses: {title}{f' ({details})' if details else ''}")
        case NotSent(reason):
            return problems.Problem(502, f"{gateway} does not answer: {reason}; check that it runs, and its address")
        case Unknown(reason):
            return problems.Problem(502, f"{gateway} did not answer as expected: {reason}")
