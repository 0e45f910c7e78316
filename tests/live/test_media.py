"""Files that contacts send: fetched, shown on the reply, read by their tenant alone, and gone with the contact."""

from __future__ import annotations

import base64
import os
from functools import partial
from pathlib import Path
from typing import Any

from chaos.harness import Platform, Tenant
from live.listening import Ear, listening
from support import until


async def arrived(live: Platform, tenant: Tenant, ear: Ear, sender: Any, phone: str, kind: str, **part: Any) -> Any:
    """A file from this phone, once it is fetched: as it is shown on its reply."""

    def stored() -> int:
        return sum(told["type"] == "media.stored" for told in ear.heard)

    known, before = stored(), await tenant.ids("/replies")
    await live.gateway.tell(phone, sender["phone_number_id"], type=kind, **{kind: part})
    await until(lambda: stored() > known, "the file is fetched")
    [reply] = [one for one in await tenant.every("/replies") if one["id"] not in before]
    assert reply["type"] == kind
    return reply["media"]


async def read(tenant: Tenant, path: str) -> tuple[int, bytes, Any]:
    async with tenant.session.get(f"{tenant.url}{path}", headers=tenant.headers) as response:
        return response.status, await response.read(), response.headers


async def test_a_file_is_kept_shown_and_served_so_that_nothing_runs(
    live: Platform, tenant: Tenant, other: Tenant
) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    content = os.urandom(300_000)
    async with listening(tenant) as ear:
        sent = {
            "data": base64.b64encode(content).decode(),
            "mime_type": "application/pdf",
            "filename": "Rechnung ü.pdf",
        }
        file = await arrived(live, tenant, ear, sender, contact["phone"], "document", **sent)
        picture = await arrived(live, tenant, ear, sender, contact["phone"], "image", caption="Look")
    assert (file["status"], file["size"], file["mime_type"]) == ("stored", len(content), "application/pdf")
    status, body, headers = await read(tenant, file["url"])
    assert (status, body) == (200, content)
    assert headers["Content-Type"] == "application/pdf"
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''Rechnung%20%C3%BC.pdf"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert (await read(tenant, picture["url"]))[2]["Content-Disposition"] == "inline"
    assert (await read(other, file["url"]))[0] == 404
    (conversation,) = await tenant.every("/conversations")
    said = await tenant.every(f"/conversations/{conversation['id']}/messages")
    # WhatsApp tells whole seconds: which of two in one second came first, it does not say.
    assert {one["media"]["id"] for one in said} == {picture["id"], file["id"]}


def _gone(file: Path) -> bool:
    return not file.exists()


async def test_files_are_gone_with_their_contact(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    async with listening(tenant) as ear:
        for how in ("", "?erase=true"):
            contact = await tenant.contact()
            file = await arrived(live, tenant, ear, sender, contact["phone"], "image")
            kept = live.data / "media" / tenant.id / file["id"]
            assert kept.exists()
            await tenant.call("DELETE", f"/contacts/{contact['id']}{how}")
            await until(partial(_gone, kept), f"the file is gone after DELETE {how}", 60)


async def test_what_the_gateway_does_not_have_is_said(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    async with listening(tenant) as ear:
        image = {"id": "forgotten", "mime_type": "image/png"}
        await live.gateway.tell(contact["phone"], sender["phone_number_id"], type="image", image=image)
        await until(lambda: any(told["type"] == "media.failed" for told in ear.heard), "it is given up")
    (reply,) = await tenant.every("/replies")
    assert (reply["media"]["status"], bool(reply["media"]["reason"])) == ("failed", True)
    assert (await read(tenant, reply["media"]["url"]))[0] == 410
