"""Which server gets the next request: the less busy of two, among those that are well."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final

from gateway.exchange import Clock
from gateway.upstream.health import Health
from gateway.upstream.pool import Endpoint, Pool

# With a smaller share of servers well, all are used: the well ones could not carry the load.
PANIC: Final = 0.5


class Server:
    """One server of an upstream, with its connections and its health."""

    __slots__ = ("endpoint", "health", "pool", "url")

    def __init__(self, url: str, endpoint: Endpoint, pool: Pool) -> None:
        self.url = url
        self.endpoint = endpoint
        self.pool = pool
        self.health = Health()


class Balancer:
    """Power of two choices on exchanges in flight (Mitzenmacher 2001), which never herds.

    Also keeps the outlier detection in bounds: a lone server is never ejected, of several at most half.
    """

    def __init__(self, servers: Sequence[Server], *, clock: Clock, rng: random.Random | None = None) -> None:
        self.servers = tuple(servers)
        self._clock = clock
        self._random = (rng or random.Random()).random  # noqa: S311 - spreads load, keeps no secret
        self._usable = self.servers
        self._recheck = math.inf  # when the next ejection ends, on the clock

    def pick(self, avoid: Server | None = None) -> Server:
        """The server for one request, any other than `avoid` if there is one."""
        if len(self.servers) == 1:
            return self.servers[0]
        if self._clock() >= self._recheck:
            self.refresh()
        usable = self._usable
        if avoid is not None:
            usable = tuple(server for server in usable if server is not avoid) or usable
        count = len(usable)
        if count == 1:
            return usable[0]
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        one, other = usable[first], usable[second + (second >= first)]
        return one if one.pool.load <= other.pool.load else other

    def succeeded(self, server: Server) -> None:
        """The server served somebody."""
        health = server.health
        if health.failures or health.ejections:
            health.succeeded()
            self.refresh()

    def failed(self, server: Server) -> None:
        """The server failed somebody: no connection, no answer, or a 5xx."""
        now = self._clock()
        if not server.health.failed():
            return
        ejected = sum(other.health.ejected_until > now for other in self.servers if other is not server)
        if (ejected + 1) * 2 <= len(self.servers):
            server.health.eject(now)
            self.refresh()

    def refresh(self) -> None:
        """Look again at who is well; called whenever that may have changed."""
        now = self._clock()
        well = tuple(server for server in self.servers if server.health.well(now))
        self._usable = well if len(well) >= PANIC * len(self.servers) else self.servers
        ends = (server.health.ejected_until for server in self.servers)
        self._recheck = min((end for end in ends if end > now), default=math.inf)

    def well(self, server: Server) -> bool:
        """Whether the server is thought to be well."""
        return server.health.well(self._clock())
