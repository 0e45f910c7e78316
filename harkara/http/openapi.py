"""The description of the API: OpenAPI 3.1, made of the one route table and of the types in its handlers' signatures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from types import NoneType
from typing import Any

from harkara.http import problems
from harkara.http.access import Access, Public, sufficing
from harkara.http.example_answers import ID
from harkara.http.examples import answer, examples, outcome
from harkara.http.json_schemas import Schema, Schemas, alternatives, parameters
from harkara.http.limiting import allowance
from harkara.http.operation_ids import operation_id
from harkara.http.route import JSON, PREFIX, Route
from harkara.schemas.api import Outcome, ProblemDocument
from harkara.schemas.base import TENANT

VERSION = "3.1.1"

ABOUT = """
Everything is JSON, under `/api/v1`. Ids are UUIDv7, except a tenant's, which is its slug. Times are RFC 3339 in UTC,
phone numbers E.164.

**Who you are** is said by `Authorization: Bearer` with an access token, or by `X-API-Key`. A user of several tenants
names one in `X-Tenant-ID`. Each operation says which role a person needs, and which scope a key: one that may write
may read the same things too, and one with the scope `*` may do all of it.

**Lists** come newest first, as `{"items": […], "next": cursor}`: give `next` back as `cursor` until it is null.

**Errors** are problem documents (RFC 9457), with every fault of a body or query at once in `errors`. Their `type` is
`about:blank`: the status says of which kind they are, `detail` what to do. Bodies and queries with a name that is
unknown, or is given twice, are refused (422), and bodies that are no JSON (415); so is a body that says
something where none is taken. `Accept` is not looked at: there is
nothing to choose. A path with a slash too many does not exist (404), a method that a path does not have is 405 and
`Allow` names those it has.

**Writes that the bus carries out** answer 202 once they are stored for good, and `Location` says where to look. With
`Prefer: wait=5` the answer waits up to so many seconds for the outcome.

**Repeating** a POST with the same `Idempotency-Key` and body within 24 hours gives the first answer again;
where that waited for an outcome, the 202 from before the outcome: `Location` says where to look.

