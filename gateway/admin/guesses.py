"""How many wrong tokens an address has sent, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict

from gateway.addresses import client_network
from gateway.exchange import Clock

BURST = 60.0  # wrong tokens that an address may send at once
PER_SECOND = 1.0  # and then; a random token is safe at any rate, one that people chose is so at this
MOST_ADDRESSES = 4096  # the longest unseen is forgotten first


class Guesses:
    """A bucket of wrong tokens for each address; whoever has emptied it waits, with a right one too.

    Else a guess that succeeds could be told from one that was not looked at. IPv6 is counted by /64, which is
    what one client has.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → tokens left, when

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, address: str) -> float:
        """Seconds until a token of this address is looked at; 0 is now."""
        left = self._left(_client(address))
        return 0.0 if left >= 1.0 else (1.0 - left) / PER_SECOND

    def wrong(self, address: str) -> None:
        """The address has sent one."""
        network = _client(address)
        left = self._left(network) - 1.0
        self._buckets[network] = left, self._clock()
        self._buckets.move_to_end(network)
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)

    def _left(self, network: str) -> float:
        left, at = self._buckets.get(network, (BURST, self._clock()))
        return min(BURST, left + (self._clock() - at) * PER_SECOND)


def _client(address: str) -> str:
    return client_network(address) or address
