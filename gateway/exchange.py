"""One request and its answer on their way through the gate, and the shape of every policy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Header = Sequence[tuple[bytes, bytes]]  # names in lower case, order and repetitions kept
Headers = list[tuple[bytes, bytes]]  # one that may still be changed by who has it
Receive = Callable[[], Awaitable[dict[str, Any]]]  # an ASGI receive channel
Clock = Callable[[], float]  # seconds; monotonic unless said otherwise


class ClientGone(Exception):  # noqa: N818 - no error, an event
    """The client closed its connection; nobody waits for an answer."""


class Exchange:
    """One request, what the gate learned about it, and what must happen at its end.

    Attributes:
        method: as received, upper case.
        target: path and query exactly as received; forwarded unchanged.
        path: the normalised path that policies match on.
        headers: as received, names in lower case; while the cache asks for others too, as it asks.
        received: as received, in that time; None else.
        scheme: "http" or "https", as the client used it (through trusted proxies).
        host: the Host field as received.
        content_length: announced body length in bytes; None when chunked or absent.
        has_body: whether a body follows.
        address: the client's address, as text; IPv6 in full.
        user: the verified user id, or None for the anonymous.
        tier: what the user's token says of the user's tier, or None.
        route: the matched route's pattern, for labels; params are its path parameters.
        request_id: 32 hex digits of ours.
        whole: the body, when it came in one piece with the header, or was read ahead; its begin while there
            is a `receive`.
        receive: brings the rest of the body; None when nothing more comes.
        started: when the request arrived, on the gateway's clock, seconds.
        degraded: names of features that are off, joined by commas, for the upstream.
        reply_headers: fields that policies add to whatever is answered.
        outcome: the label under which the request is counted.
        upstream_seconds: time from the end of the request to the upstream's header, or None when it was not
            asked.
        upstream: the name of the upstream that the route asks, for labels.
        forwarded_for: the vetted chain to send as X-Forwarded-For; the peer alone until it is vetted.
        broke_off: the upstream broke off in the middle of its body.
        span: the id of the span that records it, 0 when none does.
    """

    __slots__ = (
        "_deferred",
        "address",
        "body_seen",
        "broke_off",
        "content_length",
        "degraded",
        "forwarded_for",
        "has_body",
        "headers",
        "host",
        "max_body",
        "method",
        "outcome",
        "params",
        "path",
        "receive",
        "received",
        "reply_headers",
        "request_id",
        "route",
        "scheme",
        "span",
        "started",
        "target",
        "tier",
        "upstream",
        "upstream_seconds",
        "user",
        "whole",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        path: str,
        headers: Header,
        host: bytes,
        address: str,
        receive: Receive | None,
        started: float,
        request_id: bytes = b"",
        whole: bytes | None = None,
        *,
        scheme: str = "http",
        content_length: int | None = None,
        has_body: bool = False,
        max_body: int = 1 << 20,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.headers = headers
        self.received: Header | None = None
        self.host = host
        self.scheme = scheme
        self.address = address
        self.user: str | None = None
        self.tier: str | None = None
        self.route = ""
        self.params: dict[str, str] = {}
        self.content_length = content_length
        self.has_body = has_body
        self.max_body = max_body
        self.whole = whole
        self.body_seen = 0 if whole is None else len(whole)  # bytes of the request body read so far
        self.request_id = request_id
        self.started = started
        self.degraded = ""
        self.forwarded_for = address.encode("ascii", "replace")
        self.broke_off = False
        self.span = 0
        self.reply_headers: Headers = []
        self.outcome = "proxied"
        self.upstream = ""
        self.upstream_seconds: float | None = None
        self.receive = receive
        self._deferred: list[Callable[[], None]] = []

    @classmethod
    def begin(cls, scope: Mapping[str, Any], receive: Receive | None, request_id: bytes = b"") -> Exchange:
        """One that came as an ASGI scope and just now; `guard.inspect` vets it and fills in what it finds."""
        client = scope["client"]
        return cls(
            method=scope["method"],
            target=b"",
            path="",
            headers=scope["headers"],
            host=b"",
            address=client[0] if client else "",
            receive=receive,
            started=time.perf_counter(),
            scheme=scope.get("scheme", "http"),
            request_id=request_id,
        )

    def defer(self, callback: Callable[[], None]) -> None:
        """Call back once, after the last body byte, an error or a disconnect; last in, first out."""
        self._deferred.append(callback)

    @property
    def deferred(self) -> int:
        """How many are to be called back."""
        return len(self._deferred)

    def finish(self, since: int = 0) -> None:
        """Run what was deferred, the first `since` apart. Safe to call again."""
        deferred = self._deferred
        while len(deferred) > since:
            deferred.pop()()


class Reply:
    """An answer: complete in `body`, or flowing from `stream`.

    A stream that raises aborts the client's connection: a cut body must never look whole.
    Whoever drops a Reply unread must call `aclose`. Who awaits one has it at once, so that a handler which
    need not wait may return it as it is.
    """

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(
        self, status: int, headers: Header, body: bytes = b"", stream: AsyncIterator[bytes] | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream

    def __await__(self) -> Generator[Any, None, Reply]:
        """Itself, at once."""
        yield from ()
        return self

    async def aclose(self) -> None:
        """Give back what the stream holds."""
        close = getattr(self.stream, "aclose", None)
        if close is not None:
            await close()


Handler = Callable[[Exchange], Awaitable[Reply]]


class Policy(Protocol):
    """A step of the pipeline: answer, refuse by raising a GatewayError, or proceed."""

    def __call__(self, exchange: Exchange, proceed: Handler) -> Awaitable[Reply]:
        """Handle one exchange."""
        ...


def compose(*policies: Policy | None, then: Handler) -> Handler:
    """Chain policies in the order given, ending in `then`; None stands for one not needed."""
    handler = then
    for policy in reversed(policies):
        if policy is not None:
            handler = _step(policy.__call__, handler)
    return handler


def _step(handle: Callable[[Exchange, Handler], Awaitable[Reply]], proceed: Handler) -> Handler:
    # A closure over the bound method: functools.partial and calling an object cost half a policy each.
    return lambda exchange: handle(exchange, proceed)


# ---- what policies and stores say to each other ---------------------------------------------

ALGORITHMS = ("sliding-window", "fixed-window", "token-bucket")  # numbered as in take.lua


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What a limit asks of everyone it counts; made when the configuration is read.

    Attributes:
        limit: the limit's name in the config.
        capacity: tokens admitted per window.
        window: seconds.
        algorithm: "sliding-window", "fixed-window" or "token-bucket".
        on_store_failure: "local", "allow" or "refuse".
        shadow: count and report, never refuse.
        cost: tokens that one request takes, capacity at most.
        microseconds: the window in these.
        kind: the algorithm's place in ALGORITHMS.
        counter: what the names of its counters begin with; a state is only read by the algorithm that
            wrote it, and outlives a change of capacity.
    """

    limit: str
    capacity: int
    window: float
    algorithm: str = "sliding-window"
    on_store_failure: str = "local"
    shadow: bool = False
    cost: int = 1
    microseconds: int = field(init=False)
    kind: int = field(init=False)
    counter: str = field(init=False)

    def __post_init__(self) -> None:
        microseconds = round(self.window * 1e6)
        kind = ALGORITHMS.index(self.algorithm)
        object.__setattr__(self, "microseconds", microseconds)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "counter", f"{self.limit}:{kind}:{microseconds}:")


# These are made with every request, by the handful: plain tuples cost a quarter of objects.

# One limit that a request is to be charged against, and whom it counts, e.g. "u:42"; "" for a global limit.
Hit = tuple[Terms, str]

# How one limit judged a request:
# - whether this limit had room;
# - tokens left in it now, never negative;
# - tokens it has when whole; less than its capacity where only a share of it is judged;
# - microseconds until the quota is whole again, never negative;
# - microseconds until the request's tokens may be had; 0 when it had room;
# - whether that was judged without the shared store.
Charge = tuple[bool, int, int, int, int, bool]

# One for each Hit, in order; nothing was charged unless all that count allow. None: not asked, since
# another limit of the request is known to be full.
Verdict = Sequence[Charge | None]
