"""The headers our messages carry, named once."""

from __future__ import annotations

#: What JetStream dedupes on, per stream and for two minutes: always `<tenant>.<id>`.
DEDUPE = "Nats-Msg-Id"
#: The message's own id; unlike the broker's it survives a schedule.
ID = "X-Msg-Id"
#: The id of the request or webhook that started it all.
CAUSE = "X-Cause"
#: How many attempts were made before this copy was stored.
ATTEMPT = "X-Attempt"
#: When the message was first stored, RFC 3339; set when it is parked, so that it outlives the copy.
AT = "X-At"
#: The subject a parked or dead message was first published to.
SUBJECT = "X-Subject"

#: On dead letters only: where the message lay, who gave it up, and why.
STREAM = "X-Stream"
SEQ = "X-Seq"
ACTOR = "X-Actor"
REASON = "X-Reason"

SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"

#: Headers that belong to one stored copy and must not follow a message to its next place.
OF_THE_BROKER = "Nats-"
