"""The shop's first tables."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them."""
    # The driver's own call: SQLAlchemy would read the colons in the SQL as parameters.
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """There is nothing before the first."""
    raise NotImplementedError("restore a backup instead: dropping the shop's tables loses paid orders")
