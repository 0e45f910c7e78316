"""Where a message is and what it waits for, in words: a table of rules, of which the first that knows it says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from harkara.bus import headers
from harkara.bus.dead import DeadLetter
from harkara.bus.overview import ConsumerState
from harkara.bus.pausing import end_of
from harkara.ops.terminal import age, at
from harkara.ops.trace.rows import Row, Rows, as_uuid
from harkara.ops.trace.streams import Lying, Streams
from harkara.printing import messages_wait, times
from harkara.schemas.reasons import ENDED, GATEWAY, HELD_BACK, IN_DOUBT, NO_GATEWAY, POLICY, addressed
from harkara.schemas.reasons import words as why
from harkara.settings import OWN_GATEWAYS
from harkara.storage.halting import WITH_TENANT
from harkara.storage.idling import NOTHING, Passing, standstill

#: An answer that takes longer is a slow one, and a receipt that takes longer may be lost.
SLOW_ANSWER = timedelta(seconds=1.5)
LATE_RECEIPT = timedelta(seconds=10)

#: What reaches us later than this waits behind something.
BEHIND = timedelta(seconds=2)


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """Where one thing is, what it waits for, what can be done. `code` is for machines; `done` if it waits no more."""

    id: str
    kind: str
    code: str
    where: str
    waits_for: str
    todo: str
    done: bool = False


@dataclass(slots=True)
class Case:
    """One message with all that decides about it; or the step that comes next in an enrolment; or a command."""

    id: str
    rows: Rows
    streams: Streams
    message: Row | None = None
    enrollment: Row | None = None
    sender_id: UUID | None = None
    kind: str = "message"
    item: Lying | None = None
    parked: Lying | None = None
    letter: DeadLetter | None = None
    passes: Passing = NOTHING
    _reader: list[ConsumerState | None] = field(default_factory=list[ConsumerState | None])

    @property
    def now(self) -> datetime:
        return self.rows.now

    @property
    def status(self) -> str:
        return self.message["status"] if self.message else ""

    @property
    def sender(self) -> Row:
        """Its number; empty if that is not known."""
        return self.rows.senders.get(self.sender_id, {}) if self.sender_id else {}

    @property
    def number(self) -> str:
        sender = self.sender
        return (
            f"its number {sender['name']} ({sender['phone'] or sender['phone_number_id']})" if sender else "its number"
        )

    @property
    def setting(self) -> str:
        """What says where its number's gateway is."""
        own = OWN_GATEWAYS.get(self.sender.get("provider", ""))
        return f"{own.upper()}, or without it WHATSAPP_GATEWAY_URL" if own else "WHATSAPP_GATEWAY_URL"

    @property
    def campaign(self) -> Row:
        id_ = (self.message or {}).get("campaign_id") or (self.enrollment or {}).get("campaign_id")
        if id_ is None and self.item is not None:
            id_ = as_uuid(str(self.item.told.get("campaign_id")))
        return self.rows.campaigns.get(id_, {}) if id_ else {}

    @property
    def contact(self) -> Row:
        id_ = (self.message or {}).get("contact_id") or (self.enrollment or {}).get("contact_id")
        return self.rows.contacts.get(id_, {}) if id_ else {}

    @property
    def answers(self) -> Row:
        return self.rows.answers.get(self.sender_id, {}) if self.sender_id else {}

    @property
    def reader(self) -> ConsumerState | None:
        if not self._reader:
            self._reader.append(self.streams.reader_of(self.item) if self.item else None)
        return self._reader[0]

    def is_(self, code: str, where: str, waits_for: str, todo: str = "nothing", *, done: bool = False) -> Now:
        ids = {"id": self.message["id"] if self.message else self.id, "sender_id": self.sender_id}
        todo = addressed(todo, **{name: id_ for name, id_ in ids.items() if id_ is not None})
        return Now(id=self.id, kind=self.kind, code=code, where=where, waits_for=waits_for, todo=todo, done=done)

    def ago(self, instant: datetime) -> str:
        return age(max((self.now - instant).total_seconds(), 0))

    def until(self, instant: datetime | None) -> str:
        if instant is None:
            return end_of(instant)
        return f"until {at(instant)} ({age(max((instant - self.now).total_seconds(), 0))} more)"


