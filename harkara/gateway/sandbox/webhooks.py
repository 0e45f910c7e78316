"""Statuses and inbound messages as signed webhooks: at their time, in batches when busy, again until answered 200."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, NamedTuple

import aiohttp
import msgspec
from loguru import logger

from harkara.gateway.errors import rule_for
from harkara.gateway.sandbox.faults import Faults, Subject, webhook_delay
from harkara.gateway.sandbox.numbers import Number, Numbers, user_id
from harkara.gateway.sandbox.policy import find_template
from harkara.gateway.sandbox.store import ARRIVED, DELIVERED, FAILED, STATUSES, Row, Store
from harkara.gateway.sandbox.wire import TemplateObject

#: Updates in one POST at most, and POSTs in flight to one number's address at most.
BATCH = 500
IN_FLIGHT = 4

#: Waits between attempts: half a second, then twice as long each time up to an hour, for seven days.
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 3600.0
GIVE_UP_AFTER_S = 7 * 24 * 3600.0

#: How long an address may take to answer.
ANSWER_S = 10.0

#: Due webhooks are looked at this often at most, so that a busy second makes batches instead of single POSTs.
_TICK_S = 0.004

#: Messages with updates to come that are held in memory.
KEPT = 100_000

#: While an address fails, it is tried at least this often.
LONGEST_PROBE_S = 30.0

#: After so many failures in a row, an address counts as having been down rather than as refusing one payload.
_OUTAGE = 3

#: The largest body that WhatsApp posts, in bytes; a bigger batch is posted in parts.
LARGEST_POST = 3_000_000

_template = msgspec.json.Decoder(TemplateObject)

_NAMES = {bit: name for name, bit in STATUSES} | {ARRIVED: "inbound"}
_BITS = (*(bit for _, bit in STATUSES), ARRIVED)


class Update(NamedTuple):
    """One status (or ARRIVED for an inbound message) of one message."""

    bit: int
    row: Row
    faulted: bool = False


class _Batch(NamedTuple):
    updates: list[Update]
    attempt: int
    first_tried: float


class Webhooks:
    """Knows which updates are owed, and delivers them.

    At most `KEPT` messages are held in memory; beyond that they wait in the store, in order, until there is room.
    """

    def __init__(self, store: Store, numbers: Numbers, faults: Faults) -> None:
        self._store = store
        self._numbers = numbers
        self._faults = faults
        self._due: list[tuple[int, int, Update]] = []
        self._order = 0
        # Messages with updates still to fall due, and due updates that were not delivered yet.
        self._kept = 0
        self._undelivered = 0
        self._kept_up_to = 0
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._queues: dict[str, _Queue] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Take up what an earlier run still owed."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._load()
        if self._kept:
            logger.info("webhooks: taking up {} messages whose updates were not all delivered", self._kept)

    async def stop(self) -> None:
        """Stop delivering; what is owed stays owed."""
        if self._timer is not None:
            self._timer.cancel()
        for queue in self._queues.values():
            await queue.stop()
        if self._session is not None:
            await self._session.close()

    async def tell(self, number: Number, change: dict[str, Any]) -> str | None:
        """Post one change that is of no message, once; what went wrong, or None."""
        entry = {"id": number.waba, "time": self._store.now() // 1000, "changes": [change]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}, separators=(",", ":"))
        return await post(self._http(), number, body.encode("ascii"))

    def plan(self, row: Row) -> None:
        """Schedule a message's updates, each at its own time."""
        if not row.planned:
            return
        if self._waiting or self._room() <= 0:
            self._waiting = True
            return
        self._keep(row)

    def _room(self) -> int:
        return KEPT - self._kept - self._undelivered

    def _keep(self, row: Row) -> None:
        self._kept += 1
        self._kept_up_to = max(self._kept_up_to, row.id)
        # An inbound message is delivered whole; of an outbound one only the status matters, and what it is charged as.
        self._push_next(row if row.inbound else row._replace(content=self._category(row).encode()), after=0)

    def _category(self, row: Row) -> str:
        """What a message is charged as: its template's own category, `marketing` if that was never registered."""
        if row.type != "template":
            return "service"
        content, number = _template.decode(row.content), self._numbers.get(row.number)
        waba = number.waba_id or None if number is not None else None
        found = find_template(self._store, waba, content.name, content.language.code)
        return str(found["category"]).lower() if found else "marketing"

    def _load(self) -> None:
        """Fill up from the store."""
        room = self._room()
        rows = self._store.unreported(self._kept_up_to, room)
        self._waiting = len(rows) == room
        for row in rows:
            self._keep(row)

    def _push_next(self, row: Row, after: int) -> None:
        """Schedule the first update after the given one; the message is done with when there is none."""
        for bit in _BITS:
            if bit > after and row.planned & bit and not row.reported & bit:
                self._push(row.time_of(bit), Update(bit, row))
                return
        self._kept -= 1

    def _push(self, due: int, update: Update) -> None:
        self._order += 1
        heappush(self._due, (due, self._order, update))
        if self._timer is None or self._due[0][1] == self._order:
            self._arm()

    def _arm(self) -> None:
        """Wake up when the earliest update is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            wait = max(_TICK_S, (self._due[0][0] - self._store.now()) / 1000)
            self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _tick(self) -> None:
        now = self._store.now()
        touched: set[_Queue] = set()
        while self._due and self._due[0][0] <= now:
            update = heappop(self._due)[2]
            queue = self._dispatch(update)
            if queue is not None:
                touched.add(queue)
            if not update.faulted:
                self._push_next(update.row, update.bit)
        for queue in touched:
            queue.kick()
        self._fill_up()
        self._arm()

    def _settled(self, updates: list[Update]) -> None:
        """Note what needs no delivery any more."""
        for update in updates:
            self._store.report(update.row.id, update.bit)
        self._undelivered -= len(updates)
        self._fill_up()

    def _fill_up(self) -> None:
        if self._waiting and self._room() > KEPT // 2:
            self._load()

    def _dispatch(self, update: Update) -> _Queue | None:
        """Hand a due update to its number's queue, or let a fault have it."""
        row = update.row
        number = self._numbers.get(row.number)
        if number is None or not number.url:
            self._store.report(row.id, update.bit)
            return None
        if self._faults.on_webhooks and not update.faulted and self._struck(update):
            return None
        queue = self._queues.get(row.number)
        if queue is None:
            queue = self._queues[row.number] = _Queue(row.number, self._numbers, self._http, self._settled)
        self._undelivered += 1
        queue.ready.append(update)
        return queue

    def _struck(self, update: Update) -> bool:
        """Whether a fault takes the update away, for now or for ever."""
        row = update.row
        stored = self._store.rows("id = ?", row.id)
        content = stored[0].content if stored else row.content
        fault = self._faults.on_webhook(Subject(row.number, row.chat, row.type, content, _NAMES[update.bit]))
        if fault is None:
            return False
        if fault.kind == "webhook_lost":
            self._store.report(row.id, update.bit)
            return True
        self._push(self._store.now() + webhook_delay(fault), update._replace(faulted=True))
        return fault.kind == "webhook_reordered"

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("webhooks were not started")
        return self._session


