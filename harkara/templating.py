"""Texts with variables: `Hi {{ name }}, your order from {{ attributes.city | default("your city") }}`.

The same for preview, test and real sending. An empty value counts as missing, and what is missing must have a default:
a message never has a hole. Anybody's text runs here, so only that part of the template language (minijinja) is spoken
which can neither call anything nor grow: values, a few filters and `if`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import minijinja

#: What a text may name: fields of the contact, and `attributes.<anything>`; and of an invoice, if it is about one.
VARIABLES = ("name", "first_name", "phone", "locale", "attributes")
INVOICE = ("invoice.number", "invoice.amount", "invoice.due_date")

#: What may be done to a value. Others multiply what they are given, and repeated use of them would fill the memory.
FILTERS = (
    "default", "d", "upper", "lower", "title", "capitalize", "trim", "first", "last", "round", "int", "float",
    "length", "string", "replace", "join",
)  # fmt: skip

#: What may be decided.
TAGS = ("if", "elif", "else", "endif")

#: Most characters of a text before and after its variables are filled in, and of what one filter gives.
LIMIT = 20_000

#: Steps of the template machine one text may take; a long marketing text needs some hundred.
FUEL = 50_000


#: One token inside `{{ … }}` or `{% … %}`: a quoted string, a name, the end, or one other character.
_TOKEN = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\W\d]\w*|-?[%}]\}|\d+|\S)""", re.DOTALL)

#: Names that are no values: a parenthesis after one of them groups, after a value it would call.
_WORDS = frozenset({"if", "elif", "else", "and", "or", "not", "in", "is"})


class TemplateFault(Exception):
    """A text that can't be rendered; says what is wrong and how to mend it."""


def _replace(value: object, old: str, new: str) -> str:
    text = value if isinstance(value, str) else str(value)
    if value is None or len(text) + text.count(old) * len(new) > LIMIT:
        raise TemplateFault("`replace` needs a text, and must not make it too long")
    return text.replace(old, new)


def _join(value: object, separator: str = "") -> str:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TemplateFault("`join` needs a list")
    parts = [str(part) for part in cast("Sequence[object]", value)]
    if sum(map(len, parts)) + len(separator) * len(parts) > LIMIT:
        raise TemplateFault("`join` must not make a text too long")
    return separator.join(parts)


def _environment() -> Any:
    return minijinja.Environment(
        undefined_behavior="strict",
        auto_escape_callback=lambda _: False,
        filters={"replace": _replace, "join": _join},
        keep_trailing_newline=True,
        pycompat=False,
        fuel=FUEL,
    )


_ENVIRONMENT = _environment()


@lru_cache(maxsize=1024)
def check(text: str) -> None:
    """Raise TemplateFault if the text has a syntax error, does what it may not, or names what does not exist."""
    _check_language(text)
    try:
        names: set[str] = _ENVIRONMENT.undeclared_variables_in_str(text, nested=True)
    except minijinja.TemplateError as error:
        raise TemplateFault(_first_line(error)) from None
    if faults := [fault for name in sorted(names) if (fault := _unknown(name))]:
        raise TemplateFault("; ".join(faults))


def _unknown(name: str) -> str:
    """What is wrong with a variable's name; empty if there is such a variable."""
    root, _, attribute = name.partition(".")
    if name == "attributes":
        return "`attributes` is not one value: name one of them, such as attributes.city"
    if name in INVOICE:
        return ""
    if root == "invoice":
        return f"unknown variable `{name}`: of an invoice there are {', '.join(INVOICE)}"
    if root not in VARIABLES or (root != "attributes" and attribute):
        possible = f"use name, first_name, phone, locale, attributes.{root} for an attribute, or of an invoice"
        return f"unknown variable `{name}`: {possible} {', '.join(INVOICE)}"
    return ""


def _check_language(text: str) -> None:
    """Raise TemplateFault for whatever goes beyond values, our filters and `if`."""
    if len(text) > LIMIT:
        raise TemplateFault(f"a text may have at most {LIMIT} characters (this has {len(text)}): shorten it")
    position = 0
    while (start := text.find("{", position)) >= 0:
        opening = text[start : start + 2]
        if opening == "{#":
            raise TemplateFault("comments (`{#`) can't be used in a text: leave them out")
        position = _check_expression(text, start + 2, opening) if opening in ("{{", "{%") else start + 1


