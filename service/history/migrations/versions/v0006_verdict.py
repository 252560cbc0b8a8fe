"""The verdict of each inspection, which may ask for a person."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """From the fifth version. No category had a review band, so the verdict follows from the decision."""
    with op.batch_alter_table("inspections") as table:
        table.add_column(sa.Column("verdict", sa.String))
    for outcome, verdict in (("normal", "pass"), ("anomalous", "fail")):
        op.execute(f"UPDATE inspections SET verdict = '{verdict}' WHERE outcome = '{outcome}'")
    given = sa.text("verdict IS NOT NULL")
    op.create_index(
        "inspections_by_verdict", "inspections", ["verdict", "id"], sqlite_where=given, postgresql_where=given
    )
