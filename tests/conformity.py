"""Whether what the front door says is what its description says it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec

from harkara.http.docs import description
from harkara.http.routes import ROUTES

#: Answers that come from no operation: of paths and methods that do not exist.
OF_NONE = {404, 405}


class Conformity:
    """Holds answers against a description; what it needs for that is made once a schema."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._paths = [(_pattern(path), path) for path in document["paths"]]
        # Fixed paths before those with parameters: `/contacts/import` is no contact.
        self._paths.sort(key=lambda one: one[1].count("{"))
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def check(self, method: str, path: str, status: int, kind: str, body: bytes) -> None:
        """Raise AssertionError unless this answer is one that the description knows."""
        faults = list(self._faults_of(method, path, status, kind, body))
        assert not faults, f"{method} {path} answered {status}, against its description: {'; '.join(faults)}"

    def _faults_of(self, method: str, path: str, status: int, kind: str, body: bytes) -> Iterator[str]:
        operation = self._operation(method, path)
        if operation is None:
            if status not in OF_NONE and method not in ("OPTIONS", "HEAD"):
                yield "there is no such operation"
            return
        responses = operation["responses"]
        if str(status) not in responses:
            if status < 500:
                known = ", ".join(responses)
                yield f"its description knows {known}: add the status to `raises` or `also` of the route"
            return
        content = self._followed(responses[str(status)]).get("content", {})
        kind = kind.partition(";")[0].strip()
        if not content:
            if body:
                yield "a body was described by nothing"
        elif kind not in content:
            yield f"the content type {kind} is not in its description ({', '.join(content)})"
        elif kind.endswith("json") and method != "HEAD":
            yield from self.faults(content[kind]["schema"], json.loads(body))

    def faults(self, schema: Mapping[str, Any], value: Any) -> list[str]:
        """What is wrong with a value, by a schema of the document."""
        return [
            f"{'/'.join(map(str, error.instance_path))}: {error.message[:300]}"
            for error in self._validator(schema).iter_errors(value)
        ]

    def _validator(self, schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
        key = json.dumps(schema)
        found = self._validators.get(key)
        if found is None:
            whole = {**schema, "components": {"schemas": self._document["components"]["schemas"]}}
            found = self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return found

    def _operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        found = next((name for pattern, name in self._paths if pattern.fullmatch(path)), None)
        return None if found is None else self._document["paths"][found].get(method.lower())

    def _followed(self, response: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in response:
            return response
        found: Mapping[str, Any] = self._document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        return found


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))


@cache
def conformity() -> Conformity:
    """To the description of all routes."""
    return Conformity(msgspec.json.decode(description(ROUTES).body))
