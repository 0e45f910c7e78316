"""Tables that are partitioned by month: what Tortoise's migrations need to know of them."""

from __future__ import annotations

from typing import Any

from tortoise.migrations import operations


class StateOnly(operations.CreateModel):
    """Tells the migrations that a model exists, while hand-written SQL makes its table."""

    async def database_forward(self, *_: Any, **__: Any) -> None:
        """Nothing to do in the database."""

    async def database_backward(self, *_: Any, **__: Any) -> None:
        """Nothing to do in the database."""
