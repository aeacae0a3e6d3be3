"""The next available card of a product is found by one index, and no other will do."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """An expression that only this index has in order."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql(
        "CREATE INDEX cards_available ON cards (sku, id) WHERE state = 'available'; DROP INDEX cards_next"
    )
