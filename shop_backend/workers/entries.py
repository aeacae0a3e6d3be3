"""Entries of a stream: what a handler makes of them, and how one is given up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shop_backend.storage.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    id: str
    fields: Mapping[str, str]


class Parked(Exception):  # noqa: N818 - no error: try this entry again later, for as long as it takes
    """The entry came too early; waiting is not failing."""


class Hopeless(Exception):  # noqa: N818 - reads as what it says
    """Trying again can't help: to the dead letters at once."""


class Handler(Protocol):
    """What to do with a stream's entries. Every method may be called again for the same entry."""

    stream: str

    async def handle(self, entries: Sequence[Entry]) -> Mapping[str, Exception]:
        """Do the work; the failures by entry id. Raises only when a server is away."""
        ...

    def order_of(self, entry: Entry) -> str | None:
        """The order an entry is about, if it says."""
        ...

    async def give_up(self, connection: Connection, entry: Entry) -> bool:
        """Lock what is needed to give an entry up; False when it turns out to be done."""
        ...

    async def gave_up(self, entry: Entry) -> None:
        """Undo the entry's effects, after its dead letter is committed."""
        ...


async def bury(database: Database, handler: Handler, entry: Entry, why: str, *, in_full: bool = True) -> bool:
    """Write a dead letter; False when the entry turns out to be done, and none is needed.

    Raises:
        Unavailable, psycopg.OperationalError: the database is away; call again.
    """
    fields = {_clean(name): _clean(value) for name, value in entry.fields.items()} if in_full else {}
    async with database.primary() as connection:
        real = await handler.give_up(connection, entry)
        if real:
            await connection.execute(
                "INSERT INTO dead_letters (stream, entry_id, order_id, fields, error)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (handler.stream, entry.id, handler.order_of(entry), json.dumps(fields), _clean(why)),
            )
    return real


def brief(error: BaseException) -> str:
    """An error on one line, for logs and letters."""
    return _clean(f"{type(error).__name__}: {error}".splitlines()[0][:300])


def _clean(text: str) -> str:
    """Without what SQL and logs don't take: control characters, halves of characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
