"""What each kind of gateway can't send, known before anything is sent: templates are the Cloud API's alone."""

from __future__ import annotations

from collections.abc import Iterator

from harkara.schemas.content import Content, Fault, Media

#: By provider: what it has no word for, and what to do instead. What is not listed, it can send.
LACKS: dict[str, dict[str, str]] = {
    "evolution": {
        "template": "Evolution API has no templates: give a body",
        "media.id": "Evolution API keeps no uploaded files: give a link",
        "interactive.header": "Evolution API sends no file as a header: give a text, or send the file by itself",
        "interactive.link": "Evolution API is not asked for buttons with links: write the link into a body",
    },
    "waha": {
        "template": "WAHA has no templates: give a body",
        "media.id": "WAHA keeps no uploaded files: give a link",
        "media.sticker": "WAHA sends no stickers: send an image",
        "interactive": "WAHA can't send buttons or lists: write the choices into a body",
    },
}


def lacks(provider: str, content: Content) -> list[Fault]:
    """What of this content the provider's gateway can't send, as (path, message) pairs."""
    table = LACKS.get(provider)
    return [] if table is None else [(path, table[place]) for place, path in _used(content) if place in table]


def _used(content: Content) -> Iterator[tuple[str, str]]:
    """What a content makes use of, as the table names it, each with its path."""
    if content.template is not None:
        yield "template", "template"
    if (media := content.media) is not None:
        if media.id is not None:
            yield "media.id", "media.id"
        yield f"media.{media.type}", "media.type"
    if (interactive := content.interactive) is not None:
        yield "interactive", "interactive"
        if isinstance(interactive.header, Media):
            yield "interactive.header", "interactive.header"
        if interactive.link is not None:
            yield "interactive.link", "interactive.link"
