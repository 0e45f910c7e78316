"""What contacts say to us: kept as replies in conversations, and what they ask for done: part of the receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
from loguru import logger

from harkara.actors import naming
from harkara.actors.enrollment import goal_events
from harkara.bus.messages import Delivery, Outgoing
from harkara.gateway.told import Changed, File, InboundMessage, Preference, StatusUpdate, Webhook
from harkara.ids import time_of, uuid7, uuid7_for, uuid7_within
from harkara.keywords import Ask, asked
from harkara.policy import window
from harkara.schemas import events
from harkara.schemas.base import Message
from harkara.schemas.commands import Lane
from harkara.schemas.content import Content
from harkara.schemas.keywords import Keywords
from harkara.schemas.work import FetchMedia, Inbound, Send
from harkara.storage import dispatching, enrolling, goals, holding, media, opting, outbox, receiving
from harkara.storage.dispatching import NewMessage
from harkara.storage.media import NewMedia
from harkara.storage.opting import STOPS_CAMPAIGNS, Word
from harkara.storage.receiving import Known, Moved, NewReply

if TYPE_CHECKING:
    from harkara.schemas.keywords import Category
    from harkara.storage.storage import Connection

#: What answers nothing, stops nothing and opens no conversation again: a thumb up, and news of WhatsApp's own.
ASIDE = frozenset({"reaction", "system"})

#: What is tapped and not typed.
BUTTONS = frozenset({"button", "interactive"})

#: WhatsApp's refusal of marketing to somebody who turned it off there: we did not hear of it, or not yet.
MARKETING_REFUSED = 131050

#: The source of an opt-out that the database gives back with a number (migration 0024).
REMEMBERED = "remembered"

#: Nothing of WhatsApp's lies in one another so often. What lies deeper is left out: it would end whoever reads it.
DEEPEST = 100

#: The lane in which it is confirmed that an opt-out was heard.
CONFIRMED_IN: Lane = "utility"


@dataclass(frozen=True, slots=True)
class Answer:
    """A confirmation that waits for its number."""

    tenant: str
    sender_id: str


@dataclass(slots=True)
class Heard:
    """What is to be told of each delivery, in order, and the numbers that have something to send."""

    told: list[list[Outgoing]] = field(default_factory=list[list[Outgoing]])
    answers: list[Answer] = field(default_factory=list[Answer])
    #: Something is in the outbox, to be told once this is committed.
    later: bool = False


async def hear(
    con: Connection,
    webhooks: Sequence[tuple[Delivery[Inbound], Webhook]],
    moved: Mapping[tuple[str, str], Moved],
    met: Sequence[tuple[Delivery[Inbound], Known]] = (),
) -> Heard:
    """Write what contacts say, in the order in which it came, and do what they ask for.

    `moved` is what is known of the messages whose statuses came, by (tenant, wamid); `met` are the contacts that have
    opted out of something by what these webhooks named.
    """
    heard, gained = Heard(), list[tuple[_Said, Known]]()
    gained += [(_Said(con, d, "{}", heard, gained), known) for d, known in met]
    spoken = [(d, webhook) for d, webhook in webhooks if webhook.messages or webhook.preferences]
    words = await receiving.keywords(con, {d.tenant for d, _ in spoken}) if spoken else {}
    for d, webhook in webhooks:
        said, told = _Said(con, d, words.get(d.tenant, "{}"), heard, gained), list[Outgoing]()
        for place, message in enumerate(webhook.messages):
            told += await said.message(message, place)
        for preference in webhook.preferences:
            told += await said.preference(preference)
        for status in webhook.statuses:
            if status.error_code == MARKETING_REFUSED and (message_ := moved.get((d.tenant, status.wamid))):
                told += await said.refused(message_, status)
        heard.told.append(told)
    for said, known in gained:
        await said.remembered(known)
    await holding.release(con, [(d.tenant, word) for d, _ in spoken if (word := as_uuid(d.id))])
    return heard


class _Said:
    """What contacts say in one webhook."""

    def __init__(
        self,
        con: Connection,
        d: Delivery[Inbound],
        keywords: str,
        heard: Heard,
        gained: list[tuple[_Said, Known]],
    ) -> None:
        self._con, self._d, self._keywords, self._heard, self._gained = con, d, keywords, heard, gained

    async def message(self, message: InboundMessage, place: int) -> list[Outgoing]:
        """Write a message to us, the one in this place of its webhook, and do what it asks for."""
        known = await self._contact(message)
        if known is None:
            return []
        contact_id = known.id
        new, quoted, is_new = await self._reply(known, message, place)
        if is_new and message.changed is not None:
            await self._renumber(contact_id, message.changed)
        elif is_new and known.elsewhere and await receiving.is_latest(self._con, new.tenant, contact_id, message.at):
            await self._renumber(contact_id, Changed(message.phone, None))
        event = events.ReplyReceived(
            id=str(new.id),
            contact_id=str(contact_id),
            sender_id=self._d.message.sender_id,
            conversation_id=str(new.conversation_id),
            type=message.type,
            text=message.text,
            reply_to=str(quoted) if quoted else None,
            reply_to_wamid=message.context_wamid,
        )
        told = [self._outgoing(event, f"{new.id}.received")]
        if message.file is not None:
            told.append(await self._keep(new, message.file))
        if message.type in ASIDE:
            return told
        return [*told, *await self._consequences(new, message, is_new=is_new, runs=not known.made)]

    async def _keep(self, reply: NewReply, file: File) -> Outgoing:
        """Have a file fetched before the gateway forgets it."""
        id_ = uuid7_for(reply.received_at, self._d.tenant, reply.wamid, "media")
        mime_type = file.mime_type[:255] if file.mime_type else None
        new = NewMedia(id_, self._d.tenant, reply.id, reply.contact_id, file.id, mime_type, file.filename)
        await media.add(self._con, new)
        work = FetchMedia(media_id=str(id_), sender_id=str(reply.sender_id), gateway_id=file.id)
        return self._outgoing(work, f"{id_}.fetch")

    async def _renumber(self, contact_id: UUID, changed: Changed) -> None:
        """It is the same person, with all that was said, agreed and opted out of."""
        phone = f"+{changed.phone.removeprefix('+')}" if changed.phone else None
        known = await receiving.renumber(self._con, self._d.tenant, contact_id, phone, changed.user_id)
        if known is not None:
            self._note(known)
        else:
            logger.bind(tenant=self._d.tenant, contact=str(contact_id)).warning(
                "A contact has a new number that is another contact's already: merge the two"
            )

    async def preference(self, preference: Preference) -> list[Outgoing]:
        """What somebody set in WhatsApp itself."""
        known = await self._contact(preference)
        if known is None:
            return []
        line = await self._line(known.id)
        word = Word("marketing", preference.out, preference.at, "preferences")
        told = await self._opt(line, word, f"{int(preference.at.timestamp())}")
        if word.out:
            await self._stop(line, "opt_out")
        return told

    async def refused(self, message: Moved, status: StatusUpdate) -> list[Outgoing]:
        """WhatsApp kept marketing from somebody who turned it off there."""
        if message.contact_id is None:
            return []
        heard, stopped = await turned_off(self._con, self._d.tenant, message.contact_id, status.at, status.wamid)
        await self._tell(*(self._outgoing(*one) for one in stopped))
        return [self._outgoing(*one) for one in heard]

    async def _contact(self, who: InboundMessage | Preference) -> Known | None:
        """The contact who says it; made if there is none."""
        phone = f"+{who.phone.removeprefix('+')}" if who.phone else None
        if phone is None and who.user_id is None:
            logger.warning("somebody writes to {} without saying who it is", self._d.tenant)
            return None
        known = await receiving.contact_for(self._con, self._d.tenant, phone, who.user_id, who.name, uuid7())
        self._note(known)
        if known.lacks:
            for learned in await naming.learn(self._con, self._d.tenant, phone, who.user_id):
                self._note(learned)
        return known

    def _note(self, known: Known) -> None:
        if known.gained:
            self._gained.append((self, known))

    async def remembered(self, known: Known) -> None:
        """Tell of opt-outs that a contact has gained with its number or id, unless it has taken them back since."""
        stand = known.gained & await receiving.outs(self._con, self._d.tenant, known.id)
        for category in sorted(stand):
            word = Word(cast("Category", category), True, self._d.at, REMEMBERED)
            await self._tell(self._outgoing(*opted(known.id, word, self._d.id)))
        if stand & STOPS_CAMPAIGNS:
            await self._stop([known.id], "opt_out")

    async def _reply(self, known: Known, message: InboundMessage, place: int) -> tuple[NewReply, UUID | None, bool]:
        """The reply, what it quotes, and whether it was not there before.

        WhatsApp tells whole seconds: those of one second are in the order in which they came, and ours among them.
        """
        tenant, sender_id, contact_id = self._d.tenant, UUID(self._d.message.sender_id), known.id
        conversation_id = await receiving.conversation_for(
            self._con, tenant, contact_id, sender_id, message.at, uuid7(), wrote=message.type != "system"
        )
        new = NewReply(
            uuid7_within(message.at, self._d.at, place, tenant, message.wamid),
            tenant,
            sender_id,
            contact_id,
            conversation_id,
            message.wamid,
            message.type,
            message.text,
            msgspec.json.encode(storable(message.payload)).decode(),
            message.context_wamid,
            message.at,
        )
        # Who is a contact only now was sent nothing as one; what went to a bare number can be quoted.
        to, quoted = (None, None) if known.made and not new.context_wamid else await receiving.answered(self._con, new)
        before = await receiving.reply(self._con, new, to, quoted, reopens=message.type not in ASIDE)
        return (new, quoted, True) if before is None else (replace(new, id=before), quoted, False)

    async def _consequences(
        self, reply: NewReply, message: InboundMessage, *, is_new: bool, runs: bool
    ) -> list[Outgoing]:
        """A reply stops the campaigns that say so; a request to stop stops all of them, and reaches no goal.

        One that is told again stops nothing that has begun since. `runs`: anything may be running for the contact.
        """
        told, contact_id, line = list[Outgoing](), reply.contact_id, [reply.contact_id]
        tapped = message.type in BUTTONS
        ask = asked(message.said, self._keywords, tapped=tapped)
        if ask is not None:
            line = await self._line(contact_id)
            source = "button" if tapped else "asked"
            word = Word(ask.category, ask.out, message.at, source, message.wamid)
            if heard := await self._opt(line, word, message.wamid):
                told += [*heard, *await self._confirm(reply, ask, message)]
        if not is_new:
            return told
        if ask is not None and ask.out and ask.category in STOPS_CAMPAIGNS:
            await self._stop(line, "opt_out")
            return told
        if not runs:
            return told
        for reached in await goals.reach_by_deed(self._con, self._d.tenant, contact_id):
            await self._tell(*goal_events(reached, self._cause))
        await self._stop([contact_id], "reply")
        return told

    async def _line(self, contact_id: UUID) -> list[UUID]:
        """Whose word it is: the contact's, and theirs whose number is the same, written otherwise."""
        return await receiving.line(self._con, self._d.tenant, contact_id)

    async def _opt(self, line: Sequence[UUID], word: Word, name: str) -> list[Outgoing]:
        """Write an opt-out or its end, and tell it; nothing of whom it was known."""
        heard = [id_ for id_ in line if await opting.hear(self._con, self._d.tenant, id_, word)]
        return [self._outgoing(*opted(id_, word, name)) for id_ in heard]

    async def _confirm(self, reply: NewReply, ask: Ask, message: InboundMessage) -> list[Outgoing]:
        """Answer that it was heard, if the tenant wants that: the one message that may follow an opt-out, once only.

        In the conversation it comes after what it answers. What was said so long ago that WhatsApp takes no answer to
        it is not confirmed: it may be older than all months that there is room for.
        """
        keywords = msgspec.json.decode(self._keywords, type=Keywords)
        text = getattr(keywords.confirmations, ask.kind)
        to = f"+{message.phone.removeprefix('+')}" if message.phone else message.user_id
        if text is None or to is None or not window.is_open(message.at, self._d.at):
            return []
        after, contact_id = time_of(reply.id) + timedelta(milliseconds=1), str(reply.contact_id)
        id_, sender_id = uuid7_for(after, self._d.tenant, message.wamid, "heard"), self._d.message.sender_id
        content = Content(body=text)
        row = NewMessage(
            id_,
            self._d.tenant,
            reply.contact_id,
            reply.sender_id,
            CONFIRMED_IN,
            to,
            msgspec.json.encode(content).decode(),
            "queued",
            None,
            self._cause,
            self._d.at,
        )
        await dispatching.queue(self._con, [row])
        work = Send(
            message_id=str(id_),
            sender_id=sender_id,
            lane=CONFIRMED_IN,
            contact_id=contact_id,
            to=to,
            due_at=self._d.at,
            content=content,
            confirms=True,
        )
        queued = events.MessageQueued(id=str(id_), contact_id=contact_id, sender_id=sender_id)
        self._heard.answers.append(Answer(self._d.tenant, sender_id))
        return [self._outgoing(work, str(id_)), self._outgoing(queued, f"{id_}.queued")]

    async def _stop(self, contacts: Sequence[UUID], reason: str) -> None:
        stops = [(self._d.tenant, id_, reason) for id_ in contacts]
        stopped = await enrolling.stop_contacts(self._con, stops)
        await self._tell(*(self._outgoing(*_stopped(row)) for row in stopped))

    async def _tell(self, *told: Outgoing) -> None:
        """What becomes so with this transaction only once: a webhook that comes again would not find it out anew."""
        for one in told:
            await outbox.put(self._con, one.tenant, one.message, one.id, one.cause)
            self._heard.later = True

    @property
    def _cause(self) -> str:
        return self._d.cause or self._d.id

    def _outgoing(self, message: Message, id_: str) -> Outgoing:
        return Outgoing(message, self._d.tenant, id_, self._cause)


