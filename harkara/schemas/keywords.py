"""What a tenant says of the words by which contacts opt out and in."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from harkara.schemas.base import Body

#: What a contact may opt out of: the messages of one lane, or all of them.
Category: TypeAlias = Literal["all", "marketing", "utility", "otp"]

Word: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Confirmation: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]


class Confirmations(Body):
    """What is answered, once, to who opts out or in; null says nothing."""

    stop: Confirmation | None = None
    stop_marketing: Confirmation | None = None
    start: Confirmation | None = None


class Keywords(Body):
    """Words that count beside the usual ones: `stop` for everything, `stop_marketing` for marketing, `start` for both.

    A message counts if it is one of them as a whole, whatever its case, punctuation, accents and emoji; once or
    repeated, also as a caption. On a button or in a list usual words that may answer something else (Cancel, End) don't
    count; a tenant's own do. `ignored` are usual words that don't count here, because contacts mean something else
    by them; STOP itself always counts.
    """

    stop: Annotated[list[Word], Meta(max_length=100)] = msgspec.field(default_factory=list[str])
    stop_marketing: Annotated[list[Word], Meta(max_length=100)] = msgspec.field(default_factory=list[str])
    start: Annotated[list[Word], Meta(max_length=100)] = msgspec.field(default_factory=list[str])
    ignored: Annotated[list[Word], Meta(max_length=100)] = msgspec.field(default_factory=list[str])
    confirmations: Confirmations = msgspec.field(default_factory=Confirmations)
