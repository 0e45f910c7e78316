"""How many requests each plan allows, and how many those may make who are not known yet: all limits on this page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests a second in the long run, and so many at once after a quiet time."""

    per_s: float
    burst: int

    @property
    def window_s(self) -> int:
        """After how many quiet seconds the whole burst is there again."""
        return ceil(self.burst / self.per_s)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one key or user, the whole tenant, and one address of the tenant's may do."""

    key: Limit
    tenant: Limit
    address: Limit


#: The plan of a tenant whose plan is not on this page.
STANDARD = "standard"

#: By the name in `tenants.plan`.
PLANS: Mapping[str, Plan] = {
    "trial": Plan(key=Limit(20, 100), tenant=Limit(50, 200), address=Limit(50, 200)),
    STANDARD: Plan(key=Limit(500, 2_000), tenant=Limit(1_000, 4_000), address=Limit(1_000, 4_000)),
    "scale": Plan(key=Limit(10_000, 20_000), tenant=Limit(20_000, 40_000), address=Limit(20_000, 40_000)),
}

#: What an address may do before it is known who asks. Gateways report about three times what is sent through them,
#: from few addresses; a request with credentials that are not good costs the database a question.
ANYBODY: Mapping[str, Limit] = {
    "webhooks": Limit(6_000, 12_000),
    "account": Limit(50, 1_000),
    "refused": Limit(100, 2_000),
    "other": Limit(1_000, 10_000),
}
