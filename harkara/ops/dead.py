"""`harkara ops dead`: what was given up, grouped by why; tried again or forgotten, and noted in the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from harkara.bus.dead import DeadLetter, DeadLetters
from harkara.ids import uuid7
from harkara.masking import raw, without_codes
from harkara.storage import auditing
from harkara.storage.auditing import Note
from harkara.storage.storage import Storage


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; `reason` is a part of it, `since` a time before which none is wanted."""

    tenant: str | None = None
    actor: str | None = None
    reason: str | None = None
    since: datetime | None = None


class Group(msgspec.Struct, kw_only=True):
    """Dead letters of one actor for one reason."""

    actor: str
    reason: str
    letters: int
    tenants: int
    first: datetime
    last: datetime


async def find(dead: DeadLetters, wanted: Wanted) -> AsyncIterator[DeadLetter]:
    """The letters that are wanted, oldest first, the system's own left out. Raises Unavailable."""
    async for letter in dead.find(wanted.tenant or "*", wanted.actor or "*"):
        if wanted.reason is not None and wanted.reason not in letter.reason:
            continue
        if wanted.since is None or letter.at >= wanted.since:
            yield letter


def grouped(letters: Sequence[DeadLetter]) -> list[Group]:
    """The letters by actor and reason, the largest group first."""
    groups: dict[tuple[str, str], Group] = {}
    tenants: dict[tuple[str, str], set[str]] = {}
    for letter in letters:
        key = (letter.actor, letter.reason)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(
                actor=key[0], reason=key[1], letters=0, tenants=0, first=letter.at, last=letter.at
            )
        group.letters += 1
        group.last = letter.at
        tenants.setdefault(key, set()).add(letter.tenant)
        group.tenants = len(tenants[key])
    return sorted(groups.values(), key=lambda group: -group.letters)


def shown(letter: DeadLetter) -> dict[str, Any]:
    """All that is known of a letter, without codes. A body that is no JSON is shown as its bytes and how it begins."""
    bytes_ = raw(letter.body, letter.was)
    return {
        "id": str(letter.id),
        "at": letter.at,
        "tenant": letter.tenant,
        "actor": letter.actor,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "subject": letter.was,
        "message_id": letter.message_id,
        "cause": letter.cause,
        "body": without_codes(letter.body),
        "body_base64": bytes_ and bytes_.base64,
        "body_begins": bytes_ and bytes_.begins,
    }


async def mend(
    storage: Storage,
    dead: DeadLetters,
    letters: Sequence[DeadLetter],
    how: Literal["replay", "drop"],
    *,
    who: str,
    rate: float,
) -> int:
    """Have letters tried again, or forget them: at most `rate` a second, each noted first. How many it were.

    Raises StorageError or Unavailable: those before are done then, the others as they were. Done twice it is done once.
    """
    do = dead.replay if how == "replay" else dead.drop
    for number, letter in enumerate(letters):
        if number:
            await asyncio.sleep(1 / rate)
        async with storage.batch((letter.tenant,)) as con:
            await auditing.note(con, [_note(letter, how, who)])
        await do(letter)
    return len(letters)


def _note(letter: DeadLetter, how: str, who: str) -> Note:
    said = msgspec.json.encode({"address": who, "via": f"harkara ops dead {how}"}).decode()
    told = {"actor": letter.actor, "reason": letter.reason, "subject": letter.was, "message_id": letter.message_id}
    return Note(
        id=uuid7(datetime.now(UTC)),
        tenant=letter.tenant,
        said=said,
        action=how,
        entity="dead_letter",
        entity_id=str(letter.id),
        cause=letter.cause,
        via=f"harkara ops dead {how}",
        before=None,
        after=told,
    )
