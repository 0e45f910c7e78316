"""The page that Prometheus reads: the figures of one process, whatever runs in it.

Every label takes its values from a finite set that is fixed by the code: route patterns, status classes, actors,
reasons, lanes. Tenants are told apart only if METRICS_TENANTS names them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from harkara.measures import Measures, Timing, Timings
from harkara.observing.lag import Lag, Lags
from harkara.schemas.base import Message, kind_of
from harkara.schemas.commands import SendMessage
from harkara.schemas.events import MessageEvent
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

    from harkara.bus.connection import Bus
    from harkara.http.door import Door

#: A figure for each combination of labels' values.
Figures: TypeAlias = Mapping[Any, float]


class Page:
    """All figures of one process. What it needs of prometheus-client is loaded when somebody first asks."""

    def __init__(
        self, storage: Storage, measures: Measures, *, bus: Bus | None = None, door: Door | None = None
    ) -> None:
        self._storage, self._measures, self._bus, self._door = storage, measures, bus, door
        self._lags = Lags(storage, bus)
        self._generate: Callable[[Lag], bytes] | None = None

    async def render(self) -> bytes:
        """The page in Prometheus' text format."""
        lag = await self._lags.get()
        return await asyncio.to_thread(self._rendered, lag)

    def _rendered(self, lag: Lag) -> bytes:
        if self._generate is None:
            self._generate = _generator(self.families)
        return self._generate(lag)

    def families(self, lag: Lag) -> Iterator[Metric]:
        """Every metric of ours, by name."""
        yield from _messages(self._measures)
        yield from _bus(self._measures, self._bus)
        yield from _gateway(self._measures)
        yield from _servers(self._storage, self._bus, lag)
        if self._door is not None:
            yield from _requests(self._door)
            yield from _limits(self._door)


def _generator(families: Callable[[Lag], Iterator[Metric]]) -> Callable[[Lag], bytes]:
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
    from prometheus_client.registry import Collector

    of_process = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=of_process)

    class Ours(Collector):
        def __init__(self, lag: Lag) -> None:
            self._lag = lag

        def collect(self) -> Iterator[Metric]:
            yield from families(self._lag)

    def generate(lag: Lag) -> bytes:
        ours = CollectorRegistry(auto_describe=False)
        ours.register(Ours(lag))
        return generate_latest(ours) + generate_latest(of_process)

    return generate


# -- what happened to messages ----------------------------------------------------------------------------------------


def _messages(measures: Measures) -> Iterator[Metric]:
    tally = measures.tally
    stored = list(tally.stored.items())
    yield _counter(
        "harkara_messages",
        "Messages by what became of them: `accepted` by the front door, all others as their events tell",
        ("outcome",),
        _summed(((_outcome(kind),), count) for kind, count in stored),
    )
    yield _counter(
        "harkara_messages_suppressed",
        "Messages that policy kept from leaving, by reason",
        ("reason",),
        dict(tally.suppressed),
    )
    yield _counter(
        "harkara_messages_deferred", "Messages that policy holds back for now", ("reason",), dict(tally.deferred)
    )
    yield _counter(
        "harkara_stored",
        "Messages of all types that the broker has stored for this process; duplicates are not among them",
        ("kind",),
        _summed(((kind_of(kind),), count) for kind, count in stored),
    )
    yield _counter(
        "harkara_tenant_messages",
        "The same as harkara_messages_total for the tenants that METRICS_TENANTS names",
        ("tenant", "outcome"),
        _summed(((tenant, _outcome(kind)), count) for (tenant, kind), count in list(tally.by_tenant.items())),
    )


def _outcome(kind: type[Message]) -> str:
    """Empty for what is no message's."""
    if kind is SendMessage:
        return "accepted"
    return kind.subject.rpartition(".")[2] if issubclass(kind, MessageEvent) else ""


def _summed(counted: Iterator[tuple[tuple[str, ...], int]]) -> dict[tuple[str, ...], int]:
    summed: dict[tuple[str, ...], int] = {}
    for labels, count in counted:
        if all(labels):
            summed[labels] = summed.get(labels, 0) + count
    return summed


# -- the bus and the actors -------------------------------------------------------------------------------------------


def _bus(measures: Measures, bus: Bus | None) -> Iterator[Metric]:
    yield _histogram(
        "harkara_publish_seconds", "From writing messages to the broker's word that it has stored them", (),
        {(): measures.acks},
    )  # fmt: skip
    yield _counter(
        "harkara_publish_failed", "Messages that the broker did not store, by why", ("why",), dict(measures.unstored)
    )
    counters = list(bus.counters.items()) if bus is not None else []
    yield _counter(
        "harkara_actor_deliveries",
        "Deliveries by actor and how they ended: handled, to be retried, or given up as dead letters",
        ("actor", "outcome"),
        {
            (name, outcome): int(getattr(one, outcome))
            for name, one in counters
            for outcome in ("handled", "retried", "dead")
        },
    )
    yield _gauge(
        "harkara_actor_in_flight",
        "Deliveries in hand right now",
        ("actor",),
        {(name,): one.in_flight for name, one in counters},
    )
    yield _histogram(
        "harkara_actor_batch_seconds",
        "From handing an actor a batch to its being settled, a number's turn included",
        ("actor",),
        {(name,): one.batches for name, one in counters},
    )


