"""The Evolution API client: WhatsApp through a phone's own account, linked by a QR code.

Requests, answers and errors are those of Evolution API v2.3.6. It wraps whatever goes wrong while sending into a 400,
even after WhatsApp took the message, so its errors prove something only by their text.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from datetime import timedelta
from typing import Any, cast

import msgspec
from yarl import URL

from harkara.gateway import jids
from harkara.gateway.abilities import lacks
from harkara.gateway.errors import Scope
from harkara.gateway.exchange import Exchange, Reply, prepared
from harkara.gateway.protocol import (
    DOWNLOAD_LIMIT,
    Accepted,
    Answer,
    Credentials,
    Done,
    Downloaded,
    Fetched,
    Hook,
    MediaInfo,
    Problem,
    Qr,
    Refused,
    Session,
    Unknown,
    Uploaded,
    Write,
)
from harkara.gateway.refusals import (
    ANYWHERE,
    case,
    give_up,
    judged,
    stop,
    unreachable,
    unsupported,
    wait,
)
from harkara.schemas.content import Content, Interactive, Media

#: Its events that we take in.
EVENTS = ("MESSAGES_UPSERT", "MESSAGES_UPDATE", "SEND_MESSAGE", "CONNECTION_UPDATE", "QRCODE_UPDATED")

#: Its states in our words; `refused` is when nobody scanned the code in time.
STATES = {"open": "working", "connecting": "starting", "close": "stopped", "refused": "failed"}

#: A file comes as Base64 within JSON: four characters for three bytes, and some room for what is said of it.
BASE64_LIMIT = DOWNLOAD_LIMIT * 4 // 3 + 65536

#: How long the other side is shown that we type, in milliseconds.
TYPING_MS = 3000

#: What it says of an instance that isn't there; any other 404 is somebody else's.
_ABSENT = re.compile("instance does not exist")

#: The answers that prove that nothing was sent.
REFUSALS = (
    case(401, "", stop("The Evolution API does not know this access token")),
    case(403, "", stop("The Evolution API does not allow this")),
    case(404, "", stop("The Evolution API has no such instance, or is not at this address")),
    case(400, "is not on WhatsApp", give_up("The recipient is not on WhatsApp", Scope.RECIPIENT)),
    case(400, r"^(Error: )?Connection Closed$", wait("The phone is not connected", 15)),
    case(500, r"^(Error: )?Connection Closed$", wait("The phone is not connected", 15)),
    case(
        400,
        r"requires property|does not match|is not one of|is not of a type|must be an array|does not meet minimum"
        r"|^Text is required|^Owned media must be|^At least one button|^Maximum of 3|cannot be mixed",
        give_up("The Evolution API does not understand the message"),
    ),
    case(500, r"AxiosError|Failed to convert", give_up("The file could not be fetched or converted")),
    case(413, "", give_up("The message is too large for the Evolution API")),
    *ANYWHERE,
)


class _Key(msgspec.Struct):
    id: str


class _Sent(msgspec.Struct):
    key: _Key


class _Response(msgspec.Struct):
    message: Any = None


class _Failure(msgspec.Struct):
    error: Any = None
    response: _Response | None = None
    message: Any = None


class _State(msgspec.Struct):
    state: str | None = None
    status: str | None = None


class _Connection(msgspec.Struct):
    instance: _State | None = None
    base64: str | None = None
    code: str | None = None
    count: int | None = None


class _File(msgspec.Struct):
    base64: str
    mimetype: str = "application/octet-stream"


_sent = msgspec.json.Decoder(_Sent)
_failure = msgspec.json.Decoder(_Failure)
_connection = msgspec.json.Decoder(_Connection)
_file = msgspec.json.Decoder(_File)


class EvolutionGateway:
    """Sends through the Evolution API at `base_url`; a sender's `phone_number_id` is its instance's name."""

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout: timedelta = timedelta(seconds=5),
        answer_timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        self._base = URL(base_url.rstrip("/"))
        self._exchange = Exchange(connect_timeout=connect_timeout, answer_timeout=answer_timeout)

    async def send(
        self, credentials: Credentials, to: str, content: Content, *, opaque: str, reply_to: str | None = None
    ) -> Answer:
        """Send rendered content. `opaque` does not travel along: statuses name the key that is accepted here."""
        number = jids.address(to)
        if number is None:
            return unreachable(to)
        if missing := [what for _, what in lacks("evolution", content)]:
            return unsupported("; ".join(missing))
        path, body = encoded(content)
        if reply_to is not None:
            body["quoted"] = {"key": {"id": jids.key_of(reply_to)}}
        reply = await self._call("POST", credentials, f"message/{path}", {"number": number, **body})
        if not isinstance(reply, Reply):
            return reply
        if reply.status not in (200, 201):
            return judged(REFUSALS, reply, _words_of(reply.body))
        try:
            return Accepted(_sent.decode(reply.body).key.id)
        except msgspec.DecodeError:
            return Unknown(f"the gateway answered {reply.status} without a message's key")

    async def mark_read(self, credentials: Credentials, message_id: str, *, typing: bool = False) -> Done | Problem:
        """Mark an inbound message as read, optionally showing for some seconds that we are typing."""
        chat = jids.chat_of(message_id)
        if chat is None:
            return unsupported(f"{message_id} does not say whose message it is")
        read = {"remoteJid": chat, "fromMe": False, "id": jids.key_of(message_id)}
        done = await self._do("POST", credentials, "chat/markMessageAsRead", {"readMessages": [read]})
        if isinstance(done, Done) and typing:
            shown = {"number": chat, "presence": "composing", "delay": TYPING_MS}
            return await self._do("POST", credentials, "chat/sendPresence", shown)
        return done

    async def upload_media(
        self, credentials: Credentials, data: bytes, mime_type: str, filename: str
    ) -> Uploaded | Problem:
        """It keeps no files."""
        return unsupported("the Evolution API keeps no uploaded files: send a link")

    async def media_info(self, credentials: Credentials, media_id: str) -> MediaInfo | Problem:
        """A received file is named by its message, and its size is known once it was fetched."""
        return MediaInfo(media_id, "application/octet-stream", "", 0)

    async def download(self, credentials: Credentials, url: str) -> Downloaded | Problem:
        """Fetch the file of the message that `media_info` named, of at most `DOWNLOAD_LIMIT` bytes."""
        wanted = {"message": {"key": {"id": jids.key_of(url)}}, "convertToMp4": False}
        path = "chat/getBase64FromMediaMessage"
        reply = await self._call("POST", credentials, path, wanted, limit=BASE64_LIMIT)
        if not isinstance(reply, Reply):
            return reply
        if reply.status not in (200, 201):
            return judged(REFUSALS, reply, _words_of(reply.body))
        try:
            found = _file.decode(reply.body)
            return Downloaded(b64decode(found.base64, validate=True), found.mimetype)
        except (msgspec.DecodeError, binascii.Error):
            return Unknown("the gateway answered without the file")

    async def fetch(self, credentials: Credentials, url: str, write: Write) -> Fetched | Problem:
        """Hand on a received file, which this gateway gives only as a whole."""
        found = await self.download(credentials, url)
        if not isinstance(found, Downloaded):
            return found
        await write(found.data)
        return Fetched(found.mime_type)

    # -- the session ----------------------------------------------------------------------------------------------

    async def state(self, credentials: Credentials) -> Session | Problem:
        """How the instance stands; one that isn't there yet is stopped."""
        reply = await self._call("GET", credentials, "instance/connectionState")
        if isinstance(reply, Reply) and reply.status == 404 and _ABSENT.search(_words_of(reply.body)):
            return Session("stopped", "there is no such instance yet: start it")
        return _session(reply)

    async def start(self, credentials: Credentials, hook: Hook) -> Session | Problem:
        """Make the instance if there is none, have it report to us, and connect it."""
        now = await self._call("GET", credentials, "instance/connectionState")
        if isinstance(now, Reply) and now.status == 404:
            wanted = {
                "instanceName": credentials.phone_number_id,
                "integration": "WHATSAPP-BAILEYS",
                "qrcode": False,
                "groupsIgnore": True,
            }
            made = await self._do("POST", credentials, "instance/create", wanted, named=False)
            if not isinstance(made, Done):
                return made
        told = await self._do("POST", credentials, "webhook/set", {"webhook": webhook(hook)})
        if not isinstance(told, Done):
            return told
        reply = await self._call("GET", credentials, "instance/connect")
        return _session(reply)

    async def restart(self, credentials: Credentials) -> Session | Problem:
        """Close the connection and open it anew; one that is not connected is connected."""
        done = await self._do("POST", credentials, "instance/restart", {})
        if isinstance(done, Refused) and done.code == 404:
            return done
        return _session(await self._call("GET", credentials, "instance/connect"))

    async def logout(self, credentials: Credentials) -> Session | Problem:
        """Unlink the phone; one that is not linked is."""
        reply = await self._call("DELETE", credentials, "instance/logout")
        if isinstance(reply, Reply) and reply.status in (200, 201, 400):
            return Session("stopped", "logged out")
        return _session(reply)

    async def qr(self, credentials: Credentials, *, image: bool) -> Qr | Session | Problem:
        """What the phone has to scan."""
        reply = await self._call("GET", credentials, "instance/connect")
        if isinstance(reply, Reply) and reply.status in (200, 201):
            try:
                found = _connection.decode(reply.body)
            except msgspec.DecodeError:
                return Unknown("the gateway answered with something else than a code")
            if found.base64 is not None and image:
                return Qr(image=_png(found.base64))
            if found.code is not None and not image:
                return Qr(code=found.code)
        return _session(reply)

    async def close(self) -> None:
        """Give up all connections; a later call opens new ones."""
        await self._exchange.close()

    async def _call(
        self,
        method: str,
        credentials: Credentials,
        path: str,
        body: Any = None,
        *,
        named: bool = True,
        limit: int | None = None,
    ) -> Reply | Problem:
        name = [credentials.phone_number_id] if named else []
        url = prepared(lambda: self._base.joinpath(*path.split("/"), *name))
        if isinstance(url, Refused):
            return url
        headers = {"apikey": credentials.access_token, "Accept": "application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        return await self._exchange.call(method, url, headers, data, limit=limit)

    async def _do(
        self, method: str, credentials: Credentials, path: str, body: Any = None, *, named: bool = True
    ) -> Done | Problem:
        reply = await self._call(method, credentials, path, body, named=named)
        if not isinstance(reply, Reply):
            return reply
        return Done() if reply.status in (200, 201) else judged(REFUSALS, reply, _words_of(reply.body))


def webhook(hook: Hook) -> dict[str, Any]:
    """How an instance is told to report: it makes a token of the secret for each report (HS256, ten minutes)."""
    return {
        "enabled": True,
        "url": hook.url,
        "headers": {"jwt_key": hook.secret},
        "byEvents": False,
        "base64": False,
        "events": list(EVENTS),
    }


def encoded(content: Content) -> tuple[str, dict[str, Any]]:
    """The path and the body for content that it can send. Raises ValueError if the content says nothing."""
    if content.body is not None:
        return "sendText", {"text": content.body}
    if content.media is not None:
        return _media(content.media)
    if content.interactive is not None:
        return _interactive(content.interactive)
    raise ValueError("the content has neither body, media nor interactive: check it with faults()")


def _media(media: Media) -> tuple[str, dict[str, Any]]:
    if media.type == "sticker":
        return "sendSticker", {"sticker": media.link}
    more = {"caption": media.caption, "fileName": media.filename}
    given = {name: value for name, value in more.items() if value is not None}
    return "sendMedia", {"mediatype": media.type, "media": media.link, **given}


def _interactive(interactive: Interactive) -> tuple[str, dict[str, Any]]:
    """It sets the title in bold above the description: ours is the header if there is one, else the text."""
    header = interactive.header if isinstance(interactive.header, str) else None
    texts = {"title": header or interactive.body, "description": interactive.body if header else ""}
    if interactive.buttons:
        buttons = [{"type": "reply", "displayText": one.title, "id": one.id} for one in interactive.buttons]
        return "sendButtons", {**texts, "footer": interactive.footer or "", "buttons": buttons}
    sections = [
        {
            "title": section.title or interactive.button,
            "rows": [_row(row.id, row.title, row.description) for row in section.rows],
        }
        for section in interactive.sections
    ]
    more = {"footerText": interactive.footer or "", "buttonText": interactive.button, "sections": sections}
    return "sendList", {**texts, **more}


def _row(id_: str, title: str, description: str | None) -> dict[str, str]:
    """An empty description is refused there."""
    return {"rowId": id_, "title": title, **({"description": description} if description else {})}


def _words_of(body: bytes) -> str:
    """All that an error says in words."""
    try:
        failure = _failure.decode(body)
    except msgspec.DecodeError:
        return body[:500].decode(errors="replace")
    said = failure.response.message if failure.response else failure.message
    return _words(said if said is not None else failure.error)


def _words(said: object) -> str:
    if isinstance(said, list):
        return "; ".join(_words(one) for one in cast("list[object]", said))
    if isinstance(said, dict):
        fields = cast("dict[str, object]", said)
        if fields.get("exists") is False:
            return f"{fields.get('number') or fields.get('jid')} is not on WhatsApp"
        return msgspec.json.encode(fields).decode()
    return "" if said is None else str(said)


def _session(reply: Reply | Problem) -> Session | Problem:
    """What an answer says of the session's state: a code to scan says that it waits for a phone."""
    if not isinstance(reply, Reply):
        return reply
    if reply.status not in (200, 201):
        return judged(REFUSALS, reply, _words_of(reply.body))
    try:
        found = _connection.decode(reply.body)
    except msgspec.DecodeError:
        return Unknown("the gateway answered with something else than a state")
    if found.code is not None or found.base64 is not None:
        return Session("scan_qr")
    if found.instance is None:  # a code that is still being made has only been counted
        return Session("starting") if found.count is not None else Unknown("the gateway answered without a state")
    return Session(STATES.get(found.instance.state or found.instance.status or "connecting", "failed"))


def _png(base64: str) -> bytes | None:
    """A data URL's bytes; None if it is none."""
    match = re.match(r"^data:image/png;base64,(.+)$", base64, re.DOTALL)
    try:
        return b64decode(match[1] if match else base64, validate=True)
    except binascii.Error:
        return None
