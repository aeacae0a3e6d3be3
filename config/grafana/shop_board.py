"""The shop: orders, stock, streams, database."""

from __future__ import annotations

from panels import BAD, GOOD, RATE, WARN, Panel, Query, stat

SHOP = (
    stat(
        "Delivered",
        f'sum(rate(shop_orders_total{{state="delivered"}}[{RATE}])) * 60',
        "Orders a minute whose buyer has the key.",
        unit="opm",
    ),
    stat(
        "Servers",
        "min(shop_server_up)",
        "PostgreSQL and both Redis, as the shop finds them at each scrape.",
        steps=((None, BAD), (1, GOOD)),
        words={"0": ("one is down", BAD), "1": ("all answer", GOOD)},
    ),
    stat(
        "Oldest queued",
        "max(shop_stream_lag_seconds)",
        "How long the oldest entry of a stream has waited for a worker.",
        unit="s",
        steps=((None, GOOD), (5, WARN), (30, BAD)),
    ),
    stat(
        "Database pool",
        "max(role:shop_db_pool_connections:used_ratio)",
        "Connections in use of those there may be, in the fullest process.",
        unit="percentunit",
        steps=((None, GOOD), (0.65, WARN), (0.8, BAD)),
    ),
    stat(
        "Dead letters",
        "sum(increase(shop_dead_letters_total[$__range]))",
        "Entries given up in the time shown; the table dead_letters says why.",
        steps=((None, GOOD), (1, BAD)),
    ),
    stat("Mails to send", "max(shop_outbox_pending)", "In the outbox.", steps=((None, GOOD), (100, WARN))),
    Panel(
        "Orders a minute, by the state they came into",
        (Query(f"sum by (state) (rate(shop_orders_total[{RATE}])) * 60", "{{state}}"),),
        "reserved by the stock script, pending once in SQL, then paid and delivered in one transaction.",
        unit="opm",
        width=12,
    ),
    Panel(
        "Callbacks",
        (Query(f"sum by (result) (rate(shop_payment_callbacks_total[{RATE}]))", "{{result}}"),),
        "queued when acknowledged to the provider; the other words say what the worker made of them.",
        unit="reqps",
        width=12,
    ),
    Panel(
        "Stock",
        (Query('max by (sku) (shop_stock{sku=~"$sku",state="free"})', "{{sku}}"),),
        "Free in Redis: what can still be ordered. Choose products above.",
        width=12,
    ),
    Panel(
        "Held by unpaid orders",
        (Query('max by (sku) (shop_stock{sku=~"$sku",state="held"})', "{{sku}}"),),
        "Back in the stock when it expires.",
        width=12,
    ),
    Panel(
        "Streams, entries",
        (Query("max by (stream) (shop_stream_depth)", "{{stream}}"),),
        "Accepted and not yet worked off.",
    ),
    Panel(
        "Streams, age of the oldest",
        (Query("max by (stream) (shop_stream_lag_seconds)", "{{stream}}"),),
        "A line that climbs like a clock: nobody works.",
        unit="s",
    ),
    Panel(
        "Database connections",
        (
            Query("sum by (job, role, state) (shop_db_pool_connections)", "{{job}} {{role}} {{state}}"),
            Query("sum by (job, role) (shop_db_pool_max_connections)", "{{job}} {{role}} at most"),
        ),
        "waiting counts requests, not connections.",
    ),
    Panel(
        "Servers",
        (Query("min by (server) (shop_server_up)", "{{server}}"),),
        "database: PostgreSQL; stock: the durable Redis; sessions: the volatile one.",
        kind="state-timeline",
        words={"0": ("down", BAD), "1": ("up", GOOD)},
    ),
    Panel(
        "Caches of the shop",
        (Query(f"sum by (level, result) (rate(shop_cache_requests_total[{RATE}]))", "{{level}} {{result}}"),),
        "joined: waited for somebody else's loading.",
        unit="reqps",
    ),
    Panel(
        "Too late",
        (Query(f"sum by (at) (rate(shop_dropped_requests_total[{RATE}]))", "{{at}}"),),
        "Given up, since nobody waited for the answer any more.",
        unit="reqps",
    ),
    Panel(
        "Processor and memory",
        (
            Query(f"sum by (job) (rate(process_cpu_seconds_total[{RATE}]))", "{{job}} cores"),
            Query("sum by (job) (process_resident_memory_bytes) / 1e9", "{{job}} GB"),
        ),
        "Of the shop's processes.",
    ),
)
