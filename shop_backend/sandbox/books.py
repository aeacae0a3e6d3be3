"""The provider's books: one SQLite file, written by one thread beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from shop_backend.batcher import Batcher

T = TypeVar("T")
Row = dict[str, Any]
Work = Callable[[sqlite3.Connection], Any]

_EVERY = 0.005  # seconds, at least, from one commit to the next

SCHEMA = """
CREATE TABLE IF NOT EXISTS checkouts (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    currency TEXT NOT NULL,
    callback_url TEXT NOT NULL,
    return_url TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS payments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    checkout_id TEXT NOT NULL REFERENCES checkouts (id),
    outcome TEXT NOT NULL CHECK (outcome IN ('succeeded', 'failed')),
    created_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS payments_captured_once ON payments (checkout_id)
    WHERE outcome = 'succeeded';
CREATE INDEX IF NOT EXISTS payments_checkout ON payments (checkout_id);
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY,
    payment_id TEXT NOT NULL UNIQUE REFERENCES payments (id),
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS callbacks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL,
    url TEXT NOT NULL,
    body TEXT NOT NULL,
    due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS callbacks_due ON callbacks (due_at);
"""


class Books:
    """The file. What `run` is given to do is one transaction: whole, or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox-ledger")
        self._db: sqlite3.Connection | None = None
        self._batcher: Batcher[Work, Any] = Batcher(self._run_all, every=_EVERY)

    async def open(self) -> None:
        """Open the file, or create it with its folder.

        Raises:
            OSError: the folder can't be made.
            sqlite3.Error: the file can't be opened or is none of ours.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Finish what was asked, then close the file."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                await self._batcher.ask(lambda _: None)  # it comes after all that was asked before
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._db = None
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work on the file: wholly, or when it raises not at all.

        What is asked for in one moment is committed together; each is undone by itself.

        Raises:
            RuntimeError: the books are closed.
            sqlite3.Error: the file can't be used; nothing was changed.
        """
        if self._db is None:
            raise RuntimeError("the books are closed; await open() first")
        # A client that leaves leaves no transaction half written: the batcher goes on without it.
        return cast("T", await self._batcher.ask(work))

    async def _run_all(self, works: Sequence[Work]) -> Sequence[Any]:
        db = self._db
        if db is None:
            raise RuntimeError("the books are closed; await open() first")
        return await asyncio.get_running_loop().run_in_executor(self._thread, _together, db, works)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep_private()
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        # Survives the death of the process; only a power cut could take the last moments with it.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA foreign_keys = ON")
        db.executescript(SCHEMA)
        self._db = db

    def _keep_private(self) -> None:
        """Nobody else reads the books. SQLite gives its side files the mode of the database."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).chmod(0o600)


def rows(db: sqlite3.Connection, sql: str, *values: object) -> list[Row]:
    """The rows of a query, as dicts."""
    return [dict(row) for row in db.execute(sql, values)]


def _together(db: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    """One transaction for all; what a work returns, or raises."""
    results: list[Any] = []
    with _transaction(db, "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"):
        for work in works:
            try:
                with _transaction(db, "SAVEPOINT one", "RELEASE one", "ROLLBACK TO one; RELEASE one"):
                    results.append(work(db))
            except Exception as error:
                if not db.in_transaction:
                    raise  # SQLite gave all of it up
                results.append(error)
    return results


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, begin: str, commit: str, undo: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute(commit)
    except BaseException:
        if db.in_transaction:
            for statement in undo.split("; "):
                db.execute(statement)
        raise