Rule = Callable[[Case], Now | None]


def _arrived(case: Case) -> Now | None:
    message = case.message
    if message is None or case.status not in ("delivered", "read"):
        return None
    moment = message["read_at"] or message["delivered_at"] or message["updated_at"]
    return case.is_(case.status, f"{case.status} at {at(moment)}", "nothing: it has arrived", done=True)


def _given_up(case: Case) -> Now | None:
    letter = case.letter
    if letter is None or (case.message is not None and case.status not in ("queued", "")):
        return None
    return case.is_(
        "dead_letter",
        f"among the dead letters: {letter.actor} gave it up at {at(letter.at)} after {letter.attempts} attempts",
        f"somebody to look at it: {letter.reason}",
        f"`harkara ops dead show {letter.id}`; once what it says is mended, `harkara ops dead replay {letter.id}`",
    )


def _no_receipt(case: Case) -> Now | None:
    message = case.message
    if message is None or case.status != "sent":
        return None
    since = message["sent_at"] or message["updated_at"]
    where = f"with WhatsApp, which took it at {at(since)} as {message['wamid']}"
    if case.now - since < LATE_RECEIPT:
        return case.is_("sent", where, "the receipt that it was delivered", done=True)
    heard = case.streams.webhook_at
    if heard is None or heard < since:
        last = "none has come since then for any number of this tenant" + (
            f", the last at {at(heard)}" if heard else ""
        )
        todo = "see that the gateway reaches PUBLIC_URL and that its webhook is set: `harkara ops doctor` looks"
    else:
        last = f"others have come since then, the last at {at(heard)}"
        todo = "nothing can be asked for again: the phone is off, or this webhook was lost on its way; it was sent"
    return case.is_(
        "no_receipt",
        where,
        f"a webhook that says it was delivered: none for {case.ago(since)}; {last}",
        todo,
        done=True,
    )


def _in_doubt(case: Case) -> Now | None:
    if case.message is None or case.status != "unknown":
        return None
    waits, again = "a receipt that settles it", None if case.message["resent"] else case.message["resend_at"]
    if again is not None and again > case.now:
        waits += f", or its time to be sent once more, {at(again)}"
    elif again is not None:
        waits += ": those that have come are read first, then it is sent once more"
    return case.is_("in_doubt", f"in doubt: {IN_DOUBT.text}", waits, IN_DOUBT.todo)


def _settled(case: Case) -> Now | None:
    message = case.message
    if message is None or case.status not in ("failed", "suppressed"):
        return None
    told = why(message["status"], message["reason"], message["error_code"])
    code, words = told if told else (case.status, None)
    verb = "WhatsApp refused it" if case.status == "failed" else "policy kept it from leaving"
    where = f"{case.status} at {at(message['failed_at'] or message['updated_at'])}: {verb}, for good"
    waits = "nothing: " + (words.text if words else "no reason was given")
    if code == "opted_out" and (out := case.contact.get("opted_out_at")):
        waits += f" (at {at(out)}: {case.contact['opted_out_reason'] or 'no reason was given'})"
    elif case.status == "failed" and message["reason"]:
        waits += f" ({message['reason']})"
    return case.is_(code, where, waits, words.todo if words else "nothing", done=True)


def _in_the_air(case: Case) -> Now | None:
    if case.message is None or case.status != "sending":
        return None
    since = case.message["attempted_at"] or case.message["updated_at"]
    where = f"in a request to WhatsApp since {at(since)} ({case.ago(since)})"
    if case.now - since < SLOW_ANSWER:
        return case.is_("sending", where, "its answer")
    return case.is_(
        "gateway_slow",
        where,
        "its answer: the gateway is slow. After 8 s without one the message is in doubt, and a receipt settles it",
        f"see to the gateway ({case.setting}), or wait",
    )


