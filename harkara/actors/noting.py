"""What an actor notes in the audit log of a command that somebody gave."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from harkara.bus.messages import Delivery
from harkara.callers import Callers
from harkara.ids import uuid7_for
from harkara.storage.auditing import Note

#: How a command came that the front door did not send.
BY_PARTNER = "nats"


class Noting:
    """Makes notes; without `callers` nobody's word counts, and all commands are taken for partners'."""

    def __init__(self, callers: Callers | None) -> None:
        self._callers = callers

    def said(self, d: Delivery[Any]) -> str:
        """What the front door says of who gave this command, as JSON; empty for a partner's."""
        return self._callers.read(d.tenant, d.id, d.by) if d.by and self._callers is not None else ""

    @staticmethod
    def id_of(d: Delivery[Any]) -> UUID:
        """The id of this command's note, however often it comes."""
        return uuid7_for(d.at, d.tenant, d.id, "audit")

    def note(
        self,
        d: Delivery[Any],
        action: str,
        entity: str,
        entity_id: UUID | str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        said: str | None = None,
    ) -> Note:
        """The note of what this command did to one thing; `said` if it was heard before."""
        verb = d.subject.partition(".cmd.")[2]
        return Note(
            id=self.id_of(d),
            tenant=d.tenant,
            said=self.said(d) if said is None else said,
            action=action,
            entity=entity,
            entity_id=str(entity_id),
            cause=d.cause or d.id,
            via=f"{BY_PARTNER} {verb}" if verb else BY_PARTNER,
            before=before,
            after=after,
        )
