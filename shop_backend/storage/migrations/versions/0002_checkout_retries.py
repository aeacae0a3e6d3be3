"""Checkouts that can't be opened are tried again later and later."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Remember the tries of each order."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql(
        "DROP INDEX orders_without_checkout;"
        "CREATE INDEX orders_without_checkout ON orders (created_at)"
        " WHERE state = 'pending' AND checkout_id IS NULL;"
        "ALTER TABLE orders DROP COLUMN next_checkout_at, DROP COLUMN checkout_tries"
    )
