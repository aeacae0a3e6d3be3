"""Give up the inessential: a feature that is off is answered by its fallback."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from gateway import config
from gateway.config import Priority
from gateway.errors import NO_STORE, FeatureOff, Overloaded
from gateway.exchange import Exchange, Handler, Headers, Reply

FEATURE_RETRY_AFTER: Final = 30.0  # seconds; a feature comes back by the ladder's slow descent or by hand
CRITICAL_RETRY_AFTER: Final = 10.0  # seconds; the same, but the shopper has nothing else to do meanwhile
MAX_FILE: Final = 1 << 20  # bytes; a fallback is held in memory by every worker
BODILESS: Final = frozenset({204, 304})  # statuses that never have a body (RFC 9110, 6.4.1)


class Switches(Protocol):
    """What is on now; read from memory, never waits."""

    def is_on(self, feature: str) -> bool:
        """Whether the feature is served."""
        ...

    def only_critical(self) -> bool:
        """Whether the ladder stands where only critical requests pass."""
        ...


# What is answered in place of the upstream; None when there is nothing for this request.
Fallback = Callable[[Exchange], Reply | None]


def nothing(_: Exchange) -> None:
    """No fallback."""


@dataclass(frozen=True, slots=True)
class Degrade:
    """Answer for a feature that is off, and for all that is not critical in an emergency.

    Attributes:
        feature: the route's feature, or None.
        priority: the route's.
        switches: what is on.
        fallback: the feature's answer while it is off.
        kept: what the route's cache keeps and would give in place of a failure. In an emergency it costs
            nobody anything.
    """

    feature: str | None
    priority: Priority
    switches: Switches
    fallback: Fallback = nothing
    kept: Fallback = nothing

    def __call__(self, exchange: Exchange, proceed: Handler) -> Awaitable[Reply]:
        """Handle one exchange.

        Raises:
            FeatureOff: the feature is off and has no fallback.
            Overloaded: only critical requests pass, this is none, and there is no fallback.
        """
        if self.feature is not None and not self.switches.is_on(self.feature):
            return self._without(exchange)
        if self.priority != "critical" and self.switches.only_critical():
            return self._in_emergency(exchange)
        return proceed(exchange)

    async def _without(self, exchange: Exchange) -> Reply:
        reply = self.fallback(exchange)
        if reply is None:
            raise FeatureOff(
                f"{self.feature} is switched off for now; try again later", retry_after=FEATURE_RETRY_AFTER
            )
        return self._degraded(exchange, reply)

    async def _in_emergency(self, exchange: Exchange) -> Reply:
        reply = self.kept(exchange)
        if reply is not None:
            return reply
        reply = self.fallback(exchange)
        if reply is None:
            raise Overloaded(
                "only the most important requests are served for now; try again shortly",
                retry_after=CRITICAL_RETRY_AFTER,
            )
        return self._degraded(exchange, reply)

    def _degraded(self, exchange: Exchange, reply: Reply) -> Reply:
        exchange.outcome = "degraded"
        if self.feature is not None:
            exchange.reply_headers.append((b"tidegate-degraded", self.feature.encode()))
        return reply


Last = Callable[[Exchange, float], Reply | None]  # what a cache keeps, old for so many seconds at most


def build_fallback(settings: config.Fallback, last: Last | None = None) -> Fallback:
    """Prepare a fallback once; each call gives a Reply of its own.

    Args:
        settings: what is answered.
        last: the route's cache, if it has one.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large to be held in memory.
    """
    words = _words(settings)
    if settings.stale is None or last is None:
        return words
    stale_for = settings.stale
    return lambda exchange: last(exchange, stale_for) or words(exchange)


def _words(settings: config.Fallback) -> Fallback:
    """The same for everyone."""
    if "json_" in settings.model_fields_set:
        body = json.dumps(settings.json_, ensure_ascii=False, separators=(",", ":")).encode()
        content_type: str | None = "application/json"
    elif settings.text is not None:
        body, content_type = settings.text.encode(), "text/plain; charset=utf-8"
    elif settings.file is not None:
        body, content_type = _read(settings.file), _type_of(settings.file)
    elif settings.empty:
        body, content_type = b"", None
    else:
        return nothing
    content_type = settings.content_type or content_type
    headers: Headers = [NO_STORE]  # else a browser or cache keeps it after the feature is back
    if settings.status in BODILESS:
        body = b""
    else:
        if content_type is not None:
            headers.append((b"content-type", content_type.encode()))
        headers.append((b"content-length", b"%d" % len(body)))
    status = settings.status

    def say(exchange: Exchange) -> Reply:
        # For HEAD the header as for GET, length included, and no body.
        return Reply(status, list(headers), b"" if exchange.method == "HEAD" else body)

    return say


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(MAX_FILE + 1)
    if len(body) > MAX_FILE:
        raise ValueError(f"fallback file {path} is larger than {MAX_FILE >> 20} MiB; use a smaller one")
    return body


def _type_of(path: Path) -> str:
    guess, _ = mimetypes.guess_type(path.name)
    if guess is None:
        return "application/octet-stream"
    return f"{guess}; charset=utf-8" if guess.startswith("text/") else guess
