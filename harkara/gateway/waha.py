"""The WAHA client: WhatsApp through a phone's own account, linked by a QR code.

Requests and answers are those of WAHA's documentation of July 2026; the id of what was sent differs by its engine.
"""

from __future__ import annotations

import mimetypes
from datetime import timedelta
from typing import Any, cast

import msgspec
from yarl import URL

from harkara.gateway import jids
from harkara.gateway.abilities import lacks
from harkara.gateway.errors import Scope
from harkara.gateway.exchange import Exchange, Reply
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
    Session,
    Unknown,
    Uploaded,
    Write,
)
from harkara.gateway.refusals import ANYWHERE, again, case, give_up, judged, stop, unreachable, unsupported, wait
from harkara.schemas.content import Content, Media

#: Its events that we take in. Of `message.any` only our own messages count: they settle what was in doubt.
EVENTS = ("message", "message.any", "message.ack", "message.reaction", "session.status")

#: Its states in our words; a passkey, too, is a person's to give.
STATES = {
    "STOPPED": "stopped",
    "STARTING": "starting",
    "SCAN_QR_CODE": "scan_qr",
    "PASSKEY_REQUIRED": "scan_qr",
    "PASSKEY_CONFIRMATION_REQUIRED": "scan_qr",
    "WORKING": "working",
    "FAILED": "failed",
}

#: What its framework says of a path that it doesn't know, so that it is another who was asked.
_NO_PATH = "Cannot GET "

#: The answers that prove that nothing was sent. Its checks of input and session come before it does anything.
REFUSALS = (
    case(401, "", stop("WAHA does not know this access token")),
    case(403, "", stop("WAHA does not allow this")),
    case(404, "", stop("WAHA has no such session, or is not at this address")),
    case(422, "session status is not as expected", wait("The phone is not connected", 15)),
    case(422, "only 'default' session|session.*(does not exist|not found)", stop("WAHA has no such session")),
    case(422, "", give_up("This WAHA can't send it")),
    case(400, "", give_up("WAHA does not understand the message")),
    case(500, r"no lid for user|is not on whatsapp", give_up("The recipient is not on WhatsApp", Scope.RECIPIENT)),
    case(500, r"server returned error [0-9]+", again("WhatsApp refused the message", 60, attempts=1)),
    case(500, "connection closed", wait("The phone is not connected", 15)),
    case(413, "", give_up("The message is too large for WAHA")),
    *ANYWHERE,
)

_MIME_TYPES = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/ogg"}


class _Info(msgspec.Struct):
    status: str
    config: dict[str, Any] | None = None


class _Code(msgspec.Struct):
    value: str


class _Absence(msgspec.Struct):
    message: str
    code: int = msgspec.field(name="statusCode")


_info = msgspec.json.Decoder(_Info)
_absence = msgspec.json.Decoder(_Absence)
_code = msgspec.json.Decoder(_Code)


