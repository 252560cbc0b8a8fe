"""Results as the paper lays them out: its tables 1-6 and figures 5-8, its figures next to ours, as Markdown.

A cell that was not run stays empty.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.choices import IMAGENET
from model.lab.choices import DEFAULT
from model.lab.reproduction.comparison import PREFIX
from model.lab.reproduction.runs import multiply_accumulates, parameters
from model.lab.reproduction.sets import OTHER, SETS
from model.lab.variants import VARIANTS
from model.networks.vgg import Student, Teacher

PAPER = Path(__file__).with_name("paper.json")
OURS = {"ECA-MKDAD": DEFAULT, "MKDAD": "mkdad"}
"""The methods of the paper's tables that are built here, and the variants that they are."""
MEASURES = {
    "auroc": "AUROC",
    "g_mean": "g-mean",
    "false_alarm_rate": "FPR",
    "miss_rate": "FNR",
    "inference_ms": "inference, ms",
}
DIVERGED = "diverged"

Result = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A measure over seeds, of one class or averaged over classes.

    Attributes:
        mean: over the seeds that all classes have.
        deviation: sample standard deviation over those seeds; None for one seed.
        seeds: how many.
        classes: how many.
    """

    mean: float
    deviation: float | None
    seeds: int
    classes: int


def cell(results: Iterable[Result], measure: str) -> Cell | None:
    """Averages over classes for each seed, then over seeds; None where no seed has every class.

    Args:
        results: of one data set and variant, none of them diverged.
        measure: a field of them.
    """
    by_class: dict[str, dict[int, float]] = {}
    for result in results:
        by_class.setdefault(result["class"], {})[result["seed"]] = result[measure]
    seeds = sorted(set.intersection(*(set(of_class) for of_class in by_class.values()))) if by_class else []
    if not seeds:
        return None
    means = [statistics.mean(of_class[seed] for of_class in by_class.values()) for seed in seeds]
    deviation = statistics.stdev(means) if len(means) > 1 else None
    return Cell(statistics.mean(means), deviation, len(seeds), len(by_class))


def write_tables(results: Sequence[Result], command: str = "eca-inspect reproduce") -> str:
    """The whole page.

    Args:
        results: from `model.lab.reproduction.runs.read_results`.
        command: that wrote it, for its first line.
    """
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    teacher = _teacher(results)
    parts = [
        "# The paper's tables, and what was measured here",
        f"This page is written by `{command}`. *Paper*: {paper['source']}. *Here*: this project's runs; a cell that "
        "was not run is empty. *Quoted*: methods that are not built here, with the paper's figures. ± is the sample "
        "standard deviation over seeds. Measures at the threshold (g-mean, FPR, FNR) are taken at the Youden point of "
        "the test scores themselves, as in the paper.",
        _settings(results),
    ]
    for number in ("1", "2", "3", "4"):
        parts += _averages(number, paper["tables"][number], results, teacher)
    parts += _categories(paper["tables"]["5"], results, teacher)
    parts += _sizes(paper["tables"]["6"])
    for number in ("5", "6"):
        parts += _ablation(number, paper["figures"], results, teacher)
    for number in ("7", "8"):
        parts += _widths(number, paper["figures"][number], results, teacher)
    parts += _class_by_class(results, teacher)
    parts += _comparison(results, teacher)
    parts += _every_variant(results, teacher)
    return "\n\n".join(part for part in parts if part) + "\n"


def _teacher(results: Sequence[Result]) -> str:
    names = sorted({result["common"]["teacher"]["name"] for result in results})
    return f"Teacher: {', '.join(names)}." if names else "Nothing was run."


def _settings(results: Sequence[Result]) -> str:
    """How the runs differ from the paper's, data set by data set."""
    rows = []
    for name, benchmark in SETS.items():
        of_set = [result for result in results if result["dataset"] == name]
        if of_set:
            common = of_set[0]["common"]
            rows.append(
                (
                    benchmark.title,
                    f"{common['teacher']['name']} (`{common['teacher']['sha256'][:12]}`)",
                    f"{common['epochs']} ({benchmark.epochs})",
                    _span(result["training_images"] for result in of_set),
                    common["lambda"],
                    ", ".join(sorted({result["device"] for result in of_set})),
                    _span(result["date"] for result in of_set),
                )
            )
    if not rows:
        return ""
    foreign = any(result["common"]["teacher"]["name"] != IMAGENET for result in results)
    note = (
        "The paper's teacher is VGG16 pretrained on ImageNet; with another one its figures and ours cannot be expected "
        "to agree."
    )
    head = ["data set", "teacher", "epochs (the paper's)", "training images of a class", "lambda", "device", "run on"]
    return _table(head, rows) + (f"\n\n{note}" if foreign else "")