**Too much** is 429, **a server away** 503; both say in `Retry-After` when to try again.
""".strip()

TAGS = {
    "auth": "Signing up, logging in and staying so.",
    "tenant": "The tenant's own settings.",
    "users": "People of a tenant and their roles.",
    "api-keys": "Keys for machines.",
    "usage": "What was sent, month by month.",
    "senders": "WhatsApp business numbers.",
    "contacts": "People to write to, with their consent.",
    "leads": "Contacts on their way to a sale.",
    "campaigns": "Drips and broadcasts, and who is enrolled in them.",
    "invoices": "What contacts owe: whatever reminds of one stops once it is paid.",
    "segments": "Groups of contacts by what they are and did.",
    "messages": "Single messages, and what became of every one.",
    "conversations": "What contacts and a tenant's numbers say to each other.",
    "media": "Files that contacts send.",
    "replies": "What contacts wrote.",
    "feed": "What happens, while it happens.",
    "audit": "Who did what.",
    "dead-letters": "Work that was given up: to be looked at, tried again or forgotten.",
    "docs": "What you are reading.",
    "health": "For load balancers and those who watch.",
    "webhooks": "For gateways and shops: what they report to us.",
}

#: What a person and what a machine shows.
SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token from `/auth/login`, `/auth/signup` or `/auth/refresh`; it lasts 15 minutes.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, `hk_…`, from `POST /api/v1/api-keys`.",
    },
}

HEADERS: dict[str, Schema] = {
    "X-Request-Id": {"description": "The request's id: tell it when you report a fault.", "schema": {"type": "string"}},
    "Location": {"description": "Where to look for what this makes.", "schema": {"type": "string"}},
    "Preference-Applied": {"description": "The preference that was followed.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true` if this is the first answer again, to a request with the same `Idempotency-Key`.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {"description": "Seconds until it is worth trying again.", "schema": {"type": "integer"}},
    "RateLimit-Limit": {"description": "How many requests fit in the window.", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "How many are left.", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "Seconds until all are there again.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How to say who you are.", "schema": {"type": "string"}},
}

PARAMETERS: dict[str, Schema] = {
    "Tenant": {
        "name": "X-Tenant-ID",
        "in": "header",
        "description": "Which of your tenants this is about; needed by users of several.",
        "schema": {"type": "string", "pattern": TENANT.pattern},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and body within 24 hours give the first answer again; where that waited for an"
        " outcome, the 202 from before it.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
        "example": "order-4711",
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=5` waits up to 5 seconds (at most 30) for the outcome.",
        "schema": {"type": "string"},
        "example": "wait=5",
    },
}

#: What each error status means here, and an example of it.
ERRORS: dict[int, tuple[str, problems.Problem]] = {
    400: ("It can't be read, or it isn't clear which tenant it is about.", problems.malformed("the body is not JSON")),
    401: ("It isn't known who asks, or not any more.", problems.unauthenticated("this API key has expired")),
    403: ("Known, but not allowed.", problems.forbidden("this API key lacks the scope contacts:write")),
    404: ("There is no such thing in this tenant.", problems.not_found("contact")),
    409: ("Not as things stand: `detail` says what is in the way.", problems.conflict("this campaign is paused")),
    408: ("The body came too slowly.", problems.Problem(408, "send it again, over a faster line or in parts")),
    410: ("It was merged into another: `contact_id` says which.", problems.Problem(410, "this contact was merged")),
    413: ("The body is too large.", problems.too_large(1_000_000)),
    415: ("The body is of a content type that is not taken here.", problems.unsupported("send JSON")),
    422: (
        "Something in it is wrong: `errors` names all of it.",
        problems.invalid(("phone", "is missing")),
    ),
    426: ("This is a WebSocket.", problems.Problem(426, "open it with a WebSocket client")),
    429: ("Too much at once.", problems.Problem(429, "slow down and try again")),
    431: ("Its address or its headers are too long.", problems.Problem(431, "send fewer and shorter headers")),
    502: ("The gateway refuses.", problems.Problem(502, "the sandbox gateway did not take this sender")),
    503: ("A server behind this one does not answer just now.", problems.unavailable("the database")),
}

QUOTA = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

ERROR_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After", *QUOTA), 503: ("Retry-After",)}

#: Raw bodies and answers that aren't JSON of ours.
MEDIA: dict[str, tuple[Schema, Any]] = {
    "text/csv": ({"type": "string"}, "name,phone,city\nAsha Rao,+919876543210,Pune\n"),
    "text/html": ({"type": "string"}, "<!doctype html>"),
    JSON: ({"type": "object"}, {}),
    "multipart/form-data": (
        {
            "type": "object",
            "properties": {"file": {"type": "string", "contentMediaType": "text/csv"}},
            "required": ["file"],
        },
        {"file": "name,phone,city\nAsha Rao,+919876543210,Pune\n"},
    ),
}


def describe(routes: Iterable[Route], version: str) -> Schema:
    """The whole document."""
    routes = tuple(routes)
    schemas = Schemas([ProblemDocument, *_types(routes)])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_templated(route.path), {})[route.method.lower()] = _Operation(route, schemas).document()
    used = {tag for path in paths.values() for operation in path.values() for tag in operation["tags"]}
    return {
        "openapi": VERSION,
        "info": {
            "title": "Harkara",
            "version": version,
            "summary": "A multi-tenant WhatsApp agent platform",
            "description": ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "responses": {_error(status): _error_response(status) for status in ERRORS},
            "securitySchemes": SECURITY,
        },
    }


def _types(routes: Iterable[Route]) -> Iterator[Any]:
    for route in routes:
        yield from (one for one in (route.body, *_answers(route).values()) if _is_told(one))


def _is_told(type_: Any) -> bool:
    return type_ not in (None, NoneType)


def _answers(route: Route) -> dict[int, Any]:
    """What each good status brings. An outcome comes as 200 instead of the usual status, to who waits for it."""
    also = dict(route.also)
    told = alternatives(route.returns)
    if Outcome in told and route.status != 200:
        also.setdefault(200, Outcome)
    elsewhere = {one for type_ in also.values() for one in alternatives(type_)}
    mine = [one for one in told if one not in elsewhere]
    return {route.status: _union(mine) if mine else None if route.status == 204 else route.returns, **also}


def _union(types: list[Any]) -> Any:
    made = types[0]
    for one in types[1:]:
        made = made | one
    return made


def _templated(path: str) -> str:
    """`{name:pattern}` is aiohttp's way to say more of a parameter."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def _error(status: int) -> str:
    """The name of an error's response."""
    return re.sub(r"[^A-Za-z]", "", HTTPStatus(status).phrase.title())


def _headers(*names: str) -> dict[str, Schema]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_response(status: int) -> Schema:
    meaning, problem = ERRORS[status]
    headers = _headers("X-Request-Id", *ERROR_HEADERS.get(status, ()))
    content = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "example": problem.document()}
    return {"description": meaning, "headers": headers, "content": {problems.CONTENT_TYPE: content}}


