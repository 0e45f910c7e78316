"""The demo itself: what a newcomer would do by hand, through the front door, and what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Console

from harkara.demo import report
from harkara.demo.books import Books
from harkara.demo.client import Accepted, Client, Event, Refused
from harkara.demo.errors import DemoError
from harkara.demo.progress import Progress
from harkara.demo.screen import screen
from harkara.demo.script import ANSWERS, CAMPAIGN, HOLE, MENDED, SHOWN, STEPS, Answer, asking
from harkara.schemas.api import (
    ApiKeyMade,
    BulkAccepted,
    CampaignShown,
    ContactShown,
    EnrollmentShown,
    Funnel,
    Imported,
    MessageShown,
    Page,
    ReplyShown,
    SenderMade,
    StepShown,
    TokenPair,
)

TENANT = {"id": "harkara-tea", "name": "Harkara Tea"}
EMAIL = "owner@harkara-tea.example"

#: When nothing at all has happened for this long, beyond what the steps are apart, something is wrong.
SILENCE_S = 20.0

#: How long the last reports of the phones may take beyond the phones' own pace.
LATE_S = 10.0

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is set up for the campaign."""

    sender: SenderMade
    campaign: CampaignShown
    contacts: list[ContactShown]


@dataclass(slots=True)
class Story:
    """One run of the demo on a running platform."""

    client: Client
    console: Console
    speed: float
    password: str
    csv: bytes
    #: What took how many seconds, in order.
    spent: dict[str, float] = field(default_factory=dict[str, float])

    async def tell(self) -> list[str]:
        """Run it all and show it. Returns what fell short, a line each."""
        with self._timed("sign-up, sender, import, campaign"):
            stage = await self._set_up()
        progress = Progress(len(STEPS), self.speed)
        with self._timed("the campaign, to its last receipt"):
            await self._run(stage, progress)
        with self._timed("books and timeline"):
            books = await self._close_books(stage)
            await self._show_one(stage)
        self.console.print(report.funnel(await self._funnel(stage)))
        self.console.print(report.books(books))
        self.console.print(report.lateness(books.messages, books.accepted, stage.sender.mps))
        return books.shortfalls()

    @contextmanager
    def _timed(self, what: str) -> Generator[None]:
        begun = time.monotonic()
        yield
        self.spent[what] = time.monotonic() - begun

    # -- setting up ----------------------------------------------------------------------------------------------

    async def _set_up(self) -> Stage:
        client = self.client
        signup = {"tenant": TENANT, "email": EMAIL, "password": self.password}
        client.use_token((await client.post("/auth/signup", TokenPair, signup)).access_token)
        client.use_key((await client.post("/api-keys", ApiKeyMade, {"name": "demo"})).key)
        sender = await client.post("/senders", SenderMade, {"name": "Tea desk", "provider": "sandbox"})
        self.console.print(report.told("tenant, API key and WhatsApp sender made", f"{TENANT['id']}, {sender.mps}/s"))
        imported = await client.post("/contacts/import", Imported, self.csv)
        self.console.print(report.imported(imported))
        contacts = await client.all("/contacts", Page[ContactShown])
        return Stage(sender, await self._campaign(sender), contacts)

    async def _campaign(self, sender: SenderMade) -> CampaignShown:
        """A campaign with a hole in its second step: refused, mended, activated."""
        client = self.client
        campaign = await client.post("/campaigns", CampaignShown, {"name": CAMPAIGN, "sender_id": str(sender.id)})
        path = f"/campaigns/{campaign.id}"
        steps = [await client.post(f"{path}/steps", StepShown, step) for step in STEPS]
        try:
            await client.post(f"{path}/activate", CampaignShown)
        except Refused as refusal:
            self.console.print(report.refused(HOLE, refusal.problem))
        else:
            raise DemoError("a step with a hole was activated: it should have been refused")
        await client.patch(f"{path}/steps/{steps[1].id}", StepShown, asking(MENDED))
        active = await client.post(f"{path}/activate", CampaignShown)
        self.console.print(report.told("with a default the campaign is activated", MENDED))
        return active

    # -- running -------------------------------------------------------------------------------------------------

    async def _run(self, stage: Stage, progress: Progress) -> None:
        path = f"/campaigns/{stage.campaign.id}/enroll"
        phones = Phones(self.client, stage)
        listening = asyncio.create_task(self._listen(progress, phones))
        try:
            bulk = await self.client.post(path, BulkAccepted, {"all": True})
            progress.start()
            self.console.print(report.told(f"{bulk.count} contacts are enrolled with one request", "202 accepted"))
            with screen(self.console) as shown:
                while not progress.complete:
                    await self._look(stage, progress, listening)
                    shown.show(progress)
                await self._last_receipts(stage, progress)
                shown.show(progress)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, progress: Progress, phones: Phones) -> None:
        async for event in self.client.events():
            progress.take(event)
            if (said := await phones.hear(event)) is not None:
                progress.latest.append(said)

    async def _look(self, stage: Stage, progress: Progress, listening: asyncio.Task[None]) -> None:
        """Wait a little; ask for the funnel. Raises DemoError when nothing happens any more."""
        if listening.done():
            listening.result()  # raises what ended it
            raise DemoError("the live feed ended")
        funnel = await self._funnel(stage)
        progress.look(funnel)
        longest = max(after["delay_hours"] - before["delay_hours"] for before, after in pairwise(STEPS))
        if time.monotonic() - progress.heard_at > longest * 3600 / self.speed + SILENCE_S:
            raise DemoError(
                f"nothing has happened for {SILENCE_S:g} s, and {progress.running} enrolments have not ended: "
                + "; ".join(report.waiting(funnel))
            )
        await asyncio.sleep(_LOOK_EVERY_S)

    async def _last_receipts(self, stage: Stage, progress: Progress) -> None:
        """Wait for the phones' last reports: until both sides say the same, for a while at most."""
        deadline = time.monotonic() + (await self.client.pace()).seconds + LATE_S
        while time.monotonic() < deadline:
            accepted = await self.client.accepted(stage.sender.phone_number_id)
            if _same(accepted, await self._funnel(stage)) and time.monotonic() - progress.heard_at > 1:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _funnel(self, stage: Stage) -> Funnel:
        return await self.client.get(f"/campaigns/{stage.campaign.id}/funnel", Funnel)

    # -- looking back --------------------------------------------------------------------------------------------

    async def _close_books(self, stage: Stage) -> Books:
        client, id_ = self.client, stage.campaign.id
        return Books(
            steps=len(STEPS),
            contacts=await client.all("/contacts", Page[ContactShown]),
            enrollments=await client.all(f"/campaigns/{id_}/enrollments", Page[EnrollmentShown]),
            messages=await client.all("/messages", Page[MessageShown], campaign_id=id_),
            accepted=await client.accepted(stage.sender.phone_number_id),
            answered={contact.id: answer.ends for contact, answer in cast(stage.contacts) if answer.ends},
        )

    async def _show_one(self, stage: Stage) -> None:
        """Everything that happened between us and one contact."""
        contact = next((one for one in stage.contacts if one.name == SHOWN), None)
        if contact is None:
            return
        messages = await self.client.all("/messages", Page[MessageShown], contact_id=contact.id)
        replies = await self.client.all("/replies", Page[ReplyShown], contact_id=contact.id)
        self.console.print(report.timeline(contact, messages, replies))


