"""A copy of the history has every record once, and nothing is copied over something else."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.history.backup import BackupError, back_up
from service.history.database import Database
from service.history.spool import Spool
from tests.service.history.conftest import row


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """In use: what was written last is in the write-ahead logs only."""
    folder = tmp_path / "state"
    image = folder / "images" / "ab" / ("ab" * 32)
    image.parent.mkdir(parents=True)
    image.write_bytes(b"image")
    (image.parent / ".half-written").write_bytes(b"half")
    uploaded = folder / "training-images" / "tile" / f"{'cd' * 32}.png"
    uploaded.parent.mkdir(parents=True)
    uploaded.write_bytes(b"uploaded")
    return folder


def test_what_is_only_in_the_logs_is_copied_too(state: Path, tmp_path: Path):
    database = Database(f"sqlite:///{state / 'history.sqlite'}")
    database.prepare()
    database.add([row(), row()])
    spool = Spool(state / "spool.sqlite", 1 << 20)
    spool.append([json.dumps({"n": 1})])
    assert (state / "history.sqlite-wal").stat().st_size > 0
    done = back_up(state, state / "history.sqlite", tmp_path / "copy")
    spool.close()
    database.close()
    assert (done.files, done.images) == (("spool.sqlite", "history.sqlite"), 2)
    names = sorted(
        str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()
    )
    uploaded = f"training-images/tile/{'cd' * 32}.png"
    assert names == ["history.sqlite", f"images/ab/{'ab' * 32}", "spool.sqlite", uploaded]
    assert done.bytes == sum((tmp_path / "copy" / name).stat().st_size for name in names)
    for name, table, count in (("history.sqlite", "inspections", 2), ("spool.sqlite", "waiting", 1)):
        with closing(sqlite3.connect(tmp_path / "copy" / name)) as copy:
            assert copy.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)


def test_a_copy_that_cannot_be_right_is_refused(state: Path, tmp_path: Path):
    with pytest.raises(BackupError, match="there is no history in"):
        back_up(state, state / "history.sqlite", tmp_path / "copy")
    (state / "history.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BackupError, match=r"history\.sqlite cannot be copied: file is not a database"):
        back_up(state, state / "history.sqlite", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    with pytest.raises(BackupError, match="exists and is not an empty folder"):
        back_up(state, None, full)


def test_without_a_history_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INSPECT_DATABASE", "none")
    answer = CliRunner().invoke(app, ["history", "backup", str(tmp_path / "copy")])
    assert answer.exit_code == 1
    assert "INSPECT_DATABASE=none: there is no history to copy" in answer.output
