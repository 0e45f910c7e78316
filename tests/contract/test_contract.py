"""What every carrier promises to an actor: read this first to know how the bus behaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import pytest
from contract.carriers import Carrier
from support import until

from harkara.bus import broker, handling, headers
from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.messages import Delivery, Outgoing, Packet
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.schemas.base import Message

Answer = Callable[[Delivery[Any]], Outcome]


class StartEnrollment(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.start"

    campaign_id: str
    contact_id: str


class StopEnrollment(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.stop"

    campaign_id: str
    contact_id: str


class EnrollPage(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.work.enrollment.page"

    bulk_id: str
    campaign_id: str


class EnrollmentStarted(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.started"

    id: str
    campaign_id: str
    contact_id: str


class Clerk:
    """Takes two commands and one piece of work, remembers what it was handed, and answers as it is told."""

    name: ClassVar[str] = "enrollment"
    takes: ClassVar[tuple[type[Message], ...]] = (StartEnrollment, StopEnrollment, EnrollPage)
    retries: ClassVar[Schedule] = Schedule.seconds(0.05, 0.05)
    batch: ClassVar[int] = 10
    in_flight: ClassVar[int] = 3

    def __init__(self, answer: Answer = lambda _: Done()) -> None:
        self.answer = answer
        self.seen: list[Delivery[Any]] = []

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        self.seen.extend(batch)
        return [self.answer(one) for one in batch]

    def ids(self) -> list[str]:
        return [one.id for one in self.seen]


def start(id: str = "1", tenant: str = "acme", contact: str = "c-1") -> Outgoing:
    return Outgoing(StartEnrollment(campaign_id="camp", contact_id=contact), tenant, id, "cause-1")


def started(one: Delivery[Any]) -> Outgoing:
    event = EnrollmentStarted(id=one.id, campaign_id="camp", contact_id=one.message.contact_id)
    return Outgoing(event, one.tenant, f"started-{one.id}", one.cause)


async def dead(carrier: Carrier) -> Packet:
    letters: list[Packet] = []

    async def one_letter() -> bool:
        letters[:] = await carrier.stored("DEAD")
        return bool(letters)

    await until(one_letter, "a dead letter")
    assert len(letters) == 1
    return letters[0]


async def empty(carrier: Carrier, stream: str) -> None:
    async def nothing() -> bool:
        return not await carrier.stored(stream)

    await until(nothing, f"{stream} to be empty")


async def test_a_message_arrives_as_it_was_sent(carrier: Carrier) -> None:
    clerk = Clerk()
    before = datetime.now(UTC) - timedelta(seconds=1)
    async with carrier.run(clerk):
        ack = await carrier.publisher.publish(start("m-1"))
        await until(lambda: clerk.seen, "the delivery")
    one = clerk.seen[0]
    assert one.message == StartEnrollment(campaign_id="camp", contact_id="c-1")
    assert (one.tenant, one.id, one.cause) == ("acme", "m-1", "cause-1")
    assert (one.stream, one.seq) == (ack.stream, ack.seq) == ("COMMANDS", 1)
    assert one.subject == "t.acme.cmd.enrollment.start"
    assert before < one.at <= datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.needs("exact")
async def test_the_first_delivery_is_counted_as_the_first(carrier: Carrier) -> None:
    clerk = Clerk()
    async with carrier.run(clerk):
        await carrier.publisher.publish(start("m-1"))
        await until(lambda: clerk.seen, "the delivery")
    assert (clerk.seen[0].attempt, clerk.seen[0].deliveries) == (1, 1)


async def test_done_publishes_its_events_and_takes_the_message_off_the_queue(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done((started(one),)))
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start("m-1"))
        await empty(carrier, "COMMANDS")
    (event,) = await carrier.stored("EVENTS")
    assert event.subject == "t.acme.evt.enrollment.started"
    assert event.headers[headers.CAUSE] == "cause-1"
    assert event.headers[headers.ID] == "started-m-1"
    assert msgspec.json.decode(event.body, type=EnrollmentStarted).contact_id == "c-1"
    assert counters.handled == 1 or carrier.name == "frame"
    assert (counters.retried, counters.dead, counters.in_flight) == (0, 0, 0)


async def test_everything_an_actor_takes_reaches_it_whatever_the_stream(carrier: Carrier) -> None:
    clerk = Clerk()
    async with carrier.run(clerk):
        await carrier.publisher.publish_many(
            [
                start("1"),
                Outgoing(StopEnrollment(campaign_id="camp", contact_id="c"), "acme", "2"),
                Outgoing(EnrollPage(bulk_id="b", campaign_id="camp"), "acme", "3"),
            ]
        )
        await until(lambda: {type(one.message) for one in clerk.seen} == set(Clerk.takes), "all three")
    assert {one.stream for one in clerk.seen} == {"COMMANDS", "WORK"}


async def test_what_was_published_before_anyone_listened_is_not_lost(carrier: Carrier) -> None:
    await carrier.publisher.publish_many([start(str(n)) for n in range(4)])
    clerk = Clerk()
    async with carrier.run(clerk):
        await until(lambda: len(set(clerk.ids())) == 4, "all four")
    assert carrier.name == "frame" or clerk.ids() == ["0", "1", "2", "3"]


async def test_the_same_id_is_stored_once_per_tenant(carrier: Carrier) -> None:
    clerk = Clerk()
    acks = await carrier.publisher.publish_many([start("1"), start("1"), start("1", tenant="bravo")])
    assert [one.duplicate for one in acks] == [False, True, False]
    assert acks[0].seq == acks[1].seq
    async with carrier.run(clerk):
        await empty(carrier, "COMMANDS")
    assert {(one.tenant, one.id, one.seq) for one in clerk.seen} == {
        ("acme", "1", acks[0].seq),
        ("bravo", "1", acks[2].seq),
    }


async def test_a_full_queue_refuses_its_tenant_and_nobody_else(carrier: Carrier) -> None:
    results = await carrier.publisher.publish_many([start(str(n)) for n in range(6)])
    assert [type(one).__name__ for one in results] == ["Ack"] * 5 + ["Full"]
    with pytest.raises(Full, match="full"):
        await carrier.publisher.publish(start("more"))
    await carrier.publisher.publish(start("1", tenant="bravo"))
    clerk = Clerk()
    async with carrier.run(clerk):
        await empty(carrier, "COMMANDS")
        await carrier.publisher.publish(start("more"))
        await until(lambda: "more" in clerk.ids(), "room again")


async def test_what_can_never_be_stored_is_refused_at_once(carrier: Carrier) -> None:
    with pytest.raises(Refused, match="subject"):
        await carrier.publisher.publish(start(tenant="acme.cmd.other"))
    with pytest.raises(Refused, match=r"bytes|size"):
        await carrier.publisher.publish(start(contact="x" * 1_000_000))
    results = await carrier.publisher.publish_many([start("1", contact="x" * 2_000_000), start("2")])
    assert [type(one).__name__ for one in results] == ["Refused", "Ack"]


@pytest.mark.needs("exact")
async def test_a_retry_comes_back_by_the_schedule_and_counts(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done() if one.attempt == 3 else Retry("not yet"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start())
        await empty(carrier, "COMMANDS")
    assert [one.attempt for one in clerk.seen] == [1, 2, 3]
    assert loop.time() - began >= 0.08
    assert (counters.handled, counters.retried, counters.dead) == (1, 2, 0)
    assert not await carrier.stored("DEAD")


@pytest.mark.needs("exact")
async def test_after_the_last_retry_it_lies_among_the_dead_with_all_that_is_known(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Retry("the printer\nis on fire"))
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start("m-1"))
        letter = await dead(carrier)
        await empty(carrier, "COMMANDS")
    assert [one.attempt for one in clerk.seen] == [1, 2, 3]
    assert letter.subject == "t.acme.dead.enrollment"
    assert msgspec.json.decode(letter.body, type=StartEnrollment).contact_id == "c-1"
    said = letter.headers
    assert said[headers.REASON] == "gave up after 3 attempts: the printer is on fire"
    assert said[headers.SUBJECT] == "t.acme.cmd.enrollment.start"
    assert (said[headers.STREAM], said[headers.SEQ], said[headers.ACTOR]) == ("COMMANDS", "1", "enrollment")
    assert (said[headers.ID], said[headers.CAUSE], said[headers.ATTEMPT]) == ("m-1", "cause-1", "3")
    assert datetime.fromisoformat(said[headers.AT]) == clerk.seen[0].at
    assert counters.dead == 1


@pytest.mark.needs("exact")
async def test_an_explicit_wait_is_kept(carrier: Carrier) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def answer(one: Delivery[Any]) -> Outcome:
        times.append(loop.time())
        return Done() if one.attempt == 2 else Retry("later", timedelta(seconds=0.4))

    async with carrier.run(Clerk(answer)):
        await carrier.publisher.publish(start())
        await until(lambda: len(times) == 2, "the second attempt")
    assert times[1] - times[0] >= 0.39


@pytest.mark.needs("exact")
@pytest.mark.usefixtures("brisk")
async def test_a_long_wait_is_parked_on_a_schedule_and_comes_back_the_same(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done() if one.attempt == 3 else Retry("later", timedelta(seconds=0.3)))
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start("m-1"))
        await until(lambda: len(clerk.seen) == 1, "the first attempt")
        await empty(carrier, "COMMANDS")
        await until(lambda: counters.handled == 1, "the third attempt")
        await empty(carrier, "WORK")
    first, *later = clerk.seen
    assert [one.attempt for one in clerk.seen] == [1, 2, 3]
    for one in later:
        assert (one.message, one.tenant, one.id, one.cause) == (first.message, "acme", "m-1", "cause-1")
        assert (one.subject, one.at, one.deliveries) == (first.subject, first.at, 1)
        assert one.stream == "WORK"


@pytest.mark.needs("exact")
@pytest.mark.usefixtures("brisk")
async def test_work_is_parked_in_its_own_stream(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done() if one.attempt == 2 else Retry("later", timedelta(seconds=0.2)))
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(Outgoing(EnrollPage(bulk_id="b", campaign_id="c"), "acme", "p"))
        await until(lambda: counters.handled == 1, "the second attempt")
    assert [one.subject for one in clerk.seen] == ["t.acme.work.enrollment.page"] * 2
    assert [one.id for one in clerk.seen] == ["p", "p"]


@pytest.mark.needs("exact")
@pytest.mark.usefixtures("brisk")
async def test_two_messages_with_one_id_do_not_displace_each_other_while_parked(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done() if one.attempt == 2 else Retry("later", timedelta(seconds=1)))
    stop = Outgoing(StopEnrollment(campaign_id="camp", contact_id="c"), "acme", "other")
    same = Outgoing(stop.message, "acme", "1").packet()
    other = Packet(same.subject, same.body, {**same.headers, headers.DEDUPE: "acme.other"})
    await carrier.publisher.publish(start("1"))
    await carrier.publisher.send([other])
    async with carrier.run(clerk) as counters:
        await until(lambda: counters.handled == 2, "both to come back")
    back = [type(one.message).__name__ for one in clerk.seen if one.attempt == 2]
    assert sorted(back) == ["StartEnrollment", "StopEnrollment"]


@pytest.mark.needs("exact")
@pytest.mark.usefixtures("brisk")
async def test_waiting_that_does_not_count_never_runs_out(carrier: Carrier) -> None:
    waits = iter([0.01] * 5 + [0.15] * 2)

    def answer(one: Delivery[Any]) -> Outcome:
        wait = next(waits, None)
        return Done() if wait is None else Retry("not its time", timedelta(seconds=wait), counts=False)

    clerk = Clerk(answer)
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start())
        await until(lambda: counters.handled == 1, "its time")
    assert len(clerk.seen) == 8
    assert {one.attempt for one in clerk.seen} == {1}
    assert not await carrier.stored("DEAD")


async def test_drop_is_a_dead_letter_at_once(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Drop("no such campaign"))
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start())
        letter = await dead(carrier)
        await empty(carrier, "COMMANDS")
    assert letter.headers[headers.REASON] == "no such campaign"
    assert counters.retried == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"campaign_id": 7, "contact_id": "hush"}', "$.campaign_id"),
        (b'{"campaign_id": "hush"}', "contact_id"),
        (b"{hush", "malformed"),
        (b"\xff\xfe hush", "malformed"),
        (b'{"campaign_id":"\xff hush","contact_id":""}', "UTF-8"),
        (b"[" * 100_000, "undecodable"),
    ],
)
async def test_what_cannot_be_read_is_dead_at_once_and_its_content_stays_out_of_the_reason(
    carrier: Carrier, body: bytes, says: str
) -> None:
    clerk = Clerk()
    async with carrier.run(clerk):
        await carrier.publisher.send([Packet("t.acme.cmd.enrollment.start", body, {})])
        await carrier.publisher.publish(start("good"))
        letter = await dead(carrier)
        await empty(carrier, "COMMANDS")
    assert says in letter.headers[headers.REASON]
    assert "hush" not in letter.headers[headers.REASON]
    assert letter.body == body
    assert set(clerk.ids()) == {"good"}


@pytest.mark.needs("exact")
async def test_an_unreadable_message_does_not_disturb_its_neighbours_in_the_batch(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done() if one.attempt == 2 else Retry("again"))
    await carrier.publisher.publish(start("1"))
    await carrier.publisher.send([Packet("t.acme.cmd.enrollment.start", b"{", {})])
    await carrier.publisher.publish(start("2"))
    async with carrier.run(clerk) as counters:
        await until(lambda: counters.handled == 2, "both neighbours")
        await empty(carrier, "COMMANDS")
    assert sorted(clerk.ids()) == ["1", "1", "2", "2"]
    assert (await dead(carrier)).body == b"{"


@pytest.mark.needs("exact")
async def test_a_handler_that_never_ends_is_cancelled_and_its_messages_are_retried(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling, "LONGEST_HANDLING", timedelta(seconds=0.2))

    class Stuck(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            await super().handle(batch)
            if batch[0].attempt == 1:
                await asyncio.Event().wait()
            return [Done() for _ in batch]

    clerk = Stuck()
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start())
        await until(lambda: counters.handled == 1, "the second attempt")
        await empty(carrier, "COMMANDS")
    assert len(clerk.seen) == 2


@pytest.mark.needs("exact")
async def test_an_exception_harms_only_the_message_that_caused_it(carrier: Carrier) -> None:
    class Fussy(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            if any(one.id == "bad" for one in batch):
                raise ValueError("cannot digest\nDETAIL: with the values in it")
            return await super().handle(batch)

    clerk = Fussy()
    await carrier.publisher.publish_many([start("1"), start("bad"), start("2")])
    async with carrier.run(clerk) as counters:
        letter = await dead(carrier)
        await empty(carrier, "COMMANDS")
    assert sorted(clerk.ids()) == ["1", "2"]
    assert counters.handled == 2
    assert letter.headers[headers.REASON] == "gave up after 3 attempts: ValueError: cannot digest"


@pytest.mark.needs("exact")
async def test_what_is_away_is_waited_for_without_counting(carrier: Carrier) -> None:
    class Offline(Clerk):
        tries = 0

        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            Offline.tries += 1
            if Offline.tries == 1:
                raise RuntimeError("the database is away") from ConnectionRefusedError()
            return await super().handle(batch)

    clerk = Offline()
    async with carrier.run(clerk):
        await carrier.publisher.publish(start())
        await until(lambda: clerk.seen, "the database")
    assert clerk.seen[0].attempt == 1


async def test_an_answer_for_the_wrong_number_of_messages_settles_none(carrier: Carrier) -> None:
    class Sloppy(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            return []

    async with carrier.run(Sloppy()):
        await carrier.publisher.publish(start())
        letter = await dead(carrier)
    assert "0 outcomes for 1 deliveries" in letter.headers[headers.REASON]


@pytest.mark.needs("exact")
async def test_each_message_of_a_batch_is_settled_by_its_own_outcome(carrier: Carrier) -> None:
    outcomes: dict[str, Outcome] = {"drop": Drop("no"), "done": Done(), "retry": Retry("again")}
    clerk = Clerk(lambda one: Done() if one.attempt > 1 else outcomes[one.id])
    await carrier.publisher.publish_many([start("done"), start("drop"), start("retry")])
    async with carrier.run(clerk) as counters:
        await until(lambda: counters.handled == 2, "done and retried")
        letter = await dead(carrier)
    assert letter.headers[headers.ID] == "drop"
    assert clerk.ids().count("retry") == 2
    assert clerk.ids().count("done") == 1


@pytest.mark.needs("exact")
async def test_a_message_is_not_acked_before_its_events_are_stored(carrier: Carrier) -> None:
    onward = iter(range(100))

    def answer(one: Delivery[Any]) -> Outcome:
        if isinstance(one.message, EnrollPage):
            command = StartEnrollment(campaign_id="camp", contact_id=f"c-{next(onward)}")
            return Done(tuple(Outgoing(command, "full", f"n-{n}") for n in range(6)))
        return Done()

    class Pages(Clerk):
        takes: ClassVar[tuple[type[Message], ...]] = (EnrollPage,)

    clerk = Pages(answer)
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(Outgoing(EnrollPage(bulk_id="b", campaign_id="c"), "acme", "p"))
        await until(lambda: counters.retried, "a full queue")
        assert len(await carrier.stored("WORK")) == 1
        assert len(await carrier.stored("COMMANDS")) == 5
        eater = Clerk()
        eater.takes = (StartEnrollment,)  # type: ignore[misc]
        eater.name = "dispatcher"  # type: ignore[misc]
        async with carrier.run(eater):
            await until(lambda: counters.handled == 1, "room for the rest")
            await until(lambda: len(set(eater.ids())) == 6, "all six")
    assert clerk.seen[1].attempt == 1


async def _dies(carrier: Carrier, id: str, event: Message) -> None:
    """The message whose outcome this is becomes a dead letter."""
    clerk = Clerk(lambda one: Done((Outgoing(event, "acme", "e"),)))
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start(id))
        await until(lambda: counters.dead, "a dead letter")


async def test_an_event_that_can_never_be_stored_sends_its_message_to_the_dead(carrier: Carrier) -> None:
    big = EnrollmentStarted(id="x" * 2_000_000, campaign_id="c", contact_id="c")
    command = StartEnrollment(campaign_id="x" * 1_000_000, contact_id="c")
    for id, event in (("1", big), ("2", command)):
        if carrier.name == "memory" and id == "1":
            continue
        await _dies(carrier, id, event)
    letters = await carrier.stored("DEAD")
    assert all("refused" in one.headers[headers.REASON] for one in letters)


async def test_bookkeeping_headers_of_partners_are_not_believed(carrier: Carrier) -> None:
    packet = start("1").packet()
    forged = {
        **packet.headers,
        headers.ATTEMPT: "99",
        headers.AT: "1999-01-01T00:00:00+00:00",
        headers.SUBJECT: "t.bravo.cmd.enrollment.start",
    }
    clerk = Clerk()
    async with carrier.run(clerk):
        await carrier.publisher.send([Packet(packet.subject, packet.body, forged)])
        await until(lambda: clerk.seen, "the delivery")
    one = clerk.seen[0]
    assert (one.tenant, one.subject) == ("acme", "t.acme.cmd.enrollment.start")
    assert one.attempt < 99
    assert one.at.year > 1999


@pytest.mark.needs("exact")
async def test_a_message_without_an_id_gets_one_that_stays(carrier: Carrier) -> None:
    clerk = Clerk(lambda one: Done() if one.attempt == 2 else Retry("again"))
    async with carrier.run(clerk) as counters:
        body = start().packet().body
        await carrier.publisher.send(
            [
                Packet("t.acme.cmd.enrollment.start", body, {}),
                Packet("t.acme.cmd.enrollment.start", body, {headers.DEDUPE: "order 17"}),
                Packet("t.acme.cmd.enrollment.start", body, {headers.DEDUPE: "0199c0de-0000-7000-8000-00000000000A"}),
            ]
        )
        await until(lambda: counters.handled == 3, "all three twice")
    ids = {one.id for one in clerk.seen}
    assert len(ids) == 3
    assert "0199c0de-0000-7000-8000-00000000000a" in ids
    assert all(one.cause == one.id for one in clerk.seen)


async def test_a_stopped_actor_leaves_its_queue_to_the_next(carrier: Carrier) -> None:
    clerk = Clerk()
    async with carrier.run(clerk):
        await carrier.publisher.publish(start("1"))
        await until(lambda: clerk.seen, "the first")
        await empty(carrier, "COMMANDS")
    await carrier.publisher.publish(start("2"))
    another = Clerk()
    async with carrier.run(another):
        await until(lambda: another.seen, "the second")
    assert (set(clerk.ids()), set(another.ids())) == ({"1"}, {"2"})


@pytest.mark.needs("gives_back")
async def test_on_stop_what_was_begun_ends_and_the_rest_goes_back_at_once(carrier: Carrier) -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()

    class Slow(Clerk):
        batch: ClassVar[int] = 1
        in_flight: ClassVar[int] = 1

        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            begun.set()
            await go_on.wait()
            return await super().handle(batch)

    slow = Slow()
    await carrier.publisher.publish_many([start(str(n)) for n in range(5)])
    async with carrier.run(slow):
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert slow.ids() == ["0"]
    quick = Clerk()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with carrier.run(quick):
        await until(lambda: len(quick.seen) == 4, "the rest")
    assert loop.time() - began < carrier.topology.consumers.ack_wait_s / 2
    assert sorted(quick.ids()) == ["1", "2", "3", "4"]


@pytest.mark.needs("no_barrier")
async def test_a_slow_batch_does_not_hold_the_next(carrier: Carrier) -> None:
    go_on = asyncio.Event()

    class Uneven(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            if batch[0].id == "slow":
                await go_on.wait()
            return await super().handle(batch)

    clerk = Uneven()
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start("slow"))
        await until(lambda: counters.in_flight == 1, "the slow one to begin")
        await carrier.publisher.publish(start("quick"))
        await until(lambda: clerk.ids() == ["quick"], "the quick one while the slow one lasts")
        go_on.set()
        await until(lambda: len(clerk.seen) == 2, "both")


@pytest.mark.needs("concurrent")
async def test_no_more_is_in_hand_than_the_actor_allows(carrier: Carrier) -> None:
    now = 0
    most = 0

    class Counting(Clerk):
        batch: ClassVar[int] = 2
        in_flight: ClassVar[int] = 2

        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            nonlocal now, most
            now += 1
            most = max(most, now)
            assert len(batch) <= 2
            await asyncio.sleep(0.01)
            now -= 1
            return await super().handle(batch)

    clerk = Counting()
    for tenant in ("acme", "bravo", "coral", "delta"):
        await carrier.publisher.publish_many([start(str(n), tenant) for n in range(5)])
    async with carrier.run(clerk):
        await until(lambda: len(clerk.seen) == 20, "all")
    assert most == 2


@pytest.mark.needs("beats")
@pytest.mark.ack_wait(6)
async def test_work_that_lasts_longer_than_the_ack_wait_is_not_handed_out_again(carrier: Carrier) -> None:
    class Thorough(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            self.seen.extend(batch)
            await asyncio.sleep(1.5 * carrier.topology.consumers.ack_wait_s)
            return [Done() for _ in batch]

    clerk = Thorough()
    async with carrier.run(clerk) as counters:
        await carrier.publisher.publish(start())
        await until(lambda: counters.handled == 1, "the long work")
    assert len(clerk.seen) == 1


@pytest.mark.needs("heals")
async def test_a_deleted_consumer_is_declared_again(carrier: Any) -> None:
    clerk = Clerk()
    async with carrier.run(clerk):
        await carrier.publisher.publish(start("1"))
        await empty(carrier, "COMMANDS")
        await carrier.bus.js.delete_consumer("COMMANDS", "enrollment")
        await carrier.publisher.publish(start("2"))
        await until(lambda: "2" in clerk.ids(), "the second")
    assert clerk.ids() == ["1", "2"]


async def test_a_nudge_reaches_whoever_listens_and_nobody_later(carrier: Carrier) -> None:
    heard: list[bytes] = []
    carrier.publisher.wake("sys.wake.due", b"lost")
    unsubscribe = await carrier.publisher.subscribe_wake("sys.wake.*", heard.append)
    carrier.publisher.wake("sys.wake.due", b"now")
    await until(lambda: heard, "the nudge")
    await unsubscribe()
    carrier.publisher.wake("sys.wake.due", b"gone")
    await asyncio.sleep(0.05)
    assert heard == [b"now"]


async def test_a_subject_that_no_stream_takes_is_unavailable(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stray(Message, frozen=True):
        subject: ClassVar[str] = "t.{tenant}.nowhere"

    if carrier.name != "memory":
        # The last time it asks, it has time to hear the answer.
        monkeypatch.setattr(broker, "_FIRST_BACKOFF_S", 60)
        carrier.publisher._patience_s = 2
    with pytest.raises(Unavailable, match="topology apply"):
        await carrier.publisher.publish(Outgoing(Stray(), "acme", "1"))
