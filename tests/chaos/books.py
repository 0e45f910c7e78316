"""The books of a campaign, kept in three places that must agree: the database, the gateway's record, the broker."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chaos.harness import Tenant, new_tenant
from chaos.observed import Observed, once_it_answers
from support import until

#: A message that WhatsApp took, however far it has come since.
TAKEN = frozenset({"sent", "delivered", "read"})

_MESSAGES = """
select id::text, contact_id::text, enrollment_id::text, "to", step, status, reason, wamid, attempts, due_at,
       attempted_at, delivered_at, read_at
from messages where campaign_id = $1
"""

_ENROLLMENTS = """
select id::text, contact_id::text, status, stopped_reason, current_step, messages_sent, started_at, finished_at,
       next_claim_at
from contact_campaign_progress where campaign_id = $1
"""


#: What is still on its way: enrolments, messages, and what keeps their contacts.
_OPEN = (
    """
    select 'enrolment' what, p.id, p.contact_id, p.status, p.current_step, p.next_message_id, p.next_step_scheduled_at,
           p.next_claim_at
    from contact_campaign_progress p where campaign_id = $1 and status in ('active', 'paused')
    """,
    """
    select 'message' what, id, contact_id, step, status, reason, attempts, due_at, attempted_at, deferred_until,
           resend_at
    from messages where campaign_id = $1 and status in ('queued', 'sending', 'unknown')
    """,
    """
    select 'hold' what, h.* from contact_holds h
    join contact_campaign_progress p on p.tenant_id = h.tenant_id and p.contact_id = h.contact_id
    where p.campaign_id = $1
    """,
    """
    select 'number' what, s.id, s.status, s.status_reason, s.held_until
    from senders s join campaigns c on c.sender_id = s.id where c.id = $1
    """,
)
_MOST_OPEN = 20

#: Where the status of a message went; the way of a message is in this order, with two ways back for what was not taken.
_WATCH = """
create table if not exists public.status_moves (campaign_id uuid, old text, new text);
create or replace function public.note_status_move() returns trigger language plpgsql security definer as $$
begin
  insert into public.status_moves values (new.campaign_id, old.status, new.status);
  return null;
end $$;
create or replace trigger note_status_move after update on messages for each row
  when (old.status is distinct from new.status) execute function public.note_status_move();
