"""Examples of bodies and answers: written here where fields depend on each other, else put together by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, UnsetType

from harkara.http.example_answers import ANSWERS, AT, ID, MADE_BY, PHONE, WAMID
from harkara.schemas import api, campaigns, events
from harkara.schemas.base import Message, kind_of
from harkara.schemas.content import Content

GREETING = {"body": "Hi {{ first_name }}, your order is on its way."}

REGULARS = {
    "type": "all",
    "of": [
        {"type": "attribute", "name": "city", "value": "Pune"},
        {"type": "replied", "within_days": 30},
    ],
}

#: What is not just its fields.
WHOLE: Mapping[Any, Any] = {
    api.PatchStep: {"delay_hours": 48, **GREETING},
    api.NewContact: {
        "name": "Asha Rao",
        "phone": PHONE,
        "tags": ["vip"],
        "attributes": {"city": "Pune"},
        "consent": {"source": "website", "at": AT},
    },
    api.PatchContact: {"tags": ["vip"], "consent": True},
    api.NewSender: {
        "name": "Shop",
        "provider": "cloud",
        "phone_number_id": "106540352242922",
        "access_token": "EAAGm0PX4ZCpsBA",
        "app_secret": "1f2e3d4c5b6a7988",
    },
    api.PatchSender: {"mps": 40},
    api.NewCampaign: {"name": "Welcome", "sender_id": ID, "quiet_hours": {"start": "21:00", "end": "09:00"}},
    api.PatchCampaign: {"name": "Welcome, again"},
    api.EnrollOne: {"invoice_id": ID},
    api.EnrollMany: {"tag": "vip"},
    campaigns.PreviewStep: {"contact_id": ID, "invoice_id": ID},
    campaigns.NewDryRun: {"tag": "vip", "at": AT},
    campaigns.StepTest: {"to": PHONE},
    campaigns.NewSegment: {"name": "Regulars in Pune", "condition": REGULARS},
    campaigns.PatchSegment: {"name": "Regulars"},
    campaigns.SegmentShown: {
        "id": ID,
        "name": "Regulars in Pune",
        "condition": REGULARS,
        "created_at": AT,
        "updated_at": AT,
    },
    api.NewApiKey: {
        "name": "shop backend",
        "scopes": ["messages:write", "contacts:read"],
        "expires_at": "2099-12-31T00:00:00Z",
    },
    api.NewInvoice: {
        "contact_id": ID,
        "number": "2026-0042",
        "amount": 123450,
        "currency": "INR",
        "due_at": AT,
    },
    api.PatchTenant: {"timezone": "Asia/Kolkata", "default_region": "IN"},
    api.Why: {"code": "opted_out", "text": "the contact has opted out", "todo": "send nothing more"},
    Content: GREETING,
    **ANSWERS,
}

#: What a message can say, each in one example.
SAID: Mapping[str, dict[str, Any]] = {
    "text": {"body": "Hi {{ first_name }}, your order is on its way to {{ attributes.city | default('you') }}."},
    "template": {
        "template": {
            "name": "order_update",
            "language": "en_US",
            "parameters": ["{{ first_name }}", "{{ attributes.order | default('your order') }}"],
            "buttons": [{"type": "url", "value": "orders/{{ attributes.order | default('all') }}"}],
        }
    },
    "template with names and a file": {
        "template": {
            "name": "invoice",
            "language": "hi",
            "parameters": {"customer": "{{ name }}"},
            "header": {"type": "document", "link": "https://shop.example/4711.pdf", "filename": "4711.pdf"},
        }
    },
    "media": {"media": {"type": "image", "link": "https://shop.example/sale.png", "caption": "For {{ first_name }}"}},
    "buttons": {
        "interactive": {
            "body": "Shall we deliver today, {{ first_name }}?",
            "footer": "Reply STOP to hear no more",
            "buttons": [{"id": "today", "title": "Today"}, {"id": "later", "title": "Later"}],
        }
    },
    "list": {
        "interactive": {
            "body": "When may we come?",
            "button": "Choose a time",
            "sections": [{"title": "Tomorrow", "rows": [{"id": "10", "title": "10:00", "description": "to 11:00"}]}],
        }
    },
    "link": {
        "interactive": {
            "body": "Your order is on its way",
            "link": {"title": "Track it", "url": "https://shop.example/{{ attributes.order | default('orders') }}"},
        }
    },
}

#: Bodies with several examples, by what they show: what each has beside what is said.
MANY: Mapping[Any, Mapping[str, Any]] = {
    api.NewMessage: {"to": PHONE},
    api.NewStep: {"delay_hours": 24},
    api.ReplyTo: {},
}

#: Further examples of bodies, which say more than that.
ALSO: Mapping[Any, Mapping[str, Any]] = {
    api.NewMessage: {
        "a reminder of an invoice": {
            "contact_id": ID,
            "invoice_id": ID,
            "body": "Invoice {{ invoice.number }} of {{ invoice.amount }} is due on {{ invoice.due_date }}.",
        }
    },
}

#: What waiting for the outcome brings, by how a route's path ends: an event, and what it tells beside ids.
OUTCOMES: tuple[tuple[str, type[Message], Mapping[str, Any]], ...] = (
    ("/campaign/{campaign_id}/enroll", events.EnrollmentStarted, {}),
    ("/campaigns/{campaign_id}/enroll", events.EnrollmentBulkDone, {}),
    ("/stop", events.EnrollmentStopped, {"reason": "by_hand"}),
    ("/goal", events.EnrollmentGoalReached, {}),
    ("/move", events.EnrollmentMoved, {}),
    ("/contacts/{contact_id}", events.ContactErased, {}),
    ("/templates/sync", events.TemplatesSynced, {}),
    ("/cancel", events.MessageSuppressed, {"reason": "cancelled"}),
    ("", events.MessageSent, {"wamid": WAMID}),
)

#: What fields of these names usually hold. One that doesn't fit a field's type is not used for it.
USUAL: tuple[tuple[str, Any], ...] = (
    ("name", "Asha Rao"),
    ("email", "asha@acme.example"),
    ("password", "correct horse battery"),
    ("phone", PHONE),
    ("tenant", {"id": "acme", "name": "Acme"}),
    ("tenants", [{"id": "acme", "name": "Acme", "role": "owner"}]),
    ("id", "acme"),
    ("access_token", "eyJhbGciOiJIUzI1NiIs…"),
    ("refresh_token", "eyJhbGciOiJIUzI1NiIs…"),
    ("expires_in", 900),
    ("role", "agent"),
    ("text", "Thank you!"),
    ("next", None),
    (r".*_at|since|until", AT),
    ("number", "2026-0042"),
    (r".*_id", ID),
)

PLAIN: Mapping[Any, Any] = {str: "text", int: 1, float: 1.0, bool: True, UUID: ID, datetime: AT, NoneType: None}

_USUAL = tuple((re.compile(name).fullmatch, value) for name, value in USUAL)


def examples(type_: Any) -> dict[str, Any]:
    """A member of a media type with an example of a body, or with several that have names."""
    if (beside := MANY.get(type_)) is None:
        return {"example": example(type_)}
    bodies = {name: {**beside, **said} for name, said in SAID.items()} | dict(ALSO.get(type_, {}))
    return {"examples": {name: {"value": body} for name, body in bodies.items()}}


def outcome(path: str) -> dict[str, Any]:
    """An example of what became of a command, for whoever waits at this path."""
    event, more = next((event, more) for end, event, more in OUTCOMES if path.endswith(end))
    kind = kind_of(event).removeprefix("evt.")
    data = {**_of_struct(event), "id": ID, **more}
    return {"id": ID, "status": kind.rpartition(".")[2], "type": kind, "at": AT, "data": data}


def answer(request: str, type_: Any) -> Any:
    """An example of the answer of this type to a request such as `POST /campaigns`, as JSON."""
    special = MADE_BY.get(request)
    if special is None:
        return example(type_)
    return {**example(type_), **special} if isinstance(type_, type) and issubclass(type_, Struct) else special


def example(type_: Any) -> Any:
    """An example of this type, as JSON."""
    if type_ in WHOLE:
        return WHOLE[type_]
    if isinstance(type_, type) and issubclass(type_, Struct):
        return _of_struct(type_)
    return _plain(type_)


_fields = cache(msgspec.structs.fields)


def _of_struct(type_: type[Struct]) -> dict[str, Any]:
    fields = _fields(type_)
    told = [field for field in fields if field.required or not type_.__struct_config__.omit_defaults]
    # Of a body where everything may be left out, one thing is given.
    return {field.encode_name: _of_field(field) for field in told or fields[:1]}


def _of_field(field: msgspec.structs.FieldInfo) -> Any:
    for matches, value in _USUAL:
        if matches(field.encode_name) and _fits(value, field.type):
            return value
    return example(_first(field.type))


def _fits(value: Any, type_: Any) -> bool:
    if get_origin(type_) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(type_) if one is not UnsetType)
    with suppress(msgspec.ValidationError):
        msgspec.convert(value, type_)
        return True
    return False


def _first(type_: Any) -> Any:
    """The first alternative of a union that is something."""
    if get_origin(type_) in (Union, UnionType):
        return next(_first(one) for one in get_args(type_) if one not in (NoneType, UnsetType))
    return type_


def _plain(type_: Any) -> Any:
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return _bounded(example(_first(args[0])), args[1:])
    if origin is Literal:
        return args[0]
    if origin is list:
        return [example(_first(args[0]))]
    if origin is dict:
        return {"city": "Pune"} if args[1] in (str, Any) else {}
    if isinstance(origin, type) and issubclass(origin, Struct):
        return _of_generic(origin, args)
    return PLAIN.get(type_, {})


def _of_generic(origin: type[Struct], args: tuple[Any, ...]) -> dict[str, Any]:
    """A page of one item."""
    made = _of_struct(origin)
    return made | {"items": [example(args[0])]} if "items" in made else made


def _bounded(value: Any, metas: tuple[Any, ...]) -> Any:
    for meta in metas:
        if isinstance(meta, Meta) and isinstance(value, int | float) and meta.ge is not None:
            value = max(value, meta.ge)
    return value