class _Operation:
    """What one route does, as the document tells it."""

    def __init__(self, route: Route, schemas: Schemas) -> None:
        self._route, self._schemas = route, schemas
        self._of_api = route.path.startswith(PREFIX)
        #: What it asks of who says who they are; None if it asks nobody.
        self._rule = route.access.otherwise if isinstance(route.access, Public) else route.access

    def document(self) -> Schema:
        """The operation object."""
        route = self._route
        made: Schema = {
            "operationId": operation_id(route),
            "summary": route.summary.rstrip("."),
            "tags": [self._tag()],
            "security": self._security(),
            "responses": {**self._answers(), **{str(status): _ref(status) for status in self._errors()}},
        }
        if text := "\n\n".join(part for part in (route.description, self._needs()) if part):
            made["description"] = text
        if parameters_ := list(self._parameters()):
            made["parameters"] = parameters_
        if body := self._body():
            made["requestBody"] = body
        return made

    def _tag(self) -> str:
        if self._of_api:
            return self._route.path.removeprefix(PREFIX).split("/")[1]
        return "docs" if self._route.path.startswith(("/docs", "/openapi")) else "health"

    def _security(self) -> list[dict[str, list[str]]]:
        if self._rule is None:
            return []
        rule = self._rule if isinstance(self._rule, Access) else None
        shown: list[dict[str, list[str]]] = [
            {"token": [rule.role] if rule else []},
            {"key": [rule.scope] if rule else []},
        ]
        return [{}, *shown] if isinstance(self._route.access, Public) else shown

    def _needs(self) -> str:
        if isinstance(self._rule, Access):
            scopes = " or ".join(f"`{scope}`" for scope in sufficing(self._rule.scope))
            return f"Needs the role `{self._rule.role}`, or an API key with the scope {scopes}."
        return "" if self._rule is None else "Any role and any scope will do."

    def _parameters(self) -> Iterator[Schema]:
        for name in re.findall(r"\{(\w+)", self._route.path):
            yield {"name": name, "in": "path", "required": True, **_path_schema(name)}
        if self._route.query is not None:
            for name, schema, required in parameters(self._route.query):
                yield {"name": name, "in": "query", "required": required, "schema": schema}
        if self._rule is not None:
            yield {"$ref": "#/components/parameters/Tenant"}
        if self._takes_a_key():
            yield {"$ref": "#/components/parameters/IdempotencyKey"}
        if self._waits():
            yield {"$ref": "#/components/parameters/Prefer"}

    def _takes_a_key(self) -> bool:
        return self._route.method == "POST" and self._route.repeatable

    def _waits(self) -> bool:
        return Outcome in alternatives(self._route.returns)

    def _body(self) -> Schema | None:
        route = self._route
        if route.body is not None:
            content = {JSON: {"schema": self._schemas.of(route.body), **examples(route.body)}}
            return {"required": not route.body_optional, "content": content}
        if route.accepts:
            return {"required": True, "content": {kind: _media(kind) for kind in route.accepts}}
        return None

    def _answers(self) -> dict[str, Schema]:
        return {str(status): self._answer(status, type_) for status, type_ in _answers(self._route).items()}

    def _answer(self, status: int, type_: Any) -> Schema:
        names = ["X-Request-Id", *(QUOTA if allowance(self._route) is not None else ())]
        if status == 202 and self._waits():
            names.append("Location")
        if type_ is Outcome:
            names.append("Preference-Applied")
        if self._takes_a_key():
            names.append("Idempotent-Replayed")
        made: Schema = {"description": _described(status), "headers": _headers(*names)}
        if self._route.produces != (JSON,) and status < 300:
            made["content"] = {kind: _media(kind) for kind in self._route.produces}
        elif _is_told(type_):
            one = alternatives(type_)[0]
            request = f"{self._route.method} {_templated(self._route.path).removeprefix(PREFIX)}"
            shown = outcome(self._route.path) if one is Outcome else answer(request, one)
            made["content"] = {JSON: {"schema": self._schemas.of(type_), "example": shown}}
        return made

    def _errors(self) -> list[int]:
        """What can go wrong, by what the route is."""
        route, found = self._route, {431, *self._route.raises}
        if self._rule is not None:
            found |= {401, 404}
        if isinstance(self._rule, Access):
            found |= {400, 403}
        if "_id}" in route.path:
            found.add(404)
        if route.body is not None or route.accepts or route.takes_nothing:
            found |= {400, 408, 413, 415, 422}
        if not route.open_query or route.method == "POST":
            found.add(422)
        if self._takes_a_key():
            found |= {400, 409, 422}
        if allowance(route) is not None:
            found.add(429)
        if self._of_api:
            found.add(503)
        if self._rule is not None and route.method != "GET":
            found.add(409)
        return sorted(found)


def _ref(status: int) -> Schema:
    return {"$ref": f"#/components/responses/{_error(status)}"}


def _path_schema(name: str) -> Schema:
    if name.endswith("_id"):
        return {"schema": {"type": "string", "format": "uuid"}, "example": ID}
    if name == "tenant":
        return {"schema": {"type": "string", "pattern": TENANT.pattern}, "example": "acme"}
    return {"schema": {"type": "string"}}


def _media(kind: str) -> Schema:
    schema, shown = MEDIA.get(kind, ({"type": "string"}, None))
    return {"schema": schema} if shown is None else {"schema": schema, "example": shown}


def _described(status: int) -> str:
    return {
        101: "The socket is open.",
        200: "Done.",
        201: "Made.",
        202: "Stored; it will be done.",
        204: "Done; there is nothing to tell.",
        304: "It is as it was.",
    }.get(status, HTTPStatus(status).phrase)


def answers_of(document: Mapping[str, Any], method: str, path: str) -> Mapping[str, Any]:
    """The responses of an operation by status, with their references followed."""
    found: Mapping[str, Any] = document["paths"][path][method.lower()]["responses"]
    named = document["components"]["responses"]
    return {status: named[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for status, one in found.items()}
