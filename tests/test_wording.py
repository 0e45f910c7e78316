"""What is wrong with a value is told in the words of whoever sends it."""

from __future__ import annotations

import itertools
import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta
from multidict import MultiDict

from harkara.http.decoding import decode_body, decode_query
from harkara.http.feed import Wish
from harkara.http.problems import Problem
from harkara.http.routes import ROUTES
from harkara.wording import misfit


class Dog(msgspec.Struct, tag_field="type", tag="dog"):
    age: int


class Cat(msgspec.Struct, tag_field="type", tag="cat"):
    age: int


Names = dict[Annotated[str, Meta(max_length=3)], int]


@pytest.mark.parametrize(
    ("type_", "value", "where", "says"),
    [
        (int, "5", "", "must be a whole number"),
        (float | int | None, "5", "", "must be a number or null"),
        (str | list[str], 5, "", "must be a string or a list"),
        (bool | None, 5, "", "must be a boolean (true or false) or null"),
        (UUID, 5, "", "must be an id (a UUID)"),
        (UUID, "5", "", "must be an id (a UUID)"),
        (datetime, "today", "", "must be a time such as 2026-01-31T09:00:00Z"),
        (
            Annotated[datetime, Meta(tz=True)],
            "2026-01-31T09:00:00",
            "",
            "must tell its time zone, as 2026-01-31T09:00:00Z does",
        ),
        (Literal["a", "b"], "c", "", "must be one of: a, b"),
        (Literal["a", "b"] | None, 5, "", "must be one of: a, b, null"),
        (Literal[",", "\t"], "c", "", 'must be one of: ",", "\\t"'),
        (Literal["now"] | int, "c", "", "must be one of: now, a whole number"),
        (Literal[True], False, "", "must be true"),
        (Dog | Cat, {"type": "cow"}, "type", "must be one of: dog, cat"),
        (Dog | Cat, {"age": 5}, "type", "must be one of: dog, cat"),
        (Dog | Cat | None, 5, "", "must be an object or null"),
        (Annotated[int, Meta(ge=1)], 0, "", "must be at least 1"),
        (Annotated[float, Meta(gt=0)], 0, "", "must be more than 0"),
        (Annotated[float, Meta(le=0.5)], 1, "", "must be at most 0.5"),
        (Annotated[int, Meta(le=10**15)], 10**16, "", "must be at most 1000000000000000"),
        (Annotated[str, Meta(min_length=1)], "", "", "must not be empty"),
        (Annotated[str, Meta(max_length=2)], "abc", "", "must have at most 2 characters"),
        (Annotated[list[int], Meta(min_length=2)], [1], "", "must have at least 2 entries"),
        (Annotated[str, Meta(pattern="^a$", extra={"words": "an a"})] | None, "b", "", "must be an a"),
        (Names, {"abcd": 1}, "", "its names must have at most 3 characters"),
        (dict[str, Names], {"x": {"abcd": 1}}, "[...]", "its names must have at most 3 characters"),
    ],
)
def test_each_of_msgspecs_messages_has_its_words(type_: Any, value: object, where: str, says: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, type_)
    assert misfit(caught.value, type_) == (where, says)


@pytest.mark.parametrize(
    ("type_", "says"), [(int | None, "a whole number"), (Literal["a", "b"] | None, "one of: a, b")]
)
def test_where_values_are_text_there_is_no_null(type_: Any, says: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert("x", type_, strict=False)
    assert misfit(caught.value, type_, as_text=True) == ("", f"must be {says}")


ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    7,
    -1.5,
    10**30,
    "",
    "x" * 5000,
    "zz",
    "2026-01-01T00:00:00",
    [],
    [1],
    [[]],
    {},
    {"type": "zz"},
    {"a": {}},
    {"a": True},
    {"x" * 70: 1},
)

PROGRAMMERS = re.compile(
    r"`|\$|\b(expected|got|array|int|str|uuid|datetime|enum|regex|object missing)\b", re.IGNORECASE
)


def told() -> set[str]:
    """What is said of odd values in any field of any body and query of the API."""
    said: set[str] = set()
    bodies: list[Any] = [*(route.body for route in ROUTES if route.body), Wish]
    for body, odd in itertools.product(bodies, ODD):
        for field in msgspec.structs.fields(body):
            try:
                decode_body(json.dumps({field.encode_name: odd}).encode(), body)
            except Problem as problem:
                said |= {message for _, message in problem.errors}
    for query, odd in itertools.product((route.query for route in ROUTES if route.query), ODD):
        for field in msgspec.structs.fields(query):
            try:
                decode_query(MultiDict({field.encode_name: str(odd)}), query)
            except Problem as problem:
                said |= {message for _, message in problem.errors}
    return said


def test_no_body_and_no_query_is_answered_in_pythons_words() -> None:
    said = {message for message in told() if not message.startswith("is unknown here: possible are ")}
    assert len(said) > 40
    found = {message for message in said if PROGRAMMERS.search(message.replace("(a UUID)", ""))}
    assert found == set(), "a rule in harkara/wording.py, or for a pattern Meta(extra={'words': …}), says it better"
