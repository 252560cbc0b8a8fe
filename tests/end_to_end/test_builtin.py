"""What is built in keeps its promise on images that nobody has seen, and the first minute ends with a found fault."""

import re
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from model.choices import COMPACT, MapForm
from model.detector import scores_of
from model.lab.synthetic import DEFECTS, write_dataset
from model.lifecycle.datasets import load_images, mvtec_test
from model.lifecycle.evaluate import evaluate_category
from model.preprocessing import Preprocessing
from model.store.store import Store
from tests.conftest import ROOT
from tests.end_to_end.conftest import running_server

WEIGHTS = ROOT / "weights"
CATEGORY = "machined-plate"
UNSEEN_SEED = 20_231
URL = f"/v1/categories/{CATEGORY}/inspect"


def test_it_tells_good_plates_from_faulty_ones_and_finds_the_faults(tmp_path: Path):
    write_dataset(tmp_path / "plates", train=0, test_good=40, test_each=8, seed=UNSEEN_SEED)
    samples = mvtec_test(tmp_path / "plates")
    found = evaluate_category(
        WEIGHTS,
        WEIGHTS / "teachers",
        CATEGORY,
        [one for one in samples if one.defect is None],
        [one for one in samples if one.defect is not None],
    )
    assert found.calibration == "youden"
    assert found.pixel_images == found.anomalous_images == 8 * len(DEFECTS)
    assert found.image.auroc.value >= 0.95
    assert found.pixel_auroc is not None
    assert found.pixel_auroc >= 0.85
    assert min(estimate.value for estimate in found.by_defect.values()) >= 0.9


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.cuda),
    ],
)
def test_float16_changes_no_decision(tmp_path: Path, device: str):
    write_dataset(tmp_path / "plates", train=0, test_good=20, test_each=4, seed=UNSEEN_SEED)
    images = load_images(mvtec_test(tmp_path / "plates"), Preprocessing(128))
    card, exact = Store(WEIGHTS).load(CATEGORY)
    _, reduced = Store(WEIGHTS).load(CATEGORY, device, torch.float16)
    expected, found = scores_of(exact, images.pixels), scores_of(reduced, images.pixels)
    np.testing.assert_allclose(found, expected, rtol=0.01)
    threshold = card.calibration.threshold
    assert ((found >= threshold) == (expected >= threshold)).all()


def hostile_pictures() -> dict[str, np.ndarray]:
    """Far from any good part, so that scores and gradients are as large as they get; uint8 RGB ``[128, 128, 3]``."""
    rng = np.random.default_rng(0)
    checkers = np.indices((128, 128)).sum(0) % 2 * 255
    blocks = (np.indices((128, 128)) // 8).sum(0) % 2 * 255
    grey = {"black": np.zeros((128, 128)), "white": np.full((128, 128), 255), "checkers": checkers, "blocks": blocks}
    pictures = {name: np.repeat(one.astype(np.uint8)[:, :, None], 3, axis=2) for name, one in grey.items()}
    return {**pictures, "noise": rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("form", [MapForm.GRADIENT, MapForm.GRADIENT_DISTANCE])
def test_float16_gradients_of_the_worst_pictures_are_finite(device: str, form: MapForm):
    pixels = np.stack(list(hostile_pictures().values()))
    _, exact = Store(WEIGHTS).load(CATEGORY)
    _, reduced = Store(WEIGHTS).load(CATEGORY, device, torch.float16)
    wanted, found = exact(pixels, maps=form), reduced(pixels, maps=form)
    assert wanted.maps is not None
    assert found.maps is not None
    for name, one, other in zip(hostile_pictures(), wanted.maps, found.maps, strict=True):
        assert np.isfinite(other).all(), name
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95, name


def test_the_samples_are_answered_as_a_newcomer_expects():
    with running_server(WEIGHTS, device="cpu") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        (listed,) = client.get("/v1/categories").json()["categories"]
        assert (listed["category"], listed["status"], listed["teacher"]) == (CATEGORY, "ready", COMPACT)
        for name in ("good", *DEFECTS):
            data = (ROOT / "samples" / f"{name}.png").read_bytes()
            answer = client.post(URL, content=data, headers={"Content-Type": "image/png"}).json()
            assert answer["decision"] == ("normal" if name == "good" else "anomalous"), name
            assert (answer["localization"] is None) == (name == "good")
            assert name == "good" or answer["localization"]["regions"]


@pytest.mark.parametrize("page", ["Makefile", "README.md"])
def test_the_first_request_that_is_shown_fits_what_is_there(page: str):
    text = (ROOT / page).read_text()
    assert URL in text
    (sample,) = set(re.findall(r"@(samples/\S+)", text))
    assert (ROOT / sample).is_file()
