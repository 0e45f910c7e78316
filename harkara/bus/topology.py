"""The streams as `nats/topology.toml` describes them: read, compared with the server, and applied."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
from nats import errors as nats_errors
from nats.js import JetStreamContext

import harkara
from harkara.bus import headers
from harkara.bus.api import (
    NO_MESSAGE,
    NO_RESOURCES,
    NO_STORAGE,
    NO_STREAM,
    STREAM_EXISTS,
    Api,
    ApiError,
    is_cluster,
    patiently,
)
from harkara.bus.errors import TopologyError, Unavailable
from harkara.bus.subjects import covers, matches

#: Within this time a cluster that lost a server answers again, or has lost too many.
_ELECTION_S = 20.0

_MISSING = "missing"


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all streams share."""

    replicas: int = 1
    replicas_on_cluster: int = 3
    duplicate_window_s: int = 120
    max_consumers: int = 20_000


class Consumers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all durable consumers share."""

    ack_wait_s: float = 10
    max_ack_pending: int = 20_000


class Stream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stream: sizes are limits, -1 is none."""

    name: str
    about: str
    subjects: tuple[str, ...]
    retention: Literal["workqueue", "limits"]
    schedules: bool = False
    max_per_subject: int = -1
    max_megabytes: int = -1
    max_message_kb: int = -1
    max_age_days: int = 0

    def takes(self, subject: str) -> bool:
        """Whether a message on this subject is stored here."""
        return any(matches(pattern, subject) for pattern in self.subjects)

    def covers(self, pattern: str) -> bool:
        """Whether everything a filter can match is stored here."""
        return any(covers(subject, pattern) for subject in self.subjects)


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message the broker sends again and again."""

    subject: str
    target: str
    every_s: int
    keep_s: int


class Change(msgspec.Struct, frozen=True):
    """One difference between page and server, or one that was made equal."""

    what: str
    have: str
    want: str

    @property
    def makes(self) -> bool:
        """Whether the server had nothing of the kind."""
        return self.have == _MISSING

    def __str__(self) -> str:
        return f"{self.what}: {self.have} -> {self.want}"


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole page."""

    defaults: Defaults
    consumers: Consumers
    streams: tuple[Stream, ...]
    schedules: tuple[Schedule, ...] = ()

    def stream_of(self, subject: str) -> Stream:
        """The stream a subject or filter belongs to. Raises TopologyError if it is none of the page's."""
        for stream in self.streams:
            if stream.covers(subject):
                return stream
        raise TopologyError(f"no stream takes {subject}: add it to the subjects of one in nats/topology.toml")

    def filters(self, actor: str, patterns: Sequence[str]) -> dict[str, list[str]]:
        """Stream -> filters one actor reads: what it takes, and its retry subject where its own stream has none."""
        wanted: dict[str, list[str]] = {}
        for pattern in patterns:
            wanted.setdefault(self.stream_of(pattern).name, []).append(pattern)
        schedulable = {stream.name for stream in self.streams if stream.schedules}
        if not wanted.keys() <= schedulable:
            retry = f"t.*.work.{actor}.retry"
            home = self.stream_of(retry)
            if self.stream_of(f"t.*.at.{actor}.*.*") != home:
                raise TopologyError(f"t.*.at.{actor}.> must lie in {home.name}: add it in nats/topology.toml")
            if not any(covers(pattern, retry) for pattern in wanted.get(home.name, ())):
                wanted.setdefault(home.name, []).append(retry)
        return wanted


def page() -> Path:
    """Where the topology page lies: in the installed package, or at the root of a checkout."""
    package = Path(harkara.__file__).parent
    for folder in (package / "nats_config", package.parent / "nats"):
        if (folder / "topology.toml").is_file():
            return folder / "topology.toml"
    raise TopologyError("nats/topology.toml is missing: reinstall harkara, or run from a complete checkout")


@cache
def load() -> Topology:
    """The page, read once. Raises TopologyError that names the fault."""
    return parse(page().read_bytes())


