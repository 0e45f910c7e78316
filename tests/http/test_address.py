"""Who asks: the peer, unless trusted proxies say who it was before them."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from harkara.http.address import client_address, customer_of
from harkara.settings import Settings, SettingsError, load

ONE = "10.0.0.1"


def asked(proxies: str, *forwarded: str, peer: str = ONE) -> str:
    headers = CIMultiDict([("X-Forwarded-For", one) for one in forwarded])
    request = make_mocked_request("GET", "/", headers=headers)
    return client_address(request.clone(remote=peer), Settings(trusted_proxies=proxies))


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        ("", (), ONE),
        ("", ("203.0.113.9",), ONE),
        ("1", (), ONE),
        ("1", ("203.0.113.9",), "203.0.113.9"),
        ("1", ("1.1.1.1, 203.0.113.9",), "203.0.113.9"),
        ("2", ("1.1.1.1, 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("2", ("1.1.1.1, 203.0.113.9", "10.0.0.2"), "203.0.113.9"),
        ("2", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.0/8", ("1.1.1.1, 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.0/8, ::1", ("203.0.113.9, ::1",), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9, 10.0.0.2",), "10.0.0.2"),
        ("192.168.0.0/16", ("203.0.113.9",), ONE),
        ("10.0.0.0/8", ("203.0.113.9, nonsense",), ONE),
        ("10.0.0.0/8", ("203.0.113.9, \u0661\u0660.0.0.1",), ONE),
        ("1", ("203.0.113.9:4711",), "203.0.113.9"),
        ("1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("1", ("2001:DB8:0::1",), "2001:db8::1"),
        ("1", ("::ffff:203.0.113.9",), "203.0.113.9"),
        ("16", (", ".join(["1.1.1.1"] * 900),), "1.1.1.1"),
        ("1", ("," * 5000,), ONE),
    ],
)
def test_only_trusted_proxies_say_who_asks(proxies: str, forwarded: tuple[str, ...], address: str) -> None:
    assert asked(proxies, *forwarded) == address


def test_a_peer_without_an_address_has_none() -> None:
    assert asked("1", "203.0.113.9", peer="") == ""


def test_a_peer_in_ipv6_clothes_is_trusted_by_its_ipv4_address() -> None:
    assert asked("10.0.0.0/8", "203.0.113.9", peer="::ffff:10.0.0.1") == "203.0.113.9"


@pytest.mark.parametrize(
    ("address", "customer"),
    [("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("", "")],
)
def test_a_network_of_ipv6_is_one_customer(address: str, customer: str) -> None:
    assert customer_of(address) == customer


@pytest.mark.parametrize("text", ["17", "-1", "10.0.0.0/33", "10.0.0.1/8", "localhost", "1,2", "10.0.0.0/8,"])
def test_proxies_that_are_none_stop_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        load({"TRUSTED_PROXIES": text})


@pytest.mark.parametrize("text", ["0", "1", "10.0.0.0/8", "10.0.0.1, 2001:db8::/32"])
def test_proxies_are_a_number_or_networks(text: str) -> None:
    assert load({"TRUSTED_PROXIES": text}).trusted_proxies == text
