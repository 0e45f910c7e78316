"""What contacts say: every kind of message, once however often and in whatever order it comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from enrolled import enrolled
from heard import AT, PHONE, Quiet, World, names, said
from support import NewTenant

from harkara.actors.receipts import Receipts
from harkara.ids import time_of, uuid7
from harkara.schemas.keywords import Category
from harkara.schemas.work import Send
from harkara.storage import holding, opting, receiving
from harkara.storage.models import Contact, Conversation, Message, PhoneNumber
from harkara.storage.opting import Word
from harkara.storage.storage import Storage


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    return World(storage, await enrolled(storage, await new_tenant()))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "text", "text": {"body": "Hello"}}, "Hello"),
        ({"type": "text", "text": {"body": "a\0b"}}, "ab"),
        ({"type": "image", "image": {"id": "1", "mime_type": "image/png", "caption": "Look"}}, "Look"),
        ({"type": "audio", "audio": {"id": "1", "mime_type": "audio/ogg", "voice": True}}, None),
        ({"type": "video", "video": {"id": "1"}}, None),
        ({"type": "document", "document": {"id": "1", "filename": "bill.pdf"}}, "bill.pdf"),
        ({"type": "sticker", "sticker": {"id": "1"}}, None),
        ({"type": "location", "location": {"latitude": 18.5, "longitude": 73.8}}, "18.5, 73.8"),
        ({"type": "location", "location": {"latitude": 18.5, "longitude": 73.8, "name": "Our shop"}}, "Our shop"),
        ({"type": "contacts", "contacts": [{"name": {"formatted_name": "Ravi"}}, {"name": {}}]}, "Ravi"),
        ({"type": "button", "button": {"payload": "YES", "text": "Yes, please"}}, "Yes, please"),
        (
            {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"id": "1", "title": "A"}}},
            "A",
        ),
        (
            {"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "1", "title": "B"}}},
            "B",
        ),
        (
            {
                "type": "interactive",
                "interactive": {"type": "nfm_reply", "nfm_reply": {"body": "Sent", "name": "flow"}},
            },
            "Sent",
        ),
        ({"type": "order", "order": {"catalog_id": "1", "text": "Soon", "product_items": []}}, "Soon"),
        ({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}}, "👍"),
        ({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": ""}}, None),
        ({"type": "system", "system": {"body": "Asha changed her number", "type": "other"}}, "Asha changed her number"),
        ({"type": "unsupported", "errors": [{"code": 131051, "title": "Unsupported"}]}, None),
        ({"type": "something_new", "something_new": ["?"]}, None),
        ({"type": "te\0xt", "text": {"body": "Hello"}}, "Hello"),
    ],
)
async def test_every_kind_of_message_is_a_reply(world: World, message: dict[str, Any], text: str | None) -> None:
    assert "reply.received" in names(await world.hears_message(**message))
    (reply,) = await world.replies()
    kind = message["type"].replace("\0", "")
    assert (reply.type, reply.text, reply.contact_id) == (kind, text, world.one.contact)
    assert reply.payload["type"] == kind


async def test_a_message_is_there_once_however_often_it_comes_and_in_the_order_of_its_time(world: World) -> None:
    late, early = (said(second=second, type="text", text={"body": str(second)}) for second in (9, 3))
    await world.hears(world.delivery(late), world.delivery(early))
    await world.hears(world.delivery(early), world.delivery(late, early))
    assert [reply.text for reply in await world.replies()] == ["3", "9"]
    async with world.storage.tenant(world.tenant):
        assert (await Conversation.get()).last_inbound_at == AT + timedelta(seconds=9)


def line(text: str, second: int = 0) -> dict[str, Any]:
    return said(second=second, type="text", text={"body": text})


async def test_what_is_said_within_one_second_is_in_the_order_in_which_it_came(world: World) -> None:
    """WhatsApp tells whole seconds. Two came in one webhook, and what is said in the next second may come before."""
    first, *others = [world.delivery(line(f"line {n}"), came=AT + timedelta(seconds=n / 4)) for n in range(8)]
    both = line("line 8")
    both["messages"] += line("line 9")["messages"]
    await world.hears(world.delivery(line("line 10", 1), came=AT + timedelta(seconds=1)))
    await world.hears(first, *others)
    await world.hears(world.delivery(both, came=AT + timedelta(seconds=30)))
    replies = await world.replies()
    assert [reply.text for reply in replies] == [f"line {n}" for n in range(11)]
    assert {reply.received_at for reply in replies[:10]} == {AT}
    assert [time_of(reply.id) - AT for reply in replies[:3]] == [timedelta(seconds=n / 4) for n in range(3)]


async def test_what_comes_again_later_is_the_same_row_and_tells_the_same(world: World) -> None:
    values = [line(f"line {n}") for n in range(3)]
    told = await world.hears(*(world.delivery(one, came=AT + timedelta(milliseconds=5)) for one in values))
    again = await world.hears(*(world.delivery(one, came=AT + timedelta(hours=1)) for one in reversed(values)))
    ids = [reply.id for reply in await world.replies()]
    assert len(ids) == 3
    assert {one.id for one in told} == {one.id for one in again} == {f"{id_}.received" for id_ in ids}


async def test_what_lies_ahead_is_said_when_it_comes_and_outdoes_nothing_that_is_said_later(world: World) -> None:
    """A gateway's clock may be wrong by years; the last second of the calendar is one, too."""
    for n, (text, ahead) in enumerate((("START", 10**9), ("STOP", 0), ("START", 250_000_000_000), ("STOP", 0))):
        came = AT + timedelta(minutes=n)
        await world.hears(world.delivery(line(text, ahead or 60 * n), came=came))
        assert (await world.contact()).opted_out_at == (came if text == "STOP" else None)
    assert [reply.received_at for reply in await world.replies()] == [AT + timedelta(minutes=n) for n in range(4)]
    async with world.storage.tenant(world.tenant):
        assert (await Conversation.get()).last_inbound_at == AT + timedelta(minutes=3)


