"""The night of the sale: one screen that says whether shoppers are well, and what gives way next."""

from __future__ import annotations

from panels import (
    BAD,
    BREAKERS,
    BY_OUTCOME,
    FIRING,
    GOOD,
    OUTCOME_PANEL,
    OUTCOMES,
    PRESSURE,
    RATE,
    STEP,
    WARN,
    Panel,
    Query,
    quantile,
    stat,
)

SALE_NIGHT = (
    stat(
        "Paid and delivered",
        f'sum(rate(shop_orders_total{{state="delivered"}}[{RATE}])) * 60',
        "Orders a minute whose buyer has the key.",
        unit="opm",
    ),
    stat(
        "Orders failed",
        "orders:failed_ratio:rate5m",
        "Requests to buy answered 5xx, of the last five minutes. The objective is 0.1 %.",
        unit="percentunit",
        steps=((None, GOOD), (0.001, WARN), (0.0144, BAD)),
    ),
    stat(
        "Buying, p99",
        quantile(0.99, "tidegate_request_duration_seconds", "", '{route="/api/orders"}'),
        "Of a hundred requests to buy, all but the slowest one are answered within this.",
        unit="s",
        steps=((None, GOOD), (0.5, WARN), (1, BAD)),
    ),
    STEP,
    BREAKERS,
    FIRING,
    Panel(
        "Demand and what became of it",
        (Query(BY_OUTCOME, "{{outcome}}"),),
        OUTCOME_PANEL.says,
        unit="reqps",
        width=12,
        stack=True,
        colours=OUTCOMES,
    ),
    Panel(
        "Requests to buy, by status",
        (Query(f'sum by (code) (rate(tidegate_requests_total{{route="/api/orders"}}[{RATE}]))', "{{code}}"),),
        "202 reserved, 410 sold out, 409 over the buyer's cap, 429 too fast, 5xx trouble.",
        unit="reqps",
        width=12,
        stack=True,
        colours={"202": "green", "410": "blue", "409": "purple", "429": "yellow", "502": "red", "503": "red"},
    ),
    Panel(
        "Orders a minute",
        (Query(f"sum by (state) (rate(shop_orders_total[{RATE}])) * 60", "{{state}}"),),
        "Lines that part: reserved above pending, the queue; pending above delivered, buyers who don't pay.",
        unit="opm",
    ),
    Panel(
        "Stock",
        (Query('max by (sku) (shop_stock{sku=~"$sku",state="free"})', "{{sku}}"),),
        "Free in Redis: what can still be ordered. Choose products above.",
    ),
    Panel(
        "How fast the month's budget burns",
        (
            Query("orders:failed_ratio:rate5m / 0.001", "5 minutes"),
            Query("orders:failed_ratio:rate1h / 0.001", "1 hour"),
            Query("orders:failed_ratio:rate6h / 0.001", "6 hours"),
        ),
        "1 uses it up in a month, 14.4 in two days (a page), 720 in an hour.",
        unit="none",
    ),
    Panel(
        "Latency of buying",
        tuple(
            Query(
                quantile(q, "tidegate_request_duration_seconds", "", '{route="/api/orders"}'), f"p{q * 100:g}"
            )
            for q in (0.5, 0.9, 0.99)
        ),
        "POST /api/orders, as the gateway saw it.",
        unit="s",
    ),
    PRESSURE,
    Panel(
        "What could give way next",
        (
            Query("max by (role) (role:shop_db_pool_connections:used_ratio)", "{{role}} database pool"),
            Query(
                "sum by (upstream) (tidegate_in_flight) / sum by (upstream) (tidegate_concurrency_limit)",
                "{{upstream}} slots",
            ),
            Query("max(shop_stream_lag_seconds) / 30", "stream lag, of 30 s"),
        ),
        "Each as a share of where it would alarm.",
        unit="percentunit",
    ),
    Panel(
        "Alerts",
        (
            Query(
                'sum by (alertname, severity) (ALERTS{alertstate="firing"})', "{{alertname}} ({{severity}})"
            ),
        ),
        "When each fired; docs/observe.md says what to do.",
        kind="state-timeline",
        width=24,
        height=6,
        words={"1": ("firing", BAD)},
    ),
)
