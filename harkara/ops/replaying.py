"""`harkara ops replay`: a range of a stream is handed to one of its readers once more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.table import Table
from rich.text import Text

from harkara.bus import headers
from harkara.bus.api import Api, ApiError
from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.bus.messages import Packet
from harkara.bus.overview import consumers
from harkara.bus.subjects import matches
from harkara.bus.tail import History, Stored
from harkara.ids import uuid7
from harkara.ops import journal
from harkara.ops.reach import data_option, needed
from harkara.ops.terminal import (
    as_json,
    bus_of,
    dry_option,
    known_tenant,
    new_table,
    period,
    rate_option,
    run,
    since_time,
    storage_of,
    subject_option,
    tell,
    who,
    yes_option,
)
from harkara.printing import console
from harkara.schemas.base import tenant_of
from harkara.settings import Settings
from harkara.storage import auditing
from harkara.storage.auditing import Note
from harkara.storage.storage import Storage

#: What a replay may hand on at once: it is shown first, so it is read into memory.
MOST = 100_000

_PAGE = 500


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages of a stream, for which of its readers."""

    stream: str
    actor: str
    pattern: str
    since: datetime | None
    until: datetime | None


async def find(bus: Bus, wanted: Range) -> AsyncIterator[Stored]:
    """The messages, in order. Raises BusError if the stream keeps none, or the actor doesn't read it."""
    filters = await _filters(bus, wanted)
    history, after, more = History(bus.link, wanted.stream), await _before(bus, wanted), True
    until = None if wanted.until is None else _text(wanted.until)
    try:
        while more:
            page = await history.page(wanted.pattern, after, _PAGE)
            for one in page.messages:
                after = one.seq
                if until is not None and one.at > until:
                    return
                if any(matches(pattern, one.subject) for pattern in filters):
                    yield one
            more = page.more and bool(page.messages)
    finally:
        await history.close()


async def _filters(bus: Bus, wanted: Range) -> Sequence[str]:
    """What the actor reads of the stream."""
    kept = [stream.name for stream in bus.topology.streams if stream.retention == "limits"]
    if wanted.stream not in [stream.name for stream in bus.topology.streams]:
        raise BusError(f"there is no stream {wanted.stream}: choose from {', '.join(kept)}")
    if wanted.stream not in kept:
        raise BusError(
            f"{wanted.stream} keeps nothing that is done: choose from {', '.join(kept)}; what was given up is replayed "
            "by `harkara ops dead replay`"
        )
    readers = [one for one in await consumers(Api(bus.link.request), bus.topology) if one.stream == wanted.stream]
    found = next((one for one in readers if one.name == wanted.actor), None)
    if found is None:
        names = ", ".join(sorted(one.name for one in readers))
        instead = f"choose from {names}" if names else "nobody does, so there is nobody to hand it to"
        raise BusError(f"{wanted.actor} does not read {wanted.stream}: {instead}")
    return found.filters


async def _before(bus: Bus, wanted: Range) -> int:
    """The sequence before the first that is wanted."""
    if wanted.since is None:
        return 0
    question = {"start_time": _text(wanted.since), "next_by_subj": wanted.pattern}
    try:
        found = await Api(bus.link.request).call(f"STREAM.MSG.GET.{wanted.stream}", question)
    except ApiError:
        return int((await Api(bus.link.request).call(f"STREAM.INFO.{wanted.stream}"))["state"]["last_seq"])
    return int(found["message"]["seq"]) - 1


def alive(one: Stored, wanted: Range) -> Packet:
    """The copy that is handed to the actor alone, through its retries: others who read it have done their part."""
    told = dict(one.headers or {})
    named = {name: value for name, value in told.items() if not name.startswith(headers.OF_THE_BROKER)}
    tenant = tenant_of(one.subject)
    named.setdefault(headers.ID, told.get(headers.DEDUPE, "").removeprefix(f"{tenant}."))
    named[headers.SUBJECT] = one.subject
    named[headers.DEDUPE] = f"{tenant}.replay.{wanted.stream}.{one.seq}.{wanted.actor}"
    return Packet(f"t.{tenant}.work.{wanted.actor}.retry", one.body, named)


