"""Zones judged by their own level, measured: plates whose upper half is rough and whose lower half is polished.

    python -m benchmarks.zones [--seeds 1]

A student learns from 40 plates. The levels come from these, and, for comparison, from half of the pictures of the
calibration or from all of them. The threshold is drawn 200 times from 60 of 360 new plates, for 5 % of false alarms;
the other 300 are counted, and 60 plates with a dark spot in either half. Results: benchmarks/results/zones.json.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from benchmarks.accuracy.sets import ROOT, compact_teacher
from benchmarks.record import machine_and_commit
from model.calibration import rejects
from model.choices import COMPACT, FalseAlarmTarget
from model.detector import Detector, scores_of
from model.error_rates import threshold_for
from model.lab import synthetic
from model.lifecycle.datasets import LoadedImages, Sample, load_images
from model.lifecycle.recipe import Recipe
from model.lifecycle.regions import DrawnRegion
from model.lifecycle.train import train_category
from model.lifecycle.zones import DEVIATIONS
from model.measures import auroc_estimate
from model.preprocessing import Preprocessing
from model.store.store import Store

TRAIN, CALIBRATE, COUNT, FAULTY, DRAWS = 40, 60, 300, 60, 200
TARGET = FalseAlarmTarget(0.05, False)
SIDE = 256
ROUGHNESS = 180
"""Grey levels, the deviation of the noise before it is smoothed."""
DARKER = {"rough": 0.8, "smooth": 0.12}
"""By how much a spot is darker, a share."""
ZONES = {
    "rough": (((0.0, 0.0), (255.0, 0.0), (255.0, 127.0), (0.0, 127.0)),),
    "smooth": (((0.0, 128.0), (255.0, 128.0), (255.0, 255.0), (0.0, 255.0)),),
}


def plate(rng: np.random.Generator, spot: str | None = None) -> np.ndarray:
    """A plate, with a spot in one of its zones or without, uint8 RGB."""
    light = synthetic.normal_image(rng).astype(np.float32)
    half = SIDE // 2
    noise = cv2.GaussianBlur(rng.normal(0, ROUGHNESS, (half, SIDE)).astype(np.float32), (0, 0), 2)
    light = np.vstack([light[:half] + noise[:, :, None], cv2.GaussianBlur(light[half:], (0, 0), 3)])
    if spot is not None:
        x, y, radius = int(rng.integers(20, 236)), int(rng.integers(20, 108)), int(rng.integers(4, 8))
        mask = np.zeros((SIDE, SIDE), np.float32)
        cv2.circle(mask, (x, y + (half if spot == "smooth" else 0)), radius, 1, cv2.FILLED)
        light *= 1 - DARKER[spot] * cv2.GaussianBlur(mask, (0, 0), 1)[:, :, None]
    return np.clip(light, 0, 255).astype(np.uint8)


def written(folder: Path, images: Iterator[np.ndarray]) -> list[Sample]:
    """Writes plates as PNG."""
    folder.mkdir()
    found = []
    for index, image in enumerate(images):
        found.append(Sample(folder / f"{index:03}.png"))
        found[-1].path.write_bytes(cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())
    return found


def weights_from(scores: np.ndarray) -> np.ndarray:
    """As `model.lifecycle.zones.weights_of` has them, of the zones' scores ``[N, 2]``."""
    levels = scores.mean(axis=0) + DEVIATIONS * scores.std(axis=0)
    weights: np.ndarray = levels.max() / levels
    return weights


def of_zones(detector: Detector, images: LoadedImages) -> np.ndarray:
    """Scores of the zones, float64 ``[N, 2]``."""
    return scores_of(detector, images.pixels, images.masks).reshape(-1, 2).astype(np.float64)


def measured(seed: int) -> Iterator[dict[str, object]]:
    """A row for each way to find the weights."""
    with TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng([5, seed])
        training = written(folder / "train", (plate(rng) for _ in range(TRAIN)))
        new = written(folder / "new", (plate(rng) for _ in range(CALIBRATE + COUNT)))
        faulty = {zone: written(folder / zone, (plate(rng, zone) for _ in range(FAULTY))) for zone in ZONES}
        preprocessing = Preprocessing(64, region=DrawnRegion(ZONES).on(SIDE, SIDE))
        card, _ = train_category(
            "plates", training, folder / "weights", COMPACT, compact_teacher(),
            Recipe(image_size=64, epochs=60, seed=seed), preprocessing=preprocessing, each_zone=True,
        )  # fmt: skip
        _, detector = Store(folder / "weights", ROOT / "weights" / "teachers").load("plates")
        good = of_zones(detector, load_images(new, preprocessing))
        bad = {zone: of_zones(detector, load_images(some, preprocessing)) for zone, some in faulty.items()}
    from_training = np.array([card.zone_weights[zone] for zone in ZONES])
    for how in ("alike", "training", "half of the calibration", "all of the calibration"):
        draws, rates, found = np.random.default_rng(seed), [], {zone: [] for zone in ZONES}
        weights = np.ones(2) if how == "alike" else from_training
        for _ in range(DRAWS):
            order = draws.permutation(len(good))
            chosen, rest = good[order[:CALIBRATE]], good[order[CALIBRATE:]]
            if how == "half of the calibration":
                weights, chosen = weights_from(chosen[: CALIBRATE // 2]), chosen[CALIBRATE // 2 :]
            elif how == "all of the calibration":
                weights = weights_from(chosen)
            threshold, _ = threshold_for((chosen * weights).max(axis=1), TARGET)
            rates.append(rejects((rest * weights).max(axis=1), threshold).mean())
            for zone, scores in bad.items():
                found[zone].append(rejects((scores * weights).max(axis=1), threshold).mean())
        weighed = (good * weights).max(axis=1)
        yield {
            "levels": how,
            "seed": seed,
            "weights": weights.round(3).tolist(),
            "weights_of_new_plates": weights_from(good).round(3).tolist(),
            "false_alarms": round(float(np.mean(rates)), 4),
            "found": {zone: round(float(np.mean(shares)), 3) for zone, shares in found.items()},
            "auroc": {
                zone: round(auroc_estimate(weighed, (scores * weights).max(axis=1)).value, 4)
                for zone, scores in bad.items()
            },
        }


def main() -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(arguments.seeds):
        for row in measured(seed):
            rows.append(row)
            print(json.dumps(row), flush=True)
    results = {"command": f"python -m benchmarks.zones --seeds {arguments.seeds}", **machine_and_commit(), "rows": rows}
    (ROOT / "benchmarks" / "results" / "zones.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
