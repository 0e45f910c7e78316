"""What whoever imports a file should look at, though nothing is wrong: what was guessed, what its columns became."""

from __future__ import annotations

from collections.abc import Sequence

from harkara.importing.reading import ATTRIBUTE, Column


def hints(encoding: str, columns: Sequence[Column], *, guessed: bool) -> list[str]:
    """One line each; `guessed` if the encoding is what the file's text looks like, and nothing says so."""
    titles = [column.target.removeprefix(ATTRIBUTE) for column in columns if column.target.startswith(ATTRIBUTE)]
    words = [f"{{{{ {ATTRIBUTE}{name} }}}}" for name in dict.fromkeys(titles) if name.isidentifier()]
    others = [name for name in dict.fromkeys(titles) if not name.isidentifier()]
    found = {
        f"the file does not say its encoding, {encoding} is a guess: look at names with accents; if they are wrong,"
        " save the file as UTF-8, or say its encoding with ?encoding=…": guessed,
        f"other columns are attributes; in texts they are written just so, capitals too: {', '.join(words)}": words,
        f"no text can name these attributes, rename their columns, with a letter first: {', '.join(others)}": others,
    }
    return [hint for hint, holds in found.items() if holds]
