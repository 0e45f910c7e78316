"""What keeps the demo from going on."""

from __future__ import annotations


class DemoError(Exception):
    """Something the demo needs did not happen; the text says what, in one line."""
