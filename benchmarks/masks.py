"""How well the masks of rejected images fit their faults: area over true area, and intersection over union.

    python -m benchmarks.masks machined-plate --data PLATES     # eca-inspect synthesize PLATES --seed 777

Accepted images have no mask by default, so they do not count. ``--data`` is a folder in the MVTec AD layout with masks,
of images that the category has not seen.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from benchmarks.record import machine_and_commit
from model.detector import Detector, batches_of
from model.images import read_image
from model.lifecycle.datasets import Sample, load_images, mvtec_test
from model.lifecycle.masks import decode_mask
from model.localization import fault_mask
from model.store.card import Card
from model.store.store import Store

ROOT = Path(__file__).parent.parent


def fits(card: Card, detector: Detector, samples: list[Sample]) -> list[dict[str, object]]:
    """One record per rejected image with a mask, in the pixels of the image."""
    images = load_images(samples, card.preprocessor)
    found = [detector(batch, maps=card.map_form) for batch in batches_of(detector, images.pixels)]
    scores = np.concatenate([one.scores for one in found])
    evidence = [each for one in found for each in one.evidence or []]
    records: list[dict[str, object]] = []
    for sample, pixels, score, what in zip(images.samples, images.pixels, scores, evidence, strict=True):
        if sample.mask is None or not card.calibration.rejects(score):
            continue
        height, width = read_image(sample.path).shape[:2]
        truth = decode_mask(sample.mask).marked
        relative = what.anomaly_map() / np.float32(card.map_scale)
        mask = fault_mask(relative, pixels, width, height)
        y, x = np.unravel_index(int(relative.argmax()), relative.shape)
        near = cv2.dilate(truth.astype(np.uint8), np.ones((5, 5), np.uint8))
        records.append(
            {
                "defect": sample.defect,
                "area_ratio": float(mask.sum() / truth.sum()),
                "iou": float((mask & truth).sum() / (mask | truth).sum()),
                "level_of_normal_parts_area_ratio": float(
                    (cv2.resize(relative, (width, height), interpolation=cv2.INTER_LINEAR) > 1).sum() / truth.sum()
                ),
                "peak_in_fault": bool(near[y * height // relative.shape[0], x * width // relative.shape[1]]),
            }
        )
    return records


def summary(records: list[dict[str, object]]) -> dict[str, object]:
    """Medians, and the share of images whose peak lies in the fault."""
    return {
        "images": len(records),
        **{
            f"median_{name}": round(float(np.median([record[name] for record in records])), 3)
            for name in ("area_ratio", "iou", "level_of_normal_parts_area_ratio")
        },
        "share_of_peaks_in_the_fault": round(float(np.mean([record["peak_in_fault"] for record in records])), 3),
    }


def main() -> None:
    """Measures one category and prints, or writes, its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("category")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    card, detector = Store(arguments.weights).load(arguments.category)
    samples = [sample for sample in mvtec_test(arguments.data) if sample.defect is not None]
    records = fits(card, detector, samples)
    kinds = sorted({str(record["defect"]) for record in records})
    results = {
        "command": f"python -m benchmarks.masks {arguments.category} --data DATA",
        **machine_and_commit(),
        "map": card.map_form.value,
        "rejected": summary(records),
        "by_defect": {kind: summary([one for one in records if one["defect"] == kind]) for kind in kinds},
    }
    text = json.dumps(results, indent=2)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
