"""What candidates said of inspections."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From the third version, in which no candidates were compared."""
    op.create_table(
        "shadow",
        sa.Column("model_version", sa.String, primary_key=True),
        sa.Column("inspection", sa.Uuid, primary_key=True),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
    )
    op.create_index("shadow_by_inspection", "shadow", ["inspection"])
