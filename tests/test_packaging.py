"""The words of the Makefile, and the package that a wheel installs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What make says."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_lists_every_word() -> None:
    listed = [line.split()[1] for line in make("help").stdout.splitlines()]
    assert listed == ["demo", "up", "test", "lint", "bench", "chaos", "setup", "lock", "help"]


def test_every_test_that_takes_minutes_is_run_by_make_chaos() -> None:
    told = re.search(r"^chaos:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert told
    places = [ROOT / place for place in re.findall(r"tests/\S+", told[1])]
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.long" in path.read_text()]
    assert len(marked) > 5
    assert [path.name for path in marked if not any(path.is_relative_to(place) for place in places)] == [
        Path(__file__).name
    ]


def test_ci_runs_what_a_user_runs() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


def test_without_a_python_that_will_do_setup_says_so(tmp_path: Path) -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    done = make("setup", "PYTHON=python2.7", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.11 or newer with venv is needed, and not found as any of: python2.7. ")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("name", ["constraints.txt", "Makefile", "pyproject.toml", "bench/rivals/requirements.txt"])
def test_no_file_names_a_package_host(name: str) -> None:
    assert "://" not in (ROOT / name).read_text()


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {_name(entry) for entry in project["dependencies"] + project["optional-dependencies"]["dev"]}
    locked = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert wanted <= locked, "run make lock"


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0].lower()


def test_an_installed_package_has_the_configuration(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    found = subprocess.run(
        [sys.executable, "-c", "from harkara.embedded.nats import config; print(config())"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(found.stdout.strip()) == tmp_path / "harkara" / "nats_config" / "server.conf"
    assert (tmp_path / "harkara" / "nats_config" / "server.conf").read_bytes() == (
        ROOT / "nats/server.conf"
    ).read_bytes()
