"""Every reason that policy may give is one of the table, in words; and every one of the table is given somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import harkara
from harkara.schemas.reasons import HELD_BACK, POLICY, Reason

ROOT = Path(harkara.__file__).parent
OPS = ROOT.parent / "docs" / "ops.md"

#: Where a reason may be written down and is not given by that.
TOLD = ("schemas/reasons.py", "http/examples.py", "http/campaign_rows.py")


def code() -> str:
    """All of the code that may give a reason."""
    files = [path for path in ROOT.rglob("*.py") if not str(path).endswith(TOLD)]
    return "\n".join(path.read_text() for path in files)


def test_every_reason_is_in_the_table_and_every_one_of_the_table_is_a_reason() -> None:
    # That nothing else can be given is for the type checker: `Suppress`, `Defer` and the maps of templates take Reason.
    assert set(POLICY) == set(get_args(Reason))
    assert all(words.text and words.todo for words in POLICY.values())


def test_every_reason_is_given_somewhere() -> None:
    text = code()
    assert [reason for reason in POLICY if not re.search(rf"""["']{reason}["']""", text)] == []


def test_what_is_written_as_suppressed_without_the_gate_is_in_the_table() -> None:
    text = code()
    found = set(re.findall(r"""status = 'suppressed', reason = '(\w+)'""", text))
    found |= set(re.findall(r"""Decision\(.*, "suppressed", "(\w+)"\)""", text))
    assert {"cancelled", "enrollment_stopped", "opted_out", "no_consent", "sender_deleted"} <= found
    assert found <= set(POLICY)


def test_the_documentation_lists_them() -> None:
    page = (ROOT.parent / "docs" / "why-not-sent.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", page, re.MULTILINE)
    known = {**POLICY, **HELD_BACK}
    assert {code: (text, todo) for code, text, todo in listed} == {code: tuple(words) for code, words in known.items()}


def test_what_holds_all_back_has_the_names_that_operators_know() -> None:
    listed = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`\w+`.*?) \|", OPS.read_text(), re.MULTILINE)))
    assert set(HELD_BACK) <= set(listed)
    assert not set(HELD_BACK) & set(POLICY)