def _owed_no_more(case: Case) -> Now | None:
    """A message that still waits although its invoice has ended."""
    invoice = case.rows.invoices.get(case.message["invoice_id"], {}) if case.message else {}
    words = ENDED.get(f"invoice_{invoice.get('status')}")
    if words is None or case.status != "queued":
        return None
    return case.is_(f"invoice_{invoice['status']}", _place(case), f"nothing any more: {words.text}", words.todo)


def _deferred(case: Case) -> Now | None:
    message = case.message
    if message is None or not message["deferred_until"] or message["deferred_until"] <= case.now:
        return None
    if case.item is not None and case.item.stream == "SEND":
        return None  # what put it off is over: it has been brought to its number again
    words = POLICY.get(message["reason"] or "")
    if words is None or case.campaign.get("status") == "paused":
        return None
    where = "in the database" if message["enrollment_id"] else "on a schedule of the broker"
    text, todo = words
    return case.is_(message["reason"], f"deferred, {where}", f"{case.until(message['deferred_until'])}: {text}", todo)


def _ended(case: Case) -> Now | None:
    """An enrolment that goes no further."""
    row = case.enrollment
    if row is None or row["status"] == "active":
        return None
    ended = row["finished_at"] or row["updated_at"]
    reason = f": {row['stopped_reason']}" if row["stopped_reason"] else ""
    done = row["status"] != "paused"
    return case.is_(f"enrollment_{row['status']}", f"{row['status']} at {at(ended)}{reason}", "nothing", done=done)


def _tenant(case: Case) -> Now | None:
    if case.rows.active or not case.rows.tenant:
        return None
    return case.is_("tenant_inactive", "held back", "its tenant, which is not active", POLICY["tenant_inactive"].todo)


def _campaign(case: Case) -> Now | None:
    campaign = case.campaign
    if campaign.get("status") != "paused":
        return None
    return case.is_(
        "campaign_paused",
        "in the database, set aside",
        f"its campaign {campaign['name']}, which is {campaign['status_reason'] or 'paused'} since"
        f" {at(campaign['updated_at'])}",
        f"`harkara ops resume campaign {campaign['id']}`",
    )


def _not_due(case: Case) -> Now | None:
    row = case.enrollment
    due = (case.message or {}).get("due_at") or (row or {}).get("next_step_scheduled_at")
    if due is None or due <= case.now:
        return None
    return case.is_("not_due", "waiting for its time", f"its time: it is due {case.until(due).removeprefix('until ')}")


def _number(case: Case) -> Now | None:
    sender = case.sender
    if not sender:
        return None
    still = standstill(sender, case.passes, case.now)
    if still is None or still.code == "gateway_away":
        return None
    reason, words = still.reason or "", GATEWAY.get(still.error_code or 0)
    if still.code == "number_stopped":
        mend = f"{words.todo}; then " if words else ""
        what = f"tenant {case.rows.tenant}" if reason.startswith(WITH_TENANT) else f"sender {sender['id']}"
        return case.is_(
            "number_stopped",
            _place(case),
            f"{case.number}, which is {sender['status']} since {_when(sender['status_since'])}: {reason or 'by hand'}",
            f"{mend}`harkara ops resume {what}`",
        )
    because = f": {reason}" if reason else ""
    if still.code == "number_disconnected":
        told = f"{case.number}, which no phone is linked to{because}"
        return case.is_(still.code, _place(case), told, HELD_BACK[still.code].todo)
    return case.is_(
        still.code,
        _place(case),
        f"{case.number}, which rests {case.until(still.until)}{because}",
        f"nothing: it goes on by itself; or `harkara ops resume sender {sender['id']}`",
    )