# -- what we depend on ------------------------------------------------------------------------------------------------


def _gateway(measures: Measures) -> Iterator[Metric]:
    yield _histogram(
        "harkara_gateway_seconds", "Requests to send, by provider and kind of answer", ("provider", "answer"),
        measures.gateway,
    )  # fmt: skip
    yield _counter(
        "harkara_gateway_refusals",
        "Requests to send that were refused, by WhatsApp's code",
        ("provider", "code"),
        dict(measures.refusals),
    )
    yield _histogram(
        "harkara_turn_seconds", "How long messages waited for their number's turn", ("lane",), measures.turns
    )


def _servers(storage: Storage, bus: Bus | None, lag: Lag) -> Iterator[Metric]:
    in_use, free = storage.connections
    yield _gauge(
        "harkara_database_connections", "Open connections of the pool", ("state",),
        {("in_use",): in_use, ("free",): free},
    )  # fmt: skip
    yield _gauge("harkara_database_connections_limit", "Most connections of the pool", (), {(): storage.pool})
    if bus is not None:
        yield _gauge("harkara_broker_connected", "1 while there is a broker", (), {(): int(bus.connected)})
    labels = ("stream", "reader")
    if lag.pending is not None and lag.in_hand is not None:
        yield _gauge("harkara_reader_pending", "Messages that wait to be delivered to a reader", labels, lag.pending)
        yield _gauge("harkara_reader_in_hand", "Messages delivered to a reader and not settled", labels, lag.in_hand)
    if lag.parked is not None:
        yield _gauge(
            "harkara_parked_failed_seconds",
            "Since when there is a message that failed and waits to be tried again",
            ("actor",),
            {(one.actor,): one.age_s for one in lag.parked if one.failed},
        )
        yield _gauge(
            "harkara_parked_overdue_seconds",
            "For how long what was put off should have been back",
            ("actor",),
            {(one.actor,): one.overdue_s for one in lag.parked},
        )
    if lag.outbox is not None:
        waiting, oldest_s = lag.outbox
        yield _gauge("harkara_outbox_waiting", "Messages in the outbox, up to 10,000", (), {(): waiting})
        yield _gauge("harkara_outbox_oldest_seconds", "For how long the oldest of them waits", (), {(): oldest_s})


# -- the front door ---------------------------------------------------------------------------------------------------


def _requests(door: Door) -> Iterator[Metric]:
    routes = list(door.metrics.routes.values())
    yield _histogram(
        "harkara_http_request_duration_seconds",
        "Seconds from a request's head to its answer; feeds are not among them",
        ("method", "route", "status"),
        {
            (seen.method, seen.route, f"{status}xx"): timing
            for seen in routes
            for status, timing in list(seen.by_class.items())
        },
    )
    in_flight = sum(seen.in_flight for seen in routes)
    yield _gauge(
        "harkara_http_requests_in_flight", "Requests being answered, open feeds among them", (), {(): in_flight}
    )
    yield _gauge("harkara_http_connections", "Open connections", (), {(): door.metrics.connections})
    ended = {(why,): count for why, count in list(door.metrics.turned_away.items())}
    yield _counter("harkara_http_turned_away", "Connections ended by us", ("why",), ended)
    feeds = 0 if door.feed is None else door.feed.listeners
    yield _gauge("harkara_feed_sockets", "Open feeds (WebSockets)", (), {(): feeds})


def _limits(door: Door) -> Iterator[Metric]:
    counting = door.counting
    refused = {(limit,): count for limit, count in list(counting.refused.items())}
    yield _counter("harkara_rate_limit_refused", "Requests answered 429, by whose limit it was", ("limit",), refused)
    limits = counting.limits
    for name, about, value in (
        ("allowed", "Requests that were within all limits", counting.allowed),
        ("asked", "Calls to Redis for slices of limits", limits.asked),
        ("failed", "Those that were not answered in time", limits.failed),
        ("alone", "Requests that this door counted alone, Redis away", limits.alone),
    ):
        yield _counter(f"harkara_rate_limit_{name}", about, (), {(): value})
    yield _gauge("harkara_rate_limit_failing_open", "1 while this door counts alone", (), {(): int(limits.away)})
    yield _gauge("harkara_rate_limit_doors", "Front doors that share the limits", (), {(): limits.doors})


# -- Prometheus' own --------------------------------------------------------------------------------------------------


def _counter(name: str, about: str, labels: tuple[str, ...], values: Figures) -> CounterMetricFamily:
    from prometheus_client.core import CounterMetricFamily

    made = CounterMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        made.add_metric(key, value)
    return made


def _gauge(name: str, about: str, labels: tuple[str, ...], values: Figures) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    made = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        made.add_metric(key, value)
    return made


def _histogram(
    name: str, about: str, labels: tuple[str, ...], timings: Timings | Mapping[Any, Timing]
) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    made = HistogramMetricFamily(name, about, labels=labels)
    for key, timing in list(timings.items()):
        made.add_metric(key, list(_classes(timing)), timing.total_s)
    return made


def _classes(timing: Timing) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, timing.bounds), "+Inf"), timing.counts, strict=True):
        total += count
        yield bound, total
