"""What is asked of the database for many at once arrives there as it was asked, whatever is in it."""

from __future__ import annotations

import asyncio
from uuid import UUID

from harkara.http.asking import Questions
from harkara.ids import uuid7
from harkara.storage.storage import Storage

ECHO = """
select i.a, i.b from unnest($1::text[], $2::text[], $3::uuid[]) with ordinality as i (tenant_id, a, b, place)
order by i.place
"""

TEXTS = [
    "plain", "", " ", "NULL", "null", '"', "\\", '\\"', "{a,b}", "a,b", "'", "ü€😀", "line\nbreak", "tab\t", "\x01\x7f",
    "\u2028", "</", "$1", "%s", None,
]  # fmt: skip


async def test_every_text_comes_back_as_it_was(storage: Storage) -> None:
    questions, ids = Questions(storage), [uuid7() for _ in TEXTS]
    asked = (questions.ask(ECHO, "", text, id_) for text, id_ in zip(TEXTS, ids, strict=True))
    rows = await asyncio.gather(*asked)
    assert [(row["a"], row["b"]) for row in rows] == list(zip(TEXTS, ids, strict=True))


async def test_alone_and_inside_a_transaction_too(storage: Storage) -> None:
    questions = Questions(storage)
    id_: UUID | None
    for text, id_ in (("a", uuid7()), (None, None), ("\\", None)):
        assert tuple(await questions.ask(ECHO, "", text, id_)) == (text, id_)
        async with storage.anonymous():
            assert tuple(await questions.ask(ECHO, "", text, id_)) == (text, id_)
