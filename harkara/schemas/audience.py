"""Whom a broadcast is for."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta

from harkara.schemas.base import Body


class Audience(Body, frozen=True):
    """Exactly one of: the contacts of a segment, those with a tag, or all; who they are is judged at the launch."""

    segment_id: UUID | None = None
    tag: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    all: bool = False
