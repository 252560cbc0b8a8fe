"""Writes benchmarks/accuracy.md from accuracy_intro.md and the results, and draws the curve of few images.

python -m benchmarks.accuracy.page
"""

from collections.abc import Callable, Iterable
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.accuracy.sets import ROOT
from benchmarks.tables import load, origin, table
from model.lifecycle.figures import ANOMALOUS, DOTS_PER_INCH, NORMAL, png

HERE = ROOT / "benchmarks"
CURVE = ROOT / "docs" / "images" / "few-images.png"
OTHERS_NOTES = """\
PatchCore and STFPM have anomalib's defaults but for the network: they see pools 3 and 4, and 2 to 4, of the same
teacher. STFPM's student has the teacher's shape with BatchNorm, and as many steps as ours. Times are processor time of
one thread, of one picture, with the methods taking turns: the score alone (with its map), and the ratio with the map.
*MB* is what a category adds to the teacher that all share: ours as its file, theirs as numbers of 32 bits."""
OTHERS_NOT_RUN = """\
Not run, because their code does not take these features and their own networks could not be downloaded: EfficientAD
(`prepare_pretrained_model` loads one fixed network), Reverse Distillation (`get_decoder` knows ResNets by name, and its
bottleneck their channels) and Dinomaly (`_get_architecture_config` takes DINO's transformers alone). A method and
teacher that is missing in the table was not run for lack of time: STFPM's student of VGG16 is as large as VGG16."""
PUBLISHED = """\
**Published, not comparable with the above**: anomalib's own figures on the 15 categories of MVTec AD with networks
pretrained on ImageNet, or DINOv2, and larger pictures, from the pages of its version 2.7.

| method | network | image AUROC | pixel AUROC |
|---|---|---|---|
| PatchCore | Wide ResNet-50 | 0.980 | 0.980 |
| STFPM | ResNet-18 | 0.893 | 0.951 |
| EfficientAD-S | its own | 0.982 | |
| Reverse Distillation | Wide ResNet-50 | 0.985 | 0.969 |
| Dinomaly | DINOv2 | 0.997 | 0.984 |"""
TRAINING_COMMANDS = """\
Each line is a look of
`python -m benchmarks.accuracy.training --data FOLDER --cache FOLDER --sets SET --ways WAY --looks STEPS`, with
`--teacher FILE` for VGG16; seeds are counted from 0. Batches of 16 pictures, bfloat16, Adam with 0.001. *Pictures* are
those learned from. Image AUROC of the three scores; pixel measures of the product's maps. The commit above is that
of the report; the students were trained with the same program a little before it was committed."""
SHOWN_COUNTS = ("10", "25", "50", "100")


def measured(value: dict[str, float | None], digits: int = 3) -> str:
    """A mean with its deviation over seeds."""
    deviation = value["deviation"]
    return f"{value['mean']:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def scores(found: dict[str, Any]) -> str:
    """The winner, what was compared with it, and what each of its choices is worth."""
    rows, winner = found["rows"], found["winner"]
    families = list(rows[winner]["auroc"])
    head = ["score", *(f"AUROC {family}" for family in families), "mean", *(f"g-mean {f}" for f in families), "mean"]

    def line(name: str, form: str) -> list[str]:
        row = rows[form]
        return [
            name,
            *(measured(row["auroc"][family]) for family in families), f"**{row['mean_auroc']:.3f}**",
            *(measured(row["g_mean"][family]) for family in families), f"**{row['mean_g_mean']:.3f}**",
        ]  # fmt: skip

    own = [form for form in rows if "equation" in form]
    first = [line(form, form) for form in own] + [line(f"**winner**: {winner}", winner)]
    first += [
        line(f"best with {kind}: {form}", form) for kind, form in found["best_of_distance"].items() if form != winner
    ]
    first += [line(f"best of all for {family}: {form}", form) for family, form in found["best_of_family"].items()]
    neighbours = [
        [_change(winner, form), *(f"{rows[form]['auroc'][f]['mean']:.3f}" for f in families), rows[form]["mean_auroc"]]
        for form in sorted(found["neighbours"], key=lambda form: -rows[form]["mean_auroc"])
    ]
    ranking = [[form, f"{rows[form]['chosen_by']:.4f}", f"{rows[form]['mean_auroc']:.4f}"] for form in found["ranking"]]
    each = found["chosen_in_each_division"]
    same = sum(form == winner for form in each["forms"])
    honest = ", ".join(f"{family} {value:.3f}" for family, value in each["reported_auroc"].items())
    return "\n".join(
        [
            f"{found['forms']} forms. A form is named by its distance along channels, its layers (by pool), its "
            "normalisation, how layers are fused, and how locations are pooled.", "",
            table(head, first), "",
            f"Chosen anew in each of the {found['divisions']} divisions, by its choosing halves alone, the form is the "
            f"winner {same} times; what is then reported on the other halves: {honest}, mean "
            f"{np.mean(list(each['reported_auroc'].values())):.3f}.", "",
            "**One choice of the winner changed.** AUROC:", "",
            table(["changed to", *families, "mean"], neighbours), "",
            "**The first ten.** Mean AUROC:", "",
            table(["form", "choosing halves", "reporting halves"], ranking),
        ]
    )  # fmt: skip


