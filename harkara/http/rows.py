"""Rows as users see them, and changes to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from tortoise.models import Model

S = TypeVar("S", bound=msgspec.Struct)


def shown(row: object, type_: type[S]) -> S:
    """A row as the Struct that users are shown: its fields have the columns' names."""
    return msgspec.convert(row, type_, from_attributes=True)


async def amend(row: Model, changes: Mapping[str, Any]) -> None:
    """Write these columns of a row, and when it was done."""
    if not changes:
        return
    for name, value in changes.items():
        setattr(row, name, value)
    await row.save(update_fields=[*changes, "updated_at"])
