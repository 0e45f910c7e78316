"""What the documents name exists: files, functions, headings, SQL functions, commands and settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from harkara.cli import main
from harkara.settings import Settings

ROOT = Path(__file__).parents[2]

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: A path in backticks, perhaps with a name in that file: `harkara/policy/gate.py:judge`.
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|toml|conf|md))(?::([\w.]+))?`")

LINKED = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")
MENTIONED = re.compile(r"\b(docs/[\w/.-]+\.md)\b")
SQL = re.compile(r"`(app\.(?!py`)[a-z_]+)`")
MAKE = re.compile(r"^make (\w+)|`make (\w+)", re.MULTILINE)
COMMAND = re.compile(r"^harkara ([a-z][\w ]*)|`harkara ([a-z][\w ]*)", re.MULTILINE)

#: Paths that exist only where a platform runs, and those of addresses.
ELSEWHERE = (".data", ".venv", "api/", "sandbox/")


def documents() -> Iterator[tuple[Path, str]]:
    return ((path, path.read_text("utf-8")) for path in DOCUMENTS)


def found(name: str) -> Path | None:
    """The file or directory of that name, from the root or, as the decisions write it, from the package."""
    return next((path for base in (ROOT, ROOT / "harkara") if (path := base / name).exists()), None)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions, classes, methods and constants of a module, with dots."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name
            elif isinstance(node, ast.ClassDef):
                yield prefix + node.name
                yield from walk(node.body, f"{prefix}{node.name}.")

    return frozenset(walk(ast.parse(path.read_text("utf-8")).body, ""))


def slug(heading: str) -> str:
    """A heading as the address of a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_function_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    missing: list[str] = []
    for name, inside in NAMED.findall(text):
        if name.startswith(ELSEWHERE):
            continue
        path = found(name)
        if path is None or (inside and inside not in names_in(path)):
            missing.append(f"{name}:{inside}" if inside else name)
    missing += [name for name in MENTIONED.findall(text) if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    broken: list[str] = []
    for target, anchor in LINKED.findall(document.read_text("utf-8")):
        if "://" in target:
            continue
        path = document.parent / target if target else document
        if not path.exists():
            broken.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            broken += [f"{target}#{anchor}"] if anchor not in map(slug, headings) else []
    assert broken == []


def test_the_way_names_enough_to_be_followed() -> None:
    text = (ROOT / "docs" / "way-of-a-message.md").read_text("utf-8")
    assert len({name for name in NAMED.findall(text) if name[1]}) > 30


def test_every_sql_function_exists() -> None:
    migrations = "".join(path.read_text("utf-8") for path in (ROOT / "harkara/storage/migrations").glob("*.py"))
    for document, text in documents():
        for name in SQL.findall(text):
            made = re.search(rf"create (or replace )?function {re.escape(name)}\(", migrations)
            assert made or name == "app.tenant_ids", f"{document.name} names {name}"


def test_every_command_exists() -> None:
    words = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    context = click.Context(main)  # it brings some commands only when they are asked for
    for document, text in documents():
        assert {one or other for one, other in MAKE.findall(text)} <= words, document.name
        for line in (one or other for one, other in COMMAND.findall(text)):
            first, *rest = line.split()
            group = main.get_command(context, first)
            assert group is not None, f"{document.name}: harkara {line}"
            if isinstance(group, click.Group) and rest:
                assert rest[0] in group.commands, f"{document.name}: harkara {line}"


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for name in Settings.__struct_fields__:
        assert f"`{name.upper()}`" in text, name