def objects(found: dict[str, Any]) -> str:
    """The scores side by side with both teachers, what each choice of the default is worth, and families left out."""
    rows, default = found["rows"], found["default"]
    keys = list(rows[default]["auroc"])
    floor, reference, pooling = default.split(", ")
    own = {"global": "`global`", "no floor, largest": "`local`", default: f"`weighted`: {default}"}
    others = [name for name in ("times the energy, largest 0.5 %", found["winner"]) if name not in own]
    near = [
        name for name in rows
        if name.count(", ") == 2 and name != default
        and sum(a != b for a, b in zip(name.split(", "), (floor, reference, pooling), strict=True)) == 1
    ]  # fmt: skip

    def lines(names: Iterable[str]) -> list[list[object]]:
        return [
            [own.get(name, name), *(f"{rows[name]['auroc'][key]:.3f}" for key in keys),
             f"**{rows[name]['mean']:.3f}**", f"{rows[name]['worst']:+.3f}"]
            for name in names
        ]  # fmt: skip

    head = ["score", *keys, "mean", "worst"]
    left_out = [
        [family, one["form"], "; ".join(f"{key.split(': ')[0]} {value:.3f}" for key, value in one["auroc"].items())]
        for family, one in found["left_out"].items()
    ]
    return "\n".join(
        [
            f"AUROC; {found['forms']} forms. *Worst* is the largest distance below the better of `global` and `local`. "
            f"Chosen by the choosing halves of all families: {found['winner']}.", "",
            table(head, lines([*own, *others])), "",
            "**One choice of `weighted` changed:**", "",
            table(head, lines(sorted(near, key=lambda name: -rows[name]["mean"]))), "",
            "**Chosen without a family, measured on it:**", "",
            table(["family", "form chosen", "AUROC"], left_out),
        ]
    )  # fmt: skip


def _change(winner: str, form: str) -> str:
    names = ("distance", "layers", "normalisation", "fusion", "pooling")
    pairs = zip(names, winner.split(", "), form.split(", "), strict=True)
    return "; ".join(f"{name}: {changed}" for name, own, changed in pairs if own != changed)


def thresholds(found: dict[str, Any]) -> str:
    """What each method gives away, and its rates."""
    parts = []
    for score in ("local", "global"):
        by_count = found[score]["images"]
        counts = [count for count in SHOWN_COUNTS if count in by_count]
        methods = list(by_count[counts[0]])
        if score == "global":
            methods = [method for method in methods if method.startswith(("quantile", "normal", "pasted: b", "larger"))]
        rows = [
            [method, *(_rates(by_count[count][method]) for count in counts)]
            for method in sorted(methods, key=lambda method: sum(by_count[c][method]["mean"][2] for c in counts))
        ]
        head = ["method", *(f"n = {count}" for count in counts)]
        parts += [
            f"**The {score} score.** Given away (false alarms / misses), mean of families; with 50 and more images "
            "leather has too few:", "", table(head, rows), "",
        ]  # fmt: skip
    images = found["local"]["images"]
    told = ["quantile 0.99 of the scores", "normal fit, 0.90", "pasted: brightness",
            "larger of brightness and normal fit, 0.90"]  # fmt: skip
    families = [family for family in images["25"][told[0]] if family not in ("mean", "deviation_of_false_alarms")]
    rows = [
        [f"{method}, n = {count}", *(_rates(images[count][method].get(family)) for family in families),
         images[count][method]["deviation_of_false_alarms"]]
        for method in told for count in ("25", "50")
    ]  # fmt: skip
    parts += [
        "**The local score, by family**, and the deviation of the false-alarm rate between draws:", "",
        table(["method", *families, "deviation"], rows),
    ]  # fmt: skip
    return "\n".join(parts)


def _rates(values: dict[str, Any] | list[float] | None) -> str | None:
    if values is None:
        return None
    false_alarms, misses, given_away = values["mean"] if isinstance(values, dict) else values
    return f"{given_away:.3f} ({false_alarms:.3f} / {misses:.3f})"