class WahaGateway:
    """Sends through the WAHA at `base_url`; a sender's `phone_number_id` is its session's name."""

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
        """Send rendered content. `opaque` does not travel along: acknowledgements name the id that is accepted here."""
        number = jids.address(to)
        if number is None:
            return unreachable(to)
        if missing := [what for _, what in lacks("waha", content)]:
            return unsupported("; ".join(missing))
        path, body = encoded(content)
        body |= {"session": credentials.phone_number_id, "chatId": chat_id(number)}
        if reply_to is not None:
            # What is known by its key alone is ours.
            ours = jids.full_id(body["chatId"], reply_to, from_me=True)
            body["reply_to"] = reply_to if jids.chat_of(reply_to) else ours
        reply = await self._call("POST", credentials, f"api/{path}", body)
        if not isinstance(reply, Reply):
            return reply
        if reply.status not in (200, 201):
            return judged(REFUSALS, reply, _words_of(reply.body))
        key = sent_key(reply.body)
        return Unknown(f"the gateway answered {reply.status} without a message's id") if key is None else Accepted(key)

    async def mark_read(self, credentials: Credentials, message_id: str, *, typing: bool = False) -> Done | Problem:
        """Mark an inbound message as read, optionally showing that we are typing."""
        chat = jids.chat_of(message_id)
        if chat is None:
            return unsupported(f"{message_id} does not say whose message it is")
        about = {"session": credentials.phone_number_id, "chatId": chat}
        done = await self._do("POST", credentials, "api/sendSeen", about | {"messageIds": [message_id]})
        if isinstance(done, Done) and typing:
            return await self._do("POST", credentials, "api/startTyping", about)
        return done

    async def upload_media(
        self, credentials: Credentials, data: bytes, mime_type: str, filename: str
    ) -> Uploaded | Problem:
        """It keeps no files."""
        return unsupported("WAHA keeps no uploaded files: send a link")

    async def media_info(self, credentials: Credentials, media_id: str) -> MediaInfo | Problem:
        """A received file is named by its address, and its size is known once it was fetched."""
        return MediaInfo(media_id, "application/octet-stream", "", 0)

    async def download(self, credentials: Credentials, url: str) -> Downloaded | Problem:
        """Fetch a received file: its path, always from this WAHA, whatever host the address names."""
        reply = await self._exchange.call("GET", self._here(url), _headers(credentials), limit=DOWNLOAD_LIMIT)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            return judged(REFUSALS, reply, _words_of(reply.body))
        return Downloaded(reply.body, reply.headers.get("Content-Type", "application/octet-stream"))

    async def fetch(self, credentials: Credentials, url: str, write: Write) -> Fetched | Problem:
        """Hand on a received file of at most `DOWNLOAD_LIMIT` bytes, in pieces."""
        reply = await self._exchange.pour(self._here(url), _headers(credentials), write, DOWNLOAD_LIMIT)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            return judged(REFUSALS, reply, _words_of(reply.body))
        return Fetched(reply.headers.get("Content-Type", "application/octet-stream"))

    def _here(self, url: str) -> URL:
        """A file's address, with this WAHA as its host."""
        return self._base.join(URL(url).relative() if URL(url).absolute else URL(url))

    # -- the session ----------------------------------------------------------------------------------------------

    async def state(self, credentials: Credentials) -> Session | Problem:
        """How the session stands; one that isn't there yet is stopped."""
        reply = await self._call("GET", credentials, self._session_path(credentials))
        if isinstance(reply, Reply) and reply.status == 404 and _is_absent(reply.body):
            return Session("stopped", "there is no such session yet: start it")
        return _session(reply)

    async def start(self, credentials: Credentials, hook: Hook) -> Session | Problem:
        """Make the session if there is none, have it report to us, and start it.

        Telling it anew where to report to restarts it, so that is done only if need be.
        """
        path = self._session_path(credentials)
        now = await self._call("GET", credentials, path)
        if isinstance(now, Reply) and now.status == 404:
            wanted = {"name": credentials.phone_number_id, "start": True, "config": {"webhooks": [webhook(hook)]}}
            return _session(await self._call("POST", credentials, "api/sessions", wanted))
        if not isinstance(now, Reply) or now.status != 200:
            return _session(now)
        config = _config(now.body)
        hooks: list[dict[str, Any]] = config.get("webhooks") or []
        if webhook(hook) not in hooks:
            others = [one for one in hooks if one.get("url") != hook.url]
            told = await self._do("PUT", credentials, path, {"config": config | {"webhooks": [*others, webhook(hook)]}})
            if not isinstance(told, Done):
                return told
        return _session(await self._call("POST", credentials, f"{path}/start", {}))

    async def restart(self, credentials: Credentials) -> Session | Problem:
        """Stop and start it, without linking the phone again."""
        return _session(await self._call("POST", credentials, f"{self._session_path(credentials)}/restart", {}))

    async def logout(self, credentials: Credentials) -> Session | Problem:
        """Unlink the phone. WAHA then starts the session anew, to be scanned."""
        return _session(await self._call("POST", credentials, f"{self._session_path(credentials)}/logout", {}))

    async def qr(self, credentials: Credentials, *, image: bool) -> Qr | Session | Problem:
        """What the phone has to scan; the session's state if it waits for no scan."""
        url = self._base / "api" / credentials.phone_number_id / "auth" / "qr"
        headers = _headers(credentials)
        headers["Accept"] = "image/png" if image else "application/json"
        reply = await self._exchange.call("GET", url if image else url.with_query(format="raw"), headers)
        if not isinstance(reply, Reply):
            return reply
        if reply.status in (404, 422):
            return await self.state(credentials)
        if reply.status != 200:
            return judged(REFUSALS, reply, _words_of(reply.body))
        if image:
            return Qr(image=reply.body)
        try:
            return Qr(code=_code.decode(reply.body).value)
        except msgspec.DecodeError:
            return Unknown("the gateway answered with something else than a code")

    async def close(self) -> None:
        """Give up all connections; a later call opens new ones."""
        await self._exchange.close()

    @staticmethod
    def _session_path(credentials: Credentials) -> str:
        return f"api/sessions/{credentials.phone_number_id}"

    async def _call(self, method: str, credentials: Credentials, path: str, body: Any = None) -> Reply | Problem:
        headers, data = _headers(credentials), None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        return await self._exchange.call(method, self._base.joinpath(*path.split("/")), headers, data)

    async def _do(self, method: str, credentials: Credentials, path: str, body: Any = None) -> Done | Problem:
        reply = await self._call(method, credentials, path, body)
        if not isinstance(reply, Reply):
            return reply
        return Done() if reply.status in (200, 201) else judged(REFUSALS, reply, _words_of(reply.body))


