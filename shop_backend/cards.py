"""Importing card keys: streamed, sealed, each once."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from shop_backend.errors import SetupError
from shop_backend.vault import Vault, fingerprint

_BATCH = 1000  # rows in one transaction
_SECRET = re.compile(r"[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,499}")
_SHOWN = 20  # line numbers named in the summary, of each kind


@dataclass(slots=True)
class Summary:
    """What became of a file's lines; numbers are lines of the file, the header being line 1."""

    added: int = 0
    duplicate: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.added} added, {len(self.duplicate)} duplicate, {len(self.refused)} refused"]
        if self.duplicate:
            shown = ", ".join(map(str, self.duplicate[:_SHOWN]))
            lines.append(f"duplicate lines: {shown}{', ...' if len(self.duplicate) > _SHOWN else ''}")
        lines += [f"line {line}: {why}" for line, why in self.refused[:_SHOWN]]
        if len(self.refused) > _SHOWN:
            lines.append(f"... and {len(self.refused) - _SHOWN} more refused")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    sku: str
    secret: str


def import_cards(
    path: Path, connection: psycopg.Connection, vault: Vault, *, actor: str = "nobody named", reason: str = ""
) -> Summary:
    """Add the card keys of a CSV file with the columns sku,secret.

    Each batch is its own transaction, and so is what `card_changes` tells of it: after a crash, importing
    again adds the rest. Load the stock into Redis afterwards (`restock`).

    Args:
        path: the file.
        connection: to the primary, outside of a transaction.
        vault: seals the keys.
        actor: who imports.
        reason: why.

    Raises:
        SetupError: the file can't be read, or has other columns.
    """
    summary = Summary()
    key = fingerprint_key(connection, vault)
    skus = {sku for (sku,) in connection.execute("SELECT sku FROM products").fetchall()}
    connection.commit()
    told = _Told(actor, reason or f"from {path.name}")
    batch: list[_Row] = []
    for row in _rows(path, summary):
        if row.sku not in skus:
            summary.refused.append((row.line, "unknown sku"))
            continue
        batch.append(row)
        if len(batch) == _BATCH:
            _add(batch, connection, vault, key, summary, told)
            batch = []
    if batch:
        _add(batch, connection, vault, key, summary, told)
    summary.refused.sort()
    return summary