async def test_what_is_quoted_is_known_by_our_id_if_it_was_said_here(world: World) -> None:
    sent, bare = uuid7(), uuid7()
    async with world.storage.tenant(world.tenant):
        for id_, contact, wamid in ((sent, world.one.contact, "wamid.ours"), (bare, None, "wamid.to a bare number")):
            await Message.create(
                id=id_, contact_id=contact, sender_id=world.one.sender, lane="utility", to=PHONE,
                content={"body": "Hi"}, status="sent", wamid=wamid, due_at=AT,
            )  # fmt: skip
    await world.hears(world.delivery(said(wamid="wamid.theirs", type="text", text={"body": "Yes"})))
    phones = said(wamid="false_919876543210@c.us_3EB07", second=1, type="text", text={"body": "And"})
    await world.hears(world.delivery(phones))
    theirs, by_phone = [reply.id for reply in await world.replies()]
    reaction = {"type": "reaction", "reaction": {"message_id": "wamid.ours", "emoji": "👍"}}
    known = {"wamid.ours": sent, "wamid.to a bare number": bare, "wamid.theirs": theirs, "3EB07": by_phone}
    for second, quoted in enumerate((*known, "wamid.forgotten"), start=2):
        found = known.get(quoted)
        about: dict[str, Any] = {"type": "text", "text": {"body": "This"}, "context": {"id": quoted}}
        told = await world.hears_message(second=second, **about)
        event: Any = told[0].message
        assert (event.reply_to, event.reply_to_wamid) == (str(found) if found else None, quoted)
        assert (await world.replies())[-1].reply_to == found
    await world.hears_message(second=9, **reaction)
    assert (await world.replies())[-1].reply_to == sent


