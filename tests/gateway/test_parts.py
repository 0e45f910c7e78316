"""A webhook in parts: they say what it says, little each, and what one contact says stays together."""

from __future__ import annotations

import json
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

import pytest

from harkara.actors.shares import weight
from harkara.gateway.parts import MOST, MOST_ITEMS, SAID, TooMany, parts
from harkara.gateway.reports import parse
from harkara.gateway.told import Webhook

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def text(place: int, who: int | None = None, **more: Any) -> dict[str, Any]:
    phone = f"9198{place if who is None else who:08}"
    return {"from": phone, "id": f"in.{place}", "timestamp": "1", "type": "text", "text": {"body": "hi"}} | more


def status(place: int) -> dict[str, Any]:
    return {"id": f"out.{place}", "status": "read", "timestamp": "1", "recipient_id": f"9198{place:08}"}


def named(place: int) -> dict[str, Any]:
    return {"profile": {"name": f"Asha {place}"}, "wa_id": f"9198{place:08}", "user_id": f"IN.{place}"}


def meta(*values: dict[str, Any], field: str = "messages") -> bytes:
    changes = [{"field": field, "value": {"messaging_product": "whatsapp"} | value} for value in values]
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]}).encode()


def said(bodies: list[bytes], source: str = "whatsapp") -> dict[str | None, Webhook]:
    """All that is told, by number, each kind in order of what it is: between contacts the order may change."""
    told = dict[str | None, Webhook]()
    for body in bodies:
        for number, one in parse(source, body, AT).items():
            all_ = told.setdefault(number, Webhook())
            for kind in Webhook.__dataclass_fields__:
                getattr(all_, kind).extend(getattr(one, kind))
    for one in told.values():
        for kind in ("statuses", "messages", "preferences"):
            getattr(one, kind).sort(key=repr)
    return told


NUMBER = {"metadata": {"phone_number_id": "1", "display_phone_number": "2"}}

CROWDS = {
    "texts": meta(NUMBER | {"contacts": [named(n) for n in range(120)], "messages": [text(n) for n in range(120)]}),
    "statuses": meta(
        NUMBER | {"contacts": [named(n) for n in range(2500)], "statuses": [status(n) for n in range(2500)]}
    ),
    "several numbers": meta(
        *(
            {"metadata": {"phone_number_id": str(n)}, "messages": [text(n * 30 + k) for k in range(30)]}
            for n in range(6)
        )
    ),
    "settings": meta(
        {
            "user_preferences": [
                {"category": "marketing_messages", "value": "stop", "wa_id": f"9198{n:08}", "timestamp": "5"}
                for n in range(120)
            ]
        },
        field="user_preferences",
    ),
    "numbers for texts": meta(NUMBER | {"messages": [text(n) | {"from": 919800000000 + n} for n in range(120)]}),
    "templates": meta(
        *(
            {"message_template_name": f"t{n}", "message_template_language": "en", "event": "APPROVED"}
            for n in range(120)
        ),
        field="message_template_status_update",
    ),
}


@pytest.mark.parametrize("name", CROWDS)
def test_the_parts_say_what_the_webhook_says_and_little_each(name: str) -> None:
    body = CROWDS[name]
    few = parts("whatsapp", body)
    assert said(few) == said([body])
    assert len(few) >= 3
    for part in few:
        assert 0 < weight(parse("whatsapp", part, AT).values()) + len(said([part])) <= MOST + 10
    assert sum(map(len, few)) < 2 * len(body) + 500 * len(few)


@pytest.mark.parametrize("body", [meta({"messages": [text(0)]}), meta({"messages": [text(n) for n in range(50)]})])
def test_what_says_little_stays_as_it_came(body: bytes) -> None:
    assert parts("whatsapp", body) == [body]