class _Queue:
    """What is due to one number's address, and the tasks that deliver it.

    A batch that fails comes again on its own schedule and doesn't hold up others. While nothing gets through, the
    address is tried by one task at a time, less and less often; when it answers again, all that waits goes out at once.
    """

    def __init__(
        self,
        phone_number_id: str,
        numbers: Numbers,
        http: Callable[[], aiohttp.ClientSession],
        settled: Callable[[list[Update]], None],
    ) -> None:
        self.ready: deque[Update] = deque()
        self._phone_number_id = phone_number_id
        self._numbers = numbers
        self._http = http
        self._settled = settled
        self._retries: deque[_Batch] = deque()
        self._later: dict[asyncio.TimerHandle, _Batch] = {}
        self._reopen: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._stopped = False

    def kick(self) -> None:
        """Deliver what is ready with as many tasks as may be; none while the address is left alone."""
        if self._reopen is not None:
            return
        allowed = 1 if self._failures else IN_FLIGHT
        wanted = len(self._retries) + -(-len(self.ready) // BATCH)
        while len(self._tasks) < min(allowed, wanted):
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._stopped:
            return
        if (error := task.exception()) is not None:
            logger.opt(exception=error).error("webhook of {}: delivery broke off", self._phone_number_id)
        # What became due after its last look, and before it was known to have ended, has started no other.
        self.kick()

    async def stop(self) -> None:
        """End the tasks and timers."""
        self._stopped = True
        for timer in self._later:
            timer.cancel()
        if self._reopen is not None:
            self._reopen.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self) -> None:
        while self._reopen is None and (batch := self._next()) is not None:
            await self._deliver(batch)

    def _next(self) -> _Batch | None:
        if not self.ready:
            return self._retries.popleft() if self._retries else None
        updates = [self.ready.popleft() for _ in range(min(BATCH, len(self.ready)))]
        return _Batch(updates, 1, asyncio.get_running_loop().time())

    async def _deliver(self, batch: _Batch) -> None:
        number = self._numbers.get(self._phone_number_id)
        if number is None or not number.url:
            self._settled(batch.updates)
            return
        body = payload(number, batch.updates)
        if len(body) > LARGEST_POST and len(batch.updates) > 1:
            half = len(batch.updates) // 2
            await self._deliver(batch._replace(updates=batch.updates[:half]))
            await self._deliver(batch._replace(updates=batch.updates[half:]))
            return
        problem = await post(self._http(), number, body)
        if problem is None:
            self._answered()
            self._settled(batch.updates)
        else:
            self._try_later(batch, problem)
            self._leave_alone()

    def _answered(self) -> None:
        """Note a success; after an outage, bring back all that waits for its next attempt."""
        outage, self._failures = self._failures >= _OUTAGE, 0
        if outage:
            later, self._later = self._later, {}
            for timer, batch in later.items():
                timer.cancel()
                self._retries.append(batch)
        self.kick()

    def _leave_alone(self) -> None:
        """Do not touch a failing address for a while."""
        self._failures += 1
        wait = min(FIRST_RETRY_S * 2 ** (min(self._failures, 20) - 1), LONGEST_PROBE_S)
        if self._reopen is None:
            self._reopen = asyncio.get_running_loop().call_later(wait, self._open_again)

    def _open_again(self) -> None:
        self._reopen = None
        self.kick()

    def _try_later(self, batch: _Batch, problem: str) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - batch.first_tried > GIVE_UP_AFTER_S:
            logger.warning("webhook of {} given up after 7 days: {}", self._phone_number_id, problem)
            self._settled(batch.updates)
            return
        wait = min(FIRST_RETRY_S * 2 ** (min(batch.attempt, 20) - 1), LONGEST_RETRY_S)
        logger.info(
            "webhook of {}: {}; attempt {} failed, the next in {} s",
            self._phone_number_id,
            problem,
            batch.attempt,
            wait,
        )
        again = batch._replace(attempt=batch.attempt + 1)

        def retry() -> None:
            self._retries.append(self._later.pop(timer))
            self.kick()

        timer = loop.call_later(wait, retry)
        self._later[timer] = again


