"""Where commands print for people."""

from __future__ import annotations

import codecs
import io
import re
import shutil
import sys
from typing import IO, cast

from rich.console import Console
from rich.text import Text

#: Wide enough for any line.
_WHOLE = 1000

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


def counted(number: int, thing: str) -> str:
    """`1 reader`, `2 readers`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def messages_wait(number: int) -> str:
    """`1 message waits`, `2 messages wait`."""
    return f"{counted(number, 'message')} {'waits' if number == 1 else 'wait'}"


def console() -> Console:
    """Standard output. Into a file or a pipe go whole lines, each ending where there is nothing more to see: nobody
    there knows how wide a terminal is."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(file=cast("IO[str]", _Trimmed()), width=_WHOLE, highlight=False)


def fitted(line: str) -> str:
    """The line as far as the terminal is wide, with … for the rest; whole into a file or a pipe."""
    if not sys.stdout.isatty():
        return line
    shown = Text(line)
    shown.truncate(shutil.get_terminal_size().columns, overflow="ellipsis")
    return shown.plain
