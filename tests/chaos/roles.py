"""The roles as processes of their own, two of each that may have copies, on servers that URLs name."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import ClientSession
from chaos.harness import UNHURRIED, Process, answers, environment
from chaos.observed import Observed, Sandbox
from support import until

from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Urls
from harkara.storage.migrate import bootstrap

COPIES = 2

_READY_WITHIN_S = 120


class Roles(Observed):
    """Front doors, a gateway, and processes that run all actors."""

    def __init__(self, directory: Path, urls: Urls, session: ClientSession, speed: float) -> None:
        *doors, gateway = free_ports(COPIES + 1)
        self.session = session
        self._urls = urls
        self.door_urls = [f"http://127.0.0.1:{port}" for port in doors]
        self._gateway_url = f"http://127.0.0.1:{gateway}"
        self.environ = environ = environment(
            DATABASE_URL=urls.database("harkara_app", "harkara"),
            DATABASE_DIRECT_URL=urls.database("harkara_owner", "harkara"),
            NATS_URL=urls.nats,
            REDIS_URL=urls.redis,
            WHATSAPP_GATEWAY_URL=self._gateway_url,
            PUBLIC_URL=self.url,
            SECRET_KEY="a secret of thirty-two bytes, or more",
            CONNECTION_POOL="10",
            SPEED=str(speed),
        )

        def process(name: str, *arguments: str) -> Process:
            return Process(list(arguments), directory / f"{name}.log", environ)

        self.doors = [process(f"door{n}", "http", "--port", str(port)) for n, port in enumerate(doors)]
        self.actors = [process(f"actors{n}", "actor", "all") for n in range(COPIES)]
        self._sandbox = process("gateway", "gateway", "--port", str(gateway), "--data", str(directory / "gateway"))
        self._setting_up = [process("migrate", "migrate"), process("topology", "topology", "apply")]

    @property
    def url(self) -> str:
        return self.door_urls[0]

    @property
    def gateway(self) -> Sandbox:
        return Sandbox(self.session, self._gateway_url)

    @property
    def nats_url(self) -> str:
        return self._urls.nats

    def database_url(self, user: str) -> str:
        return self._urls.database(user, "harkara")

    @property
    def processes(self) -> list[Process]:
        return [self._sandbox, *self.doors, *self.actors]

    def outputs(self) -> list[str]:
        return [process.output() for process in self.processes]

    async def start(self) -> None:
        """Set the servers up by the commands made for that, and start every role."""
        for one in self._setting_up:
            await one.spawn()
            assert await one.ended(_READY_WITHIN_S) == 0, one.output()
        for one in self.processes:
            await one.spawn()
        await until(
            lambda: answers(self.session, f"{self._gateway_url}/healthz"), "the gateway is ready", _READY_WITHIN_S
        )
        for number in range(COPIES):
            await self._until_open(number)
            await self._until_at_work(self.actors[number], 1)

    async def close(self) -> None:
        """End everything that may still run."""
        for one in self.processes:
            if one.running:
                one.signal(signal.SIGCONT)
                await one.kill()

    async def replace_one_by_one(self) -> None:
        """What a deployment does: each door and each actor process in turn is asked to stop and started again."""
        for number, door in enumerate(self.doors):
            assert await door.stop() == 0, door.output()[-3000:]
            await door.spawn()
            await self._until_open(number)
        for actor in self.actors:
            starts = actor.output().count("at work")
            assert await actor.stop() == 0, actor.output()[-3000:]
            await actor.spawn()
            await self._until_at_work(actor, starts + 1)

    async def _until_open(self, number: int) -> None:
        url = f"{self.door_urls[number]}/readyz"
        await until(lambda: answers(self.session, url), "a front door is ready", _READY_WITHIN_S)

    async def _until_at_work(self, actor: Process, starts: int) -> None:
        await until(lambda: actor.output().count("at work") >= starts, "the actors are at work", _READY_WITHIN_S)


@asynccontextmanager
async def roles(directory: Path, urls: Urls, *, speed: float) -> AsyncIterator[Roles]:
    """All roles ready on these servers; nothing of them runs after the block."""
    await bootstrap(urls.database_admin, database="harkara", owner="harkara_owner", app="harkara_app")
    async with ClientSession(timeout=UNHURRIED) as session:
        running = Roles(directory, urls, session, speed)
        try:
            await running.start()
            await running.gateway.put("policy", {"throughput": 10_000})
            yield running
        except BaseException:
            for process in running.processes:
                print(f"the end of {process.name}:\n{process.output()[-3000:]}")
            raise
        finally:
            await running.close()
