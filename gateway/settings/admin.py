"""The door for operators."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.settings.base import InputFile, Name, Port, Settings, none_when_empty
from gateway.settings.listen import Network
from gateway.units import Duration

Role = Literal["viewer", "operator"]
_Word = Annotated[str, Field(min_length=1, max_length=120)]


_HASH = re.compile("^[0-9a-f]{64}$")


def _hash(value: str) -> str:
    if not _HASH.fullmatch(value):  # says not what was given: it may be the token itself
        raise ValueError("no SHA-256 in hex (64 digits); `tidegate token NAME` makes token and hash")
    return value


class AdminToken(Settings):
    """One bearer of a token; `tidegate token` makes the token and its hash."""

    name: Name
    """Who that is, for the trail."""
    role: Role = "viewer"
    """A viewer sees; an operator switches too, and sees users and addresses."""
    token_sha256: Annotated[str, AfterValidator(_hash), Field(json_schema_extra={"pattern": _HASH.pattern})]
    """SHA-256 of the token, in hex. That is enough of a hash for a random token of 256 bits, for no other."""


def _web(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.username is None and parts.port != 0  # a bad one is an error
    except ValueError:
        good = False
    if not good:  # says not what was given: there may be a password in it
        raise ValueError("no page's URL; write for example http://127.0.0.1:8111/metrics")
    return url


class Panel(Settings):
    """Numbers of something behind the gate, shown to operators as a table."""

    title: str = Field(min_length=1, max_length=80)
    """Its heading."""
    url: Annotated[
        tuple[Annotated[str, Field(pattern=r"^https?://[!-~]+$"), AfterValidator(_web)], ...],
        BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
        Field(min_length=1, max_length=20, json_schema_extra={"x-kind": "one-or-more"}),
    ]
    """A page of metrics in Prometheus's format, fetched by the master while somebody looks; or several, whose
    numbers of the same name and labels are summed."""
    metrics: tuple[Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")], ...] = Field(
        min_length=1, max_length=20
    )
    """Which of its metrics. A counter (its name ends in _total) goes on where it was when its process is
    started again, for as long as the gateway runs."""


def _without_empty(panels: object) -> object:
    """Pages whose URL `${VARIABLE:-}` left empty count as left out, and panels that have no other."""
    if not isinstance(panels, list):
        return panels
    kept = []
    for panel in panels:
        if isinstance(panel, dict) and isinstance(panel.get("url"), list):
            panel = {**panel, "url": [url for url in panel["url"] if url != ""]}
        if not (isinstance(panel, dict) and panel.get("url", 1) in ("", [])):
            kept.append(panel)
    return kept


class Admin(Settings):
    """Where operators come in, with a token from TIDEGATE_ADMIN_TOKEN, from a file, or of this list."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond the loopback, put TLS in front."""
    port: Port = 9900
    """TCP port; 0 takes a free one."""
    token_file: Annotated[InputFile | None, BeforeValidator(none_when_empty)] = None
    """File with an operator's token, when TIDEGATE_ADMIN_TOKEN is not set."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose X-Forwarded-For and -Proto are believed, as of what ends TLS in front; else it counts as
    the address of all."""
    tokens: tuple[AdminToken, ...] = Field((), max_length=100)
    """Who may come in besides."""
    session: Duration = Field(12 * 3600.0, ge=60, le=7 * 86400)
    """How long a browser stays logged in."""
    state_file: Annotated[Path | None, BeforeValidator(none_when_empty)] = None
    """Where switches are kept, so that they survive a restart even with Redis away. Beside it stand, by the
    same name, `.keys` (which requests with an Idempotency-Key were passed on), `.trail.jsonl` (who changed
    what) and `.refused.jsonl` (who was refused); each is bounded."""
    panels: Annotated[tuple[Panel, ...], BeforeValidator(_without_empty), Field(max_length=20)] = ()
    """Numbers of what stands behind the gate, on the console and in its status."""
    words: dict[Literal["en", "zh"], Annotated[dict[_Word, _Word], Field(max_length=500)]] = Field(
        default_factory=dict
    )
    """How the console writes panels' titles, metrics, labels and labels' values, by the reader's language;
    what is not listed stands there as it is."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, counted in (
            ("name", Counter(token.name for token in self.tokens)),
            ("token_sha256", Counter(token.token_sha256 for token in self.tokens)),
        ):
            if twice := [value for value, times in counted.items() if times > 1]:
                raise ValueError(f"tokens: two have the {what} {twice[0]}; each needs one of its own")
        return self