async def turned_off(
    con: Connection, tenant: str, contact_id: UUID, at: datetime, name: str
) -> tuple[list[tuple[Message, str]], list[tuple[Message, str]]]:
    """Note that somebody has turned off marketing in WhatsApp, which it tells by refusing it; what runs is stopped.

    Returns what is to be told of that: the opt-outs of whoever has the line, and the enrolments that have ended.
    """
    line = await receiving.line(con, tenant, contact_id)
    word = Word("marketing", True, at, "whatsapp")
    heard = [id_ for id_ in line if await opting.hear(con, tenant, id_, word)]
    stops = [(tenant, id_, "opt_out") for id_ in line]
    stopped = await enrolling.stop_contacts(con, stops) if heard else []
    return [opted(id_, word, name) for id_ in heard], [_stopped(row) for row in stopped]


def opted(contact_id: UUID, word: Word, name: str) -> tuple[Message, str]:
    """The event of a word, and its id: the same when the word is heard again."""
    id_ = str(contact_id)
    if word.out:
        out = events.ContactOptedOut(id=id_, reason=word.source, category=word.category, source=word.source)
        return out, f"{id_}.opted_out.{word.category}.{name}"
    back = events.ContactOptedIn(id=id_, category=word.category, source=word.source)
    return back, f"{id_}.opted_in.{word.category}.{name}"


def _stopped(row: Any) -> tuple[Message, str]:
    event = events.EnrollmentStopped(id=str(row[0]), campaign_id=str(row[2]), contact_id=str(row[3]), reason=row[4])
    return event, f"{row[0]}.stopped"


def as_uuid(text: str) -> UUID | None:
    """An id of the front door's; None for what else somebody may have named a message."""
    try:
        return UUID(text)
    except ValueError:
        return None


def storable(value: Any, levels: int = DEEPEST) -> Any:
    """The same JSON as the database can hold: so many levels, without the one character that it has no room for."""
    if isinstance(value, str):
        return value.replace("\0", "") if "\0" in value else value
    if isinstance(value, list):
        return [storable(one, levels - 1) for one in value] if levels else None  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        if not levels:
            return None
        return {storable(key): storable(one, levels - 1) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value
