"""The operator's command line, against a platform at work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from chaos.harness import Platform, Tenant, environment
from live.letters import a_dead_letter
from live.terminal import ops, told
from support import until


async def test_status_says_that_all_servers_answer_and_what_the_streams_hold(live: Platform) -> None:
    found: dict[str, Any] = {}

    async def all_answer() -> bool:  # on a busy machine one of them may not do so in time
        found.update(await told(live, "status", "--max-age", "3600"))
        return all(one["answers"] for one in found["servers"])

    await until(all_answer, "all servers answer", every=0.2)
    assert {one["name"] for one in found["servers"]} == {"broker", "database", "redis", "gateway", "front door"}
    held = {one["name"] for one in found["streams"] if not one["missing"]}
    assert {"COMMANDS", "WORK", "SEND", "INBOUND", "EVENTS", "DEAD"} <= held
    readers = {(one["stream"], one["name"]) for one in found["consumers"]}
    assert {("COMMANDS", "enrollment"), ("WORK", "ticker"), ("INBOUND", "receipts")} <= readers


async def test_status_says_what_was_put_off_until_when_and_why(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Hello", "send_at": later}
    await tenant.post("/messages", wanted)

    async def shown() -> bool:
        # Others may have put off something before: one of each actor's is shown.
        found = (await told(live, "status", "--max-age", "3600"))["parked"]
        return any(one["actor"] == "send" and one["reason"] and one["due_at"] for one in found)

    await until(shown, "what was put off is shown", 30, every=0.2)
    _, out, _ = await ops(live, "status", "--max-age", "3600")
    assert "put off by" in out


async def test_dead_letters_are_grouped_shown_and_only_then_forgotten(live: Platform, tenant: Tenant) -> None:
    id_ = await a_dead_letter(live, tenant)
    (group,) = await told(live, "dead", "list", "--tenant", tenant.id)
    assert (group["actor"], group["letters"], group["tenants"]) == ("enrollment", 1, 1)
    assert (await told(live, "dead", "show", id_))["subject"] == f"t.{tenant.id}.cmd.enrollment.start"
    _, out, _ = await ops(live, "dead", "show", id_)
    assert [line.split() for line in out.splitlines() if line.startswith("body")] == [
        ["body_base64", "Z2FyYmFnZQ=="],
        ["body_begins", "garbage"],
    ]
    status, out, _ = await ops(live, "dead", "drop", "--tenant", tenant.id)
    assert status == 1, "nobody said yes"
    assert "JSON is malformed" in out, "it was not shown what would be forgotten"
    assert await tenant.ids("/dead-letters") == [id_]
    status, out, _ = await ops(live, "dead", "drop", "--tenant", tenant.id, "--yes")
    assert (status, await tenant.ids("/dead-letters")) == (0, [])
    (entry,) = (await tenant.get("/audit?entity=dead_letter"))["items"]
    assert (entry["action"], entry["entity_id"], entry["via"]) == ("drop", id_, "harkara ops dead drop")


async def test_a_campaign_says_first_how_it_stands_and_of_its_many_messages_only_the_newest(
    live: Platform, tenant: Tenant
) -> None:
    sender = await tenant.sender()
    campaign = await tenant.campaign(sender["id"], 0, 240)
    await tenant.contacts(60)
    await tenant.post(f"/campaigns/{campaign}/enroll", {"tag": "all"})

    async def stands() -> list[str] | None:
        lines = (await told(live, "trace", campaign))["standing"]
        counts = next((line for line in lines if line.startswith("messages: ")), "")
        arrived = not any(status in counts for status in ("queued", "sending", "sent", "none"))
        return lines if counts and arrived and "enrolled: 60 active" in lines else None

    lines = await until(stands, "the first step to have reached all", every=0.5)
    assert lines[0].endswith(" is active")
    await tenant.post(f"/campaigns/{campaign}/pause")
    status, out, _ = await ops(live, "trace", campaign)
    assert status == 0
    assert "is paused" in out.splitlines()[1]
    assert "only the newest is told of so many" in out
    of_number = await told(live, "trace", sender["id"])
    assert of_number["kind"] == "sender"
    assert of_number["standing"][0] == f"{sender['name']} is active, 1000 messages a second"
    assert of_number["standing"][1].startswith("messages of the last day: ")


@pytest.mark.parametrize("words", ["dead show", "dead replay --yes", "dead drop --yes", "trace"])
async def test_an_id_that_nobody_knows_is_said_to_be_so(live: Platform, words: str) -> None:
    unknown = "01a21941-a40a-75bb-ac20-6058aa1f3f23"
    status, out, err = await ops(live, *words.split(), unknown)
    assert (status, out) == (1, "")
    assert err.startswith("harkara: ")
    assert unknown in err


async def test_a_stream_that_there_is_not_and_one_that_nobody_reads_are_told_apart(live: Platform) -> None:
    for stream, says in (("FOO", "there is no stream FOO: choose from "), ("EVENTS", "herald does not read EVENTS: ")):
        status, _, err = await ops(live, "replay", stream, "herald")
        assert (status, err.startswith(f"harkara: {says}")) == (2, True), err


async def test_who_watches_ends_it_with_ctrl_c(live: Platform) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", "lag", "--watch", "--all", "--data", str(live.data)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout
    assert process.stderr
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert (await process.wait(), await process.stderr.read()) == (0, b"")


async def test_a_dead_letter_is_tried_again(live: Platform, tenant: Tenant) -> None:
    id_ = await a_dead_letter(live, tenant)
    assert await told(live, "dead", "replay", id_, "--yes") == {"letters": 1, "done": True}

    async def died_again() -> bool:
        return len(ids := await tenant.ids("/dead-letters")) == 1 and ids != [id_]

    await until(died_again, "it was tried again, and given up again")


async def test_tail_shows_what_passes_but_no_code(live: Platform, tenant: Tenant) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", "tail", "--tenant", tenant.id, "--data", str(live.data)),
        stdout=asyncio.subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None
    lines: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(line.decode())

    reading = asyncio.create_task(read())
    try:
        sender = await tenant.sender()

        async def is_shown() -> bool:  # until it listens, what passes is not shown
            wanted = {"sender_id": sender["id"], "to": "+919876543210", "body": "Your code is 471199", "lane": "otp"}
            await tenant.post("/messages", wanted)
            return any(f"t.{tenant.id}.cmd.message.send" in line for line in lines)

        await until(is_shown, "the command is shown", every=0.3)
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert await process.wait() == 0
        await reading
    assert not any("471199" in line for line in lines)


@pytest.mark.parametrize(
    "words", ["tail", "dead list", "replay INBOUND receipts", "trace 01a21941-a40a-75bb-ac20-6058aa1f3f23"]
)
async def test_a_tenant_that_there_is_not_is_refused(live: Platform, words: str) -> None:
    status, _, err = await ops(live, *words.split(), "--tenant", "nobody-of-this-name")
    assert (status, err) == (2, "harkara: there is no tenant nobody-of-this-name: `harkara tenant list` shows them\n")


async def test_without_a_platform_it_says_where_it_looked(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = str(tmp_path_factory.mktemp("nothing"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", "status", "--data", nowhere),
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert "NATS_URL" in err.decode()
    assert f"no `harkara up` runs on {nowhere}" in err.decode()


async def test_a_single_broker_is_as_the_topology_says(live: Platform) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "topology", "show", "--data", str(live.data)),
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"the broker is as the topology says\n")


async def test_a_tenant_is_created_beside_a_running_platform(live: Platform) -> None:
    made = f"made-by-hand-{uuid4().hex[:8]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "tenant", "create", made, "--data", str(live.data)),
        *("--email", f"owner@{made}.example"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    out, _ = await process.communicate(b"a long enough password\n")
    assert process.returncode == 0
    assert out.decode() == f"tenant {made} is ready; log in as owner@{made}.example\n"
    body = {"email": f"owner@{made}.example", "password": "a long enough password"}
    async with live.session.post(f"{live.url}/api/v1/auth/login", json=body) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("acme --email nope", "email 'nope': is not an email address"),
        ("A --email nope", "tenant 'A': an id has"),
        (
            "acme --email a@acme.example",
            "password: is missing: pass it on standard input, or with --password",
        ),
    ],
)
async def test_a_password_is_asked_for_last_and_at_a_terminal_alone(live: Platform, words: str, said: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "tenant", "create", *words.split(), "--data", str(live.data)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().startswith(f"harkara: {said}")


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("migrate", "DATABASE_DIRECT_URL"),
        ("reseal", "DATABASE_DIRECT_URL"),
        ("topology show", "NATS_URL"),
        ("topology apply", "NATS_URL"),
        ("tenant list", "DATABASE_URL"),
        ("tenant create acme --email a@acme.example --password a-long-enough-one", "DATABASE_URL"),
        ("ops dead drop", "DATABASE_URL"),
        ("ops erase tenant acme", "DATABASE_URL"),
    ],
)
async def test_without_servers_every_command_says_how_it_finds_them(
    words: str, setting: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = str(tmp_path_factory.mktemp("nothing"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", *words.split(), "--data", nowhere),
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().startswith(f"harkara: {setting}: is missing, and no `harkara up` runs on {nowhere}: ")
