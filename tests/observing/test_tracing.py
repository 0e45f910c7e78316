"""Which trace something belongs to, and whether it is kept: by its cause alone, the same in every process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from harkara.ids import uuid7_text
from harkara.observing import tracing
from harkara.observing.tracing import Tracer, current, header_of, parsed, span_of, trace_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEPT = f"00-{TRACE}-{SPAN}-01"


class Told:
    """A tracer, and what it told."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.tracer = Tracer(SimpleSpanProcessor(self._memory))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._memory.get_finished_spans()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{'x' * 32}-{SPAN}-01",
    ],
)
def test_a_caller_without_a_kept_trace_gets_one_of_its_own(header: str | None) -> None:
    told = Told()
    cause, span = told.tracer.request("GET /", header, {})
    assert UUID(cause).version == 7
    assert span is not None
    context = span.get_span_context()
    assert (context.trace_id, context.span_id) == (UUID(cause).int, UUID(cause).int & (2**64 - 1))


def test_a_caller_s_trace_is_the_cause() -> None:
    told = Told()
    cause, span = told.tracer.request("GET /", KEPT, {})
    assert cause == str(UUID(TRACE))
    assert span is not None
    span.end()
    [one] = told.spans
    assert one.parent is not None
    assert f"{one.parent.span_id:016x}" == SPAN
    assert header_of(span).startswith(f"00-{TRACE}-")


def test_what_has_no_header_is_found_by_its_cause() -> None:
    told = Told()
    cause, request = told.tracer.request("POST /", None, {})
    later = told.tracer.step("process send", SpanKind.CONSUMER, cause, {})
    assert request is not None
    assert later is not None
    later.end()
    [one] = told.spans
    assert one.parent is not None
    assert one.parent.span_id == request.get_span_context().span_id
    assert one.context.trace_id == request.get_span_context().trace_id


def test_the_current_span_is_the_parent_only_in_its_own_trace() -> None:
    told = Told()
    cause, request = told.tracer.request("POST /", None, {})
    assert request is not None
    with current(request):
        inside = told.tracer.step("publish", SpanKind.PRODUCER, cause, {})
        beside = told.tracer.step("publish", SpanKind.PRODUCER, uuid7_text(), {})
    assert inside is not None
    assert beside is not None
    assert inside.get_span_context().trace_id == trace_of(cause) != beside.get_span_context().trace_id


def test_a_header_of_another_trace_is_not_believed() -> None:
    told = Told()
    cause = uuid7_text()
    span = told.tracer.step("process send", SpanKind.CONSUMER, cause, {}, KEPT)
    assert span is not None
    assert span.get_span_context().trace_id == trace_of(cause)


def test_a_receipt_comes_after_the_request_that_sent_its_message() -> None:
    told = Told()
    cause, message = uuid7_text(), uuid7_text()
    with current(told.tracer.step("process send", SpanKind.CONSUMER, cause, {})):
        told.tracer.sent("POST WhatsApp", message, 1, {}, left=True, ok=True)
    _, webhook = told.tracer.request("POST /webhook", None, {})
    assert webhook is not None
    header = told.tracer.receipt("evt.message.read", cause, message, {}, webhook)
    sent, receipt = told.spans
    assert receipt.parent is not None
    assert sent.context.span_id == receipt.parent.span_id == span_of(message)
    assert receipt.links[0].context.trace_id == webhook.get_span_context().trace_id
    context = parsed(header)
    assert context is not None
    assert context.span_id == receipt.context.span_id


def test_one_trace_in_some_is_kept_and_all_processes_agree_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    one, other = Told().tracer, Told().tracer
    kept = 0
    for _ in range(200):
        cause, span = one.request("POST /", None, {})
        step = other.step("process send", SpanKind.CONSUMER, cause, {})
        assert (span is None) == (step is None)
        kept += span is not None
    assert 0 < kept < 200
    _, span = one.request("POST /", KEPT.replace(TRACE, "f" * 32), {})
    assert span is not None, "what a caller keeps is kept"


async def test_no_process_stays_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_S", 0.05)
    back, ended = threading.Event(), threading.Event()

    class Away(SpanProcessor):
        def shutdown(self) -> None:
            back.wait(30)
            ended.set()

    try:
        await Tracer(Away()).close()
        assert not ended.is_set()
    finally:
        back.set()
    assert ended.wait(30)


def test_causes_that_are_no_uuids_have_a_trace_too() -> None:
    assert trace_of("an old one") == trace_of("an old one") != trace_of("another")
    assert trace_of(str(uuid4())).bit_length() > 64
