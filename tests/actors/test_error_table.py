"""The table of errors, row by row: the sandbox refuses with each code, and exactly the documented thing happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from enrolled import Enrolled, enrolled
from gateway.sandboxes import NUMBER, Caller, Hook, receiving, sandbox_in
from support import NewTenant, until

from harkara.actors.answers import STOPPED_WAIT
from harkara.actors.halting import Refusal, halt
from harkara.actors.learning import NEWS, TOO_FAST, Failure, learn_late
from harkara.actors.numbers import Numbers
from harkara.actors.receipts import Receipts
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.cloud import CloudGateway
from harkara.gateway.errors import RULES, Action, rule_for
from harkara.ids import uuid7
from harkara.schemas.reasons import PASSING
from harkara.schemas.work import Inbound
from harkara.storage import halting
from harkara.storage.models import CampaignStep, ContactCampaignProgress, Message
from harkara.storage.models import Sender as Number
from harkara.storage.storage import Storage
from harkara.values import country
from harkara.vault import Vault

#: What becomes of the message, and what else is stopped, by code: from the documentation, not from the table.
AGAIN, FAILS = "again", "fails"
ROWS: dict[int, tuple[str, str]] = {
    # Too fast: the message comes back, and so long the number, or all of its account, rests.
    **dict.fromkeys((130429, 131057), (AGAIN, "number rests")),
    131056: (AGAIN, ""),
    131048: (AGAIN, "number is held, alert"),
    131064: (AGAIN, "account is held, alert"),
    **dict.fromkeys((80007, 4), (AGAIN, "account is held")),
    133015: (AGAIN, "number is held"),
    133016: (AGAIN, "number is held, alert"),
    132069: (AGAIN, ""),
    # Their side is unwell: this message again.
    **dict.fromkeys((2, 133004, 131016, 131000, 1), (AGAIN, "")),
    # This message or this recipient, for good.
    **dict.fromkeys(
        (131047, 131026, 131030, 131049, 131050, 130472, 130403, 131051, 131052, 131053, 131008), (FAILS, "")
    ),
    **dict.fromkeys((131009, 100, 33, 131021, 135000, 131062, 131063, 137000), (FAILS, "")),
    **dict.fromkeys((132000, 132001, 132005, 132007, 132008, 132012, 132018), (FAILS, "")),
    # A template or a flow.
    132015: (AGAIN, "template is paused, alert"),
    132016: (FAILS, "template is disabled, alert"),
    132068: (FAILS, "alert"),
    130497: (FAILS, "alert"),
    # Somebody has to act.
    **dict.fromkeys((131042, 131044, 368, 131031), (AGAIN, "account is paused, alert")),
    **dict.fromkeys(
        (131037, 131045, 133010, 133000, 133005, 133006, 133008, 133009), (AGAIN, "number is paused, alert")
    ),
    **dict.fromkeys((0, 190, 10, 200, 250, 299, 131005, 3), (AGAIN, "number is paused, alert")),
    424242: (AGAIN, ""),
}


class Turns:
    """Nobody waits for a turn; keeps what was learned."""

    def __init__(self) -> None:
        self.rests: list[tuple[str, float]] = []
        self.pairs: list[tuple[str, str, float]] = []
        self.slower: list[str] = []

    async def acquire(self, *_: Any) -> None:
        pass

    def give_back(self, _: str) -> None:
        pass

    async def hold(self, sender_id: str, seconds: float) -> None:
        self.rests.append((sender_id, seconds))

    async def away(self, *_: Any) -> None:
        pass

    async def slow_down(self, sender_id: str) -> None:
        self.slower.append(sender_id)

    async def ease(self, sender_id: str) -> None:
        pass

    async def hold_pair(self, sender_id: str, to: str, seconds: float) -> None:
        self.pairs.append((sender_id, to, seconds))

    async def pace(self, *_: Any) -> None:
        pass

    async def came_in(self, *_: Any) -> None:
        pass


@dataclass
class Desk:
    """A sender at work: one tenant with three numbers, of which two are of one account."""

    storage: Storage
    sandbox: Caller
    numbers: Numbers
    actor: Sender
    turns: Turns
    one: Enrolled
    sister: UUID
    stranger: UUID

    async def send(self) -> Outcome:
        now = datetime.now(UTC)
        delivery = Delivery(self.one.work(), self.one.tenant, "id", "cause", 1, "subject", "SEND", 1, now, 1)
        (outcome,) = await self.actor.handle([delivery])
        return outcome

    async def told(self, body: bytes) -> Outcome:
        """A webhook comes."""
        message = Inbound(source="whatsapp", sender_id=str(self.one.sender), body=msgspec.Raw(body))
        now, nobody = datetime.now(UTC), cast("Any", None)
        delivery = Delivery(message, self.one.tenant, "w", "w", 1, "t.x.in.whatsapp", "INBOUND", 1, now, 1)
        (outcome,) = await Receipts(self.storage, nobody, self.turns).handle([delivery])
        return outcome

    async def seen(self) -> str:
        """What is stopped now, and whether somebody is told."""
        async with self.storage.tenant(self.one.tenant) as con:
            numbers = {row.id: row for row in await Number.all()}
            alerts = await con.fetch("select distinct body::text from outbox where subject like '%.evt.alert.raised'")
            rows = await con.fetch("select status from templates where sender_id = $1", self.one.sender)
        states = [numbers[id_] for id_ in (self.one.sender, self.sister, self.stranger)]
        found = [f"template is {row['status']}" for row in rows]
        found += _stopped([row.status == "paused" for row in states], "paused")
        found += _stopped([row.held_until is not None for row in states], "held")
        if not found and self.turns.rests:
            found.append("number rests")
        if alerts:
            assert len(alerts) == 1
            told = msgspec.json.decode(alerts[0][0])
            assert told["reason"]
            assert told["todo"]
            found.append("alert")
        return ", ".join(found)


def _stopped(states: Sequence[bool], word: str) -> list[str]:
    names = {(True, False, False): f"number is {word}", (True, True, False): f"account is {word}"}
    return [] if not any(states) else [names[tuple(states)]]  # type: ignore[index]


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Caller]:
    """One sandbox for all rows."""
    path: Path = tmp_path_factory.mktemp("errors")
    async with sandbox_in(path / "sandbox") as caller:
        await caller.put("policy", {"throughput": False})
        yield caller


@pytest.fixture
async def desk(storage: Storage, new_tenant: NewTenant, sandbox: Caller) -> AsyncIterator[Desk]:
    one = await enrolled(storage, await new_tenant())
    vault, sister, stranger = Vault("a secret of at least 32 bytes, really"), uuid7(), uuid7()
    async with storage.tenant(one.tenant):
        template = {"template": {"name": "order_update", "language": "en"}}
        await CampaignStep.filter(id=one.step).update(content=template)
        own = {"waba_id": "w1", "access_token": vault.seal("EAAG-test"), "phone_number_id": NUMBER}
        await Number.filter(id=one.sender).update(**own)
        for id_, waba in ((sister, "w1"), (stranger, "w2")):
            await Number.create(
                id=id_, name="x", provider="sandbox", phone_number_id=str(id_), verify_token="t", window="ignore",
                waba_id=waba,
            )  # fmt: skip
    gateway, numbers = CloudGateway(sandbox.url, connect_timeout=timedelta(seconds=60)), Numbers(storage, vault)
    turns = Turns()
    actor = Sender(storage, gateway, cast("Any", turns), numbers, lambda: None)
    yield Desk(storage, sandbox, numbers, actor, turns, one, sister, stranger)
    await gateway.close()


def test_every_row_is_here() -> None:
    assert RULES.keys() <= ROWS.keys()


@pytest.mark.parametrize("code", sorted(ROWS))
async def test_a_refusal_does_what_is_documented_and_nothing_else(desk: Desk, code: int) -> None:
    await desk.sandbox.put("faults", [{"kind": "error", "code": code, "count": 1, "phone_number_id": NUMBER}])
    fate, stopped = ROWS[code]
    outcome = await desk.send()
    async with desk.storage.tenant(desk.one.tenant):
        message = await Message.get(id=desk.one.message)
        enrolment = await ContactCampaignProgress.get(id=desk.one.id)
    assert message.error_code == code
    assert message.reason
    if fate == FAILS:
        assert isinstance(outcome, Done)
        assert (message.status, enrolment.next_message_id) == ("failed", None)
    else:
        assert isinstance(outcome, Retry)
        assert outcome.after
        assert not outcome.counts
        assert (message.status, enrolment.next_message_id) == ("queued", desk.one.message)
    assert await desk.seen() == stopped


@pytest.mark.parametrize("row", [{"access_token": "EAAG-test\n"}, {"phone_number_id": "/1"}])
async def test_credentials_that_no_request_can_carry_leave_nothing_in_doubt(desk: Desk, row: dict[str, str]) -> None:
    """Stored before they were looked at, they stop their number as wrong ones do, and nobody is shown them."""
    seal = Vault("a secret of at least 32 bytes, really").seal
    stored = {name: seal(text) if name == "access_token" else text for name, text in row.items()}
    async with desk.storage.tenant(desk.one.tenant):
        await Number.filter(id=desk.one.sender).update(**stored)
    outcome = await desk.send()
    async with desk.storage.tenant(desk.one.tenant) as con:
        message = await Message.get(id=desk.one.message)
        told = await con.fetchval("select string_agg(body::text, '') from outbox")
    assert isinstance(outcome, Retry)
    assert not outcome.counts
    assert (message.status, message.error_code) == ("queued", 401)
    assert "no request can carry" in (message.reason or "")
    assert await desk.seen() == "number is paused, alert"
    assert "EAAG" not in f"{message.reason} {outcome.reason} {told}"


@pytest.fixture(scope="module")
async def hook(sandbox: Caller) -> AsyncIterator[Hook]:
    """Where the sandbox tells what became of messages that it took."""
    async with receiving() as receiver:
        await sandbox.hook(receiver)
        yield receiver


@pytest.mark.parametrize("code", sorted(ROWS.keys() - {0}))  # of a request that it didn't let in nothing is told later
async def test_a_status_stops_as_much_as_a_refusal_and_its_message_has_failed(
    desk: Desk, hook: Hook, code: int
) -> None:
    """WhatsApp had taken it: whatever passes by itself, it is not sent again."""
    await desk.sandbox.put("faults", [{"kind": "failed", "code": code, "count": 1, "phone_number_id": NUMBER}])
    assert isinstance(await desk.send(), Done)
    id_ = str(desk.one.message).encode()
    body = await until(lambda: next((body for body in hook.bodies if id_ in body), None), "its failure is told")
    for _ in range(2):
        outcome = await desk.told(body)
        assert isinstance(outcome, Done)
        assert [type(event.message).__name__ for event in outcome.events][:1] == ["MessageFailed"]
        async with desk.storage.tenant(desk.one.tenant):
            message = await Message.get(id=desk.one.message)
        assert (message.status, message.error_code, message.attempts) == ("failed", code, 1)
        assert await desk.seen() == ROWS[code][1]
    number, to = str(desk.one.sender), "+919876543210"
    assert desk.turns.slower == ([number] if code in TOO_FAST else []), "told again, it is no lesson"
    assert desk.turns.pairs == ([(number, to, 1.0)] if code == 131056 else [])


async def test_what_failed_some_time_ago_teaches_nothing_and_the_same_of_many_is_one_lesson() -> None:
    turns, soon, later = Turns(), timedelta(), NEWS + timedelta(seconds=1)
    await learn_late(turns, [Failure("1", to, code, later) for to in ("+911", "+912") for code in (130429, 131056)])
    assert (turns.rests, turns.slower, turns.pairs) == ([], [], [])
    await learn_late(turns, [Failure("1", to, code, soon) for to in ("+911", "+912") for code in (130429, 131056)] * 2)
    assert (turns.rests, turns.slower) == ([("1", 1.0)], ["1"])
    assert turns.pairs == [("1", "+911", 1.0), ("1", "+912", 1.0)]


async def test_a_rest_is_counted_from_when_it_was_told_to_be_taken(desk: Desk) -> None:
    """A status that comes late says what was: it holds a number for what is left of that, or no more."""
    rule, now = rule_for(131048), datetime.now(UTC)
    wait = rule.wait(1)
    late = Refusal(desk.one.tenant, desk.one.sender, rule, 131048, rule.title, wait, at=now - wait)
    async with desk.storage.batch((desk.one.tenant,)) as con:
        assert await halt(con, late) == []
    assert await desk.seen() == ""
    half = Refusal(desk.one.tenant, desk.one.sender, rule, 131048, rule.title, wait, at=now - wait / 2)
    async with desk.storage.batch((desk.one.tenant,)) as con:
        assert await halt(con, half) == [desk.one.sender]
        held = await con.fetchval("select held_until from senders where id = $1", desk.one.sender)
    assert held == pytest.approx(now + wait / 2, abs=timedelta(seconds=30))
    assert await desk.seen() == "number is held, alert"


def test_what_passes_by_itself_is_said_to() -> None:
    assert {code for code, rule in RULES.items() if rule.action in (Action.RETRY, Action.BACK_OFF)} == PASSING


@pytest.mark.parametrize(("code", "about"), [(130497, "country: IN"), (132068, "flow: order_update/en")])
async def test_what_is_refused_by_itself_is_one_alert_a_day(desk: Desk, code: int, about: str) -> None:
    rule, told = rule_for(code), set[tuple[str, str, str | None]]()
    for phone in ("+919876543210", "+919876543211"):
        refusal = Refusal(
            desk.one.tenant, desk.one.sender, rule, code, rule.title, timedelta(), ("order_update", "en"),
            country=country(phone),
        )  # fmt: skip
        async with desk.storage.batch((desk.one.tenant,)) as con:
            assert await halt(con, refusal) == []
            for row in await con.fetch("delete from outbox returning body::text"):
                event = msgspec.json.decode(row[0])
                where = event.get("template") or event["reason"].rpartition(": ")[2]
                told.add((event["id"], event["kind"], f"{event['scope']}: {where}"))
    [(_, kind, what)] = told
    assert (kind, what) == ("refused", about)


async def test_what_is_refused_again_and_again_in_an_outage_has_its_number_rest(desk: Desk) -> None:
    await desk.sandbox.put("faults", [{"kind": "error", "code": 131016, "count": 4, "phone_number_id": NUMBER}])
    for _ in range(3):
        await desk.send()
    assert await desk.seen() == "", "one refusal says little"
    await desk.send()
    assert await desk.seen() == "number is held"
    assert desk.numbers.rests(desk.one.tenant, str(desk.one.sender))


async def test_a_stopped_number_is_not_even_asked_for_and_goes_on_with_one_call(desk: Desk) -> None:
    await desk.sandbox.put("faults", [{"kind": "error", "code": 131042, "count": 1}])
    await desk.send()
    assert desk.numbers.rests(desk.one.tenant, str(desk.one.sender))
    outcome = await desk.send()
    assert isinstance(outcome, Retry)
    assert outcome.park
    assert outcome.after
    assert outcome.after <= STOPPED_WAIT
    async with desk.storage.batch((desk.one.tenant,)) as con:
        # By the sister of the same account: what was stopped together goes on together.
        assert sorted(await halting.resume(con, desk.one.tenant, desk.sister)) == sorted((desk.one.sender, desk.sister))
        told = await con.fetchval("select count(*) from outbox where subject like '%.evt.alert.resolved'")
        assert told == 1
        assert await halting.resume(con, desk.one.tenant, desk.sister) == []
    assert await desk.seen() == "alert"


async def test_a_status_stops_as_much_as_an_answer_but_not_what_was_seen_to_since(desk: Desk) -> None:
    async def failed(at: datetime) -> None:
        error = {"code": 131042, "title": "Business eligibility payment issue"}
        status = {"id": "wamid.1", "status": "failed", "timestamp": str(int(at.timestamp())), "errors": [error]}
        value = {"metadata": {"phone_number_id": NUMBER}, "statuses": [status]}
        await desk.told(
            msgspec.json.encode({"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]})
        )

    now = datetime.now(UTC)
    await failed(now)
    assert await desk.seen() == "account is paused, alert"
    async with desk.storage.batch((desk.one.tenant,)) as con:
        await halting.resume(con, desk.one.tenant, desk.one.sender)
    await failed(now - timedelta(seconds=2))
    assert await desk.seen() == "alert"
