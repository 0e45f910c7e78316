"""An opt-out in a file does what one by hand does: what runs is stopped, and whoever listens hears of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from door_client import Account, a_phone

from harkara.ids import uuid7
from harkara.storage.models import ContactCampaignProgress
from harkara.storage.storage import Storage


async def enrolled(acme: Account, storage: Storage, contact: str) -> UUID:
    """An enrolment that runs."""
    id_, campaign = uuid7(), await acme.campaign()
    async with storage.tenant(acme.tenant) as con:
        version = await con.fetchval("select version_id from campaigns where id = $1", UUID(campaign))
        now = datetime.now(UTC)
        await ContactCampaignProgress.create(
            id=id_, campaign_id=campaign, version_id=version, contact_id=contact, started_at=now,
            next_message_id=uuid7(), next_step_scheduled_at=now, next_claim_at=now + timedelta(days=1),
        )  # fmt: skip
    return id_


async def imported(acme: Account, *rows: str) -> Any:
    text = "\n".join(("name,phone,opted_out", *rows))
    headers = {"Content-Type": "text/csv"}
    answer = await acme.call("POST", "/contacts/import", data=text.encode(), headers=headers)
    assert answer.status == 200, answer.text
    assert answer.body["errors"] == []
    return answer.body


async def told(storage: Storage, acme: Account) -> list[tuple[str, Any]]:
    """What waits to be told: kind and body."""
    async with storage.tenant(acme.tenant) as con:
        rows = await con.fetch("select subject, body from outbox where subject like '%.evt.%' order by id")
    return [(row[0].rpartition(".evt.")[2], msgspec.json.decode(row[1])) for row in rows]


@pytest.mark.parametrize("by", ["import", "api"])
async def test_who_opts_out_has_stopped_campaigns_and_that_is_told(acme: Account, storage: Storage, by: str) -> None:
    phone, other = a_phone(), a_phone()
    contact, bystander = await acme.contact(phone=phone), await acme.contact(phone=other)
    mine, theirs = await enrolled(acme, storage, contact), await enrolled(acme, storage, bystander)
    if by == "import":
        await imported(acme, f"Asha,{phone},yes", f"Ravi,{other},", f"Devi,{a_phone()},no")
    else:
        await acme.call("PATCH", f"/contacts/{contact}", body={"opted_out": True})
    async with storage.tenant(acme.tenant):
        rows = {row.id: row for row in await ContactCampaignProgress.all()}
    assert (rows[mine].status, rows[mine].stopped_reason, rows[mine].next_claim_at) == ("stopped", "opt_out", None)
    assert rows[theirs].status == "active"
    [(first, out), (second, stopped)] = await told(storage, acme)
    assert (first, second) == ("contact.opted_out", "enrollment.stopped")
    assert (out["id"], out.get("category", "all"), out["source"], out["reason"]) == (contact, "all", by, by)
    assert [stopped[name] for name in ("id", "contact_id", "reason")] == [str(mine), contact, "opt_out"]


async def test_who_had_opted_out_before_and_who_is_new_is_not_told_of(acme: Account, storage: Storage) -> None:
    phone, fresh = a_phone(), a_phone()
    contact = await acme.contact(phone=phone)
    day = "2026-01-31"
    await imported(acme, f"Asha,{phone},{day}")
    assert [kind for kind, _ in await told(storage, acme)] == ["contact.opted_out"]
    answer = await imported(acme, f"Asha,{phone},{day}", f"Ravi,{fresh},yes")
    assert (answer["created"], answer["updated"]) == (1, 1)
    assert [(kind, body["id"]) for kind, body in await told(storage, acme)] == [("contact.opted_out", contact)]
