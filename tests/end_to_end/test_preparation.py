"""Images of deep, grey and raw cameras get the same answer from the server and from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from model.images import read_image
from tests.conftest import Factory, surface
from tests.end_to_end.conftest import running_server
from tests.model.test_reading import deep, encoded, mosaic
from tests.service.cli.test_cli import run

Weights = tuple[Path, dict[str, list[Path]]]
OPTIONS = {
    "deep": ("--white-level", "auto", "--tiles", "auto", "--smallest-fault", "3"),
    "gray": ("--channels", "gray"),
    "raw": ("--white-level", "4095", "--bayer", "GBRG"),
    "lit": ("--normalise-light", "gain", "--fit", "letterbox", "--tiles", "2x1"),
    "large": ("--tiles", "2x1", "--overlap", "0.07"),
}


def pictures(category: str, seeds: range, *, fault: bool = False) -> list[np.ndarray]:
    """What the category's camera gives."""
    found = [surface(seed, fault=fault) for seed in seeds]
    if category == "deep":
        return [deep(image) for image in found]
    if category == "raw":
        from model.choices import Bayer

        return [mosaic(deep(image), Bayer.GBRG) for image in found]
    if category == "lit":
        return [cv2.convertScaleAbs(image, alpha=1 - index / 20) for index, image in enumerate(found)]
    if category == "large":
        return [cv2.resize(image, (640, 320), interpolation=cv2.INTER_CUBIC) for image in found]
    return found


