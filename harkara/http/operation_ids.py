"""Names of operations, made of method and path, which never change: `contact_create`, `campaign_steps_list`."""

from __future__ import annotations

import re
from typing import Any, get_origin

from harkara.http.route import PREFIX, Route
from harkara.schemas.api import Page

VERBS = {"GET": "get", "POST": "create", "PUT": "put", "PATCH": "update", "DELETE": "delete"}

_PARAMETER = re.compile(r"\{(\w+?)(_id)?(:[^}]*)?\}")


def operation_id(route: Route) -> str:
    """What it is about and what is done: `contact_get` for one, `contacts_list` for many, `campaign_pause`."""
    words = _words(route.path.removeprefix(PREFIX))
    if route.method == "POST" and (words[0] == "webhooks" or not words[-1].endswith("s")):
        return "_".join(words)  # its last word says what is done
    if route.method == "POST":
        words[-1] = _singular(words[-1])
    verb = "list" if _lists(route.returns) else VERBS[route.method]
    return "_".join([*words, verb])


def _words(path: str) -> list[str]:
    """The path's segments; what an id follows is in the singular."""
    words: list[str] = []
    for segment in path.strip("/").split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            words.append(re.sub(r"\W", "_", segment))
        elif parameter[2] and words[-1].endswith("s"):
            words[-1] = _singular(words[-1])
        elif not parameter[2]:
            words.append(parameter[1])
    return words


def _singular(word: str) -> str:
    return word[:-3] + "y" if word.endswith("ies") else word[:-1]


def _lists(returns: Any) -> bool:
    return get_origin(returns) is Page
