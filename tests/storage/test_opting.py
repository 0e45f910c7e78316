"""What contacts have opted out of: by category, and the same in whatever order it is heard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from support import NewTenant

from harkara.ids import uuid7
from harkara.storage import opting
from harkara.storage.models import Contact
from harkara.storage.opting import Standing, Word, after, columns, consented, join, read, stands
from harkara.storage.storage import Storage

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(second: int) -> datetime:
    return AT + timedelta(seconds=second)


STOP, START = Word("all", True, at(1), "asked"), Word("all", False, at(2), "asked")
NO_ADS, ADS = Word("marketing", True, at(3), "preferences"), Word("marketing", False, at(4), "preferences")
STOP_AGAIN = Word("all", True, at(5), "asked")


def heard(*words: Word) -> Standing:
    standing = Standing()
    for word in words:
        standing = after(standing, word)
    return standing


@pytest.mark.parametrize(
    ("words", "out_of"),
    [
        ((STOP, START), set()),
        ((STOP, START, STOP_AGAIN), {"all"}),
        ((NO_ADS, ADS), set()),
        ((STOP, NO_ADS), {"all", "marketing"}),
        ((NO_ADS, Word("all", False, at(9), "asked")), set()),
        ((STOP, ADS), {"all"}),  # hearing of marketing again is not hearing of everything again
        ((NO_ADS, ADS, STOP, START), set()),
    ],
)
def test_any_order_of_webhooks_says_the_same(words: tuple[Word, ...], out_of: set[str]) -> None:
    assert {frozenset(heard(*order).outs) for order in permutations(words)} == {frozenset(out_of)}


def test_of_two_words_of_the_same_second_stop_wins() -> None:
    start = Word("all", False, STOP.at, "asked")
    assert set(heard(STOP, start).outs) == set(heard(start, STOP).outs) == {"all"}


def test_the_first_opt_out_stays_and_only_its_own_word_is_told() -> None:
    again = Word("all", True, at(3), "button")
    standing = heard(STOP, again)
    assert stands(standing, STOP)
    assert not stands(standing, again)


def test_of_two_messages_of_the_same_second_the_first_is_told() -> None:
    one, other = (Word("all", True, at(1), "asked", f"wamid.{number}") for number in range(2))
    assert stands(heard(one, other, one), one)
    assert not stands(heard(one, other), other)


def test_a_word_that_takes_nothing_back_is_not_told() -> None:
    assert not stands(heard(START), START)
    assert stands(heard(STOP, START), START)
    assert stands(after(heard(STOP, START), START), START), "heard a second time it is told a second time"


def test_consent_takes_back_what_it_is_for() -> None:
    out = heard(NO_ADS, Word("otp", True, at(3), "api"))
    assert set(consented(out, at(9), "form", ["marketing"]).outs) == {"otp"}
    assert set(consented(out, at(9), "form", []).outs) == set()
    assert set(consented(out, at(2), "form", []).outs) == {"marketing", "otp"}, "older than the opt-out"


def test_whoever_was_two_has_opted_out_of_what_either_did() -> None:
    assert set(join(heard(NO_ADS), heard(STOP)).outs) == {"all", "marketing"}
    assert join(heard(STOP), heard(STOP_AGAIN)).outs["all"].at == STOP.at


def test_columns_say_it_all() -> None:
    standing = heard(STOP, NO_ADS, ADS, STOP_AGAIN, Word("otp", True, at(7), "api"))
    made = columns(standing)
    assert read(made["opted_out_at"], made["opted_out_reason"], made["opt_outs"], made["opt_ins"]) == standing


async def test_words_are_written_on_the_contact(storage: Storage, new_tenant: NewTenant) -> None:
    id_, tenant = uuid7(), await new_tenant()
    async with storage.tenant(tenant):
        await Contact.create(id=id_, name="Asha", phone="+919876543210")
    async with storage.batch((tenant,)) as con:
        assert await opting.hear(con, tenant, id_, NO_ADS)
        assert await opting.hear(con, tenant, id_, NO_ADS)
        assert await opting.hear(con, tenant, id_, STOP)
        assert not await opting.hear(con, tenant, uuid7(), STOP), "nobody"
    async with storage.tenant(tenant):
        contact = await Contact.get(id=id_)
    assert (contact.opted_out_at, contact.opted_out_reason) == (STOP.at, "asked")
    assert contact.opt_outs["marketing"] == {"at": "2026-03-01T12:00:03Z", "source": "preferences"}
