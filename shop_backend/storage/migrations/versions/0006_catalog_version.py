"""Products have a version, for caches."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """A trigger raises it with every change."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """As it was before."""
    op.get_bind().exec_driver_sql(
        "DROP TRIGGER products_changed ON products; DROP FUNCTION raise_catalog_version;"
        "DROP TABLE catalog_version"
    )
