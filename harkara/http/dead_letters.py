"""A tenant's dead letters: work of its own that was given up, to be looked at, done again or forgotten."""

from __future__ import annotations

from typing import Any

from harkara.bus.dead import DeadLetter, DeadLetters, seq_of
from harkara.bus.errors import Full, Refused, Unavailable
from harkara.http.context import Context
from harkara.http.lists import cursor, place_of
from harkara.http.problems import conflict, not_found, unavailable
from harkara.http.trail import audit
from harkara.masking import raw, without_codes
from harkara.schemas.api import Accepted, DeadLetterQuery, DeadLetterShown, Page


async def index(ctx: Context[None, DeadLetterQuery]) -> Page[DeadLetterShown]:
    """Work that was given up, oldest first."""
    query = ctx.query
    after = 0 if query.cursor is None else seq_of(place_of(query.cursor))
    letters: list[DeadLetter] = []
    try:
        async for letter in _letters(ctx).find(ctx.tenant, query.actor or "*", after):
            letters.append(letter)
            if len(letters) > query.limit:
                break
    except Unavailable:
        raise unavailable("the broker") from None
    shown = letters[: query.limit]
    more = len(letters) > query.limit
    return Page(items=[_shown(letter) for letter in shown], next=cursor(shown[-1].id) if more else None)


async def replay(ctx: Context[None, None]) -> Accepted:
    """Have it tried again, with all its attempts: it is no dead letter any more."""
    letter = await _get(ctx)
    await audit(ctx, "replay", "dead_letter", _noted(letter), letter.id)
    try:
        await _letters(ctx).replay(letter)
    except Unavailable:
        raise unavailable("the broker") from None
    except (Full, Refused) as error:
        raise conflict(f"the broker does not take it: {error}") from None
    return Accepted(id=letter.id)


async def drop(ctx: Context[None, None]) -> None:
    """Forget it: it will not be done."""
    letter = await _get(ctx)
    await audit(ctx, "delete", "dead_letter", _noted(letter), letter.id)
    try:
        await _letters(ctx).drop(letter)
    except Unavailable:
        raise unavailable("the broker") from None


async def _get(ctx: Context[None, None]) -> DeadLetter:
    """The letter of the path, if it is this tenant's."""
    try:
        letter = await _letters(ctx).get(ctx.id("letter_id"))
    except Unavailable:
        raise unavailable("the broker") from None
    if letter is None or letter.tenant != ctx.tenant:
        raise not_found("dead letter")
    return letter


def _letters(ctx: Context[Any, Any]) -> DeadLetters:
    if ctx.door.bus is None:
        raise unavailable("the broker")
    return ctx.door.bus.dead


def _noted(letter: DeadLetter) -> dict[str, str]:
    return {"actor": letter.actor, "reason": letter.reason, "subject": letter.was, "message_id": letter.message_id}


def _shown(letter: DeadLetter) -> DeadLetterShown:
    bytes_ = raw(letter.body, letter.was)
    return DeadLetterShown(
        id=letter.id,
        at=letter.at,
        actor=letter.actor,
        reason=letter.reason,
        attempts=letter.attempts,
        subject=letter.was,
        message_id=letter.message_id,
        cause=letter.cause,
        body=without_codes(letter.body),
        body_base64=bytes_ and bytes_.base64,
        body_begins=bytes_ and bytes_.begins,
    )
