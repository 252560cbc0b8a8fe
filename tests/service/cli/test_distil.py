"""``teacher distil``: a narrow teacher from a full one and any pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.store.teachers import fingerprint, load_teacher, read_teacher
from tests.conftest import Factory
from tests.service.cli.test_cli import run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders with a small and a large picture."""
    rng = np.random.default_rng(0)
    for name, size in (("small", (32, 40, 3)), ("large", (300, 200, 3))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / "pictures" / name / "a.png")
    return tmp_path / "pictures"


def test_a_teacher_is_distilled_from_a_file_and_then_further_from_itself(
    factory: Factory, tmp_path: Path, pictures: Path
):
    full = factory.teachers / "narrow.safetensors"
    folders = ("--pictures", pictures / "small", "--pictures", pictures / "large")
    common = ("--from", full, *folders, "--steps", 1, "--weights", tmp_path, "--device", "cpu")
    run("teacher", "distil", "one", *common, "--widths", "4,4,4,4,4", "--source", "stripes and noise")
    run("teacher", "distil", "two", *common, "--start", "one")
    one, two = (json.loads((tmp_path / "teachers" / f"{name}.json").read_text()) for name in ("one", "two"))
    assert (one["source"], one["pictures"], one["steps"], one["widths"]) == ("stripes and noise", [1, 1], 1, [4] * 5)
    assert one["full_teacher_sha256"] == fingerprint(read_teacher(full))
    assert one["started_from_sha256"] is None
    assert one["sha256"] == fingerprint(load_teacher(tmp_path / "teachers", "one"))
    assert (two["started_from_sha256"], two["widths"]) == (one["sha256"], [4] * 5)
    assert two["sha256"] != one["sha256"]
    # The full teacher is only read, so it is not copied into the folder.
    assert {path.name for path in (tmp_path / "teachers").iterdir()} == {
        "one.json", "one.safetensors", "two.json", "two.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "nowhere.pth", "--pictures", "{pictures}"), "no file nowhere.pth"),
        (("--from", "nowhere", "--pictures", "{pictures}"), "no teacher 'nowhere'"),
        (("--from", "{full}", "--pictures", "{pictures}/missing"), "missing"),
        (("--from", "{full}", "--pictures", "{pictures}/empty"), "empty"),
        (("--from", "{full}", "--pictures", "{pictures}/broken"), "broken.png"),
        (("--from", "{full}", "--pictures", "{pictures}", "--widths", "1,2,3"), "five numbers"),
        (("--from", "{full}", "--pictures", "{pictures}", "--start", "nowhere"), "no teacher 'nowhere'"),
    ],
)
def test_what_cannot_be_distilled_is_one_sentence_and_writes_nothing(
    factory: Factory, tmp_path: Path, pictures: Path, options: tuple[str, ...], message: str
):
    (pictures / "empty").mkdir()
    (pictures / "broken").mkdir()
    (pictures / "broken" / "broken.png").write_bytes(b"\x89PNG nonsense")
    full = factory.teachers / "narrow.safetensors"
    given = [option.format(pictures=pictures, full=full) for option in options]
    result = run("teacher", "distil", "new", *given, "--weights", tmp_path / "weights", "--device", "cpu", status=1)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "weights").rglob("new*"))
