"""The layers that count: strangers by their address, everybody else by key or user, tenant and address."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiohttp import web

from harkara.http.access import Public
from harkara.http.address import client_address, customer_of
from harkara.http.asking import Questions
from harkara.http.context import Context
from harkara.http.identity import Identity
from harkara.http.limits import QUOTA, Bucket, Decision, Limits
from harkara.http.plans import ANYBODY, PLANS, STANDARD, Plan
from harkara.http.problems import Problem
from harkara.http.route import PREFIX, Route
from harkara.settings import Settings

Handler = Callable[[Context[Any, Any]], Awaitable[object]]

#: Never limited: whoever watches over us asks these, and nothing here is dear.
EXEMPT = frozenset({"/healthz", "/readyz", "/metrics"})

#: Which allowance of ANYBODY a public route's address has; the first that fits.
ALLOWANCES = ((f"{PREFIX}/webhooks/", "webhooks"), (f"{PREFIX}/auth/", "account"), ("", "other"))

#: How long a tenant's plan is believed without asking the database.
TRUSTED_FOR_S = 30.0

FIND_PLAN = """
select t.plan from unnest($1::text[]) with ordinality as i (tenant_id, place) left join tenants t on t.id = i.tenant_id
order by i.place
"""

REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class _Caller:
    """One who asks: the plan that was true when the buckets were made, and the buckets."""

    until: float
    plan: Plan
    buckets: tuple[Bucket, ...]


class Origin(NamedTuple):
    """Where a request comes from: the very address (`peer`), and what counts as one client's address."""

    peer: str
    address: str


class Counting:
    """Who is counted in which buckets."""

    def __init__(self, limits: Limits, questions: Questions, plans: Mapping[str, Plan] = PLANS) -> None:
        self.limits = limits
        self._questions, self._plans = questions, plans
        self._callers: dict[tuple[object, str, str], _Caller] = {}
        self._origins: dict[tuple[str | None, ...], Origin] = {}
        #: Requests that were refused, by the kind of the bucket that was empty.
        self.refused: dict[str, int] = {}
        self.allowed = 0

    async def buckets(self, who: Identity, address: str) -> Sequence[Bucket]:
        """Those of somebody who is known: one of the key or user, one of the tenant, one of the address in it."""
        known = self.known_buckets(who, address)
        if known is not None:
            return known
        name, now = (who.key_id or who.user_id, who.tenant, address), time.monotonic()
        caller = self._callers.get(name)
        plan = await self._plan(who.tenant, caller)
        if len(self._callers) >= REMEMBERED:
            self._callers.clear()
        buckets = caller.buckets if caller and caller.plan is plan else self._made(plan, who, address)
        self._callers[name] = _Caller(now + TRUSTED_FOR_S, plan, buckets)
        return buckets

    def known_buckets(self, who: Identity, address: str) -> Sequence[Bucket] | None:
        """The same at once, while the tenant's plan is believed; else None."""
        caller = self._callers.get((who.key_id or who.user_id, who.tenant, address))
        return None if caller is None or caller.until <= time.monotonic() else caller.buckets

    async def _plan(self, tenant: str, known: _Caller | None) -> Plan:
        """A tenant's plan; what was known last, or the standard one, if the database is away."""
        standard = self._plans[STANDARD]
        if not tenant:
            return standard
        try:
            row = await self._questions.ask(FIND_PLAN, tenant)
        except Problem:
            return known.plan if known else standard
        return self._plans.get(row["plan"] or STANDARD) or standard

    def _made(self, plan: Plan, who: Identity, address: str) -> tuple[Bucket, ...]:
        made = [self.limits.bucket("key", str(who.key_id or who.user_id), plan.key)]
        if who.tenant:
            made.append(self.limits.bucket("tenant", who.tenant, plan.tenant))
            made.append(self.limits.bucket("address", f"{who.tenant}:{address}", plan.address))
        return tuple(made)

    def stranger(self, allowance: str, address: str) -> Bucket:
        """The bucket of an address, for what it does without saying who it is."""
        return self.limits.bucket(allowance, address, ANYBODY[allowance])

    def origin(self, request: web.Request, settings: Settings) -> Origin:
        """Where a request comes from."""
        behind = request.headers.getall("X-Forwarded-For", ()) if settings.trusted_proxies else ()
        name = (request.remote, *behind)
        known = self._origins.get(name)
        if known is None:
            if len(self._origins) >= REMEMBERED:
                self._origins.clear()
            peer = client_address(request, settings)
            address = customer_of(peer)
            known = self._origins[name] = Origin(peer, address)
        return known

    def refuse(self, decision: Decision) -> Problem:
        """429: it says what is used up, and when to come back."""
        kind = decision.bucket.kind
        self.refused[kind] = self.refused.get(kind, 0) + 1
        what = _USED_UP.get(kind, "too many requests came from this address")
        return Problem(429, f"{what}: come back after the seconds that Retry-After says", headers=decision.headers())


