"""What every message on the bus has in common: a frozen body and a subject that is written once, on its type."""

from __future__ import annotations

import re
from functools import cache
from typing import ClassVar, dataclass_transform

import msgspec

#: A tenant's slug: fixed for life, safe as one token of a subject and of a consumer's name.
TENANT = re.compile(r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$")

_FIELD = re.compile(r"\{(\w+)\}")

#: One token of a subject: not empty, no separator, no wildcard, no white space.
_TOKEN = re.compile(r"[^.*>\s]+").fullmatch


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON body that users send or read: unknown fields are refused by name."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message on the bus.

    `subject` is a pattern such as `t.{tenant}.work.send.{sender_id}.{lane}`: `{tenant}` is filled by whoever publishes,
    every other name from the field of that name. Unknown fields are ignored when decoding, so that fields can be added
    while an older process still runs.
    """

    subject: ClassVar[str]

    @classmethod
    def subject_filter(cls) -> str:
        """The pattern with every placeholder as a wildcard: what a consumer filters on."""
        return _FIELD.sub("*", cls.subject)

    def subject_for(self, tenant: str) -> str:
        """The concrete subject of this message for one tenant.

        Raises ValueError if a value is empty or could be read as more than one token, a wildcard or white space.
        """

        tokens = [str(tenant if name == "tenant" else getattr(self, name)) for name in _names(self.subject)]
        for token in tokens:
            if not _TOKEN(token):
                kind = type(self).__name__
                raise ValueError(f"{kind}: {token!r} cannot be one token of the subject {self.subject}")
        return _template(self.subject) % tuple(tokens)


@cache
def _names(subject: str) -> tuple[str, ...]:
    return tuple(_FIELD.findall(subject))


@cache
def _template(subject: str) -> str:
    return _FIELD.sub("%s", subject)


def tenant_of(subject: str) -> str:
    """The tenant a subject belongs to: its second token when it starts with `t.`, else the empty string (`sys.…`)."""
    head, _, rest = subject.partition(".")
    return rest.partition(".")[0] if head == "t" else ""
