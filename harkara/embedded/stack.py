"""The embedded stack as one thing: starts what no URL names, keeps it running, stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, urlsplit

from loguru import logger
from msgspec import Struct

from harkara.embedded import ports
from harkara.embedded.directory import LEAST_FREE, DataDirectory
from harkara.embedded.errors import StackError
from harkara.embedded.nats import PORT_OPTION, WEBSOCKET_OPTION, Nats
from harkara.embedded.ports import Port
from harkara.embedded.postgres import Postgres
from harkara.embedded.supervisor import Server, Supervisor
from harkara.embedded.valkey import Valkey

__all__ = ["Ports", "Stack", "StackError", "Urls"]


class Ports(Struct, frozen=True, kw_only=True):
    """The TCP ports in use; 0 where the server is not ours."""

    nats: int = 0
    nats_monitor: int = 0
    nats_websocket: int = 0


class Urls(Struct, frozen=True, kw_only=True):
    """Where the servers of a running stack are."""

    #: The superuser on the `postgres` database, to set up roles and databases with.
    database_admin: str
    #: With user and password.
    nats: str
    redis: str
    #: The broker's monitoring page; empty if the broker is not ours.
    nats_monitor: str = ""
    #: Where partners come over WebSocket, and what decides on partners: empty if the broker is not ours.
    nats_websocket: str = ""
    nats_partners: str = ""
    nats_partners_seed: str = ""

    def database(self, user: str, name: str) -> str:
        """The same database server, for another user and database; the password is kept only for the same user."""
        url = urlsplit(self.database_admin)
        login, _, address = url.netloc.rpartition("@")
        if login.partition(":")[0] != quote(user):
            login = quote(user)
        return url._replace(netloc=f"{login}@{address}", path=f"/{quote(name)}").geturl()


class Stack:
    """nats-server, PostgreSQL and Valkey on one data directory, except those that a URL names.

    The servers die with this process, however it dies. One that dies by itself is started again on the same port or
    socket. Usable as `async with Stack(…) as urls`.
    """

    def __init__(
        self,
        data: Path,
        *,
        nats_port: int = 0,
        nats_websocket_port: int = 0,
        database_url: str = "",
        nats_url: str = "",
        redis_url: str = "",
        least_free: int = LEAST_FREE,
        beside: Sequence[Callable[[DataDirectory], Server]] = (),
        also_asked: Sequence[Port] = (),
    ) -> None:
        """`beside` are more servers on this directory, started and kept running like the others.

        A taken port refuses the start before anything is made; `also_asked` are those of whatever comes after it.
        """
        self._directory = DataDirectory(data, least_free)
        self._nats_ports = (nats_port, nats_websocket_port)
        own = () if nats_url else (Port(PORT_OPTION, nats_port), Port(WEBSOCKET_OPTION, nats_websocket_port))
        self._asked = (*own, *also_asked)
        self._beside = beside
        self._given = Urls(database_admin=database_url, nats=nats_url, redis=redis_url)
        self._supervisors: dict[str, Supervisor] = {}
        self._ports = Ports()
        self._urls: Urls | None = None

    @property
    def pids(self) -> Mapping[str, int]:
        """The process id of each server by its name (`nats`, `postgres`, `valkey`); 0 while one is down."""
        return {name: supervisor.pid for name, supervisor in self._supervisors.items()}

    @property
    def ports(self) -> Ports:
        """The ports in use since the start."""
        return self._ports

    async def start(self) -> Urls:
        """Starts the servers side by side and returns when all of them answer. Raises StackError; nothing runs then."""
        if self._urls is not None:
            return self._urls
        try:
            # What is there may be in use by a running stack, or by servers of an earlier one, on the same ports.
            if not self._directory.path.exists():
                self._check_ports()
            await self._directory.open()
            self._check_ports()
            self._urls = await self._start_servers()
        except OSError as error:
            await self.stop()
            raise self._directory.unusable(error) from error
        except BaseException:
            await self.stop()
            raise
        return self._urls

    async def stop(self) -> None:
        """Stops the servers, each within some seconds. Does nothing if none runs."""
        await asyncio.gather(*(supervisor.stop() for supervisor in self._supervisors.values()))
        self._supervisors = {}
        self._urls = None
        self._directory.close()

    async def __aenter__(self) -> Urls:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _check_ports(self) -> None:
        ports.check_all(self._asked)

    async def _start_servers(self) -> Urls:
        nats = None if self._given.nats else Nats(self._directory, *self._nats_ports)
        postgres = None if self._given.database_admin else Postgres(self._directory)
        valkey = None if self._given.redis else Valkey(self._directory)
        servers: list[Server] = [server for server in (nats, postgres, valkey) if server is not None]
        servers += [make(self._directory) for make in self._beside]
        self._supervisors = {server.name: Supervisor(server) for server in servers}
        await _all_or_first_error(list(self._supervisors.values()))
        if nats:
            self._ports = Ports(nats=nats.port, nats_monitor=nats.monitor_port, nats_websocket=nats.websocket_port)
        for name, pid in self.pids.items():
            logger.bind(server=name, pid=pid).debug("{} runs", name)
        return Urls(
            database_admin=postgres.url("postgres", "postgres") if postgres else self._given.database_admin,
            nats=nats.url if nats else self._given.nats,
            redis=valkey.url if valkey else self._given.redis,
            nats_monitor=nats.monitor_url if nats else "",
            nats_websocket=nats.websocket_url if nats else "",
            nats_partners=nats.partners_url if nats else "",
            nats_partners_seed=nats.partners_seed if nats else "",
        )


async def _all_or_first_error(supervisors: list[Supervisor]) -> None:
    """Starts all; every start comes to its end before the first error is raised, so that all can be stopped."""
    results = await asyncio.gather(*(supervisor.start() for supervisor in supervisors), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
