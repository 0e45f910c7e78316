"""A session that WAHA does not have is told from an address where no WAHA is, whatever words WAHA finds for it."""

from __future__ import annotations

import json

import pytest

from harkara.gateway.waha import _is_absent


@pytest.mark.parametrize(
    ("body", "absent"),
    [
        ({"message": "Session not found", "error": "Not Found", "statusCode": 404}, True),
        ({"message": "We didn't find a session with that name", "error": "Not Found", "statusCode": 404}, True),
        ({"message": "Cannot GET /api/sessions/shop", "error": "Not Found", "statusCode": 404}, False),
        ({"status": 404, "error": "Not Found", "response": {"message": ["Cannot GET /api/sessions/shop"]}}, False),
        ({"error": {"message": "Session not found", "code": 100}}, False),
        ({"detail": "Session not found", "status": 404}, False),
        ("<html>Session not found</html>", False),
    ],
)
def test_only_its_own_answer_says_that_there_is_no_session(body: object, absent: bool) -> None:
    assert _is_absent(json.dumps(body).encode()) is absent
    assert not _is_absent(b"Session not found")