def _span(values: Iterable[Any]) -> str:
    ordered = sorted(values)
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _averages(number: str, table: dict[str, Any], results: Sequence[Result], teacher: str) -> list[str]:
    head, rows = _head("data set", table["methods"]), []
    for name, figures in table["rows"].items():
        row: list[str] = [SETS[name].title]
        for method, figure in zip(table["methods"], figures, strict=True):
            row.append(f"{figure:.4f}")
            if method in OURS:
                row.append(_text(_of(results, name, OURS[method]), table["measure"], len(SETS[name].classes)))
        rows.append(row)
    return [
        f"## Table {number}: {table['title']}",
        f"{teacher} Averages over the classes of a set.",
        _table(head, rows),
    ]


def _categories(table: dict[str, Any], results: Sequence[Result], teacher: str) -> list[str]:
    head, rows = _head("category", table["methods"]), []
    for name, figures in table["rows"].items():
        row: list[str] = [name]
        for method, figure in zip(table["methods"], figures, strict=True):
            row.append(f"{figure:.4f}")
            if method in OURS:
                row.append(_text(_of(results, "mvtec-ad", OURS[method], name), table["measure"]))
        rows.append(row)
    return [f"## Table 5: {table['title']}", teacher, _table(head, rows)]


def _head(first: str, methods: Sequence[str]) -> list[str]:
    head = [first]
    for method in methods:
        head += [f"{method}, paper", f"{method}, here"] if method in OURS else [f"{method}, quoted"]
    return head


def _sizes(table: dict[str, Any]) -> list[str]:
    batch, size = table["batch"], table["image_size"]
    rows = []
    for name, network in (("teacher", Teacher()), ("student", Student())):
        figures = table["rows"][name]
        giga = batch * multiply_accumulates(network, size) / 1e9
        rows.append(
            (
                name,
                f"{figures['parameters_millions']:.2f}",
                f"{parameters(network) / 1e6:.3f}",
                f"{figures['multiply_accumulates_giga']:.2f}",
                f"{giga:.2f}",
            )
        )
    head = ["network", "parameters, millions, paper", "here", "multiply-accumulates, 10⁹, paper", "here"]
    caption = f"Counted, not run: VGG16 at its full width and its student, {batch} images of {size}x{size} pixels."
    return [f"## Table 6: {table['title']}", caption, _table(head, rows)]


def _ablation(number: str, figures: dict[str, Any], results: Sequence[Result], teacher: str) -> list[str]:
    figure = figures[number]
    head = ["variant"]
    for dataset, name in figure["sets"]:
        place = f"{SETS[dataset].title} ({name})"
        head += [f"{place} AUROC, paper", "here", f"{place} inference in ms, paper", "here"]
    rows = []
    for variant in figure["variants"]:
        row = [VARIANTS[variant].title]
        for dataset, name in figure["sets"]:
            printed = figures["auroc"].get(f"{dataset}/{name}", {}).get(variant)
            of_cell = _of(results, dataset, variant, name)
            row += ["" if printed is None else f"{printed:.4f}", _text(of_cell, "auroc"), ""]
            row.append(_text(of_cell, "inference_ms"))
        rows.append(row)
    caption = (
        f"{teacher} The paper draws bars without figures; what it prints of the same runs in table 5 stands here. "
        f"{figure['text']}"
    )
    return [f"## Figure {number}: {figure['title']}", caption, _table(head, rows)]


def _widths(number: str, figure: dict[str, Any], results: Sequence[Result], teacher: str) -> list[str]:
    head = ["class"]
    for variant in figure["variants"]:
        head += [f"{VARIANTS[variant].title}, paper", "here"]
    rows = []
    for name in SETS[figure["dataset"]].classes:
        row = [name]
        for variant in figure["variants"]:
            row += ["", _text(_of(results, figure["dataset"], variant, name), figure["measure"])]
        rows.append(row)
    title = f"## Figure {number}: {figure['title']} ({SETS[figure['dataset']].title})"
    return [title, f"{teacher} The paper draws bars without figures. {figure['text']}", _table(head, rows)]


