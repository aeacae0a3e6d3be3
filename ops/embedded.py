"""Real Redis and PostgreSQL servers of our own, on unix sockets in one directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg
import psycopg.sql
import redis

from ops.errors import OpsError, StartFailed
from ops.logs import last_line, one_line
from ops.programs import find_postgres, find_redis
from ops.service import Service
from ops.spawn import Account, may_enter, spawn, unprivileged

SOCKET_PATH_MAX = 90  # bytes; sun_path holds 107, and both servers add names of their own
DATABASE = "tidegate"
ROLE = "tidegate"


# ---- where sockets go -------------------------------------------------------------------------


def socket_folder(data: Path) -> Path:
    """A private folder for unix sockets: DATA/run, or a short one when that path is too long.

    Raises:
        OpsError: the short folder belongs to somebody else.
    """
    run = data.resolve() / "run"
    if len(os.fsencode(run)) > SOCKET_PATH_MAX - len("/postgres/.s.PGSQL.5432"):
        name = hashlib.sha256(os.fsencode(run)).hexdigest()[:12]
        run = Path(tempfile.gettempdir()) / f"tidegate-{os.geteuid()}-{name}"
    run.mkdir(parents=True, exist_ok=True)
    status = run.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OpsError(f"{run} belongs to another account; remove it or choose another --data")
    # Root's PostgreSQL runs as another account, which must reach its own folder below.
    run.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return run


# ---- Redis ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """One Redis server on a unix socket.

    `durable` keeps every acknowledged write (stock and streams) and never evicts. `volatile` keeps
    nothing over a restart; there every key has a TTL, and when memory is short the ones longest
    unused go first, so that counters in use stay. `sessions` is a volatile one for nothing else.

    Attributes:
        kind: what it promises.
        data: its folder; created when missing.
        run: folder of the socket.
    """

    kind: Literal["durable", "volatile", "sessions"]
    data: Path
    run: Path

    @property
    def socket(self) -> Path:
        """The unix socket it listens on."""
        return self.run / f"redis-{self.kind}.sock"

    def url(self, database: int = 0) -> str:
        """A redis-py URL of one of its databases."""
        return f"unix://{quote(str(self.socket))}?db={database}"

    def ready(self) -> bool:
        """Whether it answers and has loaded its data."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1.0) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def service(self) -> Service:
        """How to run it.

        Raises:
            ServerMissing: no redis-server was found.
        """
        program = find_redis()
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        keep = (
            ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
            if self.kind == "durable"
            else ["--appendonly", "no", "--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru"]
        )
        argv = (
            str(program),
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.data), "--save", "", "--daemonize", "no", "--loglevel", "notice"),
            *("--maxclients", "4096", *keep),
        )
        return Service(
            name=f"redis-{self.kind}",
            argv=argv,
            ready=self.ready,
            prepare=lambda: self.socket.unlink(missing_ok=True),
        )


# ---- PostgreSQL -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """One PostgreSQL server on a unix socket; works as root too, through an unprivileged account.

    Attributes:
        data: its data folder; `create` fills it.
        run: folder that will hold a folder with the socket.
        durable: False gives up crash safety for speed; for tests.
    """

    data: Path
    run: Path
    durable: bool = True

    @property
    def socket_folder(self) -> Path:
        """Folder of the socket; reaching it is all the authentication there is."""
        return self.run / "postgres"

    def url(self, database: str = DATABASE) -> str:
        """A libpq URL of one of its databases."""
        return f"postgresql://{ROLE}@/{quote(database)}?host={quote(str(self.socket_folder), safe='')}"

    def ready(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def account(self) -> Account | None:
        """Whom it runs as, able to reach both its programs and its data; None for ourselves.

        Raises:
            OpsError: root, and no unprivileged account exists.
            ServerMissing: no PostgreSQL was found.
        """
        account = unprivileged()
        if account is None:
            return None
        closed = not all(may_enter(path, account) for path in (find_postgres(), self.data.parent, self.run))
        return replace(account, pass_closed_doors=closed)

    def create(self, log: Path) -> None:
        """Make the data folder once; nothing happens when it is already whole.

        Args:
            log: file that takes initdb's words.

        Raises:
            ServerMissing: no PostgreSQL was found.
            StartFailed: initdb refused; the message has its reason.
        """
        self.data.parent.mkdir(parents=True, exist_ok=True)
        account = self.account()
        _own(self.socket_folder, account)
        if (self.data / "PG_VERSION").is_file():
            return
        # initdb works beside and is renamed, so that a kill in the middle leaves no half database.
        draft = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        _own(draft, account)
        argv = [
            str(find_postgres() / "initdb"),
            *("--pgdata", str(draft), "--username", ROLE, "--auth", "trust", "--encoding", "UTF8"),
            *("--locale-provider", "builtin", "--locale", "C", "--builtin-locale", "C.UTF-8"),
            *("--no-instructions", *([] if self.durable else ["--no-sync"])),
        ]
        with log.open("ab") as out:
            status = spawn(argv, stdout=out, account=account, cwd=Path("/"), env=_plain_env()).wait()
        if status != 0:
            raise StartFailed(f"initdb failed with status {status} ({last_line(log)}); its log is {log}")
        shutil.rmtree(self.data, ignore_errors=True)
        draft.rename(self.data)

    def service(self) -> Service:
        """How to run it, once `create` has been called.

        Raises:
            ServerMissing: no PostgreSQL was found.
        """
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700" if os.geteuid() != 0 else "0777",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "512MB",
            "log_min_messages": "warning",
            "timezone": "UTC",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        argv = [str(find_postgres() / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return Service(
            name="postgres",
            argv=tuple(argv),
            ready=self.ready,
            env=_plain_env(),
            cwd=Path("/"),
            account=self.account(),
            stop_signal=signal.SIGINT,  # fast shutdown: does not wait for clients to leave
        )

    def create_database(self, name: str = DATABASE) -> None:
        """Make a database once, on the running server.

        Raises:
            StartFailed: the server did not answer or refused.
        """
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
                identifier = psycopg.sql.Identifier(name)
                with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                    connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(identifier))
        except psycopg.Error as error:
            raise StartFailed(f"cannot create the database {name}: {one_line(error)}") from error


def _own(folder: Path, account: Account | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _plain_env() -> dict[str, str]:
    # The account has no home; libpq variables of the operator's shell must not steer the server.
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
