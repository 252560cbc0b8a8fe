"""Which images are kept, labels, and the log of what people changed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From the first version. Its inspections have kept no image and have no label."""
    with op.batch_alter_table("inspections") as table:
        table.add_column(sa.Column("image_kept", sa.Boolean, nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("kept_share", sa.Float, nullable=False, server_default="0"))
        table.add_column(sa.Column("label_version", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "audit",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_subject", "audit", ["subject", "n"])
