"""Which requests are recorded, what the upstream hears of it, and that it costs nothing when off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway import config
from gateway.errors import Overloaded
from gateway.exchange import Exchange, Reply
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.policies.trace import Trace
from gateway.settings import Tracing
from gateway.tracing import RequestTracer
from gateway.upstream.forward import request_head
from tests.gateway.upstream.scripted import make_exchange

NOWHERE = "http://127.0.0.1:1"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENTS = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
FILE = b"upstreams: {a: {servers: ['http://127.0.0.1:1']}}\nroutes: [{match: /**, upstream: a}]\n"


@pytest.fixture
def tracer() -> Iterator[RequestTracer]:
    """Records one of two requests: those for which 0.4 is drawn."""
    draws = iter([0.4, 0.6] * 10)
    tracer = RequestTracer(Tracing(endpoint=NOWHERE, sample=0.5), lambda: next(draws))
    yield tracer
    tracer.close()


def upstream_hears(exchange: Exchange) -> dict[str, str]:
    lines = request_head(exchange, 1.0).decode().split("\r\n")
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def test_a_share_is_recorded_and_the_upstream_told(tracer: RequestTracer) -> None:
    """What is drawn is flagged with our span's id as the parent; the rest goes on unflagged."""
    first, second = make_exchange(), make_exchange()
    span, none = tracer.begin(first), tracer.begin(second)

    assert span is not None
    assert none is None
    told = upstream_hears(first)["traceparent"]
    assert told == f"00-{first.request_id.decode()}-{first.span:016x}-01"
    assert upstream_hears(second)["traceparent"].endswith("-00")
    span.end(200)


def test_a_clients_wish_is_not_heard_but_its_trace_joined(tracer: RequestTracer) -> None:
    """Anybody could fill the collector else."""
    recorded, not_drawn = make_exchange(headers=[CLIENTS]), make_exchange(headers=[CLIENTS])
    span = tracer.begin(recorded)
    tracer.begin(not_drawn)

    assert upstream_hears(recorded)["traceparent"] == f"00-{TRACE}-{recorded.span:016x}-01"
    heard = upstream_hears(not_drawn)["traceparent"]
    assert (heard[:36], heard[-3:]) == (f"00-{TRACE}-", "-00")
    assert span is not None
    span.end(200)


def test_tracestate_goes_only_with_a_good_traceparent(tracer: RequestTracer) -> None:
    """Beside a forged one it would mean nothing."""
    good = make_exchange(headers=[CLIENTS, (b"tracestate", b"a=b")])
    forged = make_exchange(headers=[(b"traceparent", b"nonsense"), (b"tracestate", b"a=b")])
    for exchange in (good, forged):
        span = tracer.begin(exchange)
        if span is not None:
            span.end(200)

    assert upstream_hears(good)["tracestate"] == "a=b"
    assert "tracestate" not in upstream_hears(forged)
    assert upstream_hears(forged)["traceparent"].startswith(f"00-{forged.request_id.decode()}-")


async def test_a_span_ends_after_the_last_byte_with_what_became_of_it() -> None:
    """An answer's status, a refusal's, and none for a client that left."""
    ended: list[int] = []

    class Spy:
        def begin(self, _: Exchange) -> Spy:
            return self

        def end(self, status: int) -> None:
            ended.append(status)

    async def answers(_: Exchange) -> Reply:
        return Reply(204, [])

    async def refuses(_: Exchange) -> Reply:
        raise Overloaded("no slot", retry_after=1)

    async def breaks(_: Exchange) -> Reply:
        raise ConnectionResetError

    for handler, error in ((answers, None), (refuses, Overloaded), (breaks, ConnectionResetError)):
        exchange = make_exchange()
        if error is None:
            await Trace(Spy())(exchange, handler)
        else:
            with pytest.raises(error):
                await Trace(Spy())(exchange, handler)
        before = len(ended)
        exchange.finish()
        exchange.finish()
        assert len(ended) == before + 1

    assert ended == [204, 503, 0]


async def test_off_it_stands_in_no_chain() -> None:
    """Without the block, and with its endpoint left empty, there is no policy and no tracer."""
    for more in (b"", b"tracing: {endpoint: '${OTEL_EXPORTER_OTLP_ENDPOINT:-}'}\n"):
        parts = Parts(1, WorkerMetrics(), lambda _: None, lambda _: None)
        await parts.adopt(config.load(FILE + more, "test.yaml", {}))
        assert parts.trace() is None
        await parts.aclose()


async def test_it_is_switched_on_and_off_by_a_reload() -> None:
    """A changed block makes a new tracer, a removed one none."""
    parts = Parts(1, WorkerMetrics(), lambda _: None, lambda _: None)
    on = config.load(FILE + f"tracing: {{endpoint: '{NOWHERE}'}}\n".encode(), "test.yaml", {})
    await parts.adopt(config.load(FILE, "test.yaml", {}))
    await parts.adopt(on)
    assert parts.trace() is not None
    await parts.adopt(config.load(FILE, "test.yaml", {}))
    assert parts.trace() is None
    await parts.aclose()


@pytest.mark.parametrize("module", ["gateway.worker", "gateway.master", "shop_backend.app"])
def test_off_no_exporter_is_even_imported(module: str) -> None:
    """Nobody pays for it who did not ask; where the SDK is installed, redis-py looks for it by itself."""
    never = "('opentelemetry.exporter', 'gateway.tracing')"
    probe = f"import sys, {module}; sys.exit(any(name.startswith({never}) for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
