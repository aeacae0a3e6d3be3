"""A Redis Cluster and a Redis behind sentinels, of real servers on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from ops.programs import find_redis
from ops.service import Service
from tests import unsupervised
from tests.running_stack import free_port
from tests.waiting import wait_until

MASTER = "the-master"  # as the sentinels call it
DOWN_AFTER = 3000  # milliseconds after which a silent server is taken for dead; machines stand still for less


class Node:
    """One Redis server, which a test may freeze, kill and start again.

    Attributes:
        port: where it listens.
        client: a connection of the test's own.
    """

    def __init__(self, folder: Path, *words: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.client = redis.Redis(port=self.port, decode_responses=True, socket_timeout=60.0)
        home = folder / f"node-{self.port}"
        home.mkdir()
        self._log = home / "log"
        argv = (
            str(find_redis()),
            *words,
            "--port",
            str(self.port),
            "--dir",
            str(home),
            "--bind",
            "127.0.0.1",
        )
        self._service = Service(f"redis-{self.port}", argv, ready=self._answers)
        self.start()

    def start(self) -> None:
        self._process = unsupervised.start(self._service, self._log)

    def stop(self) -> None:
        self.thaw()
        unsupervised.stop(self._process, self._service)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)

    def calls(self) -> int:
        """Script calls that it has served."""
        stats: Any = self.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))

    def ask(self, *words: object) -> Any:
        """The answer to a command."""
        return self.client.execute_command(*words)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class Cluster:
    """Three masters that have a third of the slots each.

    Attributes:
        url: names all of them.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)

    def keeper(self, key: str) -> Node:
        """The node that has a key's slot."""
        slot = self.slot(key)
        for first, last, (_, port, *_), *_ in self.nodes[-1].ask("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def another(self, key: str) -> Node:
        """A node that has not."""
        return next(node for node in self.nodes if node is not self.keeper(key))

    def slot(self, key: str) -> int:
        return int(self.nodes[0].ask("CLUSTER KEYSLOT", key))

    @contextlib.contextmanager
    def moving(self, key: str, target: Node) -> Iterator[Iterator[str]]:
        """Move the slot of a key; yields its keys, each moved when it is drawn. The end settles the rest."""
        slot, source = self.slot(key), self.keeper(key)
        here, there = source.ask("CLUSTER MYID"), target.ask("CLUSTER MYID")
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", here)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", there)

        def keys() -> Iterator[str]:
            while some := source.ask("CLUSTER GETKEYSINSLOT", slot, 1):
                source.ask("MIGRATE", "127.0.0.1", target.port, some[0], 0, 5000)
                yield some[0]

        moved = keys()
        yield moved
        for _ in moved:
            pass
        for node in (target, source, *self.nodes):
            node.ask("CLUSTER SETSLOT", slot, "NODE", there)


@contextlib.contextmanager
def running_cluster(folder: Path, *words: str) -> Iterator[Cluster]:
    """A cluster that is whole; `words` are more settings of each node."""
    nodes: list[Node] = []
    try:
        buses = [free_port() for _ in range(3)]
        settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_AFTER))
        settings = (*settings, "--save", "", *words)
        nodes.extend(Node(folder, *settings, "--cluster-port", str(bus)) for bus in buses)
        for number, node in enumerate(nodes):
            node.ask("CLUSTER ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            for other, bus in zip(nodes, buses, strict=True):
                node.ask("CLUSTER MEET", "127.0.0.1", other.port, bus)
        wait_until(lambda: all(_whole(node) for node in nodes), what="the cluster is whole")
        yield Cluster(nodes)
    finally:
        _stop(nodes)


def _whole(node: Node) -> bool:
    info = node.ask("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")


class Sentinels:
    """One master, one replica, and three sentinels that watch them.

    Attributes:
        url: names the sentinels.
    """

    def __init__(self, servers: Sequence[Node], sentinels: Sequence[Node]) -> None:
        self.servers = servers
        self.sentinels = sentinels
        places = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        self.url = f"redis+sentinel://{places}/{MASTER}"

    def replicated(self, master: Node) -> bool:
        """Whether the replica has all that the master has written by now, over whatever connection."""
        written = master.client.info("replication")["master_repl_offset"]
        (replica,) = (server for server in self.servers if server is not master)
        return bool(replica.client.info("replication")["slave_repl_offset"] >= written)

    def master(self) -> Node:
        """The server that the last sentinel takes for the master."""
        _, port = self.sentinels[-1].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(server for server in self.servers if server.port == int(port))


@contextlib.contextmanager
def running_sentinels(folder: Path) -> Iterator[Sentinels]:
    """A master that its sentinels know, with a replica that follows."""
    started: list[Node] = []
    try:
        keep = ("--save", "", "--repl-diskless-sync-delay", "0")
        started.append(master := Node(folder, *keep))
        started.append(replica := Node(folder, *keep, "--replicaof", f"127.0.0.1 {master.port}"))
        wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        sentinels = []
        for _ in range(3):
            port = free_port()
            file = folder / f"sentinel-{port}.conf"
            file.write_text(
                f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER}\n"
                f"sentinel failover-timeout {MASTER} 3000\n"
            )
            started.append(sentinel := Node(folder, str(file), "--sentinel", port=port))
            sentinels.append(sentinel)
        wait_until(lambda: all(_knows_all(one) for one in sentinels), what="the sentinels know each other")
        yield Sentinels([master, replica], sentinels)
    finally:
        _stop(started)


def _knows_all(sentinel: Node) -> bool:
    told = sentinel.client.info("sentinel")["master0"]
    return bool(told["status"] == "ok" and told["slaves"] == 1 and told["sentinels"] == 3)


def _stop(nodes: Sequence[Node]) -> None:
    for node in reversed(nodes):
        node.client.close()
        node.stop()
