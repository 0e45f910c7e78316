"""The numbers we send through: their credentials and rate, read often enough to notice a change within seconds."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from harkara.actors.reading import Once
from harkara.gateway.protocol import Credentials
from harkara.storage import sending
from harkara.storage.storage import Storage
from harkara.vault import Vault

#: Seconds for which a number's credentials and rate are taken as read. Whether it may send is judged on fresh facts.
FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Number:
    """What sending through a number takes; `rate` is in messages a second."""

    credentials: Credentials
    rate: int


class Numbers:
    """Reads numbers and keeps them for a few seconds."""

    def __init__(self, storage: Storage, vault: Vault) -> None:
        self._storage, self._vault = storage, vault
        self._known: Once[tuple[str, str], Number | None] = Once(self._read, fresh_s=FRESH_S)

    async def get(self, tenant: str, sender_id: str) -> Number | None:
        """The number, or None if this tenant has none of that id.

        Raises ValueError if its secret can't be decrypted.
        """
        return await self._known.get((tenant, sender_id))

    async def _read(self, key: tuple[str, str]) -> Number | None:
        tenant, sender_id = key
        async with self._storage.batch((tenant,)) as con:
            row = await sending.sender(con, tenant, UUID(sender_id))
        if row is None:
            return None
        provider, phone_number_id, access_token, mps, _ = row
        credentials = Credentials(
            sender_id=sender_id,
            phone_number_id=phone_number_id,
            access_token=self._vault.open(access_token) or "",
            provider=provider,
        )
        return Number(credentials, mps)
