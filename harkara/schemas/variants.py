"""Variants of a step: several ways to say it, one of which a contact gets."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from harkara.schemas.content import Content


class Variant(Content, frozen=True, kw_only=True):
    """One way to say a step. Of two with the weights 1 and 3, the second goes to three contacts in four."""

    name: Annotated[str, Meta(min_length=1, max_length=32)]
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1

    def content(self) -> Content:
        """What it says."""
        return Content(body=self.body, template=self.template, media=self.media, interactive=self.interactive)
