"""Alembic's environment: one connection, one migration at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

MIGRATIONS_LOCK = 7203002


def run() -> None:
    """Migrate the database whose connection `storage.migrate` put into the config."""
    connect = context.config.attributes["connect"]
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    with engine.connect() as connection:
        # Held by the session, so that two processes starting at once migrate one after the other.
        connection.execute(text(f"SELECT pg_advisory_lock({MIGRATIONS_LOCK})"))
        connection.commit()
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
