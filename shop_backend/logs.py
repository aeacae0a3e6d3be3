"""Logs as JSON lines, formatted and written in batches by a thread, so that no request waits for a disk."""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
import traceback
from typing import TextIO

from shop_backend import tracing
from shop_backend.metrics import LOG_DROPPED

CAPACITY = 10_000  # records waiting; beyond that they are dropped and counted
BATCH = 500  # records in one write
CLOSE_SECONDS = 2.0  # given to a slow disk at the end


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


class Queued(logging.Handler):
    """Hands records to a thread that writes them. Drops what does not fit: lines may be lost, never requests.

    Args:
        out: where lines go; only the thread touches it.
        capacity: records that may wait.
    """

    def __init__(self, out: TextIO, capacity: int = CAPACITY) -> None:
        super().__init__()
        self.dropped = 0  # under the handler's lock, as all of emit
        self._out = out
        self._lines = JsonLines()
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(capacity)
        self._told = 0  # how many drops the log itself tells of
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; never waits."""
        # What the request has at hand is taken now; the rest is the thread's work.
        try:
            record.msg = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a message that can't be written is no reason to end a request
            record.msg = f"{record.msg} [{type(error).__name__} in its arguments]"
        record.args = None
        record.trace_id = tracing.trace_id()
        if record.exc_info:
            record.trace = "".join(traceback.format_exception(*record.exc_info))
            record.exc_info = None
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            LOG_DROPPED.inc()

    def stop(self) -> None:
        """Write what is queued, for a moment: a disk that hangs keeps nobody alive."""
        deadline = time.monotonic() + CLOSE_SECONDS
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _write(self) -> None:
        done = False
        while not done:
            batch = [self._waiting.get()]
            while len(batch) < BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            done = batch[-1] is None or None in batch
            lines = [self._lines.format(record) for record in batch if record is not None]
            if self.dropped > self._told:
                lost, self._told = self.dropped - self._told, self.dropped
                lines.append(self._lines.format(_lost(lost)))
            try:
                self._out.write("".join(f"{line}\n" for line in lines))
                self._out.flush()
            except (OSError, ValueError):
                # A full disk, or a reader that has gone: nothing can be told there, so it is counted.
                self.dropped += len(lines)
                LOG_DROPPED.inc(len(lines))


def _lost(lines: int) -> logging.LogRecord:
    return logging.LogRecord(
        __name__, logging.WARNING, __file__, 0, "%d log lines were lost: the disk is slow", (lines,), None
    )


def start(level: int = logging.INFO) -> Queued:
    """Send every logger's records to standard error; call `stop()` on the result at the end."""
    handler = Queued(sys.stderr)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # URLs of the provider and of the database pool's retries are of no use at INFO.
    for noisy in ("httpx", "httpcore", "psycopg.pool", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return handler