def _check_expression(text: str, position: int, opening: str) -> int:
    """Where the expression that begins at `position` has ended. Raises TemplateFault for what it may not hold."""
    closing, before, last = ("}}", "%}")[opening == "{%"], "", ""
    while match := _TOKEN.match(text, position):
        now, position = match[1], match.end()
        if now.removeprefix("-") == closing:
            return position
        if now == "(" and last != "|" and _is_value(before):
            raise TemplateFault(f"`{before}(` calls something: only filters are possible, {{{{ … | upper }}}}")
        if now in ("*", "{"):
            raise TemplateFault(f"`{now}` can't be used between {opening} and {closing}")
        if before == "|" and now not in FILTERS:
            raise TemplateFault(f"there is no filter `{now}`: use one of {', '.join(FILTERS)}")
        if opening == "{%" and before in ("", "-", "+") and not last and now not in (*TAGS, "-", "+"):
            raise TemplateFault(f"`{now}` can't be used: between {{% and %}} there are only {', '.join(TAGS)}")
        before, last = now, before
    return len(text)


def _is_value(token: str) -> bool:
    return token[-1:] in (")", "]", '"', "'") or (token.isidentifier() and token not in _WORDS)


def check_complete(text: str) -> None:
    """Raise TemplateFault if the text would have a hole, or fail, for a contact without any attributes."""
    check(text)
    try:
        compiled(text)(SOMEBODY)
    except TemplateFault as fault:
        raise TemplateFault(f"{fault}; give it a default: {{{{ … | default('…') }}}}") from None


def variables(
    *,
    name: str | None,
    phone: str,
    locale: str | None,
    attributes: Mapping[str, Any],
    invoice: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The variables of one contact, and of an invoice. Empty values are left out, so that defaults apply to them.

    `phone` is where they are written to; if that is a user id, no text says it, and they have no phone.
    A contact without a name is called by its number; with `name` None it is nobody's, and has no name.
    """
    number = phone.strip() if phone.strip().startswith("+") else ""
    shown = "" if name is None else name.strip() or number or "-"
    called = {"name": shown, "first_name": shown.split()[0]} if shown else {}
    known: dict[str, Any] = {
        **called,
        **({"phone": number} if number else {}),
        "locale": locale or "en",
        "attributes": {key: value for key, value in attributes.items() if value not in (None, "")},
    }
    if invoice is not None:
        known["invoice"] = invoice
    return known


#: Those of somebody of whom nothing else is known.
SOMEBODY: Mapping[str, Any] = variables(name="Someone", phone="+10000000000", locale=None, attributes={})


def used(text: str) -> frozenset[str]:
    """The variables that a text names, as it names them: `attributes.city`. Raises TemplateFault."""
    if "{" not in text:
        return frozenset()
    check(text)
    return frozenset(_ENVIRONMENT.undeclared_variables_in_str(text, nested=True))


@lru_cache(maxsize=4096)
def compiled(text: str) -> Callable[[Mapping[str, Any]], str]:
    """A function from variables to the finished text; parsed once. Raises TemplateFault, and so does the function."""
    if "{" not in text:
        return lambda _: text
    check(text)
    environment = _environment()
    environment.add_global("invoice", {})  # of a message that is about none, so that defaults apply
    try:
        environment.add_template("text", text)
    except minijinja.TemplateError as error:
        raise TemplateFault(_first_line(error)) from None

    def render(values: Mapping[str, Any]) -> str:
        try:
            rendered: str = environment.render_template("text", **values)
        except minijinja.TemplateError as error:
            raise TemplateFault(_first_line(error)) from None
        if len(rendered) > LIMIT:
            raise TemplateFault(f"the text became longer than {LIMIT} characters: shorten what is put into it")
        return rendered

    return render


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].replace(" (in text:1)", "").replace(" (in <string>:1)", "")
