"""Is a server well? Probes ask it; outlier detection watches what it does to users."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from gateway import config
from gateway.errors import UpstreamError
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Endpoint

EJECT_AFTER = 5  # failures in a row
EJECT_FIRST = 1.0  # seconds; doubled with every ejection until a success
EJECT_LONGEST = 60.0  # seconds


class Health:
    """What is known of one server.

    Attributes:
        answers_probes: what the probes say; true until they say otherwise.
        failures: requests failed in a row.
        ejections: how often it was ejected since its last success.
        ejected_until: on the clock.
    """

    __slots__ = ("_probes", "answers_probes", "ejected_until", "ejections", "failures")

    def __init__(self) -> None:
        self.answers_probes = True
        self.failures = 0
        self.ejections = 0
        self.ejected_until = float("-inf")
        self._probes = 0  # in a row that contradict `answers_probes`

    def well(self, now: float) -> bool:
        """Whether it should get requests."""
        return self.answers_probes and self.ejected_until <= now

    def succeeded(self) -> None:
        """It served somebody; all is forgiven."""
        self.failures = self.ejections = 0
        self.ejected_until = float("-inf")

    def failed(self) -> bool:
        """It failed somebody; whether that calls for an ejection."""
        self.failures += 1
        return self.failures >= EJECT_AFTER  # so once back from an ejection, the first failure is enough

    def eject(self, now: float) -> None:
        """Send it no requests for a while; longer each time."""
        if self.ejected_until <= now:  # failures of requests still under way don't prolong it
            self.ejected_until = now + min(EJECT_LONGEST, EJECT_FIRST * 2.0 ** min(self.ejections, 16))
            self.ejections += 1

    def probed(self, ok: bool, settings: config.Health) -> bool:
        """Take in the result of a probe; whether that changed the verdict."""
        if ok is self.answers_probes:
            self._probes = 0
            return False
        self._probes += 1
        if self._probes < (settings.healthy_after if ok else settings.unhealthy_after):
            return False
        self.answers_probes = ok
        self._probes = 0
        return True


async def probe(endpoint: Endpoint, settings: config.Health) -> bool:
    """Whether the server answers 2xx to GET `settings.path` in time, on a connection of its own."""
    deadline = endpoint.clock() + settings.timeout
    connection = Connection(clock=endpoint.clock)
    connection.leased = True
    try:
        await endpoint.connect(connection, deadline)
        connection.send(
            f"GET {settings.path} HTTP/1.1\r\nhost: {endpoint.authority}\r\n"
            "user-agent: tidegate-health\r\nconnection: close\r\n\r\n".encode()
        )
        await connection.head(deadline)
    except UpstreamError:
        return False
    finally:
        connection.abort()
    return 200 <= connection.reader.status <= 299


async def keep_probing(
    endpoint: Endpoint, health: Health, settings: config.Health, changed: Callable[[], None]
) -> None:
    """Probe one server for ever; `changed` is called after each change of verdict."""
    while True:
        if health.probed(await probe(endpoint, settings), settings):
            changed()
        # Spread, so that many gateways don't probe in step.
        await asyncio.sleep(settings.interval * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
