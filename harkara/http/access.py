"""Who may use a route, as data: everybody, every account, or members with a role and keys with a scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["viewer", "agent", "admin", "owner"]

#: Roles from the least to the most; each may do all that the ones before it may.
ROLES: tuple[Role, ...] = ("viewer", "agent", "admin", "owner")

#: What a key's scopes are about: `<area>:read`, and `<area>:write`, which includes reading.
AREAS = ("tenant", "senders", "contacts", "campaigns", "messages", "conversations", "invoices", "feed", "audit")

#: The scope of a key that may do everything its tenant may.
EVERYTHING = "*"

SCOPES = frozenset({EVERYTHING, *(f"{area}:{verb}" for area in AREAS for verb in ("read", "write"))})


@dataclass(frozen=True, slots=True)
class Access:
    """A person needs at least `role`, a key needs `scope`."""

    role: Role
    scope: str


@dataclass(frozen=True, slots=True)
class Account:
    """Anybody who is logged in, even before a tenant is chosen."""


@dataclass(frozen=True, slots=True)
class Public:
    """Anybody; the handler itself knows whom it trusts.

    `otherwise` is what it asks of those who say who they are by the headers that every route takes.
    """

    otherwise: Access | Account | None = None


PUBLIC = Public()
ACCOUNT = Account()

Rule = Access | Public | Account


def reads(area: str, role: Role = "viewer") -> Access:
    """Looking at an area's things."""
    return Access(role, f"{area}:read")


def writes(area: str, role: Role = "agent") -> Access:
    """Changing an area's things."""
    return Access(role, f"{area}:write")


def role_suffices(role: Role, needed: Role) -> bool:
    """Whether a role may do what `needed` may."""
    return ROLES.index(role) >= ROLES.index(needed)


def sufficing(needed: str) -> tuple[str, ...]:
    """The scopes of an area any one of which lets a key do what `needed` names: who may write may read too."""
    area, _, verb = needed.partition(":")
    return (needed, f"{area}:write") if verb == "read" else (needed,)


def scopes_suffice(scopes: frozenset[str], needed: str) -> bool:
    """Whether a key with these scopes may do what `needed` names."""
    return EVERYTHING in scopes or not scopes.isdisjoint(sufficing(needed))
