"""Finding contacts: pages by what they have, each as quick as any other however many contacts there are.

Row-level security lets indexes serve only `=` and `<` of plain columns, so what a contact is found by lies in rows of
its own, its terms (storage/migrations/0005_contacts.py). A page looks at a bounded number of contacts: the newest that
have the rarest kind of term that is asked for. All other filters pick among those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.http.checks import Faults
from harkara.http.lists import LAST, floor, place_of
from harkara.schemas.api import ContactFilter, ContactQuery
from harkara.values import spellings

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Contacts looked at for one page at most: a page of what is rare is as quick as any other, and may be short.
LOOKED_AT = 10_000

#: What no more contacts than this have is rare: of others nothing more needs to be known.
FEW = 200

#: Words of a text that are looked for; more would find no fewer.
WORDS = 5

#: Greater than every character, so that a range ends after all that begin with a text.
END = "\U0010ffff"

#: Digits, and what people put between them.
_PHONE = re.compile(r"^\+?[\d\s()./-]{3,}\Z")

COLUMNS = (
    "id, name, phone, wa_user_id, locale, timezone, attributes, tags, opted_in_at, consent_source, consent_categories,"
    " opted_out_at, opted_out_reason, opt_outs, marketing_rests_until, created_at, updated_at"
)

#: What few contacts have, each with an index of its own: opted out, and no consent.
RARE = (" and opted_out_at is not null", " and opted_in_at is null")

#: Terms that begin with one of these, in small letters without accents as the database has them.
_RANGE = "(t.term >= app.folded({0}::text) and t.term < app.folded({0}::text) || {1})"


@dataclass(slots=True)
class Found:
    """A page, and after which contact the next one goes on, if there is more."""

    rows: list[Any]
    after: UUID | None


@dataclass(slots=True)
class _Statement:
    """SQL with the values of its places."""

    values: list[Any] = field(default_factory=list[Any])

    def place(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


class Search:
    """What is asked for, checked. Raises Problem 422 if it can't be."""

    def __init__(self, tenant: str, filter_: ContactFilter, region: str | None) -> None:
        faults = Faults()
        self._tenant, self._filter = tenant, filter_
        #: A number that they must have, in any spelling: hardly more than one has.
        self._phone = None if filter_.phone is None else faults.phone("phone", filter_.phone, region)
        #: Terms that a contact must have.
        self._terms: list[str] = []
        self._terms += [_attribute(text, faults) for text in filter_.attribute]
        self._terms += [f"tag:{tag}" for tag in filter_.tag]
        self._since = None if filter_.since is None else floor(faults.instant("since", filter_.since))
        self._until = LAST if filter_.until is None else floor(faults.instant("until", filter_.until))
        #: What terms must begin with: of each, one of them.
        self._prefixes = _prefixes(filter_.q or "")
        faults.refuse()

    async def page(self, con: Connection, query: ContactQuery) -> Found:
        """The contacts before the cursor, newest first."""
        return await self.read(con, LAST if query.cursor is None else place_of(query.cursor), query.limit)

    async def read(self, con: Connection, first: UUID, most: int) -> Found:
        """At most so many contacts with ids below `first`, newest first."""
        prefix = await self._rarest(con)
        plan = _Statement()
        source, bounded = self._source(plan, first, prefix)
        others = self._others(plan, prefix)
        if not others and bounded:
            source, bounded = f"{source} limit {most + 1}", False
        elif bounded:
            source = f"{source} limit {LOOKED_AT}"
        where = f" where {' and '.join(others)}" if others else ""
        among = f"({source}) c" if self._scans(prefix) else f"({source}) s join contacts c on c.id = s.id"
        order = "c.id" if self._scans(prefix) else "s.id"
        rows = await con.fetch(
            f"select {COLUMNS} from (select c.* from {among}{where}"  # noqa: S608
            f" order by {order} desc limit {most + 1}) c order by id desc",
            *plan.values,
        )
        if len(rows) > most:
            return Found(rows[:most], rows[most - 1]["id"])
        if not bounded:
            return Found(rows, None)
        plan = _Statement()
        source, _ = self._source(plan, first, prefix)
        statement = f"select id from ({source} limit {LOOKED_AT}) s offset {LOOKED_AT - 1}"  # noqa: S608
        return Found(rows, await con.fetchval(statement, *plan.values))

    def _scans(self, prefix: int | None) -> bool:
        """Whether nothing is asked for that contacts are found by: then the newest of all are looked at."""
        return not self._terms and prefix is None and self._phone is None

    async def _rarest(self, con: Connection) -> int | None:
        """Put the term first that the fewest contacts have.

        Returns which prefix even fewer have, so few that all of them can be looked at; None if there is none.
        """
        if self._phone is not None:
            return None
        if len(self._terms) > 1 or (self._terms and self._prefixes):
            fewest = await self._sort(con)
        else:
            fewest = 0 if self._terms else LOOKED_AT + 1
        if not self._prefixes or fewest == 0:
            return None
        counts = [await self._count(con, "", fewest, *alternatives) for alternatives in self._prefixes]
        return counts.index(min(counts)) if min(counts) < fewest else None

    async def _sort(self, con: Connection) -> int:
        """Put the term first that the fewest contacts have; how many those are, as far as it matters.

        A rare one is found without counting the common ones to the end.
        """
        of = dict[str, int]()
        for most in (FEW, LOOKED_AT + 1):
            of = {term: await self._count(con, "t.term = {}", most, term) for term in self._terms}
            if min(of.values()) < most:
                break
        self._terms.sort(key=of.__getitem__)
        return min(LOOKED_AT + 1, of[self._terms[0]])

    async def _count(self, con: Connection, condition: str, most: int, *terms: str) -> int:
        """How many terms there are like one of these, each up to so many.

        In the order of the index: else a plan would rather read the whole table until it has seen enough of them.
        """
        found = 0
        for term in terms:
            plan = _Statement()
            of = f"t.tenant_id = {plan.place(self._tenant)}"
            like = condition.format(plan.place(term)) if condition else self._any_of(plan, [term])
            ordered = f"where {of} and {like} order by t.tenant_id, t.term, t.contact_id limit {most}"
            inner = f"select 1 from contact_terms t {ordered}"  # noqa: S608
            found += await con.fetchval(f"select count(*) from ({inner}) t", *plan.values)  # noqa: S608
        return found

    def _source(self, plan: _Statement, first: UUID, prefix: int | None) -> tuple[str, bool]:
        """The ids, or the contacts, among which to look, newest first; and whether there may be more than may be."""
        tenant, filter_ = self._tenant, self._filter
        if self._phone is not None or prefix is not None:
            if prefix is None:
                having = f"app.line({plan.place(tenant)}, {plan.place(self._phone)}) t"
            else:
                having = f"contact_terms t where {self._ranges(plan, self._prefixes[prefix])}"
            ids = f"select distinct t.contact_id as id from {having}"  # noqa: S608
            span = self._between(plan, "id", first)
            return f"select id from ({ids}) t where {span} order by id desc", False  # noqa: S608
        if self._terms:
            has = f"tenant_id = {plan.place(tenant)} and term = {plan.place(self._terms[0])}"
            span = self._between(plan, "contact_id", first)
            return f"select contact_id as id from contact_terms where {has} and {span} order by contact_id desc", True  # noqa: S608
        of = f"tenant_id = {plan.place(tenant)} and {self._between(plan, 'id', first)}"
        rare = RARE[0] if filter_.opted_out else RARE[1] if filter_.consent is False else ""
        return f"select {COLUMNS} from contacts where {of}{rare} order by id desc", True  # noqa: S608

    def _others(self, plan: _Statement, prefix: int | None) -> list[str]:
        """The conditions that the source leaves."""
        filter_ = self._filter
        terms = self._terms[1:] if prefix is None and self._phone is None else self._terms
        found = [self._has(plan, f"t.term = {plan.place(term)}") for term in terms]
        # A value is cut where terms are: that it is the very one, the contact itself must say.
        found += [_exactly(plan, text) for text in filter_.attribute if len(text.partition(":")[2]) > VALUE]
        found += [
            self._has(plan, self._any_of(plan, alternatives))
            for place, alternatives in enumerate(self._prefixes)
            if place != prefix
        ]
        rare = self._scans(prefix)
        if filter_.consent is not None and not (rare and not filter_.consent and not filter_.opted_out):
            found.append(f"c.opted_in_at is {'not null' if filter_.consent else 'null'}")
        if filter_.opted_out is not None and not (rare and filter_.opted_out):
            found.append(f"c.opted_out_at is {'not null' if filter_.opted_out else 'null'}")
        return found

    def _between(self, plan: _Statement, column: str, first: UUID) -> str:
        least = "" if self._since is None else f" and {column} >= {plan.place(self._since)}"
        return f"{column} < {plan.place(min(first, self._until))}{least}"

    def _has(self, plan: _Statement, condition: str) -> str:
        """Whether a contact has a term, looked up for each that is looked at.

        `offset 0` keeps it from becoming a join, which would read all that have a common term to find the few.
        """
        of = f"t.tenant_id = {plan.place(self._tenant)} and t.contact_id = c.id"
        return f"exists (select from contact_terms t where {of} and {condition} offset 0)"

    def _ranges(self, plan: _Statement, alternatives: list[str]) -> str:
        return f"t.tenant_id = {plan.place(self._tenant)} and {self._any_of(plan, alternatives)}"

    def _any_of(self, plan: _Statement, alternatives: list[str]) -> str:
        end = plan.place(END)
        return f"({' or '.join(_RANGE.format(plan.place(one), end) for one in alternatives)})"


#: Characters of a value that its term has.
VALUE = 200


def _attribute(text: str, faults: Faults) -> str:
    name, colon, value = text.partition(":")
    if not colon or not name:
        faults.add("attribute", "must be a name and a value, such as city:Pune")
    return f"attribute:{name[:64]}\x1f{value[:VALUE]}"


def _exactly(plan: _Statement, text: str) -> str:
    name, _, value = text.partition(":")
    return f"c.attributes ->> {plan.place(name)} = {plan.place(value)}"


def _prefixes(text: str) -> list[list[str]]:
    """What a text stands for: each of its words begins a word of the name, or it begins or ends a phone number."""
    if _PHONE.match(text.strip()):
        digits = re.sub(r"\D", "", text)
        numbers = [f"phone:{one.removeprefix('+')}" for one in spellings(f"+{digits}")]
        return [[f"word:{text.strip()[:64]}", *numbers, f"enohp:{digits.lstrip('0')[::-1]}"]]
    return [[f"word:{word[:64]}"] for word in dict.fromkeys(text.split()[:WORDS])]
