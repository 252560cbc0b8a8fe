"""A short way to the images that people review."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From the second version."""
    op.create_index(
        "inspections_to_review",
        "inspections",
        ["category", "label", "id"],
        sqlite_where=sa.text("image_kept = 1"),
        postgresql_where=sa.text("image_kept"),
    )
