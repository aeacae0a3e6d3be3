"""A small client of the gateway's admin API."""

from __future__ import annotations

import difflib
import http
import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ops import datadir
from ops.errors import NoStack, OpsError, Refused, Unreachable
from ops.logs import one_line

Json = dict[str, Any] | list[Any] | str | float | bool | None
MAX_ANSWER = 16 << 20  # bytes
VARIABLE = "TIDEGATE_ADMIN_TOKEN"  # of the environment
STANDARD_URL = "http://127.0.0.1:9900"  # where a gateway of its own listens unless its config says otherwise


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A bearer token.

    Attributes:
        text: itself.
        place: where it came from, for whoever has to correct it.
    """

    text: str
    place: str


@dataclass(frozen=True, slots=True, repr=False)
class AdminClient:
    """Speaks to one admin API.

    Attributes:
        url: where it listens, for example http://127.0.0.1:9900.
        token: what it lets us in by.
        shop_metrics: /metrics pages of the shop behind it, as far as known.
        stock_url: the durable Redis of that shop, if known.
        timeout: seconds for one call.
    """

    url: str
    token: Token
    shop_metrics: tuple[str, ...] = ()
    stock_url: str | None = None
    timeout: float = 10.0

    @classmethod
    def find(cls, data: Path, url: str | None, token: Token | None) -> AdminClient:
        """The API of the stack in `data`; an URL or a token given explicitly wins.

        With a token and no stack it is the gateway at the standard address.

        Raises:
            NoStack: none was given, and no stack in `data` has left one.
            OpsError: the URL is none.
        """
        state = datadir.read_state(data) if not url else {}
        urls = state.get("urls", {})
        url = url or urls.get("admin") or (STANDARD_URL if token else None)
        if url is None:
            raise NoStack(
                f"no stack has run in {data}; name its folder with --data, or set {VARIABLE} "
                "for a gateway of its own (and --admin-url when it is elsewhere)"
            )
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise OpsError(f"--admin-url {url} is no URL; write for example http://127.0.0.1:9900")
        if token is None:
            file = data / "admin-token"
            try:
                token = Token(file.read_text(encoding="utf-8").strip(), str(file))
            except OSError as error:
                raise NoStack(
                    f"no token for {url}: {file} can't be read ({error.strerror}); set {VARIABLE}, "
                    "or name the folder of its stack with --data"
                ) from error
        return cls(
            url.rstrip("/"),
            token,
            tuple(urls[key] for key in ("shop_metrics", "worker_metrics") if key in urls),
            state.get("stores", {}).get("TIDEGATE_STOCK_REDIS_URL"),
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
        said = {key: value for key, value in body.items() if value is not None}
        return self._call("PUT", _path(kind, name), said)

    def delete(self, kind: str, name: str | None) -> Json:
        """DELETE one thing of a kind, or all.

        Raises:
            Refused: the API said no.
            Unreachable: it did not answer.
        """
        return self._call("DELETE", _path(kind, name), None)

    def post(self, path: str, text: bytes) -> Json:
        """POST a file as it is.

        Raises:
            Refused: the API said no; `mistakes` has the lines that are wrong.
            Unreachable: it did not answer.
        """
        return self._call("POST", path, text)

    @property
    def _remedy(self) -> str:
        """What may help when the token is refused."""
        if self.token.place == VARIABLE:
            return f"correct {VARIABLE}, or unset it to use that of the stack in --data"
        return f"give the right one by {VARIABLE}"

    def _call(self, method: str, path: str, body: dict[str, Any] | bytes | None) -> Json:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Authorization": f"Bearer {self.token.text}", "Accept": "application/json"}
        sent = json.dumps(body).encode() if isinstance(body, dict) else body
        if sent is not None:
            headers["Content-Type"] = "application/json" if isinstance(body, dict) else "application/yaml"
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
            try:
                connection.request(method, parts.path + path, sent, headers)
                answer = connection.getresponse()
                raw = answer.read(MAX_ANSWER)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                f"the admin API at {self.url} does not answer: {reason}; does it run? "
                "Name the folder of a stack with --data, or another address with --admin-url"
            ) from error
        try:
            document = json.loads(raw) if raw else None
        except ValueError:
            document = None
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            said = _reason(document) or f"the admin API answered {answer.status} {answer.reason}"
            if answer.status == http.HTTPStatus.UNAUTHORIZED and "admin API is closed" in said:
                said = f"the gateway at {self.url} knows no token; {said} where it starts"
            elif answer.status == http.HTTPStatus.UNAUTHORIZED:
                said = (
                    f"the admin API at {self.url} refused the token from {self.token.place} ({said}); "
                    f"{self._remedy}"
                )
            elif answer.status == http.HTTPStatus.NOT_FOUND:
                listed = said.partition("there are: ")[2]
                said += meant(path.rpartition("/")[2], listed.split(", ") if listed != "none" else ())
            mistakes = document.get("mistakes") if isinstance(document, dict) else None
            raise Refused(said, [one_line(line) for line in mistakes] if isinstance(mistakes, list) else [])
        return document


def _path(kind: str, name: str | None) -> str:
    return f"/api/{kind}" if name is None else f"/api/{kind}/{quote(name, safe='')}"


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` when a known word is close to this one, else nothing."""
    close = difflib.get_close_matches(unquote(word), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _reason(document: Json) -> str:
    """What problem details say is wrong, on one line: each field's mistake, else the detail."""
    if not isinstance(document, dict):
        return ""
    mistakes = document.get("errors")
    words = [
        f"{mistake.get('field', 'body')}: {mistake.get('detail', 'wrong')}"
        for mistake in (mistakes if isinstance(mistakes, list) else [])
        if isinstance(mistake, dict)
    ]
    return one_line("; ".join(words) or document.get("detail") or document.get("title") or "")
