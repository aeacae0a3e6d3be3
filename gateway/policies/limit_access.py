"""Whom a limit does not count, and whom it refuses whatever is left: lists of networks and users."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from gateway.exchange import Exchange

Standing = Literal["allow", "deny"] | None  # None: counted like everybody

_REMEMBERED = 4096  # addresses; then it begins anew
_USER = "user:"


class Access:
    """The allow and deny lists of one limit. Who is on both is denied, whichever entry is narrower.

    Args:
        allow: networks, and users as "user:ID", that the limit does not count.
        deny: those it refuses.
    """

    def __init__(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._users: dict[str, Standing] = {}
        self._networks: list[tuple[IPv4Network | IPv6Network, Standing]] = []
        self._addresses: dict[str, Standing] = {}
        lists: tuple[tuple[Standing, Sequence[str]], ...] = (("deny", deny), ("allow", allow))
        for standing, entries in lists:  # the first word counts
            for entry in entries:
                if entry.startswith(_USER):
                    self._users.setdefault(entry.removeprefix(_USER), standing)
                else:
                    self._networks.append((ip_network(entry), standing))

    def standing(self, exchange: Exchange) -> Standing:
        """How the sender of a request stands with this limit, by user or by address."""
        by_user = self._users.get(exchange.user) if exchange.user is not None else None
        if by_user == "deny" or not self._networks:
            return by_user
        address = exchange.address
        try:
            by_address = self._addresses[address]
        except KeyError:
            by_address = self._look_up(address)
            if len(self._addresses) >= _REMEMBERED:
                self._addresses.clear()
            self._addresses[address] = by_address
        return "deny" if by_address == "deny" else by_user or by_address

    def _look_up(self, text: str) -> Standing:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:  # a peer on a unix socket
            return None
        return next((standing for network, standing in self._networks if address in network), None)
