"""Which encoding a file is in: what it says itself, what it can't be but, and else what its text looks like."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from charset_normalizer import CharsetMatch, from_bytes

_BLOCK = 1 << 20

#: Longer marks first: one begins with another.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: What a file may be guessed to be. Of those that fit equally well, the first is what spreadsheets save.
LIKELY = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "cp932", "gb18030",
    "big5", "cp949",
]  # fmt: skip

#: Of the bytes in every other place, so many are zero in text of two bytes a character.
_ZEROS = 0.2

#: A file with so many good characters for each bad one is UTF-8 that was damaged, rather than something else.
_DAMAGED = 20

#: So is one in which, of so many lines that are not plain ASCII, one is UTF-8: no Latin text is by accident, and of
#: Chinese lines few are.
_MIXED = 10

#: Bytes that are looked at in a guess: those of the lines that are not plain ASCII.
_SAMPLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file is like: its encoding, and whether that is a guess; its size in bytes, and about how many lines."""

    encoding: str
    size: int
    lines: int
    guessed: bool = False


def shape_of(file: IO[bytes]) -> Shape:
    """Read a file through, a block at a time, and find out; its position is at the beginning again."""
    file.seek(0)
    head = file.read(_SAMPLE)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None) or _two_bytes(head)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    size = lines = bad = good = well = ill = 0
    sample = bytearray()
    for block in _blocks(file):
        size += len(block)
        lines += max(block.count(b"\n"), block.count(b"\r"))
        if encoding is None:
            text = decoder.decode(block)
            bad_here = text.count("\ufffd")
            bad, good = bad + bad_here, good + (0 if text.isascii() else sum(not char.isascii() for char in text))
            told = [] if text.isascii() else [line for line in block.splitlines() if not line.isascii()]
            utf8 = sum(map(_is_utf8, told))
            well, ill = well + utf8, ill + len(told) - utf8
            if bad_here and len(sample) < _SAMPLE:
                sample += b"\n".join(told)[:_SAMPLE]
    bad += decoder.decode(b"", final=True).count("\ufffd")
    file.seek(0)
    if encoding is not None:
        return Shape(encoding, size, lines)
    if good - bad >= _DAMAGED * bad or (well and well * _MIXED >= well + ill):
        return Shape("utf-8", size, lines)
    return Shape(_guess(bytes(sample)), size, lines, guessed=True)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """A file piece by piece; none ends within a line, unless that is longer than a piece."""
    file.seek(0)
    while block := file.read(_BLOCK):
        yield block + file.readline(_BLOCK)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _two_bytes(head: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of digits, commas and line ends is zero."""
    half = len(head) // 2
    if half and head[1::2].count(0) > _ZEROS * half and head[0::2].count(0) == 0:
        return "utf-16-le"
    if half and head[0::2].count(0) > _ZEROS * half and head[1::2].count(0) == 0:
        return "utf-16-be"
    return None


def _guess(sample: bytes) -> str:
    """The likeliest of those that make the least nonsense of it: short names alone can't tell one from another."""
    found = from_bytes(sample, cp_isolation=LIKELY, enable_fallback=False)
    fits = [(one.chaos, -one.coherence, LIKELY.index(name)) for one in found for name in _names(one)]
    return LIKELY[min(fits)[2]] if fits else LIKELY[0]


def _names(match: CharsetMatch) -> list[str]:
    return [name for name in (match.encoding, *match.could_be_from_charset) if name in LIKELY]


def known(name: str) -> str:
    """The name of an encoding of text as Python spells it. Raises ValueError."""
    try:
        found = codecs.lookup(name.strip())
        b"a".decode(found.name, "replace")  # what is no encoding of text refuses
    except (LookupError, ValueError, TypeError):
        raise ValueError("is not an encoding: give a name such as utf-8, windows-1252 or utf-16") from None
    return found.name
