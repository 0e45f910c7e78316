"""Of a webhook all that can be read is read, and the rest is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harkara.gateway.inbound import parse
from harkara.gateway.told import Webhook
from harkara.gateway.unread import MOST_UNREAD, UNREADABLE

STATUS: dict[str, Any] = {"id": "wamid.1", "status": "delivered", "timestamp": "1772366400"}
MESSAGE: dict[str, Any] = {
    "id": "wamid.2", "from": "919876543210", "timestamp": "1772366400", "type": "text", "text": {"body": "STOP"},
}  # fmt: skip
PREFERENCE: dict[str, Any] = {"wa_id": "919876543210", "category": "marketing_messages", "value": "stop"}
FAILED = {**STATUS, "status": "failed"}


def without(part: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != name}


def told(*changes: dict[str, Any]) -> Webhook:
    """All that is told of no number."""
    return parse(json.dumps({"entry": [{"changes": list(changes)}]}).encode())[None]


def value(**parts: Any) -> dict[str, Any]:
    return {"field": "messages", "value": parts}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"messages": [{**MESSAGE, "timestamp": "nope"}]}, "nope"),
        ({"messages": [{**MESSAGE, "timestamp": "9" * 30}]}, "messages[0]"),
        ({"messages": [{**MESSAGE, "timestamp": "-5"}]}, "'-5' is no time"),
        ({"messages": [without(MESSAGE, "id")]}, "'id' is missing"),
        ({"messages": [{**MESSAGE, "id": "x" * 129}]}, "no id"),
        ({"messages": [{**MESSAGE, "from": "123"}]}, "'123' is no phone number"),
        ({"messages": [{**MESSAGE, "from": "9" * 17}]}, "no phone number"),
        ({"messages": [{**MESSAGE, "from": ["919876543210"]}]}, "no phone number"),
        ({"messages": [without(MESSAGE, "from")]}, "no user id"),
        ({"messages": [5]}, "no object"),
        ({"messages": "hello"}, "no list"),
        ({"statuses": [without(STATUS, "status")]}, "`status`"),
        ({"statuses": [{**STATUS, "timestamp": "nope"}]}, "nope"),
        ({"statuses": [{**FAILED, "errors": [{"code": "many"}]}]}, "code"),
        ({"statuses": [{**FAILED, "errors": [{"code": 2**40}]}]}, "no error code"),
        ({"contacts": [{"profile": "Asha"}]}, "contacts[0]"),
        ({"user_preferences": [{**PREFERENCE, "wa_id": "1"}]}, "no phone number"),
        ({"calls": [{"event": "connect", "direction": "USER_INITIATED", "from": "1"}]}, "no phone number"),
    ],
)
def test_what_can_not_be_read_is_named_and_keeps_nothing_else_from_being_read(bad: dict[str, Any], why: str) -> None:
    good = {"messages": [MESSAGE], "statuses": [STATUS], "user_preferences": [PREFERENCE]}
    (name,) = bad
    beside = bad[name] + good.get(name, []) if isinstance(bad[name], list) else bad[name]
    found = told(value(**{**good, name: beside}), value(**good))
    (unread,) = found.unread
    assert unread.startswith(f"entry[0].changes[0].{name}")
    assert why in unread
    lost = not isinstance(bad[name], list)
    assert [len(found.messages), len(found.statuses), len(found.preferences)] == [2 - lost, 2, 2]


def test_a_change_that_can_not_be_read_is_named() -> None:
    of_template = {"field": "message_template_status_update", "value": {}}
    found = told({"value": {}}, value(messages=[MESSAGE]), of_template, {"field": "messages", "value": [MESSAGE]}, {})
    places = [unread.partition(":")[0] for unread in found.unread]
    assert places == [f"entry[0].changes[{place}]" for place in (0, 2, 3, 4)]
    assert len(found.messages) == 1


def test_nobody_keeps_us_busy_with_what_can_not_be_read() -> None:
    assert len(told(value(messages=[5] * MOST_UNREAD, statuses=[STATUS])).unread) == MOST_UNREAD
    with pytest.raises(ValueError, match=r"more than 1000 .*messages\[0\]: it is no object"):
        told(value(messages=[5] * 1_000_000, statuses=[STATUS]))


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'{"entry": 5}', b'{"entry": null}'])
def test_what_is_no_webhook_is_none(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        parse(body)


def test_numbers_may_stand_for_texts_and_texts_for_numbers() -> None:
    loose = {**MESSAGE, "from": 919876543210, "timestamp": 1772366400}
    error = {"code": "131026", "title": "Undeliverable", "error_data": "no such number"}
    failed = {**FAILED, "timestamp": 1772366400, "errors": [error], "recipient_id": 919876543210}
    contacts = [{"wa_id": 919876543210, "profile": {"name": "Asha"}}]
    found = told(value(messages=[loose], statuses=[failed], contacts=contacts))
    (message,), (status,) = found.messages, found.statuses
    assert (message.phone, message.name, message.payload) == ("919876543210", "Asha", loose)
    assert (status.error_code, status.error, status.phone) == (131026, "no such number", "919876543210")
    assert status.at == message.at
    assert found.unread == []


def test_whose_number_is_none_is_known_by_the_user_id() -> None:
    new = {"type": "user_changed_number", "wa_id": "12", "user_id": "IN.2"}
    found = told(
        value(messages=[{**MESSAGE, "from": "123", "from_user_id": "IN.1"}]),
        value(messages=[{**MESSAGE, "type": "system", "system": new}]),
    )
    one, other = found.messages
    assert (one.phone, one.user_id) == (None, "IN.1")
    assert other.changed is not None
    assert (other.changed.phone, other.changed.user_id) == (None, "IN.2")
    assert found.unread == []
    (unread,) = told(value(messages=[{**MESSAGE, "type": "system", "system": without(new, "user_id")}])).unread
    assert "'12' is no phone number" in unread