def _paused(case: Case) -> Now | None:
    """The actor whose turn it is was paused."""
    reader = case.reader
    pools = case.streams.paused
    if reader is not None and reader.paused:
        actor, until = ("sender" if reader.stream == "SEND" else reader.name), reader.paused_until
    elif "sender" in pools and (case.item is None or case.item.stream == "SEND") and case.status in ("", "queued"):
        actor, until = "sender", pools["sender"]
    else:
        return None
    return case.is_(
        "actor_paused",
        _place(case),
        f"the actor {actor}, which is paused {case.until(until)}",
        f"`harkara ops resume actor {actor}`",
    )


def _held(case: Case) -> Now | None:
    if case.contact.get("id") not in case.rows.held:
        return None
    return case.is_(
        "contact_held",
        _place(case),
        "something the contact said, which is accepted and not read yet: it may stop this message",
        "see that the actors receipts and enrollment run and are not behind: `harkara ops lag`",
    )


def _away(case: Case) -> Now | None:
    """Nobody is where its number's gateway should be: it was tried itself, or others of this number were."""
    own = (case.message or {}).get("reason") or ""
    where = own.removeprefix(NO_GATEWAY) if own.startswith(NO_GATEWAY) else case.passes.away
    if case.status != "queued" or not where:
        return None
    return case.is_(
        "gateway_away", _place(case), f"its gateway, which does not answer: {where}", HELD_BACK["gateway_away"].todo
    )


def _tried(case: Case) -> Now | None:
    message = case.message
    if message is None or not message["error_code"] or case.status != "queued":
        return None
    if (told := why("queued", message["reason"], message["error_code"])) is None:
        return None
    code, words = told
    again = f" at {at(case.parked.due)}" if case.parked and case.parked.due else " soon"
    return case.is_(
        code,
        f"back in its queue, tried {times(message['attempts'])}: WhatsApp refused it for now",
        f"its next try{again}: {words.text}",
        words.todo,
    )


def _unread(case: Case) -> Now | None:
    """In a queue that nobody reads, or that is read too slowly."""
    item, reader = case.item, case.reader
    if item is None or item.stream == "SEND":
        return None
    if reader is None:
        return case.is_("no_reader", _place(case), "an actor that takes it: none ever has", "start `harkara actor all`")
    if reader.pullers == 0 and reader.in_hand == 0:
        return case.is_(
            "no_reader",
            _place(case),
            f"the actor {reader.name}: no process of it runs, and {messages_wait(reader.pending)}",
            f"start `harkara actor {reader.name}`",
        )
    if reader.delivered >= item.seq:
        where = f"handed out to {reader.name} {case.ago(item.at)} after it came"
        return case.is_(
            "in_hand",
            where,
            f"{reader.name} to be done with it; it has {reader.in_hand} in hand and {reader.pending} behind them",
            "if this stays: its log says what it waits for, mostly the database",
        )
    return case.is_(
        "behind",
        _place(case),
        f"its turn: {reader.name} is behind, with {reader.pending} that wait and {reader.in_hand} in hand, the oldest"
        f" for {age(reader.oldest_s) or 'a moment'}",
        f"wait, or start one more `harkara actor {reader.name}`; `harkara ops lag --watch` shows how it goes",
    )


