"""Which score is good on surfaces and on objects, with the full teacher and the compact one.

    python -m benchmarks.accuracy.objects --data FOLDER --cache FOLDER --vgg16 FILE [--sets ...] [--seeds 1]
    python -m benchmarks.accuracy.objects --data FOLDER --cache FOLDER --compact FILE

``--data`` is a folder with ``casting/``, ``magnetic-tile/``, ``mvtec-leather/`` and ``CIFAR-10-images/``; ``--vgg16`` a
file of full VGG16 weights. Every form weighs the cosine distance at a location by the teacher's energy there, compared
with a reference, and pools the locations; see `forms`. A form is chosen by the choosing halves of the images to judge,
what is written down is measured on the reporting halves. "Left out" is the form chosen without a family, measured on
that family.

The students are quick ones: `STEPS` of `BATCH` images, a rate that falls along a cosine, bfloat16. They are kept in the
cache, as are the distances, so a run that is stopped goes on.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.accuracy.distances import as_inputs, batches
from benchmarks.accuracy.results import rounded, write
from benchmarks.accuracy.scores import aurocs
from benchmarks.accuracy.sets import Data, cifar, compact_teacher, leather, plates, tile
from model.choices import TermWeights
from model.lab.bolts import normal_image
from model.lab.synthetic import write_dataset
from model.lifecycle.datasets import load_images, mvtec_test, mvtec_training
from model.networks.vgg import Student, Teacher, student_plan
from model.preprocessing import Preprocessing
from model.score import distillation_score, distillation_terms
from model.store.teachers import read_teacher

STEPS, CONSTANT, WARM_UP = 550, 200, 30
BATCH, RATE = 16, 0.003
DIVISIONS = 6
TOLERANCE = 0.02
"""How far below the better of global and local a form may be on any family."""

REFERENCES = ("own median", "own mean", "median of normal parts", "mean of normal parts")
FLOORS = (0.5, 1, 2, 3, 5, 10)
POOLINGS = {"largest": 0.0, "largest 0.5 %": 0.005, "largest 1 %": 0.01, "largest 5 %": 0.05, "mean": 1.0}
DEFAULT = "floor 3, own median, largest 0.5 %"

Maps = list[dict[str, Tensor]]
"""One for each layer: ``distance``, ``teacher`` and ``student`` (lengths of their channels), ``[N, H_i, W_i]``."""


def limited(data: Data, normal: int, good: int, bad: int) -> Data:
    """At most so many images of each kind, drawn once."""

    def drawn(pixels: np.ndarray, count: int) -> np.ndarray:
        return pixels[np.sort(np.random.default_rng(0).permutation(len(pixels))[:count])]

    return Data(drawn(data.normal, normal), drawn(data.good, good), drawn(data.bad, bad), None)


def casting(data: Path) -> Data:
    """Round parts on a bench; no masks."""
    test, size = mvtec_test(data / "casting"), Preprocessing(128)
    groups = (mvtec_training(data / "casting"), [s for s in test if not s.defect], [s for s in test if s.defect])
    normal, good, bad = (load_images(group, size).pixels for group in groups)
    return Data(normal, good, bad, None)


def bolts(_: Path) -> Data:
    """Bolts in any pose on an even ground."""
    with TemporaryDirectory() as folder:
        write_dataset(Path(folder), train=300, test_good=100, test_each=30, seed=101, kind="bolts")
        test, size = mvtec_test(Path(folder)), Preprocessing(128)
        groups = (mvtec_training(Path(folder)), [s for s in test if not s.defect], [s for s in test if s.defect])
        normal, good, bad = (load_images(group, size).pixels for group in groups)
    return Data(normal, good, bad, None)


def another_day(_: Path) -> np.ndarray:
    """Good bolts on grounds that are brighter, rougher and dustier than those that were trained on."""
    rng = np.random.default_rng(102)
    return np.concatenate([Preprocessing(128).apply(normal_image(rng, rng.uniform())) for _ in range(100)])


SETS: dict[str, Callable[[Path], Data]] = {
    "casting": casting,
    "bolts": bolts,
    "tile": lambda data: limited(tile(data), 320, 200, 200),
    "leather": leather,
    "plates": lambda data: limited(plates(data), 180, 80, 80),
    "cifar-horse": lambda data: limited(cifar("horse")(data), 1000, 200, 225),
    "cifar-airplane": lambda data: limited(cifar("airplane")(data), 1000, 200, 225),
}
FAMILIES = {name: name.split("-")[0] for name in (*SETS, "bolts, another day")}


def weights_of(name: str) -> TermWeights:
    """The paper's lambda for this set."""
    return TermWeights(direction=0.01 if name.startswith("cifar") else 0.1)


