"""Stored secrets: readable with the same SECRET_KEY alone, and noticed when they were changed."""

from __future__ import annotations

import pytest

from harkara.vault import Vault

KEY = "a secret of thirty-two bytes, or more"


@pytest.mark.parametrize("secret", ["", "token", "पासवर्ड", "x" * 10_000])
def test_a_secret_comes_back(secret: str) -> None:
    sealed = Vault(KEY).seal(secret)
    assert sealed is not None
    assert Vault(KEY).open(sealed) == secret
    if secret:
        assert secret.encode() not in sealed


def test_no_secret_stays_no_secret() -> None:
    assert Vault(KEY).seal(None) is None
    assert Vault(KEY).open(None) is None


def test_the_same_secret_looks_different_each_time() -> None:
    vault = Vault(KEY)
    assert vault.seal("token") != vault.seal("token")


def test_another_key_does_not_open_it_and_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="another SECRET_KEY"):
        Vault(KEY + ".").open(Vault(KEY).seal("token"))


def test_what_an_earlier_key_sealed_opens_and_is_sealed_anew_with_the_newest() -> None:
    sealed = Vault(KEY).seal("token")
    rotated = Vault("a newer secret of thirty-two bytes, or more", KEY)
    assert rotated.open(sealed) == "token"
    resealed = rotated.resealed(sealed)
    assert Vault("a newer secret of thirty-two bytes, or more").open(resealed) == "token"
    assert rotated.resealed(resealed) is None
    assert rotated.resealed(None) is None
    with pytest.raises(ValueError, match="another SECRET_KEY"):
        Vault(KEY).open(rotated.seal("token"))
    with pytest.raises(ValueError, match="another SECRET_KEY"):
        rotated.resealed(Vault(KEY + ".").seal("token"))


def test_what_was_changed_is_noticed() -> None:
    vault = Vault(KEY)
    sealed = vault.seal("token") or b""
    for place in (0, 20, len(sealed) - 5):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ValueError, match="SECRET_KEY"):
            vault.open(bytes(changed))
    with pytest.raises(ValueError, match="SECRET_KEY"):
        vault.open(b"token")


def test_what_an_earlier_release_sealed_still_opens() -> None:
    """The way from SECRET_KEY to the key must never change, or every stored secret is lost."""
    assert Vault(KEY).open(SEALED) == "token"


SEALED = b"gAAAAABrA8jCOrBNO46UCmUO_8t35SHa3lMUEujpRMesOjipfGdTdrrICEvcp19x4BCKWw4tfi3nogFKsCN_vb0h05kca6uWZg=="
