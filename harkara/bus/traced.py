"""Publishing and handling with traces: in the place of the plain ones while tracing is on; not loaded else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from harkara.bus import headers
from harkara.bus.broker import BrokerPublisher, Result
from harkara.bus.errors import BusError
from harkara.bus.handling import Handling, Judged
from harkara.bus.intake import Raw, attempt_of, message_id
from harkara.bus.messages import Ack, Outgoing
from harkara.bus.outcomes import Drop, Outcome
from harkara.bus.settle import Acked, Plan, Settler, Verdict
from harkara.observing.tracing import Tracer, current, header_of, trace_of
from harkara.schemas.base import kind_of, tenant_of
from harkara.schemas.events import MessageEvent

if TYPE_CHECKING:
    from harkara.bus.actor import Actor


class TracedPublisher(BrokerPublisher):
    """A publisher whose messages carry a traceparent."""

    def __init__(self, tracer: Tracer, *rest: Any) -> None:
        super().__init__(*rest)
        self._tracer = tracer

    async def publish(self, out: Outgoing) -> Ack:
        """Store one message. Raises what BrokerPublisher raises."""
        traced, span = self._traced(out)
        try:
            return await super().publish(traced)
        except BusError as error:
            _failed(span, error)
            raise
        finally:
            _end(span)

    async def publish_many(self, outs: Sequence[Outgoing]) -> list[Result]:
        """Store many at once. Raises no BusError."""
        traced = [self._traced(out) for out in outs]
        results = await super().publish_many([out for out, _ in traced])
        for (_, span), result in zip(traced, results, strict=True):
            if isinstance(result, BusError):
                _failed(span, result)
            _end(span)
        return results

    def _traced(self, out: Outgoing) -> tuple[Outgoing, Span | None]:
        kind = kind_of(type(out.message))
        about = {"messaging.system": "nats", "harkara.tenant": out.tenant, "harkara.message_id": out.id}
        span = self._tracer.step(f"publish {kind}", SpanKind.PRODUCER, out.cause or out.id, about)
        return (out, None) if span is None else (msgspec.structs.replace(out, trace=header_of(span)), span)


class TracedHandling(Handling):
    """Handling with a span for each delivery that is a tenant's, from opening to settling."""

    def __init__(self, tracer: Tracer, actor: Actor, *rest: Any) -> None:
        super().__init__(actor, *rest)
        self._tracer = tracer
        self._spans: dict[int, Span] = {}
        plain = self._settler
        self._settler = TracedSettler(
            plain.actor, plain.retries, plain.send, plain.now, plain.tally, tracer=tracer, spans=self._spans
        )

    async def judge(self, batch: Sequence[Raw]) -> Judged:
        """Handle one batch; of one delivery its span is the current one."""
        spans = {id(raw): span for raw in batch if (span := self._begun(raw)) is not None}
        self._spans |= spans
        try:
            with current(spans.get(id(batch[0])) if len(batch) == 1 else None):
                return await super().judge(batch)
        except BaseException:
            self._end(batch)
            raise

    async def settle(self, judged: Sequence[Judged]) -> list[Verdict]:
        """Settle what was handled; that ends its spans."""
        batch = [raw for one in judged for raw in one.batch]
        try:
            verdicts = await super().settle(judged)
            for raw, verdict in zip(batch, verdicts, strict=True):
                _tell(self._spans.get(id(raw)), verdict)
            return verdicts
        finally:
            self._end(batch)

    def _end(self, batch: Sequence[Raw]) -> None:
        for raw in batch:
            _end(self._spans.pop(id(raw), None))

    def _begun(self, raw: Raw) -> Span | None:
        tenant = tenant_of(raw.subject)
        if not tenant:  # the broker's ticks
            return None
        id_ = message_id(raw)
        about: dict[str, str | int] = {
            "messaging.system": "nats",
            "messaging.destination.name": raw.stream,
            "harkara.tenant": tenant,
            "harkara.message_id": id_,
            "harkara.attempt": attempt_of(raw),
        }
        cause, header = raw.headers.get(headers.CAUSE) or id_, raw.headers.get(headers.TRACE, "")
        return self._tracer.step(f"process {self.actor.name}", SpanKind.CONSUMER, cause, about, header)


@dataclass(frozen=True, slots=True)
class TracedSettler(Settler):
    """Settles, and has what is told carry the trace on."""

    tracer: Tracer = field(kw_only=True)
    spans: dict[int, Span] = field(kw_only=True)

    def plan(self, raw: Raw, outcome: Outcome) -> Plan:
        """What one outcome means. Raises ValueError if an event cannot be put on a subject."""
        span = self.spans.get(id(raw))
        if span is not None and not isinstance(outcome, Drop) and outcome.events:
            outcome = msgspec.structs.replace(
                outcome, events=tuple(self._traced(event, span) for event in outcome.events)
            )
        return Settler.plan(self, raw, outcome)

    def _traced(self, event: Outgoing, span: Span) -> Outgoing:
        if trace_of(event.cause) == span.get_span_context().trace_id:
            return msgspec.structs.replace(event, trace=header_of(span))
        if not isinstance(event.message, MessageEvent):
            return event
        # A webhook's trace ends here, and that of the message it is about goes on.
        name, about = kind_of(type(event.message)), {"harkara.tenant": event.tenant, "harkara.message_id": event.id}
        header = self.tracer.receipt(name, event.cause, event.message.id, about, span)
        return event if header is None else msgspec.structs.replace(event, trace=header)


def _tell(span: Span | None, verdict: Verdict) -> None:
    if span is None:
        return
    if not isinstance(verdict, Acked) or verdict.parked:
        span.set_attribute("harkara.outcome", "retried")
    elif verdict.dead:
        span.set_attribute("harkara.outcome", "dead")
        span.set_status(Status(StatusCode.ERROR))
    else:
        span.set_attribute("harkara.outcome", "handled")


def _failed(span: Span | None, error: BusError) -> None:
    if span is not None:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def _end(span: Span | None) -> None:
    if span is not None:
        span.end()
