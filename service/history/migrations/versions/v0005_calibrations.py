"""The random sample, and indexes for calibrations from labels and for a station together with a category."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From the fourth version. Its inspections belong to no random sample."""
    with op.batch_alter_table("inspections") as table:
        table.add_column(sa.Column("sample_share", sa.Float, nullable=False, server_default="0"))
    for name, columns, given in (
        ("inspections_labelled", ["category", "id"], sa.text("label IS NOT NULL")),
        ("inspections_by_station_category", ["station", "category", "id"], sa.text("station IS NOT NULL")),
    ):
        op.create_index(name, "inspections", columns, sqlite_where=given, postgresql_where=given)
