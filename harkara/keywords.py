"""Words by which people opt out of messages and in again: a whole message that is one of them, and nothing else.

"STOP please don't" is a sentence, not a request, and a contact who is muted by mistake is lost, and nobody notices:
nothing is guessed. What people type around it (case, punctuation, accents, emoji) is taken away before comparing. One
that is spelled out (S.T.O.P) or said more than once (STOP STOP) is the same word. What is tapped and not typed counts
only if it means nothing else: "Cancel" on a button cancels what the message is about.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from harkara.schemas.keywords import Category, Keywords

Kind = Literal["stop", "stop_marketing", "start"]


class Ask(NamedTuple):
    """What a word asks for: to hear nothing more of a category, or to hear of everything again."""

    kind: Kind
    out: bool
    category: Category


ASKS: dict[Kind, Ask] = {
    "stop": Ask("stop", True, "all"),
    "stop_marketing": Ask("stop_marketing", True, "marketing"),
    "start": Ask("start", False, "all"),
}

#: The usual words, by language. The English ones are those that carriers made everybody's habit. What often means
#: something else where people answer in a word is left to the tenants' own lists: `alto` is tall, `dur` hard in French,
#: `dung` without its accents right in Vietnamese, and `acha`, Swahili, says yes in Hindi.
USUAL: dict[Kind, tuple[str, ...]] = {
    "stop": (
        "stop, stopall, stop all, please stop, stop please, unsubscribe, opt out, optout, end, quit, cancel",
        "revoke, remove me, please remove me, remove me please, take me off the list, take me off your list",
        "unsub, unsubscribe me, unsubscribe all, unsubscribe please, please unsubscribe, opt me out",
        "please unsubscribe me",
        "stop now, stop thanks, stop thank you, stop messages, stop all messages, stop messaging me, stop texting me",
        "stop sending messages, stop sending me messages, stop notifications, stop alerts, stop updates, stop sms",
        "no more messages, do not contact me, don't contact me, dont contact me, don't message me, dont message me",
        "arrêt, arrête, arrêter, arrêtez, désabonner, se désabonner, désabonnement, désinscription, désinscrire",
        "se désinscrire, stop svp, stop merci, stop s'il vous plaît, ne plus recevoir",
        "parar, pare, baja, dar de baja, darse de baja, darme de baja, cancelar, cancelar suscripción, salir, detener",
        "desuscribir, desuscribirse, desuscribirme, no más mensajes, no quiero más mensajes",
        "sair, sair da lista, descadastrar, descadastre, desinscrever, cancelar inscrição, não quero mais receber",
        "não quero mais receber mensagens, não quero mais mensagens",
        "abmelden, abmeldung, abbestellen, austragen, stopp, stop bitte, bitte stop, keine nachrichten mehr",
        "annulla, disiscrivi, disiscrivimi, disiscriviti, disiscrizione, cancellami",
        "afmelden, uitschrijven, stoppen, afmeld, avmeld, avregistrera, avprenumerera, sluta, lopeta",
        "berhenti, berhenti langganan, stop langganan, henti, wypisz, wypisz mnie, iptal, ayrıl, durdur",
        "abonelikten çık",
        "odhlásit, odhlásit se, dezabonare, leiratkozás, leiratkozom, ngừng, hủy đăng ký, itigil, ihinto, sitisha",
        "стоп, отписаться, отписка, отпишите меня, прекратите, не пишите мне, відписатися, відписка, відпишіть мене",
        "отписване, спри, σταματήστε, διακοπή, הסר, הסר אותי, הסירו אותי, הפסק, עצור",
        "توقف, قف, إيقاف, إلغاء, إلغاء الاشتراك, بند کرو, بند کریں, روکیں, لغو, لغو عضویت",
        "रोकें, रोको, बंद करो, बंद करें, बंद, बन्द करो, बन्द करें, स्टॉप, मैसेज बंद करो, मैसेज मत भेजो",
        "band karo, bandh karo, band kar do, message mat bhejo, थांबवा, बंद करा, বন্ধ, বন্ধ করুন, স্টপ",
        "நிறுத்து, நிறுத்தவும், ஸ்டாப், ఆపు, ఆపండి, స్టాప్, ನಿಲ್ಲಿಸಿ, ಸ್ಟಾಪ್, നിർത്തുക, સ્ટોપ, બંધ કરો, બંધ",
        "ਬੰਦ ਕਰੋ, ਬੰਦ, 退订, 停止, 中止, 取消, 停止订阅, 取消订阅, 取消訂閱, 退訂, 停止接收, 不要再发, 不要再發",
        "配信停止, 停止してください, 購読解除, 配信解除",
        "수신거부, 수신 거부, 수신중지, 수신 중지, 중지, 해지, 구독취소, 구독 취소, หยุด, ยกเลิก, เลิกรับ",
    ),
    "stop_marketing": (
        "stop promotions, stop promotion, stop promos, stop promo, stop marketing, stop offers, no promotions, no ads",
        "arrêter les promotions, stop pub, detener promociones, no más promociones, parar promoções",
        "werbung stoppen, keine werbung, प्रचार बंद करें, ऑफर बंद करो",
    ),
    "start": (
        "start, unstop, resume, subscribe, resubscribe, opt in, optin, start promotions, resume promotions",
        "reprendre, réabonner, s'abonner, reanudar, alta, suscribir, retomar, assinar",
        "anmelden, fortsetzen, mulai, başlat, старт, подписаться, підписатися",
        "ابدأ, اشترك, اشتراك, शुरू करें, शुरू करो, चालू करो, चालू करें, শুরু, தொடங்கு, 订阅, 恢复, 訂閱",
    ),
}

#: Of the usual words those that, on a button or in a list, are mostly an answer to something else.
AMBIGUOUS = (
    "end, quit, cancel, revoke, remove me, baja, cancelar, salir, sair, annulla, iptal, ayrıl, إلغاء, बंद करो, बंद करें",
    "बंद, बन्द करो, बन्द करें, बंद करा, band karo, bandh karo, band kar do, বন্ধ, বন্ধ করুন, બંધ કરો, બંધ",
    "ਬੰਦ ਕਰੋ, ਬੰਦ, 中止, 取消, 해지, 중지, ยกเลิก, لغو, بند کرو, بند کریں, dar de baja, descadastre, stoppen",
    "start, resume, reprendre, reanudar, alta, retomar, assinar, anmelden, fortsetzen, mulai, başlat, старт, ابدأ",
    "शुरू करें, शुरू करो, चालू करो, चालू करें, শুরু, தொடங்கு, 恢复",
)

#: What no tenant can switch off: the word that everybody knows.
ALWAYS = frozenset({"stop"})

#: Accents and vowel points, which people leave out. Marks of other scripts are letters: without its own, the Hindi word
#: for "closed" is the one for "bad".
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u0655]")

#: A longer message is none of these words, and isn't worth looking at.
_LONGEST = 200


def plain(text: str) -> str:
    """A message as it is compared: letters and digits, in lower case, without accents, with single spaces."""
    decomposed = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold())
    kept = (_letter(character) for character in unicodedata.normalize("NFKC", decomposed))
    return " ".join("".join(kept).split())


def _letter(character: str) -> str:
    """A letter, digit or mark as it is; nothing for what can't be seen; a space for all else."""
    kind = unicodedata.category(character)
    if kind[0] in "LN" or (kind[0] == "M" and not "\ufe00" <= character <= "\ufe0f"):
        return character
    return "" if kind in ("Cf", "Mn", "Me") else " "


