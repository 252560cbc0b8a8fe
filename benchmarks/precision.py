"""What reduced precision does to the scores: the built-in category's test images, once exact and once not.

    python -m benchmarks.precision [--device cpu] [--precision float16]

The built-in pair on the 225 images of unseen seeds that `make builtin` measures on, in float32 on the CPU and in
reduced precision on the device. Maps are compared on the anomalous images. Results go to
benchmarks/results/precision_DEVICE_PRECISION.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import machine_and_commit
from model.calibration import rejects
from model.detector import maps_of, scores_of
from model.lab.synthetic import write_dataset
from model.lifecycle.datasets import load_images, mvtec_test
from model.measures import auroc
from model.store.store import Store
from tools.pictures import CATEGORY, TEST_SEED, WEIGHTS


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float16", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    card, exact = Store(WEIGHTS).load(CATEGORY)
    precision = getattr(torch, arguments.precision)
    _, reduced = Store(WEIGHTS).load(CATEGORY, arguments.device, precision)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "plates"), train=0, test_good=100, test_each=25, seed=TEST_SEED)
        images = load_images(mvtec_test(Path(folder, "plates")), card.preprocessor)
    anomalous = np.array([sample.defect is not None for sample in images.samples])
    expected, found = scores_of(exact, images.pixels), scores_of(reduced, images.pixels)
    exact_maps, found_maps = (maps_of(one, images.pixels[anomalous], card.map_form) for one in (exact, reduced))
    alike = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(exact_maps, found_maps, strict=True)]
    threshold = card.calibration.threshold
    error = np.abs(found / expected - 1)
    results = {
        "command": f"python -m benchmarks.precision --device {arguments.device} --precision {arguments.precision}",
        **machine_and_commit(),
        "images": len(expected),
        "relative_score_error_median": float(np.median(error)),
        "relative_score_error_largest": float(error.max()),
        "decisions_changed": int((rejects(expected, threshold) != rejects(found, threshold)).sum()),
        "smallest_relative_distance_to_the_threshold": float(np.abs(expected / threshold - 1).min()),
        "correlation_of_maps_median": float(np.median(alike)),
        "correlation_of_maps_smallest": min(alike),
        "auroc_float32": auroc(expected[~anomalous], expected[anomalous]),
        "auroc_reduced": auroc(found[~anomalous], found[anomalous]),
    }
    print(json.dumps(results, indent=2))
    name = f"precision_{arguments.device.partition(':')[0]}_{arguments.precision}.json"
    (Path(__file__).parent / "results" / name).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