async def hand_on(bus: Bus, storage: Storage, found: Sequence[Stored], wanted: Range, rate: float) -> int:
    """Hand them on, at most `rate` a second; noted first, for each tenant and in the journal. How many it were.

    Done twice within two minutes it is done once; later the actor finds what it has done. Raises BusError.
    """
    counts = Counter(tenant_of(one.subject) for one in found)
    await journal.note(bus, "replay", **msgspec.structs.asdict(wanted), messages=len(found))
    async with storage.batch(counts) as con:
        await auditing.note(con, [_note(tenant, count, wanted) for tenant, count in sorted(counts.items())])
    for number, one in enumerate(found):
        if number:
            await asyncio.sleep(1 / rate)
        (stored,) = await bus.publisher.send([alive(one, wanted)])
        if isinstance(stored, BusError):
            raise BusError(f"{number} of {len(found)} were handed on, then: {stored}")
    return len(found)


def _note(tenant: str, count: int, wanted: Range) -> Note:
    said = msgspec.json.encode({"address": who(), "via": "harkara ops replay"}).decode()
    told = {"stream": wanted.stream, "actor": wanted.actor, "subjects": wanted.pattern, "messages": count}
    return Note(
        id=uuid7(),
        tenant=tenant,
        said=said,
        action="replay",
        entity="stream",
        entity_id=wanted.stream,
        cause="",
        via="harkara ops replay",
        before=None,
        after=told,
    )


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@click.command()
@click.argument("stream")
@click.argument("actor")
@data_option
@as_json
@yes_option
@click.option("--tenant", help="Only this tenant's.")
@subject_option
@click.option("--since", callback=since_time, help="From then on: a time, or 90s, 15m, 6h, 2d.")
@click.option("--until", callback=since_time, help="Up to then.")
@dry_option
@rate_option
def replay(
    stream: str,
    actor: str,
    data: Path,
    as_json: bool,
    yes: bool,
    tenant: str | None,
    subject: str,
    since: datetime | None,
    until: datetime | None,
    dry: bool,
    rate: float,
) -> None:
    """Hand a range of a stream to an actor once more.

    STREAM is such as INBOUND, ACTOR such as receipts. Shows first which; asks. Actors find what they have done before:
    it is not done twice. But events of it that were told more than two minutes ago are told again, under their ids.
    """
    wanted = Range(stream=stream, actor=actor, pattern=f"t.{tenant or '*'}.{subject}", since=since, until=until)

    async def act(settings: Settings) -> int:
        needed(settings, "database_url")
        await known_tenant(settings, tenant)
        async with bus_of(settings) as bus:
            found: list[Stored] = []
            async for one in find(bus, wanted):
                found.append(one)
                if len(found) > MOST:
                    raise BusError(f"these are more than {MOST}: choose a shorter range with --since and --until")
            if not as_json:
                console().print(range_table(found))
            if not found or dry:
                return len(found)
            if not yes:
                again = "events of them that were told more than two minutes ago are told again, under the same ids"
                click.confirm(f"{again}.\nHand {len(found)} of them to {actor}?", abort=True, err=True)
            async with storage_of(settings) as storage:
                return await hand_on(bus, storage, found, wanted, rate)

    count = run(act, data)
    if as_json:
        tell({"messages": count, "done": not dry})
    else:
        click.echo(f"{count} would be handed on" if dry else f"{count} were handed to {actor}")


def range_table(found: Sequence[Stored]) -> Table | Text:
    """A line for each subject."""
    if not found:
        return Text("nothing of that kind lies there")
    table = new_table("messages", "tenant", "subject", "first – last")
    for subject in sorted({one.subject for one in found}):
        times = [datetime.fromisoformat(one.at.replace("Z", "+00:00")) for one in found if one.subject == subject]
        table.add_row(str(len(times)), tenant_of(subject), subject, period(min(times), max(times)))
    return table
