"""The door for shoppers."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.settings.base import Port, Settings
from gateway.units import Duration, Size


def _network(value: object) -> object:
    if isinstance(value, bool | int | float):  # ipaddress would take them for addresses: true is 0.0.0.1
        raise ValueError(f"{value!r} is no network; write for example 10.0.0.0/8")  # noqa: TRY004 - pydantic's way
    return value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Listen(Settings):
    """Where shoppers come in, and what HTTP may never pass."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8000
    """TCP port; 0 takes a free one."""
    workers: int = Field(2, ge=1, le=64)
    """Processes that serve; about one for each core."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose X-Forwarded-For and -Proto are believed."""
    max_body: Size = Field(1 << 20, ge=1)
    """Longest request body; beyond it 413."""
    max_target: Size = Field(8 << 10, ge=64)
    """Longest path and query; beyond it 414."""
    max_headers: int = Field(100, ge=8, le=10_000)
    """Most header fields; beyond it 431."""
    max_header_bytes: Size = Field(32 << 10, ge=1024)
    """Longest header section; beyond it 431."""
    header_timeout: Duration = Field(5.0, gt=0)
    """For the whole header section; then 408."""
    body_timeout: Duration = Field(30.0, gt=0)
    """For the whole body of a request; then 408."""
    write_timeout: Duration = Field(30.0, gt=0)
    """For a client that reads slowly to take what waits for it."""
    idle_timeout: Duration = Field(75.0, gt=0)
    """Between requests of one connection."""
    drain: Duration = Field(10.0, ge=0)
    """How long requests in flight may take after SIGTERM."""
