"""What the console stands on: traffic, percentiles, queues, servers, the busiest, the shop's own numbers."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.admin import panels as rooms
from gateway.admin.counters import MOST_COUNTERS, Counters
from gateway.admin.panels import Panels
from gateway.admin.shapes import Sample
from gateway.admin.traffic import REQUESTS, WINDOW, Window, latency, traffic
from gateway.busiest import Busiest
from gateway.config import Admin
from gateway.metrics import BUCKETS, WorkerMetrics
from gateway.totals import Totals
from tests.clock import Clock
from tests.waiting import PATIENCE

VIEWER = {"name": "vera", "role": "viewer", "token_sha256": hashlib.sha256(b"view").hexdigest()}


# ---- who is busiest ----------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcdefghij"), max_size=300), st.integers(1, 6), st.integers(1, 40))
def test_the_busiest_are_never_missed(seen: list[str], size: int, together: int) -> None:
    """A count is too large by its error at most; whoever has more than one in `size` is kept."""
    busiest = Busiest(size, together)
    for key in seen:
        busiest.see(key)

    top = {key: (count, error) for key, count, error in busiest.top(size)}
    assert len(busiest) <= size
    assert sum(count for count, _ in top.values()) == len(seen)
    for key, (count, error) in top.items():
        assert count - error <= seen.count(key) <= count
    assert {key for key in seen if seen.count(key) > len(seen) / size} <= top.keys()


@given(st.lists(st.one_of(st.sampled_from("abcdef"), st.none()), max_size=200), st.integers(1, 20))
@example([*"aabbccd", None], 1)  # of a count of 3 with an error of 2, no more than an error was left
def test_what_is_long_ago_weighs_less(steps: list[str | None], together: int) -> None:
    """Halved (None), counts stay positive and bounded by the truth, halved likewise."""
    busiest, true = Busiest(3, together), dict.fromkeys("abcdef", 0.0)
    for step in steps:
        if step is None:
            busiest.halve()
            true = {key: count / 2 for key, count in true.items()}
        else:
            busiest.see(step)
            true[step] += 1
    for key, count, error in busiest.top(3):
        assert count > error >= 0
        assert count - error <= true[key] + 2  # rounding, of count and of error


# ---- rates and percentiles ---------------------------------------------------------------------


@given(st.lists(st.floats(0, 12), min_size=1, max_size=300))
def test_percentiles_are_within_their_bucket(seconds: list[float]) -> None:
    """Interpolated: in the bucket that holds the true one, which is as well as a histogram can tell."""
    metrics = WorkerMetrics()
    for one in seconds:
        metrics.request("/", "GET", 200, "proxied", one)
    totals = Totals()
    totals.update(1, metrics.snapshot())
    cells = totals.read().histograms["tidegate_request_duration_seconds"]["/",]

    told = latency([cells])

    ordered = sorted(seconds)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        true = ordered[math.ceil(share * len(ordered)) - 1]
        low = max((bound for bound in (0.0, *BUCKETS) if bound < true), default=0.0)
        high = min((bound for bound in BUCKETS if bound >= true), default=BUCKETS[-1])
        assert told[name] is not None
        assert min(low, BUCKETS[-1]) * 1000 - 0.01 <= told[name] <= high * 1000 + 0.01
    assert told["p50"] <= told["p90"] <= told["p99"] <= BUCKETS[-1] * 1000
    assert told["mean"] == pytest.approx(sum(seconds) / len(seconds) * 1000, abs=0.01)


def test_rates_are_of_the_window() -> None:
    """What was before it does not count; a worker that died takes nothing back."""
    clock = Clock(100.0)
    window, totals, metrics = Window(clock), Totals(), WorkerMetrics()
    for _ in range(1000):
        metrics.request("/old", "GET", 200, "proxied", 0.01)
    for second in range(31):
        totals.update(1, metrics.snapshot())
        window.add(totals.read())
        if second == 20:
            totals.retire(1)
            metrics = WorkerMetrics()
        for _ in range(5):
            metrics.request("/new", "GET", 429, "limited", 0.002)
        clock.now += 1

    told = traffic(window, totals.read().counters[REQUESTS])

    assert WINDOW <= told["window_seconds"] <= WINDOW + 1
    assert told["per_second"]["limited"] == pytest.approx(5, abs=0.5)
    assert told["routes"][0]["route"] == "/new"
    old = next(route for route in told["routes"] if route["route"] == "/old")
    assert (old["per_second"], old["total"]) == ({"proxied": 0.0}, {"proxied": 1000.0})


def test_rates_are_by_what_became_of_it_and_of_the_newest_reading() -> None:
    """Summed over what stands between the first label and the last; each reading has its own."""
    clock = Clock(100.0)
    window, totals, metrics = Window(clock), Totals(), WorkerMetrics()
    assert window.rates(REQUESTS) == {}
    told = []
    for rounds in (0, 4, 8):
        for method in ("GET", "HEAD", "POST"):
            metrics.count(REQUESTS, "/a", method, "200", "proxied", by=rounds)
        metrics.count(REQUESTS, "/b", "GET", "429", "limited", by=rounds)
        totals.update(1, metrics.snapshot())
        window.add(totals.read())
        told.append(window.rates(REQUESTS))
        clock.now += 2
    assert told == [
        {"/a": {"proxied": 0.0}, "/b": {"limited": 0.0}},
        {"/a": {"proxied": 6.0}, "/b": {"limited": 2.0}},
        {"/a": {"proxied": 9.0}, "/b": {"limited": 3.0}},
    ]


@given(st.lists(st.floats(0, 2) | st.just(0.3), max_size=400))
def test_asking_again_and_again_keeps_no_more_readings(pauses: list[float]) -> None:
    """However often it is read, the window is as long as ever."""
    clock = Clock(100.0)
    window, reading = Window(clock), Totals().read()
    for pause in pauses:
        clock.now += pause
        window.add(reading)
        assert len(window) <= 4 * WINDOW + 3
    if sum(pauses) - (pauses[0] if pauses else 0) > WINDOW + 4:
        assert WINDOW - 4 <= window.seconds <= WINDOW + 4


# ---- of a running gateway ----------------------------------------------------------------------


async def test_the_busiest_of_a_limit_are_told_by_name_to_operators_only(start_gateway: Any) -> None:
    """Over all workers; a viewer sees a pseudonym, the same each time."""
    gateway = await start_gateway(
        admin={"port": 0, "tokens": [VIEWER]},
        listen={"port": 0, "workers": 2, "trusted_proxies": ["127.0.0.0/8"]},
        limits={"address": {"rate": "3/minute", "per": "address"}},
        routes=[{"match": "/**", "upstream": "shop", "limits": ["address"]}],
    )
    who = ["203.0.113.9"] * 20 + ["203.0.113.7"] * 6 + [f"198.51.100.{n}" for n in range(10)]
    random.Random(7).shuffle(who)
    await asyncio.gather(*(gateway.fresh(headers={"x-forwarded-for": one}) for one in who))

    busiest = (await gateway.admin("GET", "/api/limits/address")).json()["busiest"]
    seen = (await gateway.admin("GET", "/api/limits/address", token="view")).json()["busiest"]

    assert [one["key"] for one in busiest[:2]] == ["a:203.0.113.9", "a:203.0.113.7"]
    assert busiest[0]["count"] >= 17
    assert [one["count"] for one in seen] == [one["count"] for one in busiest]
    assert all(one["key"].startswith("#") for one in seen)
    again = (await gateway.admin("GET", "/api/status", token="view")).json()["limits"][0]["busiest"]
    assert [one["key"] for one in again] == [one["key"] for one in seen]


async def test_an_ejected_server_is_seen(start_gateway: Any, shop: Any, until: Any) -> None:
    """Which server, in how many workers, and for how long; what passes is told by route and outcome."""
    servers = [f"http://127.0.0.1:{shop.port}", "http://127.0.0.1:9"]
    gateway = await start_gateway(upstreams={"shop": {"servers": servers, "retries": {"budget": 1}}})

    async def ejected() -> Any:
        await asyncio.gather(*(gateway.fresh("/x") for _ in range(20)))
        status = (await gateway.admin("GET", "/api/status")).json()
        (upstream,) = status["upstreams"]
        # Rates and percentiles are of what came between two readings, so the first one has none.
        timed = any(one["latency_ms"]["p50"] is not None for one in status["traffic"]["routes"])
        ill = upstream["servers"][1]
        return status if timed and ill["ejected"] and ill["seconds_left"] > 0 else None

    status = await until(ejected)

    well = status["upstreams"][0]["servers"][0]
    assert (well["url"], well["well"], well["ejected"]) == (servers[0], 2, 0)
    assert set(status["upstreams"][0]["queue"]) == {"critical", "normal", "optional"}
    route = next(one for one in status["traffic"]["routes"] if one["route"] == "/**")
    assert route["total"]["proxied"] >= 20
    assert route["latency_ms"]["p99"] >= route["latency_ms"]["p50"] > 0
    assert status["traffic"]["per_second"]["proxied"] > 0
    assert len(status["workers"]["each"]) == status["workers"]["ready"] == 2


async def test_panels_show_what_stands_behind(start_gateway: Any, shop: Any, until: Any) -> None:
    """Chosen metrics of a page, by label, or summed over several; what it said stays when it is silent."""
    page = b'# TYPE shop_stock gauge\nshop_stock{sku="steam-50",state="free"} 7\nother 1\nshop_bad NaN\n'

    async def metrics(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)

    async def broken(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    shop.scripts["/metrics"] = metrics
    url = f"http://127.0.0.1:{shop.port}/metrics"
    panels = [
        {"title": "Stock", "url": url, "metrics": ["shop_stock", "shop_bad"]},
        {"title": "Away", "url": "http://127.0.0.1:9/metrics", "metrics": ["x"]},
        {"title": "Sum", "url": [url, f"{url}?twice", ""], "metrics": ["shop_stock"]},
        {"title": "Nowhere", "url": [""], "metrics": ["x"]},
    ]
    gateway = await start_gateway(admin={"port": 0, "panels": panels})

    async def shown() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = (await gateway.admin("GET", "/api/status")).json()["panels"]
        return told

    free = {"metric": "shop_stock", "labels": {"sku": "steam-50", "state": "free"}, "value": 7.0}
    wanted = [  # where no page is named is no panel
        ("Stock", [free], None),
        ("Away", [], "does not answer: ConnectError"),
        ("Sum", [{**free, "value": 14.0}], None),
    ]
    told: list[Any] = []

    async def fetched() -> bool:
        """All as they should be told; a busy machine may be late for some pages at first."""
        told[:] = [(one["title"], one["samples"], one["error"]) for one in await shown()]
        return told == wanted

    await until(fetched, lambda: told)
    shop.scripts["/metrics"] = broken

    async def failed() -> bool:
        return (await shown())[0]["error"] == "answered 500"

    await until(failed)
    assert (await shown())[0]["samples"] == [free]


@given(st.lists(st.sampled_from(["a", "b", "start"]), max_size=30))
def test_a_panels_counters_survive_their_process(steps: list[str]) -> None:
    """What was counted before a restart stays, of what is not told any more too; gauges are as told."""
    counters, now, ever = Counters(), dict[str, float](), Counter[str]()
    for step in steps:
        if step == "start":
            now.clear()
        else:
            now[step] = now.get(step, 0.0) + 1
            ever[step] += 1
        told = {"done_total": [sample("done_total", label, now[label]) for label in now]}
        told["open"] = [sample("open", "a", len(now))]
        shown = counters.carried(told, {"done_total", "open"})
        counted = {one["labels"]["of"]: one["value"] for one in shown.get("done_total", [])}
        assert counted == ever
        assert shown["open"] == told["open"]


def test_counters_that_nobody_asks_for_are_forgotten() -> None:
    """A metric that was left out of the panel for a while counts anew; labels without end fill no memory."""
    counters = Counters()
    for value in (5.0, 7.0):
        (one,) = counters.carried({"x_total": [sample("x_total", "a", value)]}, {"x_total"})["x_total"]
        assert one["value"] == value
        assert counters.carried({}, set()) == {}
    for number in range(5000):
        shown = counters.carried({"x_total": [sample("x_total", str(number), 1)]}, {"x_total"})
        assert len(shown["x_total"]) <= MOST_COUNTERS


def sample(metric: str, of: str, value: float) -> Sample:
    return {"metric": metric, "labels": {"of": of}, "value": value}


async def test_a_page_that_breaks_the_parser_hides_no_other(
    shop: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the other panels nor the status: it is told of at its own place, and logged."""
    monkeypatch.setattr(rooms, "TIMEOUT", PATIENCE)

    async def metrics(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        page = b"x 1\n" if seen.target == "/good" else b"x 1" + b"0" * 400 + b"\n"  # more than a float holds
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)

    shop.scripts |= {"/good": metrics, "/bad": metrics}
    urls = [f"http://127.0.0.1:{shop.port}/{page}" for page in ("bad", "good")]
    urls.append(f"http://{'x' * 64}.example/")  # longer than any name
    settings = Admin.model_validate({"panels": [{"title": u, "url": u, "metrics": ["x"]} for u in urls]})
    panels = Panels(lambda: settings)

    await panels.fresh()

    bad, good, nowhere = panels.shown()
    assert (bad["samples"], bad["error"]) == ([], "no page of metrics: OverflowError")
    assert ([sample["value"] for sample in good["samples"]], good["error"]) == ([1], None)
    assert nowhere["error"] is not None
    assert f"the panel of {urls[0]} can't be read" in caplog.text


async def test_a_slow_panel_keeps_nobody_waiting(start_gateway: Any, shop: Any, until: Any) -> None:
    """A page that never comes is given up; the status is there all the same."""
    asked = asyncio.Event()

    async def never(*_: Any) -> None:
        asked.set()
        await asyncio.get_running_loop().create_future()

    shop.scripts["/metrics"] = never
    url = f"http://127.0.0.1:{shop.port}/metrics"
    gateway = await start_gateway(admin={"port": 0, "panels": [{"title": "x", "url": url, "metrics": ["x"]}]})

    async def told() -> Any:
        """The status; a busy machine may have been too late to ask for the page before."""
        status = (await gateway.admin("GET", "/api/status")).json()
        return status if asked.is_set() else None

    assert (await until(told))["panels"][0]["error"].startswith("no answer within")