def features(teacher: Teacher, pixels: np.ndarray) -> list[Tensor]:
    """The teacher's maps of all images in bfloat16, one a layer."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = [[maps.bfloat16() for maps in teacher(as_inputs(batch))] for batch in batches(pixels)]
    return [torch.cat(layer).clone() for layer in zip(*found, strict=True)]


def trained(teacher: Teacher, pixels: np.ndarray, weights: TermWeights, seed: int) -> Student:
    """A quick student."""
    maps = features(teacher, pixels)
    torch.manual_seed(seed)
    student = Student(student_plan(teacher.plan)).to(memory_format=torch.channels_last)
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    order = torch.Generator().manual_seed(seed)
    step = 0
    student.train()
    while step < STEPS:
        for chosen in torch.randperm(len(pixels), generator=order).split(BATCH):
            if step == STEPS or len(chosen) < BATCH <= len(pixels):
                break
            along = max(0, step - CONSTANT) / (STEPS - CONSTANT)
            falling = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * along))
            optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARM_UP) * falling
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = student(as_inputs(pixels[chosen.numpy()]))
            terms = distillation_terms([layer[chosen].float() for layer in maps], found)
            optimizer.zero_grad()
            distillation_score(terms, weights).mean().backward()
            optimizer.step()
            step += 1
    return student.eval()


def compared(teacher: Teacher, student: Student, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What `Maps` are made of, by layer, and both terms of equation 13."""
    found: dict[str, list[Tensor]] = {}
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in batches(pixels):
            inputs = as_inputs(batch)
            pairs = [(t.float(), s.float()) for t, s in zip(teacher(inputs), student(inputs), strict=True)]
            found.setdefault("terms", []).append(distillation_terms(*zip(*pairs, strict=True)))
            for layer, (t, s) in enumerate(pairs):
                found.setdefault(f"distance{layer}", []).append(1 - torch.cosine_similarity(t, s, dim=1))
                found.setdefault(f"teacher{layer}", []).append(t.square().sum(dim=1).sqrt())
                found.setdefault(f"student{layer}", []).append(s.square().sum(dim=1).sqrt())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def pooled(maps: Tensor, share: float) -> np.ndarray:
    """The mean of this share of the locations, at least one, the largest."""
    flat = maps.flatten(start_dim=1)
    values: np.ndarray = flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(dim=1).numpy()
    return values


def forms(kept: dict[str, np.ndarray], held: slice, weights: TermWeights) -> Iterator[tuple[str, np.ndarray]]:
    """Every form's scores of the images that ``kept`` is of; ``held`` are normal parts that training has not seen."""
    yield "global", distillation_score(torch.from_numpy(kept["terms"]), weights).numpy()
    layers = [
        {name: torch.from_numpy(kept[f"{name}{layer}"]).float() for name in ("distance", "teacher", "student")}
        for layer in range(4)
    ]
    side = layers[0]["distance"].shape[-1]

    def told(name: str, maps: list[Tensor]) -> Iterator[tuple[str, np.ndarray]]:
        fine = [interpolate(layer[:, None], (side, side), mode="bilinear", align_corners=False) for layer in maps]
        total = torch.stack(fine).sum(dim=0)[:, 0]
        for pooling, share in POOLINGS.items():
            yield f"{name}, {pooling}", pooled(total, share)

    energies = [layer["teacher"].square() for layer in layers]
    yield from told("no floor", [layer["distance"] for layer in layers])
    yield from told(
        "times the energy", [layer["distance"] * e / e[held].mean() for layer, e in zip(layers, energies, strict=True)]
    )
    for reference in REFERENCES:
        levels = [level(energy, reference, held) for energy in energies]
        for floor in FLOORS:
            maps = [floored(layer, floor * one) for layer, one in zip(layers, levels, strict=True)]
            yield from told(f"floor {floor}, {reference}", maps)


def level(energy: Tensor, reference: str, held: slice) -> Tensor:
    """What the teacher's energy is compared with: of each image, ``[N, 1, 1]``, or of all."""
    flat = energy.flatten(start_dim=1)
    return {
        "own median": flat.median(dim=1).values[:, None, None],
        "own mean": flat.mean(dim=1)[:, None, None],
        "median of normal parts": flat[held].median(),
        "mean of normal parts": flat[held].mean(),
    }[reference]


def floored(layer: dict[str, Tensor], constant: Tensor) -> Tensor:
    """`model.score.layer_distances` with this constant, from the cosine and the lengths."""
    t, s = layer["teacher"], layer["student"]
    together = (1 - layer["distance"]) * t * s + constant
    return 1 - together / ((t * t + constant) * (s * s + constant)).sqrt()


