"""The first version: inspections."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INDEXES = ("category", "category outcome", "category score", "outcome", "model_version", "sha256")
INDEXES_WHERE_GIVEN = ("part_id", "lot", "station", "part_inspection", "label")


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "inspections",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("category", sa.String, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("threshold", sa.Float),
        sa.Column("part_id", sa.String),
        sa.Column("lot", sa.String),
        sa.Column("station", sa.String),
        sa.Column("part", sa.String),
        sa.Column("part_inspection", sa.Uuid),
        sa.Column("request_id", sa.String),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("label", sa.String),
        sa.Column("details", sa.JSON, nullable=False),
    )
    for names in INDEXES:
        columns = names.split()
        op.create_index(f"inspections_by_{'_'.join(columns)}", "inspections", [*columns, "id"])
    for name in INDEXES_WHERE_GIVEN:
        given = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"inspections_by_{name}", "inspections", [name, "id"], sqlite_where=given, postgresql_where=given
        )
