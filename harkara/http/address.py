"""Where a request comes from: the peer, or what trusted proxies say of the one before them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

from harkara.settings import MOST_PROXIES, Settings

Address = IPv4Address | IPv6Address

#: Of an IPv6 address this much is one customer's: whoever has one address has all of its network.
IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True)
class Trusted:
    """Which hops before us are our own: the last `count`, or those in `networks`."""

    count: int = 0
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def trusts(self, hop: int, address: Address) -> bool:
        """Whether the hop with this address, the peer being 0, is one of ours."""
        return hop < self.count or any(address in network for network in self.networks)


@cache
def trusted(setting: str) -> Trusted:
    """What TRUSTED_PROXIES says: a number of proxies, or addresses and networks with commas."""
    text = setting.strip()
    if not text:
        return Trusted()
    if text.isdecimal():
        return Trusted(int(text))
    return Trusted(networks=tuple(ip_network(one.strip()) for one in text.split(",")))


def client_address(request: web.Request, settings: Settings) -> str:
    """The address of whoever asks, as text; empty if the transport has none.

    Walks from the peer to the left through X-Forwarded-For for as long as who told us is trusted: what stands further
    left is whatever the client made up.
    """
    peer = _parsed(request.remote or "")
    if peer is None:
        return request.remote or ""
    proxies = trusted(settings.trusted_proxies)
    if not proxies.trusts(0, peer):
        return str(peer)
    return str(_walked(peer, request.headers.getall("X-Forwarded-For", []), proxies))


def _walked(peer: Address, told: list[str], proxies: Trusted) -> Address:
    found = peer
    before = ",".join(told).rsplit(",", MOST_PROXIES)[-MOST_PROXIES:]
    for hop, text in enumerate(reversed(before)):
        if not proxies.trusts(hop, found):
            break
        address = _parsed(text.strip())
        if address is None:
            break
        found = address
    return found


def _parsed(text: str) -> Address | None:
    """An address, also with a port or in brackets; IPv4 in IPv6's clothes is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def customer_of(address: str) -> str:
    """What limits count as one client: the address, or the network of an IPv6 address."""
    parsed = _parsed(address)
    if not isinstance(parsed, IPv6Address):
        return address
    return str(ip_network((int(parsed), IPV6_PREFIX), strict=False))