@pytest.mark.parametrize(
    ("of", "stops"),
    [({"caption": "Stop!"}, True), ({"filename": "STOP"}, False), ({"caption": "at the bus stop"}, False)],
)
async def test_a_caption_is_said_and_a_files_name_is_not(world: World, of: dict[str, str], stops: bool) -> None:
    told = names(await world.hears_message(type="document", document={"id": "1", "mime_type": "image/png"} | of))
    assert ("contact.opted_out" in told) is stops
    contact = await world.contact()
    assert contact.opted_out_reason == ("asked" if stops else None)


async def test_what_confirms_a_word_stands_behind_it(world: World) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update tenants set keywords = $1::jsonb", '{"confirmations": {"stop": "Done"}}')
    now = int((datetime.now(UTC) - AT).total_seconds())  # ours is written where there is room for what is new
    stop = said(second=now, wamid="wamid.stop", type="text", text={"body": "STOP"})
    for hours in (0, 1):  # the same webhook again confirms nothing again
        came = AT + timedelta(seconds=now, hours=hours, milliseconds=999)
        told = await world.hears(world.delivery(stop, came=came))
    assert "send" in " ".join(one.message.subject for one in told)
    [reply] = await world.replies()
    async with world.storage.tenant(world.tenant) as con:
        [ours] = [row[0] for row in await con.fetch("select id from messages")]
    assert reply.id < ours
    assert time_of(ours) - time_of(reply.id) == timedelta(milliseconds=1)


@pytest.mark.parametrize("age", [timedelta(days=2), timedelta(days=4000)])
async def test_a_word_that_comes_late_counts_and_is_not_confirmed(world: World, age: timedelta) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update tenants set keywords = $1::jsonb", '{"confirmations": {"stop": "Done"}}')
    now = datetime.now(UTC).replace(microsecond=0)
    said_at = int((now - age - AT).total_seconds())
    told = await world.hears(world.delivery(line("STOP", said_at), came=now))
    assert names(told)[:2] == ["reply.received", "contact.opted_out"]
    assert not [one for one in told if isinstance(one.message, Send)]
    assert (await world.contact()).opted_out_at == now - age


async def test_a_reply_that_is_told_again_stops_nothing_that_began_since(world: World) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update campaigns set stop_on_reply = true")
    reply = said(type="text", text={"body": "Hello"})
    await world.hears(world.delivery(reply))
    assert await world.told_later() == ["enrollment.stopped"]
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update contact_campaign_progress set status = 'active', finished_at = null")
    assert names(await world.hears(world.delivery(reply))) == ["reply.received"]
    assert (await world.one.row(world.storage)).status == "active"


async def test_what_a_reply_stopped_is_told_although_the_process_died_before_it_could(world: World) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update campaigns set stop_on_reply = true, goal = $1::jsonb", '{"type": "replied"}')
    reply = said(type="text", text={"body": "Hello"})
    await world.hears(world.delivery(reply))  # it is committed, and what was to be told of it is lost
    assert names(await world.hears(world.delivery(reply, deliveries=2))) == ["reply.received"]
    assert sorted(await world.told_later()) == ["enrollment.goal_reached", "enrollment.stopped"]


TAPPED = {"type": "button_reply", "button_reply": {"id": "STOP", "title": "No more"}}


@pytest.mark.parametrize(
    "word",
    [
        {"type": "text", "text": {"body": "STOP"}},
        {"type": "text", "text": {"body": "keine Werbung"}},
        {"type": "interactive", "interactive": TAPPED},
        {"type": "button", "button": {"text": "Stop promotions", "payload": "x"}},
    ],
)
async def test_an_opt_out_is_no_success(world: World, word: dict[str, Any]) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update campaigns set stop_on_reply = true, goal = $1::jsonb", '{"type": "replied"}')
    await world.hears_message(**word)
    assert await world.told_later() == ["enrollment.stopped"]
    row = await world.one.row(world.storage)
    assert (row.status, row.stopped_reason, row.goal_at) == ("stopped", "opt_out", None)


