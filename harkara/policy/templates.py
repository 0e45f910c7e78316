"""What a template's status, in WhatsApp's words in lower case, says of messages that use it."""

from __future__ import annotations

from collections.abc import Mapping

from harkara.schemas.reasons import Reason

#: They wait: it may come back.
HELD: Mapping[str, Reason] = {
    "pending": "template_pending",
    "in_appeal": "template_pending",
    "paused": "template_paused",
    "limit_exceeded": "template_paused",
}

#: They never leave. With any status that is in neither of the two it may be used.
ENDED: Mapping[str, Reason] = {
    "rejected": "template_rejected",
    "disabled": "template_disabled",
    "archived": "template_disabled",
    "deleted": "template_disabled",
    "pending_deletion": "template_disabled",
}

#: All that keep messages from leaving.
STOPPED = frozenset({*HELD, *ENDED})
