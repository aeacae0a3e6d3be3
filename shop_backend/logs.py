"""Logs as JSON lines, written by a thread so that no request waits for a disk."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
import traceback

from shop_backend import tracing

_CAPACITY = 10_000  # records waiting; beyond that they are dropped and counted


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = getattr(record, "trace", None)
        if trace:
            line["trace"] = trace
        trace_id = getattr(record, "trace_id", None)
        if trace_id:
            line["trace_id"] = trace_id  # the gateway's X-Request-Id, unless the client came with a trace
        return json.dumps(line, ensure_ascii=False)


class _Queue(logging.handlers.QueueHandler):
    """Drops what does not fit: logging may lose lines, never requests."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.msg, record.args = record.getMessage(), None
        record.trace_id = tracing.trace_id()  # here, where the request is, not in the writing thread
        if record.exc_info:
            record.trace = "".join(traceback.format_exception(*record.exc_info))
            record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def start(level: int = logging.INFO) -> logging.handlers.QueueListener:
    """Send every logger's records to standard error; call `stop()` on the result at the end."""
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(JsonLines())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(_CAPACITY)
    listener = logging.handlers.QueueListener(waiting, out)
    root = logging.getLogger()
    root.handlers[:] = [_Queue(waiting)]
    root.setLevel(level)
    # URLs of the provider and of the database pool's retries are of no use at INFO.
    for noisy in ("httpx", "httpcore", "psycopg.pool", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener.start()
    return listener
