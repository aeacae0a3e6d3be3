"""Products that no shelf shows: of a rehearsal."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """All that are there are listed, but for a rehearsal's."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql("ALTER TABLE products DROP COLUMN listed")
