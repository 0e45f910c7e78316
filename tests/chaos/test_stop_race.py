"""Stop wins every race: it lands within 50 ms of the moment at which a step falls due, and nothing leaves after it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from aiohttp import ClientError
from chaos.harness import PATIENCE, Platform, Tenant, new_tenant, running
from support import Tell, an_invoice, quick_directory, until

SECRET = "the race's secret"

#: What ends an enrolment.
WAYS = ("STOP", "a reply", "POST stop", "pay")

#: How far from the due time a stop begins, either way.
AROUND_S = 0.05

#: From the enrolment to the step: long enough to enrol everybody, and to know when each one's falls due.
DELAY_S = 4.0


@dataclass
class Trial:
    """One contact whose step falls due at `due`, and who is stopped at about the same time."""

    contact: str
    phone: str
    how: str
    invoice: str | None = None
    due: float = 0.0
    answered: float = 0.0
    asked: int = 0


@dataclass
class Race:
    """Trials in waves on one number; `outcomes` says how they ended."""

    platform: Platform
    tenant: Tenant
    sender: dict[str, Any]
    campaign: str
    dice: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)

    async def wave(self, count: int, ways: Sequence[str] = WAYS, *, kill: bool = False) -> None:
        """Run trials at once; with `kill`, everything is killed while their stops are under way."""
        trials = [await self._enrol(ways[number % len(ways)]) for number in range(count)]
        await self._due_times(trials)
        stops = [asyncio.create_task(self._stop(trial)) for trial in trials]
        if kill:
            middle = sorted(trial.due for trial in trials)[count // 2]
            await asyncio.sleep(middle - time.time() + self.dice.uniform(-AROUND_S, AROUND_S))
            await self.platform.kill()
            await self.platform.start()
        await asyncio.gather(*stops)
        await until(lambda: self._all_ended(trials), "every enrolment has ended", 120)
        await self._check(trials)

    async def _enrol(self, how: str) -> Trial:
        contact = await self.tenant.contact()
        invoice = (await self.tenant.post("/invoices", an_invoice(contact["id"])))["id"] if how == "pay" else None
        about = {"invoice_id": invoice} if invoice else None
        await self.tenant.post(f"/contacts/{contact['id']}/campaign/{self.campaign}/enroll", about)
        return Trial(contact["id"], contact["phone"], how, invoice)

    async def _rows(self, trials: list[Trial]) -> list[Any]:
        async with self.platform.database() as database:
            ids = [trial.contact for trial in trials]
            return await database.fetch(
                "select contact_id::text, next_step_scheduled_at, status from contact_campaign_progress"
                " where contact_id = any ($1::text[]::uuid[])",
                ids,
            )

    async def _due_times(self, trials: list[Trial]) -> None:
        async def all_there() -> bool:
            return len(await self._rows(trials)) == len(trials)

        await until(all_there, "everybody is enrolled")
        due = {row[0]: row[1] for row in await self._rows(trials)}
        for trial in trials:
            # On a busy machine a step may be sent before everybody is enrolled: that one is stopped at once.
            trial.due = due[trial.contact].timestamp() if due[trial.contact] is not None else time.time()
            self.outcomes["stopped late"] += trial.due + AROUND_S < time.time()

    async def _all_ended(self, trials: list[Trial]) -> bool:
        return all(row[2] in ("stopped", "completed") for row in await self._rows(trials))

    async def _stop(self, trial: Trial) -> None:
        await asyncio.sleep(trial.due - time.time() + self.dice.uniform(-AROUND_S, AROUND_S))
        ask = {"POST stop": self._post_stop, "pay": self._pay}.get(trial.how, self._write)
        body = self._webhook(trial)

        async def accepted() -> bool:
            with suppress(ClientError, OSError, TimeoutError):
                trial.asked += 1
                status = await ask(trial, body)
                trial.answered = time.time()
                assert status in (200, 202, 503), status
                return status != 503
            return False

        await until(accepted, "the stop is accepted", 120)

    async def _post_stop(self, trial: Trial, _: bytes) -> int:
        path = f"/contacts/{trial.contact}/campaign/{self.campaign}/stop"
        return (await self.tenant.ask("POST", path, timeout=PATIENCE))[0]

    async def _pay(self, trial: Trial, _: bytes) -> int:
        return (await self.tenant.ask("POST", f"/invoices/{trial.invoice}/pay", timeout=PATIENCE))[0]

    async def _write(self, _: Trial, body: bytes) -> int:
        """The webhook as WhatsApp posts it, so that the answer to it can be timed."""
        signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        url = f"{self.platform.url}/api/v1/webhooks/whatsapp/{self.sender['id']}"
        session = self.platform.session
        signed = {"X-Hub-Signature-256": signature}
        async with session.post(url, data=body, headers=signed, timeout=PATIENCE) as response:
            await response.read()
            return response.status

    def _webhook(self, trial: Trial) -> bytes:
        text = "Stop!" if trial.how == "STOP" else "Who is this?"
        message = {
            "from": trial.phone.removeprefix("+"),
            "id": f"wamid.{trial.contact}",
            "timestamp": str(int(trial.due)),
            "type": "text",
            "text": {"body": text},
        }
        change = {"field": "messages", "value": {"messaging_product": "whatsapp", "messages": [message]}}
        return json.dumps({"object": "whatsapp_business_account", "entry": [{"changes": [change]}]}).encode()

    async def _check(self, trials: list[Trial]) -> None:
        accepted = await self.platform.gateway.accepted(self.sender["phone_number_id"])
        left = {one["to"].removeprefix("+"): datetime.fromisoformat(one["accepted_at"]).timestamp() for one in accepted}
        for trial in trials:
            at = left.get(trial.phone.removeprefix("+"))
            assert at is None or at <= trial.answered, f"{trial}: left {at - trial.answered:.3f} s after its stop"
            self.outcomes["left before" if at else "kept back"] += 1
            self.outcomes["asked again"] += trial.asked > 1


async def _race(platform: Platform) -> Race:
    tenant = await new_tenant(platform.session, platform.url)
    sender = await tenant.sender(app_secret=SECRET)
    campaign = await tenant.campaign(sender["id"], DELAY_S / 3600, stop_on_reply=True)
    return Race(platform, tenant, sender, campaign, random.Random(20260301))


async def _run(waves: Sequence[tuple[int, Sequence[str], bool]], tell: Tell) -> Race:
    """Waves of so many trials, ended in these ways, with everything killed or not."""
    with quick_directory() as directory:
        async with running(directory) as platform:
            race = await _race(platform)
            for size, ways, kill in waves:
                await race.wave(size, ways, kill=kill)
    tell(f"stops around the due time: {dict(race.outcomes)}")
    return race


@pytest.mark.timeout(600)
async def test_nothing_leaves_after_a_stop_or_a_payment_was_accepted(tell: Tell) -> None:
    race = await _run([(30, ("pay",), False), (20, WAYS, False), (20, WAYS, True)], tell)
    assert race.outcomes["kept back"], "the stops came too late to show anything"


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_nothing_leaves_after_a_stop_was_accepted_a_thousand_times(tell: Tell) -> None:
    race = await _run([(25, WAYS, number % 4 == 3) for number in range(40)], tell)
    assert race.outcomes["left before"] > 50
    assert race.outcomes["kept back"] > 50