def parse(text: bytes) -> Topology:
    """A page's content. Raises TopologyError that names the fault."""
    try:
        page = msgspec.toml.decode(text, type=Topology)
    except (msgspec.MsgspecError, ValueError) as error:
        raise TopologyError(f"nats/topology.toml cannot be read: {error}") from error
    for stream in page.streams:
        if stream.schedules and (stream.max_megabytes > 0 or stream.max_per_subject > 0):
            raise TopologyError(
                f"nats/topology.toml: {stream.name} has schedules, so the server would make room by throwing accepted "
                "messages away: remove its max_megabytes and max_per_subject"
            )
    return page


async def diff(js: JetStreamContext, topology: Topology | None = None, *, replicas: int = 0) -> list[Change]:
    """What differs on the server, readable; empty when nothing does. `replicas` overrides the page's number."""
    page, api, replicas = topology or load(), _api(js), replicas or usual_replicas(topology or load(), js)
    changes: list[Change] = []
    for stream in page.streams:
        changes += _differences(stream, await _actual(api, stream.name), wanted_config(page, stream, replicas))
    for schedule in page.schedules:
        changes += await _schedule_difference(api, page, schedule)
    return changes


async def apply(js: JetStreamContext, topology: Topology | None = None, *, replicas: int = 0) -> list[Change]:
    """Make the server equal to the page; what was changed. Safe to run again, and by several processes at once.

    Raises TopologyError for what the server cannot change on a stream that exists, and Unavailable.
    """
    page, api, replicas = topology or load(), _api(js), replicas or usual_replicas(topology or load(), js)
    changes: list[Change] = []
    for stream in page.streams:
        changes += await _apply_stream(api, stream, wanted_config(page, stream, replicas))
    for schedule in page.schedules:
        missing = await _schedule_difference(api, page, schedule)
        if missing:
            await _publish(js, schedule, api.patience_s)
        changes += missing
    return changes


def usual_replicas(page: Topology, js: JetStreamContext) -> int:
    """How many servers keep each stream. What counts is what the broker is, not how many of its servers run now."""
    return page.defaults.replicas_on_cluster if is_cluster(js) else page.defaults.replicas


def _api(js: JetStreamContext) -> Api:
    """The API; on a cluster it asks again while servers elect a leader."""
    return Api.over(js, _ELECTION_S if is_cluster(js) else 0)


def wanted_config(page: Topology, stream: Stream, replicas: int = 0) -> dict[str, Any]:
    """A stream's configuration as JetStream writes it."""
    queue = stream.retention == "workqueue"
    return {
        "name": stream.name,
        "description": stream.about,
        "subjects": list(stream.subjects),
        "retention": stream.retention,
        "storage": "file",
        "num_replicas": replicas or page.defaults.replicas,
        "max_consumers": page.defaults.max_consumers,
        "max_msgs": -1,
        "max_bytes": stream.max_megabytes * 1024 * 1024 if stream.max_megabytes > 0 else -1,
        "max_age": stream.max_age_days * 86_400 * 10**9,
        "max_msgs_per_subject": stream.max_per_subject,
        "max_msg_size": stream.max_message_kb * 1024 if stream.max_message_kb > 0 else -1,
        # A full work queue refuses what is new; it never throws away what it has accepted. With schedules the server
        # knows only "old", so such a stream has no size limit of its own: the server's max_file refuses what is new.
        "discard": "new" if queue and not stream.schedules else "old",
        "discard_new_per_subject": queue and stream.max_per_subject > 0,
        "duplicate_window": page.defaults.duplicate_window_s * 10**9,
        "allow_msg_schedules": stream.schedules,
        "allow_msg_ttl": stream.schedules,
        # What is kept is also read: feeds page through history without a consumer.
        "allow_direct": not queue,
    }


async def _actual(api: Api, name: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await api.call(f"STREAM.INFO.{name}"))["config"]
    except ApiError as error:
        if error.code == NO_STREAM:
            return None
        raise
    return config


