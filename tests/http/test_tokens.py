"""Tokens: what they must say, which keys sign them, and those of Supabase Auth."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from door_client import SECRET, Account, Answer, Api

from harkara.http.identity import FOR_ACCESS, ISSUER, BadToken, Tokens, utc_now
from harkara.http.supabase import Supabase

NEWER = "a newer secret of thirty-two bytes, or more"
SUPABASE = "the secret of a Supabase project, long enough"
PROJECT = "https://abcdefghijkl.supabase.co"


def claims(**more: Any) -> dict[str, Any]:
    now = int(utc_now().timestamp())
    own = {"iss": ISSUER, "aud": FOR_ACCESS, "sub": str(uuid4()), "jti": str(uuid4()), "iat": now, "exp": now + 60}
    return {name: value for name, value in (own | more).items() if value is not None}


def signed(tokens: Tokens, told: dict[str, Any], **headers: Any) -> str:
    return jwt.encode(told, tokens._keys[tokens._kid], algorithm="HS256", headers={"kid": tokens._kid} | headers)


def test_a_token_of_ours_says_all_that_it_must() -> None:
    tokens = Tokens(SECRET)
    assert tokens.verify_access(signed(tokens, claims()), utc_now())


@pytest.mark.parametrize(
    "more",
    [
        {"iss": None}, {"iss": "another"}, {"aud": None}, {"aud": "harkara-refresh"}, {"aud": "authenticated"},
        {"aud": ["other", "still"]}, {"exp": None}, {"exp": 1}, {"exp": "soon"}, {"sub": None}, {"sub": "root"},
        {"sub": "' or true --"}, {"jti": None}, {"sid": "x"}, {"nbf": 9_999_999_999},
    ],
)  # fmt: skip
def test_a_token_that_lacks_something_is_none(more: dict[str, Any]) -> None:
    tokens = Tokens(SECRET)
    with pytest.raises(BadToken):
        tokens.verify_access(signed(tokens, claims(**more)), utc_now())


@pytest.mark.parametrize("kid", ["", "unknown", "../../etc/passwd", "\u0000"])
def test_a_token_that_names_no_key_of_ours_is_none(kid: str) -> None:
    tokens = Tokens(SECRET)
    with pytest.raises(BadToken, match="another key"):
        tokens.verify_access(signed(tokens, claims(), kid=kid), utc_now())


def forged(header: dict[str, Any], told: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(part).encode() for part in (header, told)]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, signature)).decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "HS512", "RS256", "ES256", None, 5, ["HS256"]])
def test_the_algorithm_is_ours_to_choose(algorithm: Any) -> None:
    tokens = Tokens(SECRET)
    for header in ({"alg": algorithm, "kid": tokens._kid}, {"alg": algorithm}, {"alg": "HS256", "kid": [tokens._kid]}):
        for signature in (b"", b"x" * 32):
            with pytest.raises(BadToken):
                tokens.verify_access(forged(header, claims(), signature), utc_now())
    with suppress(NotImplementedError):
        key = tokens._keys[tokens._kid]
        if algorithm in ("HS384", "HS512"):
            text = jwt.encode(claims(), key * 2, algorithm=algorithm, headers={"kid": tokens._kid})
            with pytest.raises(BadToken):
                tokens.verify_access(text, utc_now())


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "\u0000", "é.é.é", "x" * 7000, "." * 7000, "e30.e30.", "W10.e30."]
)
def test_nonsense_is_no_token(text: str) -> None:
    for check in (Tokens(SECRET).verify_access, Supabase(SUPABASE).verify):
        with pytest.raises(BadToken):
            check(text, utc_now())


def test_when_the_key_is_rotated_old_tokens_are_good_and_new_ones_are_signed_with_the_newest() -> None:
    user, session, now = uuid4(), uuid4(), utc_now()
    before, rotated, after = Tokens(SECRET), Tokens(NEWER, SECRET), Tokens(NEWER)
    old, new = before.access(user, session, now), rotated.access(user, session, now)
    assert rotated.verify_access(old, now).sub == user
    assert rotated.verify_refresh(before.refresh(user, session, now), now).jti == session
    assert after.verify_access(new, now).sub == user
    for tokens, text in ((before, new), (after, old)):
        with pytest.raises(BadToken, match="another key"):
            tokens.verify_access(text, now)
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]


def test_a_token_of_one_key_does_not_pass_for_one_of_another() -> None:
    before, rotated = Tokens(SECRET), Tokens(NEWER, SECRET)
    swapped = jwt.encode(claims(), before._keys[before._kid], algorithm="HS256", headers={"kid": rotated._kid})
    with pytest.raises(BadToken):
        rotated.verify_access(swapped, utc_now())


# Supabase


def of_supabase(email: str, /, **more: Any) -> str:
    now = int(utc_now().timestamp())
    told = {
        "iss": f"{PROJECT}/auth/v1",
        "aud": "authenticated",
        "sub": str(uuid4()),
        "role": "authenticated",
        "email": email,
        "phone": "",
        "iat": now,
        "exp": now + 3600,
        "session_id": str(uuid4()),
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": now}],
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email": email, "email_verified": True},
        "is_anonymous": False,
    } | more
    secret = more.pop("secret", SUPABASE)
    told.pop("secret", None)
    return jwt.encode({k: v for k, v in told.items() if v is not None}, secret, algorithm="HS256", headers={"kid": "k"})


@pytest.fixture
def with_supabase(api: Api) -> Iterator[Api]:
    """The front door of a deployment whose people log in at Supabase."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.door, "supabase", Supabase(SUPABASE, PROJECT))
        yield api


