"""How exactly parts are aligned with a reference, what is taken for another part, and what it brings.

    python -m benchmarks.alignment poses
    python -m benchmarks.alignment cost
    python -m benchmarks.alignment casting --data FOLDER --cache FOLDER [--seeds 3] [--steps 300]

``poses`` needs no data: generated parts in poses that are known. ``--data`` is a folder with ``casting/``, and, for
other parts that must not be aligned, ``magnetic-tile/`` and ``mvtec-leather/``. Each part writes one file in
``benchmarks/results``.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.accuracy import objects
from benchmarks.accuracy.sets import ROOT, compact_teacher
from benchmarks.record import machine_and_commit
from model.alignment import LEAST_QUALITY, Alignment, Found, choose_reference
from model.choices import Align, Score, TermWeights
from model.detector import Detector
from model.images import read_image
from model.lab import bolts, synthetic
from model.lab.optics import SIDE, expose
from model.measures import auroc
from model.networks.vgg import Student, student_plan
from model.preprocessing import Preprocessing

PAIRS = 60
"""Pictures of each kind of pose."""
WRONG = 10.0
"""A pose is wrong, not only inexact, where it is off by more pixels than this."""
CORNERS = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5]])
"""Places where the error of a pose is measured, as shares of the picture."""


class Pair(NamedTuple):
    """A reference, a picture of the same part, the true matrix, and where on the part to measure, ``[N, 2]``."""

    reference: np.ndarray
    picture: np.ndarray
    truth: np.ndarray
    places: np.ndarray


def turned(rng: np.random.Generator, angle: float, shift: float, scale: float) -> np.ndarray:
    """A pose up to so many degrees, pixels and shares of the size away, around the middle of the picture."""
    middle = ((SIDE - 1) / 2, (SIDE - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, rng.uniform(-angle, angle), 1 + rng.uniform(-scale, scale))
    matrix[:, 2] += rng.uniform(-shift, shift, 2)
    return matrix


def photographed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another photograph of the same: another lamp, with more light on one side, and new noise of the sensor."""
    y, x = np.mgrid[-1 : 1 : len(light) * 1j, -1 : 1 : light.shape[1] * 1j]
    lamp = (1 + x * rng.normal(0, 0.06) + y * rng.normal(0, 0.06)) * rng.normal(1, 0.05)
    return expose(light * lamp[:, :, None], rng)


