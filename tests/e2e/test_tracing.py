"""One order, one trace: the gateway's span above the shop's, the worker's below, at a real collector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.running_stack import patient

ROOT = Path(__file__).resolve().parents[2]
Spans = list[tuple[str, Any]]  # the service's name, and a span


class Collector:
    """Takes spans by OTLP over HTTP and keeps them."""

    def __init__(self) -> None:
        self.spans: Spans = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        collector.spans += [(names["service.name"], span) for span in scope.spans]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, service: str, name: str, trace: str) -> list[Any]:
        return [s for who, s in self.spans if (who, s.name, s.trace_id.hex()) == (service, name, trace)]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture(scope="module")
def traced(collector: Collector, start_stack: Callable[..., Any], short_tmp: Path) -> Iterator[Any]:
    """A stack that records every request."""
    data = short_tmp / "traced"
    data.mkdir()
    config = patient((ROOT / "config/gateway.yaml").read_text()).replace("sample: 0.01", "sample: 1.0")
    (data / "gateway.yaml").write_text(config)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    stack = start_stack(data=data, env=env)
    yield stack
    stack.stop()


def order(stack: Any, **headers: str) -> httpx.Response:
    with httpx.Client(base_url=stack.url) as shopper:
        shopper.post("/api/session", json={})
        body = {"sku": "steam-50", "quantity": 1, "email": "ann@example.org"}
        answer = shopper.post("/api/orders", json=body, headers={"Idempotency-Key": "trace", **headers})
    assert answer.status_code == 202, answer.text
    return answer


def test_an_order_is_one_trace_from_the_gate_to_the_worker(
    traced: Any, collector: Collector, wait_until: Callable[..., Any]
) -> None:
    """Three spans, each the child of the one before; the trace's id is the X-Request-Id."""
    trace = order(traced).headers["x-request-id"]
    worker = wait_until(lambda: collector.of("tidegate-worker", "process orders", trace), what="the worker's")
    gateway = wait_until(
        lambda: collector.of("tidegate-gateway", "POST /api/orders", trace), what="the gateway's"
    )
    shop = wait_until(
        lambda: collector.of("tidegate-shop", "POST routes.place_or_list", trace), what="the shop's"
    )

    assert [len(spans) for spans in (gateway, shop, worker)] == [1, 1, 1]
    assert gateway[0].parent_span_id == b""
    assert shop[0].parent_span_id == gateway[0].span_id
    assert worker[0].parent_span_id == shop[0].span_id
    said = {a.key: a.value.string_value or a.value.int_value for a in gateway[0].attributes}
    assert said["http.response.status_code"] == 202
    assert said["tidegate.outcome"] == "proxied"
    assert gateway[0].end_time_unix_nano > shop[0].start_time_unix_nano


def test_a_clients_trace_goes_on(traced: Any, collector: Collector, wait_until: Callable[..., Any]) -> None:
    """The client's span is the parent of the gateway's."""
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    order(traced, traceparent=f"00-{trace}-{span}-01")
    gateway = wait_until(lambda: collector.of("tidegate-gateway", "POST /api/orders", trace), what="a span")

    assert gateway[0].parent_span_id.hex() == span


def test_refusals_and_payments_are_traced_too(
    traced: Any, collector: Collector, wait_until: Callable[..., Any]
) -> None:
    """A 429 has a span with its outcome; a paid order's callback has one in gateway, shop and worker."""
    with httpx.Client(base_url=traced.url) as shopper:
        shopper.post("/api/session", json={})
        answers = [shopper.post("/api/orders", json={}) for _ in range(7)]
        limited = next(answer for answer in answers if answer.status_code == 429)
        body = order(traced).json()
        where = f"/api/orders/{body['order_id']}?token={body['token']}"
        pay_url = wait_until(lambda: shopper.get(where).json().get("pay_url"), what="a pay link")
    httpx.post(f"{pay_url}/pay", json={"outcome": "success"}).raise_for_status()
    spans = wait_until(
        lambda: collector.of("tidegate-gateway", "POST /api/orders", limited.headers["x-request-id"]),
        what="the refusal's span",
    )
    paid = wait_until(
        lambda: [
            span
            for who, span in collector.spans
            if (who, span.name) == ("tidegate-worker", "process callbacks")
        ],
        what="the callback's span",
    )

    assert "limited" in {a.value.string_value for a in spans[0].attributes if a.key == "tidegate.outcome"}
    # Each process exports its own, when its batch is due.
    trace = paid[0].trace_id.hex()
    wait_until(
        lambda: collector.of("tidegate-gateway", "POST /callbacks/**", trace), what="the gateway's span of it"
    )


def test_spans_hold_no_secrets(traced: Any, collector: Collector, wait_until: Callable[..., Any]) -> None:
    """No query, path parameter, cookie, user or address: only patterns, codes and outcomes."""
    answer = order(traced)
    token = answer.json()["token"]
    with httpx.Client(base_url=traced.url) as http:
        asked = http.get(answer.json()["status_url"], params={"token": token})
    trace = asked.headers["x-request-id"]
    wait_until(lambda: collector.of("tidegate-gateway", "GET /api/orders/{id}", trace), what="a span")
    wait_until(lambda: collector.of("tidegate-shop", "GET routes.show", trace), what="the shop's")

    everything = "".join(str(span) for _, span in collector.spans)
    for secret in (token, answer.json()["order_id"], "ann@example.org", "session="):
        assert secret not in everything
