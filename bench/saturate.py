"""A number at its limit, both ways: `python -m bench.saturate [MESSAGES] [PER_WEBHOOK]`.

One front door and one process with all actors; a gateway that answers every request after 200 ms and then reports
`sent`, `delivered` and `read` of each message, and a reply to every thirtieth, as signed webhooks of at most
PER_WEBHOOK statuses. Everything, the gateway too, shares the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import json
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import uvloop
from loguru import logger

from bench.stack import (
    A_SECOND,
    DATABASE,
    cpu_seconds,
    family,
    front_door,
    harkara,
    percentile,
    prepared,
)
from harkara.actors.steps import message_id
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Urls
from harkara.ids import uuid7, uuid7_beside

MESSAGES = 20_000
PER_WEBHOOK = 10
MPS = 1000
ANSWER_S = 0.2
REPLY_EVERY = 30

#: When each status comes, in seconds after the answer.
STATUSES = (("sent", 0.0), ("delivered", 0.3), ("read", 1.0))

#: Connections over which webhooks come.
HOOKS = 24


class Gateway(asyncio.Protocol):
    """One connection of the Cloud API, as little of it as will do."""

    def __init__(self, reports: Reports) -> None:
        self._reports, self._rest = reports, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self._rest) < end + 4 + length:
                return
            body, self._rest = self._rest[end + 4 : end + 4 + length], self._rest[end + 4 + length :]
            asyncio.get_running_loop().call_later(ANSWER_S, self._answer, body)

    def _answer(self, body: bytes) -> None:
        asked = json.loads(body)
        answer = json.dumps({"messages": [{"id": self._reports.accept(asked)}]}).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


class Reports:
    """What was accepted, and the webhooks about it."""

    def __init__(self, door: str, sender: str, secret: str, per_webhook: int) -> None:
        self._door, self._sender, self._secret, self._most = door, sender, secret.encode(), per_webhook
        self._due: list[tuple[float, int, str, dict[str, Any]]] = []
        self._count = 0
        self.accepted, self.took, self.refused, self.told = list[float](), list[float](), 0, 0

    def accept(self, asked: dict[str, Any]) -> str:
        """A message's id at WhatsApp."""
        now, wamid = time.time(), f"wamid.{len(self.accepted)}"
        self.accepted.append(now)
        ours, to = asked["biz_opaque_callback_data"], asked["to"].lstrip("+")
        for status, after in STATUSES:
            at = now + after
            self._push(
                at,
                "statuses",
                {"id": wamid, "status": status, "timestamp": str(int(at)), "recipient_id": to}
                | {"biz_opaque_callback_data": ours},
            )
        if len(self.accepted) % REPLY_EVERY == 0:
            said = {"from": to, "id": f"{wamid}.reply", "timestamp": str(int(now)), "type": "text"}
            self._push(now + 1, "messages", said | {"text": {"body": "Thanks"}})
        return wamid

    def _push(self, at: float, kind: str, what: dict[str, Any]) -> None:
        self._count += 1
        heapq.heappush(self._due, (at, self._count, kind, what))

    async def tell(self, client: aiohttp.ClientSession) -> None:
        """Over one connection: whatever is due, a webhook at a time."""
        while True:
            batch: list[tuple[str, dict[str, Any]]] = []
            while self._due and self._due[0][0] <= time.time() and len(batch) < self._most:
                batch.append(heapq.heappop(self._due)[2:])
            if not batch:
                await asyncio.sleep(0.005)
                continue
            await self._post(client, batch)

    async def _post(self, client: aiohttp.ClientSession, batch: list[tuple[str, dict[str, Any]]]) -> None:
        value: dict[str, Any] = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": "1"}}
        for kind, what in batch:
            value.setdefault(kind, []).append(what)
        body = json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [
            {"field": "messages", "value": value}]}]}).encode()  # fmt: skip
        headers = {"X-Hub-Signature-256": "sha256=" + hmac.digest(self._secret, body, hashlib.sha256).hex()}
        begun = time.perf_counter()
        async with client.post(f"/api/v1/webhooks/whatsapp/{self._sender}", data=body, headers=headers) as answer:
            self.refused += answer.status != 200
        self.took.append(time.perf_counter() - begun)
        self.told += len(batch)


async def gateway(port: int, door: str, sender: str, secret: str, per_webhook: int) -> None:
    """The gateway's process: a line of what it has seen for each line it is sent."""
    reports = Reports(door, sender, secret, per_webhook)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Gateway(reports), "127.0.0.1", port, backlog=2048)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with aiohttp.ClientSession(door, connector=aiohttp.TCPConnector(limit=0)) as client:
        telling = [asyncio.create_task(reports.tell(client)) for _ in range(HOOKS)]
        print(flush=True)
        while await reader.readline():
            seen = {"accepted": reports.accepted, "took": reports.took, "refused": reports.refused}
            print(json.dumps(seen | {"told": reports.told}), flush=True)
        for task in telling:
            task.cancel()