"""

_FORWARD = ("queued", "sending", "unknown", "sent", "delivered", "read")


@dataclass
class Books:
    """What each place says about one campaign at one moment."""

    enrollments: list[Any]
    messages: list[Any]
    accepted: list[dict[str, Any]]
    funnel: dict[str, Any]
    left: dict[str, int]
    events: list[tuple[str, str]]
    moves: Counter[tuple[str, str]]

    @property
    def statuses(self) -> dict[str, int]:
        return dict(Counter(message["status"] for message in self.messages))

    @property
    def unknown(self) -> set[str]:
        return {message["id"] for message in self.messages if message["status"] == "unknown"}

    @property
    def in_doubt(self) -> int:
        """How many sends were ambiguous, whatever became of them."""
        return self.moves["sending", "unknown"]

    @property
    def doubled(self) -> int:
        """How many times the gateway took a (contact, step) again."""
        return sum(count - 1 for count in Counter((one["to"], one["body"]) for one in self.accepted).values())

    @property
    def told_twice(self) -> int:
        """Events that were told more than once."""
        return sum(count - 1 for count in Counter(self.events).values())

    def line(self) -> str:
        """What the books come to."""
        return (
            f"{len(self.enrollments)} enrolments, {len(self.messages)} messages {self.statuses}, "
            f"{len(self.accepted)} accepted by the gateway, {self.doubled} of them twice, "
            f"{self.in_doubt} in doubt, {len(self.unknown)} of them for good, {self.told_twice} events told twice"
        )


@dataclass
class Campaign:
    """One campaign under test: a number of contacts, each to get every step once."""

    platform: Observed
    tenant: Tenant
    id: str
    phone_number_id: str
    contacts: int
    steps: int
    #: Statuses whose webhooks a fault may have taken away.
    lost: frozenset[str] = frozenset()

    async def funnel(self) -> dict[str, Any]:
        """The funnel, as soon as somebody answers."""
        status, funnel = await self.tenant.patiently("GET", f"/campaigns/{self.id}/funnel")
        assert status == 200, funnel
        return dict(funnel)

    async def ended(self) -> bool:
        """Whether no enrolment runs any more."""
        funnel = await self.funnel()
        return bool(funnel["enrolled"] == self.contacts and not funnel["active"] and not funnel["paused"])

    async def agreed(self) -> bool:
        """Whether the database knows how far every message has come that the gateway took."""
        async with self.platform.database() as database:
            known = {row["id"]: row["status"] for row in await database.fetch(_MESSAGES, self.id)}
        for one in await self._accepted():
            status = known.get(one["biz_opaque_callback_data"])
            if status != one["status"] and not (one["status"] in self.lost and status in TAKEN):
                return False
        return True

    async def until_closed(self, within_s: float) -> Books:
        """Wait until all has come to its end everywhere; the books then. A failure shows what is still open."""
        try:
            return await self._until_closed(within_s)
        except AssertionError:
            print("\n".join(["still open:", *await self._open()]))
            raise

    async def _open(self) -> list[str]:
        """What keeps the books from being closed, line by line."""
        async with self.platform.database() as database:
            now = await database.fetchval("select now()")
            found = [row for query in _OPEN for row in await database.fetch(query, self.id)]
            known = {row["id"]: row["status"] for row in await database.fetch(_MESSAGES, self.id)}
        lines = [str({name: value for name, value in row.items() if value is not None}) for row in found]
        for one in await self._accepted():
            status = known.get(one["biz_opaque_callback_data"], "no row")
            if status != one["status"]:
                lines.append(f"{status}, but at the gateway {one}")
        return [
            f"at {now}",
            *lines[:_MOST_OPEN],
            f"{len(lines)} in all",
            f"left: {await self._left()}",
            *(f"parked: {one}" for one in await self.platform.parked()),
            *self.platform.complaints(),
        ]

    async def _until_closed(self, within_s: float) -> Books:
        await until(self.ended, "every enrolment has ended", within_s, every=0.5)
        # The gateway tells again after ever longer waits: one that met several outages may come after a minute.
        told = "webhooks have told the fate of whatever the gateway took"
        await until(lambda: once_it_answers(self.agreed), told, 170, every=0.3)
        left = "no command, work, message or webhook is left on the broker"
        await until(lambda: once_it_answers(self._idle), left, 60, every=0.3)
        return await self.books()

    async def _idle(self) -> bool:
        left = await self.platform.left_in_streams()
        return all(kind.startswith("DEAD") for kind in left)

    async def _left(self) -> dict[str, int]:
        """What lies on the broker; a webhook that comes at this moment is given the time to be taken in."""
        left: dict[str, int] = {}

        async def idle() -> bool:
            left.clear()
            left.update(await self.platform.left_in_streams())
            return all(kind.startswith("DEAD") for kind in left)

        with suppress(AssertionError):
            await until(lambda: once_it_answers(idle), "no command, work, message or webhook is left on the broker", 20)
        return left

    async def _accepted(self) -> list[dict[str, Any]]:
        return await self.platform.gateway.accepted(self.phone_number_id)

    async def books(self) -> Books:
        """What each place says now."""
        async with self.platform.database() as database:
            enrollments = await database.fetch(_ENROLLMENTS, self.id)
            messages = await database.fetch(_MESSAGES, self.id)
            moves = await database.fetch("select old, new from status_moves where campaign_id = $1", self.id)
        return Books(
            enrollments,
            messages,
            await self._accepted(),
            await self.funnel(),
            await self._left(),
            [(type_, id_) for _, type_, id_ in await self.platform.events(self.tenant.id)],
            Counter((move["old"], move["new"]) for move in moves),
        )

    def check(self, books: Books) -> None:
        """Fail unless the books balance."""
        self._check_rows(books)
        self._check_gateway(books)
        self._check_funnel(books)
        self._check_events(books)
        self._check_moves(books)
        assert not books.left, f"left on the broker: {books.left}"

    def _check_rows(self, books: Books) -> None:
        assert len(books.enrollments) == self.contacts
        rows = Counter((one["contact_id"], one["step"]) for one in books.messages)
        assert set(rows.values()) == {1}, "a (contact, step) has two messages"
        for one in books.enrollments:
            # One that a message itself has ended stands at that message's step, any other after its last.
            by_message = one["status"] == "failed" or one["stopped_reason"] in ("opt_out", "no_consent")
            mine = sum((one["contact_id"], step) in rows for step in range(self.steps))
            assert mine == one["current_step"] + by_message, f"{mine} messages: {dict(one)}"
            assert one["finished_at"], f"it has ended at no time: {dict(one)}"
        sent = Counter(one["contact_id"] for one in books.messages if one["wamid"])
        for one in books.enrollments:
            assert one["messages_sent"] == sent[one["contact_id"]], f"counted wrong: {dict(one)}"
            assert one["next_claim_at"] is None, f"it has ended and still waits: {dict(one)}"

    def _check_gateway(self, books: Books) -> None:
        assert books.doubled == 0, f"{books.doubled} messages were sent twice"
        ours = {one["id"]: one for one in books.messages}
        for one in books.accepted:
            message = ours[one["biz_opaque_callback_data"]]
            assert message["to"].removeprefix("+") == one["to"].removeprefix("+")
            assert one["body"].startswith(f"step {message['step']} "), f"{one['body']!r} as {dict(message)}"
            assert message["wamid"] == one["id"], f"another message was taken for it: {dict(message)}"
        taken = {one["biz_opaque_callback_data"] for one in books.accepted}
        missing = ours.keys() - taken
        refused = {id_ for id_, one in ours.items() if one["status"] in ("failed", "suppressed") and not one["wamid"]}
        assert missing == books.unknown | refused, (
            f"the gateway lacks {len(missing)}; {len(books.unknown)} are marked unknown and {len(refused)} refused"
        )

    def _check_funnel(self, books: Books) -> None:
        for step in books.funnel["steps"]:
            mine = Counter(one["status"] for one in books.messages if one["step"] == step["step"])
            assert step["sent"] == sum(mine[status] for status in TAKEN), step
            assert step["unknown"] == mine["unknown"], step
            assert step["failed"] == mine["failed"], step
            assert not step["queued"], step
            assert not step["sending"], step

    def _check_events(self, books: Books) -> None:
        told = set(books.events)
        for one in books.enrollments:
            ending = "completed" if one["status"] == "completed" else "stopped"
            assert (f"enrollment.{ending}", one["id"]) in told, f"never told: {dict(one)}"
        for one in books.messages:
            wanted = "sent" if one["status"] in TAKEN else one["status"]
            assert (f"message.{wanted}", one["id"]) in told, f"never told: {dict(one)}"
            for name in ("delivered", "read"):
                if one[f"{name}_at"] and one["status"] != "failed":
                    assert (f"message.{name}", one["id"]) in told, f"never told that it was {name}: {dict(one)}"

    def _check_moves(self, books: Books) -> None:
        """No status may move back, but for an attempt that was provably not accepted."""
        allowed = {(old, new) for place, old in enumerate(_FORWARD) for new in _FORWARD[place + 1 :]}
        allowed |= {("sending", "queued"), ("queued", "suppressed")}
        allowed |= {(old, "failed") for old in ("queued", "sending", "unknown", "sent")}
        assert books.moves.keys() <= allowed, f"moved back: {books.moves.keys() - allowed}"

    def check_that_stop_wins(self, books: Books) -> None:
        """What was stopped says nothing more: no attempt begins once it is known.

        It is stamped when its transaction begins, which may then wait for the attempt that is just being written: on a
        busy machine for some seconds, though not as long as steps are apart.
        """
        stopped = {one["id"]: one["finished_at"] for one in books.enrollments if one["status"] == "stopped"}
        for one in books.messages:
            if one["attempted_at"] and one["enrollment_id"] in stopped:
                late = one["attempted_at"] - stopped[one["enrollment_id"]]
                assert late < timedelta(seconds=5), f"sent {late} after it was stopped: {dict(one)}"

    def check_that_all_completed(self, books: Books) -> None:
        """Every enrolment went all its way: what the gateway doesn't have is then exactly what is marked unknown."""
        assert {one["status"] for one in books.enrollments} == {"completed"}
        assert {one["status"] for one in books.messages} <= {*TAKEN, "unknown"}


async def begin(platform: Observed, contacts: int, *, mps: int, steps: int = 3) -> Campaign:
    """An active campaign with a step a day and all its contacts, none of them enrolled yet."""
    tenant = await new_tenant(platform.session, platform.url)
    await platform.gateway.put("policy", {"throughput": 10_000})
    async with platform.database() as database:
        await database.execute(_WATCH)
    sender = await tenant.sender(mps=mps)
    await tenant.contacts(contacts)
    id_ = await tenant.campaign(sender["id"], *(24 * step for step in range(steps)))
    return Campaign(platform, tenant, id_, sender["phone_number_id"], contacts, steps)
