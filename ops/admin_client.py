"""A small client of the gateway's admin API."""

from __future__ import annotations

import http
import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ops import datadir
from ops.errors import OpsError, Refused, Unreachable

Json = dict[str, Any] | list[Any] | str | float | bool | None
MAX_ANSWER = 16 << 20  # bytes


@dataclass(frozen=True, slots=True, repr=False)
class AdminClient:
    """Speaks to one admin API.

    Attributes:
        url: where it listens, for example http://127.0.0.1:9900.
        token: bearer token.
        shop_metrics: /metrics pages of the shop behind it, as far as known.
        timeout: seconds for one call.
    """

    url: str
    token: str
    shop_metrics: tuple[str, ...] = ()
    timeout: float = 10.0

    @classmethod
    def find(cls, data: Path, url: str | None, token: str | None) -> AdminClient:
        """The API of the stack in `data`; an URL or a token given explicitly wins.

        Raises:
            OpsError: no token is known.
            Unreachable: no URL is known.
        """
        urls = datadir.read_state(data).get("urls", {}) if url is None else {}
        url = url or urls.get("admin")
        if url is None:
            raise Unreachable(
                f"no stack has run in {data}; name its folder with --data, or its admin API with --admin-url"
            )
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise OpsError(f"--admin-url {url} is no URL; write for example http://127.0.0.1:9900")
        if token is None:
            try:
                token = (data / "admin-token").read_text(encoding="utf-8").strip()
            except OSError as error:
                raise OpsError(
                    f"cannot read {data / 'admin-token'}: {error.strerror}; set TIDEGATE_ADMIN_TOKEN"
                ) from error
        return cls(
            url.rstrip("/"),
            token,
            tuple(urls[key] for key in ("shop_metrics", "worker_metrics") if key in urls),
        )

    def get(self, path: str) -> Json:
        """GET a JSON document.

        Raises:
            Refused: the API said no.
            Unreachable: it did not answer.
        """
        return self._call("GET", path, None)

    def put(self, kind: str, name: str | None, body: dict[str, Any]) -> Json:
        """PUT a setting, for example `put("features", "profile", {"state": "off"})`.

        Raises:
            Refused: the API said no.
            Unreachable: it did not answer.
        """
        path = f"/api/{kind}" if name is None else f"/api/{kind}/{quote(name, safe='')}"
        return self._call("PUT", path, {key: value for key, value in body.items() if value is not None})

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Json:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
            try:
                connection.request(
                    method, parts.path + path, None if body is None else json.dumps(body), headers
                )
                answer = connection.getresponse()
                raw = answer.read(MAX_ANSWER)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                f"the admin API at {self.url} does not answer: {reason}; is the stack up?"
            ) from error
        try:
            document = json.loads(raw) if raw else None
        except ValueError:
            document = None
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise Refused(f"the admin API refused with {answer.status}: {_reason(document, answer.reason)}")
        return document


def _reason(document: Json, fallback: str) -> str:
    if not isinstance(document, dict):
        return fallback
    words = [str(document[key]) for key in ("title", "detail") if document.get(key)]
    words += [str(mistake) for mistake in document.get("errors") or []]
    return " ".join(": ".join(words).split()) or fallback
