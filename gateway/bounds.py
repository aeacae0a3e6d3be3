"""What one server's connections have in common."""

from __future__ import annotations

from gateway.config import Listen
from gateway.head import HeadReader
from gateway.timed import Wheel
from gateway.whole import App


class Bounds:
    """What clients are held to, how their requests are read, and who answers these.

    Attributes:
        listen: the bounds.
        heads: reads requests that come whole.
        whole: answers these; without it the ASGI app answers them too.
        wheel: looks at them in time.
    """

    __slots__ = ("heads", "listen", "wheel", "whole")

    def __init__(self, listen: Listen, whole: App | None = None) -> None:
        self.listen = listen
        self.heads = HeadReader(listen)
        self.whole = whole
        self.wheel = Wheel()

    def set(self, listen: Listen) -> None:
        """Let others hold from the next request on, on connections that are open too."""
        if listen != self.listen:
            self.listen = listen
            self.heads = HeadReader(listen)  # what was vetted before no longer counts
