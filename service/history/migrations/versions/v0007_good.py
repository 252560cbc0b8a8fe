"""A short way to the good parts around an inspection."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """From the sixth version."""
    for name, good in (("labelled_good", "label = 'normal'"), ("accepted", "label IS NULL AND verdict = 'pass'")):
        op.create_index(
            f"inspections_{name}",
            "inspections",
            ["category", "width", "height", "id"],
            sqlite_where=sa.text(f"image_kept = 1 AND {good}"),
            postgresql_where=sa.text(f"image_kept AND {good}"),
        )