_USED_UP = {
    "key": "this key or user makes more requests than the plan allows",
    "tenant": "this tenant makes more requests than its plan allows",
    "address": "this address makes more of this tenant's requests than the plan allows",
    "refused": "too many requests came from this address with credentials that are not good",
}


def allowance(route: Route) -> str | None:
    """By which allowance a route's strangers are counted; None for the few that are never limited."""
    if route.path in EXEMPT:
        return None
    return next(name for prefix, name in ALLOWANCES if route.path.startswith(prefix))


def limit_strangers(route: Route, inner: Handler) -> Handler:
    """Count who isn't known by the address: on public routes each request, elsewhere each that is turned away."""
    if not isinstance(route.access, Public):
        return _limit_refused(inner)
    name = allowance(route)
    if name is None:
        return inner

    async def counted(ctx: Context[Any, Any]) -> object:
        await _count(ctx, (ctx.door.counting.stranger(name, ctx.origin.address),))
        return await inner(ctx)

    return counted


def _limit_refused(inner: Handler) -> Handler:
    """An address that was turned away too often is not even asked who it is, because finding out costs a question."""

    async def counted(ctx: Context[Any, Any]) -> object:
        bucket = ctx.door.counting.stranger("refused", ctx.origin.address)
        if bucket.empty_until and (wait := ctx.door.counting.limits.known_empty_for(bucket)):
            raise ctx.door.counting.refuse(Decision(bucket, 0, wait))
        try:
            return await inner(ctx)
        except Problem as problem:
            if problem.status < 500 and QUOTA not in ctx.request:  # refused before anybody was counted
                await _count(ctx, (bucket,))
            raise

    return counted


def limit(route: Route, inner: Handler) -> Handler:
    """Count who is known; 429 if the key or user, the tenant, or the address has used up what the plan allows."""
    if isinstance(route.access, Public):
        return inner

    def counted(ctx: Context[Any, Any]) -> Awaitable[object]:
        counting = ctx.door.counting
        buckets = counting.known_buckets(ctx.who, ctx.origin.address)
        decision = None if buckets is None else counting.limits.take_held(buckets)
        if decision is None:
            return asked(ctx)
        counting.allowed += 1
        ctx.request[QUOTA] = decision
        return inner(ctx)

    async def asked(ctx: Context[Any, Any]) -> object:
        await _count(ctx, await ctx.door.counting.buckets(ctx.who, ctx.origin.address))
        return await inner(ctx)

    return counted


async def _count(ctx: Context[Any, Any], buckets: Sequence[Bucket]) -> None:
    counting = ctx.door.counting
    decision = counting.limits.take_held(buckets) or await counting.limits.take(buckets)
    if decision.wait_s:
        raise counting.refuse(decision)
    counting.allowed += 1
    ctx.request[QUOTA] = decision