def test_what_one_contact_says_stays_together_and_in_order() -> None:
    body = meta({"messages": [text(n, who=n % 60) for n in range(180)]})
    found: dict[str, int] = {}
    for place, part in enumerate(parts("whatsapp", body)):
        ids = list[int]()
        for one in parse("whatsapp", part, AT)[None].messages:
            assert found.setdefault(str(one.phone), place) == place
            ids.append(int(one.wamid.removeprefix("in.")))
        assert [n for n in ids if n % 60 == ids[0] % 60] == sorted(n for n in ids if n % 60 == ids[0] % 60)
    assert len(found) == 60


def test_one_contact_who_says_more_than_a_part_holds_is_read_in_order() -> None:
    body = meta({"messages": [text(n, who=1) for n in range(120)]})
    few = [[one.wamid for one in parse("whatsapp", part, AT)[None].messages] for part in parts("whatsapp", body)]
    assert [len(one) for one in few] == [MOST // SAID, MOST // SAID, 120 - 2 * MOST // SAID]
    assert [wamid for one in few for wamid in one] == [f"in.{n}" for n in range(120)]


ODD = {
    "an item": {"messages": [1, text(500) | {"timestamp": "never"}]},
    "a list": {"statuses": "none"},
    "contacts": {"contacts": {"wa_id": "1"}},
    "a contact": {"contacts": [7]},
    "a value": 7,
}


@pytest.mark.parametrize("name", ODD)
def test_what_can_not_be_read_is_noted_by_its_part_and_the_rest_is_said(name: str) -> None:
    odd, good = json.loads(meta({})), json.loads(meta({"messages": [text(n) for n in range(120)]}))
    odd["entry"][0]["changes"][0]["value"] = ODD[name]
    odd["entry"] += [7, {"changes": 7}, {"id": "3", "changes": [7]}, *good["entry"]]
    body = json.dumps(odd).encode()
    whole, few = said([body])[None], said(parts("whatsapp", body))[None]
    assert astuple(few)[:-1] == astuple(whole)[:-1]
    assert len(few.unread) == len(whole.unread) >= 4
    assert len(parts("whatsapp", body)) >= 3


def test_what_is_no_webhook_of_metas_stays_whole() -> None:
    others: list[dict[str, Any]] = [{"entry": 7}, {"entry": {}}, {"x": ["y" * 100] * 100}]
    for told in others:
        body = json.dumps(told | {"more": "z" * 3_000}).encode()
        assert parts("whatsapp", body) == [body]


def test_more_than_any_gateway_sends_is_refused() -> None:
    parts("whatsapp", meta({"statuses": [status(n) for n in range(MOST_ITEMS)]}))
    for odd in (
        meta({"statuses": [1] * (MOST_ITEMS + 1)}),
        meta(*({"statuses": [status(n) for n in range(MOST_ITEMS // 2 + 1)]} for _ in range(2))),
        json.dumps({"entry": [1] * (MOST_ITEMS + 1)}).encode(),
    ):
        with pytest.raises(TooMany):
            parts("whatsapp", odd)


def test_what_lies_around_the_items_is_not_repeated_without_end() -> None:
    """Not of Meta, but whoever has the secret could fill the broker with it."""
    long = "x" * 100_000
    value = {"metadata": {"phone_number_id": "1", "display_phone_number": long}, "more": long}
    crowd = {"contacts": [{"wa_id": "919800000001", "profile": {"name": long}}]}
    body = meta(value | crowd | {"messages": [text(n, who=1) for n in range(1000)]})
    assert sum(map(len, parts("whatsapp", body))) < 2 * len(body)


def test_several_reports_of_a_phone_are_parts_too() -> None:
    reports = [
        {"key": {"remoteJid": f"9198{n:08}@s.whatsapp.net", "id": f"A{n}"}, "message": {"conversation": "hi"}}
        | {"messageTimestamp": 1, "pushName": "Asha"}
        for n in range(120)
    ]
    body = json.dumps({"event": "messages.upsert", "instance": "x", "data": reports}).encode()
    few = parts("evolution", body)
    assert len(few) == 3
    assert said(few, "evolution") == said([body], "evolution")
    assert len(said(few, "evolution")[None].messages) == 120