def _rows(path: Path, summary: Summary) -> Iterator[_Row]:
    """Well-formed rows; the others go to the summary. Never puts a secret into a message."""
    try:
        # Surrogates mark what is not UTF-8, so that one bad line does not stop the file.
        file = path.open(encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from error
    with file:
        reader = csv.reader(file)
        header = [name.strip().lower().removeprefix("\ufeff") for name in next(reader, [])]
        if sorted(header) != ["secret", "sku"]:
            raise SetupError(f"{path}: the first line must name the columns sku,secret")
        at_sku, at_secret = header.index("sku"), header.index("secret")
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                summary.refused.append((reader.line_num, "not CSV"))
                continue
            if not row:
                continue
            why = ""
            if len(row) != 2:
                why = "must have two columns"
            elif any("\ud800" <= c <= "\udfff" for c in "".join(row)):
                why = "not UTF-8"
            elif not _SECRET.fullmatch(row[at_secret].strip()):
                why = "the key must be 1 to 500 printable characters"
            if why:
                summary.refused.append((reader.line_num, why))
            else:
                yield _Row(reader.line_num, row[at_sku].strip(), row[at_secret].strip())


class _Told:
    """What is written down of an import: one row of `card_changes` a product, growing with each batch."""

    def __init__(self, actor: str, reason: str) -> None:
        self._actor, self._reason = actor, reason
        self._rows: dict[str, int] = {}

    def add(self, connection: psycopg.Connection, sku: str, cards: int) -> None:
        if sku in self._rows:
            connection.execute(
                "UPDATE card_changes SET cards = cards + %s WHERE id = %s", (cards, self._rows[sku])
            )
        else:
            self._rows[sku] = write_down(connection, "import", sku, cards, self._actor, self._reason)


def write_down(
    connection: psycopg.Connection, action: str, sku: str | None, cards: int, actor: str, reason: str
) -> int:
    """Note what an operator did to cards, in the caller's transaction; the note's number."""
    row = connection.execute(
        "INSERT INTO card_changes (action, sku, cards, actor, reason) VALUES (%s, %s, %s, %s, %s)"
        " RETURNING id",
        (action, sku, cards, actor, reason),
    ).fetchone()
    return int(row[0]) if row else 0


def keys_in(path: Path, connection: psycopg.Connection, vault: Vault) -> tuple[list[int], int]:
    """Which cards a CSV file as for `import_cards` names, and how many of its lines name none.

    Raises:
        SetupError: the file can't be read, or has other columns.
    """
    summary = Summary()
    key = fingerprint_key(connection, vault)
    prints = [(row.sku, fingerprint(key, row.secret)) for row in _rows(path, summary)]
    found: list[int] = []
    for start in range(0, len(prints), _BATCH):
        columns = [list(column) for column in zip(*prints[start : start + _BATCH], strict=True)]
        rows = connection.execute(
            "SELECT c.id FROM unnest(%s::text[], %s::bytea[]) AS t (sku, print)"
            " JOIN cards c ON c.fingerprint = t.print AND c.sku = t.sku",
            columns,
        ).fetchall()
        found += [int(card) for (card,) in rows]
    return found, len(prints) + len(summary.refused) - len(found)


def _add(
    batch: list[_Row],
    connection: psycopg.Connection,
    vault: Vault,
    key: bytes,
    summary: Summary,
    told: _Told,
) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE IF NOT EXISTS staged_cards (line integer, id bigint, sku text, key_id text,"
            " secret bytea, fingerprint bytea) ON COMMIT DELETE ROWS"
        )
        # The row's id is bound into its ciphertext, so it has to be known first.
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence('cards', 'id')) FROM generate_series(1, %s)",
            (len(batch),),
        )
        ids = [int(number) for (number,) in cursor.fetchall()]
        with cursor.copy("COPY staged_cards FROM STDIN") as copy:
            for card_id, row in zip(ids, batch, strict=True):
                key_id, sealed = vault.seal_card(card_id, row.secret)
                copy.write_row((row.line, card_id, row.sku, key_id, sealed, fingerprint(key, row.secret)))
        cursor.execute(
            "INSERT INTO cards (id, sku, state, key_id, secret, fingerprint)"
            " SELECT id, sku, 'available', key_id, secret, fingerprint FROM staged_cards ORDER BY line"
            " ON CONFLICT (fingerprint) DO NOTHING RETURNING id"
        )
        added = {int(number) for (number,) in cursor.fetchall()}
        by_sku = Counter(row.sku for card_id, row in zip(ids, batch, strict=True) if card_id in added)
        for sku, cards in sorted(by_sku.items()):
            told.add(connection, sku, cards)
    summary.added += len(added)
    summary.duplicate += _lines(batch, ids, added)


def _lines(batch: list[_Row], ids: Iterable[int], added: set[int]) -> list[int]:
    return [row.line for card_id, row in zip(ids, batch, strict=True) if card_id not in added]


def fingerprint_key(connection: psycopg.Connection, vault: Vault) -> bytes:
    """The key of the fingerprints, made once and sealed by the card key: rotation must not change it."""
    key_id, sealed = vault.seal("fingerprint", os.urandom(32))
    with connection.transaction():
        connection.execute(
            "INSERT INTO sealed_keys VALUES ('fingerprint', %s, %s) ON CONFLICT DO NOTHING", (key_id, sealed)
        )
        found = connection.execute(
            "SELECT key_id, secret FROM sealed_keys WHERE name = 'fingerprint' FOR UPDATE"
        ).fetchone()
        if found is None:
            raise SetupError("sealed_keys: the fingerprint key is gone; restore it from a backup")
        key = vault.open("fingerprint", found[0], bytes(found[1]))
        if found[0] != vault.current:
            key_id, sealed = vault.seal("fingerprint", key)
            connection.execute(
                "UPDATE sealed_keys SET key_id = %s, secret = %s WHERE name = 'fingerprint'", (key_id, sealed)
            )
    return key
