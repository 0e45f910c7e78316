"""Bodies and queries that are nearly right: whatever comes, the answer is never a fault of ours."""

from __future__ import annotations

import json
import random
import re
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlencode

import msgspec
import pytest
from door_client import Account, a_phone, things

from harkara.http.route import PREFIX, Route
from harkara.http.routes import ROUTES
from harkara.storage.storage import Storage

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**80, 1e308, 1e-308, "", " ", "x", "x" * 5000, "\x00", "\x1f", "💥", "\u202e", "%", "'",
    "\\", "{{", "{{ name }}", "{{ attributes.x.y }}", "{% for x in range(9999) %}x{% endfor %}", "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "01906d5e-0000-7000-8000-000000000000", [], {}, [None],
    {"": ""}, [[[[]]]], {"a": {"b": 1}},
)  # fmt: skip


def near(chance: random.Random, type_: Any) -> Any:
    """Mostly a value of this type, sometimes an odd one, at any depth."""
    origin, args = get_origin(type_), get_args(type_)
    if chance.random() < 0.05:
        return chance.choice(ODD)
    if origin is Annotated:
        return near(chance, args[0])
    if origin is Literal:
        return chance.choice(args)
    if origin is list:
        return [near(chance, args[0]) for _ in range(chance.randint(0, 3))]
    if origin is dict:
        return {str(near(chance, args[0])): near(chance, args[1]) for _ in range(chance.randint(0, 3))}
    if args:
        return near(chance, chance.choice([one for one in args if one is not msgspec.UnsetType]))
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        fields = msgspec.structs.fields(type_)
        config = type_.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        return tag | {
            one.encode_name: near(chance, one.type) for one in fields if one.required or chance.random() < 0.4
        }
    plain = {NoneType: None, bool: True, int: 7, float: 1.5, str: chance.choice(("x", "{{ name }}", "UTC", "hi"))}
    return plain.get(type_, chance.choice(ODD))


def filled(chance: random.Random, value: Any, ids: dict[str, str]) -> Any:
    """Put real ids and phones where they belong, most of the time."""
    if not isinstance(value, dict):
        return value
    real = {"phone": a_phone(), "to": a_phone(), **{name: ids.get(name, "x") for name in value if name.endswith("_id")}}
    return {name: real[name] if name in real and chance.random() < 0.8 else one for name, one in value.items()}


SEEN = [route for route in ROUTES if (route.body or route.query) and "/auth/" not in route.path]


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_nearly_right_is_a_fault_of_ours(acme: Account, storage: Storage, seed: int) -> None:
    made = await things(acme, storage)
    chance = random.Random(seed)
    ids = made.ids | {"campaign_id": made.campaign_draft}
    answered: set[int] = set()
    for _ in range(250):
        route = chance.choice(SEEN)
        status, text = await _once(acme, route, chance, ids)
        assert status < 500, text
        answered.add(status)
    assert {200, 422} <= answered, "the fuzz is not near enough to right"


async def _once(acme: Account, route: Route, chance: random.Random, ids: dict[str, str]) -> tuple[int, str]:
    path = re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], route.path.removeprefix(PREFIX))
    if route.body is None:
        asked = near(chance, route.query)
        wanted = urlencode(asked if isinstance(asked, dict) else {"limit": str(asked)[:100]})[:4000]
        answer, sent = await acme.call("GET", f"{path}?{wanted}"), wanted
    else:
        body = filled(chance, near(chance, route.body), ids)
        answer, sent = await acme.call(route.method, path, body=body), json.dumps(body)
    return answer.status, f"{route.method} {route.path} with {sent[:1000]}: {answer.text}"
