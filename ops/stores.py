"""Which Redis and PostgreSQL a stack uses: those of the environment, else embedded ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ops import datadir
from ops.embedded import EmbeddedPostgres, EmbeddedRedis, socket_folder
from ops.errors import NoStack
from ops.programs import find_postgres, find_redis

NAMES = frozenset(
    {
        "TIDEGATE_REDIS_URL",
        "TIDEGATE_STOCK_REDIS_URL",
        "TIDEGATE_SESSION_REDIS_URL",
        "TIDEGATE_DATABASE_URL",
        "TIDEGATE_REPLICA_URL",
    }
)


def choose_stores(
    data: Path, environment: Mapping[str, str], *, own_sessions: bool = False
) -> tuple[dict[str, str], tuple[EmbeddedRedis | EmbeddedPostgres, ...]]:
    """The stores' URLs, and the servers we run ourselves since no URL was given.

    With `own_sessions` one of them is a Redis for nothing but sessions and carts.
    """
    run = socket_folder(data)
    servers: list[EmbeddedRedis | EmbeddedPostgres] = []
    given = {name: value for name, value in environment.items() if name in NAMES and value}
    if "TIDEGATE_STOCK_REDIS_URL" not in given:
        find_redis()
        durable = EmbeddedRedis("durable", data / "redis-durable", run)
        servers.append(durable)
        given["TIDEGATE_STOCK_REDIS_URL"] = durable.url()
    if own_sessions and "TIDEGATE_SESSION_REDIS_URL" not in given:
        find_redis()
        sessions = EmbeddedRedis("sessions", data / "redis-sessions", run)
        servers.append(sessions)
        given["TIDEGATE_SESSION_REDIS_URL"] = sessions.url()
    if "TIDEGATE_REDIS_URL" not in given:
        find_redis()
        volatile = EmbeddedRedis("volatile", data / "redis-volatile", run)
        servers.append(volatile)
        given["TIDEGATE_REDIS_URL"] = volatile.url(0)
        given.setdefault("TIDEGATE_SESSION_REDIS_URL", volatile.url(1))
    given.setdefault("TIDEGATE_SESSION_REDIS_URL", given["TIDEGATE_REDIS_URL"])
    if "TIDEGATE_DATABASE_URL" not in given:
        find_postgres()
        postgres = EmbeddedPostgres(data / "postgres", run)
        servers.append(postgres)
        given["TIDEGATE_DATABASE_URL"] = postgres.url()
    return given, tuple(servers)


def client_environment(data: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What a command needs to speak to the stores of the stack in `data`; the environment wins.

    Raises:
        NoStack: none has run there and the environment does not say.
    """
    state = datadir.read_state(data)
    known = {**state.get("stores", {}), "TIDEGATE_DATA_DIR": str(data.resolve())}
    if "sandbox" in state.get("urls", {}):
        known["TIDEGATE_SANDBOX_URL"] = state["urls"]["sandbox"]
    for name, file in (("TIDEGATE_CARD_KEY", "card-key"), ("TIDEGATE_SANDBOX_SECRET", "sandbox-secret")):
        place = data / "keys" / file
        if place.is_file():
            known[name] = place.read_text(encoding="utf-8").strip()
    if (data / "keys" / "session.pem").is_file():
        known["TIDEGATE_SESSION_KEY_FILE"] = str((data / "keys" / "session.pem").resolve())
    known |= {name: value for name, value in environment.items() if name.startswith("TIDEGATE_") and value}
    if "TIDEGATE_DATABASE_URL" not in known:
        raise NoStack(f"no stack has run in {data}; name its folder with --data or set TIDEGATE_DATABASE_URL")
    return known
