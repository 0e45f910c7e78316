"""One answer tells all that is wrong with a body: what has not its shape, and what is wrong in all that has."""

from __future__ import annotations

import inspect
import itertools
import json
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from door_client import Account, a_phone

from harkara.http.checks import Faults
from harkara.http.decoding import Misshapen, decode_body
from harkara.http.route import Route
from harkara.http.routes import ROUTES

WITH_BODY = [route for route in ROUTES if route.body is not None]
CHECKED = [route for route in ROUTES if route.check is not None]

FOUR = [{"id": str(number), "title": number} for number in range(4)]

BODIES: tuple[tuple[str, dict[str, Any], set[str]], ...] = (
    (
        "/contacts",
        {"name": 5, "phone": "12", "timezone": "Mars", "locale": "?", "consent": {"at": "9999-01-01T00:00:00Z"}},
        {"name", "phone", "timezone", "locale", "consent.source", "consent.at"},
    ),
    ("/contacts", {"name": " ", "fone": "+919876543210"}, {"name", "fone", "phone"}),
    ("/contacts", {"name": "A\x00", "phone": "12", "tags": 1}, {"name", "phone", "tags"}),
    (
        "/messages",
        {"contact_id": 5, "to": "12", "lane": "fast", "body": "{{ nobody }}", "send_at": "2999-01-01T00:00:00Z"},
        {"contact_id", "to", "lane", "body", "send_at"},
    ),
    ("/messages", {"contact_id": 5, "bodi": "x"}, {"contact_id", "bodi", "body"}),
    (
        "/messages",
        {"to": "+12025550123", "lane": 1, "interactive": {"body": "x" * 2000, "buttons": FOUR}},
        {"lane", "interactive.body", "interactive.buttons", *(f"interactive.buttons[{n}].title" for n in range(4))},
    ),
    (
        "/campaigns",
        {"name": "", "quiet_hours": {"start": "25:00", "end": "08:00"}, "audience": {}, "scheduled_at": 1},
        {"name", "sender_id", "quiet_hours.start", "audience", "scheduled_at"},
    ),
    (
        "/segments",
        {"name": " ", "condition": {"type": "all", "of": [{"type": "tag"}, {"type": "attribute", "name": "a"}]}},
        {"name", "condition.of[0].tag", "condition.of[1].value"},
    ),
    ("/users", {"email": "nobody", "role": "king"}, {"email", "role"}),
    (
        "/api-keys",
        {"name": 1, "scopes": ["everything"], "expires_at": "2000-01-01T00:00:00Z"},
        {"name", "scopes[0]", "expires_at"},
    ),
    (
        "/senders",
        {"provider": "cloud", "phone": "12", "mps": 0},
        {"name", "phone", "mps", "phone_number_id", "access_token", "app_secret"},
    ),
)


@pytest.mark.parametrize(("path", "body", "paths"), BODIES, ids=[f"{n}{body[0]}" for n, body in enumerate(BODIES)])
async def test_shape_and_meaning_are_told_together(
    acme: Account, path: str, body: dict[str, Any], paths: set[str]
) -> None:
    answer = (await acme.call("POST", path, body=body)).is_problem(422)
    assert set(answer.faults()) == paths
    told = [(error["path"], error["message"]) for error in answer.body["errors"]]
    assert len(set(told)) == len(told)


async def test_the_tenants_own_region_counts_for_what_has_its_shape(acme: Account) -> None:
    await acme.call("PATCH", "/tenant", body={"default_region": "IN"})
    national = a_phone().removeprefix("+91")
    answer = (await acme.call("POST", "/contacts", body={"name": 5, "phone": national})).is_problem(422)
    assert set(answer.faults()) == {"name"}


async def test_changes_and_steps_are_looked_through_too(acme: Account) -> None:
    answer = await acme.call("PATCH", "/tenant", body={"name": 5, "timezone": "Mars", "default_region": "XX"})
    assert set(answer.is_problem(422).faults()) == {"name", "timezone", "default_region"}
    path = f"/campaigns/{uuid4()}/steps"
    step = {"delay_hours": -1, "variants": [{"name": "a", "body": "{{ x }}"}, {"name": "a", "body": 1}]}
    answer = await acme.call("POST", path, body=step)
    assert set(answer.is_problem(422).faults()) == {
        "delay_hours", "variants[0].body", "variants[1].body", "variants[1].name"
    }  # fmt: skip
    answer = await acme.call("POST", f"/campaigns/{uuid4()}/enroll", body={"tag": "a", "all": "yes"})
    assert set(answer.is_problem(422).faults()) == {"all"}


async def test_the_names_that_a_map_may_have_are_told(acme: Account) -> None:
    body = {"opt_outs": {"nonsense": True, "marketing": "yes", "utility": False}}
    answer = await acme.call("PATCH", f"/contacts/{uuid4()}", body=body)
    assert answer.is_problem(422).faults() == {
        "opt_outs.nonsense": "is unknown here: possible are all, marketing, utility, otp",
        "opt_outs.marketing": "must be a boolean (true or false)",
    }


async def test_nothing_is_stored_of_what_was_mended(acme: Account) -> None:
    (await acme.call("POST", "/contacts", body={"name": 5, "phone": a_phone()})).is_problem(422)
    (await acme.call("POST", "/segments", body={"name": 5, "condition": {"type": "tag", "tag": "x"}})).is_problem(422)
    assert [(await acme.get(path))["items"] for path in ("/contacts", "/segments")] == [[], []]


def test_every_handler_that_looks_for_faults_has_its_check_in_the_table() -> None:
    looking = [route for route in WITH_BODY if "Faults()" in inspect.getsource(route.handler)]
    assert len(looking) > 10
    assert [route.handler.__qualname__ for route in looking if route.check is None] == []


ODD: tuple[Any, ...] = (
    None,
    True,
    7,
    -1.5,
    "",
    "\x00",
    "x" * 5000,
    "{{",
    [],
    [1],
    [[]],
    {},
    {"type": "all"},
    {"a": {}},
)


@pytest.mark.parametrize("route", CHECKED, ids=lambda route: f"{route.method} {route.path}")
async def test_no_check_stumbles_over_what_stands_in_the_place_of_a_fault(acme: Account, route: Route) -> None:
    type_ = cast("type[msgspec.Struct]", route.body)
    names = [*(field.encode_name for field in msgspec.structs.fields(type_)), "unknown"]
    for odd, other in itertools.product(ODD, (None, 7)):
        for name in names:
            body = {one: other for one in names if one != "unknown"} | {name: odd}
            try:
                decode_body(json.dumps(body).encode(), cast("Any", type_))
            except Misshapen as misshapen:
                ctx = _Looking(acme, misshapen.mended)
                assert route.check is not None
                assert not inspect.isawaitable(route.check(cast("Any", ctx), Faults(), None))


class _Looking:
    """As much of a request as a check may look at."""

    def __init__(self, acme: Account, body: Any) -> None:
        self.body, self.door = body, acme.api.door
        self.came_at = self.door.clock()