async def post(session: aiohttp.ClientSession, number: Number, body: bytes) -> str | None:
    """Deliver one signed payload; what went wrong, or None if it was answered with 200."""
    headers = {"Content-Type": "application/json", "User-Agent": "facebookexternalua"}
    if number.app_secret:
        headers["X-Hub-Signature-256"] = signature(number.app_secret, body)
    try:
        async with session.post(number.url, data=body, headers=headers, allow_redirects=False) as response:
            await response.read()
            return None if response.status == 200 else f"{number.url} answered {response.status}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{number.url} is not reached: {type(error).__name__} {error}"


def signature(app_secret: str, body: bytes) -> str:
    """The value of X-Hub-Signature-256 for these exact bytes."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()


def payload(number: Number, updates: list[Update]) -> bytes:
    """The webhook's body: one change per update, in ASCII with everything else escaped, as the Cloud API does."""
    metadata = (
        '"messaging_product":"whatsapp","metadata":{'
        f'"display_phone_number":{_quoted(number.display)},"phone_number_id":{_quoted(number.phone_number_id)}}}'
    )
    changes = ",".join([_change(metadata, update) for update in updates])
    entry = f'{{"id":{_quoted(number.waba)},"changes":[{changes}]}}'
    return f'{{"object":"whatsapp_business_account","entry":[{entry}]}}'.encode("ascii")


