"""No tenant can reach another's things: every route of the table is walked with foreign ids."""

from __future__ import annotations

import re
from typing import Any

import pytest
from door_client import Account, Api, things
from nats.js.errors import NotFoundError

from harkara.bus.connection import Bus
from harkara.http.access import Public
from harkara.http.route import PREFIX, Route
from harkara.http.routes import ROUTES
from harkara.ids import uuid7
from harkara.storage.storage import Storage

WITH_IDS = [route for route in ROUTES if "_id}" in route.path and not isinstance(route.access, Public)]
LISTS = [
    route
    for route in ROUTES
    if route.method == "GET" and "{" not in route.path and not isinstance(route.access, Public) and route.query
]

#: A body that is right in itself, for each route that takes one.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", "/users/{user_id}"): {"name": "stolen"},
    ("PATCH", "/senders/{sender_id}"): {"name": "stolen"},
    ("PATCH", "/contacts/{contact_id}"): {"name": "stolen"},
    ("POST", "/contacts/{contact_id}/phone-numbers"): {"phone": "+919800000001"},
    ("PATCH", "/contacts/{contact_id}/phone-numbers/{phone_id}"): {"label": "stolen"},
    ("PATCH", "/leads/{lead_id}"): {"stage": "lost"},
    ("PATCH", "/invoices/{invoice_id}"): {"amount": 1},
    ("POST", "/invoices/{invoice_id}/pay"): {"paid_at": None},
    ("POST", "/contacts/{contact_id}/merge"): {"contact_id": "01906d5e-0000-7000-8000-000000000000"},
    ("PATCH", "/campaigns/{campaign_id}"): {"name": "stolen"},
    ("POST", "/campaigns/{campaign_id}/steps"): {"delay_hours": 1, "body": "stolen"},
    ("PATCH", "/campaigns/{campaign_id}/steps/{step_id}"): {"body": "stolen"},
    ("POST", "/campaigns/{campaign_id}/enroll"): {"all": True},
    ("POST", "/contacts/{contact_id}/campaign/{campaign_id}/enroll"): {"invoice_id": None},
    ("POST", "/conversations/{conversation_id}/reply"): {"body": "stolen"},
    ("POST", "/conversations/{conversation_id}/assign"): {"user_id": None},
    ("POST", "/conversations/{conversation_id}/notes"): {"text": "stolen"},
    ("POST", "/conversations/{conversation_id}/read"): {"typing": True},
    ("POST", "/campaigns/{campaign_id}/dry-run"): {"all": True},
    ("POST", "/campaigns/{campaign_id}/steps/{step_id}/preview"): {"contact_id": str(uuid7())},
    ("POST", "/campaigns/{campaign_id}/steps/{step_id}/test"): {"to": "+919800000001"},
    ("PATCH", "/segments/{segment_id}"): {"name": "stolen"},
}


#: What the sender that is made here has not: its gateway lends no phone's account.
NEED_A_PHONE = ("/senders/{sender_id}/session", "/senders/{sender_id}/qr")


def filled(route: Route, ids: dict[str, str]) -> str:
    path = route.path.removeprefix(PREFIX)
    return re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)


async def everything(storage: Storage, tenant: str) -> dict[str, list[Any]]:
    """All rows of a tenant."""
    tables = (
        "tenants", "tenant_users", "api_keys", "senders", "contacts", "phone_numbers", "campaigns", "campaign_versions",
        "campaign_steps", "contact_campaign_progress", "messages", "conversations", "replies", "media",
        "leads", "lead_changes", "segments", "invoices",
    )  # fmt: skip
    async with storage.tenant(tenant) as con:
        return {name: await con.fetch(f"select * from {name} order by id") for name in tables}


