"""`harkara ops erase`: a contact is forgotten everywhere, and it is looked up afterwards that it is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
import msgspec
from rich.text import Text

from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.bus.messages import Outgoing
from harkara.bus.tail import History
from harkara.ids import text_of, uuid7_text
from harkara.ops import journal
from harkara.ops.reach import data_option
from harkara.ops.terminal import (
    TROUBLE,
    as_json,
    bus_of,
    new_table,
    run,
    storage_of,
    tell,
    yes_option,
)
from harkara.ops.trace.rows import whose
from harkara.ops.trace.streams import Search
from harkara.printing import console
from harkara.schemas.commands import EraseContact
from harkara.settings import Settings
from harkara.storage import holdings
from harkara.storage.storage import Storage, StorageError

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What tells that a contact was erased says its id, which is then nobody's.
ERASED = "evt.contact.erased"

#: How far back the oldest stream goes.
OLDEST = timedelta(days=400)

_REACHED = """
select k.phone, k.wa_user_id, (select array_agg(n.phone) from phone_numbers n where n.contact_id = k.id) as further
from contacts k where k.id = $1
"""

_NOTED = """
select count(*) from audit_log
where tenant_id = $1 and entity_id = $2 and (coalesce(before, '{}') <> '{}' or coalesce(after, '{}') <> '{}')
"""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was looked for, and how much was found there; `sure` if all was read."""

    place: str
    left: int
    sure: bool = True


@click.group()
def erase() -> None:
    """Forget somebody everywhere, for good, and prove it."""


@erase.command("contact")
@click.argument("contact_id", metavar="ID", type=click.UUID)
@data_option
@as_json
@yes_option
@click.option("--within", default=120.0, show_default=True, help="Seconds to wait until it is done.")
def erase_contact(contact_id: UUID, data: Path, as_json: bool, yes: bool, within: float) -> None:
    """Erase a contact everywhere, and look that it is so.

    Rows, files, messages on their way, webhooks, events and dead letters. What the audit log keeps is who did something
    when, without what. Exit status 1 if anything is left.
    """

    async def act(settings: Settings) -> list[Place]:
        async with storage_of(settings) as storage, bus_of(settings) as bus:
            tenant, kind = await whose(storage, str(contact_id))
            if kind != "contact":
                raise StorageError(f"there is no contact {contact_id}: look for its id with GET /api/v1/contacts?q=")
            async with storage.tenant(tenant) as con:
                command = await _command(con, contact_id)
            if not yes:
                click.confirm(f"erase the contact {contact_id} of {tenant} for good?", abort=True, err=True)
            await journal.note(bus, "erase", contact=contact_id, tenant=tenant)
            await _do(bus, tenant, command, within)
            return await proof(storage, bus, tenant, command)

    found = run(act, data)
    left = [one for one in found if one.left or not one.sure]
    if as_json:
        tell({"erased": not left, "places": found})
    else:
        table = new_table("where", "left", "")
        for one in found:
            mark = Text("✓", "green") if not one.left and one.sure else Text("✗", "red")
            table.add_row(one.place, str(one.left), mark)
        console().print(table)
        click.echo("something is left: run it again in a minute" if left else "nothing of it is left")
    raise SystemExit(TROUBLE if left else 0)


async def _command(con: Connection, contact_id: UUID) -> EraseContact:
    """The same command as `DELETE /contacts/{id}?erase=true` gives."""
    row: Any = await con.fetchrow(_REACHED, contact_id)
    phones = [phone for phone in (row["phone"], *(row["further"] or ())) if phone]
    return EraseContact(contact_id=text_of(contact_id), phones=phones, wa_user_id=row["wa_user_id"])


async def _do(bus: Bus, tenant: str, command: EraseContact, within_s: float) -> None:
    """Command it, and wait until it is told that it is done. Raises BusError."""
    history = History(bus.link, "EVENTS")
    try:
        after = (await history.bounds()).last
        id_ = uuid7_text()
        await bus.publisher.publish(Outgoing(command, tenant, id_, id_))
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            page = await history.page(f"t.{tenant}.{ERASED}", after, 500)
            if any(msgspec.json.decode(one.body).get("id") == command.contact_id for one in page.messages):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise BusError(
                    f"it is commanded, and not done within {within_s:.0f} s: `harkara ops trace {id_}` says why"
                )
            await asyncio.sleep(0.5)
    finally:
        await history.close()


async def proof(storage: Storage, bus: Bus, tenant: str, command: EraseContact) -> list[Place]:
    """Every place where something of the contact may be, with how much is there. Raises BusError."""
    contact_id = UUID(command.contact_id)
    async with storage.tenant(tenant) as con:
        found = [Place(place="contacts", left=await _count(con, "contacts", "id", contact_id))]
        for table in await holdings.tables(con):
            found.append(Place(place=table, left=await _count(con, table, "contact_id", contact_id)))
        for phone in command.phones:
            found.append(
                Place(place=f"messages to {_hidden(phone)}", left=await _count(con, "messages", '"to"', phone))
            )
        noted = await con.fetchval(_NOTED, tenant, command.contact_id)
        found.append(Place(place="what the audit log says of it", left=noted))
    return found + await _in_streams(bus, tenant, command)


async def _count(con: Connection, table: str, column: str, value: object) -> int:
    return int(await con.fetchval(f"select count(*) from {table} where {column} = $1", value))  # noqa: S608 - our words


async def _in_streams(bus: Bus, tenant: str, command: EraseContact) -> list[Place]:
    ids = {command.contact_id, *(phone.removeprefix("+") for phone in command.phones)}
    ids |= {command.wa_user_id} if command.wa_user_id else set[str]()
    streams = await Search(bus, ids, tenant, datetime.now(UTC) - OLDEST, whole=True).run()
    lying = [one.stream for one in (*streams.kept, *streams.queued, *streams.parked) if ERASED not in one.subject]
    lying += ["DEAD"] * len(streams.letters)
    return [
        Place(place=f"stream {one.name}", left=lying.count(one.name), sure=one.name not in streams.cut)
        for one in bus.topology.streams
    ]


def _hidden(phone: str) -> str:
    """A number that is to be forgotten is not shown whole."""
    return f"…{phone[-3:]}"
