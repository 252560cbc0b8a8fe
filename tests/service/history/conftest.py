"""Databases of both kinds, and rows to put into them."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from service.history.database import Database
from service.history.records import Row, time_of
from tests.postgres import Cluster

NUMBERS = count()
START = 1_750_000_000_000
"""Milliseconds since 1970 of the first row."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'made' / 'history.sqlite'}"
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    made.prepare()
    yield made
    made.close()


def row(**given: Any) -> Row:
    """An inspection, a second after the one that was made before."""
    number = next(NUMBERS)
    identity = UUID(int=(START + 1000 * number << 80) + (7 << 76) + number)
    return {
        "id": identity,
        "time": time_of(identity),
        "category": "tile",
        "model_version": "v1",
        "outcome": "normal",
        "score": 1.0,
        "threshold": 2.0,
        "verdict": "pass",
        "part_id": None,
        "lot": None,
        "station": None,
        "part": None,
        "part_inspection": None,
        "request_id": "r",
        "sha256": f"{number:064x}",
        "width": 8,
        "height": 8,
        "bytes": 100,
        "details": {"reasons": []},
        **given,
    }