def halves(good: int, bad: int, division: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places of good and bad images: the half to choose on, and the half to report on."""
    rng = np.random.default_rng(division)
    g, b = rng.permutation(good), rng.permutation(bad)
    return [(g[: good // 2], b[: bad // 2]), (g[good // 2 :], b[bad // 2 :])]


def both_halves(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """AUROC ``[2, F]`` on choosing and on reporting halves, mean of the divisions, of scores ``[F, N]``."""
    together = np.concatenate((good, bad), axis=1)
    divisions = [
        [aurocs(together, g, good.shape[1] + b) for g, b in halves(good.shape[1], bad.shape[1], division)]
        for division in range(DIVISIONS)
    ]
    return np.mean(divisions, axis=0)


def chosen(names: list[str], choosing: dict[str, np.ndarray]) -> int:
    """The form of the best mean, less what it is beyond `TOLERANCE` below the better of global and local anywhere."""
    values = np.stack(list(choosing.values()))
    better = np.maximum(values[:, names.index("global")], values[:, names.index("no floor, largest")])
    beyond = np.minimum((values - better[:, None]).min(axis=0) + TOLERANCE, 0)
    return int(np.argmax(values.mean(axis=0) + beyond))


def report(names: list[str], found: dict[str, list[np.ndarray]]) -> dict[str, object]:
    """All that the page tells, from AUROC ``[2, F]`` by teacher and family, one for each set and seed."""
    choosing, reporting = ({key: np.mean([one[half] for one in runs], axis=0) for key, runs in found.items()}
                           for half in (0, 1))  # fmt: skip
    winner = chosen(names, choosing)
    table = np.stack(list(reporting.values()))
    better = np.maximum(table[:, names.index("global")], table[:, names.index("no floor, largest")])
    families = list(dict.fromkeys(key.split(": ")[1] for key in found))
    left_out = {}
    for family in families:
        without = {key: values for key, values in choosing.items() if not key.endswith(f": {family}")}
        if without:
            place = chosen(names, without)
            own = {key: rounded(values[place]) for key, values in reporting.items() if key.endswith(f": {family}")}
            left_out[family] = {"form": names[place], "auroc": own}
    rows = {
        name: {
            "auroc": {key: rounded(values[place]) for key, values in reporting.items()},
            "mean": rounded(table[:, place].mean()),
            "worst": rounded((table[:, place] - better).min()),
        }
        for place, name in enumerate(names)
    }
    return {"forms": len(names), "winner": names[winner], "default": DEFAULT, "left_out": left_out, "rows": rows}


def main() -> None:
    """Measures every form with both teachers and writes accuracy_objects.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the trained students and distances")
    parser.add_argument("--vgg16", type=Path, help="file of full VGG16 weights; without it only the compact teacher")
    parser.add_argument("--compact", type=Path, help="file of a compact teacher, instead of the built-in one")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    other = arguments.compact
    teachers = {other.stem: read_teacher(other)} if other else {"compact": compact_teacher()}
    if arguments.vgg16:
        teachers["VGG16"] = Teacher.from_state_dict(load_file(arguments.vgg16))
    names: list[str] = []
    found: dict[str, list[np.ndarray]] = {}
    for set_name in arguments.sets:
        data = SETS[set_name](arguments.data)
        more = {"bolts, another day": another_day(arguments.data)} if set_name == "bolts" else {}
        for label, teacher in teachers.items():
            for seed in range(arguments.seeds):
                training, held = data.divided(seed)
                path = arguments.cache / f"{label}-{set_name}-{seed}.safetensors"
                if not path.exists():
                    student = trained(teacher, training, weights_of(set_name), seed)
                    save_file({name: value.contiguous() for name, value in student.state_dict().items()}, path)
                student = Student(student_plan(teacher.plan))
                student.load_state_dict(load_file(path))
                groups = {"held": held, "good": data.good, "bad": data.bad, **more}
                kept = distances_of(path.with_suffix(".npz"), teacher, student.eval(), groups)
                places, start = {}, 0
                for group, pixels in groups.items():
                    places[group] = slice(start, start + len(pixels))
                    start += len(pixels)
                all_forms = dict(forms(kept, places["held"], weights_of(set_name)))
                names, scores = list(all_forms), np.stack(list(all_forms.values()))
                for group in ("good", *more):
                    family = FAMILIES[set_name] if group == "good" else group
                    one = both_halves(scores[:, places[group]], scores[:, places["bad"]])
                    found.setdefault(f"{label}: {family}", []).append(one)
                print(label, set_name, seed, flush=True)
    name, program = (f"objects_{other.stem}", "objects --compact FILE") if other else ("objects", "objects")
    write(name, arguments, report(names, found), program)


def distances_of(
    path: Path, teacher: Teacher, student: Student, groups: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`compared` of all groups one after the other, kept in a file."""
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    found = compared(teacher, student, np.concatenate(list(groups.values())))
    np.savez(path, **found)
    return found


if __name__ == "__main__":
    main()
