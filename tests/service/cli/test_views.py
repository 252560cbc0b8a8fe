"""``--region``, ``--tiles`` and ``--fit`` of ``train``, and the command ``region``."""

import json
from pathlib import Path

import pytest

from model.choices import Fit
from model.preprocessing import Tiles
from model.store.version import read_card
from tests.conftest import Factory
from tests.service.cli.test_cli import run

LEFT = [[0, 0], [39, 0], [39, 79], [0, 79]]
STAMP = [[60, 60], [75, 60], [75, 75], [60, 75]]


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def options(factory: Factory, weights: Path) -> tuple[object, ...]:
    return "--weights", weights, "--teachers", factory.teachers, "--device", "cpu"


def test_a_region_tiles_and_a_fit_stand_in_the_card_and_a_region_is_changed_later(factory: Factory, tmp_path: Path):
    region = written(tmp_path / "region.json", {"zones": [{"name": "left", "polygon": LEFT, "threshold": 3}]})
    given = options(factory, tmp_path / "weights")
    trained = run(
        "train", "new", "--normal", factory.data / "train", "--teacher", "narrow", "--epochs", 2, "--image-size", 32,
        "--region", region, "--tiles", "1x2", "--overlap", 0.2, "--fit", "letterbox", *given,
    )  # fmt: skip
    assert "each picture is 2 images for the networks; 2 epochs" in trained.output
    card = read_card(tmp_path / "weights" / "new")
    assert card.preprocessor.zones == ("left", "left")
    assert (card.preprocessing.tiles, card.preprocessing.resize) == (Tiles(1, 2, 0.2), Fit.LETTERBOX)
    assert card.zone_thresholds == {"left": 3.0}

    half = written(tmp_path / "half.json", [[[0, 0], [39, 0], [39, 29], [0, 29]]])
    changed = run("region", "new", half, "--normal", factory.data / "good", *given)
    assert "12 normal and 0 anomalous images" in changed.output
    after = read_card(tmp_path / "weights" / "new")
    assert after.preprocessor.zones == ("part",)  # nothing counts in the lower tile any more
    assert after.zone_thresholds == {}
    assert after.student_sha256 == card.student_sha256

    run("region", "new", "--normal", factory.data / "good", *given)
    everything = read_card(tmp_path / "weights" / "new")
    assert everything.preprocessing.region == card.preprocessing.region
    assert everything.zone_thresholds == {}

    beyond = written(tmp_path / "beyond.json", [STAMP])
    refused = run("region", "new", beyond, "--normal", factory.data / "good", *given, status=1)
    assert "train the category again with this region" in refused.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--tiles", "4"), "write COLUMNSxROWS, such as 6x4, or auto"),
        (("--tiles", "x4"), "write COLUMNSxROWS"),
        (("--tiles", "4x-1"), "write COLUMNSxROWS"),
        (("--tiles", "0x4"), "a grid has 1 to 1024 tiles, not 0x4"),
        (("--tiles", "auto"), "--tiles auto and --smallest-fault go together"),
        (("--smallest-fault", "5"), "--tiles auto and --smallest-fault go together"),
        (("--tiles", "auto", "--smallest-fault", "0.05"), "more than 1024; take larger images for the networks"),
        (("--tiles", "auto", "--smallest-fault", "0"), "a size above 0 pixels, got 0"),
        (("--region", "nowhere.json"), "cannot read nowhere.json: No such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    factory: Factory, tmp_path: Path, arguments: tuple[str, ...], reason: str
):
    given = options(factory, tmp_path / "weights")
    refused = run(
        "train", "new", "--normal", factory.data / "train", "--teacher", "narrow", *arguments, *given, status=1
    )
    assert reason in refused.output
    assert not (tmp_path / "weights").exists()
