"""Numbers of what stands behind the gate: pages of metrics, fetched while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin import shapes
from gateway.admin.counters import Counters, sample_key
from gateway.config import Admin
from gateway.exchange import Clock
from gateway.settings.admin import Panel

EVERY = 2.0  # seconds between two fetches of a page
TIMEOUT = 1.0  # seconds for all of a page
MAX_PAGE = 2 << 20  # bytes
MAX_SAMPLES = 200  # of a panel
_log = logging.getLogger("gateway.admin")


@dataclass(slots=True)
class _Page:
    """What a page said last."""

    samples: dict[str, list[shapes.Sample]] = field(default_factory=dict)  # by metric
    counters: Counters = field(default_factory=Counters)
    at: float | None = None
    error: str | None = None


class Panels:
    """Fetches each page once for all panels and all who look.

    Args:
        settings: as they are now.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: Callable[[], Admin], clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._pages: dict[str, _Page] = {}
        self._tried = float("-inf")
        self._lock = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None

    async def fresh(self) -> None:
        """Fetch what is old; a page that does not answer keeps what it said."""
        async with self._lock:
            if self._clock() - self._tried < EVERY:
                return
            wanted: dict[str, set[str]] = {}
            for panel in self._settings().panels:
                for url in panel.url:
                    wanted.setdefault(url, set()).update(panel.metrics)
            self._pages = {url: self._pages.get(url, _Page()) for url in wanted}
            if self._tls is None and wanted:  # reads all the authorities there are, which takes a while
                self._tls = await asyncio.to_thread(httpx.create_ssl_context, trust_env=False)
            await asyncio.gather(*(self._fetch(url, names) for url, names in wanted.items()))
            self._tried = self._clock()

    def shown(self) -> list[shapes.Panel]:
        """All panels, as last fetched."""
        return [self._show(panel) for panel in self._settings().panels]

    def _show(self, panel: Panel) -> shapes.Panel:
        pages = [self._pages.get(url, _Page()) for url in panel.url]
        told = (page.samples.get(name, ()) for name in panel.metrics for page in pages)
        samples = _summed(chain.from_iterable(told))
        fetched = [page.at for page in pages if page.at is not None]
        return {
            "title": panel.title,
            "samples": samples[:MAX_SAMPLES],
            "seconds_old": round(self._clock() - min(fetched), 1) if fetched else None,
            "error": next((page.error for page in pages if page.error), None),
            "left_out": max(0, len(samples) - MAX_SAMPLES),
        }

    async def _fetch(self, url: str, names: set[str]) -> None:
        page = self._pages[url]
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                httpx.AsyncClient(
                    verify=self._tls or True, trust_env=False, follow_redirects=False
                ) as client,
                client.stream("GET", url, headers={"accept": "text/plain"}) as answer,
            ):
                answer.raise_for_status()
                raw = await _bounded(answer)
            told = await asyncio.to_thread(_read, raw.decode("utf-8", "replace"), names)
            page.samples = page.counters.carried(told, names)
        except TimeoutError:
            page.error = f"no answer within {TIMEOUT:g} s"
        except httpx.HTTPStatusError as error:
            page.error = f"answered {error.response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            page.error = f"does not answer: {type(error).__name__}"
        except ValueError as error:
            page.error = f"no page of metrics: {error}"
        except Exception as error:  # noqa: BLE001 - one page hides no other, and not the status around it
            _log.exception("the panel of %s can't be read", url)
            page.error = f"no page of metrics: {type(error).__name__}"
        else:
            page.error, page.at = None, self._clock()


def _summed(samples: Iterable[shapes.Sample]) -> list[shapes.Sample]:
    """One sample for each name and labels, in the order of the first."""
    found: dict[tuple[object, ...], shapes.Sample] = {}
    for sample in samples:
        key = sample_key(sample)
        seen = found.get(key)
        found[key] = sample if seen is None else {**sample, "value": seen["value"] + sample["value"]}
    return list(found.values())


async def _bounded(answer: httpx.Response) -> bytes:
    raw = bytearray()
    async for chunk in answer.aiter_bytes():
        raw += chunk
        if len(raw) > MAX_PAGE:
            raise ValueError(f"more than {MAX_PAGE >> 20} MiB")
    return bytes(raw)


def _read(text: str, names: set[str]) -> dict[str, list[shapes.Sample]]:
    """The samples of these metrics, by their names as Prometheus shows them.

    Raises:
        ValueError: it is no page of metrics.
    """
    wanted = [line for line in text.splitlines() if line.startswith("#") or _name(line) in names]
    found: dict[str, list[shapes.Sample]] = {}
    for family in text_string_to_metric_families("\n".join(wanted) + "\n"):
        for sample in family.samples:
            if sample.name in names and math.isfinite(sample.value):
                found.setdefault(sample.name, []).append(
                    {"metric": sample.name, "labels": dict(sample.labels), "value": sample.value}
                )
    return found


def _name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]
