"""The gateway: traffic, latency, limits, breakers, cache."""

from __future__ import annotations

from panels import (
    BAD,
    BREAKERS,
    GOOD,
    OUTCOME_PANEL,
    PRESSURE,
    RATE,
    STEP,
    WARN,
    Panel,
    Query,
    quantile,
    stat,
)

P99_BY_ROUTE = quantile(0.99, "tidegate_request_duration_seconds", "route", '{route=~"$route"}')

GATEWAY = (
    stat("Requests", f"sum(rate(tidegate_requests_total[{RATE}]))", "All that is answered.", unit="reqps"),
    stat(
        "Refused",
        f'sum(rate(tidegate_requests_total{{outcome=~"limited|shed|degraded|broken|failed|rejected"}}[{RATE}]))'
        f" / sum(rate(tidegate_requests_total[{RATE}])) or vector(0)",
        "The share that did not get the upstream's own answer.",
        unit="percentunit",
        steps=((None, GOOD), (0.05, WARN), (0.5, BAD)),
    ),
    stat(
        "p99",
        quantile(0.99, "tidegate_request_duration_seconds", ""),
        "Of a hundred requests, all but the slowest one are answered within this.",
        unit="s",
        steps=((None, GOOD), (0.5, WARN), (1, BAD)),
    ),
    STEP,
    BREAKERS,
    stat(
        "Limits shared",
        "min(tidegate_limit_store_up)",
        "Whether limits are counted together through Redis; else each worker counts its share.",
        steps=((None, BAD), (1, GOOD)),
        words={"0": ("alone", BAD), "1": ("yes", GOOD)},
    ),
    OUTCOME_PANEL,
    Panel(
        "Answers by status",
        (Query(f"sum by (code) (rate(tidegate_requests_total[{RATE}]))", "{{code}}"),),
        "499: the client left before its answer.",
        unit="reqps",
        width=12,
        stack=True,
    ),
    Panel(
        "Latency",
        tuple(
            Query(quantile(q, "tidegate_request_duration_seconds", ""), f"p{q * 100:g}")
            for q in (0.5, 0.9, 0.99)
        ),
        "From a request's header to the last byte of its answer, as the gateway saw it.",
        unit="s",
    ),
    Panel(
        "Slowest routes, p99",
        (
            Query(
                f"topk(10, {P99_BY_ROUTE})",
                "{{route}}",
            ),
        ),
        "Choose routes above.",
        unit="s",
    ),
    Panel(
        "Upstream latency",
        tuple(
            Query(
                quantile(q, "tidegate_upstream_duration_seconds", "upstream"),
                f"{{{{upstream}}}} p{q * 100:g}",
            )
            for q in (0.5, 0.99)
        ),
        "Until an upstream's header. What is above it in Latency is the gateway's own, its queue included.",
        unit="s",
    ),
    Panel(
        "Concurrency",
        (
            Query("sum by (upstream) (tidegate_concurrency_limit)", "{{upstream}} limit"),
            Query("sum by (upstream) (tidegate_in_flight)", "{{upstream}} in flight"),
        ),
        "The adaptive limit finds itself; in flight close below it for long means the upstream is full.",
    ),
    PRESSURE,
    Panel(
        "Waiting",
        (
            Query("max by (upstream) (tidegate_queue_delay_seconds)", "{{upstream}} queue"),
            Query("max(tidegate_loop_lag_seconds)", "event loop"),
        ),
        "The queue for a slot, and the longest turn of a worker's event loop: the gateway's own slowness.",
        unit="s",
    ),
    Panel(
        "Limit checks",
        (
            Query(
                f"sum by (limit, decision) (rate(tidegate_limit_checks_total[{RATE}]))",
                "{{limit}} {{decision}}",
            ),
        ),
        "fallback: judged by a worker alone since Redis was away; shadow: would have been denied.",
        unit="reqps",
    ),
    Panel(
        "Denied share",
        (
            Query(
                "limit:tidegate_limit_checks:denied_ratio1m or on (limit) 0 * sum by (limit) "
                "(tidegate_limit_checks_total)",
                "{{limit}}",
            ),
        ),
        "Which limit bites.",
        unit="percentunit",
        top=1,
    ),
    Panel(
        "Busiest routes",
        (Query('topk(10, route:tidegate_requests:rate1m{route=~"$route"})', "{{route}}"),),
        "Requests a second of each route.",
        unit="reqps",
    ),
    Panel(
        "Features",
        (Query("min by (feature) (tidegate_feature_on)", "{{feature}}"),),
        "When each was served, and when its fallback was.",
        kind="state-timeline",
        width=12,
        words={"0": ("off", WARN), "1": ("on", GOOD)},
    ),
    Panel(
        "Breakers",
        (
            Query(
                'max by (upstream) (tidegate_breaker_state{state="open"} * 2) + on (upstream) '
                'max by (upstream) (tidegate_breaker_state{state="half-open"})',
                "{{upstream}}",
            ),
        ),
        "Closed is well, open is left alone, half-open is being tried.",
        kind="state-timeline",
        width=12,
        words={"0": ("closed", GOOD), "1": ("half-open", WARN), "2": ("open", BAD)},
    ),
    Panel(
        "Cache",
        (Query(f"sum by (result) (rate(tidegate_cache_requests_total[{RATE}]))", "{{result}}"),),
        "On routes with a cache. collapsed: answered together with somebody else's question.",
        unit="reqps",
        stack=True,
    ),
    Panel(
        "Cache size",
        (Query("sum(tidegate_cache_bytes)", "bytes"),),
        "Of all workers; cache.max_bytes is each one's end.",
        unit="bytes",
    ),
    Panel(
        "House",
        (
            Query("max(tidegate_workers)", "workers"),
            Query("increase(tidegate_worker_restarts_total[1h])", "restarts in an hour"),
            Query(
                "sum by (result) (increase(tidegate_config_reloads_total[1h]))",
                "config {{result}} in an hour",
            ),
            Query("increase(tidegate_access_log_dropped_total[1h])", "log lines lost in an hour"),
            Query("max(tidegate_shut_offs)", "shut off by upstreams"),
        ),
        "What should be boring.",
    ),
)