def _slow_gateway(case: Case) -> Now | None:
    """Its number's requests come back late, so the queue moves at the gateway's pace."""
    answers, item, reader = case.answers, case.item, case.reader
    if not answers.get("in_the_air") or case.now - answers["since"] < SLOW_ANSWER:
        if item is None or item.stream != "SEND" or reader is None:
            return None
        by_rate = timedelta(seconds=(reader.pending + reader.in_hand) / (case.sender.get("mps") or 1))
        if case.now - item.at < 3 * (by_rate + SLOW_ANSWER):
            return None
        return case.is_(
            "gateway_slow",
            _place(case),
            f"its turn, which comes more slowly than by the rate of {case.number}: its gateway is slow, or too few"
            f" processes send; {messages_wait(reader.pending)} in this lane and {reader.in_hand} are on their way",
            f"see to the gateway ({case.setting}); if it is quick, start one more `harkara actor sender`",
        )
    return case.is_(
        "gateway_slow",
        _place(case),
        f"the gateway, which is slow: {answers['in_the_air']} requests of {case.number.removeprefix('its ')} have no"
        f" answer yet, the oldest since {case.ago(answers['since'])}",
        f"see to the gateway ({case.setting}), or wait: a number has only so many requests on their way",
    )


def _turn(case: Case) -> Now | None:
    """In its number's queue, which moves at the number's rate."""
    if case.item is None or case.item.stream != "SEND":
        return None
    reader, rate = case.reader, case.sender.get("mps") or 1
    if reader is None:
        return case.is_(
            "no_reader",
            _place(case),
            "a process of the actor sender to take it: none does yet",
            "if this stays for more than 10 s: start `harkara actor sender`",
        )
    waiting = max(reader.pending + reader.in_hand, case.answers.get("waiting") or 0)
    return case.is_(
        "budget_empty",
        _place(case),
        f"its turn: {case.number} may send {rate} a second, and {messages_wait(waiting)} for it in this lane: about"
        f" {age(waiting / rate)} in all",
        "wait; or raise the sender's `mps` if WhatsApp allows it more, or use more numbers",
    )


def _due(case: Case) -> Now | None:
    """A step that is due and that nobody has brought to its number."""
    row = case.enrollment
    if row is None or case.message is not None:
        return None
    due = row["next_step_scheduled_at"]
    if due is None:
        return None
    if case.now - due < BEHIND:
        return case.is_("due", "due right now", "the ticker to bring it to its number")
    return case.is_(
        "not_claimed",
        f"in the database, due for {case.ago(due)}",
        "the ticker to bring it to its number",
        "see that `harkara actor ticker` runs and the broker's clock ticks: `harkara ops doctor`",
    )


def _scheduled(case: Case) -> Now | None:
    if case.parked is None or case.parked.due is None:
        return None
    reason = (case.message or {}).get("reason") or "to be tried again"
    return case.is_("parked", f"on a schedule in {case.parked.stream}", f"{case.until(case.parked.due)}: {reason}")


def _lost(case: Case) -> Now | None:
    if case.status != "queued":
        return None
    return case.is_(
        "nowhere",
        "written down as queued, and no work for it lies in the broker",
        "whoever has it in hand at this moment",
        "ask again in some seconds; if it stays so, its work is lost: cancel it and send it anew",
    )


def _place(case: Case) -> str:
    item = case.item
    if item is None:
        return "in the database"
    kind = "the queue of its number" if item.stream == "SEND" else f"the stream {item.stream}"
    failed = int(item.headers.get(headers.ATTEMPT, "0"))
    tried = f", tried {times(failed)}" if failed else ""
    return f"in {kind} since {at(item.at)} ({case.ago(item.at)}){tried}"


def _when(instant: datetime | None) -> str:
    return at(instant) if instant else "some time"


#: What is over, then what stands in its way for longer, then whose turn it is.
RULES: tuple[Rule, ...] = (
    _arrived,
    _given_up,
    _no_receipt,
    _in_doubt,
    _settled,
    _in_the_air,
    _ended,
    _owed_no_more,
    _deferred,
    _tenant,
    _campaign,
    _not_due,
    _number,
    _paused,
    _held,
    _away,
    _tried,
    _unread,
    _slow_gateway,
    _turn,
    _due,
    _scheduled,
    _lost,
)


def now_of(case: Case) -> Now | None:
    """What the first rule that knows says; None if nothing is known that waits."""
    return next((said for rule in RULES if (said := rule(case)) is not None), None)
