"""What each answer of the gateway means for a message."""

from datetime import timedelta

import pytest

from harkara.actors.answers import MOST_TRIES, STOPPED_WAIT, UNREACHABLE_CEILING, Again, Finish, decide
from harkara.app import GATEWAY_ANSWER, GATEWAY_CONNECT
from harkara.gateway.errors import RULES, Action, rule_for
from harkara.gateway.evolution import REFUSALS as EVOLUTION_REFUSALS
from harkara.gateway.protocol import Accepted, NotSent, Refused, Unknown
from harkara.gateway.refusals import Case
from harkara.gateway.waha import REFUSALS as WAHA_REFUSALS
from harkara.policy.gate import ATTEMPT_EXPIRES


def refused(code: int, **more: timedelta) -> Refused:
    return Refused(code, f"error {code}", "details", rule_for(code), **more)


def test_accepted_is_sent() -> None:
    assert decide(Accepted("wamid.1"), 1) == Finish("sent")


def test_an_answer_that_never_came_is_never_tried_again() -> None:
    for tries in range(1, 20):
        assert decide(Unknown("no answer"), tries) == Finish("unknown", "no answer")


def test_what_never_left_is_tried_until_it_can_leave() -> None:
    waits = [decide(NotSent("refused"), tries) for tries in (1, 2, 3, 100)]
    assert [wait.after.total_seconds() for wait in waits if isinstance(wait, Again)] == [
        1,
        2,
        4,
        UNREACHABLE_CEILING.total_seconds(),
    ]


@pytest.mark.parametrize("code", sorted(RULES))
def test_every_refusal_ends_or_waits_as_its_rule_says(code: int) -> None:
    rule, decision = rule_for(code), decide(refused(code), 1)
    match rule.action:
        case Action.GIVE_UP:
            assert isinstance(decision, Finish)
            assert (decision.status, decision.error_code) == ("failed", code)
        case Action.RETRY | Action.BACK_OFF:
            assert isinstance(decision, Again)
            assert decision.after > timedelta(0)
        case Action.STOP if rule.waits:
            assert isinstance(decision, Again)
            assert decision.after == STOPPED_WAIT
        case Action.STOP:
            assert isinstance(decision, Finish)


@pytest.mark.parametrize("row", [*EVOLUTION_REFUSALS, *WAHA_REFUSALS])
def test_what_waits_until_a_person_has_acted_never_fails_at_any_gateway(row: Case) -> None:
    answer = Refused(row.status, row.rule.title, "details", row.rule)
    if row.rule.action is Action.STOP:
        assert decide(answer, 100) == Again(STOPPED_WAIT, f"{row.rule.title}: details", row.status)


def test_a_limit_of_the_number_holds_the_number_and_a_limit_of_a_pair_does_not() -> None:
    number, pair = decide(refused(130429), 1), decide(refused(131056), 1)
    assert isinstance(number, Again)
    assert not number.alone
    assert isinstance(pair, Again)
    assert pair.alone


def test_the_gateways_own_wait_counts_more_than_the_table() -> None:
    decision = decide(refused(80007, retry_after=timedelta(minutes=7)), 1)
    assert isinstance(decision, Again)
    assert decision.after == timedelta(minutes=7)


@pytest.mark.parametrize("code", [2, 131016, 133004])
def test_an_outage_is_waited_for_however_long_it_lasts(code: int) -> None:
    found = [decide(refused(code), tries) for tries in (1, 2, 3, 4, 5, 1000)]
    waits = [one for one in found if isinstance(one, Again)]
    assert [one.after.total_seconds() for one in waits] == [5, 10, 20, 40, 60, 60]
    assert all(one.alone for one in waits)


def test_retries_end() -> None:
    assert isinstance(decide(refused(132015), MOST_TRIES), Again)
    assert isinstance(decide(refused(132015), MOST_TRIES + 1), Finish)
    assert isinstance(decide(refused(131000), 5), Again)
    assert isinstance(decide(refused(131000), 6), Finish)


def test_a_phone_that_is_not_on_whatsapp_ends_the_enrolment() -> None:
    decision = decide(refused(131026), 1)
    assert isinstance(decision, Finish)
    assert decision.stop == "unreachable"


def test_no_request_can_outlast_what_the_gate_takes_for_a_lost_attempt() -> None:
    assert GATEWAY_CONNECT + GATEWAY_ANSWER < ATTEMPT_EXPIRES
