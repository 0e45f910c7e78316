"""Short questions to the database, asked for all requests of the same moment in one statement and one transaction.

A transaction of its own costs a request more than all the rest of it. A question is SQL over one array a column
(`unnest(…) with ordinality as i (tenant_id, …, place)`) that finds rows by id and answers one row an item, in order.
It runs as the role of batches (docs/decisions/0013-rows-found-by-id.md), whose transaction sees the rows of every
tenant that asks: so each join of a question compares the tenant with its own item's. An item of no tenant has the
empty string there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from tortoise.exceptions import DBConnectionError

from harkara.batching import Batcher
from harkara.http.context import database_errors
from harkara.http.problems import unavailable
from harkara.storage.storage import Storage, is_away

if TYPE_CHECKING:
    import asyncpg

    Row = asyncpg.Record

#: An item: its tenant, and the values of the other columns.
Item = tuple[Any, ...]

#: How long one statement may take. Whoever asks waits for the one before, too.
PATIENCE = timedelta(seconds=5)

#: More at once makes nobody faster.
MOST = 256


_ARRAY = re.compile(r"(\$\d+)::(\w+\[\])")

_encode = msgspec.json.Encoder().encode


def _literal(column: Sequence[object]) -> str:
    """A column of ids, texts and nulls as PostgreSQL writes an array.

    Of each item of a list asyncpg asks several times what it is: that takes longer than all the rest of a question
    takes here.
    """
    as_json = _encode(column).decode()
    if "\\" in as_json:  # where something is escaped, JSON and PostgreSQL differ
        return f"{{{','.join(map(_quoted, column))}}}"
    return f"{{{as_json[1:-1]}}}"


def _quoted(value: object) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class Questions:
    """Asks; one batch of each question at a time, so that the busier it is, the more share a transaction."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._batchers: dict[str, Batcher[Item, Row | Exception]] = {}

    async def ask(self, question: str, tenant: str, *values: Any) -> Row:
        """The row that answers this item. Raises Problem 503 if the database is away or takes too long.

        Inside a transaction it is asked there: it might wait for ever for a second connection.
        """
        here = self._storage.here
        if here is not None:
            with database_errors():
                async with asyncio.timeout(PATIENCE.total_seconds()):
                    found = await here.fetchrow(question, [tenant], *([value] for value in values))
            if found is None:
                raise LookupError("a question answers every item")
            return found
        batcher = self._batchers.get(question)
        if batcher is None:
            batcher = self._batchers[question] = Batcher(self._asker(question), most=MOST)
        answer = await batcher((tenant, *values))
        if isinstance(answer, Exception):
            raise unavailable("the database") from answer
        return answer

    def _asker(self, question: str) -> Callable[[Sequence[Item]], Coroutine[Any, Any, Sequence[Row | Exception]]]:
        statement = _ARRAY.sub(r"\1::text::\2", question)

        async def run(items: Sequence[Item]) -> Sequence[Row | Exception]:
            tenants = {item[0] for item in items if item[0]}
            columns = [_literal(column) for column in zip(*items, strict=True)]
            try:
                async with asyncio.timeout(PATIENCE.total_seconds()), self._storage.batch(tenants) as con:
                    return list(await con.fetch(statement, *columns))
            except Exception as error:
                if not is_away(error) and not isinstance(error, TimeoutError | DBConnectionError):
                    raise  # one item's own fault: the batcher runs each alone
                return [error] * len(items)  # nobody would fare better alone

        return run
