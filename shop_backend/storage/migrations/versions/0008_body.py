"""Orders keep the fingerprint of the request that made them."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """So that a repeated key is answered alike after the stock was loaded anew."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql("ALTER TABLE orders DROP COLUMN body")
