"""Messages in the buyer's language, by mail and as text messages."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Remember language and number with the order, channel and occasion with the message."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Messages about refunds have no place in the older table."""
    raise NotImplementedError("restore a backup instead: messages about refunds would be lost")
