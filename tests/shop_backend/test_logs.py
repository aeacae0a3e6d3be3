"""Log lines never make anybody wait: written in batches by a thread, counted where a disk is too slow."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from shop_backend import logs
from shop_backend.metrics import REGISTRY


@contextmanager
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """A disk that writes as fast as the test reads: its both ends."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as reader, os.fdopen(writing, "w", encoding="utf-8") as writer:
        yield reader, writer


def logger(handler: logging.Handler) -> logging.Logger:
    """A logger of this test's own."""
    made = logging.Logger("shop_backend.test", logging.INFO)  # noqa: LOG001 - apart from all others
    made.addHandler(handler)
    return made


def _counted() -> float:
    return REGISTRY.get_sample_value("shop_log_dropped_total") or 0.0


def test_a_disk_that_hangs_stops_nobody_and_what_is_lost_is_counted(wait_until: Callable[..., Any]) -> None:
    """The pipe is full: 5,000 lines return, those that don't fit are counted, and told when it goes on."""
    before = _counted()
    with pipe() as (reader, writer):
        handler = logs.Queued(writer, capacity=100)
        log = logger(handler)
        for number in range(5000):
            log.info("line %d %s", number, "x" * 1000)  # far more than pipe and queue hold together
        lost = handler.dropped
        assert lost > 4000
        assert _counted() - before == lost

        seen: list[dict[str, Any]] = []
        drain = threading.Thread(target=lambda: seen.extend(json.loads(line) for line in reader), daemon=True)
        drain.start()
        wait_until(lambda: any("were lost" in line["message"] for line in list(seen)))
        log.warning("and on it goes")
        wait_until(lambda: any(line["message"] == "and on it goes" for line in list(seen)))
        handler.stop()
        told = sum(int(line["message"].split()[0]) for line in seen if "were lost" in line["message"])
        kept = [line for line in seen if line["message"].startswith("line ")]
        assert told == lost == handler.dropped
        assert len(kept) == 5000 - lost
        writer.close()
        drain.join()


class Written:
    """A stream that notes its writes."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        self.pieces.append(text)
        self.gate.wait(10)
        return len(text)

    def flush(self) -> None:
        """There is nothing behind it."""


def test_what_waited_is_written_at_once(wait_until: Callable[..., Any]) -> None:
    """A hundred lines that came meanwhile are one write."""
    out = Written()
    handler = logs.Queued(out)  # type: ignore[arg-type]  # all of a stream that it needs
    log = logger(handler)
    log.info("first")
    wait_until(lambda: out.pieces)
    for number in range(100):
        log.info("%d", number)
    out.gate.set()
    handler.stop()

    assert len(out.pieces) == 2
    assert out.pieces[1].count("\n") == 100


def test_a_message_that_does_not_fit_its_arguments_ends_nothing() -> None:
    """Whoever logs it goes on; the line is there, with what is wrong, and without the arguments."""
    out = Written()
    out.gate.set()
    handler = logs.Queued(out)  # type: ignore[arg-type]  # as above
    logger(handler).info("%d orders of %s", "secret")
    handler.stop()
    (line,) = "".join(out.pieces).splitlines()
    assert json.loads(line)["message"] == "%d orders of %s [TypeError in its arguments]"


def test_a_full_disk_is_counted_and_forgiven() -> None:
    """Writing fails: nobody hears of it but the metric, and the thread goes on."""
    before = _counted()
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        handler = logs.Queued(full)
        logger(handler).info("nowhere to go")
        handler.stop()
        assert handler.dropped >= 1
        with_suppressed_close(full)
    assert _counted() - before >= 1


def with_suppressed_close(file: TextIO) -> None:
    """Closing flushes what could not be written."""
    try:
        file.close()
    except OSError:
        return


def test_the_end_waits_for_no_disk() -> None:
    """Nobody ever reads: stopping gives up after a moment, with what is queued unwritten."""
    reading, writing = os.pipe()
    writer = os.fdopen(writing, "w", encoding="utf-8")
    handler = logs.Queued(writer, capacity=10)
    log = logger(handler)
    for _ in range(1000):
        log.info("x" * 1000)

    handler.stop()

    assert handler.dropped > 0
    os.close(reading)  # now the thread is told that nobody listens, and lets go of the file
    with_suppressed_close(writer)


def test_an_error_is_one_line_with_its_trace() -> None:
    """Line breaks and quotes can't forge a line; arguments are taken when logged."""
    out = Written()
    out.gate.set()
    handler = logs.Queued(out)  # type: ignore[arg-type]  # as above
    log = logger(handler)
    changing = ["before"]
    try:
        int('a "quoted"\nnumber')
    except ValueError:
        log.exception("in\n%s", changing)
    changing[0] = "after"
    handler.stop()

    (line,) = "".join(out.pieces).splitlines()
    told = json.loads(line)
    assert told["message"] == "in\n['before']"
    assert told["level"] == "error"
    assert "ValueError" in told["trace"]


def test_the_metric_is_there_from_the_start() -> None:
    """A first loss is a rise from nought."""
    assert REGISTRY.get_sample_value("shop_log_dropped_total") is not None