async def test_a_thumb_up_stops_nothing_and_opens_nothing(world: World) -> None:
    await world.hears_message(type="text", text={"body": "Hello"})
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update conversations set status = 'closed', closed_at = now()")
    told = await world.hears_message(second=5, type="reaction", reaction={"message_id": "wamid.1", "emoji": "👍"})
    assert names(told) == ["reply.received"]
    async with world.storage.tenant(world.tenant):
        assert (await Conversation.get()).status == "closed"


async def test_news_of_whatsapps_own_opens_no_window_and_a_thumb_up_does(world: World) -> None:
    async def wrote_at() -> datetime | None:
        async with world.storage.tenant(world.tenant):
            return (await Conversation.get()).last_inbound_at

    news: dict[str, Any] = {"type": "system", "system": {"type": "customer_identity_changed", "body": "…"}}
    await world.hears_message(**news)
    assert await wrote_at() is None
    await world.hears_message(second=5, type="reaction", reaction={"message_id": "wamid.1", "emoji": "👍"})
    assert await wrote_at() == AT + timedelta(seconds=5)
    await world.hears_message(second=9, **news)
    assert await wrote_at() == AT + timedelta(seconds=5)


def called(**more: Any) -> dict[str, Any]:
    """The value of a webhook about a call."""
    call = {"id": "wacid.1", "from": PHONE[1:], "event": "connect", "direction": "USER_INITIATED"}
    when = {"timestamp": str(int((AT + timedelta(hours=1)).timestamp())), "session": {"sdp_type": "offer", "sdp": "…"}}
    return {"contacts": [{"profile": {"name": "Asha"}, "wa_id": PHONE[1:]}], "calls": [call | when | more]}


async def test_a_call_opens_the_window_and_is_a_reply_without_words(world: World) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update campaigns set stop_on_reply = true")
    came = AT + timedelta(hours=1)
    call = world.delivery(called(), field="calls", came=came)
    ended = world.delivery(called(event="terminate", status="COMPLETED"), field="calls", came=came)
    assert names(await world.hears(call, ended)) == ["reply.received"]
    await world.hears(call)
    (reply,) = await world.replies()
    assert (reply.type, reply.contact_id) == ("call", world.one.contact)
    assert not reply.text
    assert "session" not in reply.payload
    assert (await world.one.row(world.storage)).stopped_reason == "reply"
    async with world.storage.tenant(world.tenant):
        assert (await Conversation.get()).last_inbound_at == AT + timedelta(hours=1)


async def test_a_call_of_ours_opens_nothing(world: World) -> None:
    for told in (called(direction="BUSINESS_INITIATED"), called(event="terminate")):
        assert await world.hears(world.delivery(told, field="calls")) == []
    async with world.storage.tenant(world.tenant):
        assert await Conversation.all().count() == 0


async def test_a_tap_on_a_button_that_cancels_something_else_is_no_opt_out(world: World) -> None:
    chosen = {"type": "button_reply", "button_reply": {"id": "appt_cancel_17", "title": "Cancel"}}
    assert names(await world.hears_message(type="interactive", interactive=chosen)) == ["reply.received"]
    row = {"type": "list_reply", "list_reply": {"id": "end", "title": "End date"}}
    assert names(await world.hears_message(second=5, type="interactive", interactive=row)) == ["reply.received"]
    assert (await world.contact()).opted_out_at is None


async def test_a_new_number_is_the_same_person(world: World) -> None:
    new = {"type": "user_changed_number", "wa_id": "919812345678", "body": "…"}
    await world.hears_message(type="system", system=new)
    assert (await world.contact()).phone == "+919812345678"
    await world.hears_message(second=9, phone="+919812345678", type="text", text={"body": "It is me"})
    assert {reply.contact_id for reply in await world.replies()} == {world.one.contact}


async def test_a_new_number_that_somebody_has_is_not_taken_from_them(world: World) -> None:
    async with world.storage.tenant(world.tenant):
        await Contact.create(name="Ravi", phone="+919812345678")
        await PhoneNumber.create(contact_id=world.one.contact, phone="+919812345679")
    for new in ("919812345678", "919812345679"):
        await world.hears_message(type="system", system={"type": "user_changed_number", "wa_id": new})
    assert (await world.contact()).phone == "+919812345679", "a further number of its own becomes the first"
    async with world.storage.tenant(world.tenant):
        assert await PhoneNumber.all().count() == 0
        assert await Contact.filter(phone="+919812345678").count() == 1