async def prepare(
    url: str, urls: Urls, messages: int, *, mps: int = MPS, delays: tuple[int, ...] = (0,)
) -> tuple[str, str]:
    """A sender with an active campaign of steps after so many hours, and contacts to be enrolled in it."""
    async with aiohttp.ClientSession(f"{url}/api/v1/") as client:

        async def post(path: str, body: Any = None) -> Any:
            async with client.post(path, json=body) as answer:
                if answer.status >= 300:
                    raise RuntimeError(f"{path}: {await answer.text()}")
                return await answer.json()

        owner = {"tenant": {"id": "bench", "name": "b"}, "email": "b@example.com", "password": "correct horse"}
        client.headers["Authorization"] = f"Bearer {(await post('auth/signup', owner))['access_token']}"
        number = {"phone_number_id": "1", "access_token": "t", "app_secret": "s", "mps": mps, "window": "ignore"}
        sender = (await post("senders", {"name": "n", "provider": "cloud", **number}))["id"]
        campaign = (await post("campaigns", {"name": "c", "sender_id": sender}))["id"]
        for hours in delays:
            await post(f"campaigns/{campaign}/steps", {"delay_hours": hours, "body": "Hi {{ name }}"})
        await post(f"campaigns/{campaign}/activate")
    con = await asyncpg.connect(urls.database("postgres", DATABASE))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await con.execute(
        "insert into contacts (id, tenant_id, name, phone, opted_in_at)"
        " select id, 'bench', 'Name ' || i, '+9198' || (10000000 + i), now()"
        " from unnest($1::uuid[]) with ordinality as k (id, i)",
        [uuid7(yesterday + timedelta(seconds=n / A_SECOND)) for n in range(messages)],
    )
    await con.close()
    return sender, campaign


ENROL = """
insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, started_at, next_step_id,
                                       next_message_id, next_step_scheduled_at, next_claim_at)
select e.id, 'bench', c.id, c.version_id, e.contact_id, now(), s.id, e.message_id, $5, $5
from unnest($2::uuid[], $3::uuid[], $4::uuid[]) as e (id, contact_id, message_id)
join campaigns c on c.id = $1 join campaign_steps s on s.campaign_id = c.id and s.position = 0
"""


async def enrol(con: Any, campaign: str) -> None:
    """Enrol everybody as a bulk does, ids and all; the first step is due in five seconds."""
    contacts = [row[0] for row in await con.fetch("select id from contacts where tenant_id = 'bench' order by id")]
    now = datetime.now(UTC)
    due = now + timedelta(seconds=5)
    ids = [uuid7_beside(one, now, campaign, str(one)) for one in contacts]
    await con.execute(ENROL, campaign, ids, contacts, [message_id(one, due) for one in ids], due)


async def measure(con: Any, gateway: Any, pids: dict[str, int], messages: int, statuses: int) -> None:
    """Wait until everything has been sent and reported, and tell what it took."""

    def cpu() -> dict[str, float]:
        return {name: sum(map(cpu_seconds, family(pid))) for name, pid in pids.items()}

    async def seen() -> dict[str, Any]:
        gateway.stdin.write(b"\n")
        return dict(json.loads(await gateway.stdout.readline()))

    before, end = cpu(), time.monotonic() + 300
    while (now := await seen())["told"] < statuses and time.monotonic() < end:
        await asyncio.sleep(1)
    spent = {name: after - before[name] for name, after in cpu().items()}
    told = time.time()
    while await con.fetchval("select count(*) from messages where status <> 'read'") and time.monotonic() < end:
        await asyncio.sleep(0.2)
    lag = time.time() - told
    times = sorted(now["accepted"])
    middle = times[len(times) // 10 : -len(times) // 10]
    rate = (len(middle) - 1) / (middle[-1] - middle[0])
    took = [1000 * one for one in now["took"]]
    sent = times[-1] - times[0]
    print(
        f"{len(times)} messages in {sent:.1f} s, {rate:,.0f}/s in the middle of it; {now['told']} statuses and replies"
        f" in {len(took)} webhooks, {now['refused']} refused: answered in p50 {percentile(took, 0.5):.1f} ms,"
        f" p99 {percentile(took, 0.99):.1f} ms; the last was in the table {lag:.1f} s after the last webhook"
    )
    print("CPU, ms a message: " + ", ".join(f"{name} {1000 * one / messages:.2f}" for name, one in spent.items()))


async def main(messages: int, per_webhook: int) -> None:
    """Start everything, enrol, and measure."""
    logger.remove()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        (gateway_port,) = free_ports(1)
        environment = made.environment | {"WHATSAPP_GATEWAY_URL": f"http://127.0.0.1:{gateway_port}"}
        port, door = await stack.enter_async_context(front_door(environment))
        url = f"http://127.0.0.1:{port}"
        actors = await stack.enter_async_context(harkara(environment, "actor", "all"))
        pids = made.pids | {"door": door.pid, "actors": actors.pid}
        sender, campaign = await prepare(url, urls, messages)
        arguments = ["-m", "bench.saturate", "gateway", str(gateway_port), url, sender, "s", str(per_webhook)]
        hooks = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 28
        )
        stack.callback(hooks.terminate)
        assert hooks.stdout is not None
        await hooks.stdout.readline()
        con = await asyncpg.connect(urls.database("postgres", DATABASE))
        stack.push_async_callback(con.close)
        await enrol(con, campaign)
        await measure(con, hooks, pids, messages, 3 * messages + messages // REPLY_EVERY)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["gateway"]:
        uvloop.run(gateway(int(given[1]), given[2], given[3], given[4], int(given[5])))
    else:
        uvloop.run(main(int(given[0]) if given else MESSAGES, int(given[1]) if len(given) > 1 else PER_WEBHOOK))
