"""What is known of keys and people: asked for all requests of a moment together, believed for less than a second.

A change is told over the bus and counts at once; whoever does not hear it asks again within TRUSTED_FOR anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast
from uuid import UUID

import msgspec
from loguru import logger

from harkara.http.access import Role
from harkara.http.asking import Questions
from harkara.http.believed import Believed
from harkara.http.context import answering
from harkara.http.identity import Identity, hash_of, tenant_of_key
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    from harkara.bus.publisher import Publisher

#: How old an answer of the database may be, whatever happens to the bus: a revocation counts within a second.
TRUSTED_FOR = timedelta(seconds=0.9)

#: Tells every front door that somebody's access was changed.
WAKE_ACCESS = "sys.access.changed"

#: A key by its hash, with the tenant it names. One that is in use is marked so, once a minute.
FIND_KEYS = """
with found as materialized (
  select i.place, k.id, k.scopes, k.expires_at, k.revoked_at, k.last_used_at
  from unnest($1::text[], $2::text[]) with ordinality as i (tenant_id, digest, place)
  left join api_keys k on k.tenant_id = i.tenant_id and k.key_hash = i.digest
    and (select t.is_active from tenants t where t.id = k.tenant_id)),
stale as (
  select k.id from found f join api_keys k on k.id = f.id
  where f.revoked_at is null and (f.expires_at is null or f.expires_at > now())
    and (f.last_used_at is null or f.last_used_at < now() - interval '1 minute')
  for no key update of k skip locked),
used as (
  update api_keys k set last_used_at = now() from stale where k.id = stale.id)
select id, scopes, expires_at, revoked_at from found order by place
"""

#: A person and one of their sessions; the first column is no tenant's.
FIND_PEOPLE = """
select a.* from unnest($1::text[], $2::uuid[], $3::uuid[]) with ordinality as i (nobody, member, session, place),
  lateral app.access(i.member, i.session) a
order by i.place
"""


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in one tenant; `accepted` once they have come there."""

    tenant: str
    name: str
    role: Role
    accepted: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person may do: nothing unless `alive`, that is the account is active and the session was not ended."""

    alive: bool
    memberships: tuple[Membership, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of an API key, and who comes with it."""

    id: UUID
    tenant: str
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None
    who: Identity = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "who", Identity(self.tenant, key_id=self.id, role="owner", scopes=self.scopes))


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose access was changed: one person's, one key's, or everybody's in this tenant."""

    tenant: str = ""
    user_id: UUID | None = None
    key_id: UUID | None = None


class Keyring:
    """Keys and people as the database knows them, or knew them less than TRUSTED_FOR ago."""

    def __init__(self, storage: Storage, questions: Questions) -> None:
        self._storage, self._questions = storage, questions
        self._keys: Believed[tuple[str, str], Key | None] = Believed(self._find_key, TRUSTED_FOR)
        self._people: Believed[tuple[UUID, UUID | None], Standing] = Believed(self._find_person, TRUSTED_FOR)
        self._subjects: Believed[tuple[UUID, str | None], UUID | None] = Believed(self._find_subject, TRUSTED_FOR)

    async def key(self, text: str) -> Key | None:
        """What is known of a key; None if there is no such key. Whether it has expired is for the caller to see."""
        tenant = tenant_of_key(text)
        return None if tenant is None else await self._keys.get((tenant, hash_of(text)))

    def known_key(self, text: str) -> Key | None:
        """The same at once, if it is known; None if it has to be asked for."""
        tenant = tenant_of_key(text)
        return None if tenant is None else self._keys.known((tenant, hash_of(text)))

    async def key_by_hash(self, tenant: str, digest: str) -> Key | None:
        """What is known of the key of this tenant that has this SHA-256; None if there is no such key."""
        return await self._keys.get((tenant, digest))

    async def standing(self, user: UUID, session: UUID | None) -> Standing:
        """What a person may do in this session."""
        return await self._people.get((user, session))

    async def memberships(self, user: UUID) -> tuple[Membership, ...]:
        """The active tenants of a user, by name."""
        return (await self.standing(user, None)).memberships

    async def of_supabase(self, subject: UUID, email: str | None) -> UUID | None:
        """The account of one who logged in at Supabase, if there is one; `email` only if it is confirmed."""
        return await self._subjects.get((subject, email))

    def forget(self, change: Change | None = None) -> None:
        """Ask the database again: for what this change is about, or for everything."""
        if change is None or not (change.user_id or change.key_id):
            tenant = None if change is None else change.tenant
            self._keys.forget(None if tenant is None else lambda key, _: key[0] == tenant)
            self._people.forget()
            return
        self._keys.forget(lambda _, key: key is not None and key.id == change.key_id)
        self._people.forget(lambda person, _: person[0] == change.user_id)

    async def _find_key(self, key: tuple[str, str]) -> Key | None:
        tenant, digest = key
        row = await self._questions.ask(FIND_KEYS, tenant, digest)
        if row["id"] is None:
            return None
        return Key(row["id"], tenant, frozenset(row["scopes"]), row["expires_at"], row["revoked_at"])

    async def _find_subject(self, person: tuple[UUID, str | None]) -> UUID | None:
        async with answering(self._storage.anonymous()) as con:
            user: UUID | None = await con.fetchval("select app.of_supabase($1, $2)", *person)
        return user

    async def _find_person(self, person: tuple[UUID, UUID | None]) -> Standing:
        row = await self._questions.ask(FIND_PEOPLE, "", *person)
        places = zip(row["tenants"], row["names"], row["roles"], row["accepted"], strict=True)
        members = (Membership(tenant, name, cast("Role", role), came) for tenant, name, role, came in places)
        return Standing(row["alive"], tuple(members))


def access_changed(keyring: Keyring, publisher: Publisher, change: Change) -> None:
    """What was known of somebody counts no longer, in no process. Call it when the change is committed."""
    keyring.forget(change)
    publisher.wake(WAKE_ACCESS, msgspec.json.encode(change))


def heard(data: bytes) -> Change | None:
    """What another front door told; None, for everything, if it can't be read."""
    try:
        return msgspec.json.decode(data, type=Change)
    except (msgspec.DecodeError, UnicodeDecodeError):
        logger.warning("{} told something that can't be read: everything is asked again", WAKE_ACCESS)
        return None
