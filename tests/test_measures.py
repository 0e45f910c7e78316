"""Counting: by type, by the few reasons that there are, by tenant only if asked; histograms that add up."""

from __future__ import annotations

from typing import Any

import pytest

from harkara.measures import Measures, Timing, Timings
from harkara.schemas.events import MessageDeferred, MessageSent, MessageSuppressed
from harkara.settings import SettingsError, load

WHO: dict[str, Any] = {"id": "m", "contact_id": "c", "sender_id": "s"}


def test_reasons_are_those_that_there_are() -> None:
    tally = Measures().tally
    for reason in ("opted_out", "opted_out", "what somebody wrote", None):
        tally.add(MessageSuppressed(**WHO, reason=reason), "acme")
    tally.add(MessageDeferred(**WHO, reason="quiet_hours", deferred_until=None), "acme")
    assert tally.suppressed == {("opted_out",): 2, ("other",): 2}
    assert tally.deferred == {("quiet_hours",): 1}
    assert tally.stored == {MessageSuppressed: 4, MessageDeferred: 1}
    assert tally.by_tenant == {}


def test_only_tenants_that_are_named_are_told_apart() -> None:
    tally = Measures(load({"METRICS_TENANTS": "acme, globex"}).measured_tenants).tally
    for tenant in ("acme", "acme", "other"):
        tally.add(MessageSent(**WHO), tenant)
    assert tally.by_tenant == {("acme", MessageSent): 2}
    assert tally.stored == {MessageSent: 3}


@pytest.mark.parametrize("named", ["Acme", "a,b c", ",".join(f"tenant-{n}" for n in range(51))])
def test_names_that_are_none_or_too_many_stop_the_start(named: str) -> None:
    with pytest.raises(SettingsError, match="METRICS_TENANTS"):
        load({"METRICS_TENANTS": named})


def test_a_histogram_counts_up_to_and_including_each_bound() -> None:
    timing = Timing((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        timing.add(seconds)
    assert timing.counts == [2, 1, 1]
    assert timing.count == 4
    assert timing.total_s == pytest.approx(7.65)


def test_there_is_a_histogram_for_each_combination_that_came() -> None:
    timings = Timings((1.0,))
    timings["a", "b"].add(0.5)
    timings["a", "b"].add(2.0)
    assert {labels: one.counts for labels, one in timings.items()} == {("a", "b"): [1, 1]}