@pytest.fixture(scope="module")
def weights(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """A category for each way to prepare images, trained by the command line, and two images of each to inspect."""
    root = tmp_path_factory.mktemp("prepared")
    files = {}
    for category, options in OPTIONS.items():
        for name, images in (
            ("good", pictures(category, range(10))),
            ("new", pictures(category, range(50, 51)) + pictures(category, range(60, 61), fault=True)),
        ):
            (root / category / name).mkdir(parents=True)
            for index, image in enumerate(images):
                suffix = ".jpg" if category == "large" else ".png"
                (root / category / name / f"{index}{suffix}").write_bytes(encoded(image, suffix))
        run(
            *("train", category, "--normal", root / category / "good", "--teacher", "narrow", "--epochs", 4),
            *("--image-size", 64, "--weights", root / "weights", "--teachers", factory.teachers, *options),
        )
        files[category] = sorted((root / category / "new").iterdir())
    return root / "weights", files


@pytest.fixture(scope="module")
def client(weights: Weights, factory: Factory) -> Iterator[httpx.Client]:
    with (
        running_server(weights[0], teachers=str(factory.teachers)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("category", OPTIONS)
def test_the_server_answers_as_the_command_line(
    client: httpx.Client, weights: Weights, factory: Factory, category: str, tmp_path: Path
):
    folder, files = weights
    done = run(
        *("inspect", category, *files[category], "--json", "--localize", "always"),
        *("--weights", folder, "--teachers", factory.teachers, "--overlay", tmp_path),
    )
    for path, offline in zip(files[category], json.loads(done.stdout), strict=True):
        address = f"/v1/categories/{category}/inspect?localize=always"
        online = client.post(address, content=path.read_bytes()).json()
        assert online["score"] == pytest.approx(offline["score"], rel=1e-5)
        for name in ("model_version", "threshold", "decision", "image"):
            assert online[name] == offline[name]
        drawn = client.post(address, content=path.read_bytes(), headers={"Accept": "image/png"})
        ours = cv2.imread(str(tmp_path / f"{path.name}.overlay.png"))
        theirs = cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR)
        assert ours.shape == theirs.shape == (*((320, 640) if category == "large" else (80, 80)), 3)
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_a_picture_that_shows_nothing_is_anomalous_and_says_why(
    client: httpx.Client, weights: Weights, factory: Factory, tmp_path: Path
):
    image = surface(70)
    pictures = {
        "good": (image, set()),
        "black": (np.zeros_like(image), {"too-dark", "too-little-contrast", "blurred"}),
        "grey": (np.full_like(image, 140), {"too-little-contrast", "blurred"}),
        "blurred": (cv2.GaussianBlur(image, (0, 0), 3), {"blurred"}),
        "overexposed": (cv2.add(image, (90, 90, 90, 0)), {"too-bright"}),
        "half": (image[: len(image) // 2], {"wrong-shape"}),
    }
    for name, (picture, reasons) in pictures.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(encoded(picture))
        online = client.post("/v1/categories/gray/inspect", content=path.read_bytes()).json()
        by_score = {"score"} & set(online["reasons"])
        assert set(online["reasons"]) - {"score"} == reasons, name
        assert online["decision"] == ("anomalous" if online["reasons"] else "normal")
        assert bool(by_score) == (online["score"] >= online["threshold"]) == (online["localization"] is not None)
        done = run("inspect", "gray", path, "--weights", weights[0], "--teachers", factory.teachers)
        assert done.stdout.split()[0] == online["decision"]
        assert all(reason in done.stdout for reason in reasons)


def test_what_does_not_fit_the_category_is_refused_with_what_to_do(client: httpx.Client):
    for category, image, reason in (
        ("deep", surface(1), "has 8 bits per value"),
        ("deep", deep(surface(1), 16383), "above 4095, the white level"),
        ("deep", deep(surface(1), 255), "nearly black where 4095 is white"),
        ("raw", surface(1), "this image has colours"),
        ("raw", mosaic_of_eight_bits(), "has 8 bits per value"),
    ):
        answer = client.post(f"/v1/categories/{category}/inspect", content=encoded(image))
        assert answer.status_code == 422, answer.text
        assert reason in answer.json()["detail"]


def mosaic_of_eight_bits() -> np.ndarray:
    """Raw sensor data of a camera without more bits."""
    return surface(1)[:, :, 0].copy()


def test_the_category_says_how_it_reads_images(client: httpx.Client):
    found = {name: client.get(f"/v1/categories/{name}").json()["card"]["preprocessing"] for name in OPTIONS}
    assert found["deep"]["levels"] == {"white": 4095, "black": 0}
    assert found["gray"]["colour"] == "gray"
    assert found["raw"]["bayer"] == "GBRG"
    assert 50 < found["lit"]["reference_brightness"] < 150
    assert [name for name, one in found.items() if one["scaled_decoding"]] == ["large"]


def test_a_large_jpeg_scores_as_the_same_picture_in_another_format(client: httpx.Client, weights: Weights):
    for path in weights[1]["large"]:
        address = "/v1/categories/large/inspect"
        files = path.read_bytes(), encoded(read_image(path))
        jpeg, png = [client.post(address, content=data).json() for data in files]
        assert jpeg["image"]["width"] == png["image"]["width"] == 640
        assert jpeg["score"] == pytest.approx(png["score"], rel=0.02)
        assert jpeg["decision"] == png["decision"]
        boxes = [tile["box"] for tile in jpeg["tiles"]]
        assert boxes == [tile["box"] for tile in png["tiles"]]
        assert all(edge % 2 == 0 for box in boxes for edge in box.values())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--white-level", "12bit"), "--white-level must be a whole number, or auto, got '12bit'"),
        (("--white-level", "-1"), "--white-level must be a whole number"),
        (("--black-level", "4"), "a black level needs a white level"),
        (("--white-level", "70000"), "white level, and that at most 65535"),
        (("--white-level", "auto"), "8 bits per value"),
    ],
)
def test_options_that_cannot_be_are_refused(factory: Factory, tmp_path: Path, options: tuple[str, ...], reason: str):
    done = run(
        *("train", "new", "--normal", factory.data / "train", "--teacher", "narrow"),
        *("--weights", tmp_path, "--teachers", factory.teachers, *options),
        status=1,
    )
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
