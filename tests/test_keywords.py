"""Words that stop and words that start again: the whole message, whatever people type around it."""

import msgspec
import pytest

from harkara.keywords import ALWAYS, AMBIGUOUS, ASKS, USUAL, asked, plain
from harkara.schemas.keywords import Keywords


@pytest.mark.parametrize(
    "text",
    [
        "STOP", " stop. ", "Stop!", "ｓｔｏｐ", "*STOP*", "stop 🙏🏽", "🛑 STOP 🛑", "unsubscribe", "Opt-Out",
        "बंद करो।", "Отписаться", "Arret", "ARRÊT!", "إلغاء", "الغاء", "إِلْغَاء", "stop\u200d", "退订",
        "salir", "Detener", "取消", "中止", "해지", "수신 거부", "หยุด", "ยกเลิก", "Durdur!", "arrêtez", "revoke",
        "Please unsubscribe me", "unsub", "Stop, thank you!", "Stop messaging me.", "Don’t message me",
        "DONT CONTACT ME",
        "Désabonnement", "ne plus recevoir", "Dar de baja", "no mas mensajes", "não quero mais receber",
        "sair da lista",
        "Bitte stop!", "Keine Nachrichten mehr", "wypisz mnie", "Відписка", "не пишите мне", "הסר", "band karo", "स्टॉप",
        "बन्द करें", "بند کریں", "ਬੰਦ", "不要再发", "수신 중지", "ngung",
        "S.T.O.P", "S-T-O-P!", "s t o p", "STOP STOP", "Stop! Stop!! STOP!!!", "стоп стоп", "停 止",
    ],
)  # fmt: skip
def test_words_that_stop_everything(text: str) -> None:
    ask = asked([text])
    assert ask is not None
    assert (ask.out, ask.category) == (True, "all")


@pytest.mark.parametrize("text", ["Stop promotions", "STOP_PROMOTIONS", "stop promo!", "No ads."])
def test_words_that_stop_marketing(text: str) -> None:
    ask = asked([text])
    assert ask is not None
    assert (ask.out, ask.category) == (True, "marketing")


@pytest.mark.parametrize("text", ["START", "Unstop", "resume 🙂", "शुरू करें"])
def test_words_that_start_again(text: str) -> None:
    ask = asked([text])
    assert ask is not None
    assert not ask.out


@pytest.mark.parametrize(
    "text",
    [
        "STOP please don't", "don't stop", "the bus stop", "stop it, you're making me laugh", "stops", "stopstop", "",
        " ", "🛑", "ok", "बद", "please don't unsubscribe me", "stop start", "stop stop it", "alto", "dur",
        "start the order", "x" * 5000, "please don't stop", "non-stop", "stop by the shop", "cancel my order",
        "weekend",
        "can you stop by?", "stop loss", "quiero cancelar mi pedido", "取消订单", "acha", "dung", "huy",
        "no more", "remove",
    ],
)  # fmt: skip
def test_nothing_is_guessed(text: str) -> None:
    assert asked([text]) is None


def test_a_button_says_what_is_written_on_it_and_what_it_brings() -> None:
    assert asked(["Not now", "STOP"]) is not None
    assert asked(["Stop promotions", "button-7"]) is not None
    assert asked(["Not now", "button-7"]) is None


@pytest.mark.parametrize(
    "said", [["Cancel", "appt_cancel_17"], ["End date", "end"], ["Quit", "no"], ["取消"], ["Start"]]
)
def test_a_button_that_may_mean_something_else_asks_for_nothing(said: list[str]) -> None:
    assert asked(said, tapped=True) is None


@pytest.mark.parametrize(
    "said", [["Stop", "7"], ["Not now", "UNSUBSCRIBE"], ["Opt out"], ["Abmelden"], ["Отписаться"], ["Stop promotions"]]
)
def test_a_button_that_means_nothing_else_counts(said: list[str]) -> None:
    ask = asked(said, tapped=True)
    assert ask is not None
    assert ask.out


def test_what_is_ambiguous_on_a_button_is_a_usual_word_and_counts_when_typed() -> None:
    for word in (word for line in AMBIGUOUS for word in line.split(",")):
        assert asked([word]) is not None, word
        assert asked([word], tapped=True) is None, word
    assert asked(["cancel"], own(stop=["Cancel"]), tapped=True) == ASKS["stop"], "the tenant says so"


def own(**words: list[str]) -> str:
    return msgspec.json.encode(msgspec.convert(words, Keywords)).decode()


def test_a_tenant_has_words_of_its_own() -> None:
    keywords = own(stop=["Raus damit!"], stop_marketing=["keine Angebote"], start=["Her damit"])
    assert asked(["raus damit"], keywords) == ASKS["stop"]
    assert asked(["KEINE ANGEBOTE"], keywords) == ASKS["stop_marketing"]
    assert asked(["her damit"], keywords) == ASKS["start"]
    assert asked(["raus damit"]) is None, "no other tenant's"


def test_a_usual_word_that_means_something_else_there_does_not_count_and_stop_always_does() -> None:
    keywords = own(ignored=["cancel", "STOP"], start=["stop"])
    assert asked(["Cancel"], keywords) is None
    assert asked(["stop"], keywords) == ASKS["stop"]


def test_every_usual_word_is_found_as_it_is_written_and_means_one_thing() -> None:
    seen: dict[str, str] = {}
    for kind, lines in USUAL.items():
        for word in (word for line in lines for word in line.split(",")):
            found = asked([word])
            assert found is not None, word
            assert found.kind == kind, word
            assert seen.setdefault(plain(word), kind) == kind, word
    assert seen.keys() >= ALWAYS