def _change(metadata: str, update: Update) -> str:
    if update.bit == ARRIVED:
        return _inbound_change(metadata, update.row)
    status, contacts = _status(update.row, update.bit)
    return f'{{"value":{{{metadata},{contacts}"statuses":[{status}]}},"field":"messages"}}'


def _status(row: Row, bit: int) -> tuple[str, str]:
    """One status as JSON, and the contacts that go with it: none when it failed."""
    phone = row.chat.isdecimal()
    user = _quoted(user_id(row.chat))
    parts = [f'"id":"{row.wamid}","status":"{_NAMES[bit]}","timestamp":"{row.time_of(bit) // 1000}"']
    if phone:
        parts.append(f'"recipient_id":"{row.chat}"')
    if bit != FAILED or not phone:
        parts.append(f'"recipient_user_id":{user}')
    if row.opaque is not None:
        parts.append(f'"biz_opaque_callback_data":{_quoted(row.opaque)}')
    if bit == DELIVERED:
        parts.append(_pricing(row.content.decode()))
    if bit == FAILED:
        parts.append(f'"errors":[{_ascii(_error(row.error or 131026))}]')
        return "{" + ",".join(parts) + "}", ""
    wa_id = f'"wa_id":"{row.chat}",' if phone else ""
    return "{" + ",".join(parts) + "}", f'"contacts":[{{{wa_id}"user_id":{user}}}],'


def _pricing(category: str) -> str:
    """Since October 2026 Meta charges within the 24-hour window, too."""
    return f'"pricing":{{"billable":true,"pricing_model":"PMP","type":"regular","category":{_quoted(category)}}}'


def _error(code: int) -> dict[str, Any]:
    title = rule_for(code).title
    return {
        "code": code,
        "title": title,
        "message": title,
        "error_data": {"details": title},
        "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
    }


class Arrival(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an inbound message besides its row: the message's own fields and who wrote it."""

    fields: dict[str, Any]
    contact: dict[str, Any] = {}
    user_id_only: bool = False


_arrival = msgspec.json.Decoder(Arrival)


#: How a call begins.
CALL = {"event": "connect", "direction": "USER_INITIATED", "session": {"sdp_type": "offer", "sdp": "v=0"}}


def _inbound_change(metadata: str, row: Row) -> str:
    arrival = _arrival.decode(row.content)
    who = {} if arrival.user_id_only or not row.chat.isdecimal() else {"wa_id": row.chat}
    contact = {"profile": arrival.contact, **who, "user_id": user_id(row.chat)}
    stamp = str(row.at // 1000)
    if row.type == "user_preferences":
        preference = {**who, "user_id": user_id(row.chat), "timestamp": int(stamp), **arrival.fields[row.type]}
        value = f'"contacts":[{_ascii(contact)}],"user_preferences":[{_ascii(preference)}]'
        return f'{{"value":{{{metadata},{value}}},"field":"user_preferences"}}'
    sender = {"from": who["wa_id"]} if who else {}
    message: dict[str, Any] = {**sender, "from_user_id": user_id(row.chat), "id": row.wamid, "timestamp": stamp}
    if row.type == "call":
        value = f'"contacts":[{_ascii(contact)}],"calls":[{_ascii({**message, **CALL, **arrival.fields[row.type]})}]'
        return f'{{"value":{{{metadata},{value}}},"field":"calls"}}'
    message |= {"type": row.type, **arrival.fields}
    value = f'"contacts":[{_ascii(contact)}],"messages":[{_ascii(message)}]'
    return f'{{"value":{{{metadata},{value}}},"field":"messages"}}'


def _ascii(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
