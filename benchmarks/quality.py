"""What the check of the picture costs in false alarms, and which bad pictures it refuses.

    python -m benchmarks.quality [--data FOLDER] [--splits 200]

``--data`` is a folder with ``magnetic-tile/``, ``casting/`` and ``mvtec-leather/``; plates and bolts are generated. The
check is learned from some good pictures of a set, drawn anew for each split, and judges all its other good pictures.
Then it is learned from half of them, and judges the other half made darker, brighter, flatter, blurred (by a Gaussian
whose deviation is given in pixels of the networks' input) or empty. All is prepared for a square of 128 pixels.

The numbers in `model.quality` were chosen on other plates, bolts and tiles than these, but on the same pictures of
casting and leather. Results go to benchmarks/results/quality.json.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.record import machine_and_commit
from model.images import read_image
from model.lab import bolts, synthetic
from model.lifecycle.datasets import mvtec_test, mvtec_training
from model.preprocessing import Preprocessing
from model.quality import Look, PictureCheck, look_of

ROOT = Path(__file__).parent.parent
PREPARED = Preprocessing(128)
PARTS = (8, 30, 100)
PIECES = 4
"""Of a leather picture along a side: there are too few whole ones."""


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """As a lamp of so many times the light would show it."""
    return lambda image: np.rint(image * factor).clip(0, 255).astype(np.uint8)


def flattened(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """With so many times the contrast."""
    return lambda image: np.rint(image.mean() + (image - image.mean()) * factor).clip(0, 255).astype(np.uint8)


def blurred(deviation: float) -> Callable[[np.ndarray], np.ndarray]:
    """Out of focus."""
    return lambda image: cv2.GaussianBlur(image, (0, 0), deviation * min(image.shape[:2]) / PREPARED.size)


def noise_around(grey: float | None) -> Callable[[np.ndarray], np.ndarray]:
    """Nothing but noise around this grey, or around the picture's own mean."""

    def make(image: np.ndarray) -> np.ndarray:
        drawn = np.random.default_rng(0).normal(image.mean() if grey is None else grey, 2, image.shape)
        return np.rint(drawn).clip(0, 255).astype(np.uint8)

    return make


BAD: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "black": noise_around(3),
    "empty": noise_around(None),
    "white": noise_around(250),
    **{f"{factor:g} of the light": scaled(factor) for factor in (0.15, 0.3, 0.5, 0.7, 1.4, 2.0, 3.0)},
    **{f"{factor:g} of the contrast": flattened(factor) for factor in (0.1, 0.25, 0.5)},
    **{f"blurred by {deviation:g}": blurred(deviation) for deviation in (0.75, 1.0, 1.5, 2.0, 3.0, 5.0)},
}


def sets(data: Path | None) -> dict[str, list[np.ndarray]]:
    """Good pictures."""
    rng = np.random.default_rng(55)
    found = {
        "plates": [synthetic.normal_image(rng) for _ in range(300)],
        "bolts": [bolts.normal_image(rng, rng.uniform()) for _ in range(300)],
    }
    if data is None:
        return found

    def good(name: str) -> list[np.ndarray]:
        samples = [*mvtec_training(data / name), *(one for one in mvtec_test(data / name) if one.defect is None)]
        return [read_image(one.path) for one in samples]

    found["casting"] = good("casting")
    found["leather"] = [
        part
        for image in good("mvtec-leather")
        for row in np.split(image, PIECES)
        for part in np.split(row, PIECES, axis=1)
    ]
    tiles = sorted((data / "magnetic-tile/MT_Free/Imgs").glob("*.jpg"))
    found["magnetic tile"] = [read_image(path) for path in tiles[1::2]]
    return found


def look(image: np.ndarray) -> Look:
    """As in a category without region or tiles."""
    return look_of(PREPARED.apply(image), image.shape[1] / image.shape[0])


def false_alarms(looks: list[Look], parts: int, splits: int) -> dict[str, float]:
    """Shares of the good pictures that the check did not see which it refuses, over splits."""
    shares = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(looks))
        check = PictureCheck.of([looks[place] for place in order[:parts]])
        shares.append(np.mean([bool(check.reasons(looks[place])) for place in order[parts:]]))
    return {"mean": round(float(np.mean(shares)), 6), "largest": round(float(np.max(shares)), 6)}


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--splits", type=int, default=200)
    arguments = parser.parse_args()
    rows: dict[str, object] = {}
    for name, images in sets(arguments.data).items():
        looks = [look(image) for image in images]
        order = np.random.default_rng(0).permutation(len(images))
        learned, judged = np.array_split(order, 2)
        check = PictureCheck.of([looks[place] for place in learned])
        refused = {
            kind: round(float(np.mean([bool(check.reasons(look(make(images[place])))) for place in judged])), 4)
            for kind, make in BAD.items()
        }
        counts = (*(count for count in PARTS if count < 0.8 * len(looks)), len(looks) // 2)
        alarms = {f"{parts} parts": false_alarms(looks, parts, arguments.splits) for parts in counts}
        rows[name] = {"pictures": len(images), "false_alarms": alarms, "refused": refused}
        print(name, json.dumps(rows[name]), flush=True)
    command = f"python -m benchmarks.quality --data FOLDER --splits {arguments.splits}"
    results = {"command": command, **machine_and_commit(), "sets": rows}
    (ROOT / "benchmarks" / "results" / "quality.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
