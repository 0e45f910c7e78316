"""What the demo's campaign says, and what the people in `contacts.csv` answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: 500 people, five rows that can't be imported and one that repeats a number. Every phone lies in a range that its
#: country keeps for fiction.
CONTACTS = Path(__file__).with_name("contacts.csv")

CAMPAIGN = "Three days of tea"

#: The second step as it is first written: whoever has no product would get a message with a hole.
HOLE = "{{ first_name }}, has your {{ attributes.product }} arrived? How do you like it?"

MENDED = '{{ first_name }}, has your {{ attributes.product | default("tea") }} arrived? How do you like it?'

BUTTONS = [
    {"id": "love", "title": "I love it"},
    {"id": "not-yet", "title": "Not here yet"},
    {"id": "not-mine", "title": "Not my tea"},
]


def asking(body: str) -> dict[str, Any]:
    """The second step's content: a question with three buttons."""
    return {"interactive": {"body": body, "footer": "Harkara Tea", "buttons": BUTTONS}}


#: The steps, as POST /campaigns/{id}/steps takes them. Delays count from the enrolment.
STEPS: tuple[dict[str, Any], ...] = (
    {
        "name": "Welcome",
        "delay_hours": 0,
        "body": 'Hello {{ first_name }}! Your sample of {{ attributes.product | default("our house blend") }} '
        'has left our shop for {{ attributes.city | default("you") }}.',
    },
    {"name": "Question", "delay_hours": 24, **asking(HOLE)},
    {
        "name": "Offer",
        "delay_hours": 48,
        "body": '{{ name }}, a kilo of {{ attributes.product | default("any tea") }} is 20 % off until Sunday. '
        "Answer this message to order, or STOP to hear no more from us.",
    },
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one contact writes as soon as a step's message has arrived; `ends` is how their enrolment ends by that."""

    name: str
    step: int
    message: dict[str, Any]
    ends: str | None


def _text(body: str) -> dict[str, Any]:
    return {"type": "text", "text": {"body": body}}


def _tap(button: dict[str, str]) -> dict[str, Any]:
    return {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": button}}


ANSWERS = (
    Answer("Vikram Kulkarni", 0, _text("STOP"), "opt_out"),
    Answer("Анна Лебедева", 0, _text("Стоп!"), "opt_out"),
    Answer("Priya Iyer", 0, _text("Is it loose leaf, or bags?"), "reply"),
    Answer("鈴木 美咲", 1, _tap(BUTTONS[0]), "reply"),
    Answer("कबीर शर्मा", 2, _text("धन्यवाद! एक किलो भेज दीजिए।"), None),
)

#: Whose timeline is shown at the end.
SHOWN = "कबीर शर्मा"
