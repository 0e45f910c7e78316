"""Evolution API and WAHA behind the one Protocol, against stand-ins that speak and fail as they do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from gateway.evolution_server import EvolutionServer
from gateway.phones import PNG, phone_server
from gateway.sandboxes import serving
from gateway.waha_server import WahaServer
from loguru import logger

from harkara.gateway.errors import Action, Scope
from harkara.gateway.evolution import REFUSALS as EVOLUTION_REFUSALS
from harkara.gateway.evolution import EvolutionGateway
from harkara.gateway.protocol import (
    Accepted,
    Answer,
    Credentials,
    Done,
    Downloaded,
    Fetched,
    Hook,
    MediaInfo,
    NotSent,
    Qr,
    Refused,
    Session,
    Unknown,
)
from harkara.gateway.providers import Providers, clients
from harkara.gateway.waha import REFUSALS as WAHA_REFUSALS
from harkara.gateway.waha import WahaGateway
from harkara.schemas.content import Content, Interactive, Media, ReplyButton, Row, Section, Template
from harkara.schemas.reasons import words
from harkara.settings import Settings

TO = "+919876543210"
NOWHERE = "http://127.0.0.1:9"
TEXT = Content(body="Namaste")
LIST = Interactive(body="Which?", button="Choose", sections=[Section(rows=[Row(id="a", title="A")])])
BUTTONS = Interactive(body="Well?", header="Order 7", buttons=[ReplyButton(id="y", title="Yes")])


@dataclass
class World:
    """A gateway's stand-in, our client, and credentials that it knows."""

    server: Any
    client: Any
    credentials: Credentials
    session: str = "shop"

    async def send(self, content: Content = TEXT, to: str = TO, **more: Any) -> Answer:
        answer: Answer = await self.client.send(self.credentials, to, content, opaque="m1", **more)
        return answer

    async def linked(self) -> World:
        """With a phone that has scanned the code."""
        await self.client.start(self.credentials, Hook("http://127.0.0.1:9/hook", "s3cret"))
        self.server.scan(self.session)
        return self


@asynccontextmanager
async def world(provider: str, **more: Any) -> AsyncIterator[World]:
    made: Any = EvolutionServer() if provider == "evolution" else WahaServer(**more)
    async with phone_server(made) as server:
        kind = EvolutionGateway if provider == "evolution" else WahaGateway
        client: Any = kind(server.url, connect_timeout=timedelta(seconds=60))
        credentials = Credentials(sender_id="s1", phone_number_id="shop", access_token="global-key", provider=provider)
        try:
            yield World(server, client, credentials)
        finally:
            await client.close()


