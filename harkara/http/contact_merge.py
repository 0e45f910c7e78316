"""POST /contacts/{id}/merge: two records of one person become one, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harkara.http import contacts
from harkara.http.context import Context
from harkara.http.problems import Problem, invalid, not_found
from harkara.schemas.api import ContactShown, MergeContact
from harkara.storage import merging
from harkara.storage.models import ContactMerge

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


async def merge(ctx: Context[MergeContact, None]) -> ContactShown:
    """Make another contact part of this one: its numbers, tags, messages, enrolments, leads and all else move here.

    Where both say something (name, attributes, time zone), this one's word stays. Consent is the stricter of the two:
    an opt-out of either stands, and only what both agreed to is agreed to. Of two enrolments in one campaign the one
    that has come further stays, unless the other was stopped while both ran; what waits of the one that ends is
    `suppressed`. The other's id answers 410 from then on, and says where it went.
    """
    if ctx.body.contact_id == ctx.id("contact_id"):
        raise invalid(("contact_id", "is the contact itself: name the other one"))
    async with ctx.transaction() as con:
        both = await _both(ctx, con)
        if both is not None:
            for event, name in await merging.merge(con, ctx.tenant, *both):
                await ctx.tell(con, event, name)
        return contacts.told(vars(await contacts.get(ctx)))


async def _both(ctx: Context[MergeContact, None], con: Connection) -> tuple[Any, Any] | None:
    """The two, locked: the one that is kept first; None if it is done."""
    ids = [ctx.id("contact_id"), ctx.body.contact_id]
    found = await merging.lock(con, ctx.tenant, ids)
    kept, gone = (found.get(id_) for id_ in ids)
    if kept is None:
        await contacts.get(ctx)  # says what became of it
    if gone is None:
        merged = await ContactMerge.get_or_none(id=ids[1])
        if merged is None:
            raise not_found("contact to merge")
        if merged.contact_id != ids[0]:
            detail = f"contact {ids[1]} was merged into contact {merged.contact_id}: merge that one"
            raise Problem(409, detail, extra={"contact_id": str(merged.contact_id)})
        return None
    return kept, gone