def maps(found: dict[str, Any]) -> str:
    """Every form of the map."""
    rows = found["rows"]
    sets = list(found["images"])
    measures = [f"{measure} {name}" for name in sets for measure in ("pixel AUROC", "AUPRO")]
    head = ["map", *measures, "mean", "ms an image", "cost"]
    lines = []
    for form, row in sorted(rows.items(), key=lambda item: -item[1]["mean"]):
        cells = [measured(row[measure][name]) for name in sets for measure in ("pixel_auroc", "aupro")]
        lines.append([form, *cells, f"**{row['mean']:.3f}**", row["milliseconds"], row["cost"]])
    images = "; ".join(f"{name} {count['good']} and {count['bad']}" for name, count in found["images"].items())
    return f"Normal and anomalous images: {images}. *Cost* is in gradients of the global score.\n\n{table(head, lines)}"


def few(found: dict[str, Any]) -> str:
    """The curve."""
    rows = [
        [name, row["images"], row["epochs"], f"{row['local']:.3f}", f"{row['global']:.3f}"]
        for name, seeds in found["sets"].items() for row in means(seeds)
    ]  # fmt: skip
    head = ["set", "images to train on", "epochs", "AUROC, local", "AUROC, global"]
    text = f"Every student had {found['steps']} steps or as many as make its last epoch whole."
    return f"{text}\n\n![AUROC against the number of images](../docs/images/{CURVE.name})\n\n{table(head, rows)}"


def plain(found: dict[str, Any]) -> str:
    """Rows as they are, mean of seeds."""
    rows = [(name, row) for name, seeds in found["sets"].items() for row in means(seeds)]
    titles = {"local": "AUROC, local", "global": "AUROC, global"}
    head = ["set", "seeds", *(titles.get(key, key.replace("_", " ")) for key in rows[0][1])]
    return table(head, ([name, len(found["sets"][name]), *row.values()] for name, row in rows))


