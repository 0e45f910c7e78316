"""Whose a key in Redis is, whatever tenants are called."""

from __future__ import annotations

import pytest

from harkara.storage import redis_keys

NUMBER = "01982c51-5f3a-7cc1-b4a0-3d1f6e2a9b07"
THINGS = frozenset({NUMBER, redis_keys.account("Asha@acme.example")})


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("limit:tenant:acme", True),
        ("limit:address:acme:2001:db8::1", True),
        ("plan:acme", True),
        ("users:acme:1234", True),
        ("limit:tenant:acme-2", False),
        ("limit:address:globex:acme", False),
        (f"limit:key:{NUMBER}", True),
        *((f"{kind}:{NUMBER}", True) for kind in ("hold", "away", "rate", "in", "slow")),
        *((f"{kind}:{NUMBER}:919812345678", True) for kind in ("pair", "open")),
        ("pace:acme:1234:welcome/en", True),
        ("pace:globex:acme:welcome/en", False),
        (f"login:known:{redis_keys.account('asha@acme.example')}:127.0.0.1", True),
        (f"login:{redis_keys.account('asha@acme.example')}:127.0.0.1", True),
        (f"login:{redis_keys.account('asha@acme.example')}", True),
        ("login:from:127.0.0.1", False),
        ("hold:acme", False),
        ("feed:ticket:acme", False),
        ("doors", False),
    ],
)
def test_a_key_says_whose_it_is(key: str, ours: bool) -> None:
    assert redis_keys.is_of(key, "acme", THINGS) is ours


@pytest.mark.parametrize(
    "tenant", ["limit", "tenant", "key", "login", "known", "from", "hold", "pair", "feed", "ticket"]
)
def test_a_tenant_that_is_called_like_a_kind_has_no_others_keys(tenant: str) -> None:
    keys = (
        "limit:tenant:acme",
        f"limit:key:{NUMBER}",
        "login:known:x:y",
        "login:from:y",
        f"hold:{NUMBER}",
        "feed:ticket:x",
    )
    assert [key for key in keys if redis_keys.is_of(key, tenant, frozenset())] == []
