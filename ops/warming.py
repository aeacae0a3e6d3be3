"""Asking for what shoppers will ask for, before they do."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import quote, urlsplit

from ops.errors import Unreachable

_TIMES = 4  # each is asked for so often: caches are one for each process behind a port
_PATIENCE, _WAITS = 1.0, 60  # seconds of waiting when a limit is full, and how often


def pages(url: str, timeout: float = 5.0) -> str:
    """Ask for the catalogue, the home page and every product, the static files they name aside.

    Returns:
        What became of it, in a sentence.

    Raises:
        Unreachable: nobody answers there.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    failed: list[str] = []
    asked = waits = 0
    try:
        catalogue = _get(kind(parts.hostname or "", parts.port, timeout=timeout), "/api/products")
        skus = [product["sku"] for product in json.loads(catalogue[1])["products"]]
        paths = ["/", "/api/products"]
        paths += [form + quote(sku) for sku in skus for form in ("/api/products/", "/p/")]
        for _ in range(_TIMES):
            # A connection each time: the next may lead to another process.
            connection = kind(parts.hostname or "", parts.port, timeout=timeout)
            for path in paths:
                status = _get(connection, path)[0]
                while status == http.HTTPStatus.TOO_MANY_REQUESTS and waits < _WAITS:
                    waits += 1
                    time.sleep(_PATIENCE)  # limits are for us, too
                    status = _get(connection, path)[0]
                asked += 1
                if status != http.HTTPStatus.OK:
                    failed.append(f"{path}: {status}")
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{url} does not answer: {error or type(error).__name__}") from error
    complaint = f"; {len(failed)} failed, the first {failed[0]}" if failed else ""
    return f"{len(skus)} products asked for at {url}, {asked} requests{complaint}"


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path, headers={"Accept": "*/*", "Accept-Encoding": "identity"})
    answer = connection.getresponse()
    return answer.status, answer.read()
