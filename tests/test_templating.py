"""Texts with variables: filled in, never with a hole, and harmless whoever wrote them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from harkara.invoicing import Owed, shown
from harkara.templating import FILTERS, LIMIT, TemplateFault, check, check_complete, compiled, variables


def values(**attributes: Any) -> dict[str, Any]:
    return variables(name="Asha Rao", phone="+919876543210", locale="hi", attributes=attributes)


def rendered(text: str, **attributes: Any) -> str:
    return compiled(text)(values(**attributes))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello", "Hello"),
        ("", ""),
        ("{", "{"),
        ("*bold* {x} }} %}", "*bold* {x} }} %}"),
        ("Hi {{ name }}", "Hi Asha Rao"),
        ("Hi {{first_name}}, {{ phone }}, {{ locale }}", "Hi Asha, +919876543210, hi"),
        ("{{ attributes.city }}", "Pune"),
        ("{{ attributes.city | upper }}", "PUNE"),
        ('{{ attributes.town | default("your town") }}', "your town"),
        ("{{ attributes.city | default('your town') }}", "Pune"),
        ("{{ attributes.empty | default('nothing') }}", "nothing"),
        ("{{ attributes.none | default('nothing') }}", "nothing"),
        ("{{ attributes.zero }} {{ attributes.no }}", "0 False"),
        ("{{ attributes.deep.er }}", "found"),
        ("{{ attributes.list | join(', ') }}", "a, b"),
        ("{{ attributes.city | replace('P', 'T') }}", "Tune"),
        ("{{ (attributes.zero + 2) - 1 }}", "1"),
        ("{{ 'in' if attributes.city == 'Pune' else 'out' }}", "in"),
        ("{% if attributes.town is defined %}there{% else %}nowhere{% endif %}", "nowhere"),
        ("a {%- if not (name == 'x') -%} b {%- endif %}", "ab"),
        ("line\n{{ name }}\n", "line\nAsha Rao\n"),
        ('{{ name }} <b> & "quotes"', 'Asha Rao <b> & "quotes"'),
        ('{{ "}}" }}{{ "{{ * (" }}', "}}{{ * ("),
    ],
)
def test_a_text_is_filled_in(text: str, wanted: str) -> None:
    filled = rendered(text, city="Pune", empty="", none=None, zero=0, no=False, deep={"er": "found"}, list=["a", "b"])
    assert filled == wanted


def test_a_text_may_name_the_invoice_that_it_is_about_and_needs_defaults_where_there_may_be_none() -> None:
    text = "{{ invoice.number | default('your invoice') }}: {{ invoice.amount }} by {{ invoice.due_date }}"
    owed = Owed("2026-0042", 123450, "INR", datetime(2026, 11, 30, 18, 30, tzinfo=UTC)).variables("Asia/Kolkata")
    known = variables(name="", phone="+1", locale=None, attributes={}, invoice=owed)
    assert compiled(text)(known) == "2026-0042: INR 1,234.50 by 2026-12-01"
    assert rendered("{{ invoice.number | default('your invoice') }}") == "your invoice"
    check(text)
    with pytest.raises(TemplateFault, match="default"):
        check_complete(text)
    check_complete("{{ invoice.number | default('your invoice') }}")


@pytest.mark.parametrize(
    ("amount", "currency", "wanted"),
    [(5, "INR", "INR 0.05"), (1000, "JPY", "JPY 1,000"), (1234567, "KWD", "KWD 1,234.567"), (100, "XYZ", "XYZ 1.00")],
)
def test_an_amount_has_its_currencys_digits(amount: int, currency: str, wanted: str) -> None:
    assert shown(amount, currency) == wanted


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{{ nmae }}", "nmae"),
        ("{{ invoice }}", "invoice.number"),
        ("{{ invoice.total }}", "invoice.amount"),
        ("{{ nmae }}", "attributes.nmae"),
        ("{{ contact.name }}", "contact.name"),
        ("{{ name.first }}", "name.first"),
        ("{{ attributes }}", "attributes.city"),
        ("{{ attributes['city'] }}", "attributes.city"),
        ("{{ name", "syntax"),
        ("{{ }}", "syntax"),
        ("{% if name %}", "syntax"),
        ("{{ name }} {{ 'open }}", "syntax"),
    ],
)
def test_a_text_that_cannot_be_right_is_refused_with_the_place(text: str, named: str) -> None:
    with pytest.raises(TemplateFault, match=named) as caught:
        check(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(TemplateFault):
        compiled(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ attributes.city }}",
        "{{ attributes.city | upper }}",
        "{{ attributes.list | join(',') }}",
        "{{ attributes.city | replace('a', 'b') }}",
        "{{ attributes.deep.er | default('x') }}",
        "{% if attributes.vip %}you{% endif %}",
        "{{ attributes.city ~ '!' }}",
        "{{ attributes.n + 1 }}",
        "{{ attributes.city | length }}",
        "{{ attributes.list | first }}",
        "{{ attributes.city | string }}",
    ],
)
def test_what_would_leave_a_hole_is_refused_before_it_is_sent(text: str) -> None:
    check(text)
    with pytest.raises(TemplateFault, match="default"):
        check_complete(text)
    with pytest.raises(TemplateFault):
        rendered(text)


@pytest.mark.parametrize("name", sorted(set(FILTERS) - {"default", "d"}))
def test_no_filter_hides_that_a_value_is_missing(name: str) -> None:
    arguments = {"replace": "('a', 'b')", "join": "(',')"}.get(name, "")
    with pytest.raises(TemplateFault):
        rendered(f"{{{{ attributes.missing | {name}{arguments} }}}}")


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "{{ name }} {{ first_name }} {{ phone }} {{ locale }}",
        "{{ attributes.city | default('your city') }}",
        "{% if attributes.vip is defined %}VIP{% else %}friend{% endif %}",
    ],
)
def test_what_has_a_default_for_everything_is_complete(text: str) -> None:
    check_complete(text)


def test_who_is_no_contact_has_no_name() -> None:
    known = variables(name=None, phone="+919876543210", locale=None, attributes={})
    assert compiled("{{ first_name | default('there') }} {{ name | default('?') }} {{ phone }}")(known) == (
        "there ? +919876543210"
    )


@pytest.mark.parametrize("reached_by", ["US.230712345", "-", ""])
def test_who_is_known_by_a_user_id_has_no_phone(reached_by: str) -> None:
    known = variables(name=" ", phone=reached_by, locale=None, attributes={})
    assert "phone" not in known
    assert known["name"] == "-"
    assert compiled("{{ phone | default('you') }}")(known) == "you"
    with pytest.raises(TemplateFault, match="undefined"):
        compiled("{{ phone }}")(known)


def test_a_contact_without_a_name_is_called_by_the_phone() -> None:
    found = variables(name="  ", phone="+919876543210", locale=None, attributes={})
    assert found["name"] == found["first_name"] == "+919876543210"
    assert found["locale"] == "en"


@pytest.mark.parametrize(
    "text",
    [
        '{{ "x" * 100000000 }}',
        "{{ [1] * 100000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        '{{ ("x" * 10000) * 10000 }}',
        '{{ {"a": {"b": 1}}["a"] and "x" * 100000000 }}',
        '{# {{ " #}{{ "x" * 100000000 }}"',
        "{% for i in range(100000) %}x{% endfor %}",
        "{% set x = 'x' %}{{ x }}",
        "{% macro f() %}x{% endmacro %}",
        "{%- for x in attributes.list %}x{% endfor %}",
        "{%+ set x = 1 %}",
        "{% include 'x' %}",
        "{% raw %}{{ x * 2 }}{% endraw %}",
        "{% filter upper %}x{% endfilter %}",
        "{{ range(100000000) | length }}",
        "{{ debug() }}",
        "{{ name.center(100000000) }}",
        "{{ 'x'.center(100000000) }}",
        "{{ attributes.clear() }}",
        "{{ attributes.city.upper () }}",
        "{{ (name)('x') }}",
        "{{ attributes.list[0]('x') }}",
        "{{ name | indent(100000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ name | tojson | tojson }}",
        "{{ name |\n\tindent(100000000) }}",
        "{{ name | attr('x') }}",
        "{{ 4 is divisibleby(2) }}",
        "x" * LIMIT + "{{ name }}",
        "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
        "{% if 1 %}" * 900 + "{% endif %}" * 900,
    ],
)
def test_a_text_cannot_call_or_grow(text: str) -> None:
    begun = time.process_time()
    with pytest.raises(TemplateFault) as caught:
        check(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(TemplateFault):
        compiled(text)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "text",
    [
        "{{ name" + " | replace('a', 'aaaaaaaaaaaaaaaaaaaa')" * 8 + " }}",
        "{{ attributes.list | join('" + "x" * 10_000 + "') }}",
        "{{ 'a' | replace('', '" + "x" * 10_000 + "') | replace('', 'xxxx') }}",
        "{{ attributes.long }}" * 900,
        "{{ attributes.city | join(',') }}",
    ],
)
def test_a_text_that_grows_while_it_is_filled_in_is_stopped(text: str) -> None:
    check(text)
    with pytest.raises(TemplateFault):
        rendered(text, list=["a"] * 1000, long="x" * 1000, city="Pune")


def test_filling_in_changes_nothing_for_the_next_contact() -> None:
    fill = compiled("{{ name }} {{ attributes.city | default('?') }}")
    assert [fill(values(city="Pune")), fill(values()), fill(values(city="Goa"))] == [
        "Asha Rao Pune",
        "Asha Rao ?",
        "Asha Rao Goa",
    ]


def test_a_text_is_parsed_once() -> None:
    assert compiled("Hi {{ name }}") is compiled("Hi {{ name }}")


def test_every_unknown_variable_is_named_with_what_there_is() -> None:
    with pytest.raises(TemplateFault) as caught:
        check("{{ nobody }} {{ invoice.total }} {{ town }}")
    told = str(caught.value)
    assert [name for name in ("`nobody`", "`invoice.total`", "`town`") if name not in told] == []
    assert "invoice.due_date" in told
