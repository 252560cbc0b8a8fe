"""A short way to the decisions of one version and of one station, which may have hardly any of one kind."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """From the seventh version."""
    op.create_index("inspections_by_model_version_outcome", "inspections", ["model_version", "outcome", "id"])
    given = sa.text("station IS NOT NULL")
    op.create_index(
        "inspections_by_station_outcome",
        "inspections",
        ["station", "outcome", "id"],
        sqlite_where=given,
        postgresql_where=given,
    )
