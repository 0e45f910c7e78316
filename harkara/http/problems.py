"""What went wrong, as an RFC 9457 problem document that tells its reader what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

#: A fault in what was sent: where it is (`steps[1].body`) and what is wrong with it.
Fault = tuple[str, str]

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is not what was hoped for.

    `detail` is one clear line that says what to do; `errors` name each fault of a body; `extra` are further members of
    the document, such as the id of what is in the way.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, list(errors)
        self.headers, self.extra = dict(headers or {}), dict(extra or {})

    def document(self) -> dict[str, Any]:
        """The problem document's members."""
        told: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            told["errors"] = [{"path": path, "message": message} for path, message in self.errors]
        return told | self.extra

    def response(self) -> web.Response:
        """The document as an HTTP response."""
        body = msgspec.json.encode(self.document())
        return web.Response(body=body, status=self.status, content_type=CONTENT_TYPE, headers=self.headers)


def invalid(*faults: Fault) -> Problem:
    """422: these faults, all of them."""
    if len(faults) == 1:
        path, message = faults[0]
        return Problem(422, f"{path}: {message}" if path else message, errors=faults)
    return Problem(422, f"{len(faults)} things are wrong: see errors", errors=faults)


def malformed(detail: str) -> Problem:
    """400: what was sent can't be read at all."""
    return Problem(400, detail)


def unauthenticated(detail: str) -> Problem:
    """401: who is asking is not known, or no longer."""
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="harkara"'})


def forbidden(detail: str) -> Problem:
    """403: known, but may not."""
    return Problem(403, detail)


def not_found(what: str) -> Problem:
    """404: there is no such thing in this tenant; whether another has it is never told."""
    return Problem(404, f"there is no such {what}: check the id and the tenant it belongs to")


def conflict(detail: str, **extra: Any) -> Problem:
    """409: not as things stand; `extra` names what is in the way."""
    return Problem(409, detail, extra=extra)


def operators(why: str) -> Problem:
    """409: an operator has paused it, for this reason, and only operators have it go on."""
    return conflict(f"{why}; ask the operator, who alone can have it go on")


def too_large(limit: int) -> Problem:
    """413: more than this route takes, in bytes."""
    return Problem(413, f"the body is larger than the {limit} bytes this route takes: send less at a time")


def unsupported(detail: str) -> Problem:
    """415: not the content type that this route takes."""
    return Problem(415, detail)


def unavailable(what: str, retry_after_s: int = 1) -> Problem:
    """503: a server behind us does not answer right now; nothing was done that a repetition would double."""
    return Problem(503, f"{what} does not answer: try again", headers={"Retry-After": str(retry_after_s)})