async def shown(api: Api, token: str, path: str = "/auth/me") -> Answer:
    return await api.call("GET", path, headers={"Authorization": f"Bearer {token}"})


async def test_a_login_at_supabase_is_the_account_with_its_confirmed_address(with_supabase: Api, acme: Account) -> None:
    subject = str(uuid4())
    me = await shown(with_supabase, of_supabase(acme.email.upper(), sub=subject))
    assert (me.body["user"]["email"], me.body["role"]) == (acme.email, "owner")
    assert (await shown(with_supabase, of_supabase(acme.email, sub=subject), "/contacts")).status == 200
    moved = of_supabase("new@example.com", sub=subject)
    assert (await shown(with_supabase, moved)).body["user"]["email"] == acme.email, "the subject is known from now on"
    (await shown(with_supabase, of_supabase(acme.email))).is_problem(401)
    assert (await acme.call("GET", "/tenant")).status == 200, "our own tokens are good too"


@pytest.mark.parametrize(
    "more",
    [
        {"user_metadata": {"email_verified": False}}, {"user_metadata": {"email_verified": "true"}},
        {"user_metadata": {}}, {"user_metadata": None}, {"user_metadata": []}, {"email_verified": False},
        {"email": None}, {"email": ""},
        {"aud": "anon"}, {"aud": None}, {"role": "anon"}, {"role": "service_role"}, {"role": None},
        {"is_anonymous": True}, {"iss": "supabase"}, {"iss": "https://evil.example/auth/v1"}, {"iss": None},
        {"exp": 1}, {"exp": None}, {"sub": None}, {"sub": "root"}, {"secret": "another project's secret, of 32 bytes"},
        {"sub": None, "role": "service_role", "aud": None, "iss": "supabase", "email": None},
    ],
)  # fmt: skip
async def test_a_supabase_token_that_proves_no_address_is_refused(
    with_supabase: Api, acme: Account, more: dict[str, Any]
) -> None:
    (await shown(with_supabase, of_supabase(acme.email, **more))).is_problem(401)


async def test_somebody_who_has_no_account_here_gets_none_from_supabase(with_supabase: Api) -> None:
    answer = (await shown(with_supabase, of_supabase(f"{uuid4().hex}@x.example"))).is_problem(401)
    assert "owner" in answer.body["detail"]


async def test_without_the_setting_supabase_means_nothing(api: Api, acme: Account) -> None:
    assert api.door.supabase is None
    (await shown(api, of_supabase(acme.email))).is_problem(401)


def test_without_the_projects_address_any_issuer_of_that_kind_will_do() -> None:
    anywhere, now = Supabase(SUPABASE), utc_now()
    user = anywhere.verify(of_supabase("a@x.example", iss="https://auth.example/auth/v1"), now)
    assert user.email == "a@x.example"
    for issuer in ("supabase", "https://auth.example", "ftp://auth.example/auth/v1"):
        with pytest.raises(BadToken):
            anywhere.verify(of_supabase("a@x.example", iss=issuer), now)


def test_a_claim_that_a_hook_adds_goes_before_what_users_may_edit() -> None:
    verify, now = Supabase(SUPABASE, PROJECT + "/").verify, utc_now()
    assert verify(of_supabase("a@x.example", email_verified=True, user_metadata={}), now).email == "a@x.example"
    assert verify(of_supabase("a@x.example", email_verified=False), now).email is None


def test_a_supabase_token_ends_when_it_says() -> None:
    token, later = of_supabase("a@x.example"), utc_now() + timedelta(hours=2)
    with pytest.raises(BadToken, match="Supabase"):
        Supabase(SUPABASE).verify(token, later)


async def test_a_refresh_token_that_the_key_before_signed_is_replaced_by_one_of_the_newest(
    api: Api, acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.door, "tokens", Tokens(NEWER, SECRET))
    assert (await acme.call("GET", "/tenant")).status == 200
    body = {"refresh_token": acme.tokens["refresh_token"]}
    pair = (await api.call("POST", "/auth/refresh", body=body)).body
    monkeypatch.setattr(api.door, "tokens", Tokens(NEWER))
    assert (await shown(api, pair["access_token"], "/tenant")).status == 200
    (await acme.call("GET", "/tenant")).is_problem(401)
