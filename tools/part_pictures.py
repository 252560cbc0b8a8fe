"""Makes the pictures of docs/preparation.md: zones and tiles with what was found in them, and an aligned part.

Run `make pictures`, or ``python -m tools.part_pictures`` for these three alone.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image

from benchmarks.alignment import SIDE, panel_light, photographed, turned
from model.alignment import Alignment
from model.choices import COMPACT, Align
from model.lab import panels, synthetic
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import Sample, normal_samples
from model.lifecycle.recipe import Recipe
from model.lifecycle.regions import prepared, read_region
from model.lifecycle.train import train_category
from model.preprocessing import Preprocessing, Tiles
from model.region import Polygon
from model.store.card import SCHEMA_VERSION, PreprocessingRecord
from model.store.store import Store
from model.store.teachers import load_teacher
from service.catalogue import Ready
from service.choices import Localize
from service.inspection import Limits, Wanted, inspect_offline
from service.schemas import Inspection

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "weights"
IMAGES = ROOT / "docs" / "images"
CATEGORY = "machined-plate"
LIMITS = Limits(32 << 20, 1 << 26)
GOOD, BAD, INK, GRID = (0, 130, 50), (215, 30, 30), (0, 0, 0), (70, 90, 150)
REGION = {
    "width": 256,
    "height": 256,
    "zones": [
        {"name": "face", "polygon": [[16, 20], [154, 20], [154, 236], [16, 236]]},
        {"name": "edge", "polygon": [[170, 20], [240, 20], [240, 236], [170, 236]]},
    ],
    "ignored": [[[30, 180], [86, 180], [86, 220], [30, 220]]],
}
RECIPE = Recipe(image_size=64, epochs=100, batch_size=8)
"""Of the pair that judges the zones."""
PANEL = 1824, 1216
TILES = Tiles(8, 5)
PART: Polygon = ((50, 70), (206, 70), (206, 190), (50, 190))
"""Of the panel that is aligned, on its reference."""
PLACES = (PART, ((80, 98), (178, 98), (178, 132), (80, 132)))


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    """The file of RGB pixels."""
    data: bytes = cv2.imencode(suffix, image[:, :, ::-1])[1].tobytes()
    return data


def written(folder: Path, images: Sequence[np.ndarray]) -> list[Sample]:
    """Writes pictures of good parts."""
    folder.mkdir()
    for index, image in enumerate(images):
        (folder / f"{index:02}.png").write_bytes(encoded(image))
    return list(normal_samples(folder))


def judged(store: Store, category: str, image: np.ndarray) -> tuple[Inspection, np.ndarray]:
    """What the server answers for a picture, and the overlay."""
    card, detector = store.load(category)
    ready = Ready(card, detector.teacher, lambda: detector)
    found, overlay = inspect_offline(ready, encoded(image), Wanted(Localize.AUTO), LIMITS, with_overlay=True)
    assert overlay is not None
    drawn = cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    return found, drawn[:, :, ::-1]


def outline(picture: np.ndarray, polygon: Sequence[Sequence[float]], colour: tuple[int, int, int], width: int) -> None:
    """Draws a closed line."""
    points = np.rint(np.array(polygon)).astype(np.int32)
    cv2.polylines(picture, [points], True, colour, width, cv2.LINE_AA)


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """Of so many times the size, so that lines and words on it are fine."""
    found: np.ndarray = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return found


def zones_picture(store: Store, folder: Path) -> np.ndarray:
    """A plate with a fault in one of two zones, and one with dirt where nothing counts."""
    rng = np.random.default_rng(0)
    region = folder / "region.json"
    region.write_text(json.dumps(REGION))
    good = written(folder / "plates", [synthetic.normal_image(rng) for _ in range(24)])
    preprocessing = prepared(good, RECIPE.image_size, region=read_region(region))
    teacher = load_teacher(store.teachers, COMPACT)
    train_category("zones", good, folder / "weights", COMPACT, teacher, RECIPE, preprocessing=preprocessing)
    plate = synthetic.normal_image(rng)
    faulty, dirty = plate.copy(), plate.copy()
    cv2.circle(faulty, (205, 95), 6, (40, 38, 36), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(dirty, (55, 200), 9, (40, 38, 36), cv2.FILLED, cv2.LINE_AA)
    cells = []
    for image in (faulty, dirty):
        found, _ = judged(store, "zones", image)
        drawn = enlarged(image, 2)
        for polygon in REGION["ignored"]:
            corners = 2 * np.array(polygon)
            shade = cv2.fillPoly(drawn.copy(), [corners.astype(np.int32)], (255, 255, 255))
            drawn = cv2.addWeighted(drawn, 0.6, shade, 0.4, 0)
            cv2.putText(drawn, "ignored", corners[0] + (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, INK, 1, cv2.LINE_AA)
        for zone, verdict in zip(REGION["zones"], found.zones or [], strict=True):
            colour = BAD if verdict.decision == "anomalous" else GOOD
            corners = 2 * np.array(zone["polygon"])
            outline(drawn, corners, colour, 3)
            words = f"{verdict.name}: {verdict.decision}"
            cv2.putText(drawn, words, corners[0] + (0, -10), cv2.FONT_HERSHEY_SIMPLEX, 0.6, INK, 1, cv2.LINE_AA)
        cells.append(drawn)
    return np.hstack([cells[0], np.full((512, 8, 3), 255, np.uint8), cells[1]])


def tiles_picture(store: Store, folder: Path) -> np.ndarray:
    """A large panel in tiles, and the fault that one of them shows."""
    rng = np.random.default_rng(1)
    card = store.card(CATEGORY)
    record = PreprocessingRecord.of(Preprocessing(card.image_size, tiles=TILES))
    changed = {"category": "panel", "schema_version": SCHEMA_VERSION, "preprocessing": record}
    encoded_student, seen, traces = store.encoded_student(CATEGORY, card), store.seen(CATEGORY), store.traces(CATEGORY)
    store.write(card.model_copy(update=changed).named(), encoded_student, seen, traces, replace=None)
    good = written(folder / "panels", [panels.normal_image(rng, *PANEL) for _ in range(10)])
    calibrate_category(
        store.folder("panel").parent, store.teachers, "panel", good, [], without_anomalous=True,
    )  # fmt: skip
    image, mask = panels.defective_image(rng, panels.DEFECTS[0], *PANEL)
    found, overlay = judged(store, "panel", image)
    drawn = image.copy()
    for tile in sorted(found.tiles or [], key=lambda one: one.decision, reverse=True):  # what rejected is drawn last
        rejected = tile.decision == "anomalous"
        box, thick = tile.box, 8 if rejected else 3
        corners = (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)
        cv2.rectangle(drawn, *corners, BAD if rejected else GRID, thick)
    y, x = (int(np.mean(places)) for places in np.nonzero(mask))
    half = PANEL[1] // 8
    left, top = (min(max(0, at - half), length - 2 * half) for at, length in ((x, PANEL[0]), (y, PANEL[1])))
    close = overlay[top : top + 2 * half, left : left + 2 * half]
    height = 480
    whole = cv2.resize(drawn, (round(PANEL[0] * height / PANEL[1]), height), interpolation=cv2.INTER_AREA)
    close = cv2.resize(close, (height, height), interpolation=cv2.INTER_CUBIC)
    return np.hstack([whole, np.full((height, 8, 3), 255, np.uint8), close])


def aligned_picture() -> np.ndarray:
    """The reference with a region, the part in another pose with the same region, and the part aligned."""
    rng = np.random.default_rng(2)
    light = panel_light()
    reference = photographed(light, rng)
    pose = turned(rng, 170, 16, 0.03)
    moved = cv2.warpAffine(light, pose, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    photograph = photographed(moved, rng)
    alignment = Alignment.to(reference, Align.FEATURES)
    found = alignment.find(photograph)
    assert found.aligned
    upright = alignment.apply(photograph, found)
    cells = []
    for image, matrix in ((reference, np.eye(2, 3)), (photograph, found.matrix), (upright, np.eye(2, 3))):
        drawn = enlarged(image, 2)
        for polygon in PLACES:
            outline(drawn, 2 * (np.array(polygon) @ matrix[:, :2].T + matrix[:, 2]) + 0.5, GOOD, 3)
        cells += [drawn, np.full((2 * SIDE, 8, 3), 255, np.uint8)]
    return np.hstack(cells[:-1])


def make_part_pictures(images: Path) -> None:
    """Writes the three pictures into a folder."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights"
        weights.mkdir()
        (weights / "teachers").symlink_to(WEIGHTS / "teachers")
        shutil.copytree(WEIGHTS / CATEGORY, weights / CATEGORY)
        store = Store(weights)
        for file, picture in (
            ("tiles", tiles_picture(store, folder)),
            ("zones", zones_picture(store, folder)),
            ("aligned", aligned_picture()),
        ):
            sheet = Image.fromarray(picture)
            sheet = sheet.resize((1000, round(sheet.height * 1000 / sheet.width)), Image.Resampling.LANCZOS)
            sheet.save(images / f"{file}.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    make_part_pictures(IMAGES)