def cast(contacts: list[ContactShown]) -> list[tuple[ContactShown, Answer]]:
    """Those of the contacts who answer, with what they write."""
    by_name = {contact.name: contact for contact in contacts}
    return [(by_name[answer.name], answer) for answer in ANSWERS if answer.name in by_name]


class Phones:
    """Plays the contacts who answer: each as soon as the message they answer to has arrived."""

    def __init__(self, client: Client, stage: Stage) -> None:
        self._client, self._number = client, stage.sender.phone_number_id
        self._cast: Mapping[str, tuple[ContactShown, Answer]] = {str(one[0].id): one for one in cast(stage.contacts)}
        self._names = {str(contact.id): contact.name for contact in stage.contacts}
        self._answered: set[str] = set()

    async def hear(self, event: Event) -> str | None:
        """Take note of an event, and answer if it is time to. Returns what is worth showing."""
        contact_id: str = event.data.get("contact_id") or ""
        if event.type == "message.delivered" and contact_id in self._cast and contact_id not in self._answered:
            contact, answer = self._cast[contact_id]
            if event.data.get("step") == answer.step:
                self._answered.add(contact_id)
                await self._write(contact, answer, event.data.get("wamid"))
        if event.type == "reply.received":
            return (
                f"{self._names.get(contact_id, 'somebody')} writes: {event.data.get('text') or event.data.get('type')}"
            )
        if event.type == "contact.opted_out":
            return f"{self._names.get(event.data['id'], 'somebody')} has opted out"
        return None

    async def _write(self, contact: ContactShown, answer: Answer, wamid: str | None) -> None:
        message: dict[str, Any] = {"from": contact.phone, "to": self._number, "name": contact.name, **answer.message}
        if wamid:
            message["context"] = wamid
        await self._client.write_from_phone(message)


def _same(accepted: list[Accepted], funnel: Funnel) -> bool:
    """Whether the gateway's record and our funnel tell of equally many messages that arrived and were read."""
    arrived = sum(one.status in ("delivered", "read") for one in accepted)
    read = sum(one.status == "read" for one in accepted)
    steps = funnel.steps
    return (
        all(one.status in ("delivered", "read", "failed") for one in accepted)
        and arrived == sum(step.delivered for step in steps)
        and read == sum(step.read for step in steps)
    )
