"""The front door's word on who asked for a command: for that command, and from nobody else."""

from __future__ import annotations

import pytest

from harkara.callers import Callers

OURS = Callers("a secret of thirty-two bytes, or more")
SAID = '{"user_id":"u"}'


def test_what_was_signed_is_heard() -> None:
    assert OURS.read("acme", "1", OURS.sign("acme", "1", SAID)) == SAID


def test_what_was_signed_before_a_new_key_came_is_heard() -> None:
    newer = Callers("another secret of thirty-two bytes!", "a secret of thirty-two bytes, or more")
    assert newer.read("acme", "1", OURS.sign("acme", "1", SAID)) == SAID
    assert OURS.read("acme", "1", newer.sign("acme", "1", SAID)) == ""


@pytest.mark.parametrize(("tenant", "command"), [("other", "1"), ("acme", "2")])
def test_it_counts_for_no_other_command(tenant: str, command: str) -> None:
    assert OURS.read(tenant, command, OURS.sign("acme", "1", SAID)) == ""


@pytest.mark.parametrize("header", ["", SAID, f"{'0' * 32} {SAID}", "schlüssel x", " "])
def test_what_nobody_signed_is_not_heard(header: str) -> None:
    assert OURS.read("acme", "1", header) == ""