async def test_somebody_without_a_number_is_known_by_an_id_and_later_by_both(world: World) -> None:
    user = "US.13491208655302741918"
    text = {"type": "text", "text": {"body": "Hello"}, "from_user_id": user}
    await world.hears_message(phone=None, **text)
    async with world.storage.tenant(world.tenant):
        contact = await Contact.get(wa_user_id=user)
        assert contact.phone is None
    await world.hears_message(second=5, phone="+14155550100", **text)
    await world.hears_message(second=9, phone="+14155550100", type="text", text={"body": "Still me"})
    async with world.storage.tenant(world.tenant):
        assert (await Contact.get(wa_user_id=user)).phone == "+14155550100"
    assert {reply.contact_id for reply in await world.replies()} == {contact.id}


async def test_somebody_who_hides_their_number_later_is_the_same(world: World) -> None:
    user = "US.13491208655302741918"
    text = {"type": "text", "text": {"body": "Hello"}, "from_user_id": user}
    await world.hears_message(**text)
    await world.hears_message(second=5, phone=None, **text)
    assert {reply.contact_id for reply in await world.replies()} == {world.one.contact}
    assert ((await world.contact()).phone, (await world.contact()).wa_user_id) == (PHONE, user)


async def test_a_refusal_of_marketing_is_an_opt_out_of_it(world: World) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute(
            "insert into messages (id, tenant_id, contact_id, sender_id, lane, \"to\", content, status, due_at, wamid)"
            " values ($1, $2, $3, $4, 'marketing', '+919876543210', '{}', 'sent', now(), 'wamid.refused')",
            world.one.message, world.tenant, world.one.contact, world.one.sender,
        )  # fmt: skip
    failed = {"code": 131050, "title": "User has stopped marketing messages"}
    status = {"id": "wamid.refused", "status": "failed", "timestamp": "1772366400", "errors": [failed]}
    told = names(await world.hears(world.delivery({"statuses": [status]})))
    assert told == ["message.failed", "contact.opted_out"]
    assert await world.told_later() == ["enrollment.stopped"]
    assert (await world.contact()).opt_outs["marketing"]["source"] == "whatsapp"


async def test_what_was_heard_holds_nobody_any_more(world: World) -> None:
    delivery = world.delivery(said(type="text", text={"body": "Hello"}))
    async with world.storage.batch((world.tenant,)) as con:
        held = await holding.hold(con, world.tenant, UUID(delivery.id), [world.one.contact])
        assert held.new == [world.one.contact]
        again = await holding.hold(con, world.tenant, UUID(delivery.id), [world.one.contact])
        assert (again.contacts, again.new) == ([world.one.contact], [])
    await world.hears(delivery)
    async with world.storage.tenant(world.tenant) as con:
        assert await con.fetchval("select count(*) from contact_holds") == 0


async def test_what_can_not_be_read_harms_nobody_else(world: World) -> None:
    bad = world.delivery({"messages": [{"type": "text", "id": "wamid.1", "timestamp": "9" * 30}]})
    quiet: Any = Quiet()
    good = world.delivery(said(type="text", text={"body": "Hello"}))
    outcomes = await Receipts(world.storage, quiet).handle([bad, good])
    assert [type(outcome).__name__ for outcome in outcomes] == ["Drop", "Done"]
    assert len(await world.replies()) == 1


# -- opt-outs that are remembered of a number that was nobody's for a while ------------------------------------------

FORGOTTEN = "+919812345678"


async def forget(world: World, category: Category = "all") -> None:
    """Whoever had this number has opted out, and is gone."""
    async with world.storage.tenant(world.tenant) as con:
        gone = await receiving.contact_for(con, world.tenant, FORGOTTEN, None, "Ravi", uuid7())
        word = Word(category, True, AT - timedelta(days=1), "asked")
        assert await opting.hear(con, world.tenant, gone.id, word)
        await con.execute("delete from contacts where id = $1", gone.id)


