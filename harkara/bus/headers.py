"""The headers our messages carry, named once."""

from __future__ import annotations

import re

#: What JetStream dedupes on, per stream and for two minutes: always `<tenant>.<id>`.
DEDUPE = "Nats-Msg-Id"
#: The message's own id; unlike the broker's it survives a schedule.
ID = "X-Msg-Id"
#: The id of the request or webhook that started it all.
CAUSE = "X-Cause"
#: Who asked for a command, signed by the front door (`harkara/callers.py`). For the audit log; it gives no rights.
BY = "X-By"
#: The span that a message comes from (W3C Trace Context), while tracing is on.
TRACE = "traceparent"
#: How many attempts were made before this copy was stored.
ATTEMPT = "X-Attempt"
#: When the message was first stored, RFC 3339; set when it is parked, so that it outlives the copy.
AT = "X-At"
#: The subject a parked or dead message was first published to.
SUBJECT = "X-Subject"

#: Why a message was parked or given up.
REASON = "X-Reason"

#: On dead letters only: where the message lay, and who gave it up.
STREAM = "X-Stream"
SEQ = "X-Seq"
ACTOR = "X-Actor"

SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"

#: Headers that belong to one stored copy and must not follow a message to its next place.
OF_THE_BROKER = "Nats-"


#: A line of a header block: a name of one word, and its value without what surrounds it. Other lines are no headers.
_lines = re.compile(r"\r\n[ \t]*([^\s:]+)[ \t]*:[ \t]*((?:[^\r\n]*[^\s])?)").findall


def read(block: bytes) -> dict[str, str]:
    """The headers in a block as the broker stores it: a first line, then one a line."""
    return dict(_lines(block.decode("utf-8", "replace")))
