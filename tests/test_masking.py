"""What whoever looks after the platform is shown of bodies: all but codes, also of what is no JSON."""

from __future__ import annotations

from base64 import b64decode

import pytest

from harkara.masking import Raw, raw, without_codes

SUBJECT = "t.acme.cmd.message.send"


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        (b"garbage", "garbage"),
        (b'{"to": "\xff\xfe', '{"to": "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}'),
        (b"\x1b[2Jgone\r\nback\xe2\x80\xae", "·[2Jgone··back·"),
        (b"", ""),
        (b"x" * 5000, "x" * 200),
        (b"[" * 100_000, "[" * 200),
    ],
)
def test_what_is_no_json_is_shown_as_its_bytes_and_how_it_begins(body: bytes, begins: str) -> None:
    assert without_codes(body) is None
    found = raw(body, SUBJECT)
    assert found is not None
    assert (b64decode(found.base64), found.begins) == (body, begins)


@pytest.mark.parametrize("body", [b"null", b"7", b'{"lane":"otp","body":"4711"}', b'{"body": "Hi"}'])
def test_what_is_json_is_shown_as_that_only(body: bytes) -> None:
    assert raw(body, SUBJECT) is None


@pytest.mark.parametrize(
    ("body", "subject"),
    [(b'{"lane":"otp","body":"4711"', SUBJECT), (b'{"body":"4711"', "t.acme.work.send.01a2.otp")],
)
def test_what_may_be_a_code_is_not_shown(body: bytes, subject: str) -> None:
    assert raw(body, subject) == Raw("***", "***")
