"""Account keys as the broker writes them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harkara.nkeys import AccountKey, BadSeed


def test_a_key_is_made_as_both_settings() -> None:
    made = subprocess.run([sys.executable, "-m", "harkara.nkeys"], check=True, capture_output=True, text=True).stdout
    seed, issuer = (line.partition("=")[2] for line in made.splitlines())
    assert issuer == f"'\"{AccountKey.of_seed(seed).public}\"'"
    with pytest.raises(BadSeed):
        AccountKey.of_seed(seed[:-1])
