"""Actors declared in FastStream: what reaches whom, in memory, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bus.actors import Begin, Begun, Clerk, Page, begin, page
from faststream.nats import NatsBroker, TestNatsBroker

from harkara.bus.errors import BusError
from harkara.bus.frame import Frame
from harkara.bus.messages import Ack, Outgoing, Packet
from harkara.bus.outcomes import Done
from harkara.schemas.base import Message


class Stopper(Clerk):
    name: ClassVar[str] = "dispatcher"
    takes: ClassVar[tuple[type[Message], ...]] = (Begun,)


async def put(broker: NatsBroker, out: Outgoing) -> None:
    packet = out.packet()
    await broker.publish(packet.body, packet.subject, headers=packet.headers)


async def test_each_message_reaches_the_actor_that_takes_it_and_no_other() -> None:
    sent: list[Packet] = []

    async def send(packets: Sequence[Packet]) -> list[Ack | BusError]:
        sent.extend(packets)
        return [Ack("EVENTS", 1, False) for _ in packets]

    clerk = Clerk(lambda one: Done((Outgoing(Begun(number=one.message.number), one.tenant, "e"),)))
    stopper = Stopper()
    frame = Frame("nats://127.0.0.1:1", send)
    counters = frame.declare(clerk).counters
    frame.declare(stopper)
    async with TestNatsBroker(frame.broker) as broker:
        await put(broker, begin(1, tenant="acme"))
        await put(broker, begin(2, tenant="bravo"))
        await put(broker, page(3))
        await put(broker, Outgoing(Begun(number=4), "coral", "x"))
        await broker.publish(b"{}", "t.acme.cmd.message.send")
    assert [(type(one.message), one.tenant) for one in clerk.seen] == [
        (Begin, "acme"),
        (Begin, "bravo"),
        (Page, "acme"),
    ]
    assert [(one.message.number, one.tenant) for one in stopper.seen] == [(4, "coral")]
    assert [one.subject for one in sent] == [
        "t.acme.evt.enrollment.started",
        "t.bravo.evt.enrollment.started",
        "t.acme.evt.enrollment.started",
    ]
    assert counters.handled == 3
