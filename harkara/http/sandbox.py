"""Telling the sandbox gateway where a sender's webhooks go."""

from __future__ import annotations

import aiohttp
import msgspec

#: The sandbox asks our webhook for the challenge in this time too.
PATIENCE = aiohttp.ClientTimeout(total=10)


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandbox has to know of a number. Its text form never shows the secrets."""

    phone_number_id: str
    url: str
    app_secret: str
    verify_token: str
    access_token: str
    display_phone_number: str = ""
    waba_id: str = ""

    def __repr__(self) -> str:
        return f"Registration(phone_number_id={self.phone_number_id!r}, url={self.url!r})"


class NotRegistered(Exception):
    """The sandbox could not be told; the text says why and what to do."""


async def register(gateway_url: str, registration: Registration) -> None:
    """PUT /sandbox/webhook. Raises NotRegistered."""
    url = f"{gateway_url.rstrip('/')}/sandbox/webhook"
    try:
        async with (
            aiohttp.ClientSession(timeout=PATIENCE) as session,
            session.put(
                url, data=msgspec.json.encode(registration), headers={"Content-Type": "application/json"}
            ) as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise NotRegistered(f"{url} does not answer ({why}): start it, or set WHATSAPP_GATEWAY_URL") from None
    if answer.status >= 400:
        raise NotRegistered(f"{url} answered {answer.status} {text[:200]!r}")
