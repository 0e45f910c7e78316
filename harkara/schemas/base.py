"""What every message on the bus has in common: a frozen body and a subject that is written once, on its type."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import ClassVar, dataclass_transform

import msgspec

#: A tenant's slug: fixed for life, safe as one token of a subject and of a consumer's name.
TENANT = re.compile(r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$")

_TENANT_ONLY = ("tenant",)

_FIELD = re.compile(r"\{(\w+)\}")

_FILLED_IN = re.compile(r"\.\{\w+\}")

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

        names = _names(self.subject)
        if names == _TENANT_ONLY:
            return _filled(self.subject, tenant)
        return _filled(self.subject, *[tenant if name == "tenant" else getattr(self, name) for name in names])


@cache
def _names(subject: str) -> tuple[str, ...]:
    return tuple(_FIELD.findall(subject))


@lru_cache(maxsize=10_000)
def _filled(subject: str, *tokens: str) -> str:
    for token in tokens:
        if not _TOKEN(token):
            raise ValueError(f"{token!r} cannot be one token of the subject {subject}")
    return _template(subject) % tokens


@cache
def _template(subject: str) -> str:
    return _FIELD.sub("%s", subject)


@cache
def kind_of(message: type[Message]) -> str:
    """A type of message in a word: its subject without the tenant and without what is filled in."""
    return _FILLED_IN.sub("", message.subject.removeprefix("t.{tenant}."))


def tenant_of(subject: str) -> str:
    """The tenant a subject belongs to: its second token when it starts with `t.`, else the empty string (`sys.…`)."""
    head, _, rest = subject.partition(".")
    return rest.partition(".")[0] if head == "t" else ""