def _headers(credentials: Credentials) -> dict[str, str]:
    return {"X-Api-Key": credentials.access_token, "Accept": "application/json"}


def chat_id(number: str) -> str:
    """A recipient as WAHA names a chat."""
    return number if "@" in number else f"{number}@c.us"


def webhook(hook: Hook) -> dict[str, Any]:
    """How a session is told to report: signed with the secret, and again for some hours while we are away."""
    return {
        "url": hook.url,
        "events": list(EVENTS),
        "hmac": {"key": hook.secret},
        "retries": {"policy": "exponential", "delaySeconds": 2, "attempts": 12},
    }


def encoded(content: Content) -> tuple[str, dict[str, Any]]:
    """The path and the body for content that it can send. Raises ValueError if the content says nothing."""
    if content.body is not None:
        return "sendText", {"text": content.body}
    if content.media is not None:
        return _media(content.media)
    raise ValueError("the content has neither body nor media: check it with faults()")


def _media(media: Media) -> tuple[str, dict[str, Any]]:
    """Audio goes as a file: as a voice message it would have to be of one certain format."""
    path = {"image": "sendImage", "video": "sendVideo"}.get(media.type, "sendFile")
    link = media.link or ""
    known = mimetypes.guess_type(URL(link).path)[0] or _MIME_TYPES.get(media.type, "application/octet-stream")
    file = {"mimetype": known, "url": link, "filename": media.filename or URL(link).name or media.type}
    return path, {"file": file, **({} if media.caption is None else {"caption": media.caption})}


def sent_key(body: bytes) -> str | None:
    """The key of what was sent: `id` is a text or an object by engine, and some only have a `key`."""
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    id_ = answer.get("id") or answer.get("key")
    if isinstance(id_, dict):
        fields = cast("dict[str, Any]", id_)
        id_ = fields.get("_serialized") or fields.get("id")
    return jids.key_of(id_) if isinstance(id_, str) and id_ else None


def _words_of(body: bytes) -> str:
    """All that an error says in words."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return body[:500].decode(errors="replace")
    exception: Any = said.get("exception")
    parts = [said.get("message"), said.get("error"), said.get("status")]
    if isinstance(exception, dict):
        parts.append(cast("dict[str, Any]", exception).get("message"))
    return "; ".join(str(part) for part in parts if part)


def _config(body: bytes) -> dict[str, Any]:
    try:
        return _info.decode(body).config or {}
    except msgspec.DecodeError:
        return {}


def _is_absent(body: bytes) -> bool:
    """Whether a 404 is WAHA's own, of a session that isn't there, in whatever words; any other is somebody else's."""
    try:
        found = _absence.decode(body)
    except msgspec.DecodeError:
        return False
    return found.code == 404 and not found.message.startswith(_NO_PATH)


def _session(reply: Reply | Problem) -> Session | Problem:
    if not isinstance(reply, Reply):
        return reply
    if reply.status not in (200, 201):
        return judged(REFUSALS, reply, _words_of(reply.body))
    try:
        status = _info.decode(reply.body).status
    except msgspec.DecodeError:
        return Unknown("the gateway answered with something else than a session")
    return Session(STATES.get(status, "failed"), None if status in STATES else status)
