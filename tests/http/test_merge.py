"""Two records of one person become one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from door_client import Account, a_phone
from support import an_invoice

from harkara.ids import uuid7
from harkara.storage.models import ContactCampaignProgress, Conversation, ConversationNote, Media, Message, Reply
from harkara.storage.storage import Storage

NOW = datetime.now(UTC)


async def merged(acme: Account, kept: str, gone: str, status: int = 200) -> Any:
    return await acme.post(f"/contacts/{kept}/merge", {"contact_id": gone}, status)


async def talk(storage: Storage, tenant: str, contact: str, sender: str, text: str) -> UUID:
    """A conversation with one reply."""
    made = uuid7()
    async with storage.tenant(tenant):
        await Conversation.create(id=made, contact_id=contact, sender_id=sender)
        await Reply.create(
            conversation_id=made, contact_id=contact, sender_id=sender, wamid="w", type="text", text=text, payload={},
            received_at=NOW,
        )  # fmt: skip
    return made


@pytest.mark.parametrize("both_talk", [False, True])
async def test_files_and_remarks_stay_with_what_they_belong_to(
    acme: Account, storage: Storage, *, both_talk: bool
) -> None:
    kept, gone, sender = await acme.contact(), await acme.contact(), await acme.sender()
    stays = await talk(storage, acme.tenant, gone, sender, "Look")
    if both_talk:
        stays, joined = await talk(storage, acme.tenant, kept, sender, "Hello"), stays
    async with storage.tenant(acme.tenant):
        reply = await Reply.get(text="Look")
        note = await ConversationNote.create(
            conversation_id=joined if both_talk else stays, contact_id=gone, text="Likes mangoes"
        )
        file = await Media.create(reply_id=reply.id, contact_id=gone, gateway_id="1")
    await merged(acme, kept, gone)
    async with storage.tenant(acme.tenant):
        await note.refresh_from_db()
        await file.refresh_from_db()
    assert (note.conversation_id, str(note.contact_id), str(file.contact_id)) == (stays, kept, kept)


async def enrolled(
    storage: Storage,
    tenant: str,
    contact: str,
    campaign: dict[str, Any],
    step: int = 0,
    status: str = "active",
    run: int = 1,
) -> UUID:
    """An enrolment that waits for a message, due in an hour and claimed for a day."""
    made = uuid7()
    async with storage.tenant(tenant) as con:
        version = await con.fetchval("select version_id from campaigns where id = $1", UUID(campaign["id"]))
        await ContactCampaignProgress.create(
            id=made, campaign_id=campaign["id"], version_id=version, contact_id=contact, status=status,
            current_step=step, run=run, started_at=NOW, next_message_id=uuid7(),
            next_step_scheduled_at=NOW + timedelta(hours=1), next_claim_at=NOW + timedelta(days=1),
        )  # fmt: skip
    return made


async def test_everything_moves_and_nothing_is_lost(acme: Account, storage: Storage) -> None:
    mine, theirs, further = a_phone(), a_phone(), a_phone()
    kept = await acme.contact(name="Asha", phone=mine, tags=["a", "b"], attributes={"city": "Pune", "x": 1})
    gone = await acme.contact(
        name="A. Rao", phone=theirs, tags=["b", "c"], locale="hi", attributes={"city": "Goa", "y": True}
    )
    await acme.post(f"/contacts/{gone}/phone-numbers", {"phone": further})
    lead = (await acme.post("/leads", {"contact_id": gone}))["id"]
    invoice = (await acme.post("/invoices", an_invoice(gone)))["id"]
    both, only = await acme.sender(), await acme.sender()
    conversations = [
        await talk(storage, acme.tenant, *one)
        for one in ((kept, both, "one"), (gone, both, "two"), (gone, only, "three"))
    ]
    message = uuid7()
    async with storage.tenant(acme.tenant):
        await Message.create(
            id=message, contact_id=gone, sender_id=both, lane="utility", to=theirs, content={}, status="sent",
            due_at=NOW,
        )  # fmt: skip
    answer = await merged(acme, kept, gone)
    assert answer == await acme.get(f"/contacts/{kept}")
    assert (answer["name"], answer["phone"], answer["locale"]) == ("Asha", mine, "hi")
    assert answer["tags"] == ["a", "b", "c"]
    assert answer["attributes"] == {"city": "Pune", "x": 1, "y": True}
    numbers = [one["phone"] for one in (await acme.get(f"/contacts/{kept}/phone-numbers"))["items"]]
    assert sorted(numbers) == sorted([theirs, further])
    assert (await acme.get(f"/leads/{lead}"))["contact_id"] == kept
    assert (await acme.get(f"/invoices/{invoice}"))["contact_id"] == kept
    assert (await acme.get(f"/messages/{message}"))["contact_id"] == kept
    replies = (await acme.get(f"/replies?contact_id={kept}"))["items"]
    assert sorted(one["text"] for one in replies) == ["one", "three", "two"]
    assert {one["conversation_id"] for one in replies} == {str(conversations[0]), str(conversations[2])}
    assert len((await acme.get("/conversations"))["items"]) == 2
    for term in (f"phone=%2B{theirs[1:]}", "tag=c", "attribute=y:true"):
        assert [one["id"] for one in (await acme.get(f"/contacts?{term}"))["items"]] == [kept]
    problem = (await acme.call("GET", f"/contacts/{gone}")).is_problem(410)
    assert problem.body["contact_id"] == kept
    assert problem.headers["Location"] == f"/api/v1/contacts/{kept}"
    assert await merged(acme, kept, gone) == answer
    async with storage.tenant(acme.tenant) as con:
        told = await con.fetchval("select body from outbox where subject like '%.contact.merged'")
        noted = await con.fetch("select action from audit_log where entity_id = $1", gone)
    assert told == f'{{"id":"{kept}","merged_id":"{gone}"}}'
    assert "delete" in {row["action"] for row in noted}


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (True, True, []),
        (None, True, None),
        (True, None, None),
        ({"source": "a", "categories": ["marketing", "otp"]}, True, ["marketing", "otp"]),
        (True, {"source": "a", "categories": ["utility"]}, ["utility"]),
        ({"source": "a", "categories": ["marketing", "otp"]}, {"source": "b", "categories": ["otp"]}, ["otp"]),
        ({"source": "a", "categories": ["marketing"]}, {"source": "b", "categories": ["otp"]}, None),
    ],
)
async def test_consent_is_what_both_agreed_to(acme: Account, mine: Any, theirs: Any, expected: Any) -> None:
    kept, gone = await acme.contact(consent=mine), await acme.contact(consent=theirs)
    consent = (await merged(acme, kept, gone))["consent"]
    assert (consent and consent["categories"]) == expected


@pytest.mark.parametrize("who", ["kept", "gone"])
async def test_an_opt_out_of_either_stands_and_stops_what_runs(acme: Account, storage: Storage, who: str) -> None:
    kept, gone = await acme.contact(), await acme.contact()
    campaign = await acme.get(f"/campaigns/{await acme.campaign()}")
    await acme.call("PATCH", f"/contacts/{kept if who == 'kept' else gone}", body={"opted_out": True})
    id_ = await enrolled(storage, acme.tenant, gone if who == "kept" else kept, campaign)
    assert (await merged(acme, kept, gone))["opted_out_reason"] == "api"
    async with storage.tenant(acme.tenant):
        row = await ContactCampaignProgress.get(id=id_)
    assert (str(row.contact_id), row.status, row.stopped_reason) == (kept, "stopped", "opt_out")


@pytest.mark.parametrize(("mine", "theirs", "stays"), [(2, 1, "mine"), (1, 2, "theirs"), (1, 1, "mine")])
async def test_of_two_enrolments_in_one_campaign_the_further_one_stays(
    acme: Account, storage: Storage, mine: int, theirs: int, stays: str
) -> None:
    kept, gone = await acme.contact(), await acme.contact()
    campaign = await acme.get(f"/campaigns/{await acme.campaign()}")
    ids = {
        "mine": await enrolled(storage, acme.tenant, kept, campaign, mine),
        "theirs": await enrolled(storage, acme.tenant, gone, campaign, theirs),
    }
    await merged(acme, kept, gone)
    async with storage.tenant(acme.tenant) as con:
        [row] = await ContactCampaignProgress.all()
        told = await con.fetchval("select body from outbox where subject like '%.enrollment.stopped'")
    assert (row.id, str(row.contact_id), row.status) == (ids[stays], kept, "active")
    assert str(ids["theirs" if stays == "mine" else "mine"]) in told


@pytest.mark.parametrize("status", ["active", "paused"])
@pytest.mark.parametrize("deferred", [True, False])
async def test_what_waits_of_the_enrolment_that_ends_does_not_leave_and_is_told(
    acme: Account, storage: Storage, status: str, *, deferred: bool
) -> None:
    kept, gone = await acme.contact(), await acme.contact()
    campaign = await acme.get(f"/campaigns/{await acme.campaign()}")
    stays, ends = [
        await enrolled(storage, acme.tenant, contact, campaign, step, status)
        for contact, step in ((kept, 2), (gone, 1))
    ]
    until = NOW + timedelta(hours=1) if deferred else None
    async with storage.tenant(acme.tenant):
        rows = {row.id: row for row in await ContactCampaignProgress.all()}
        for row in rows.values():
            await Message.create(
                id=row.next_message_id, contact_id=row.contact_id, sender_id=campaign["sender_id"], lane="marketing",
                to="+919876543210", content={}, status="queued", reason="quiet_hours", due_at=NOW, deferred_until=until,
                enrollment_id=row.id, campaign_id=campaign["id"], step=row.current_step,
            )  # fmt: skip
        await ContactCampaignProgress.all().update(deferred_until=until)
    await merged(acme, kept, gone)
    async with storage.tenant(acme.tenant) as con:
        messages = {row.enrollment_id: row for row in await Message.all()}
        told = await con.fetch("select body::jsonb ->> 'id', body::jsonb ->> 'reason' from outbox order by id")
    assert (messages[stays].status, messages[stays].reason) == ("queued", "quiet_hours")
    ended = messages[ends]
    assert (ended.status, ended.reason, ended.deferred_until) == ("suppressed", "enrollment_stopped", None)
    assert [tuple(row) for row in told[:2]] == [(str(ends), "merged"), (str(ended.id), "enrollment_stopped")]


@pytest.mark.parametrize("who", ["kept", "gone"])
@pytest.mark.parametrize(
    ("reason", "after", "stands"), [("reply", 1, True), ("reply", -1, False), ("invoice_paid", 1, False)]
)
async def test_a_stop_of_either_while_both_ran_stands(
    acme: Account, storage: Storage, who: str, reason: str, after: int, *, stands: bool
) -> None:
    kept, gone = await acme.contact(), await acme.contact()
    campaign = await acme.get(f"/campaigns/{await acme.campaign()}")
    said, other = (kept, gone) if who == "kept" else (gone, kept)
    stopped = await enrolled(storage, acme.tenant, said, campaign, 1, "stopped")
    runs = await enrolled(storage, acme.tenant, other, campaign, 2)
    async with storage.tenant(acme.tenant):
        await ContactCampaignProgress.filter(id=stopped).update(
            stopped_reason=reason, started_at=NOW - timedelta(days=2), finished_at=NOW + timedelta(minutes=after)
        )
    await merged(acme, kept, gone)
    async with storage.tenant(acme.tenant):
        [row] = await ContactCampaignProgress.all()
    assert (row.id, str(row.contact_id)) == (stopped if stands else runs, kept)


async def test_runs_that_are_over_stay_and_the_one_that_goes_on_is_the_last(acme: Account, storage: Storage) -> None:
    kept, gone = await acme.contact(), await acme.contact()
    campaign = await acme.get(f"/campaigns/{await acme.campaign()}")
    over = {await enrolled(storage, acme.tenant, kept, campaign, 3, "completed", run) for run in (1, 2)}
    over.add(await enrolled(storage, acme.tenant, gone, campaign, 3, "completed", 1))
    goes_on = await enrolled(storage, acme.tenant, kept, campaign, 2, run=3)
    overtaken = await enrolled(storage, acme.tenant, gone, campaign, 1, run=2)
    await merged(acme, kept, gone)
    async with storage.tenant(acme.tenant):
        rows = await ContactCampaignProgress.all().order_by("run")
    assert [row.run for row in rows] == [1, 2, 3, 4]
    assert {row.id for row in rows} == over | {goes_on}
    assert (rows[-1].id, rows[-1].status) == (goes_on, "active")
    assert overtaken not in {row.id for row in rows}


async def test_a_message_that_waits_for_the_other_is_claimed_anew_unless_it_is_in_the_air(
    acme: Account, storage: Storage
) -> None:
    kept, gone = await acme.contact(), await acme.contact()
    waits, flies = [await acme.get(f"/campaigns/{await acme.campaign()}") for _ in range(2)]
    ids = [await enrolled(storage, acme.tenant, gone, campaign) for campaign in (waits, flies)]
    async with storage.tenant(acme.tenant):
        before = [await ContactCampaignProgress.get(id=id_) for id_ in ids]
        await Message.create(
            id=before[1].next_message_id, contact_id=gone, sender_id=flies["sender_id"], lane="marketing",
            to="+919876543210", content={}, status="sending", due_at=NOW,
        )  # fmt: skip
    await merged(acme, kept, gone)
    async with storage.tenant(acme.tenant):
        after = [await ContactCampaignProgress.get(id=id_) for id_ in ids]
    assert after[0].next_message_id != before[0].next_message_id
    assert after[0].next_claim_at == before[0].next_step_scheduled_at
    assert after[1].next_message_id == before[1].next_message_id
    assert {str(row.contact_id) for row in after} == {kept}


async def test_what_cannot_be_merged_is_refused(acme: Account, other: Account) -> None:
    mine, theirs = await acme.contact(), await other.contact()
    assert (
        "contact_id"
        in (await acme.call("POST", f"/contacts/{mine}/merge", body={"contact_id": mine})).is_problem(422).faults()
    )
    for kept, gone in ((mine, theirs), (theirs, mine), (mine, str(uuid4()))):
        (await acme.call("POST", f"/contacts/{kept}/merge", body={"contact_id": gone})).is_problem(404)
    assert (await other.get(f"/contacts/{theirs}"))["id"] == theirs


async def test_merges_in_both_directions_at_once_leave_one_contact(acme: Account) -> None:
    one, two = await acme.contact(tags=["one"]), await acme.contact(tags=["two"])
    answers = await asyncio.gather(
        acme.call("POST", f"/contacts/{one}/merge", body={"contact_id": two}),
        acme.call("POST", f"/contacts/{two}/merge", body={"contact_id": one}),
    )
    assert sorted(answer.status for answer in answers) == [200, 410]
    [left] = (await acme.get("/contacts"))["items"]
    assert sorted(left["tags"]) == ["one", "two"]


async def test_a_merged_contact_that_is_merged_again_still_says_where_it_is(acme: Account) -> None:
    first, second, third = [await acme.contact() for _ in range(3)]
    await merged(acme, second, first)
    await merged(acme, third, second)
    for gone in (first, second):
        assert (await acme.call("GET", f"/contacts/{gone}")).is_problem(410).body["contact_id"] == third
