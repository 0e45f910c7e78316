"""The description of the API is valid, is what the router does, and its examples are what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import asyncpg
import jsonschema_rs
import msgspec
import pytest
from aiohttp import hdrs, web
from conformity import Conformity
from door_client import Api
from schemathesis.specs.openapi.definitions import OPENAPI_31
from support import Database

from harkara.http import examples
from harkara.http.access import AREAS, SCOPES, Access, scopes_suffice
from harkara.http.checks import Faults
from harkara.http.docs import DESCRIBED, FILES, UI, VERSION, description
from harkara.http.door import Door, build
from harkara.http.routes import ROUTES
from harkara.importing.reading import TYPES
from harkara.schemas.api import MessageStatus
from harkara.schemas.content import Content


@pytest.fixture(scope="module")
def document() -> Any:
    return msgspec.json.decode(description(ROUTES).body)


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_the_document_is_valid_openapi(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    problems = [str(error) for error in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(document)]
    assert problems == []


def test_every_schema_is_valid_and_every_reference_leads_somewhere(document: Any) -> None:
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
        assert "\\Z" not in str(schema), f"{name} has a pattern that only Python knows"
    for place in _references(document):
        found: Any = document
        for part in place.removeprefix("#/").split("/"):
            found = found[part]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def test_the_router_and_the_document_have_the_same_operations(door: Door, document: Any) -> None:
    routed: set[tuple[str, str]] = set()
    for resource in build(door).router.resources():
        assert isinstance(resource, web.Resource)
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", resource.canonical)
        routed |= {(route.method, path) for route in resource if route.method != hdrs.METH_HEAD}
    assert routed == {(method, path) for method, path, _ in operations(document)}


def test_every_operation_says_who_may_what_comes_and_what_can_go_wrong(document: Any) -> None:
    seen = {(method, path): operation for method, path, operation in operations(document)}
    for route in ROUTES:
        operation = seen[route.method, route.path]
        statuses = set(operation["responses"])
        assert {str(status) for status in (route.status, *route.also, *route.raises)} <= statuses
        in_path = {one["name"] for one in operation.get("parameters", ()) if one.get("in") == "path"}
        assert in_path == set(re.findall(r"\{(\w+)", route.path))
        if isinstance(route.access, Access):
            assert operation["security"] == [{"token": [route.access.role]}, {"key": [route.access.scope]}]
            told = set(re.findall(r"`(\w+:\w+)`", operation["description"].rpartition("an API key with")[2]))
            assert told == {scope for scope in SCOPES if scopes_suffice(frozenset({scope}), route.access.scope)} - {"*"}
            assert {"401", "403", "404"} <= statuses
        assert (route.body is not None or bool(route.accepts)) == ("requestBody" in operation)
        assert operation["summary"], f"{route.method} {route.path} has no summary"
        assert operation["tags"]


def test_every_area_of_a_scope_is_named_where_keys_are_made(document: Any) -> None:
    told = set(re.findall(r"\w+", document["components"]["schemas"]["NewApiKey"]["description"]))
    assert set(AREAS) <= told


@pytest.mark.parametrize("name", ["NewSender", "PatchTenant"])
def test_every_field_of_what_is_sent_is_explained_by_itself_or_with_its_body(document: Any, name: str) -> None:
    schema = document["components"]["schemas"][name]
    explained = {
        field
        for field, one in schema["properties"].items()
        if any("description" in each for each in (one, *one.get("anyOf", ()))) or f"`{field}`" in schema["description"]
    }
    assert schema["properties"].keys() - explained <= {"name", "timezone"}


def test_operations_have_names_of_their_own(document: Any) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert {"contact_create", "contacts_list", "contact_get", "campaign_step_update", "message_cancel"} <= set(names)


def test_every_tag_is_explained(document: Any) -> None:
    explained = {tag["name"] for tag in document["tags"]}
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == explained


def test_every_body_and_answer_has_an_example_that_fits(document: Any) -> None:
    validators = Conformity(document)
    for method, path, operation in operations(document):
        places = [operation["requestBody"]] if "requestBody" in operation else []
        places += [one for one in operation["responses"].values() if "$ref" not in one]
        places += document["components"]["responses"].values()
        for place in places:
            for kind, content in place.get("content", {}).items():
                if kind.endswith("json"):
                    for example in examples_of(content):
                        faults = validators.faults(content["schema"], example)
                        assert not faults, f"the example of {method} {path} does not fit: {faults}\n{example}"


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body], ids=lambda r: f"{r.method} {r.path}")
def test_every_example_of_a_body_is_taken_by_its_decoder(document: Any, route: Any) -> None:
    operation = document["paths"][route.path][route.method.lower()]
    for example in examples_of(operation["requestBody"]["content"]["application/json"]):
        msgspec.convert(example, route.body)


def test_an_outcome_is_that_of_its_route_and_a_status_is_one_that_there_is(document: Any) -> None:
    def example(method: str, path: str, status: str = "200") -> Any:
        answer = document["paths"][f"/api/v1{path}"][method]["responses"][status]
        return answer["content"]["application/json"]["example"]

    enrolment = "/contacts/{contact_id}/campaign/{campaign_id}"
    told = {path: example("post", path)["type"] for path in ("/messages", f"{enrolment}/enroll", f"{enrolment}/stop")}
    assert list(told.values()) == ["message.sent", "enrollment.started", "enrollment.stopped"]
    assert example("delete", "/contacts/{contact_id}")["type"] == "contact.erased"
    assert example("post", "/invoices", "201")["status"] == "open"
    assert example("get", "/messages/{message_id}")["status"] == "delivered"


#: Columns that the database holds to a set of words, and what shows them.
OF_WORDS = {
    ("campaigns", "delivery"): "CampaignShown.delivery",
    ("campaigns", "status"): "CampaignShown.status",
    ("campaigns", "type"): "CampaignShown.type",
    ("campaign_steps", "delivery"): "StepShown.delivery",
    ("contact_campaign_progress", "status"): "EnrollmentShown.status",
    ("conversations", "status"): "ConversationShown.status",
    ("imports", "status"): "ImportShown.status",
    ("invoices", "status"): "InvoiceShown.status",
    ("leads", "stage"): "LeadShown.stage",
    ("media", "status"): "MediaShown.status",
    ("messages", "delivery"): "MessageShown.delivery",
    ("messages", "lane"): "MessageShown.lane",
    ("messages", "status"): "MessageShown.status",
    ("senders", "provider"): "SenderShown.provider",
    ("senders", "status"): "SenderShown.status",
    ("senders", "session_state"): "SessionShown.state",
    ("senders", "window"): "SenderShown.window",
    ("tenant_users", "role"): "MemberShown.role",
}


async def test_the_words_that_are_told_are_those_that_the_database_can_hold(document: Any, database: Database) -> None:
    connection = await asyncpg.connect(database.owner_url)
    try:
        rows = await connection.fetch(
            "select c.relname as of, pg_get_constraintdef(r.oid) as rule from pg_constraint r"
            " join pg_class c on c.oid = r.conrelid where r.contype = 'c' and not c.relispartition"
        )
    finally:
        await connection.close()
    rules = [(row["of"], re.match(r'CHECK \(\(\(?"?(\w+).* = ANY', row["rule"]), row["rule"]) for row in rows]
    held = {(of, found[1]): set(re.findall(r"'(\w+)'::", rule)) for of, found, rule in rules if found}
    assert held.keys() == OF_WORDS.keys()
    for column, place in OF_WORDS.items():
        # A phone of which nothing is known has no state in its row.
        assert words(document, place) - {"unknown" if place == "SessionShown.state" else None} == held[column], place


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("ConsentShown.categories", {"marketing", "otp", "utility"}),
        ("ImportColumn.type", set(TYPES)),
        ("MemberOf.role", {"viewer", "agent", "admin", "owner"}),
        ("OptOut.category", {"all", "marketing", "otp", "utility"}),
        ("Said.status", set(get_args(MessageStatus))),
        ("Moment.status", {*get_args(MessageStatus), "accepted"}),
        ("VersionShown.state", {"draft", "current", "earlier"}),
    ],
)
def test_a_closed_set_of_words_is_told(document: Any, place: str, told: set[str]) -> None:
    assert words(document, place) == told


def words(document: Any, place: str) -> set[str]:
    """The words that a field may be, or its items."""
    name, _, field = place.partition(".")
    schema = document["components"]["schemas"][name]["properties"][field]
    every = [schema, schema.get("items", {}), *schema.get("anyOf", ())]
    return {word for one in every for word in one.get("enum", ()) if word is not None}


#: What a request brings about, and its answer shows.
BROUGHT_ABOUT: dict[str, tuple[str, dict[str, Any]]] = {
    "POST /campaigns": ("201", {"status": "draft", "activated_at": None}),
    "POST /campaigns/{campaign_id}/pause": ("200", {"status": "paused"}),
    "POST /campaigns/{campaign_id}/archive": ("200", {"status": "archived"}),
    "POST /contacts/{contact_id}/campaign/{campaign_id}/pause": ("200", {"status": "paused"}),
    "POST /conversations/{conversation_id}/close": ("200", {"status": "closed"}),
    "POST /invoices/{invoice_id}/pay": ("200", {"status": "paid"}),
    "POST /invoices/{invoice_id}/void": ("200", {"status": "void", "paid_at": None}),
    "POST /senders/{sender_id}/session/logout": ("200", {"state": "stopped"}),
    "POST /users": ("201", {"accepted_at": None}),
    "GET /auth/me": ("200", {"api_key_id": None, "role": "owner"}),
}


@pytest.mark.parametrize("request_", BROUGHT_ABOUT)
def test_an_example_shows_what_its_request_brings_about(document: Any, request_: str) -> None:
    method, _, path = request_.partition(" ")
    status, expected = BROUGHT_ABOUT[request_]
    answer = document["paths"][f"/api/v1{path}"][method.lower()]["responses"][status]
    shown = answer["content"]["application/json"]["example"]
    assert {name: shown[name] for name in expected} == expected


def test_no_example_of_an_answer_is_put_together_of_nothing(document: Any) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                for place, value in leaves(content.get("example"), ""):
                    known = place.endswith((".type", ".attributes.city")) or ".condition." in place
                    assert known or value not in ("text", "Pune", {}), f"{method} {path} {status}: {place} is {value!r}"


def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every value that has nothing in it, and where it is."""
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from leaves(one, f"{place}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one, place)
    else:
        yield place, value


def test_an_outcome_is_told_only_where_there_is_one_to_wait_for(document: Any) -> None:
    read = document["paths"]["/api/v1/conversations/{conversation_id}/read"]["post"]
    assert "200" not in read["responses"]
    assert {"$ref": "#/components/parameters/Prefer"} not in read["parameters"]
    told = {
        path.rpartition("/")[2]: shown["type"]
        for _, path, operation in operations(document)
        for content in operation["responses"].get("200", {}).get("content", {}).values()
        if isinstance(shown := content.get("example"), dict) and shown.keys() == {"id", "status", "type", "at", "data"}
    }
    assert told == {
        "cancel": "message.suppressed",
        "enroll": "enrollment.started",
        "goal": "enrollment.goal_reached",
        "messages": "message.sent",
        "move": "enrollment.moved",
        "reply": "message.sent",
        "stop": "enrollment.stopped",
        "sync": "template.synced",
        "test": "message.sent",
        "{contact_id}": "contact.erased",
    }


def examples_of(content: Any) -> list[Any]:
    """The one example of a media type, or all that have names."""
    return [content["example"]] if "example" in content else [one["value"] for one in content["examples"].values()]


@pytest.mark.parametrize("name", examples.SAID)
def test_every_example_of_a_message_could_be_sent_to_anybody(name: str) -> None:
    faults = Faults()
    faults.content(msgspec.convert(examples.SAID[name], Content), complete=True)
    assert faults == []


async def test_the_document_is_served_and_is_not_sent_again_to_who_has_it(api: Api) -> None:
    answer = await api.call("GET", "//openapi.json")
    assert answer.status == 200
    assert answer.body["paths"]["/api/v1/messages"]["post"]["operationId"] == "message_create"
    etag = answer.headers["ETag"]
    again = await api.call("GET", "//openapi.json", headers={"If-None-Match": etag})
    assert (again.status, again.text, again.headers["ETag"]) == (304, "", etag)


async def test_the_page_is_found_with_a_slash_too(api: Api) -> None:
    async with api.session.get(f"{api.url}/docs/") as answer:
        assert (answer.status, answer.url.path) == (200, "/docs")
        assert "swagger-ui" in await answer.text()


async def test_swagger_ui_and_its_files_come_from_here(api: Api) -> None:
    answer = await api.call("GET", "//docs")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    wanted = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(wanted) == len(FILES) + 1
    for path in wanted:
        assert not path.startswith(("http", "//"))
        got = await api.session.get(f"{api.url}/{path}")
        assert got.status == 200
        assert "immutable" in got.headers["Cache-Control"]
        assert await got.read()


@pytest.mark.parametrize(
    "path",
    [
        f"{VERSION}/swagger-ui.css.map",
        f"{VERSION}/../../../pyproject.toml",
        f"{VERSION}/..%2f..%2f__init__.py",
        f"{VERSION}/%2e%2e%2findex.html",
        "0.0.0/swagger-ui.css",
        f"{VERSION}/",
    ],
)
async def test_nothing_else_is_served_there(api: Api, path: str) -> None:
    assert (UI / "index.html").exists()
    (await api.call("GET", f"//docs/{path}")).is_problem(404)


def test_what_the_application_serves_is_the_description_of_its_own_routes(door: Door) -> None:
    few = tuple(route for route in ROUTES if route.path == "/healthz")
    assert list(description(build(door, few)[DESCRIBED]).document["paths"]) == ["/healthz"]
