"""The numbers we send through: their credentials and rate, read often enough to notice a change within seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from harkara.actors.budget import Spending
from harkara.actors.reading import Once
from harkara.gateway.protocol import Credentials
from harkara.storage import sending
from harkara.storage.storage import Storage
from harkara.vault import Vault

#: Seconds for which a number's credentials and rate are taken as read. Whether it may send is judged on fresh facts.
FRESH_S = 5.0

#: How many messages a second a tenant may send over all its numbers, by plan; a plan that is not here has no limit.
SENDS_PER_S = {"trial": 20.0}

#: A paused number is taken for one that rests so long; then it is looked at again.
PAUSED_REST = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Number:
    """What sending through a number takes; `rate` is in messages a second.

    It may write first to `daily` people in 24 hours, with all numbers of its `portfolio`; `paired` says that WhatsApp's
    rule of six seconds to one phone holds.
    """

    credentials: Credentials
    rate: int
    status: str = "active"
    held_until: datetime | None = None
    daily: int | None = None
    portfolio: str = ""
    paired: bool = False
    plan: str = ""

    def spending(self, tenant: str, to: str, template: str | None) -> Spending:
        """What a message from this number counts against, besides the number. Only templates can begin a talk."""
        limited = self.daily is not None and template is not None
        return Spending(
            to=to,
            paired=self.paired,
            portfolio=f"{tenant}:{self.portfolio}" if limited else "",
            daily=self.daily or 0,
            template=f"{tenant}:{self.portfolio}:{template}" if template else "",
            tenant=tenant,
            tenant_rate=SENDS_PER_S.get(self.plan, 0),
        )

    def rest(self, now: datetime) -> timedelta | None:
        """How long it sends nothing, as far as is known; None if it may send."""
        if self.status != "active":
            return PAUSED_REST
        return self.held_until - now if self.held_until and self.held_until > now else None


class Numbers:
    """Reads numbers and keeps them for a few seconds."""

    def __init__(self, storage: Storage, vault: Vault) -> None:
        self._storage, self._vault = storage, vault
        self._known: Once[tuple[str, str], Number | None] = Once(self._read, fresh_s=FRESH_S)

    def get(self, tenant: str, sender_id: str) -> Awaitable[Number | None]:
        """The number, or None if this tenant has none of that id.

        Raises ValueError if its secret can't be decrypted.
        """
        return self._known.get((tenant, sender_id))

    def rests(self, tenant: str, sender_id: str) -> bool:
        """Whether the number sends nothing now, by what was read last: then its messages needn't be fetched."""
        number = self._known.last((tenant, sender_id))
        return number is not None and number.rest(datetime.now(UTC)) is not None

    def changed(self, sender_id: str) -> None:
        """Somebody has changed this number: it is read again by the next who asks."""
        self._known.expire(lambda key: key[1] == sender_id)

    def halted(self, tenant: str, sender_ids: Iterable[UUID], wait: timedelta) -> None:
        """These numbers have just been stopped: don't wait to read that."""
        until = datetime.now(UTC) + wait
        for id_ in sender_ids:
            number = self._known.last((tenant, str(id_)))
            if number is not None:
                self._known.put((tenant, str(id_)), replace(number, held_until=until))

    async def _read(self, key: tuple[str, str]) -> Number | None:
        tenant, sender_id = key
        async with self._storage.batch((tenant,)) as con:
            row = await sending.sender(con, tenant, UUID(sender_id))
        if row is None:
            return None
        provider, phone_number_id, access_token, mps, *state = row
        credentials = Credentials(
            sender_id=sender_id,
            phone_number_id=phone_number_id,
            access_token=self._vault.open(access_token) or "",
            provider=provider,
        )
        return Number(credentials, mps, *state)
