"""Lists: newest first, page by page, with an opaque cursor that stays true while things are added."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from tortoise.models import Model
from tortoise.queryset import QuerySet

from harkara.http.problems import invalid
from harkara.schemas.api import Page, Paging

T = TypeVar("T")
M = TypeVar("M", bound=Model)

#: Greater than every id, so that a first page needs no query of its own.
LAST = UUID(int=2**128 - 1)


def before(query: Paging) -> UUID:
    """Items of this page have a smaller id. Raises Problem 422 if the cursor is none of ours."""
    return LAST if query.cursor is None else place_of(query.cursor)


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
    return rows.filter(tenant_id=tenant, id__lt=before(query)).order_by("-id").limit(query.limit + 1)


def page(items: Sequence[T], query: Paging) -> Page[T]:
    """A page of at most `limit` items, made from one item more than that if there are so many."""
    shown: list[T] = list(items[: query.limit])
    more: Any = shown[-1] if len(items) > query.limit else None
    return Page(items=shown, next=None if more is None else cursor(more.id))


def cursor(id_: UUID) -> str:
    """The cursor that continues after this id."""
    return base64.urlsafe_b64encode(id_.bytes).decode().rstrip("=")
