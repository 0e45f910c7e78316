"""What a step says to one contact: the same for a preview, a dry run, a test and the real sending."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from harkara.schemas.content import Content, Fault
from harkara.schemas.variants import Variant
from harkara.templating import INVOICE, TemplateFault, compiled, used


class Unsayable(Exception):
    """A content that can't be said to somebody: `faults` name the fields, `content` is there unless it has holes."""

    def __init__(self, faults: Sequence[Fault], content: Content | None = None) -> None:
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in faults))
        self.faults, self.content = faults, content


def choose(variants: Sequence[Variant], step: UUID, contact: UUID) -> Variant | None:
    """The variant of a step that a contact gets, always the same one. None if there are no variants.

    `step` is the step's origin, so that a new version of the campaign changes nobody's variant.
    """
    if not variants:
        return None
    digest = hashlib.blake2b(step.bytes + contact.bytes, digest_size=8).digest()
    place = int.from_bytes(digest, "big") % sum(variant.weight for variant in variants)
    for variant in variants:
        place -= variant.weight
        if place < 0:
            return variant
    return None  # pragma: no cover - the places are as many as the weights


def said(content: Content, values: Mapping[str, Any]) -> Content:
    """The content with its variables filled in: all of it, and never cut.

    Raises Unsayable if one without a default is missing, or if it breaks a limit of WhatsApp's once it is filled in.
    """
    try:
        filled = content.map_texts(lambda text: compiled(text)(values))
    except TemplateFault:
        raise Unsayable(list(_holes(content, values))) from None
    if faults := filled.faults(rendered=True):
        raise Unsayable(faults, filled)
    return filled


def _holes(content: Content, values: Mapping[str, Any]) -> Iterator[Fault]:
    for path, text in content.texts():
        try:
            compiled(text)(values)
        except TemplateFault as fault:
            yield path, f"{fault}{_mend(text, values)}" if "undefined" in str(fault) else str(fault)


def _mend(text: str, values: Mapping[str, Any]) -> str:
    """What to do about a hole in a text."""
    about_invoice = "invoice" not in values and any(name in used(text) for name in INVOICE)
    ways = "name an invoice with `invoice_id`, or " if about_invoice else ""
    return f": this contact has no value for it, so {ways}give it a default"
