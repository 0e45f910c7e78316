"""The error table, row by row: what the sandbox answers and what the client makes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from gateway.sandboxes import NUMBER, Caller

from harkara.gateway.cloud import CloudGateway
from harkara.gateway.errors import RULES, UNLISTED, Action, Rule, Scope, rule_for, rule_for_status
from harkara.gateway.protocol import Accepted, Credentials, Refused
from harkara.schemas.content import Content

#: What the documentation asks for, written down independently of the table: code -> (action, scope).
_ASKED: dict[int, tuple[Action, Scope]] = {
    130429: (Action.BACK_OFF, Scope.NUMBER),
    131056: (Action.BACK_OFF, Scope.PAIR),
    131048: (Action.BACK_OFF, Scope.NUMBER),
    131064: (Action.BACK_OFF, Scope.ACCOUNT),
    80007: (Action.BACK_OFF, Scope.WABA),
    4: (Action.BACK_OFF, Scope.APP),
    131057: (Action.BACK_OFF, Scope.NUMBER),
    2: (Action.BACK_OFF, Scope.GLOBAL),
    133004: (Action.BACK_OFF, Scope.GLOBAL),
    131016: (Action.BACK_OFF, Scope.GLOBAL),
    131000: (Action.RETRY, Scope.MESSAGE),
    1: (Action.RETRY, Scope.MESSAGE),
    131047: (Action.GIVE_UP, Scope.MESSAGE),
    131026: (Action.GIVE_UP, Scope.RECIPIENT),
    131049: (Action.GIVE_UP, Scope.RECIPIENT),
    131050: (Action.STOP, Scope.RECIPIENT),
    130472: (Action.GIVE_UP, Scope.MESSAGE),
    130403: (Action.GIVE_UP, Scope.MESSAGE),
    131051: (Action.GIVE_UP, Scope.MESSAGE),
    131053: (Action.GIVE_UP, Scope.MESSAGE),
    131008: (Action.GIVE_UP, Scope.MESSAGE),
    131009: (Action.GIVE_UP, Scope.MESSAGE),
    100: (Action.GIVE_UP, Scope.MESSAGE),
    33: (Action.GIVE_UP, Scope.MESSAGE),
    131021: (Action.GIVE_UP, Scope.MESSAGE),
    135000: (Action.GIVE_UP, Scope.MESSAGE),
    131062: (Action.GIVE_UP, Scope.MESSAGE),
    131063: (Action.GIVE_UP, Scope.MESSAGE),
    132000: (Action.GIVE_UP, Scope.MESSAGE),
    132001: (Action.GIVE_UP, Scope.MESSAGE),
    132005: (Action.GIVE_UP, Scope.MESSAGE),
    132007: (Action.GIVE_UP, Scope.MESSAGE),
    132012: (Action.GIVE_UP, Scope.MESSAGE),
    132015: (Action.STOP, Scope.TEMPLATE),
    132016: (Action.STOP, Scope.TEMPLATE),
    132068: (Action.STOP, Scope.FLOW),
    132069: (Action.BACK_OFF, Scope.FLOW),
    131042: (Action.STOP, Scope.WABA),
    131045: (Action.STOP, Scope.NUMBER),
    133010: (Action.STOP, Scope.NUMBER),
    133000: (Action.STOP, Scope.NUMBER),
    133005: (Action.STOP, Scope.NUMBER),
    133006: (Action.STOP, Scope.NUMBER),
    133008: (Action.STOP, Scope.NUMBER),
    133009: (Action.STOP, Scope.NUMBER),
    133015: (Action.BACK_OFF, Scope.NUMBER),
    133016: (Action.BACK_OFF, Scope.NUMBER),
    368: (Action.STOP, Scope.WABA),
    131031: (Action.STOP, Scope.WABA),
    130497: (Action.GIVE_UP, Scope.COUNTRY),
    0: (Action.STOP, Scope.APP),
    190: (Action.STOP, Scope.APP),
    10: (Action.STOP, Scope.APP),
    200: (Action.STOP, Scope.APP),
    299: (Action.STOP, Scope.APP),
    131005: (Action.STOP, Scope.APP),
    3: (Action.STOP, Scope.APP),
    424242: (Action.RETRY, Scope.MESSAGE),
}


@pytest.mark.parametrize("code", sorted(_ASKED))
def test_each_documented_code_asks_for_what_the_documentation_says(code: int) -> None:
    rule = rule_for(code)
    assert (rule.action, rule.scope) == _ASKED[code]


async def test_each_row_travels_from_the_sandbox_to_the_client(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials
) -> None:
    content = Content(body="Namaste")
    await sandbox.put("policy", {"throughput": False})
    for code in sorted(RULES | dict.fromkeys((200, 250, 299, 424242), UNLISTED)):
        await sandbox.put("faults", [{"kind": "error", "code": code, "count": 1}])
        status, _ = await sandbox.text("+919876543210")
        assert status == rule_for(code).status, code
        await sandbox.put("faults", [{"kind": "error", "code": code, "count": 1}])
        answer = await cloud.send(credentials, "+919876543210", content, opaque="m1")
        assert isinstance(answer, Refused), (code, answer)
        assert (answer.code, answer.rule) == (code, rule_for(code))
        assert answer.title.startswith(f"(#{code}) ")
        assert isinstance(await cloud.send(credentials, "+919876543210", content, opaque="m1"), Accepted)
    assert {item["from"] for item in await sandbox.items()} == {NUMBER}


def test_the_pair_limit_waits_four_to_the_power_of_the_attempt() -> None:
    rule = rule_for(131056)
    assert [rule.wait(n).total_seconds() for n in (1, 2, 3, 4)] == [1, 4, 16, 64]


def test_waits_grow_to_a_ceiling_and_no_further() -> None:
    for rule in (*RULES.values(), UNLISTED):
        waits = [rule.wait(n) for n in range(1, 200)]
        assert waits == sorted(waits)
        assert waits[-1] <= rule.ceiling
    assert rule_for(131049).wait(1) == timedelta(days=1)


def test_marketing_refusals_leave_other_messages_alone() -> None:
    assert {code for code, rule in RULES.items() if rule.marketing} == {131049, 131050, 131063}
    assert not rule_for(131050).alert


@pytest.mark.parametrize(
    ("status", "action"),
    [(400, Action.GIVE_UP), (401, Action.STOP), (404, Action.STOP), (413, Action.GIVE_UP), (429, Action.BACK_OFF)],
)
def test_a_refusal_without_words_goes_by_its_http_status(status: int, action: Action) -> None:
    rule = rule_for_status(status)
    assert isinstance(rule, Rule)
    assert rule.action is action


@pytest.mark.parametrize("status", [200, 408, 425, 499, 500, 502, 503, 504])
def test_a_status_that_proves_nothing_has_no_rule(status: int) -> None:
    assert rule_for_status(status) is None
