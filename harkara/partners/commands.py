"""The commands partners may send: each is one route of the API, with what its path names as fields of the payload."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harkara.http.route import PREFIX, Route
from harkara.http.routes import ROUTES
from harkara.partners.durables import CLOSE, OPEN

#: What stands behind `t.<tenant>.cmd.`, and the request that it is. The answer is that of the request.
OF_ROUTES: Mapping[str, str] = {
    "message.send": "POST /messages",
    "message.cancel": "POST /messages/{message_id}/cancel",
    "enrollment.start": "POST /contacts/{contact_id}/campaign/{campaign_id}/enroll",
    "enrollment.stop": "POST /contacts/{contact_id}/campaign/{campaign_id}/stop",
    "enrollment.goal": "POST /contacts/{contact_id}/campaign/{campaign_id}/goal",
    "enrollment.bulk": "POST /campaigns/{campaign_id}/enroll",
    "enrollment.launch": "POST /campaigns/{campaign_id}/activate",
    "enrollment.move": "POST /campaigns/{campaign_id}/versions/{version_id}/move",
    "contact.import": "POST /contacts/import",
    "contact.erase": "DELETE /contacts/{contact_id}?erase=true",
    "conversation.read": "POST /conversations/{conversation_id}/read",
    "conversation.reply": "POST /conversations/{conversation_id}/reply",
    "template.sync": "POST /senders/{sender_id}/templates/sync",
}

#: Those that only partners have.
OF_PARTNERS: Mapping[str, Route] = {"events.open": OPEN, "events.close": CLOSE}

_ID = re.compile(r"\{(\w+)\}")


def routes() -> Mapping[str, tuple[Route, str]]:
    """Every command by its name: its route, and the query that goes with it."""
    known = {f"{route.method} {route.path}": route for route in ROUTES}
    found = {name: (route, "") for name, route in OF_PARTNERS.items()}
    for name, request in OF_ROUTES.items():
        method, _, target = request.partition(" ")
        path, _, query = target.partition("?")
        found[name] = (known[f"{method} {PREFIX}{path}"], query)
    return found


def ids_of(route: Route) -> tuple[str, ...]:
    """The fields of a command that are in its route's path."""
    return tuple(_ID.findall(route.path))
