"""How long to train a student, and whether another way to train finds more at equal steps.

    python -m benchmarks.accuracy.training --data FOLDER --cache FOLDER [--teacher FILE] [--sets ...] [--ways ...]
        [--looks 150 300 600] [--seeds 0 1 2]
    python -m benchmarks.accuracy.training --cache FOLDER --report

``--data`` is a folder with the real sets: ``casting/``, ``magnetic-tile/`` and ``mvtec-leather/``. A set may also be
the path of any folder in the MVTec AD layout. Each run is one student that is looked at as it learns. Every look is a
line of ``training.jsonl`` in the cache, and a run that came to its last look is not repeated. ``--report`` writes
``accuracy_training.json`` from these lines.

Every student has batches of 16 pictures, and Adam. Processors that compute in bfloat16 do so, others in float32; each
line says which. The ways:

- ``plain``: equation 13, the pictures as they are, a constant rate of 0.001.
- ``one-cycle-0.001``, ``one-cycle-0.003``, ``one-cycle-0.01``: a rate that rises to this in the first tenth of the
  steps and falls along a cosine to nothing at the last one, so a student of fewer steps is another run.
- ``hardest-10``, ``hardest-1``, ``hardest-0.1``: the squared term counts only so many per cent of the locations of a
  batch in each layer, those with the largest difference; the term of directions stays.
- ``denoising``: the student sees pasted defects and noise, and is to answer as the teacher does without them.
- ``moved``: quarter turns, mirroring, shifts and another light; the teacher sees the same.
- ``192``, ``256``: a larger input.
- ``batch-32``: the product's batches.
- ``one-cycle-hardest-1``, ``one-cycle-denoising``, ``one-cycle-moved``: these with a rate as in ``one-cycle-0.003``.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.accuracy.distances import as_inputs, batches
from benchmarks.accuracy.objects import both_halves
from benchmarks.accuracy.results import RESULTS, rounded
from benchmarks.accuracy.sets import Data, compact_teacher, leather, plates, tile
from benchmarks.record import machine_and_commit
from model.choices import MapForm, Schedule, Score, TermWeights
from model.detector import Detector, maps_of
from model.lab.synthetic import write_dataset
from model.lifecycle.datasets import load_images, mvtec_test, mvtec_training
from model.lifecycle.masks import read_mask
from model.lifecycle.pasting import paste_defect
from model.lifecycle.recipe import Recipe
from model.measures import aupro, auroc, pixel_auroc
from model.networks.vgg import Student, Teacher, student_plan
from model.preprocessing import Preprocessing
from model.score import FLOOR, distillation_score, distillation_terms, largest_distances, layer_distances
from model.store.teachers import read_teacher

BFLOAT16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
"""Whether the processor computes in bfloat16; where it does not, that takes ten times as long as float32."""
PRECISION = "bfloat16" if BFLOAT16 else "float32"
WEIGHTS = TermWeights()
NORMAL, GOOD, BAD = 320, 200, 200
"""Pictures of a set, at most; a fifth of the first is held out of training."""
MAP_GOOD, MAP_BAD = 40, 60
"""Pictures that pixel measures are taken on, at most."""
SCORES = ("weighted", "local", "global")
KEY = ("teacher", "set", "way", "seed", "steps")
"""What tells one look from another."""
RECENT = 50
"""Steps that the training loss is a mean of."""

DEFECTS, NOISE = 3, 0.05
"""Of a picture that is denoised: defects at most, and the largest deviation of its noise, as a share of the range."""
SHIFT, LIGHT = 0.06, 0.1
"""Of a picture that is moved: at most, as a share of its side and of its brightness."""


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        hardest: share of the locations that the squared term counts.
        denoising: whether the student sees damaged pictures.
        moved: whether pictures are turned, mirrored, shifted and lit anew at every step.
        side: of the input in pixels.
        batch: pictures a step.
        rate: of Adam, the largest.
        schedule: how it changes.
    """

    hardest: float = 1.0
    denoising: bool = False
    moved: bool = False
    side: int = 128
    batch: int = 16
    rate: float = 0.001
    schedule: Schedule = Schedule.CONSTANT

    def rate_at(self, step: int, steps: int) -> float:
        """See `Recipe.rate_at`."""
        return Recipe(learning_rate=self.rate, schedule=self.schedule).rate_at(step, steps)


