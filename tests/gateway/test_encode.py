"""Content in the Cloud API's own JSON, field by field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harkara.gateway.encode import encode_message
from harkara.schemas.content import (
    Content,
    Interactive,
    LinkButton,
    Media,
    ReplyButton,
    Row,
    Section,
    Template,
    TemplateButton,
)

_CASES: list[tuple[Content, str, Any]] = [
    (
        Content(template=Template(name="a", header="42", header_name="order")),
        "template",
        {
            "name": "a",
            "language": {"code": "en"},
            "components": [
                {"type": "header", "parameters": [{"type": "text", "text": "42", "parameter_name": "order"}]}
            ],
        },
    ),
    (
        Content(interactive=Interactive(body="b", link=LinkButton(title="Track", url="https://a.example/1"))),
        "interactive",
        {
            "type": "cta_url",
            "body": {"text": "b"},
            "action": {"name": "cta_url", "parameters": {"display_text": "Track", "url": "https://a.example/1"}},
        },
    ),
    (Content(body="Grüße"), "text", {"body": "Grüße"}),
    (
        Content(template=Template(name="a", language="hi", parameters={"name": "Asha"})),
        "template",
        {
            "name": "a",
            "language": {"code": "hi"},
            "components": [
                {"type": "body", "parameters": [{"type": "text", "parameter_name": "name", "text": "Asha"}]}
            ],
        },
    ),
    (Content(template=Template(name="a")), "template", {"name": "a", "language": {"code": "en"}}),
    (
        Content(
            template=Template(
                name="a",
                parameters=["x"],
                header=Media(type="document", id="5", filename="a.pdf"),
                buttons=[TemplateButton(type="quick_reply", value="P"), TemplateButton(type="url", value="u", index=4)],
            )
        ),
        "template",
        {
            "name": "a",
            "language": {"code": "en"},
            "components": [
                {
                    "type": "header",
                    "parameters": [{"type": "document", "document": {"id": "5", "filename": "a.pdf"}}],
                },
                {"type": "body", "parameters": [{"type": "text", "text": "x"}]},
                {
                    "type": "button",
                    "sub_type": "quick_reply",
                    "index": "0",
                    "parameters": [{"type": "payload", "payload": "P"}],
                },
                {"type": "button", "sub_type": "url", "index": "4", "parameters": [{"type": "text", "text": "u"}]},
            ],
        },
    ),
    (
        Content(media=Media(type="image", link="https://example.com/a.png", caption="c")),
        "image",
        {"link": "https://example.com/a.png", "caption": "c"},
    ),
    (
        Content(interactive=Interactive(body="b", header="h", footer="f", buttons=[ReplyButton(id="y", title="Yes")])),
        "interactive",
        {
            "type": "button",
            "header": {"type": "text", "text": "h"},
            "body": {"text": "b"},
            "footer": {"text": "f"},
            "action": {"buttons": [{"type": "reply", "reply": {"id": "y", "title": "Yes"}}]},
        },
    ),
    (
        Content(interactive=Interactive(body="b", button="o", sections=[Section(rows=[Row(id="1", title="A")])])),
        "interactive",
        {
            "type": "list",
            "body": {"text": "b"},
            "action": {"button": "o", "sections": [{"rows": [{"id": "1", "title": "A"}]}]},
        },
    ),
]


@pytest.mark.parametrize(("content", "kind", "value"), _CASES)
def test_content_becomes_the_object_that_its_type_names(content: Content, kind: str, value: Any) -> None:
    assert msgspec.json.decode(encode_message("+919876543210", content, "m-1", "wamid.before")) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+919876543210",
        "type": kind,
        kind: value,
        "biz_opaque_callback_data": "m-1",
        "context": {"message_id": "wamid.before"},
    }


def test_what_is_not_said_is_left_out() -> None:
    decoded = msgspec.json.decode(encode_message("+919876543210", Content(body="x"), ""))
    assert "biz_opaque_callback_data" not in decoded
    assert "context" not in decoded


def test_content_that_says_nothing_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="neither body"):
        encode_message("+919876543210", Content(), "m-1")
