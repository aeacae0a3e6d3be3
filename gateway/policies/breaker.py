"""Leave a sick upstream alone, and find out carefully when it is well again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from gateway.errors import UpstreamError, UpstreamUnavailable
from gateway.exchange import Exchange, Handler, Reply
from gateway.policies.circuit import REFUSED, Circuit


class _Watched:
    """A reply's stream that remembers how it ended."""

    __slots__ = ("_next", "_stream", "broke", "ended")

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._next = stream.__anext__
        self.ended = False  # came to its last byte
        self.broke = False  # by the upstream's fault

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._next()
        except StopAsyncIteration:
            self.ended = True
            raise
        except UpstreamError:
            self.broke = True
            raise

    async def aclose(self) -> None:
        """Give back what the stream holds."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


@dataclass(frozen=True, slots=True)
class Breaker:
    """Refuse at once while the upstream is sick; else let it answer and note how it did.

    Attributes:
        circuit: the upstream's, shared by all its routes in this worker.
        fallback: what to answer in place of a refusal; None when there is nothing for this request.
        feature: the route's feature, named in `Tidegate-Degraded` when its fallback stands in.
    """

    circuit: Circuit
    fallback: Callable[[Exchange], Reply | None] = lambda _: None
    feature: str | None = None

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange.

        Raises:
            UpstreamUnavailable: the circuit is open and there is no fallback.
        """
        circuit = self.circuit
        ticket = circuit.enter()
        if ticket == REFUSED:
            return self._refuse(exchange)
        try:
            reply = await proceed(exchange)
        except UpstreamError:
            circuit.record(ticket, failed=True, slow=self._slow(exchange))
            raise
        except BaseException:
            # The client left, or we refused ourselves, or we are at fault: says nothing of the upstream.
            circuit.release(ticket)
            raise
        if reply.status in circuit.settings.failures:
            circuit.record(ticket, failed=True, slow=self._slow(exchange))
        elif reply.stream is None:
            circuit.record(ticket, failed=False, slow=self._slow(exchange))
        else:
            self._watch(exchange, reply, reply.stream, ticket)
        return reply

    def _slow(self, exchange: Exchange) -> bool:
        seconds = exchange.upstream_seconds
        return seconds is not None and seconds > self.circuit.settings.slow_after

    def _refuse(self, exchange: Exchange) -> Reply:
        reply = self.fallback(exchange)
        if reply is None:
            why = (
                "is shut off for now" if self.circuit.forced else "is left alone until it answers well again"
            )
            raise UpstreamUnavailable(
                f"{self.circuit.name} {why}; try again later",
                retry_after=self.circuit.retry_after(),
            )
        exchange.outcome = "broken"
        if self.feature is not None:
            exchange.reply_headers.append((b"tidegate-degraded", self.feature.encode()))
        return reply

    def _watch(self, exchange: Exchange, reply: Reply, stream: AsyncIterator[bytes], ticket: int) -> None:
        circuit, slow, watched = self.circuit, self._slow(exchange), _Watched(stream)
        reply.stream = watched
        circuit.answered(ticket, slow=slow)

        def judge() -> None:
            if exchange.broke_off or watched.broke:
                circuit.record(ticket, failed=True, slow=slow)
            elif watched.ended:
                circuit.record(ticket, failed=False, slow=slow)
            else:  # the client left in the middle
                circuit.release(ticket)

        exchange.defer(judge)
