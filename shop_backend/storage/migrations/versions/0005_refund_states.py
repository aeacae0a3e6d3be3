"""Refunds that take their time, or fail."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Tell apart what is asked for, under way, done and impossible."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """A refund that failed has no place in the older table."""
    raise NotImplementedError("restore a backup instead: the state of refunds under way would be lost")