async def remembered(world: World) -> list[str]:
    """The categories of the opt-outs that are told as remembered."""
    async with world.storage.tenant(world.tenant) as con:
        rows = await con.fetch("select body from outbox where subject like '%.evt.contact.opted_out' order by id")
    bodies = [msgspec.json.decode(row[0]) for row in rows]
    assert all(body["source"] == body["reason"] == "remembered" for body in bodies)
    return [body.get("category", "all") for body in bodies]


def preference(value: str) -> dict[str, Any]:
    one = {"wa_id": FORGOTTEN.removeprefix("+"), "category": "marketing_messages", "value": value}
    return {"user_preferences": [one | {"timestamp": int(AT.timestamp())}]}


@pytest.mark.parametrize("text", ["Hello", "STOP"])
async def test_whoever_is_heard_of_again_has_opted_out_and_that_is_told(world: World, text: str) -> None:
    await forget(world)
    delivery = world.delivery(said(phone=FORGOTTEN, type="text", text={"body": text}))
    assert names(await world.hears(delivery)) == ["reply.received"]
    assert await remembered(world) == ["all"]
    await world.hears(delivery, world.delivery(said(phone=FORGOTTEN, second=5, type="text", text={"body": "Hi"})))
    assert await remembered(world) == ["all"], "it is told once"


async def test_what_was_turned_off_in_whatsapp_again_is_told(world: World) -> None:
    await forget(world, "marketing")
    await world.hears(world.delivery(preference("stop"), field="user_preferences"))
    assert await remembered(world) == ["marketing"]


async def test_whoever_comes_back_to_hear_of_us_again_has_opted_out_of_nothing(world: World) -> None:
    await forget(world)
    words = (
        said(phone=FORGOTTEN, second=n, type="text", text={"body": text}) for n, text in enumerate(("Hi", "START"))
    )
    told = await world.hears(*map(world.delivery, words))
    assert names(told) == ["reply.received", "reply.received", "contact.opted_in"]
    assert await remembered(world) == []


@pytest.mark.parametrize("by", ["a new number", "a number that was hidden"])
async def test_a_contact_that_gains_such_a_number_gets_nothing_more(world: World, by: str) -> None:
    await forget(world)
    if by == "a new number":
        new = {"type": "user_changed_number", "wa_id": FORGOTTEN.removeprefix("+")}
        await world.hears_message(type="system", system=new)
    else:
        async with world.storage.tenant(world.tenant):
            await Contact.filter(id=world.one.contact).update(phone=None, wa_user_id="IN.77")
        hello = {"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}}
        await world.hears_message(phone=FORGOTTEN, from_user_id="IN.77", **hello)
    assert (await world.contact()).phone == FORGOTTEN
    assert await world.told_later() == ["contact.opted_out", "enrollment.stopped"]
    assert (await world.one.row(world.storage)).stopped_reason == "opt_out"


@pytest.mark.parametrize("by", ["a message", "a setting"])
async def test_a_stop_without_a_time_is_of_when_it_came(world: World, by: str) -> None:
    await world.hears_message(type="text", text={"body": "STOP"})
    await world.hears_message(second=5, type="text", text={"body": "START"})
    assert (await world.contact()).opted_out_at is None
    stop, came = said(second=9, type="text", text={"body": "STOP"}), AT + timedelta(seconds=9)
    del stop["messages"][0]["timestamp"]
    one = {"wa_id": PHONE.removeprefix("+"), "category": "marketing_messages", "value": "stop"}
    setting = world.delivery({"user_preferences": [one]}, field="user_preferences", came=came)
    await world.hears(world.delivery(stop, came=came) if by == "a message" else setting)
    contact = await world.contact()
    assert contact.opted_out_at == came if by == "a message" else "marketing" in contact.opt_outs
