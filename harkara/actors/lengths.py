"""How long templates are: a text that becomes too long for one contact does not leave, and names the field."""

from __future__ import annotations

from uuid import UUID

import msgspec

from harkara.actors.reading import Once
from harkara.policy.fits import fixed_length, too_long
from harkara.rendering import Unsayable
from harkara.schemas.content import Content
from harkara.storage import templates
from harkara.storage.storage import Storage

#: Seconds for which a template's text is taken as read: WhatsApp looks at each change of one for longer.
FRESH_S = 60.0

#: Tenant, number, name and language.
_Key = tuple[str, str, str, str]


class Lengths:
    """Reads how long templates' texts are without their parameters, and keeps that for a while."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: Once[_Key, tuple[int | None]] = Once(self._read, fresh_s=FRESH_S)

    async def fitting(self, tenant: str, sender_id: str, content: Content) -> Content | Unsayable:
        """The content, or that its template becomes too long with what is put into it, as far as that is known."""
        template = content.template
        if template is None:
            return content
        (fixed,) = await self._known.get((tenant, sender_id, template.name, template.language))
        faults = [] if fixed is None else list(too_long(template, fixed))
        return Unsayable(faults, content) if faults else content

    async def _read(self, key: _Key) -> tuple[int | None]:
        tenant, sender_id, name, language = key
        async with self._storage.batch((tenant,)) as con:
            raw = await templates.components(con, tenant, UUID(sender_id), name, language)
        return (None if raw is None else fixed_length(msgspec.json.decode(raw)),)
