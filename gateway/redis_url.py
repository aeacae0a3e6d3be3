"""The URLs by which a configuration names its Redis: one server, a cluster, or whatever sentinels watch."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A Redis URL, taken apart.

    - `redis://[user:password@]host[:port][/db]`, `rediss://…` over TLS, `unix:///path[?db=n]`: one server. A
      node of a cluster will do: it says where a key is kept.
    - `redis+cluster://[user:password@]host[:port],host[:port],…`: any nodes of a cluster.
    - `redis+sentinel://[user:password@]host[:port],host[:port],…/name[/db]`: the sentinels that watch `name`.
      Their own credentials are given as `?sentinel_username=…&sentinel_password=…`.

    Attributes:
        kind: "" for one server, "cluster", or "sentinel".
        seeds: a plain URL of each server named: where to begin.
        name: what the sentinels call the server; else "".
    """

    kind: str
    seeds: tuple[str, ...]
    name: str
    _parts: SplitResult

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Take a URL apart.

        Raises:
            ValueError: it is none of those above; says why without repeating it: it may hold a password.
        """
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if scheme == "unix" and not kind:
            return cls("", (url,), "", parts)
        if scheme not in {"redis", "rediss"} or kind not in PORTS:
            raise ValueError(
                "not a Redis URL; write for example redis://127.0.0.1:6379/0, redis+cluster://a:7000,b:7000"
                " or redis+sentinel://a:26379,b:26379/mymaster"
            )
        query = parse_qsl(parts.query, keep_blank_values=True)
        credentials, at, places = parts.netloc.rpartition("@")
        hosts = [_host(place, PORTS[kind]) for place in places.split(",")]
        if not kind and len(hosts) > 1:
            raise ValueError("several hosts are redis+cluster:// or redis+sentinel://")
        path, name = parts.path.strip("/"), ""
        if kind == "sentinel":
            name, _, path = path.partition("/")
            if not name:
                raise ValueError("redis+sentinel://host:26379/name wants the name that the sentinels watch")
            own = dict(query)
            user, password = own.get("sentinel_username", ""), own.get("sentinel_password", "")
            credentials, at = (f"{user}:{password}", "@") if password else ("", "")
        if kind == "cluster" and path not in {"", "0"}:
            raise ValueError("a cluster has database 0 only; leave the number out")
        if path and not path.isdigit():
            raise ValueError("the database is a number")
        rest = [(key, value) for key, value in query if not key.startswith("sentinel_")]
        seeds = [urlunsplit((scheme, f"{credentials}{at}{host}", "", urlencode(rest), "")) for host in hosts]
        if not kind:
            seeds = [url]
        data = parts._replace(scheme=scheme, path=f"/{path}" if path else "", query=urlencode(rest))
        return cls(kind, tuple(seeds), name, data)

    def at(self, host: str, port: int) -> str:
        """The plain URL of a server of this Redis, with the credentials and options given."""
        credentials, at, _ = self._parts.netloc.rpartition("@")
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return urlunsplit(self._parts._replace(netloc=f"{credentials}{at}{place}"))


def _host(place: str, port: int) -> str:
    """One host and its port, checked."""
    try:
        found = urlsplit(f"//{place}")
        host, given = found.hostname, found.port
    except ValueError:
        host, given = None, None
    if not host:
        raise ValueError("a host is missing, or its port is no number")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{given or port}"