async def test_every_route_with_an_id_answers_404_for_another_tenants_and_changes_nothing(
    acme: Account, other: Account, storage: Storage, live_bus: Bus
) -> None:
    theirs = await things(acme, storage)
    own = await things(other, storage)
    before = await everything(storage, acme.tenant)
    for route in WITH_IDS:
        names = re.findall(r"\{(\w+)\}", route.path)
        body = BODIES.get((route.method, route.path.removeprefix(PREFIX)))
        assert (body is None) == (route.body is None), f"the walk needs a body for {route.method} {route.path}"
        # Every id foreign, and each one foreign while the others are one's own.
        for foreign in {tuple(names), *((name,) for name in names)}:
            ids = own.ids | {"campaign_id": own.campaign_draft} | {name: theirs.ids[name] for name in foreign}
            more = {} if body is None else {"body": body}
            answer = await other.call(route.method, filled(route, ids), **more)
            assert answer.status == 404, f"{route.method} {route.path} with foreign {foreign}: {answer.text}"
            answer.is_problem(404)
    assert await everything(storage, acme.tenant) == before
    with pytest.raises(NotFoundError):
        await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.>")
    with pytest.raises(NotFoundError):
        await live_bus.js.get_last_msg("COMMANDS", f"t.{other.tenant}.cmd.>")


async def test_the_same_routes_work_for_the_owner_so_that_404_means_something(acme: Account, storage: Storage) -> None:
    own = await things(acme, storage)
    for route in WITH_IDS:
        if route.method == "GET":
            answer = await acme.call("GET", filled(route, own.ids))
            found = 409 if route.path.removeprefix(PREFIX) in NEED_A_PHONE else 200
            assert answer.status == found, f"{route.path}: {answer.text}"


async def test_no_list_shows_another_tenants_things(acme: Account, other: Account, storage: Storage) -> None:
    theirs = await things(acme, storage)
    for route in LISTS:
        text = (await other.call("GET", route.path.removeprefix(PREFIX))).text
        for id_ in theirs.ids.values():
            assert id_ not in text, route.path
    for filter_ in (f"contact_id={theirs.ids['contact_id']}", f"campaign_id={theirs.ids['campaign_id']}"):
        assert (await other.get(f"/messages?{filter_}"))["items"] == []
    assert (await other.get(f"/replies?contact_id={theirs.ids['contact_id']}"))["items"] == []


async def test_ids_of_another_tenant_in_a_body_are_unknown_too(
    acme: Account, other: Account, storage: Storage, live_bus: Bus
) -> None:
    theirs, own = await things(acme, storage), await things(other, storage)
    attempts = [
        ("/campaigns", {"name": "X", "sender_id": theirs.ids["sender_id"]}),
        ("/messages", {"sender_id": theirs.ids["sender_id"], "contact_id": own.ids["contact_id"], "body": "x"}),
        ("/messages", {"sender_id": own.ids["sender_id"], "contact_id": theirs.ids["contact_id"], "body": "x"}),
        (f"/campaigns/{own.ids['campaign_id']}/enroll", {"contact_ids": [theirs.ids["contact_id"]]}),
        (f"/conversations/{own.ids['conversation_id']}/reply", {"body": "x", "reply_to": theirs.ids["message_id"]}),
    ]
    for path, body in attempts:
        (await other.call("POST", path, body=body)).is_problem(404)
    draft = f"/campaigns/{own.campaign_draft}"
    (await other.call("PATCH", draft, body={"sender_id": theirs.ids["sender_id"]})).is_problem(404)
    with pytest.raises(NotFoundError):
        await live_bus.js.get_last_msg("COMMANDS", f"t.{other.tenant}.cmd.>")


async def test_every_route_but_the_public_ones_asks_who_one_is(api: Api) -> None:
    nowhere = {name: str(uuid7()) for route in ROUTES for name in re.findall(r"\{(\w+)\}", route.path)}
    for route in ROUTES:
        if not isinstance(route.access, Public):
            (await api.call(route.method, filled(route, nowhere))).is_problem(401)
