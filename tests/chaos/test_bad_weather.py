"""A gateway that refuses, breaks off, forgets and repeats itself."""

from __future__ import annotations

from typing import Any

import pytest
from chaos.books import begin
from chaos.harness import Platform
from support import Tell

CONTACTS = 600
MPS = 200


@pytest.mark.timeout(600)
async def test_every_step_is_sent_at_most_once_and_every_fate_is_known(
    standing: Platform, weather: list[dict[str, Any]], tell: Tell
) -> None:
    campaign = await begin(standing, CONTACTS, mps=MPS)
    campaign.lost = frozenset({"sent", "read"})
    await standing.gateway.put("faults", weather)
    await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
    books = await campaign.until_closed(150)
    struck = await standing.gateway.get("faults")
    await standing.gateway.put("faults", [])
    tell(f"{books.line()}; faults: " + ", ".join(f"{one['kind']} {one.get('fired', 0)}" for one in struck["faults"]))
    campaign.check(books)
