"""Brings the database to the newest schema."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from shop_backend.errors import SetupError

_FOLDER = Path(__file__).parent / "migrations"


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connect"] = lambda: psycopg.connect(url)
    return config


def migrate(url: str, *, wait: float = 30.0) -> None:
    """Apply every step that is missing; safe to run twice, or by two at once.

    Args:
        url: of the primary.
        wait: seconds to wait for the server.

    Raises:
        SetupError: the server does not answer.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            break
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                reason = str(error).strip().splitlines()[0]
                raise SetupError(
                    f"PostgreSQL does not answer ({reason}); check TIDEGATE_DATABASE_URL"
                ) from error
            time.sleep(0.3)
    command.upgrade(_config(url), "head")


def newest() -> str:
    """The revision this code is written for."""
    return ScriptDirectory.from_config(_config("")).get_current_head() or ""