def plates(angle: float, scale: float) -> Iterator[Pair]:
    """A ground steel plate that fills the picture: two photographs of the same spot."""
    side = 160
    edge = (SIDE - side) // 2
    middle = slice(edge, edge + side)
    for index in range(PAIRS):
        rng = np.random.default_rng([1, index])
        plate = synthetic.normal_image(rng).astype(float)
        pose = turned(rng, angle, 12, scale)
        moved = cv2.warpAffine(plate, pose, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        truth = np.column_stack((pose[:, :2], pose[:, :2] @ [edge, edge] + pose[:, 2] - edge))
        views = (photographed(light[middle, middle], rng) for light in (plate, moved))
        yield Pair(*views, truth, CORNERS * side)


def panels(angle: float, scale: float) -> Iterator[Pair]:
    """A flat panel with holes and print, wholly in the picture."""
    for index in range(PAIRS):
        rng = np.random.default_rng([2, index])
        pose = turned(rng, angle, 20, scale)
        panel = panel_light()
        moved = cv2.warpAffine(panel, pose, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        views = (photographed(cv2.GaussianBlur(light, (0, 0), 0.8), rng) for light in (panel, moved))
        yield Pair(*views, pose, CORNERS * SIDE)


def panel_light() -> np.ndarray:
    """What falls on the sensor, grey levels: float64 ``[SIDE, SIDE, 3]``."""
    drawn = np.full((SIDE, SIDE), 118, np.uint8)
    cv2.rectangle(drawn, (50, 70), (206, 190), 170, cv2.FILLED)
    for x, y, radius in ((70, 90, 9), (186, 90, 9), (70, 170, 9), (150, 150, 20)):
        cv2.circle(drawn, (x, y), radius, 60, cv2.FILLED, cv2.LINE_AA)
    cv2.putText(drawn, "A7-23", (85, 125), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 40, 2, cv2.LINE_AA)
    cv2.rectangle(drawn, (170, 130), (196, 180), 90, cv2.FILLED)
    return np.repeat(drawn[:, :, None].astype(float), 3, axis=2)


def other_bolts() -> Iterator[Pair]:
    """Two different bolts, each in any pose, on another ground, under a lamp that does not turn with them."""
    for first in (0, 1, 2):
        for index in range(PAIRS // 3):
            seeds = ([3, first], [4, first, index])
            a, b = (bolts.draw_pose(np.random.default_rng(seed)) for seed in seeds)
            turn = b.angle - a.angle
            linear = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
            truth = np.column_stack((linear, np.array([b.x, b.y]) - linear @ [a.x, a.y]))
            along = np.array([math.cos(a.angle), math.sin(a.angle)]) * a.length
            places = np.array([a.x, a.y]) + np.outer(np.linspace(-0.5, 0.5, 5), along)
            yield Pair(*(bolts.normal_image(np.random.default_rng(seed)) for seed in seeds), truth, places)


KINDS: dict[str, tuple[Callable[[], Iterator[Pair]], tuple[Align, ...]]] = {
    "plate, shifted": (lambda: plates(0, 0), (Align.TEMPLATE, Align.FEATURES)),
    "plate, turned up to 10 degrees": (lambda: plates(10, 0), (Align.TEMPLATE, Align.FEATURES)),
    "plate, any turn": (lambda: plates(180, 0), (Align.FEATURES,)),
    "panel, shifted": (lambda: panels(0, 0), (Align.TEMPLATE, Align.FEATURES)),
    "panel, turned up to 10 degrees": (lambda: panels(10, 0), (Align.TEMPLATE, Align.FEATURES)),
    "panel, any turn": (lambda: panels(180, 0), (Align.FEATURES,)),
    "panel, any turn, 8 % in size": (lambda: panels(180, 0.08), (Align.FEATURES,)),
    "another bolt, any turn": (other_bolts, (Align.FEATURES,)),
}


def keypoints(reference: np.ndarray, picture: np.ndarray) -> np.ndarray | None:
    """The rival: ORB keypoints matched both ways, and RANSAC."""
    orb = cv2.ORB_create(1000, fastThreshold=5)
    (ours, a), (theirs, b) = (
        orb.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (reference, picture)
    )
    if a is None or b is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(a, b)
    if len(matches) < 4:
        return None
    cv2.setRNGSeed(0)
    pose, _ = cv2.estimateAffinePartial2D(
        np.array([ours[match.queryIdx].pt for match in matches], np.float32),
        np.array([theirs[match.trainIdx].pt for match in matches], np.float32),
        method=cv2.RANSAC,
        ransacReprojThreshold=4,
        maxIters=2000,
        confidence=0.995,
    )
    return pose


def off_by(matrix: np.ndarray, pair: Pair) -> float:
    """Mean distance in pixels of the places from where they are."""
    found, true = (pair.places @ one[:, :2].T + one[:, 2] for one in (matrix, pair.truth))
    return float(np.linalg.norm(found - true, axis=1).mean())


def told(errors: list[float], qualities: list[float] | None = None) -> dict[str, object]:
    """How many poses were right, and how exact these are."""
    off = np.array(errors)
    right = off <= WRONG
    row: dict[str, object] = {"pictures": len(off), "right": round(float(right.mean()), 3)}
    if right.any():
        row["error_pixels"] = {"mean": rounded(off[right].mean()), "p95": rounded(np.percentile(off[right], 95))}
    if qualities is not None:
        of = np.array(qualities)
        row["quality_of_right"] = quantiles(of[right])
        row["quality_of_wrong"] = quantiles(of[~right]) if not right.all() else None
    return row


def poses(_: argparse.Namespace) -> dict[str, object]:
    """Errors in pixels at known poses, for each kind and method, and of the rival."""
    rows: dict[str, object] = {}
    for name, (pairs, methods) in KINDS.items():
        drawn = list(pairs())
        row: dict[str, object] = {}
        for method in methods:
            found = [Alignment.to(pair.reference, method).find(pair.picture) for pair in drawn]
            errors = [off_by(one.matrix, pair) for one, pair in zip(found, drawn, strict=True)]
            row[method.value] = told(errors, [one.quality for one in found])
        rival = [(keypoints(pair.reference, pair.picture), pair) for pair in drawn]
        row["ORB and RANSAC"] = told([math.inf if pose is None else off_by(pose, pair) for pose, pair in rival])
        rows[name] = row
        print(name, row, flush=True)
    return {"picture_pixels": [SIDE, SIDE], "wrong_beyond_pixels": WRONG, "poses": rows}


def cost(_: argparse.Namespace) -> dict[str, object]:
    """Processor time of one thread for pictures of several sizes: a bolt, and another bolt of the same size."""
    cv2.setNumThreads(1)
    rows: dict[str, object] = {}
    for width, height in ((256, 256), (1024, 1024), (5472, 3648)):
        first, second = (
            cv2.resize(bolts.normal_image(np.random.default_rng(seed)), (width, height)) for seed in ([3, 0], [4, 0, 1])
        )
        row: dict[str, float] = {}
        for method in (Align.TEMPLATE, Align.FEATURES):
            alignment = Alignment.to(first, method)
            found = alignment.find(second)  # prepares the reference
            row[f"find_{method.value}_ms"] = least(partial(alignment.find, second))
        row["apply_ms"] = least(partial(alignment.apply, second, found))
        rows[f"{width}x{height}"] = row
        print(width, height, row, flush=True)
    return {"processor_ms": rows, "threads": 1}


def least(work: Callable[[], object], times: int = 7) -> float:
    """Milliseconds of processor time of the fastest of some runs."""
    spent = []
    for _ in range(times):
        started = time.process_time()
        work()
        spent.append(1000 * (time.process_time() - started))
    return round(min(spent), 1)


def casting(arguments: argparse.Namespace) -> dict[str, object]:
    """Round castings: how well they align, how often they are turned, and what the score gains."""
    data: Path = arguments.data
    groups = {
        "normal": pictures(data / "casting" / "train" / "good"),
        "good": pictures(data / "casting" / "test" / "good"),
        "bad": pictures(data / "casting" / "test" / "defect"),
    }
    others = {
        "bolts": [bolts.normal_image(np.random.default_rng([5, index])) for index in range(40)],
        "plates": [synthetic.normal_image(np.random.default_rng([6, index])) for index in range(40)],
        "magnetic tile": pictures(data / "magnetic-tile" / "MT_Free" / "Imgs", 40),
        "leather": pictures(data / "mvtec-leather" / "test", 24),
    }
    rows: dict[str, object] = {}
    scores: dict[str, object] = {}
    scored = arguments.seeds > 0
    plain = {name: np.concatenate([square(image) for image in images]) for name, images in groups.items()}
    if scored:
        scores["none"] = judged(
            "none", plain, {name: np.ones(len(images), bool) for name, images in groups.items()}, arguments
        )
        print("none", scores["none"], flush=True)
    for method in (Align.TEMPLATE, Align.FEATURES):
        index = choose_reference(groups["normal"], method)
        alignment = Alignment.to(groups["normal"][index], method)
        found = {name: [alignment.find(image) for image in images] for name, images in {**groups, **others}.items()}
        rows[method.value] = {"reference": index} | {name: of_group(ones) for name, ones in found.items()}
        print(method.value, rows[method.value], flush=True)
        aligned = {name: np.array([one.aligned for one in found[name]]) for name in groups}
        if not scored:
            continue
        fills = FILLS if method is Align.FEATURES else {OURS: FILLS[OURS]}  # few corners are empty
        for fill, applied in fills.items():
            pixels = {
                name: np.concatenate(
                    [square(applied(alignment, image, one)) for image, one in zip(images, found[name], strict=True)]
                )
                for name, images in groups.items()
            }
            scores[f"{method.value}, {fill}"] = judged(f"{method.value}-{fill}", pixels, aligned, arguments)
            print(method.value, fill, scores[f"{method.value}, {fill}"], flush=True)
    return {"steps": arguments.steps, "seeds": arguments.seeds, "poses": rows, "auroc": scores}


def border_mean(alignment: Alignment, image: np.ndarray, found: Found) -> np.ndarray:
    """As `Alignment.apply`, with the mean of the picture's border for what lies outside."""
    border = np.concatenate((image[0], image[-1], image[:, 0], image[:, -1])).mean(axis=0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, found.matrix, (alignment.width, alignment.height), flags=flags, borderValue=border.tolist()
    )


OURS = "border repeated"
FILLS: dict[str, Callable[[Alignment, np.ndarray, Found], np.ndarray]] = {
    OURS: Alignment.apply,
    "mean of the border": border_mean,
}


def square(image: np.ndarray) -> np.ndarray:
    """``[1, 128, 128, 3]``."""
    return Preprocessing(128).apply(image)


def pictures(folder: Path, most: int | None = None) -> list[np.ndarray]:
    """The images of a folder and below it, in order."""
    return [read_image(path) for path in sorted(folder.rglob("*.[jp][pn]*g"))[:most]]


def of_group(found: list[Found]) -> dict[str, object]:
    """How well a group aligns, and how it is turned."""
    angles = [math.degrees(math.atan2(one.matrix[1, 0], one.matrix[0, 0])) for one in found if one.aligned]
    scales = [math.sqrt(np.linalg.det(one.matrix[:, :2])) for one in found if one.aligned]
    row: dict[str, object] = {
        "pictures": len(found),
        "aligned": sum(one.aligned for one in found),
        "quality": quantiles(np.array([one.quality for one in found])),
    }
    if angles:
        row["turned"] = sum(abs(angle) > 1e-6 for angle in angles)
        row["turned_degrees"] = quantiles(np.abs(angles))
        row["scale"] = quantiles(np.array(scales))
    return row


def judged(
    name: str, pixels: dict[str, np.ndarray], aligned: dict[str, np.ndarray], arguments: argparse.Namespace
) -> dict[str, object]:
    """AUROC of quick students; a picture that is not aligned counts as the most unusual."""
    teacher = compact_teacher()
    found = []
    for seed in range(arguments.seeds):
        path = arguments.cache / f"alignment-{name.replace(' ', '-')}-{seed}.safetensors"
        if not path.exists():
            objects.STEPS = arguments.steps
            student = objects.trained(teacher, pixels["normal"][aligned["normal"]], TermWeights(), seed)
            arguments.cache.mkdir(parents=True, exist_ok=True)
            save_file({key: value.contiguous() for key, value in student.state_dict().items()}, path)
        student = Student(student_plan(teacher.plan))
        student.load_state_dict(load_file(path))
        detector = Detector(teacher, student.eval(), score=Score.WEIGHTED)
        scores = {
            group: np.where(
                aligned[group],
                np.concatenate([detector(batch).scores for batch in np.array_split(pixels[group], 20)]),
                np.inf,
            )
            for group in ("good", "bad")
        }
        halves = [auroc(scores["good"][half::2], scores["bad"][half::2]) for half in (0, 1)]
        found.append({"all": rounded(auroc(scores["good"], scores["bad"])), "halves": [rounded(one) for one in halves]})
    return {"mean": rounded(np.mean([one["all"] for one in found])), "of_seeds": found}


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Smallest, 5 %, median, 95 % and largest."""
    names = ("least", "p5", "median", "p95", "largest")
    return dict(zip(names, (rounded(one) for one in np.percentile(values, (0, 5, 50, 95, 100))), strict=True))


def rounded(value: float) -> float:
    """To three decimals."""
    return round(float(value), 3)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "poses": poses,
    "cost": cost,
    "casting": casting,
}


def main() -> None:
    """Measures one part and writes its file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--cache", type=Path, help="folder of the trained students")
    parser.add_argument("--seeds", type=int, default=3, help="0 for poses only")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.part == "casting" and not (arguments.data and arguments.cache):
        parser.error("casting needs --data and --cache")
    found = PARTS[arguments.part](arguments)
    options = f" --data FOLDER --cache FOLDER --seeds {arguments.seeds} --steps {arguments.steps}"
    command = f"python -m benchmarks.alignment {arguments.part}" + (options if arguments.part == "casting" else "")
    results = {"command": command, **machine_and_commit(), "least_quality": LEAST_QUALITY, **found}
    path = ROOT / "benchmarks" / "results" / f"alignment_{arguments.part}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
