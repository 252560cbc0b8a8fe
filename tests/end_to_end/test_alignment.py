"""Parts in any pose: the server answers as the command line, in pixels of the photograph."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from model.choices import Align
from tests.conftest import Factory
from tests.end_to_end.conftest import running_server
from tests.model.test_alignment import off_by, panel, posed
from tests.model.test_reading import encoded
from tests.service.cli.test_cli import run

REGION = {
    "width": 240,
    "height": 240,
    "zones": [{"name": "part", "polygon": [[40, 60], [200, 60], [200, 185], [40, 185]]}],
}
OPTIONS = {
    "turned": ("--align", "features"),
    "shifted": ("--align", "template", "--region", "REGION", "--reference", "REFERENCE", "--tiles", "2x1"),
}
FAULT = (112, 150)
"""Where it is on the reference."""


def pose_of(category: str, seed: int) -> tuple[float, tuple[float, float]]:
    """A turn in degrees and a shift in pixels."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-12, 12, 2)
    return float(rng.uniform(-180, 180) if category == "turned" else rng.uniform(-8, 8)), (float(x), float(y))


def photograph(category: str, seed: int, *, fault: bool = False) -> tuple[np.ndarray, ...]:
    """A part in some pose, and the matrix to it from the reference."""
    part = panel(seed=seed)
    if fault:
        cv2.circle(part, FAULT, 9, (15, 15, 20), cv2.FILLED, cv2.LINE_AA)
    return posed(part, *pose_of(category, seed))