def _plain(words: Iterable[str]) -> list[str]:
    return [word for one in words if (word := plain(one))]


_USUAL: dict[str, Ask] = {
    word: ASKS[kind] for kind, lines in USUAL.items() for line in lines for word in _plain(line.split(","))
}
_AMBIGUOUS = frozenset(word for line in AMBIGUOUS for word in _plain(line.split(",")))


@lru_cache(maxsize=1024)
def _known(keywords: str, tapped: bool) -> dict[str, Ask]:
    """All the words of a tenant that count when typed or tapped, by its settings as JSON."""
    own = msgspec.json.decode(keywords, type=Keywords)
    ignored = set(_plain(own.ignored)) - ALWAYS | (_AMBIGUOUS if tapped else frozenset[str]())
    known = {word: ask for word, ask in _USUAL.items() if word not in ignored}
    known |= dict.fromkeys(_plain(own.start), ASKS["start"])
    known |= dict.fromkeys(_plain(own.stop_marketing), ASKS["stop_marketing"])
    known |= dict.fromkeys([*_plain(own.stop), *ALWAYS], ASKS["stop"])
    return known


def asked(said: Iterable[str], keywords: str = "{}", *, tapped: bool = False) -> Ask | None:
    """What a message asks for, if any of what it says is one of the words; `keywords` are the tenant's, as JSON.

    A button says two things: what is written on it and what it brings. `tapped` says that it is one, or a list's row.
    """
    known = _known(keywords, tapped)
    short = (text for text in said if len(text) <= _LONGEST)
    return next((found for text in short for word in _words(text) if (found := known.get(word))), None)


def _words(text: str) -> Iterator[str]:
    """What of the words a whole message may be: as it is, spelled out, or said more than once."""
    words = plain(text).split()
    yield " ".join(words)
    if all(len(word) == 1 for word in words):
        yield "".join(words)
    if len(set(words)) == 1:
        yield words[0]
