"""Second copies of accepted orders, for when the volatile Redis can't take them."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """The intents as the order stream has them."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql("DROP TABLE order_copies")