def _differences(stream: Stream, actual: dict[str, Any] | None, wanted: dict[str, Any]) -> list[Change]:
    if actual is None:
        return [Change(f"stream {stream.name}", _MISSING, ", ".join(stream.subjects))]
    # The server leaves out what is false, so a missing key is compared as that.
    return [
        Change(f"stream {stream.name} {key}", str(actual.get(key, False)), str(value))
        for key, value in wanted.items()
        if not _same(actual.get(key, False), value)
    ]


def _same(have: object, want: object) -> bool:
    if isinstance(have, list) and isinstance(want, list):
        return sorted(map(str, cast(list[object], have))) == sorted(map(str, cast(list[object], want)))
    return have == want


async def _apply_stream(api: Api, stream: Stream, wanted: dict[str, Any]) -> list[Change]:
    actual = await _actual(api, stream.name)
    if actual is None:
        try:
            await api.call(f"STREAM.CREATE.{stream.name}", wanted)
        except ApiError as error:
            if error.code != STREAM_EXISTS:
                raise TopologyError(f"stream {stream.name} cannot be created: {error}{_hint(error)}") from error
            # Another process made it meanwhile, from another page: it is brought to ours below.
            actual = await _actual(api, stream.name)
        else:
            return _differences(stream, None, wanted)
    changes = _differences(stream, actual, wanted)
    if changes:
        try:
            await api.call(f"STREAM.UPDATE.{stream.name}", {**(actual or {}), **wanted})
        except ApiError as error:
            asked = "; ".join(map(str, changes))
            raise TopologyError(
                f"the server cannot change a stream that exists ({error}): {asked}. Take that back in "
                f"nats/topology.toml, or give the stream a new name{_hint(error)}"
            ) from error
    return changes


def _hint(error: ApiError) -> str:
    if error.code in (NO_STORAGE, NO_RESOURCES):
        return " - lower max_megabytes in nats/topology.toml, or give the server more disk (max_file)"
    return ""


def schedule_headers(schedule: Schedule) -> dict[str, str]:
    """What makes the broker send the target every so often; ticks nobody took are rolled up into one."""
    return {
        headers.SCHEDULE: f"@every {schedule.every_s}s",
        headers.SCHEDULE_TARGET: schedule.target,
        "Nats-Schedule-TTL": f"{schedule.keep_s}s",
        "Nats-Schedule-Rollup": "sub",
    }


async def _schedule_difference(api: Api, page: Topology, schedule: Schedule) -> list[Change]:
    """The change if the schedule is missing or differs; none otherwise."""
    home = page.stream_of(schedule.subject).name
    wanted = schedule_headers(schedule)
    try:
        found = await api.call(f"STREAM.MSG.GET.{home}", {"last_by_subj": schedule.subject})
    except ApiError as error:
        if error.code in (NO_STREAM, NO_MESSAGE):
            return [Change(f"schedule {schedule.subject}", _MISSING, str(wanted))]
        raise
    text = b64decode(found["message"].get("hdrs", "")).decode()
    have = dict(line.split(": ", 1) for line in text.split("\r\n") if ": " in line)
    if wanted.items() <= have.items():
        return []
    return [Change(f"schedule {schedule.subject}", str(have), str(wanted))]


async def _publish(js: JetStreamContext, schedule: Schedule, patience_s: float) -> None:
    """A stream of a cluster that was just made takes nothing until its servers have elected a leader."""
    publish: Any = js.publish  # pyright: ignore[reportUnknownMemberType]

    async def once() -> None:
        try:
            await publish(schedule.subject, b"", headers=schedule_headers(schedule), timeout=5)
        except (nats_errors.Error, OSError, TimeoutError) as error:
            raise Unavailable(f"schedule {schedule.subject} cannot be set: {error}") from error

    try:
        await patiently(once, patience_s)
    except Unavailable as error:
        raise TopologyError(str(error)) from error
