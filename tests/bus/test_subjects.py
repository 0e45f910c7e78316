from __future__ import annotations

import pytest

from harkara.bus.subjects import as_token, covers, matches


@pytest.mark.parametrize(
    ("pattern", "subject", "takes"),
    [
        ("t.*.cmd.>", "t.acme.cmd.message.send", True),
        ("t.*.cmd.>", "t.acme.cmd", False),
        ("t.*.in.*", "t.acme.in.whatsapp", True),
        ("t.*.in.*", "t.acme.in.whatsapp.more", False),
        ("t.*.in.*", "t.acme.out.whatsapp", False),
        ("sys.tick.due", "sys.tick.due", True),
        (">", "anything.at.all", True),
    ],
)
def test_a_filter_takes_what_the_broker_would_give_it(pattern: str, subject: str, takes: bool) -> None:
    assert matches(pattern, subject) is takes


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("t.*.cmd.>", "t.*.cmd.message.send", True),
        ("t.*.cmd.>", "t.*.cmd.>", True),
        ("t.*.work.send.>", "t.*.work.send.*.*", True),
        ("t.*.work.send.*", "t.*.work.send.>", False),
        ("t.acme.cmd.*", "t.*.cmd.go", False),
        ("t.*.in.*", "t.*.in", False),
        ("t.*.in.*", "t.*.in.a.b", False),
    ],
)
def test_one_filter_covers_another(wide: str, narrow: str, covered: bool) -> None:
    assert covers(wide, narrow) is covered


def test_any_text_becomes_one_harmless_token() -> None:
    assert as_token("order 17.*>\r\n") == "order-17-"
    assert as_token("") == "-"
    assert len(as_token("x" * 500)) == 64
