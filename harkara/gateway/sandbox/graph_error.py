"""Refusals in the words of the Cloud API."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from harkara.gateway.errors import rule_for


class GraphError(Exception):
    """The Cloud API refuses with a code of the error table; `details` says what exactly is wrong."""

    def __init__(self, code: int, details: str = "", *, subcode: int | None = None) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details
        self.subcode = subcode

    @property
    def title(self) -> str:
        """The code's title, as in the error table."""
        return rule_for(self.code).title

    def body(self, trace: str) -> dict[str, Any]:
        """The error object of an answer."""
        error: dict[str, Any] = {
            "message": f"(#{self.code}) {self.title}",
            "type": "OAuthException",
            "code": self.code,
            "error_data": {"messaging_product": "whatsapp", "details": self.details or self.title},
            "fbtrace_id": trace,
        }
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        return {"error": error}

    def response(self, trace: str) -> web.Response:
        """The answer with the HTTP status that the Cloud API usually sends with this code."""
        return web.Response(
            status=rule_for(self.code).status,
            body=msgspec.json.encode(self.body(trace)),
            content_type="application/json",
            headers={"x-fb-trace-id": trace},
        )
