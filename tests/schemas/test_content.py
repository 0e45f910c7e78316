"""Content: what it names as faults, and every text that may contain variables."""

from __future__ import annotations

import msgspec
import pytest

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


def _interactive(**fields: object) -> Content:
    return Content(interactive=msgspec.convert({"body": "x", **fields}, Interactive))


def _media(**fields: object) -> Content:
    return Content(media=msgspec.convert(fields, Media))


def _template(**fields: object) -> Content:
    return Content(template=msgspec.convert({"name": "order_update", **fields}, Template))


_YES = {"id": "y", "title": "Yes"}
_URL = "https://example.com/a.png"

_FAULTY: list[tuple[Content, str]] = [
    (Content(), "body"),
    (Content(body="x", media=Media(type="image", id="1")), "body"),
    (Content(body=" \n"), "body"),
    (Content(body="x" * 4097), "body"),
    (_template(name="Order Update"), "template.name"),
    (_template(language="english please"), "template.language"),
    (_template(parameters=[""]), "template.parameters[0]"),
    (_template(parameters=["a", "two\nlines"]), "template.parameters[1]"),
    (_template(parameters=["a     b"]), "template.parameters[0]"),
    (_template(parameters={"name": "x" * 1025}), "template.parameters.name"),
    (_template(parameters={"name": ""}), "template.parameters.name"),
    (_template(header="x" * 61), "template.header"),
    (_template(header={"type": "audio", "id": "1"}), "template.header.type"),
    (_template(header={"type": "image", "id": "1", "caption": "c"}), "template.header.caption"),
    (_template(header={"type": "image"}), "template.header"),
    (_template(buttons=[{"type": "url", "value": ""}]), "template.buttons[0].value"),
    (_template(buttons=[{"type": "quick_reply", "value": "x" * 129}]), "template.buttons[0].value"),
    (_template(buttons=[{"type": "url", "value": "x", "index": 10}]), "template.buttons[0].index"),
    (_template(buttons=[{"type": "url", "value": "x"}] * 11), "template.buttons"),
    (_media(type="image"), "media"),
    (_media(type="image", id="1", link=_URL), "media"),
    (_media(type="image", link="example.com"), "media.link"),
    (_media(type="image", link="https://example.com/a b"), "media.link"),
    (_media(type="image", id="1", caption="x" * 1025), "media.caption"),
    (_media(type="audio", id="1", caption="x"), "media.caption"),
    (_media(type="image", id="1", filename="a.png"), "media.filename"),
    (_media(type="document", id="1", filename="x" * 241), "media.filename"),
    (_interactive(), "interactive"),
    (_interactive(body="x" * 1025, buttons=[_YES]), "interactive.body"),
    (_interactive(footer="x" * 61, buttons=[_YES]), "interactive.footer"),
    (_interactive(buttons=[{"id": str(n), "title": str(n)} for n in range(4)]), "interactive.buttons"),
    (_interactive(buttons=[_YES, {"id": "y", "title": "No"}]), "interactive.buttons"),
    (_interactive(buttons=[_YES, {"id": "n", "title": "Yes"}]), "interactive.buttons"),
    (_interactive(buttons=[{"id": "y", "title": "x" * 21}]), "interactive.buttons[0].title"),
    (_interactive(buttons=[{"id": "", "title": "x"}]), "interactive.buttons[0].id"),
    (_interactive(buttons=[_YES], button="Open"), "interactive.button"),
    (_interactive(sections=[{"rows": [_YES]}]), "interactive.button"),
    (_interactive(buttons=[_YES], link={"title": "Open", "url": _URL}), "interactive"),
    (_interactive(link={"title": "x" * 21, "url": _URL}), "interactive.link.title"),
    (_interactive(link={"title": "Open", "url": "example.com"}), "interactive.link.url"),
    (_template(header="x", header_name="Not a name"), "template.header_name"),
    (_template(header={"type": "image", "id": "1"}, header_name="order"), "template.header_name"),
    (_interactive(button="x" * 21, sections=[{"rows": [_YES]}]), "interactive.button"),
    (_interactive(button="o", sections=[{"rows": []}]), "interactive.sections[0].rows"),
    (_interactive(button="o", header={"type": "image", "id": "1"}, sections=[{"rows": [_YES]}]), "interactive.header"),
    (_interactive(button="o", sections=[{"rows": [_YES]}, {"rows": [_YES]}]), "interactive.sections"),
    (
        _interactive(button="o", sections=[{"rows": [_YES]}, {"title": "b", "rows": []}]),
        "interactive.sections[0].title",
    ),
    (
        _interactive(button="o", sections=[{"rows": [{"id": str(n), "title": "x"} for n in range(11)]}]),
        "interactive.sections",
    ),
    (
        _interactive(button="o", sections=[{"rows": [{"id": "1", "title": "x", "description": "x" * 73}]}]),
        "interactive.sections[0].rows[0].description",
    ),
]


