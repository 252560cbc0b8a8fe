"""The tables of the history. `migrations/` brings the database of an older version to this form."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    and_,
    column,
    false,
    literal_column,
)  # fmt: skip

METADATA = MetaData()

INSPECTIONS = Table(
    "inspections",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("category", String, nullable=False),
    Column("model_version", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("score", Float),
    Column("threshold", Float),
    Column("part_id", String),
    Column("lot", String),
    Column("station", String),
    Column("part", String),
    Column("part_inspection", Uuid),
    Column("request_id", String),
    Column("sha256", String, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("bytes", Integer, nullable=False),
    Column("label", String),
    Column("details", JSON, nullable=False),
    Column("image_kept", Boolean, nullable=False, server_default=false()),
    Column("kept_share", Float, nullable=False, server_default="0"),
    Column("label_version", Integer, nullable=False, server_default="0"),
    Column("sample_share", Float, nullable=False, server_default="0"),
    Column("verdict", String),
)
"""One row for each image that was received. Its id has the time in it, so that ids are in the order of time.

`label_version` is the number of the last line of `AUDIT` that changed its label, 0 if there is none.
"""

AUDIT = Table(
    "audit",
    METADATA,
    Column("n", Integer, primary_key=True, autoincrement=True),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("actor", String),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("before", JSON),
    Column("after", JSON),
    Index("audit_by_subject", "subject", "n"),
    sqlite_autoincrement=True,
)
"""What people changed, one line each; lines are added and never changed."""

SHADOW = Table(
    "shadow",
    METADATA,
    Column("model_version", String, primary_key=True),
    Column("inspection", Uuid, primary_key=True),
    Column("score", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("outcome", String, nullable=False),
    Index("shadow_by_inspection", "inspection"),
)
"""What candidates said of inspections, beside the version that decided; `model_version` is the candidate's."""


def index(*names: str, where_given: bool = False) -> Index:
    """For a search by these columns, newest first.

    Args:
        names: of the columns before the id.
        where_given: leaves out rows in which the first of them is null.
    """
    given = column(names[0]).is_not(None) if where_given else None
    columns = [INSPECTIONS.c[name] for name in (*names, "id")]
    return Index(f"inspections_by_{'_'.join(names)}", *columns, sqlite_where=given, postgresql_where=given)


index("category")
index("category", "outcome")
index("category", "score")
index("outcome")
index("model_version")
index("model_version", "outcome")
index("sha256")
Index(
    "inspections_to_review",
    *(INSPECTIONS.c[name] for name in ("category", "label", "id")),
    sqlite_where=INSPECTIONS.c.image_kept,
    postgresql_where=INSPECTIONS.c.image_kept,
)
for _name in ("part_id", "lot", "station", "part_inspection", "label", "verdict"):
    index(_name, where_given=True)
index("station", "category", where_given=True)
index("station", "outcome", where_given=True)
_labelled = INSPECTIONS.c.label.is_not(None)
Index(
    "inspections_labelled",
    INSPECTIONS.c.category,
    INSPECTIONS.c.id,
    sqlite_where=_labelled,
    postgresql_where=_labelled,
)
LABELLED_GOOD = and_(INSPECTIONS.c.image_kept, INSPECTIONS.c.label == literal_column("'normal'"))
"""A person says that the part is good, and its image was to be kept."""
ACCEPTED = and_(
    INSPECTIONS.c.image_kept, INSPECTIONS.c.label.is_(None), INSPECTIONS.c.verdict == literal_column("'pass'")
)
"""The service accepted the part and nobody has labelled it, and its image was to be kept."""
for _name, _good in (("labelled_good", LABELLED_GOOD), ("accepted", ACCEPTED)):
    Index(
        f"inspections_{_name}",
        *(INSPECTIONS.c[name] for name in ("category", "width", "height", "id")),
        sqlite_where=_good,
        postgresql_where=_good,
    )
