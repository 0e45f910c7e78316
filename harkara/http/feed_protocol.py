"""What passes over the live feed's socket, in words, for the description of the API."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

from harkara.schemas import events
from harkara.schemas.base import Message

_PROTOCOL = """
Once the socket is open, send `{"subscribe":["message.*","enrollment.completed"],"since":"now"}`, and again whenever you
want something else. `subscribe` names types of events: `*` stands for one word, `>` at the end for all that follow.
`since` is the last `seq` that you have seen, or `now`; 0 means all that is kept, which is 7 days.

Each event of your tenant comes as `{"seq":81,"type":"message.sent","at":"2026-01-31T09:30:00Z","data":{…}}`, in order
and without gaps: whoever comes back with its last `seq` misses nothing, whatever was restarted meanwhile. Browsers,
which can't set headers, bring a `ticket` from `POST /api/v1/feed/ticket`.

The server closes with a reason: 1001 when it restarts and 1013 when you read too slowly (come back with your last
`seq`), 1003 and 1008 when what you sent can't be understood, and 1008 when no type of event fits one of the patterns or
your access has ended.

| type | when | data |
| --- | --- | --- |
"""

#: What the feed tells of itself, whatever was subscribed to.
_OWN = ("feed.gap", "feed.closed")

_ABOUT = (
    "| `feed.gap` | Events between these two are not kept any more: fetch what you need | since, first, reason |",
    "| `feed.closed` | The feed ends here; its `seq` is what to come back with | reason |",
)


def protocol() -> str:
    """The protocol, with a table of all events."""
    rows = [f"| `{type_}` | {cleandoc(event.__doc__ or '')} | {_fields(event)} |" for type_, event in _events()]
    return "\n".join([_PROTOCOL.strip(), *rows, *_ABOUT])


def _events() -> Iterator[tuple[str, type[Message]]]:
    for one in vars(events).values():
        if isinstance(one, type) and issubclass(one, Message) and (subject := getattr(one, "subject", "")):
            yield subject.removeprefix("t.{tenant}.evt."), one


#: All types of events that there are.
TYPES = tuple(sorted((*(type_ for type_, _ in _events()), *_OWN)))


def _fields(event: type[Message]) -> str:
    return ", ".join(event.__struct_fields__)
