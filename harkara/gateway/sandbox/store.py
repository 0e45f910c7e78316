"""Everything the sandbox remembers, in one SQLite file, written once per turn of the event loop.

What is appended is with the operating system before `committed` returns, so a killed process loses nothing; there is no
fsync, so a power cut may.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

SENT, DELIVERED, READ, FAILED, ARRIVED = 1, 2, 4, 8, 16

#: A status's name and bit, in the order in which they come.
STATUSES = (("sent", SENT), ("delivered", DELIVERED), ("read", READ), ("failed", FAILED))

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,
    inbound INTEGER NOT NULL,
    wamid TEXT NOT NULL,
    number TEXT NOT NULL,
    chat TEXT NOT NULL,
    address TEXT NOT NULL,
    type TEXT NOT NULL,
    content BLOB NOT NULL,
    opaque TEXT,
    context TEXT,
    at INTEGER NOT NULL,
    sent_at INTEGER,
    delivered_at INTEGER,
    read_at INTEGER,
    failed_at INTEGER,
    error INTEGER,
    planned INTEGER NOT NULL,
    reported INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_chat ON messages (chat, number);
CREATE INDEX IF NOT EXISTS messages_at ON messages (at);
CREATE TABLE IF NOT EXISTS contacts (chat TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS numbers (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS templates (
    waba TEXT NOT NULL, name TEXT NOT NULL, language TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (name, language, waba)
);
CREATE TABLE IF NOT EXISTS media (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, body BLOB NOT NULL);
"""

_INSERT = "INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"

_SET = "REPLACE INTO settings VALUES (?, ?)"

_T = TypeVar("_T")


class Row(NamedTuple):
    """One message. Times are milliseconds since the epoch; a status's time is when it comes, known from the start.

    `planned` and `reported` are bits: which webhooks are owed for this message, and which of them were delivered.
    """

    id: int
    inbound: int
    wamid: str
    number: str
    chat: str
    address: str
    type: str
    content: bytes
    opaque: str | None
    context: str | None
    at: int
    sent_at: int | None = None
    delivered_at: int | None = None
    read_at: int | None = None
    failed_at: int | None = None
    error: int | None = None
    planned: int = 0
    reported: int = 0

    def status(self, now_ms: int) -> str:
        """How far an outbound message has come by `now_ms`; `received` or `read` for an inbound one."""
        if self.inbound:
            return "received" if self.read_at is None else "read"
        if self.failed_at is not None and self.failed_at <= now_ms:
            return "failed"
        if self.read_at is not None and self.read_at <= now_ms:
            return "read"
        if self.delivered_at is not None and self.delivered_at <= now_ms:
            return "delivered"
        return "sent" if self.sent_at is not None and self.sent_at <= now_ms else "accepted"

    def time_of(self, bit: int) -> int:
        """When a status comes, or when an inbound message came."""
        if bit == SENT:
            return self.sent_at or self.at
        if bit == DELIVERED:
            return self.delivered_at or self.at
        if bit == READ:
            return self.read_at or self.at
        return self.failed_at or self.at


