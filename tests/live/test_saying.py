"""What a step says: the same in its preview, in a test and when it is really sent, byte for byte at the gateway."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import FormData
from chaos.harness import Platform, Tenant
from live.listening import enroll, enrollment, until_accepted
from support import until

from harkara.gateway.encode import encode_message
from harkara.schemas.content import Content

CITY = "{{ attributes.city | default('your town') }}"
ORDER = "{{ attributes.order | default('none') }}"
NOTE = "{{ attributes.note | default('-') }}"
VIP = "{% if attributes.vip is defined %}, dear guest{% endif %}"
FILE = f"https://a.example/{ORDER}.pdf"


def steps_with(file: str) -> tuple[dict[str, Any], ...]:
    """Every kind of step, with variables in every text that may have them. `file` is the id of one at the gateway."""
    return (
        {"body": f"Hi {{{{ first_name }}}} of {CITY}{VIP}: {NOTE}"},
        {"template": {"name": "order_update", "language": "en_US", "parameters": ["{{ name }}", CITY],
                      "header": f"No {ORDER}",
                      "buttons": [{"type": "url", "value": f"o/{ORDER}"},
                                  {"type": "quick_reply", "value": f"later-{ORDER}"},
                                  {"type": "copy_code", "value": "{{ attributes.code | default('SAVE10') }}"}]}},
        {"template": {"name": "named_update", "parameters": {"customer": "{{ name }}", "city": CITY},
                      "header": ORDER, "header_name": "order"}},
        {"template": {"name": "with_file", "header": {"type": "document", "link": FILE, "filename": f"{ORDER}.pdf"}}},
        {"media": {"type": "image", "link": f"https://a.example/{ORDER}.png", "caption": f"For {CITY}"}},
        {"media": {"type": "video", "id": f"{{{{ attributes.file | default('{file}') }}}}", "caption": "{{ name }}"}},
        {"media": {"type": "document", "link": FILE, "filename": "{{ first_name }}.pdf", "caption": CITY}},
        {"media": {"type": "audio", "id": file}},
        {"media": {"type": "sticker", "id": file}},
        {"interactive": {"body": "Today, {{ first_name }}?", "header": CITY, "footer": f"No {ORDER}",
                         "buttons": [{"id": f"yes-{ORDER}", "title": "Yes, {{ first_name }}"},
                                     {"id": "no", "title": "No"}]}},
        {"interactive": {"body": "When?", "button": "Choose, {{ first_name }}", "sections": [
            {"title": CITY, "rows": [{"id": ORDER, "title": f"For {ORDER}", "description": "{{ name }}"}]},
            {"title": "Later", "rows": [{"id": "l", "title": "Later"}]}]}},
        {"interactive": {"body": "It is on its way", "header": {"type": "image", "link": f"https://a.example/{ORDER}.png"},
                         "link": {"title": f"Track {ORDER}", "url": f"https://a.example/{ORDER}"}}},
    )  # fmt: skip


async def upload(live: Platform, number: str) -> str:
    """The id of a file at the gateway."""
    form = FormData({"messaging_product": "whatsapp", "type": "video/mp4"})
    form.add_field("file", b"a film", filename="a.mp4", content_type="video/mp4")
    address, token = f"{live.gateway.url}/v23.0/{number}/media", {"Authorization": "Bearer a token"}
    async with live.session.post(address, data=form, headers=token) as answer:
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["id"])


async def campaign_of(tenant: Tenant, sender: str, steps: tuple[dict[str, Any], ...]) -> tuple[str, list[Any]]:
    """An active campaign that sends all of these at once, and its steps."""
    made = await tenant.post("/campaigns", {"name": "All", "sender_id": sender, "stop_on_reply": False})
    for number, said in enumerate(steps):
        await tenant.post(f"/campaigns/{made['id']}/steps", {"delay_hours": number / 100, **said})
    await tenant.post(f"/campaigns/{made['id']}/activate")
    return made["id"], (await tenant.get(f"/campaigns/{made['id']}/steps"))["items"]


def at_the_gateway(preview: Any, phone: str) -> tuple[str, Any]:
    """Type and body of a message with this content, as the sandbox records them."""
    sent = msgspec.json.decode(encode_message(phone, msgspec.convert(preview["content"], Content), ""))
    return sent["type"], sent["text"]["body"] if sent["type"] == "text" else sent[sent["type"]]


async def test_preview_test_and_real_message_are_the_same(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender(mps=100, access_token="a token")
    said = steps_with(await upload(live, sender["phone_number_id"]))
    # What looks like a variable in a contact's own value is none, and is not filled in.
    own = {"order": 4711, "note": "{{ phone }} {% if %}", "vip": True, "city": ""}
    contact = await tenant.contact(name="Asha Rao", attributes=own)
    campaign, steps = await campaign_of(tenant, sender["id"], said)
    expected, tests = [], []
    for step in steps:
        path = f"/campaigns/{campaign}/steps/{step['id']}"
        preview = await tenant.post(f"{path}/preview", {"contact_id": contact["id"]})
        assert preview["faults"] == []
        expected.append(at_the_gateway(preview, contact["phone"]))
        tests.append((await tenant.post(f"{path}/test", {"contact_id": contact["id"]}))["id"])
    assert expected[0] == ("text", "Hi Asha of your town, dear guest: {{ phone }} {% if %}")
    await until_accepted(live.gateway, sender["phone_number_id"], len(said), 60)
    await enroll(tenant, campaign, contact["id"])
    accepted = await until_accepted(live.gateway, sender["phone_number_id"], 2 * len(said), 60)
    by_id = {one["biz_opaque_callback_data"]: (one["type"], one["body"]) for one in accepted}
    assert [by_id.pop(id_) for id_ in tests] == expected
    really = {(await tenant.get(f"/messages/{id_}"))["step"]: said for id_, said in by_id.items()}
    assert [really[number] for number in range(len(said))] == expected


async def test_what_breaks_a_limit_for_one_contact_fails_by_name_and_the_next_step_leaves(
    live: Platform, tenant: Tenant
) -> None:
    sender = await tenant.sender()
    buttons = [{"id": "y", "title": "{{ attributes.city | default('Here') }}"}, {"id": "n", "title": "No"}]
    campaign, steps = await campaign_of(
        tenant, sender["id"], ({"interactive": {"body": "x", "buttons": buttons}}, {"body": "y"})
    )
    contact = await tenant.contact(attributes={"city": "Thiruvananthapuram, Kerala"})
    path = f"/campaigns/{campaign}/steps/{steps[0]['id']}"
    preview = await tenant.post(f"{path}/preview", {"contact_id": contact["id"]})
    assert [fault["path"] for fault in preview["faults"]] == ["interactive.buttons[0].title"]
    status, refused = await tenant.ask("POST", f"{path}/test", {"contact_id": contact["id"]})
    assert (status, [fault["path"] for fault in refused["errors"]]) == (422, ["interactive.buttons[0].title"])
    await enroll(tenant, campaign, contact["id"])

    async def over() -> bool:
        return bool((await enrollment(tenant, campaign, contact["id"]))["status"] == "completed")

    await until(over, "the enrolment is over", 30)
    [accepted] = await live.gateway.accepted(sender["phone_number_id"])
    assert accepted["body"] == "y"
    [failed] = (await tenant.get(f"/messages?contact_id={contact['id']}&status=failed"))["items"]
    told = "content: interactive.buttons[0].title: must have at most 20 characters (has 26)"
    assert (failed["step"], failed["reason"]) == (0, told)
    assert (
        failed["content"]["interactive"]["buttons"][0]["title"] == "Thiruvananthapuram, Kerala"
    )  # whole, to be looked at
    assert (await tenant.get(f"/messages/{failed['id']}"))["why"]["text"] == told
