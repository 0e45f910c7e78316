"""Keys in Redis that more than one room knows, and whose each key is."""

from __future__ import annotations

import hashlib


def hold(sender_id: object) -> str:
    """Until when a number rests."""
    return f"hold:{sender_id}"


def away(sender_id: object) -> str:
    """Where a number's gateway was looked for of late, and why nobody answered."""
    return f"away:{sender_id}"


def account(email: str) -> str:
    """What stands for somebody who logs in."""
    return hashlib.sha256(email.lower().encode()).hexdigest()[:32]


#: What comes first in a key, and which part of the key then says whose it is: a tenant's id, or the name of something
#: of a tenant's (a number, a key, a user, an account, a portfolio). What is not here is nobody's in particular.
_TENANTS = (("limit:tenant:", 2), ("limit:address:", 2), ("plan:", 1), ("users:", 1), ("pace:", 1))
_THINGS = (
    ("limit:key:", 2),
    *((f"{kind}:", 1) for kind in ("hold", "away", "rate", "in", "slow", "pair", "open")),
    ("login:known:", 2),
    ("login:", 1),
)

#: Tickets for feeds: whose one is, its value says, as JSON.
TICKET = "feed:ticket:"


def is_of(key: str, tenant: str, things: frozenset[str]) -> bool:
    """Whether a key is this tenant's, or one of the things that are called so."""
    for kinds, names in ((_TENANTS, {tenant}), (_THINGS, things)):
        place = next((place for prefix, place in kinds if key.startswith(prefix)), None)
        if place is not None:
            return key.split(":")[place] in names
    return False