class Store:
    """The sandbox's memory. All calls are short and made from the event loop."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA cache_size = -16000")
        self._db.executescript(_SCHEMA)
        self._rows: list[Row] = []
        self._reports: list[tuple[int, int]] = []
        self._writes: list[tuple[str, tuple[Any, ...]]] = []
        self._settings: dict[str, Any] = {}
        self._turn: asyncio.Future[None] | None = None
        last = self._db.execute("SELECT id, at FROM messages ORDER BY id DESC LIMIT 1").fetchone()
        self._last_id: int = last[0] if last else 0
        self._last_at: int = last[1] if last else 0

    def close(self) -> None:
        """Write what is left and close the file."""
        self._commit()
        self._db.close()

    def next_id(self) -> int:
        """The id of the next message."""
        self._last_id += 1
        return self._last_id

    def now(self) -> int:
        """The time in milliseconds, never going backwards, not even over a restart."""
        self._last_at = max(self._last_at, int(time.time() * 1000))
        return self._last_at

    def append(self, row: Row) -> None:
        """Keep a message; it is safe once `committed` returns."""
        self._rows.append(row)
        self._start_turn()

    def report(self, message_id: int, bit: int) -> None:
        """Note that a webhook was delivered, so that a restart doesn't send it again."""
        self._reports.append((bit, message_id))
        self._start_turn()

    def write(self, statement: str, *values: Any) -> None:
        """Add any other statement to this turn's transaction."""
        self._writes.append((statement, values))
        self._start_turn()

    def committed(self) -> asyncio.Future[None]:
        """Done when all that was appended up to now is written; raises sqlite3.Error if it could not be."""
        return self._start_turn()

    def _start_turn(self) -> asyncio.Future[None]:
        if self._turn is None:
            loop = asyncio.get_running_loop()
            self._turn = loop.create_future()
            loop.call_soon(self._commit)
        return self._turn

    def _commit(self) -> None:
        turn, self._turn = self._turn, None
        rows, self._rows = self._rows, []
        reports, self._reports = self._reports, []
        writes, self._writes = self._writes, []
        settings, self._settings = self._settings, {}
        writes += [(_SET, (name, msgspec.json.encode(value))) for name, value in settings.items()]
        if turn is None:
            return
        try:
            self._transact(rows, reports, writes)
        except sqlite3.Error as error:
            if not turn.cancelled():
                turn.set_exception(error)
                # Whoever only noted something down does not wait for the turn; those who do still get the error.
                turn.exception()
        else:
            # A request that was cancelled while it waited cancels the turn for all, but what they wrote is written.
            if not turn.cancelled():
                turn.set_result(None)

    def _transact(
        self, rows: list[Row], reports: list[tuple[int, int]], writes: list[tuple[str, tuple[Any, ...]]]
    ) -> None:
        self._db.execute("BEGIN")
        try:
            if rows:
                self._db.executemany(_INSERT, rows)
            if reports:
                self._db.executemany("UPDATE messages SET reported = reported | ? WHERE id = ?", reports)
            for statement, values in writes:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise

    def select(self, statement: str, *values: Any) -> list[Any]:
        """Rows of any query; what this turn has not written yet is not seen."""
        return self._db.execute(statement, values).fetchall()

    def rows(self, condition: str, *values: Any) -> list[Row]:
        """Messages by an SQL condition, which may end in ORDER BY and LIMIT."""
        statement = f"SELECT * FROM messages WHERE {condition}"  # noqa: S608 - conditions are written in this package
        return [Row(*row) for row in self.select(statement, *values)]

    def unreported(self, after_id: int, limit: int) -> list[Row]:
        """Messages with webhooks that were not delivered yet, oldest first."""
        return self.rows("id > ? AND planned != reported & planned ORDER BY id LIMIT ?", after_id, limit)

    def by_wamid(self, wamid: str) -> Row | None:
        """The message with this id, if the sandbox knows it."""
        message_id = id_in(wamid)
        found = [] if message_id is None else self.rows("id = ? AND wamid = ?", message_id, wamid)
        return found[0] if found else None

    def setting(self, name: str, kind: type[_T], default: _T) -> _T:
        """A stored setting, or the default."""
        found = self.select("SELECT body FROM settings WHERE name = ?", name)
        return msgspec.json.decode(found[0][0], type=kind) if found else default

    def save_setting(self, name: str, value: Any) -> None:
        """Store a setting with this turn's transaction; the last value of a turn counts."""
        self._settings[name] = value
        self._start_turn()


def new_wamid(chat: str, message_id: int) -> str:
    """A message id that looks like the Cloud API's and carries our own id, so that finding it needs no index."""
    digits = chat.encode()[:32]
    unique = f"{message_id:010X}{random.getrandbits(32):08X}".encode()
    binary = b"\x1d\x18" + bytes((len(digits),)) + digits + b"\x15\x02\x00\x11\x18\x12" + unique + b"\x00"
    return "wamid." + b64encode(binary).decode()


def id_in(wamid: str) -> int | None:
    """Our own id inside a message id; None if it is not one of ours."""
    if not wamid.startswith("wamid."):
        return None
    try:
        return int(b64decode(wamid[6:], validate=True)[-19:-9], 16)
    except (ValueError, Base64Error):
        return None