@pytest.fixture(scope="module")
def weights(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category for each way to align, trained by the command line."""
    root = tmp_path_factory.mktemp("aligned")
    (root / "region.json").write_text(json.dumps(REGION))
    (root / "reference.png").write_bytes(encoded(panel()))
    for category, options in OPTIONS.items():
        (root / category).mkdir()
        for index in range(12):
            picture = photograph(category, index)[0] if index else panel()
            (root / category / f"{index:02}.png").write_bytes(encoded(picture))
        (root / category / "12.png").write_bytes(encoded(np.full((240, 240, 3), 99, np.uint8)))
        given = [{"REGION": root / "region.json", "REFERENCE": root / "reference.png"}.get(o, o) for o in options]
        done = run(
            *("train", category, "--normal", root / category, "--teacher", "narrow", "--epochs", 6, "--image-size", 64),
            *("--weights", root / "weights", "--teachers", factory.teachers, *given),
        )
        assert "1 image that cannot be aligned with the reference" in done.stderr
        assert "12.png" in done.stderr
    return root / "weights"


@pytest.fixture(scope="module")
def client(weights: Path, factory: Factory) -> Iterator[httpx.Client]:
    with (
        running_server(weights, teachers=str(factory.teachers)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("category", OPTIONS)
def test_the_server_answers_as_the_command_line(
    client: httpx.Client, weights: Path, factory: Factory, category: str, tmp_path: Path
):
    pictures = {
        "good": photograph(category, 50)[0],
        "faulty": photograph(category, 51, fault=True)[0],
        "black": np.zeros((240, 240, 3), np.uint8),
    }
    for name, picture in pictures.items():
        (tmp_path / f"{name}.png").write_bytes(encoded(picture))
    files = [tmp_path / f"{name}.png" for name in pictures]
    done = run(
        *("inspect", category, *files, "--json", "--localize", "always"),
        *("--weights", weights, "--teachers", factory.teachers, "--overlay", tmp_path / "drawn"),
    )
    for path, offline in zip(files, json.loads(done.stdout), strict=True):
        address = f"/v1/categories/{category}/inspect?localize=always"
        online = client.post(address, content=path.read_bytes()).json()
        assert online["score"] == pytest.approx(offline["score"], rel=1e-5)
        for name in ("model_version", "threshold", "decision", "reasons", "alignment", "image"):
            assert online[name] == offline[name]
        for zone, other in zip(online["tiles"] or [], offline["tiles"] or [], strict=True):
            assert zone["box"] == other["box"]
        drawn = client.post(address, content=path.read_bytes(), headers={"Accept": "image/png"})
        ours = cv2.imread(str(tmp_path / "drawn" / f"{path.name}.overlay.png"))
        theirs = cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR)
        assert ours.shape == theirs.shape == (240, 240, 3)
        assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("category", OPTIONS)
def test_the_answer_has_the_pose_and_the_fault_in_pixels_of_the_photograph(client: httpx.Client, category: str):
    card = client.get(f"/v1/categories/{category}").json()["card"]
    assert card["schema_version"] == 5
    assert card["preprocessing"]["alignment"]["method"] == OPTIONS[category][1]
    address = f"/v1/categories/{category}/inspect?localize=always"
    straight = client.post(address, content=encoded(panel())).json()["alignment"]
    to_panel = np.array(straight["matrix"])
    for seed in (60, 61):
        picture, from_panel = photograph(category, seed, fault=True)
        answer = client.post(address, content=encoded(picture)).json()
        assert 0.8 < answer["alignment"]["quality"] <= 1
        true = from_panel @ np.vstack((to_panel, [0, 0, 1]))  # the reference may be another picture than the panel
        places = np.linalg.solve(to_panel[:, :2], (np.array([[60, 60], [180, 180]]) - to_panel[:, 2]).T).T
        assert off_by(np.array(answer["alignment"]["matrix"]), true, places) < 1.5
        there = from_panel[:, :2] @ FAULT + from_panel[:, 2]
        if category == "shifted":
            boxes = [tile["box"] for tile in answer["tiles"]]
            assert any(
                box["x"] <= there[0] < box["x"] + box["width"] and box["y"] <= there[1] < box["y"] + box["height"]
                for box in boxes
            )


@pytest.mark.parametrize("category", OPTIONS)
def test_a_picture_that_cannot_be_aligned_is_rejected_for_that_reason(client: httpx.Client, category: str):
    address = f"/v1/categories/{category}/inspect"
    for picture in (np.zeros((240, 240, 3), np.uint8), np.full((31, 7, 3), 130, np.uint8)):
        answer = client.post(address, content=encoded(picture)).json()
        assert answer["decision"] == "anomalous"
        assert answer["reasons"][0] == "not-aligned"
        assert answer["alignment"]["quality"] < 0.5
        assert answer["localization"] is not None
    good = client.post(address, content=encoded(photograph(category, 70)[0])).json()
    assert "not-aligned" not in good["reasons"]


def test_a_category_without_alignment_says_nothing_of_a_pose(factory: Factory):
    with running_server(factory.weights, teachers=str(factory.teachers)) as server:
        answer = httpx.post(f"{server.url}/v1/categories/striped/inspect", content=encoded(panel()), timeout=60).json()
    assert answer["alignment"] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--reference", "flat.png"), "--reference goes with --align"),
        (("--align", "template", "--reference", "flat.png"), "shows too little to align"),
        (("--align", "template", "--reference", "none.png"), "none.png"),
        (("--align", "template", "--region", "region.json"), "--region is drawn on the reference picture"),
        (("--align", "template"), "cannot be aligned with the reference picture"),
    ],
)
def test_what_cannot_be_aligned_is_refused(
    factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], reason: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat.png").write_bytes(encoded(np.full((80, 80, 3), 99, np.uint8)))
    (tmp_path / "region.json").write_text(json.dumps(REGION))
    (tmp_path / "data").mkdir()
    for index in range(9):  # each another place of a surface without an end
        noise = np.random.default_rng(index).integers(0, 256, (80, 80, 3)).astype(np.uint8)
        (tmp_path / "data" / f"{index}.png").write_bytes(encoded(noise))
    done = run(
        *("train", "new", "--normal", tmp_path / "data", "--teacher", "narrow"),
        *("--weights", tmp_path / "weights", "--teachers", factory.teachers, *options),
        status=1,
    )
    assert reason in done.stderr
    assert not (tmp_path / "weights" / "new").exists()


def test_methods_are_those_of_the_card():
    assert {options[1] for options in OPTIONS.values()} == set(Align) - {Align.NONE}
