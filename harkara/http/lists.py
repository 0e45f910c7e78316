"""Lists: newest first, page by page, with an opaque cursor that stays true while things are added."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from tortoise.expressions import Subquery
from tortoise.models import Model
from tortoise.queryset import QuerySet

from harkara.http.checks import Faults
from harkara.http.problems import invalid
from harkara.schemas.api import Dated, Page, Paging

T = TypeVar("T")
M = TypeVar("M", bound=Model)

#: Rows looked at for one page at most: a page of what is rare is as quick as any other, and may be short.
LOOKED_AT = 10_000

#: Less and greater than every id, so that a first page needs no query of its own.
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)


def before(query: Paging) -> UUID:
    """Items of this page have a smaller id. Raises Problem 422 if the cursor is none of ours."""
    return LAST if query.cursor is None else place_of(query.cursor)


def span(query: Dated) -> tuple[UUID, UUID]:
    """Items of this page have the first id or a greater one, and a smaller one than the second.

    Raises Problem 422 if the cursor is none of ours, or a time is none in UTC's calendar.
    """
    faults = Faults()
    least = FIRST if query.since is None else floor(faults.instant("since", query.since))
    most = LAST if query.until is None else floor(faults.instant("until", query.until))
    faults.refuse()
    return least, min(before(query), most)


def floor(at: datetime) -> UUID:
    """Less than every id of this instant and later ones."""
    return UUID(int=max(int(at.timestamp() * 1000), 0) << 80)


def place_of(text: str) -> UUID:
    """The id after which a cursor continues. Raises Problem 422 if it is none of ours."""
    try:
        return UUID(bytes=base64.urlsafe_b64decode(text + "=="))
    except (ValueError, binascii.Error):
        raise invalid(("cursor", "is not a cursor: give `next` of the page before, unchanged")) from None


def newest(rows: QuerySet[M], tenant: str, query: Paging) -> QuerySet[M]:
    """The rows of a page, and one more if there are more.

    Names the tenant although row-level security does too: only an equality lets an index give the order.
    """
    rows, least, most = rows.filter(tenant_id=tenant), FIRST, before(query)
    if isinstance(query, Dated):
        least, most = span(query)
    if least != FIRST:
        rows = rows.filter(id__gte=least)
    return rows.filter(id__lt=most).order_by("-id").limit(query.limit + 1)


def given(query: Paging, names: Iterable[str]) -> dict[str, Any]:
    """Those of these filters that are asked for."""
    return {name: value for name in names if (value := getattr(query, name)) is not None}


async def picked(
    rows: QuerySet[M], tenant: str, query: Paging, wanted: Mapping[str, object]
) -> tuple[list[M], UUID | None]:
    """The rows of a page that are as `wanted` (what is None is not asked for), and after which the next one goes on.

    Filters that an index serves together with the order belong to `rows`; these pick among so many that are looked at.
    """
    found, wanted = newest(rows, tenant, query), {name: value for name, value in wanted.items() if value is not None}
    seen = found.limit(LOOKED_AT)
    if wanted:
        found = found.model.filter(id__in=Subquery(seen.values("id")), **wanted).order_by("-id").limit(query.limit + 1)
    there = await found
    if len(there) > query.limit:
        return there[: query.limit], there[query.limit - 1].pk
    last: list[Any] = await seen.offset(LOOKED_AT - 1).limit(1).values_list("id", flat=True) if wanted else []
    return there, last[0] if last else None


def listed(items: Sequence[T], last: UUID | None) -> Page[T]:
    """A page of these items, which goes on after `last`."""
    return Page(items=list(items), next=None if last is None else cursor(last))


def page(items: Sequence[T], query: Paging) -> Page[T]:
    """A page of at most `limit` items, made from one item more than that if there are so many."""
    shown: list[T] = list(items[: query.limit])
    more: Any = shown[-1] if len(items) > query.limit else None
    return Page(items=shown, next=None if more is None else cursor(more.id))


def cursor(id_: UUID) -> str:
    """The cursor that continues after this id."""
    return base64.urlsafe_b64encode(id_.bytes).decode().rstrip("=")