def _class_by_class(results: Sequence[Result], teacher: str) -> list[str]:
    """The paper has averages only, except for MVTec AD; and it does not have the other categories."""
    parts = []
    for dataset, benchmark in SETS.items():
        of_set = [result for result in results if result["dataset"] == dataset]
        names = benchmark.classes or sorted({result["class"] for result in of_set})
        if not of_set or dataset == "mvtec-ad":
            continue
        methods = {title: variant for title, variant in OURS.items() if _of(results, dataset, variant)}
        head = [
            "normal class",
            *(f"{title}, {label}" for title in methods for label in ("AUROC", "g-mean", "FPR", "FNR")),
        ]
        fields = ("auroc", "g_mean", "false_alarm_rate", "miss_rate")
        rows = [
            [
                name,
                *(
                    _text(_of(results, dataset, variant, name), field)
                    for variant in methods.values()
                    for field in fields
                ),
            ]
            for name in names
        ]
        about = "These are not among the paper's." if dataset == OTHER else "The paper prints averages only."
        parts += [f"## {benchmark.title}, class by class", f"{teacher} {about}", _table(head, rows)]
    return parts


def _comparison(results: Sequence[Result], teacher: str) -> list[str]:
    """Methods of anomalib, where any was run."""
    methods = sorted({result["variant"] for result in results if result["variant"].startswith(PREFIX)})
    if not methods:
        return []
    rows = []
    for dataset, name in sorted({(one["dataset"], one["class"]) for one in results if one["variant"] in methods}):
        cells = (_text(_of(results, dataset, variant, name), "auroc") for variant in (DEFAULT, *methods))
        rows.append((f"{SETS[dataset].title} ({name})", *cells))
    caption = (
        f"{teacher} ECA-MKDAD and methods named -teacher use it; the others bring their own networks. All see the same "
        "pictures."
    )
    head = ["normal class", "ECA-MKDAD", *(method.removeprefix(PREFIX) for method in methods)]
    return ["## AUROC of methods of anomalib in the same runs", caption, _table(head, rows)]


def _every_variant(results: Sequence[Result], teacher: str) -> list[str]:
    """All measures of all variants, wherever more than the paper's two methods were run."""
    parts = []
    for dataset, benchmark in SETS.items():
        for name in sorted({result["class"] for result in results if result["dataset"] == dataset}):
            of_class = _of(results, dataset, None, name)
            if not {result["variant"] for result in of_class} & set(VARIANTS) - set(OURS.values()):
                continue
            rows = []
            for variant, built in VARIANTS.items():
                of_cell = [result for result in of_class if result["variant"] == variant]
                sizes = next((result for result in of_cell if "student_parameters" in result), None)
                rows.append(
                    (
                        f"`{variant}`: {built.title}",
                        *(_text(of_cell, field) for field in MEASURES),
                        "" if sizes is None else f"{sizes['student_parameters']:,}",
                        "" if sizes is None else f"{sizes['student_multiply_accumulates'] / 1e6:.2f}",
                    )
                )
            head = ["variant", *MEASURES.values(), "student's parameters", "multiply-accumulates an image, 10⁶"]
            parts += [f"## Every variant: {benchmark.title} ({name})", teacher, _table(head, rows)]
    return parts


def _of(results: Iterable[Result], dataset: str, variant: str | None, name: str | None = None) -> list[Result]:
    return [
        result
        for result in results
        if result["dataset"] == dataset
        and (variant is None or result["variant"] == variant)
        and (name is None or result["class"] == name)
    ]


def _text(results: Sequence[Result], measure: str, of_classes: int = 1) -> str:
    """A cell: empty where nothing was run; it says where classes are missing, and how many seeds it has if several."""
    if any("failed" in result for result in results):
        return DIVERGED
    found = cell(results, measure)
    if found is None:
        return ""
    digits = 2 if measure == "inference_ms" else 4
    text = f"{found.mean:.{digits}f}"
    if found.deviation is not None:
        text += f" ± {found.deviation:.{digits}f}"
    notes = [f"{found.seeds} seeds"] if found.seeds > 1 else []
    if found.classes < of_classes:
        notes.append(f"{found.classes} of {of_classes} classes")
    return f"{text} ({', '.join(notes)})" if notes else text


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)
