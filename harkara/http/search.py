"""Pages of large tables by filters of which indexes serve some: each page looks at a bounded number of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.http.lists import FIRST, span
from harkara.values import spellings

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Rows looked at for one page at most: a page of what is rare is as quick as any other, and may be short.
LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class Searched:
    """A table as it is searched: filters that an index serves together with the order, and those that only pick.

    `implied` says what is true of every row with a status, and of few others: small indexes hold those.
    """

    table: str
    columns: Collection[str]
    found_by: Collection[str]
    picked_by: Collection[str]
    implied: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Columns with phone numbers, which are found in any spelling.
    phones: Collection[str] = ()


class Search:
    """The statement of one page. Names the tenant although row-level security does too: see `lists.newest`."""

    def __init__(self, where: Searched, tenant: str, query: Any) -> None:
        self.values: list[Any] = []
        self._where = where
        self._limit = query.limit + 1
        least, most = span(query)
        found = [self._is("tenant_id", tenant), f"id < {self._place(most)}"]
        if least != FIRST:
            found.append(f"id >= {self._place(least)}")
        found += [self._is(name, value) for name in where.found_by if (value := getattr(query, name)) is not None]
        if where.implied and query.status in where.implied:
            found.append(where.implied[query.status])
        self._found = " and ".join(found)
        self._seen = len(self.values)
        picked = [self._is(name, value) for name in where.picked_by if (value := getattr(query, name)) is not None]
        self._picked = " and ".join(picked)

    def _place(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def _is(self, name: str, value: Any) -> str:
        if name in self._where.phones:
            return f'"{name}" = any ({self._place(list(spellings(value)))}::text[])'
        return f'"{name}" = {self._place(value)}'

    @property
    def page(self) -> str:
        """The page, and one more if there are more."""
        table = self._where.table
        columns = ", ".join(f'"{name}"' for name in self._where.columns)
        rows = f"select * from {table} where {self._found} order by id desc limit "  # noqa: S608 - names, no values
        if self._picked:
            rows = f"select * from ({rows} {LOOKED_AT}) m where {self._picked} order by id desc limit "  # noqa: S608
        return f"select {columns} from ({rows} {self._limit}) m order by id desc"  # noqa: S608

    @property
    def last(self) -> tuple[str, list[Any]] | None:
        """What tells the last row that was looked at, if more are left than a page looks at."""
        if not self._picked:
            return None
        where = f"select id from {self._where.table} where {self._found} order by id desc"  # noqa: S608
        return f"{where} offset {LOOKED_AT - 1} limit 1", self.values[: self._seen]

    async def run(self, con: Connection) -> tuple[list[Any], UUID | None]:
        """The rows of the page, and the id after which the next one goes on if there is more to look at."""
        rows = list(await con.fetch(self.page, *self.values))
        if len(rows) >= self._limit:
            return rows[:-1], rows[-2]["id"]
        if self.last is None:
            return rows, None
        statement, values = self.last
        return rows, await con.fetchval(statement, *values)
