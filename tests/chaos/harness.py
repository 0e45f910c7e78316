"""The whole platform as processes of a test's own: started, killed, stopped and asked from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from aiohttp import ClientError, ClientSession, ClientTimeout
from chaos.observed import Observed, Sandbox
from support import until

from harkara.embedded import launch
from harkara.embedded.directory import DataDirectory
from harkara.embedded.ports import free_ports

#: What each server is recognised by in its command line, and in which word of it.
CHILDREN = {"nats": (0, "nats-server"), "postgres": (0, "postgres"), "valkey": (0, "valkey"), "gateway": (3, "gateway")}

_ROWS_AT_ONCE = 2000

#: Who asks through outages asks again after this long without an answer; any other waits as long as it takes.
PATIENCE = ClientTimeout(total=15)
UNHURRIED = ClientTimeout(total=60)

#: Settings of the developer's own shell must not steer what is tested.
_FOREIGN = (
    "DATABASE_",
    "NATS_",
    "REDIS_",
    "WHATSAPP_",
    "PUBLIC_",
    "SECRET_",
    "CONNECTION_",
    "SPEED",
    "UNKNOWN_",
    "TRUSTED_",
    "EVOLUTION_",
    "WAHA_",
    "METRICS_",
    "OTEL_",
    "SENTRY_",
)


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of ours, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {"PYTHONUNBUFFERED": "1", "TRUSTED_PROXIES": "127.0.0.1"} | more


def _tied_to_us() -> list[str]:
    """What makes a process end when the tests are killed: nothing of theirs may stay behind (Linux)."""
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGKILL)), "plain"]


class Process:
    """One `harkara …` command, its output appended to a file; dead when the block around it is left."""

    def __init__(self, arguments: list[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self.name = log.stem
        self._log = log
        self._environ = dict(environ or environment())
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process, "it was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def spawn(self) -> None:
        """Start it, in a session of its own."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_tied_to_us(),
                sys.executable,
                "-m",
                "harkara",
                *self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=self._environ,
                start_new_session=True,
            )

    def signal(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    async def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        await self.ended(60)

    async def stop(self, within_s: float = 40) -> int:
        """Ask it to stop, as an operator does; its exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended(within_s)

    async def ended(self, within_s: float) -> int:
        assert self._process
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    def output(self) -> str:
        return self._log.read_text(errors="replace")


class Platform(Observed):
    """`harkara up` on a directory and ports that stay the same from one start to the next."""

    def __init__(self, directory: Path, *, speed: float = 1.0, **environ: str) -> None:
        self.data = directory / "data"
        self.environ = environ
        self.port, self.gateway_port, self.nats_port = free_ports(3)
        self.process = Process(
            [
                *("up", "--data", str(self.data), "--port", str(self.port)),
                *("--gateway-port", str(self.gateway_port), "--nats-port", str(self.nats_port)),
                *("--speed", str(speed)),
            ],
            directory / "up.log",
            environment(**environ),
        )
        self.session = ClientSession(timeout=UNHURRIED)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway(self) -> Sandbox:
        return Sandbox(self.session, f"http://127.0.0.1:{self.gateway_port}")

    @property
    def nats_url(self) -> str:
        return f"nats://svc:{(self.data / 'nats.password').read_text().strip()}@127.0.0.1:{self.nats_port}"

    def database_url(self, user: str) -> str:
        """The database as one of its roles; `postgres` sees all rows."""
        sockets = quote(str(DataDirectory(self.data).sockets()), safe="")
        return f"postgresql://{user}@/harkara?host={sockets}&port=5432"

    @property
    def redis_url(self) -> str:
        return f"unix://{DataDirectory(self.data).sockets() / 'valkey.sock'}"

    def outputs(self) -> list[str]:
        return [self.process.output()]

    async def start(self, within_s: float = 100) -> None:
        """Start it and wait until it is ready."""
        await self.process.spawn()
        await self.until_ready(within_s)

    async def until_ready(self, within_s: float = 100) -> None:
        await until(self._ready_or_dead, "the platform is ready", within_s, every=0.05)
        assert self.process.running, f"harkara up ended by itself:\n{self.process.output()[-3000:]}"

    async def _ready_or_dead(self) -> bool:
        return not self.process.running or await answers(self.session, f"{self.url}/readyz")

    def children(self) -> dict[str, int]:
        """The process ids of the servers that run now, by name."""
        found = {}
        for pid in children_of(self.process.pid):
            words = command_of(pid)
            for name, (place, mark) in CHILDREN.items():
                if len(words) > place and mark in words[place]:
                    found[name] = pid
        return found

    async def kill(self, *, all_at_once: bool = False) -> None:
        """kill -9 of the process, whose servers then stop by themselves; or of its servers in the same moment."""
        children = self.children().values() if all_at_once else ()
        self.process.signal(signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.ended(60)

    async def kill_server(self, name: str) -> None:
        """kill -9 of one server, which is started again by the platform; returns when a new one runs."""
        before = self.children().get(name)
        if before is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(before, signal.SIGKILL)
        await until(lambda: self.children().get(name) not in (None, before), f"{name} is started again", 60)

    async def close(self) -> None:
        """End everything that may still run."""
        if self.process.running:
            await self.kill()
        await self.session.close()
        await until(lambda: not _locked(self.data / "children.lock"), "the last server has ended", 60)


@asynccontextmanager
async def running(directory: Path, *, speed: float = 1.0, **environ: str) -> AsyncIterator[Platform]:
    """A platform that is ready; nothing of it runs after the block. A failure shows the end of its log."""
    platform = Platform(directory, speed=speed, **environ)
    try:
        await platform.start()
        yield platform
    except BaseException:
        print(f"the end of harkara's own output:\n{platform.process.output()[-6000:]}")
        raise
    finally:
        await platform.close()


def children_of(parent: int) -> list[int]:
    """The processes that were started by this one and have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(ppid) == parent and state != "Z":
                    found.append(int(entry.name))
    return found


def command_of(pid: int) -> list[str]:
    """A process's command line; empty when it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _locked(path: Path) -> bool:
    import fcntl

    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def answers(session: ClientSession, url: str) -> bool:
    """Whether a GET is answered with 200 within two seconds."""
    try:
        async with session.get(url, timeout=ClientTimeout(total=2)) as response:
            return response.status == 200
    except (ClientError, OSError):
        return False


@dataclass
class Tenant:
    """Somebody who uses the platform over HTTP: with `patient`, through every outage."""

    session: ClientSession
    url: str
    id: str
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and body of one request under /api/v1. Raises ClientError or OSError if there is no answer."""
        headers = self.headers | more.pop("headers", {})
        if body is not None:
            more["json"] = body
        async with self.session.request(method, f"{self.url}/api/v1{path}", headers=headers, **more) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The body of a request that must succeed."""
        status, answer = await self.ask(method, path, body, **more)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    async def get(self, path: str) -> Any:
        return await self.call("GET", path)

    async def message(self, id_: str) -> Any:
        """One message, as soon as it is stored: what was accepted may lie in the stream for a while."""
        found: list[tuple[int, Any]] = []

        async def stored() -> bool:
            found[:] = [await self.ask("GET", f"/messages/{id_}")]
            return found[0][0] != 404

        await until(stored, f"the message {id_} is stored", every=0.1)
        assert found[0][0] == 200, found
        return found[0][1]

    async def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return await self.call("POST", path, body, **more)

    async def patiently(self, method: str, path: str, body: Any = None, within_s: float = 120) -> tuple[int, Any]:
        """Ask until somebody answers with anything but 5xx, under one idempotency key; status and body.

        A request that was given up may still be worked on: then it is asked for again, too.
        """
        headers = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
        answer: list[tuple[int, Any]] = []

        async def answered() -> bool:
            with contextlib.suppress(ClientError, OSError, TimeoutError):
                answer[:] = [await self.ask(method, path, body, headers=headers, timeout=PATIENCE)]
                return answer[0][0] < 500 and not _at_work(*answer[0])
            return False

        await until(answered, f"{method} {path} is answered", within_s, every=0.1)
        return answer[0]

    async def ids(self, path: str) -> list[str]:
        """The ids of all items of a list."""
        return [item["id"] for item in await self.every(path)]

    async def every(self, path: str) -> list[Any]:
        """All items of a list, page by page."""
        items: list[Any] = []
        cursor = ""
        while True:
            page = await self.get(f"{path}{'&' if '?' in path else '?'}limit=200{cursor}")
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = f"&cursor={page['next']}"

    async def sender(self, *, mps: int = 1000, **more: Any) -> Any:
        """A number on the sandbox."""
        return await self.post("/senders", {"name": "Shop", "provider": "sandbox", "mps": mps} | more)

    async def campaign(self, sender_id: str, *delay_hours: float, **more: Any) -> str:
        """The id of an active campaign with a text step at each of these delays."""
        wanted = {"name": "Welcome", "sender_id": sender_id, "stop_on_reply": False} | more
        id_ = (await self.post("/campaigns", wanted))["id"]
        for number, hours in enumerate(delay_hours):
            body = f"step {number} for {{{{ name }}}}"
            await self.post(f"/campaigns/{id_}/steps", {"name": f"s{number}", "delay_hours": hours, "body": body})
        await self.post(f"/campaigns/{id_}/activate")
        return str(id_)

    async def contact(self, **more: Any) -> Any:
        """A contact who consents, unless told otherwise."""
        return await self.post("/contacts", {"name": "Asha Rao", "phone": a_phone(), "consent": True} | more)

    async def contacts(self, count: int, tag: str = "all") -> None:
        """Many contacts who consent, from a CSV file."""
        first = random.SystemRandom().randrange(10**4)
        rows = [f"Person {n},+9198{first:04d}{n:04d},true,{tag}" for n in range(count)]
        # Files of a size that is taken in at once; a larger one would become a job.
        for start in range(0, count, _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            text = "\n".join(["name,phone,consent,tags", *some, ""]).encode()
            made = await self.call("POST", "/contacts/import", data=text, headers={"Content-Type": "text/csv"})
            assert made["created"] == len(some), made


async def new_tenant(session: ClientSession, url: str) -> Tenant:
    """Sign up; the tenant's owner."""
    tenant = Tenant(session, url, f"t-{uuid4().hex[:12]}")
    account = {"tenant": {"id": tenant.id, "name": tenant.id}, "password": "correct horse battery"}
    # From an address of its own: no address makes as many accounts as these tests do.
    somewhere = {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"}
    account["email"] = f"owner@{tenant.id}.example"
    answer = await tenant.post("/auth/signup", account, headers=somewhere)
    tenant.headers["Authorization"] = f"Bearer {answer['access_token']}"
    key = await tenant.post("/api-keys", {"name": "test", "scopes": ["*"]})
    # A key outlives the longest test; a token may not.
    tenant.headers = {"X-API-Key": key["key"]}
    return tenant


def _at_work(status: int, problem: Any) -> bool:
    """Whether a request is refused because the one before it, under the same key, has not ended."""
    return status == 409 and any(error.get("path") == "Idempotency-Key" for error in problem.get("errors", ()))


def a_phone() -> str:
    """An Indian number that no other contact has."""
    return f"+919{uuid4().int % 10**9:09d}"
