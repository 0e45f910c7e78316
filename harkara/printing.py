"""Where commands print for people."""

from __future__ import annotations

import codecs
import io
import os
import re
import shutil
import sys
from typing import IO, cast

from rich.console import Console
from rich.text import Text

#: Wide enough for any line.
_WHOLE = 1000

#: So many columns whole lines take: with fewer, some of what is in them stands together, or below.
WIDE = 150

#: Stands between the parts of a line that is no table's.
_BETWEEN = "  "

_BLANKS = re.compile(r" +(?=\n)")


class _Trimmed(io.TextIOBase):
    """Standard output, without the blanks by which tables make all their lines equally long."""

    def write(self, text: str) -> int:
        sys.stdout.write(_BLANKS.sub("", text))
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()


#: What stands for what a terminal cannot show; anything else is a question mark, as status has for what is not known.
_PLAIN = {"✓": "+", "✗": "x", "…": "...", "–": "-", "—": "-", "→": ">", "←": "<", "·": ".", "⏵": ">"}


def in_plain_letters() -> None:
    """A terminal that cannot show a letter or a mark shows another for it from now on, and the command goes on."""
    codecs.register_error(in_plain_letters.__name__, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=in_plain_letters.__name__)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def open_what_is_closed() -> None:
    """A standard stream that is closed (`>&-`) leads nowhere: else the first connection would get its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def why_unwritable() -> str:
    """Why nothing can be written to standard output; empty if something can. What is left for it is forgotten then."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries it once more at its end
        return error.strerror or str(error)
    return ""


def counted(number: int, thing: str) -> str:
    """`1 reader`, `2 readers`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def times(number: int) -> str:
    """`once`, `2 times`."""
    return "once" if number == 1 else f"{number} times"


def messages_wait(number: int) -> str:
    """`1 message waits`, `2 messages wait`."""
    return f"{counted(number, 'message')} {'waits' if number == 1 else 'wait'}"


def console() -> Console:
    """Standard output. Into a file or a pipe go whole lines, each ending where there is nothing more to see: nobody
    there knows how wide a terminal is."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(file=cast("IO[str]", _Trimmed()), width=_WHOLE, highlight=False)


def fitted(*parts: str) -> str:
    """The parts in one line; in a terminal of fewer columns than `WIDE` each in its own.

    A terminal is shown as much of a line as it is wide, with … for the rest; a file or a pipe all of it.
    """
    if not sys.stdout.isatty():
        return _BETWEEN.join(parts)
    columns = shutil.get_terminal_size().columns
    lines = (_BETWEEN if columns >= WIDE else f"\n{_BETWEEN}").join(parts).split("\n")
    return "\n".join(_cut(line, columns) for line in lines)


def _cut(line: str, columns: int) -> str:
    shown = Text(line)
    shown.truncate(columns, overflow="ellipsis")
    return shown.plain
