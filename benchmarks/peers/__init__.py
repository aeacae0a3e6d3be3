"""What Tidegate is measured against: each does the same work, as far as it can."""

from __future__ import annotations

from benchmarks.peers.bare import BareUvicorn
from benchmarks.peers.caddy import Caddy
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.haproxy import HAProxy
from benchmarks.peers.nginx import Nginx, NginxLuaRedis
from benchmarks.peers.peer import Peer
from benchmarks.peers.python_stack import PythonStack
from benchmarks.peers.tidegate import Tidegate, TidegateRedis

PEERS: tuple[Peer, ...] = (
    Tidegate(),
    TidegateRedis(),
    Envoy(),
    Nginx(),
    HAProxy(),
    Caddy(),
    NginxLuaRedis(),
    PythonStack(),
    BareUvicorn(),
)


def choose(names: str) -> tuple[Peer, ...]:
    """The peers named, in our order; all for the empty string.

    Raises:
        ValueError: a name is none of theirs.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {peer.name: peer for peer in PEERS}
    for name in wanted:
        if name not in known:
            raise ValueError(f"no peer is called {name!r}; there are {', '.join(known)}")
    return tuple(peer for peer in PEERS if not wanted or peer.name in wanted)
