"""The limits that count what was sent: judged last, under locks, for all messages of a batch that may else leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.ids import uuid7
from harkara.policy import frequency
from harkara.policy.allowance import MESSAGES_A_MONTH
from harkara.policy.gate import Go, Suppress, Verdict, category, later
from harkara.schemas.events import PlanExhausted
from harkara.storage import counting, outbox
from harkara.storage.sending import Attempt, Facts

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


async def judge(con: Connection, attempts: Sequence[Attempt], facts: Sequence[Facts], verdicts: list[Verdict]) -> None:
    """Judge those that may go by what was sent before them, and count those that still may."""
    await _frequency(con, attempts, facts, verdicts)
    await _allowance(con, attempts, facts, verdicts)


def _counts(message: Attempt, verdict: Verdict) -> bool:
    """A message counts when it leaves, and no more once WhatsApp has not taken it. Sent once more it counts once."""
    return isinstance(verdict, Go) and not message.resend


async def uncount(con: Connection, judged: Sequence[tuple[Attempt, Verdict]]) -> None:
    """Take back what was counted of these, which do not leave from here."""
    twice = Counter(message.tenant for message, verdict in judged if _counts(message, verdict))
    if twice:
        await counting.keep_back(con, twice, exhausted=False)


async def _frequency(
    con: Connection, attempts: Sequence[Attempt], facts: Sequence[Facts], verdicts: list[Verdict]
) -> None:
    """Marketing to one contact, over all campaigns and numbers."""
    capped: list[tuple[int, UUID]] = [
        (i, id_)
        for i, fact in enumerate(facts)
        if fact.frequency_caps is not None
        and category(fact, attempts[i]) == "marketing"
        and not attempts[i].resend
        and isinstance(verdicts[i], Go)
        and (id_ := fact.contact_id) is not None
    ]
    wanted = {id_: (attempts[i].tenant, frequency.longest(_caps(facts[i]))) for i, id_ in capped if _caps(facts[i])}
    if not wanted:
        return
    furthest = max(period for _, period in wanted.values())
    floor = uuid7(facts[capped[0][0]].now - counting.reaches_back(furthest))
    sent = await counting.sent_lately(con, wanted, floor)
    for i, id_ in capped:
        if id_ in wanted:
            _fit(i, attempts, facts, verdicts, sent.setdefault(id_, []))


def _caps(facts: Facts) -> tuple[frequency.Cap, ...]:
    return frequency.read(facts.frequency_caps)


def _fit(
    i: int, attempts: Sequence[Attempt], facts: Sequence[Facts], verdicts: list[Verdict], sent: list[datetime]
) -> None:
    """Let one message pass, which then counts, or hold it back."""
    until = frequency.fits_at(_caps(facts[i]), sent, facts[i].now)
    if until is None:
        sent.append(facts[i].now)
    else:
        verdicts[i] = later(facts[i], attempts[i], until, "frequency_cap")


async def _allowance(
    con: Connection, attempts: Sequence[Attempt], facts: Sequence[Facts], verdicts: list[Verdict]
) -> None:
    """What a plan includes a month."""
    going = [i for i, verdict in enumerate(verdicts) if _counts(attempts[i], verdict)]
    leaving = Counter(attempts[i].tenant for i in going)
    if not leaving:
        return
    used = await counting.count(con, leaving)
    kept: Counter[str] = Counter()
    for i in reversed(going):
        tenant, most = attempts[i].tenant, MESSAGES_A_MONTH.get(facts[i].plan or "")
        exhausted = most is not None and used[tenant] - kept[tenant] > most
        if exhausted and category(facts[i], attempts[i]) != "otp":
            verdicts[i] = Suppress("plan_exhausted")
            kept[tenant] += 1
    if not kept:
        return
    month = facts[going[0]].now.strftime("%Y-%m")
    for tenant in sorted(await counting.keep_back(con, kept, exhausted=True)):
        event = PlanExhausted(id=tenant, month=month, messages=used[tenant] - kept[tenant])
        await outbox.put(con, tenant, event, f"plan.exhausted.{tenant}.{month}", "")