WAYS = {
    "plain": Way(),
    **{f"one-cycle-{rate}": Way(rate=rate, schedule=Schedule.ONE_CYCLE) for rate in (0.001, 0.003, 0.01)},
    "one-cycle-hardest-1": Way(hardest=0.01, rate=0.003, schedule=Schedule.ONE_CYCLE),
    "one-cycle-denoising": Way(denoising=True, rate=0.003, schedule=Schedule.ONE_CYCLE),
    "one-cycle-moved": Way(moved=True, rate=0.003, schedule=Schedule.ONE_CYCLE),
    "hardest-10": Way(hardest=0.1),
    "hardest-1": Way(hardest=0.01),
    "hardest-0.1": Way(hardest=0.001),
    "denoising": Way(denoising=True),
    "moved": Way(moved=True),
    "192": Way(side=192),
    "256": Way(side=256),
    "batch-32": Way(batch=32),
}


def of_folder(root: Path, side: int) -> Data:
    """A folder in the MVTec AD layout; masks only if every anomalous image has one."""
    test, size = mvtec_test(root), Preprocessing(side)
    good, bad = [s for s in test if s.defect is None], [s for s in test if s.defect is not None]
    paths = [sample.mask for sample in bad if sample.mask is not None]
    masks = np.stack([read_mask(path, side) for path in paths]) if len(paths) == len(bad) else None
    normal, good_pixels, bad_pixels = (load_images(group, size).pixels for group in (mvtec_training(root), good, bad))
    return Data(normal, good_pixels, bad_pixels, masks)


def bolts(side: int) -> Data:
    """Bolts in any pose on an even ground, the same at every size."""
    with TemporaryDirectory() as folder:
        write_dataset(Path(folder), train=300, test_good=100, test_each=30, seed=101, kind="bolts")
        return of_folder(Path(folder), side)


def read(name: str, data: Path | None, side: int) -> Data:
    """A set by its name or folder, with at most `NORMAL`, `GOOD` and `BAD` pictures."""
    if name in ("casting", "tile", "leather") and data is None:
        raise SystemExit(f"{name} needs --data")
    match name:
        case "plates":
            found = plates(None, side)
        case "bolts":
            found = bolts(side)
        case "casting":
            assert data is not None
            found = of_folder(data / "casting", side)
        case "tile":
            found = tile(data, side)
        case "leather":
            found = leather(data, side)
        case _:
            found = of_folder(Path(name), side)

    def drawn(count: int, limit: int) -> np.ndarray:
        return np.sort(np.random.default_rng(0).permutation(count)[:limit])

    bad = drawn(len(found.bad), BAD)
    return Data(
        found.normal[drawn(len(found.normal), NORMAL)],
        found.good[drawn(len(found.good), GOOD)],
        found.bad[bad],
        None if found.masks is None else found.masks[bad],
    )


def cached(name: str, data: Path | None, side: int, cache: Path) -> Data:
    """The same, kept in the cache, for reading and drawing pictures takes its time."""
    path = cache / f"{Path(name).name}-{side}.npz"
    if not path.exists():
        found = read(name, data, side)
        arrays = {"normal": found.normal, "good": found.good, "bad": found.bad}
        np.savez(path, **arrays, **({} if found.masks is None else {"masks": found.masks}))
    with np.load(path) as kept:
        return Data(kept["normal"], kept["good"], kept["bad"], kept.get("masks"))


def fast() -> torch.autocast:
    """Computes in bfloat16 where the processor does."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=BFLOAT16)


def features(teacher: Teacher, pixels: np.ndarray) -> list[Tensor]:
    """The teacher's maps of all pictures, one a layer, in the precision they are computed in."""
    kept = torch.bfloat16 if BFLOAT16 else torch.float32
    with torch.no_grad(), fast():
        found = [[maps.to(kept) for maps in teacher(as_inputs(batch))] for batch in batches(pixels)]
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def loss(teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor], hardest: float) -> Tensor:
    """Equation 13, mean of a batch; with ``hardest`` below 1 its squared term counts that share of the locations."""
    terms = distillation_terms(teacher_maps, student_maps)
    if hardest == 1:
        return distillation_score(terms, WEIGHTS).mean()
    squared = torch.zeros(())
    for t, s in zip(teacher_maps, student_maps, strict=True):
        differences = (t - s.float()).square().mean(dim=1).flatten()
        squared = squared + differences.topk(max(1, round(hardest * len(differences)))).values.mean()
    return WEIGHTS.squared * squared + WEIGHTS.direction * terms[..., 1].sum(dim=1).mean()


