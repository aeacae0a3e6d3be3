"""Addresses of clients, and of the proxies that may speak for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from gateway.generations import Generations

MAX_HOPS = 32  # proxies believed in one X-Forwarded-For
MAX_ENTRY = 100  # bytes of an address with zone, brackets and port; longer ones are none, and not remembered
MAX_KNOWN = 4096  # peers of whom it is remembered whether they are trusted

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]


@lru_cache(maxsize=8192)
def parse(text: str) -> Address | None:
    """An address as proxies write it: bare, or with a port; IPv4 also when mapped into IPv6."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_network(text: str) -> str | None:
    """What one client has: an IPv4 address, or all of an IPv6 one's /64. None when the text is no address."""
    address = parse(text)
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return None if address is None else str(address)


class Proxies:
    """Which peers may speak for a client."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = tuple(trusted)
        self._known: Generations[Address, bool] = Generations(MAX_KNOWN // 2)

    def trusts(self, address: Address) -> bool:
        """Whether a peer's X-Forwarded fields are believed."""
        known = self._known.get(address)
        if known is None:
            known = self._known.find(address)
        if known is None:
            known = any(address in network for network in self._trusted)
            self._known.add(address, known)
        return known

    def walk(self, peer: Address, fields: Sequence[bytes]) -> list[Address]:
        """The chain from client to peer, each told by a trusted hop; entries beyond it may be forged."""
        chain = [peer]
        entries = b",".join(fields).split(b",") if fields else []
        for entry in reversed(entries[-MAX_HOPS:]):
            if not self.trusts(chain[0]):
                break
            text = entry.strip(b" \t")
            address = parse(text.decode("latin-1")) if len(text) <= MAX_ENTRY else None
            if address is None:
                break  # garbage: the hop that sent it is the last one known
            chain.insert(0, address)
        return chain
