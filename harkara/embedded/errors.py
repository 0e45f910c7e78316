"""The one error of this room: a line that says what is wrong and what to do about it."""

from __future__ import annotations


class StackError(Exception):
    """The embedded stack cannot run as asked; the text is one line for the user and says what to do next."""
