"""Where a peer runs: its folder, port and upstreams, and how tight its limits are."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds."""

    count: int
    seconds: int


WIDE = Rate(1_000_000, 1)  # evaluated for every request, reached by none
TIGHT = Rate(1, 60)  # reached by every user at once


@dataclass(frozen=True, slots=True)
class Site:
    """What one instance of a peer is to do.

    Attributes:
        folder: its own, for configuration and logs.
        port: where it listens, on the loopback.
        admin_port: another one, for peers that have an operators' door.
        upstreams: the ports of two servers behind it; one would switch off some peers' breakers.
        overall: the limit of all requests together.
        user: the limit of each value of X-User.
        routes: paths told apart before the request's own is matched.
        redis: a Redis socket, for peers that share limits.
    """

    folder: Path
    port: int
    admin_port: int
    upstreams: tuple[int, int]
    overall: Rate = WIDE
    user: Rate = WIDE
    routes: int = 3
    redis: Path | None = None


class _Template(string.Template):
    delimiter = "@"  # nginx, Lua and YAML have their own use for the dollar


def render(template: Path, **values: object) -> str:
    """Fill a configuration's @{names}.

    Raises:
        KeyError: the template names a value that isn't given.
    """
    return _Template(template.read_text(encoding="utf-8")).substitute(values)


def write(site: Site, template: Path, *, name: str = "", **values: object) -> Path:
    """Render a template into the site's folder, with what every peer needs filled in."""
    path = site.folder / (name or template.name)
    path.write_text(
        render(
            template,
            folder=site.folder,
            port=site.port,
            admin_port=site.admin_port,
            first=site.upstreams[0],
            second=site.upstreams[1],
            overall_count=site.overall.count,
            overall_seconds=site.overall.seconds,
            user_count=site.user.count,
            user_seconds=site.user.seconds,
            **values,
        ),
        encoding="utf-8",
    )
    return path
