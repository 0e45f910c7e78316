"""What a refusal stops besides its message: the one place where the table of errors reaches beyond it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

import msgspec
from loguru import logger
from msgspec.structs import replace

from harkara.actors import releasing
from harkara.gateway.errors import RULES, Action, Rule, Scope
from harkara.ids import uuid7
from harkara.schemas.reasons import GATEWAY
from harkara.storage import halting, templates
from harkara.storage.halting import Bad
from harkara.values import country

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: A rest that is shorter is kept in Redis alone; a longer one is on the number's row too, for people to see.
SHOWN = timedelta(seconds=30)

#: Scopes that are about numbers, and which of them about all numbers of an account. Credentials are the number's own:
#: whether another number's are bad as well, that one finds out.
OF_NUMBERS = frozenset({Scope.NUMBER, Scope.WABA, Scope.ACCOUNT, Scope.APP})
OF_ACCOUNT = frozenset({Scope.WABA, Scope.ACCOUNT})

#: Have numbers rest, if they are to be backed off from.
OF_REST = OF_NUMBERS | {Scope.GLOBAL}

#: Refused with one of these, a message waits because its number has to rest, and for nothing of its own.
RESTING = (
    *(code for code, rule in RULES.items() if rule.action is Action.BACK_OFF and rule.scope in OF_REST),
    429,  # the status of an answer without a code
)

#: What is refused by itself, while all else of the number goes on, and nothing of ours is stopped.
BY_ITSELF = frozenset({Scope.FLOW, Scope.COUNTRY})

_TODO = "see to what the reason says, then POST /senders/{id}/resume"


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """What the gateway said no to, at once or in a status: for which number, and with which template, if with any."""

    tenant: str
    sender_id: UUID
    rule: Rule
    code: int
    reason: str
    wait: timedelta
    template: tuple[str, str] | None = None
    cause: str = ""
    at: datetime | None = None
    country: str | None = None


def reaches_further(rule: Rule, wait: timedelta) -> bool:
    """Whether a refusal by this rule stops more than its message, or has to be told to people."""
    if rule.scope in BY_ITSELF and rule.alert:
        return True
    if rule.action is Action.STOP:
        return rule.scope in OF_NUMBERS or rule.scope is Scope.TEMPLATE
    # One message of many is refused now and then while all is well; who waits so long has been, time after time.
    shown = rule.alert or wait >= SHOWN
    return rule.action is Action.BACK_OFF and shown and rule.scope in OF_REST


async def halt(con: Connection, refusal: Refusal) -> list[UUID]:
    """Stop what the refusal is about, and nothing else; tell it once. Returns the numbers that don't send now."""
    rule, words = refusal.rule, GATEWAY.get(refusal.code)
    bad = Bad(
        rule.scope.value,
        refusal.reason,
        words.todo if words else _TODO,
        refusal.code,
        of_account=rule.scope in OF_ACCOUNT or (rule.scope is Scope.APP and rule.action is Action.BACK_OFF),
        at=refusal.at,
    )
    where = (con, refusal.tenant, refusal.sender_id)
    if rule.action is Action.BACK_OFF:
        wait = refusal.wait - (datetime.now(UTC) - refusal.at if refusal.at else timedelta())
        if wait <= timedelta():  # told so late that the rest is over
            return []
        halted = await halting.hold(*where, bad, wait, refusal.cause, alert=rule.alert)
    elif rule.scope in OF_NUMBERS:
        halted = await halting.pause(*where, bad, refusal.cause)
    else:
        await (_by_itself if rule.scope in BY_ITSELF else _template)(con, refusal, bad)
        return []
    if halted:
        logger.error("numbers {} of {} are stopped: {}", [str(id_) for id_ in halted], refusal.tenant, refusal.reason)
    return halted


async def halt_for(con: Connection, refusals: Sequence[tuple[Refusal, UUID | None]]) -> None:
    """The same for refusals that statuses tell of, each with its message as far as that is known."""
    for refusal, message_id in refusals:
        if not reaches_further(refusal.rule, refusal.wait):
            continue
        if message_id is not None and refusal.rule.scope in BY_ITSELF | {Scope.TEMPLATE}:
            template = await halting.template_of(con, refusal.tenant, message_id)
            to = await halting.recipient_of(con, refusal.tenant, message_id)
            await halt(con, replace(refusal, template=template, country=country(to)))
        else:
            await halt(con, refusal)


async def _template(con: Connection, refusal: Refusal, bad: Bad) -> None:
    """A template is stopped: every other message of the number goes on."""
    if refusal.template is None:
        return
    name, language = refusal.template
    where, alert = (con, refusal.tenant, refusal.sender_id, name, language), uuid7()
    status = "paused" if refusal.rule.waits else "disabled"
    if not await releasing.became(*where, status, refusal.reason, refusal.cause):
        return
    await templates.alerted(*where, alert)
    told = (con, refusal.tenant, alert, "paused", bad, refusal.cause)
    await halting.tell(*told, sender_ids=[refusal.sender_id], template=f"{name}/{language}")


async def _by_itself(con: Connection, refusal: Refusal, bad: Bad) -> None:
    """A flow or a country: nothing is stopped, and each message fails. All of a day are one alert, by its id."""
    template = "/".join(refusal.template) if refusal.template and refusal.rule.scope is Scope.FLOW else None
    about = template or refusal.country or ""
    alert = uuid5(refusal.sender_id, f"{refusal.code} {about} {datetime.now(UTC):%Y-%m-%d}")
    if refusal.country and refusal.rule.scope is Scope.COUNTRY:
        bad = dataclasses.replace(bad, reason=f"{bad.reason}: {refusal.country}")
    told = (con, refusal.tenant, alert, "refused", bad, refusal.cause)
    await halting.tell(*told, sender_ids=[refusal.sender_id], template=template)
