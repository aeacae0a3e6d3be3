"""What operators did to card keys is written down."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Who, when, what, how many, and why."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql("DROP TABLE card_changes")