def damaged(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the pictures with pasted defects, and half with noise, drawn apart; uint8 like the pictures."""
    found = []
    for image in pixels:
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, DEFECTS + 1)):
                image = paste_defect(image, rng)
        if rng.random() < 0.5:
            noise = rng.normal(0, 255 * NOISE * rng.random(), image.shape)
            image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
        found.append(image)
    return np.stack(found)


def moved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every picture turned, mirrored, shifted and lit by chance; what a shift uncovers is mirrored in."""
    found = []
    for image in pixels:
        turned = np.rot90(image, rng.integers(4))
        if rng.random() < 0.5:
            turned = turned[:, ::-1]
        side = len(turned)
        most = round(SHIFT * side)
        wide = cv2.copyMakeBorder(np.ascontiguousarray(turned), *(most,) * 4, cv2.BORDER_REFLECT_101)
        y, x = rng.integers(0, 2 * most + 1, size=2)
        lit = wide[y : y + side, x : x + side] * rng.uniform(1 - LIGHT, 1 + LIGHT)
        found.append(np.clip(np.rint(lit), 0, 255).astype(np.uint8))
    return np.stack(found)


def trained(
    teacher: Teacher, pixels: np.ndarray, way: Way, seed: int, looks: Sequence[int]
) -> Iterator[tuple[int, Student, float, float]]:
    """A student after so many steps: the steps, the student, its recent loss, and the processor time of training."""
    maps = None if way.moved else features(teacher, pixels)
    torch.manual_seed(seed)
    student = Student(student_plan(teacher.plan)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(student.parameters(), lr=way.rate)
    order, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    losses: list[float] = []
    spent = 0.0
    while len(losses) < max(looks):
        for chosen in torch.randperm(len(pixels), generator=order).split(way.batch):
            if len(chosen) < way.batch <= len(pixels):
                break
            started = process_time()
            student.train()
            seen = pixels[chosen.numpy()]
            if way.moved:
                seen = moved(seen, rng)
            goal = [layer[chosen].float() for layer in maps] if maps else [m.float() for m in features(teacher, seen)]
            with fast():
                answer = student(as_inputs(damaged(seen, rng) if way.denoising else seen))
            found = loss(goal, answer, way.hardest)
            optimizer.param_groups[0]["lr"] = way.rate_at(len(losses), max(looks))
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
            losses.append(found.item())
            spent += process_time() - started
            if len(losses) in looks and (way.schedule is Schedule.CONSTANT or len(losses) == max(looks)):
                yield len(losses), student.eval(), float(np.mean(losses[-RECENT:])), spent
            if len(losses) == max(looks):
                break


def scores(teacher_maps: Sequence[Tensor], student: Student, pixels: np.ndarray) -> np.ndarray:
    """The `SCORES` of pictures ``[N, side, side, 3]`` whose teacher's maps are known, ``[3, N]``."""
    found, start = [], 0
    with torch.no_grad():
        for batch in batches(pixels):
            with fast():
                s = student(as_inputs(batch))
            t = [layer[start : start + len(batch)].float() for layer in teacher_maps]
            start += len(batch)
            plain, floored = (torch.stack(layer_distances(t, s, floor)).sum(dim=0) for floor in (0.0, FLOOR))
            found.append(
                torch.stack(
                    (
                        largest_distances(floored).values.mean(dim=1),
                        plain.amax(dim=(1, 2)),
                        distillation_score(distillation_terms(t, s), WEIGHTS),
                    )
                )
            )
    return torch.cat(found, dim=1).numpy()


def pixel_measures(teacher: Teacher, student: Student, data: Data) -> dict[str, float]:
    """Pixel AUROC and AUPRO of the product's maps on the first good and bad pictures, where there are masks."""
    if data.masks is None:
        return {}
    detector = Detector(teacher, student, WEIGHTS, score=Score.WEIGHTED)
    pixels = np.concatenate((data.good[:MAP_GOOD], spaced(data.bad)))
    with fast():
        maps = maps_of(detector, pixels, MapForm.GRADIENT_DISTANCE)
    masks = np.concatenate((np.zeros((len(data.good[:MAP_GOOD]), *data.masks.shape[1:]), bool), spaced(data.masks)))
    return {"pixel_auroc": rounded(pixel_auroc(maps, masks)), "aupro": rounded(aupro(maps, masks))}


def spaced(values: np.ndarray) -> np.ndarray:
    """`MAP_BAD` of them at most, evenly, so that every kind of defect is among them."""
    return values[np.unique(np.linspace(0, len(values) - 1, min(MAP_BAD, len(values))).round().astype(int))]


def run(
    teacher: Teacher, data: Data, way: Way, seed: int, looks: Sequence[int], kept: Path
) -> Iterator[dict[str, object]]:
    """One student, which is written to the file ``kept`` at the end; what was seen at each look."""
    training, held = data.divided(seed)
    groups = {"held": held, "good": data.good, "bad": data.bad}
    known = {name: features(teacher, pixels) for name, pixels in groups.items()}
    for steps, student, recent, spent in trained(teacher, training, way, seed, looks):
        if steps == max(looks):
            save_file({name: value.contiguous() for name, value in student.state_dict().items()}, kept)
        held_out, good, bad = (scores(known[name], student, pixels) for name, pixels in groups.items())
        choosing, reporting = both_halves(good, bad)
        yield {
            "images": len(training),
            "steps": steps,
            "precision": PRECISION,
            "seconds": round(spent, 1),
            "loss": rounded(recent),
            "held_out": dict(zip(SCORES, map(rounded, held_out.mean(axis=1)), strict=True)),
            "auroc": {name: rounded(auroc(good[i], bad[i])) for i, name in enumerate(SCORES)},
            "choosing": dict(zip(SCORES, map(rounded, choosing), strict=True)),
            "reporting": dict(zip(SCORES, map(rounded, reporting), strict=True)),
            **pixel_measures(teacher, student, data),
        }


def main() -> None:
    """Trains every student that the cache has no last look of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of what was found and of prepared pictures")
    parser.add_argument("--teacher", type=Path, help="file of VGG16 weights of any width; else the compact teacher")
    parser.add_argument("--sets", nargs="+", default=["casting", "tile", "leather", "plates", "bolts"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plain"])
    parser.add_argument("--looks", nargs="+", type=int, default=[150, 300, 600], help="steps after which to look")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="write the results from the cache, train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    lines = arguments.cache / "training.jsonl"
    if arguments.report:
        return report(lines)
    label = arguments.teacher.stem if arguments.teacher else "compact"
    teacher = read_teacher(arguments.teacher) if arguments.teacher else compact_teacher()
    teacher = teacher.to(memory_format=torch.channels_last)
    for seed in arguments.seeds:
        for name in arguments.sets:
            for way in arguments.ways:
                key = {"teacher": label, "set": Path(name).name, "way": way, "seed": seed}
                if has(lines, key, max(arguments.looks)):
                    continue
                data = cached(name, arguments.data, WAYS[way].side, arguments.cache)
                kept = arguments.cache / f"{'-'.join(map(str, key.values()))}-{max(arguments.looks)}.safetensors"
                for found in run(teacher, data, WAYS[way], seed, arguments.looks, kept):
                    with lines.open("a") as file:
                        file.write(json.dumps({**key, **found}) + "\n")
                    print(key, found, flush=True)


def report(lines: Path) -> None:
    """Writes accuracy_training.json from all looks, each once."""
    looks = {tuple(row[part] for part in KEY): row for row in map(json.loads, lines.read_text().splitlines())}
    rows = [looks[key] for key in sorted(looks)]
    command = "python -m benchmarks.accuracy.training --cache FOLDER --report"
    path = RESULTS / "accuracy_training.json"
    head = json.dumps({"command": command, **machine_and_commit()}, indent=1).removesuffix("\n}")
    path.write_text(head + ',\n "rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]\n}\n")
    print(path)


def has(lines: Path, key: dict[str, object], steps: int) -> bool:
    """Whether this run was looked at after so many steps."""
    known = map(json.loads, lines.read_text().splitlines()) if lines.exists() else ()
    return any(row["steps"] == steps and key.items() <= row.items() for row in known)


if __name__ == "__main__":
    main()