@pytest.mark.parametrize(("content", "path"), _FAULTY)
def test_a_fault_is_named_by_its_path(content: Content, path: str) -> None:
    assert path in [where for where, _ in content.faults(rendered=True)]
    assert path in [where for where, _ in content.faults()]


_FULL = Content(
    template=Template(
        name="order_update",
        language="pt_BR",
        parameters={"name": "{{ name }}", "type": "{{ kind }}"},
        header=Media(type="document", link="https://example.com/{{ id }}.pdf", filename="{{ id }}.pdf"),
        buttons=[TemplateButton(type="url", value="{{ code }}")],
    )
)
_LIST = Content(
    interactive=Interactive(
        body="Hi {{ name }}",
        header="H",
        footer="F",
        button="Open",
        sections=[Section(title="S", rows=[Row(id="1", title="{{ slot }}", description="d")])],
    )
)
_LINK = Content(interactive=Interactive(body="Hi", link=LinkButton(title="{{ go }}", url="https://a.example/{{ id }}")))
_REPLIES = Content(interactive=Interactive(body="Hi", buttons=[ReplyButton(id="y", title="{{ yes }}")]))


def test_every_text_is_named_with_its_path() -> None:
    assert dict(_FULL.texts()) == {
        "template.parameters.name": "{{ name }}",
        "template.parameters.type": "{{ kind }}",
        "template.header.link": "https://example.com/{{ id }}.pdf",
        "template.header.filename": "{{ id }}.pdf",
        "template.buttons[0].value": "{{ code }}",
    }
    assert dict(_LIST.texts()) == {
        "interactive.body": "Hi {{ name }}",
        "interactive.header": "H",
        "interactive.footer": "F",
        "interactive.button": "Open",
        "interactive.sections[0].title": "S",
        "interactive.sections[0].rows[0].id": "1",
        "interactive.sections[0].rows[0].title": "{{ slot }}",
        "interactive.sections[0].rows[0].description": "d",
    }
    assert dict(Content(body="{{ x }}").texts()) == {"body": "{{ x }}"}


@pytest.mark.parametrize("content", [_FULL, _LIST, _REPLIES, _LINK, Content(body="{{ x }}")])
def test_mapping_reaches_exactly_the_texts(content: Content) -> None:
    mapped = content.map_texts(str.swapcase)
    assert dict(mapped.texts()) == {path: text.swapcase() for path, text in content.texts()}
    assert mapped.map_texts(str.swapcase) == content
    assert content.map_texts(lambda text: text) == content


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (Content(body="{{ x }}" + "y" * 4097), "body"),
        (_media(type="image", id="1", caption="y" * 1025 + "{{ x | default('{') }}"), "media.caption"),
        (_interactive(buttons=[{"id": "y", "title": "y" * 21 + "{{ x }}"}]), "interactive.buttons[0].title"),
    ],
    ids=["body", "caption", "title"],
)
def test_what_is_too_long_whatever_its_variables_bring_is_a_fault_at_once(content: Content, path: str) -> None:
    [(where, message)] = content.faults()
    assert where == path
    assert "beside its variables" in message


@pytest.mark.parametrize("text", ["{% if x %}" + "y" * 5000 + "{% endif %}", "y" + " " * 5000 + "{{- x }}"])
def test_what_a_condition_may_leave_out_is_not_measured_before(text: str) -> None:
    assert Content(body=text).faults() == []


def test_a_text_with_variables_is_measured_only_once_they_are_filled_in() -> None:
    content = Content(body="{{ x }}" + "y" * 4095)
    assert content.faults() == []
    assert [path for path, _ in content.faults(rendered=True)] == ["body"]
    link = Content(media=Media(type="image", link="{{ picture }}"))
    assert link.faults() == []
    assert [path for path, _ in link.faults(rendered=True)] == ["media.link"]


@pytest.mark.parametrize("content", [_FULL, _LIST, _REPLIES, _LINK, Content(body="x")])
def test_good_content_has_no_faults_and_survives_json(content: Content) -> None:
    assert content.faults() == []
    assert msgspec.json.decode(msgspec.json.encode(content), type=Content) == content


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="parametres"):
        msgspec.json.decode(b'{"template":{"name":"x","parametres":[]}}', type=Content)
