"""How many messages a month each plan includes: all of them on this page. Codes count, and are never kept back."""

from __future__ import annotations

from collections.abc import Mapping

#: By the name in `tenants.plan`; a plan that is not here has no limit. A month is one of the calendar, in UTC.
MESSAGES_A_MONTH: Mapping[str, int] = {"trial": 1_000}
