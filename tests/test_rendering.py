"""Which variant a contact gets: always the same, and as many of each as its weight says."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from harkara.rendering import Unsayable, choose, said
from harkara.schemas.content import Content, Interactive, LinkButton, Media, ReplyButton
from harkara.schemas.variants import Variant
from harkara.templating import variables

STEP = UUID("01982c51-5f3a-7cc1-b4a0-3d1f6e2a9b07")
VARIANTS = [Variant(name="a", body="A"), Variant(name="b", body="B", weight=3)]


def name(step: UUID, contact: int) -> str:
    chosen = choose(VARIANTS, step, UUID(int=contact))
    assert chosen
    return chosen.name


def test_a_contact_keeps_its_variant() -> None:
    assert [name(STEP, contact) for contact in range(8)] == list("baaabbab"), "assignments that are in use change"


def test_each_variant_goes_to_as_many_as_its_weight_says() -> None:
    counts = Counter(name(STEP, contact) for contact in range(10_000))
    assert 2300 < counts["a"] < 2700


def test_another_step_draws_anew() -> None:
    other = UUID(int=STEP.int + 1)
    differing = sum(name(STEP, contact) != name(other, contact) for contact in range(1000))
    assert 300 < differing < 450  # 2 · 1/4 · 3/4 of them


def test_without_variants_there_is_none() -> None:
    assert choose([], STEP, STEP) is None


def values(**attributes: str) -> dict[str, object]:
    return variables(name="Asha Rao", phone="+919876543210", locale=None, attributes=attributes)


def test_every_hole_is_named() -> None:
    buttons = [ReplyButton(id="y", title="{{ attributes.yes }}"), ReplyButton(id="n", title="No")]
    content = Content(interactive=Interactive(body="{{ attributes.a }}", buttons=buttons))
    with pytest.raises(Unsayable) as caught:
        said(content, values())
    assert [path for path, _ in caught.value.faults] == ["interactive.body", "interactive.buttons[0].title"]
    assert caught.value.content is None


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (Content(body="{{ attributes.long }}" * 5), "body"),
        (Content(media=Media(type="image", id="1", caption="{{ attributes.long }}{{ name }}")), "media.caption"),
        (Content(media=Media(type="image", link="{{ name }}")), "media.link"),
        (
            Content(
                interactive=Interactive(
                    body="x", link=LinkButton(title="{{ attributes.city }}", url="https://a.example")
                )
            ),
            "interactive.link.title",
        ),
    ],
    ids=["body", "caption", "link", "title"],
)
def test_what_breaks_a_limit_once_it_is_filled_in_is_named_and_never_cut(content: Content, path: str) -> None:
    with pytest.raises(Unsayable) as caught:
        said(content, values(long="x" * 1024, city="Thiruvananthapuram, Kerala"))
    assert [where for where, _ in caught.value.faults] == [path]
    assert caught.value.content is not None
    assert path in str(caught.value)