@pytest.fixture(params=["evolution", "waha"])
async def phone(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Either gateway, with a linked phone."""
    async with world(request.param) as made:
        yield await made.linked()


@pytest.fixture
async def evolution() -> AsyncIterator[World]:
    async with world("evolution") as made:
        yield await made.linked()


@pytest.fixture
async def waha() -> AsyncIterator[World]:
    async with world("waha") as made:
        yield await made.linked()


async def test_a_text_is_taken_under_the_key_that_statuses_name(phone: World) -> None:
    answer = await phone.send()
    assert isinstance(answer, Accepted), answer
    [taken] = phone.server.taken
    assert (answer.wamid, taken["body"]["text"], taken["kind"]) == (taken["id"], "Namaste", "sendText")
    assert taken["to"] in ("919876543210", "919876543210@c.us")


@pytest.mark.parametrize("engine", ["NOWEB", "WEBJS", "OLD-NOWEB"])
async def test_waha_names_what_was_sent_differently_by_engine(engine: str) -> None:
    async with world("waha", engine=engine) as made:
        answer = await (await made.linked()).send()
        assert answer == Accepted(made.server.taken[0]["id"])


@pytest.mark.parametrize("kind", ["image", "video", "document", "audio"])
async def test_files_go_by_link(phone: World, kind: str) -> None:
    link = "https://files.example/a.pdf"
    media = Media(type=kind, link=link, filename="invoice.pdf" if kind == "document" else None)  # type: ignore[arg-type]
    assert isinstance(await phone.send(Content(media=media)), Accepted)
    [taken] = phone.server.taken
    assert link in (taken["body"].get("media"), taken["body"].get("file", {}).get("url"))
    if kind == "document":
        assert "invoice.pdf" in (taken["body"].get("fileName"), taken["body"].get("file", {}).get("filename"))


async def test_a_caption_goes_along(phone: World) -> None:
    await phone.send(Content(media=Media(type="image", link="https://files.example/a.png", caption="Look")))
    assert phone.server.taken[0]["body"]["caption"] == "Look"


async def test_evolution_sends_buttons_lists_and_stickers(evolution: World) -> None:
    for content in (
        Content(interactive=BUTTONS),
        Content(interactive=LIST),
        Content(media=Media(type="sticker", link="https://files.example/a.webp")),
    ):
        assert isinstance(await evolution.send(content), Accepted)
    buttons, rows, sticker = (taken["body"] for taken in evolution.server.taken)
    assert (buttons["title"], buttons["description"]) == ("Order 7", "Well?")
    assert buttons["buttons"] == [{"type": "reply", "displayText": "Yes", "id": "y"}]
    assert (rows["title"], rows["buttonText"]) == ("Which?", "Choose")
    assert rows["sections"] == [{"title": "Choose", "rows": [{"rowId": "a", "title": "A"}]}]
    assert sticker["sticker"] == "https://files.example/a.webp"


@pytest.mark.parametrize(
    ("provider", "content"),
    [
        ("evolution", Content(template=Template(name="hello"))),
        ("evolution", Content(media=Media(type="image", id="1"))),
        ("waha", Content(template=Template(name="hello"))),
        ("waha", Content(media=Media(type="image", id="1"))),
        ("waha", Content(media=Media(type="sticker", link="https://files.example/a.webp"))),
        ("waha", Content(interactive=BUTTONS)),
        ("waha", Content(interactive=LIST)),
    ],
    ids=str,
)
async def test_what_it_cannot_send_is_refused_without_asking_it(provider: str, content: Content) -> None:
    async with world(provider) as made:
        answer = await (await made.linked()).send(content)
        assert isinstance(answer, Refused), answer
        assert (answer.rule.action, answer.rule.scope, made.server.taken) == (Action.GIVE_UP, Scope.MESSAGE, [])
        assert "WAHA" in answer.details or "Evolution" in answer.details


async def test_someone_known_by_a_lid_is_reached_and_by_a_cloud_id_is_not(phone: World) -> None:
    assert isinstance(await phone.send(to="123456789012345@lid"), Accepted)
    assert phone.server.taken[0]["to"] == "123456789012345@lid"
    answer = await phone.send(to="US.13491208655302741918")
    assert isinstance(answer, Refused), answer
    assert (answer.rule.action, answer.rule.scope) == (Action.GIVE_UP, Scope.RECIPIENT)


async def test_an_answer_quotes_what_it_answers(phone: World) -> None:
    await phone.send(reply_to="false_919876543210@c.us_3EB07")
    body = phone.server.taken[0]["body"]
    assert body.get("reply_to", "3EB07").endswith("3EB07")
    assert body.get("quoted", {"key": {"id": "3EB07"}}) == {"key": {"id": "3EB07"}}


async def test_what_we_said_ourselves_is_quoted_too(phone: World) -> None:
    """Of that only the key is known, which sending has answered."""
    said = await phone.send()
    assert isinstance(said, Accepted), said
    await phone.send(reply_to=said.wamid)
    body = phone.server.taken[1]["body"]
    assert body.get("reply_to", f"true_919876543210@c.us_{said.wamid}") == f"true_919876543210@c.us_{said.wamid}"
    assert body.get("quoted", {"key": {"id": said.wamid}}) == {"key": {"id": said.wamid}}


async def test_a_number_that_is_not_on_whatsapp(phone: World) -> None:
    phone.server.strangers.add("919876543210")
    answer = await phone.send()
    assert isinstance(answer, Refused), answer
    assert (answer.rule.action, answer.rule.scope) == (Action.GIVE_UP, Scope.RECIPIENT)


async def test_a_phone_that_is_not_connected_makes_its_number_wait(phone: World) -> None:
    phone.server.phone_logs_out("shop")
    answer = await phone.send()
    assert isinstance(answer, Refused), answer
    assert (answer.rule.action, answer.rule.scope) == (Action.BACK_OFF, Scope.NUMBER)
    assert phone.server.taken == []


async def test_a_wrong_token_or_session_stops_the_number(phone: World) -> None:
    for credentials in (
        Credentials(sender_id="s1", phone_number_id="shop", access_token="wrong"),
        Credentials(sender_id="s1", phone_number_id="nowhere", access_token="global-key"),
    ):
        answer = await phone.client.send(credentials, TO, TEXT, opaque="m1")
        assert isinstance(answer, Refused), answer
        assert (answer.rule.action, answer.rule.scope) == (Action.STOP, Scope.NUMBER)
        assert "wrong" not in answer.details


@pytest.mark.parametrize("fault", ["drops", "fails-after-sending"])
async def test_what_was_taken_without_saying_so_is_in_doubt(phone: World, fault: str) -> None:
    phone.server.faults.append(fault)
    answer = await phone.send()
    assert isinstance(answer, Unknown), answer
    assert len(phone.server.taken) == 1


async def test_evolution_proves_by_words_that_nothing_was_sent(evolution: World) -> None:
    for fault, action in (("closed-while-sending", Action.BACK_OFF), ("axios", Action.GIVE_UP)):
        evolution.server.faults.append(fault)
        answer = await evolution.send()
        assert isinstance(answer, Refused), answer
        assert answer.rule.action is action
    assert evolution.server.taken == []


async def test_waha_tells_what_whatsapp_refuses(waha: World) -> None:
    waha.server.faults.append("server-error")
    answer = await waha.send()
    assert isinstance(answer, Refused), answer
    assert (answer.rule.action, answer.rule.attempts) == (Action.RETRY, 1)


async def test_a_token_that_no_request_can_carry_is_a_wrong_one(phone: World) -> None:
    await phone.linked()
    phone.credentials = msgspec.structs.replace(phone.credentials, access_token="global-key\n")
    for answer in (await phone.send(), await phone.client.state(phone.credentials)):
        assert isinstance(answer, Refused), answer
        assert (answer.rule.action, answer.rule.alert, answer.rule.waits) == (Action.STOP, True, True)
        assert "global-key" not in f"{answer.title} {answer.details}"
    assert phone.server.taken == []


async def test_nobody_listens(phone: World) -> None:
    for client in (EvolutionGateway("http://127.0.0.1:9"), WahaGateway("http://127.0.0.1:9")):
        assert isinstance(await client.send(phone.credentials, TO, TEXT, opaque="m1"), NotSent)
        assert isinstance(await client.state(phone.credentials), NotSent)
        await client.close()


ROWS = [
    *((EvolutionGateway, row.status, row.rule.action) for row in EVOLUTION_REFUSALS if not row.says.pattern),
    *((WahaGateway, row.status, row.rule.action) for row in WAHA_REFUSALS if not row.says.pattern),
]


@pytest.mark.parametrize(("client", "status", "action"), ROWS)
async def test_each_status_of_the_table(client: type[Any], status: int, action: Action) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"message": "no"}, status=status, headers={"Retry-After": "7", "Location": "/x"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    async with serving(app) as url:
        gateway = client(url)
        answer = await gateway.send(
            Credentials(sender_id="s1", phone_number_id="shop", access_token="t"), TO, TEXT, opaque="m1"
        )
        await gateway.close()
    assert isinstance(answer, Refused), answer
    assert (answer.code, answer.rule.action) == (status, action)
    assert answer.retry_after is not None
    assert answer.retry_after.total_seconds() == 7


@pytest.mark.parametrize("client", [EvolutionGateway, WahaGateway])
@pytest.mark.parametrize(("status", "body"), [(500, b"<html>"), (502, b""), (201, b"{}"), (200, b"<"), (408, b"{}")])
async def test_what_proves_nothing_is_in_doubt(client: type[Any], status: int, body: bytes) -> None:
    async def odd(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", odd)
    async with serving(app) as url:
        gateway = client(url)
        credentials = Credentials(sender_id="s1", phone_number_id="shop", access_token="t")
        assert isinstance(await gateway.send(credentials, TO, TEXT, opaque="m1"), Unknown)
        assert isinstance(await gateway.state(credentials), Unknown)
        await gateway.close()


async def test_reading_typing_and_files(phone: World) -> None:
    message = "false_919876543210@c.us_3EB07"
    assert await phone.client.mark_read(phone.credentials, message, typing=True) == Done()
    assert "3EB07" in str(phone.server.seen[0])
    assert len(phone.server.seen) == 2
    assert isinstance(await phone.client.mark_read(phone.credentials, "3EB07"), Refused)
    phone.server.files |= {"3EB07": PNG, "a.png": PNG}
    name = "3EB07" if phone.credentials.provider == "evolution" else "http://elsewhere.example/api/files/a.png"
    info = await phone.client.media_info(phone.credentials, name)
    assert isinstance(info, MediaInfo)
    assert await phone.client.download(phone.credentials, info.url) == Downloaded(PNG, "image/png")
    assert not isinstance(await phone.client.download(phone.credentials, "nothing"), Downloaded)
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    assert await phone.client.fetch(phone.credentials, info.url, write) == Fetched("image/png")
    assert b"".join(pieces) == PNG
    assert not isinstance(await phone.client.fetch(phone.credentials, "nothing", write), Fetched)
    assert isinstance(await phone.client.upload_media(phone.credentials, PNG, "image/png", "a.png"), Refused)


async def test_a_file_that_is_too_large_is_not_taken_whole_into_memory(
    phone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.server.files |= {"3EB07": PNG, "a.png": PNG}
    monkeypatch.setattr("harkara.gateway.evolution.BASE64_LIMIT", len(PNG) - 1)
    monkeypatch.setattr("harkara.gateway.waha.DOWNLOAD_LIMIT", len(PNG) - 1)
    name = "3EB07" if phone.credentials.provider == "evolution" else "/api/files/a.png"

    async def write(piece: bytes) -> None:
        raise AssertionError(piece)

    for answer in (
        await phone.client.fetch(phone.credentials, name, write),
        await phone.client.download(phone.credentials, name),
    ):
        assert isinstance(answer, Unknown)
        assert "the file is larger than" in answer.reason


# -- sessions -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["evolution", "waha"])
async def fresh(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Either gateway, as it was installed."""
    async with world(request.param) as made:
        yield made


async def test_a_session_is_made_scanned_restarted_and_logged_out(fresh: World) -> None:
    client, credentials, hook = fresh.client, fresh.credentials, Hook("http://127.0.0.1:9/hook", "s3cret")
    assert (await client.state(credentials)).state == "stopped"
    assert isinstance(await client.restart(credentials), Refused)
    assert await client.start(credentials, hook) == Session("scan_qr")
    assert await client.qr(credentials, image=True) == Qr(image=PNG)
    assert (await client.qr(credentials, image=False)).code.startswith("2@code")
    fresh.server.scan("shop")
    assert await client.state(credentials) == Session("working")
    assert await client.qr(credentials, image=True) == Session("working")
    assert await client.start(credentials, hook) == Session("working")
    assert (await client.restart(credentials)).state == "working"
    assert (await client.logout(credentials)).state in ("stopped", "scan_qr")
    assert (await client.start(credentials, hook)).state == "scan_qr"


async def test_waha_is_told_where_to_report_only_if_it_does_not_know(waha: World) -> None:
    hook = Hook("http://127.0.0.1:9/hook", "s3cret")
    waha.server.sessions["shop"].config["webhooks"].append({"url": "http://theirs.example", "events": []})
    await waha.client.start(waha.credentials, hook)
    assert waha.server.sessions["shop"].restarts == 0
    await waha.client.start(waha.credentials, Hook(hook.url, "another"))
    hooks = waha.server.sessions["shop"].config["webhooks"]
    assert waha.server.sessions["shop"].restarts == 1
    assert {one["url"]: one.get("hmac") for one in hooks} == {
        "http://theirs.example": None,
        hook.url: {"key": "another"},
    }


async def test_a_hook_never_shows_its_secret() -> None:
    assert "s3cret" not in repr(Hook("http://127.0.0.1", "s3cret"))


async def test_each_sender_is_served_by_its_providers_client() -> None:
    async with world("evolution") as evolution, world("waha") as waha:
        settings = Settings(evolution_url=evolution.server.url, waha_url=waha.server.url)
        gateway = Providers(clients(settings), settings.gateway_place)
        for one in (evolution, waha):
            await one.linked()
            answer = await gateway.send(one.credentials, TO, TEXT, opaque="m1")
            assert answer == Accepted(one.server.taken[0]["id"])
            assert await gateway.mark_read(one.credentials, "false_919876543210@c.us_3EB07") == Done()
        await gateway.close()


async def test_one_that_knows_no_such_name_is_told_with_its_address() -> None:
    async with world("evolution") as evolution:
        settings = Settings(evolution_url=evolution.server.url)
        gateway = Providers(clients(settings), settings.gateway_place)
        answer = await gateway.send(evolution.credentials, TO, TEXT, opaque="m1")
        await gateway.close()
    assert isinstance(answer, Refused)
    assert answer.details.endswith(f"; asked at {evolution.server.url} (EVOLUTION_URL)")


@pytest.mark.parametrize(
    ("provider", "settings", "place"),
    [
        ("evolution", {"evolution_url": NOWHERE}, f"{NOWHERE} (EVOLUTION_URL)"),
        ("waha", {"waha_url": "http://me:s3cret@127.0.0.1:9/waha"}, f"{NOWHERE}/waha (WAHA_URL)"),
        (
            "evolution",
            {"whatsapp_gateway_url": NOWHERE},
            f"{NOWHERE} (WHATSAPP_GATEWAY_URL, because EVOLUTION_URL is not set)",
        ),
        ("cloud", {"whatsapp_gateway_url": NOWHERE}, f"{NOWHERE} (WHATSAPP_GATEWAY_URL)"),
    ],
)
async def test_a_gateway_that_is_away_is_named_and_logged_once(
    provider: str, settings: dict[str, Any], place: str, tmp_path: Path
) -> None:
    sink = logger.add(tmp_path / "log", format="{message}", level="WARNING")
    made = Settings(**settings)
    gateway = Providers(clients(made), made.gateway_place)
    credentials = Credentials(sender_id="s", phone_number_id="shop", access_token="t", provider=provider)
    for _ in range(3):
        answer = await gateway.send(credentials, TO, TEXT, opaque="m1")
        assert isinstance(answer, NotSent)
        assert answer.reason.startswith(f"its gateway does not answer: {place}: ConnectError: Connection refused")
        told = words("queued", answer.reason, None)
        assert told is not None
        assert (told[0], told[1].todo[:29]) == ("gateway_away", "check that it runs, and its a")
    logger.remove(sink)
    [line] = [line for line in (tmp_path / "log").read_text().splitlines() if "does not answer" in line]
    assert place in line
    await gateway.close()