def means(seeds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of several seeds, numbers averaged."""
    found = []
    for rows in zip(*seeds, strict=True):
        mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in ("local", "global")}
        found.append({**rows[0], **mean})
    return found


def curve(found: dict[str, Any]) -> Figure:
    """AUROC against the number of images, one panel a set."""
    sets = found["sets"]
    figure = Figure(figsize=(2.6 * len(sets), 2.6), dpi=DOTS_PER_INCH, layout="constrained")
    for axes, (name, seeds) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True):
        rows = means(seeds)
        for score, colour in (("local", ANOMALOUS), ("global", NORMAL)):
            axes.plot([row["images"] for row in rows], [row[score] for row in rows], "o-", color=colour, label=score)
        axes.set_xscale("log", base=2)
        axes.set_xticks([row["images"] for row in rows], [str(row["images"]) for row in rows], fontsize=7)
        axes.minorticks_off()
        axes.set(title=name, xlabel="images to train on")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e5e5")
    figure.axes[0].set_ylabel("AUROC")
    figure.axes[0].legend(frameon=False)
    return figure


def cost(found: dict[str, Any]) -> str:
    """Milliseconds of scores and maps as the project serves them."""
    return "\n".join(
        [
            "Full-size networks, batches of eight at 128x128. *Alone* is without the local distances. A map's time "
            "holds its score; ratios are to the first row of a kind.\n",
            "| | ms an image | ratio |",
            "|---|---|---|",
            *(f"| {name} | {row['milliseconds']} | {row['ratio']} |" for name, row in found["rows"].items()),
        ]
    )


def others(found: dict[str, Any]) -> str:
    """The product's pair beside methods of anomalib, and the published figures apart."""
    names = {"ours": "ours, `weighted`", "patchcore-teacher": "PatchCore", "stfpm-teacher": "STFPM"}
    head = ["set", "teacher", "method", "AUROC, 95 % interval", "pixel AUROC", "AUPRO", "ms (with map)", "of ours",
            "MB", "training, s"]  # fmt: skip
    lines: list[list[object]] = []
    for row in sorted(
        found["rows"], key=lambda row: (row["set"], row["teacher"], row["seed"], list(names).index(row["method"]))
    ):
        times = found["milliseconds"].get(f"{row['set']}-{row['teacher']}-{row['seed']}", {})
        own = times.get("ours, with map")
        is_ours = row["method"] == "ours"
        time = own if is_ours else times.get(row["method"])
        shown = None if time is None else f"{times['ours, score alone']} ({time})" if is_ours else f"({time})"
        low, high = row["interval"]
        lines.append([
            f"{row['set']} {row['images']['good']} + {row['images']['bad']}", row["teacher"], names[row["method"]],
            f"{row['auroc']:.3f} [{low:.3f}, {high:.3f}]",
            *(None if measure not in row else f"{row[measure]:.3f}" for measure in ("pixel_auroc", "aupro")),
            shown, None if time is None or own is None else f"{time / own:.2f}", f"{row['bytes'] / 1e6:.1f}",
            row["training_seconds"],
        ])  # fmt: skip
    counts = {row["set"]: row["images"]["normal"] for row in found["rows"]}
    sizes = ", ".join(f"{label} {size / 1e6:.0f} MB" for label, size in found["teacher_bytes"].items())
    about = (
        f"anomalib {found['anomalib']}, one seed, 128 pixels. Each method was given the same normal pictures "
        f"({', '.join(f'{name} {count}' for name, count in counts.items())}) and learned from nine tenths "
        "of them, each its own. "
        f"Ours is the product's recipe with {found['steps']} steps of {found['batch']} pictures, fewer than the 500 "
        f"that training asks for. The teachers: {sizes}."
    )
    return f"{about}\n\n{OTHERS_NOTES}\n\n{table(head, lines)}\n\n{OTHERS_NOT_RUN}\n\n{PUBLISHED}"


def promises(found: dict[str, Any]) -> str:
    """What a threshold promised of false alarms, beside what unseen parts showed."""
    parts = [
        f"A student of {found['trained_on']} good parts for each seed, weighted score, compact teacher. The other good "
        f"parts were divided {found['divisions']} times for each student: n chose the threshold as `eca-inspect` does, "
        "and all others judged. Means over students and divisions. *Above the bound*: the share of divisions in which "
        "the unseen parts had a higher rate than promised. It may be above 5 % because the unseen parts are few too; "
        "*by theory* is what an exact bound gives with so many of them. *Above a naive bound*: the same for Clopper "
        "and Pearson's bound of the parts that chose the threshold."
    ]
    columns = {
        "own parts": "own_parts",
        "expected": "expected",
        "unseen parts": "unseen_parts",
        "bound": "bound",
        "above the bound": "above_bound",
        "by theory": "above_bound_by_theory",
        "above a naive bound": "above_naive_bound",
    }
    for name, one in found["sets"].items():
        for count, rules in one["rules"].items():
            rows = [
                [method, *("" if row[key] is None else f"{100 * row[key]:.1f} %" for key in columns.values())]
                for method, row in rules.items()
            ]
            judges = one["good_parts"] - int(count)
            parts.append(f"**{name}, n = {count}**, judged on {judges}:\n\n{table(['method', *columns], rows)}")
    return "\n\n".join(parts)


def training(found: dict[str, Any]) -> str:
    """The student as it learns, and other ways to train beside the plain one after as many steps."""
    looks: dict[tuple[str, str, str, int], dict[int, dict[str, Any]]] = {}
    for row in found["rows"]:
        looks.setdefault((row["teacher"], row["set"], row["way"], row["steps"]), {})[row["seed"]] = row

    def mean(rows: Iterable[dict[str, Any]], *path: str) -> float | None:
        values = [reduce(getitem, path, row) for row in rows if path[0] in row]
        return float(np.mean(values)) if values else None

    def shown(value: float | None, form: str = ".3f") -> str | None:
        return None if value is None else format(value, form)

    curve_rows, way_rows = [], []
    for (teacher, name, way, steps), seeds in looks.items():
        if way == "plain":
            rows = list(seeds.values())
            curve_rows.append([
                teacher, name, rows[0]["images"], steps, len(seeds),
                *(shown(mean(rows, "auroc", score)) for score in ("weighted", "local", "global")),
                shown(mean(rows, "pixel_auroc")), shown(mean(rows, "aupro")),
                shown(mean(rows, "loss")), shown(mean(rows, "held_out", "global")),
            ])  # fmt: skip
            continue
        plain = looks.get((teacher, name, "plain", steps), {})
        both = sorted(seeds.keys() & plain.keys())
        compared = [
            key[3] for key in looks if key[:3] == (teacher, name, way) and (teacher, name, "plain", key[3]) in looks
        ]
        if not both or steps != max(compared):
            continue
        own, other = [seeds[seed] for seed in both], [plain[seed] for seed in both]
        gains = [
            (mean(own, half, score) or 0) - (mean(other, half, score) or 0)
            for half, score in (("choosing", "weighted"), ("reporting", "weighted"), ("reporting", "local"),
                                ("reporting", "global"))
        ]  # fmt: skip
        way_rows.append([
            way, teacher, name, steps, len(both), shown(mean(other, "reporting", "weighted")),
            shown(mean(own, "reporting", "weighted")), *(shown(gain, "+.3f") for gain in gains),
            shown((mean(own, "seconds") or 0) / (mean(other, "seconds") or 1), ".1f"),
        ])  # fmt: skip
    head = ["teacher", "set", "pictures", "steps", "seeds", "`weighted`", "`local`", "`global`",
            "pixel AUROC", "AUPRO", "loss", "held-out loss"]  # fmt: skip
    ways = ["way", "teacher", "set", "steps", "seeds", "plain", "this way", "gain, choosing halves",
            "gain, reporting halves", "`local`", "`global`", "time"]  # fmt: skip
    return "\n".join(
        [
            TRAINING_COMMANDS, "", table(head, curve_rows), "",
            "**Other ways, after as many steps.** AUROC of `weighted` on the reporting halves, and what the way gains "
            "over `plain` with the same seeds; *time* is its processor time over that of `plain`.", "",
            table(ways, sorted(way_rows, key=lambda row: [str(cell) for cell in row[:3]])) if way_rows else "None yet.",
        ]
    )  # fmt: skip


VIEWS = {
    "panel": (
        "Panels of 20 megapixels with faults of 9 to 16 pixels. *Auto* is `--tiles auto --smallest-fault 12`. Pixels "
        "are those of the pictures themselves.",
        ("look", "tiles"),
    ),
    "leather": ("Leather, 1024x1024: 4 pictures to learn from, 4 good and 20 faulty ones to judge.", ("tiles",)),
    "fits": ("Magnetic tile: pictures from 0.36 to 2.7 times as wide as high.", ("fit",)),
    "region": ("Casting: a circle around the part, which leaves a quarter of the picture out.", ("region",)),
    "outside": (
        "Casting, noise in place of what lies outside of the circle, which must not move the score, or inside.",
        ("look", "fit"),
    ),
}
"""Parts of `benchmarks.views` by their names: what is said of each, and what its rows are called by."""
VIEWS_COLUMNS = {
    "views": "views", "seed": "seed", "auroc": "AUROC", "interval": "95 % interval", "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO", "false_alarms_at_first_threshold": "false alarms, first threshold",
    "misses_at_first_threshold": "misses", "training_processor_s": "training, s", "decode_ms": "decode, ms",
    "cut_ms": "cut, ms", "score_ms": "score, ms", "pictures": "pictures", "replaced": "replaced",
    "largest_relative_change": "largest change of a score", "smallest_with_noise_inside": "smallest with noise inside",
}  # fmt: skip


def views() -> str:
    """Tiles, regions and fits, each part with its own command."""
    parts = ["Times are processor time of one thread; those of a picture are medians of five."]
    for name, (about, called) in VIEWS.items():
        found = load(f"views_{name}")
        if found is None:
            parts.append(f"**{about}** Not measured. `python -m benchmarks.views {name}`")
            continue
        shown = {key: title for key, title in VIEWS_COLUMNS.items() if key in found["rows"][0]}
        rows = [[row[key] for key in (*called, *shown)] for row in found["rows"]]
        parts += [
            f"**{about}** {origin(found)} {found.get('note', '')}".rstrip(),
            table([*called, *shown.values()], rows),
        ]
    return "\n\n".join(parts)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "objects": ("Surfaces and objects, two teachers", objects),
    "others": ("Other methods on the same pictures", others),
    "scores": ("Scores on surfaces, compact teacher", scores),
    "maps": ("Maps", maps),
    "maps_finer": ("Maps of the three finer layers", maps),
    "cost": ("What serving them costs", cost),
    "thresholds": ("Thresholds without anomalous images", thresholds),
    "promises": ("Promised and seen", promises),
    "few": ("Few images", few),
    "flips": ("Mirrored copies", plain),
    "early": ("When to stop", plain),
    "tiles": ("Tiles of a large image", plain),
    "larger": ("Larger input", plain),
    "training": ("Steps, and other ways to train", training),
}


def main() -> None:
    """Writes the page and the figure."""
    parts = [(HERE / "accuracy_intro.md").read_text().rstrip("\n")]
    for name, (title, section) in SECTIONS.items():
        found = load(f"accuracy_{name}")
        text = "Not measured." if found is None else f"{origin(found)}\n\n{section(found)}"
        parts.append(f"## {title}\n\n{text}")
    parts.append(f"## Tiles, regions and fits\n\n{views()}")
    (HERE / "accuracy.md").write_text("\n\n".join(parts) + "\n")
    found = load("accuracy_few")
    if found is not None:
        CURVE.write_bytes(png(curve(found)))


if __name__ == "__main__":
    main()
