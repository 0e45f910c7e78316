"""The books at the end: whoever was imported got every step once or is accounted for, and the gateway agrees."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from harkara.demo.client import Accepted
from harkara.schemas.api import ContactShown, EnrollmentShown, MessageShown

#: These have left.
GONE = frozenset({"sent", "delivered", "read"})

#: A message that was being judged at the very moment of the stop may bear a time that is a little later.
SAME_MOMENT = timedelta(seconds=0.5)

#: When it is more, the rest is only counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that both sides know once it is over."""

    steps: int
    contacts: Sequence[ContactShown]
    enrollments: Sequence[EnrollmentShown]
    messages: Sequence[MessageShown]
    accepted: Sequence[Accepted]
    #: Contacts who were made to answer, and how their enrolment should have ended by that.
    answered: Mapping[UUID, str | None]

    def shortfalls(self) -> list[str]:
        """What is not as it should be, a line each; empty if all is well."""
        found = [*self._people(), *self._gateway()]
        more = len(found) - NAMED
        return [*found[:NAMED], f"… and {more} more of this kind"] if more > 0 else found

    @property
    def not_enrolled(self) -> Counter[str]:
        """Why imported contacts were not enrolled, by the reason."""
        enrolled = {enrollment.contact_id for enrollment in self.enrollments}
        return Counter(_why_not(contact) for contact in self.contacts if contact.id not in enrolled)

    @property
    def ended(self) -> Counter[str]:
        """How enrolments ended: `completed`, or the reason for which they stopped."""
        return Counter(one.stopped_reason or one.status for one in self.enrollments)

    def _people(self) -> list[str]:
        of_contact: dict[UUID, list[MessageShown]] = defaultdict(list)
        for message in self.messages:
            if message.contact_id is not None:
                of_contact[message.contact_id].append(message)
        enrolled = {enrollment.contact_id: enrollment for enrollment in self.enrollments}
        found: list[str] = []
        for contact in self.contacts:
            fault = self._fault(contact, enrolled.get(contact.id), of_contact[contact.id])
            found += [f"{contact.name} {contact.phone}: {fault}"] if fault else []
        return found

    def _fault(
        self, contact: ContactShown, enrollment: EnrollmentShown | None, messages: Sequence[MessageShown]
    ) -> str | None:
        if enrollment is None:
            return None if contact.consent is None and not messages else "was not enrolled, and nobody says why"
        gone = sorted(message.step or 0 for message in messages if message.status in GONE)
        expected = self.answered.get(contact.id)
        if expected is None:
            if enrollment.status != "completed":
                return f"their enrolment is {enrollment.status} ({_reasons(enrollment, messages)})"
            return None if gone == list(range(self.steps)) else f"got the steps {_numbers(gone)} ({_sorry(messages)})"
        if enrollment.status != "stopped" or enrollment.stopped_reason != expected:
            return f"answered, and their enrolment is {enrollment.status} instead of stopped by {expected}"
        return _after_stop(gone, messages, enrollment.finished_at)

    def _gateway(self) -> list[str]:
        ours = {str(message.id): message for message in self.messages}
        taken = Counter(one.biz_opaque_callback_data or "" for one in self.accepted)
        found = [
            f"{_which(ours.get(id_), id_)} is {count} times with the gateway"
            for id_, count in taken.items()
            if count > 1
        ]
        found += [
            f"the gateway has a message that is not ours: {id_ or 'without an id'}"
            for id_ in taken.keys() - ours.keys()
        ]
        found += [
            f"{_which(message, id_)} is {message.status} here, and the gateway does not have it"
            for id_, message in ours.items()
            if message.status in GONE and id_ not in taken
        ]
        pairs = Counter((m.contact_id, m.step) for m in self.messages if str(m.id) in taken)
        found += [
            f"step {step or 0} went to contact {contact} {n} times" for (contact, step), n in pairs.items() if n > 1
        ]
        return found + self._statuses(ours)

    def _statuses(self, ours: Mapping[str, MessageShown]) -> list[str]:
        return [
            f"{_which(message, str(message.id))} is {message.status} here and {one.status} at the gateway"
            for one in self.accepted
            if (message := ours.get(one.biz_opaque_callback_data or "")) and message.status != one.status
        ]


def _why_not(contact: ContactShown) -> str:
    return "they did not agree to marketing" if contact.consent is None else "unknown"


def _after_stop(gone: Sequence[int], messages: Sequence[MessageShown], at: datetime | None) -> str | None:
    if list(gone) != list(range(len(gone))):
        return f"got the steps {_numbers(gone)} before they were stopped"
    late = [m for m in messages if m.status in GONE and at is not None and m.created_at > at + SAME_MOMENT]
    return f"got step {late[0].step or 0} although they had asked to stop" if late else None


def _numbers(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _reasons(enrollment: EnrollmentShown, messages: Sequence[MessageShown]) -> str:
    return enrollment.stopped_reason or _sorry(messages)


def _sorry(messages: Sequence[MessageShown]) -> str:
    """What became of the messages that did not leave."""
    return "; ".join(f"step {m.step or 0} {m.status}: {m.reason}" for m in messages if m.status not in GONE) or "-"


def _which(message: MessageShown | None, id_: str) -> str:
    return f"step {message.step or 0} for {message.to}" if message else f"message {id_}"
