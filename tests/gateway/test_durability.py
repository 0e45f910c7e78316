"""kill -9 at any moment: what was accepted, registered or owed is there after the restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from gateway.sandboxes import NUMBER, TOKEN, Caller, Hook, sandbox_in, sandbox_process
from support import until

from harkara.gateway.cloud import CloudGateway
from harkara.gateway.protocol import Accepted, Answer, Credentials, NotSent, Unknown
from harkara.gateway.sandbox import SandboxError, serve
from harkara.gateway.sandbox.store import Store, id_in, new_wamid
from harkara.schemas.content import Content

TO = "+919876543210"


async def test_nothing_accepted_is_lost_when_killed_again_and_again(tmp_path: Path, credentials: Credentials) -> None:
    """Sends go on while the sandbox is killed five times; what was answered 200 is listed, once."""
    answers: dict[str, Answer] = {}
    async with sandbox_process(tmp_path / "data") as process, aiohttp.ClientSession() as session:
        caller = Caller(process.url, session)
        await caller.put("policy", {"throughput": False})
        gateway = CloudGateway(process.url)
        stop = asyncio.Event()

        async def worker(name: int) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                opaque = f"{name}-{n}"
                answers[opaque] = await gateway.send(credentials, TO, Content(body=opaque), opaque=opaque)
                if not isinstance(answers[opaque], Accepted):
                    await asyncio.sleep(0.01)

        workers = [asyncio.create_task(worker(name)) for name in range(16)]
        for _ in range(5):
            await until(partial(_more, answers, len(answers) + 300), "more sends")
            await process.kill()
            await process.start()
        stop.set()
        await asyncio.gather(*workers)
        await gateway.close()
        listed = {item["biz_opaque_callback_data"]: item["id"] for item in await caller.items("?limit=100000")}
        total = len(await caller.items("?limit=100000"))
    accepted = {opaque: answer.wamid for opaque, answer in answers.items() if isinstance(answer, Accepted)}
    never = [opaque for opaque, answer in answers.items() if isinstance(answer, NotSent)]
    assert {type(answer) for answer in answers.values()} <= {Accepted, NotSent, Unknown}
    assert accepted.items() <= listed.items(), "accepted and lost"
    assert not set(never) & set(listed), "called not sent, and yet accepted"
    assert total == len(listed), "accepted twice"
    assert len(accepted) > 1000


async def test_settings_files_and_registrations_survive(tmp_path: Path, hook: Hook) -> None:
    async with sandbox_process(tmp_path / "data") as process, aiohttp.ClientSession() as session:
        caller = Caller(process.url, session)
        await caller.hook(hook, verify_token="verify-me", access_token="EAAG-test")
        await caller.put("pace", {"sent_ms": 5})
        await caller.put("policy", {"window": True})
        await caller.put("faults", [{"kind": "slow", "delay_ms": 1, "count": 3}])
        await caller.inbound(**{"from": TO, "text": "opens the window"})
        await caller.accepted(TO)
        form = aiohttp.FormData({"messaging_product": "whatsapp"})
        form.add_field("file", b"\x89PNG", filename="a.png", content_type="image/png")
        _, stored = await caller.call("POST", f"/v23.0/{NUMBER}/media", data=form, headers=TOKEN)
        settings = ("pace", "policy", "faults", "webhook")
        before = [await caller.call("GET", f"/sandbox/{name}") for name in settings]
        await process.kill()
        await process.start()
        assert [await caller.call("GET", f"/sandbox/{name}") for name in settings] == before
        assert before[2][1]["faults"][0]["fired"] == 1
        _, info = await caller.call("GET", f"/v23.0/{stored['id']}", headers=TOKEN)
        assert await caller.call("GET", info["url"].removeprefix(caller.url), headers=TOKEN) == (200, b"\x89PNG")
        assert (await caller.text(TO))[0] == 200, "the window is still open"


async def test_statuses_and_messages_that_were_owed_come_after_the_restart(tmp_path: Path, hook: Hook) -> None:
    async with sandbox_process(tmp_path / "data") as process, aiohttp.ClientSession() as session:
        caller = Caller(process.url, session)
        await caller.put("policy", {"throughput": False})
        await caller.put("pace", {"sent_ms": 0, "delivered_ms": 700, "read_ms": 100, "read_rate": 1})
        await caller.hook(hook)
        wamids = [await caller.accepted(f"+91900000{n:04d}") for n in range(60)]
        hook.answers = [503] * 1000
        inbound = [await caller.inbound(**{"from": TO, "text": str(n)}) for n in range(10)]
        await process.kill()
        hook.answers = []
        await process.start()
        expected = Counter({"sent": 60, "delivered": 60, "read": 60})
        await until(lambda: Counter(hook.statuses()) >= expected, "every status at least once", timeout=60)
        await until(lambda: {m["id"] for m in hook.messages()} >= set(inbound), "every inbound message", timeout=60)
        for wamid in wamids:
            assert set(hook.statuses(wamid)) == {"sent", "delivered", "read"}


async def test_what_was_delivered_is_not_delivered_again_by_a_restart(tmp_path: Path, hook: Hook) -> None:
    data = tmp_path / "data"
    async with sandbox_in(data) as caller:
        await caller.put("pace", {"sent_ms": 0, "delivered_ms": 0, "read_ms": None})
        await caller.hook(hook)
        await caller.accepted(TO)
        await until(lambda: len(hook.statuses()) == 2, "both statuses")
        # The receipt is noted in the turn after the answer.
        await until(lambda: _owed(data) == 0, "noted as delivered")
    async with sandbox_in(data) as caller:
        last = await caller.inbound(**{"from": TO, "text": "after"})
        await until(lambda: [m["id"] for m in hook.messages()] == [last], "the new message")
        assert hook.statuses() == ["sent", "delivered"]


def _more(answers: dict[str, Answer], than: int) -> bool:
    return len(answers) > than


def _owed(data: Path) -> int:
    with sqlite3.connect(data / "sandbox.db") as db:
        count = db.execute("SELECT count(*) FROM messages WHERE planned != reported & planned").fetchone()
    db.close()
    return int(count[0])


async def test_the_dice_of_a_fault_roll_on_after_a_restart(tmp_path: Path) -> None:
    async def rolls(data: Path, sends: int, *, fresh: bool) -> str:
        async with sandbox_in(data) as caller:
            if fresh:
                await caller.put("policy", {"throughput": False})
                await caller.put("faults", [{"kind": "error", "code": 131000, "rate": 0.5, "seed": 3}])
            return "".join(["ox"[(await caller.text(TO))[0] != 200] for _ in range(sends)])

    whole = await rolls(tmp_path / "whole", 40, fresh=True)
    parts = await rolls(tmp_path / "parts", 20, fresh=True) + await rolls(tmp_path / "parts", 20, fresh=False)
    assert parts == whole
    assert whole[:20] != whole[20:]


async def test_a_second_sandbox_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with sandbox_process(tmp_path):
        with pytest.raises(SandboxError, match="another sandbox uses"):
            await serve(0, tmp_path)


async def test_a_taken_port_is_refused_with_what_to_do(tmp_path: Path, sandbox: Caller) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(SandboxError, match=f"port {port} is taken.*another port"):
        await serve(port, tmp_path / "other")


async def test_a_store_that_cannot_write_refuses_instead_of_pretending(
    sandbox: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Store, *_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "_transact", full)
    status, answer = await sandbox.text(TO)
    assert (status, answer["error"]["code"]) == (500, 131000)
    assert "disk is full" in answer["error"]["error_data"]["details"]
    monkeypatch.undo()
    assert (await sandbox.text(TO))[0] == 200
    assert len(await sandbox.items()) == 1


def test_a_message_id_carries_its_number() -> None:
    for message_id in (1, 77, 10**9):
        for chat in ("919876543210", "US.13491208655302741918"):
            assert id_in(new_wamid(chat, message_id)) == message_id
    assert new_wamid("91", 1) != new_wamid("91", 1)
    for other in ("", "wamid.", "wamid.!!!", "wamid.QQ==", "x" * 100):
        assert id_in(other) is None
