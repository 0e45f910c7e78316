"""What a template takes, and what is given to it: everything that WhatsApp would refuse is named before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harkara.policy.fits import components, misfits, wording
from harkara.schemas.content import Media, Template

BODY = {"type": "BODY", "text": "Hi {{1}}, your order {{2}} is on its way. Hi again, {{1}}."}
NAMED = {"type": "BODY", "text": "Hi {{customer}}, order {{order}}."}
TEXT_HEADER = {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"}
NAMED_HEADER = {"type": "HEADER", "format": "TEXT", "text": "Order {{order}}"}
FILE_HEADER = {"type": "HEADER", "format": "DOCUMENT"}
BUTTONS = {
    "type": "BUTTONS",
    "buttons": [
        {"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}"},
        {"type": "QUICK_REPLY", "text": "Later"},
        {"type": "URL", "text": "Shop", "url": "https://shop.example"},
    ],
}
URL = {"type": "url", "value": "4711"}
CODE: list[dict[str, Any]] = [
    {"type": "BODY", "text": "{{1}} is your code."},
    {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE", "text": "Copy"}]},
]


def found(parts: list[dict[str, Any]], category: str = "utility", **given: Any) -> list[str]:
    known = components(parts)
    assert known is not None
    return [path for path, _ in misfits(msgspec.convert({"name": "t", **given}, Template), known, category)]


@pytest.mark.parametrize(
    ("parts", "given"),
    [
        ([BODY], {"parameters": ["Asha", "4711"]}),
        ([NAMED], {"parameters": {"customer": "Asha", "order": "4711"}}),
        ([{"type": "BODY", "text": "Hello"}, {"type": "FOOTER", "text": "Shop"}], {}),
        ([TEXT_HEADER, BODY], {"parameters": ["a", "b"], "header": "4711"}),
        ([NAMED_HEADER, NAMED], {"parameters": {"customer": "a", "order": "b"}, "header": "1", "header_name": "order"}),
        ([FILE_HEADER], {"header": {"type": "document", "id": "1"}}),
        ([BUTTONS], {"buttons": [URL]}),
        ([BUTTONS], {"buttons": [URL, {"type": "quick_reply", "value": "later"}]}),
    ],
)
def test_what_fits_is_left_alone(parts: list[dict[str, Any]], given: dict[str, Any]) -> None:
    assert found(parts, **given) == []


@pytest.mark.parametrize(
    ("parts", "given", "path"),
    [
        ([BODY], {"parameters": ["Asha"]}, "template.parameters"),
        ([BODY], {"parameters": {"1": "a", "2": "b"}}, "template.parameters"),
        ([NAMED], {"parameters": ["a", "b"]}, "template.parameters"),
        ([NAMED], {"parameters": {"customer": "a"}}, "template.parameters"),
        ([NAMED], {}, "template.parameters"),
        ([{"type": "BODY", "text": "Hello"}], {"parameters": {"a": "b"}}, "template.parameters"),
        ([BODY], {"parameters": ["x" * 500, "y" * 500]}, "template.parameters"),
        ([TEXT_HEADER], {}, "template.header"),
        ([TEXT_HEADER], {"header": {"type": "image", "id": "1"}}, "template.header"),
        ([{"type": "BODY", "text": "x"}], {"header": "x"}, "template.header"),
        ([{"type": "HEADER", "format": "TEXT", "text": "Hello"}], {"header": "x"}, "template.header"),
        ([NAMED_HEADER], {"header": "4711"}, "template.header_name"),
        ([TEXT_HEADER], {"header": "4711", "header_name": "order"}, "template.header_name"),
        ([FILE_HEADER], {}, "template.header"),
        ([FILE_HEADER], {"header": {"type": "image", "id": "1"}}, "template.header"),
        ([{"type": "HEADER", "format": "LOCATION"}], {}, "template.header"),
        ([BUTTONS], {}, "template.buttons"),
        ([BUTTONS], {"buttons": [URL, {"type": "copy_code", "value": "x"}]}, "template.buttons[1]"),
        ([BUTTONS], {"buttons": [URL, {**URL, "index": 2}]}, "template.buttons[1]"),
        ([BUTTONS], {"buttons": [URL, {**URL, "index": 3}]}, "template.buttons[1]"),
        ([BUTTONS], {"buttons": [URL, {**URL, "index": 0}]}, "template.buttons[1]"),
    ],
)
def test_what_does_not_fit_is_named(parts: list[dict[str, Any]], given: dict[str, Any], path: str) -> None:
    assert found(parts, **given) == [path]


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"parameters": ["123456"], "buttons": [{"type": "url", "value": "123456"}]}, []),
        ({"parameters": ["123456"], "buttons": [{"type": "url", "value": "654321"}]}, ["template.buttons"]),
        ({"parameters": ["1" * 16], "buttons": [{"type": "url", "value": "1" * 16}]}, ["template.parameters"]),
        ({"parameters": ["www.x.in"], "buttons": [{"type": "url", "value": "www.x.in"}]}, ["template.parameters"]),
    ],
)
def test_a_code_is_short_and_given_twice(given: dict[str, Any], paths: list[str]) -> None:
    assert found(CODE, "authentication", **given) == paths


@pytest.mark.parametrize("raw", [[], None, "x", [{"type": 5}]])
def test_of_what_is_not_known_nothing_is_said(raw: Any) -> None:
    assert components(raw) is None


@pytest.mark.parametrize(
    ("given", "parts", "text"),
    [
        (Template(name="t", parameters=["a"]), [{"type": "BODY", "text": "{{1}} and {{ 2 }}"}], "a and {{ 2 }}"),
        (Template(name="t", parameters={"x": "{{1}}"}), [{"type": "body", "text": "{{x}}, {{x}}"}], "{{1}}, {{1}}"),
        (
            Template(name="t", header="h", header_name="x"),
            [{"type": "HEADER", "format": "TEXT", "text": "{{x}}"}, {"type": "FOOTER", "text": "{{1}}"}],
            "h\n{{1}}",
        ),
        (
            Template(name="t", header=Media(type="image", link="https://a.example/b.png")),
            [{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "b"}],
            "b",
        ),
        (Template(name="t"), [], None),
        (Template(name="t"), [{"type": "BODY"}], None),
        (Template(name="t"), [{"type": 1}], None),
    ],
)
def test_what_a_template_says(given: Template, parts: list[dict[str, Any]], text: str | None) -> None:
    assert wording(given, parts) == text
