"""The report of an evaluation: a page that needs nothing but itself, its figures as PNG, and its numbers as JSON."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import cv2
import numpy as np

from model import measures
from model.choices import Fit
from model.images import read_image
from model.lifecycle import figures
from model.lifecycle.datasets import pick
from model.lifecycle.evaluate import Evaluation, Judged, maps_of_pictures
from model.lifecycle.masks import decode_mask, on_grid
from model.pages import STYLE, table
from model.reading import Reading
from model.store.card import Card
from model.text import encodable, json_text, readable

PAGE = "report.html"
NUMBERS = "report.json"
MOST_CASES = 6
"""At each end of each group; and never so many that an image is among the best and the worst."""
DRAWN_SIDE = 512
"""Longer side, in pixels, of a picture that the networks see in pieces."""


class Picked(NamedTuple):
    """One end of the normal or of the anomalous images.

    Attributes:
        name: of its file.
        title: above its montage.
        meaning: which images these are.
        anomalous: whether they are anomalous ones.
        indices: which, the most telling first.
    """

    name: str
    title: str
    meaning: str
    anomalous: bool
    indices: list[int]


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Makes the folder of a report, and takes it away again with all that is in it if the report fails.

    Raises:
        FileExistsError: if it is a file, or a folder that is not empty.
        OSError: if it cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in folder.iterdir():
                path.unlink()
            for path in made:
                path.rmdir()
        raise


def write_report(folder: Path, judged: Judged, found: Evaluation) -> Path:
    """Writes page, figures and numbers into a folder, and returns the path of the page.

    Args:
        folder: see `new_folder`.
        judged: the scores.
        found: what `model.lifecycle.evaluate.measure_judged` makes of them.
    """
    kinds = {defect: judged.anomalous_scores[places] for defect, places in judged.of_defect().items()}
    band = measures.roc_band(judged.normal_scores, judged.anomalous_scores)
    ends = _ends(judged)
    numbers = _numbers(judged, found, band, ends)
    pictures = {
        "roc": figures.roc(band, found.image.auroc, found.image.false_alarm_rate.value, found.image.miss_rate.value),
        "histograms": figures.histograms({"normal": judged.normal_scores, **kinds}, found.threshold),
        "defects": figures.defects(found.by_defect, {defect: len(scores) for defect, scores in kinds.items()}),
        **{picked.name: figures.montage(_montage(judged, picked)) for picked in ends},
    }
    drawn = {name: figures.png(figure) for name, figure in pictures.items()}
    for name, content in drawn.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / NUMBERS).write_text(json_text(numbers, indent=1) + "\n", encoding="utf-8")
    page = folder / PAGE
    page.write_text(encodable(_page(judged, found, numbers, ends, drawn)), encoding="utf-8")
    return page


def _ends(judged: Judged) -> list[Picked]:
    """The images of the highest and the lowest scores of each group."""
    bad, good = (np.argsort(scores, kind="stable") for scores in (judged.anomalous_scores, judged.normal_scores))
    few_bad, few_good = (min(MOST_CASES, len(order) // 2) for order in (bad, good))
    return [
        Picked(
            "best-anomalous",
            "Clearest detections",
            "The anomalous images of the highest scores, the highest first.",
            True,
            bad[::-1][:few_bad].tolist(),
        ),
        Picked(
            "worst-anomalous",
            "Hardest anomalous images",
            "The anomalous images of the lowest scores, the lowest first: the misses furthest below the threshold, if "
            "there are any, then the detections nearest above it.",
            True,
            bad[:few_bad].tolist(),
        ),
        Picked(
            "best-normal",
            "Clearest normal images",
            "The normal images of the lowest scores, the lowest first.",
            False,
            good[:few_good].tolist(),
        ),
        Picked(
            "worst-normal",
            "Hardest normal images",
            "The normal images of the highest scores, the highest first: the false alarms furthest above the "
            "threshold, if there are any, then the normal images nearest below it.",
            False,
            good[::-1][:few_good].tolist(),
        ),
    ]


def _montage(judged: Judged, picked: Picked) -> list[figures.Case]:
    images = judged.bad if picked.anomalous else judged.good
    chosen = pick(images, picked.indices)
    maps = maps_of_pictures(judged.card, judged.detector, chosen, lambda shape: _drawn(judged.card, shape))
    cases, reading = [], judged.card.preprocessor.reading
    for number, (case, index, found) in enumerate(zip(_cases(judged, picked), picked.indices, maps, strict=True), 1):
        sample, size = images.samples[index], found.shape[::-1]
        has_truth = sample.mask and index in judged.masks
        truth = on_grid(decode_mask(sample.mask).marked, *size) if sample.mask and has_truth else None
        title = f"{number}: {figures.short(case['defect'] or 'normal', 16)}\n{case['score']:.3g}, {case['verdict']}"
        picture = chosen.pixels[number - 1] if _is_whole(judged.card) else _picture(sample.path, reading, size)
        cases.append(figures.Case(title, picture, found / judged.card.map_scale, truth))
    return cases


def _drawn(card: Card, shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture in a montage: what the networks see, or more of one that they see in pieces."""
    if _is_whole(card):
        return card.image_size, card.image_size
    scale = DRAWN_SIDE / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _is_whole(card: Card) -> bool:
    """Whether the networks see the whole picture, stretched to a square."""
    return (card.preprocessing.resize, card.preprocessing.region, card.preprocessing.tiles) == (Fit.STRETCH, None, None)


def _picture(path: Path, reading: Reading, size: tuple[int, int]) -> np.ndarray:
    drawn: np.ndarray = cv2.resize(read_image(path, reading), size, interpolation=cv2.INTER_AREA)
    return drawn if drawn.ndim == 3 else cv2.cvtColor(drawn, cv2.COLOR_GRAY2RGB)


def _cases(judged: Judged, picked: Picked) -> list[dict[str, Any]]:
    images, scores, rejected = (
        (judged.bad, judged.anomalous_scores, judged.anomalous_rejected)
        if picked.anomalous
        else (judged.good, judged.normal_scores, judged.normal_rejected)
    )
    words = ("missed", "detected") if picked.anomalous else ("passed", "false alarm")
    return [
        {
            "path": readable(images.samples[index].path),
            "defect": images.samples[index].defect,
            "score": float(scores[index]),
            "verdict": words[bool(rejected[index])],
        }
        for index in picked.indices
    ]


def _numbers(
    judged: Judged,
    found: Evaluation,
    band: measures.RocBand,
    ends: Sequence[Picked],
) -> dict[str, Any]:
    """Everything the page shows. What `evaluate --json` prints stands in it under the same names."""
    card = judged.card
    false_alarms, detected = int(judged.normal_rejected.sum()), int(judged.anomalous_rejected.sum())
    return {
        **found.as_dict(),
        "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "teacher": card.teacher.model_dump(),
        "image_size": card.image_size,
        "training": card.training.model_dump(mode="json"),
        "calibration_date": card.calibration.date.isoformat(),
        "confusion": {
            "normal_accepted": found.normal_images - false_alarms,
            "normal_rejected": false_alarms,
            "anomalous_accepted": found.anomalous_images - detected,
            "anomalous_rejected": detected,
        },
        "images_by_defect": {defect: len(places) for defect, places in judged.of_defect().items()},
        "rejected_by_defect": {
            defect: int(judged.anomalous_rejected[places].sum()) for defect, places in judged.of_defect().items()
        },
        "roc": {
            "false_alarm_rate": band.false_alarm_rates.tolist(),
            "detection_rate": band.detection_rates.tolist(),
            "low": band.low.tolist(),
            "high": band.high.tolist(),
        },
        "cases": {picked.name: _cases(judged, picked) for picked in ends},
        "scores": [
            {"path": readable(sample.path), "defect": sample.defect, "score": float(score), "reasons": reasons}
            for images, scores, of_group in (
                (judged.good, judged.normal_scores, judged.normal_reasons),
                (judged.bad, judged.anomalous_scores, judged.anomalous_reasons),
            )
            for sample, score, reasons in zip(images.samples, scores, of_group, strict=True)
        ],
    }


def _about_check(found: Evaluation) -> str:
    normal, anomalous = found.by_check
    if not (normal or anomalous):
        return ""
    return f"; the check of the picture rejects {normal} normal and {anomalous} anomalous images more"


def _page(
    judged: Judged, found: Evaluation, numbers: dict[str, Any], ends: Sequence[Picked], drawn: dict[str, bytes]
) -> str:
    template = Template(Path(__file__).with_name(PAGE).read_text(encoding="utf-8"))
    counts = numbers["confusion"]
    auroc = found.image.auroc
    return template.substitute(
        style=STYLE,
        title=escape(f"Evaluation of {found.category}"),
        threshold=f"{found.threshold:.6g}",
        side=judged.card.image_size,
        facts=table([], _facts(judged, found, numbers)),
        measures=table(["measure", "value", "95 % interval", "what it says"], _measure_rows(found), (1, 2)),
        confusion=table(
            ["images", "accepted", "rejected", "in all"],
            [
                ["normal", counts["normal_accepted"], counts["normal_rejected"], found.normal_images],
                ["anomalous", counts["anomalous_accepted"], counts["anomalous_rejected"], found.anomalous_images],
            ],
            (1, 2, 3),
        ),
        roc=_figure(
            drawn["roc"],
            f"ROC curve. AUROC {auroc.value:.3f}; at the threshold {found.image.false_alarm_rate.value:.1%} false "
            f"alarms and {1 - found.image.miss_rate.value:.1%} of the anomalous images detected.",
            "Every threshold is a point of the curve; the dot is the one in use. The band is the exact 95 % interval "
            "of the detection rate at each threshold by itself. A whole curve leaves it more often.",
        ),
        histograms=_figure(
            drawn["histograms"],
            "Histograms of scores: "
            + "; ".join(
                [f"normal, {counts['normal_rejected']} of {found.normal_images} rejected"]
                + [
                    f"{defect}, {numbers['rejected_by_defect'][defect]} of {count}"
                    for defect, count in numbers["images_by_defect"].items()
                ]
            )
            + ".",
            "Scores of each group on one scale. The dashed line is the threshold; what lies at it or to its right is "
            "rejected" + _about_check(found) + ".",
        ),
        defects=_figure(
            drawn["defects"],
            "AUROC by kind of defect: "
            + ", ".join(f"{defect} {estimate.value:.3f}" for defect, estimate in found.by_defect.items())
            + ".",
            "Each kind against all normal images, with its 95 % interval. The number of its images stands in brackets.",
        )
        + table(["kind", "images", "rejected", "AUROC", "95 % interval"], _defect_rows(found, numbers), (1, 2, 3, 4)),
        cases="\n".join(_end(picked, numbers["cases"][picked.name], drawn[picked.name]) for picked in ends),
    )


def _facts(judged: Judged, found: Evaluation, numbers: dict[str, Any]) -> list[list[object]]:
    card = judged.card
    return [
        ["category", f"{found.category}, version {found.model_version}"],
        ["teacher", f"{card.teacher.name}, SHA-256 of its weights {card.teacher.sha256[:16]}…"],
        [
            "trained",
            f"{card.training.date:%Y-%m-%d} on {card.training.images} images, {card.training.epochs} epochs, "
            f"{card.image_size} x {card.image_size} pixels",
        ],
        [
            "threshold",
            f"{found.threshold:.6g}, by {found.calibration} on {card.calibration.normal_images} normal and "
            f"{card.calibration.anomalous_images} anomalous images, {card.calibration.date:%Y-%m-%d}",
        ],
        [
            "judged on",
            f"{found.normal_images} normal and {found.anomalous_images} anomalous images, {found.pixel_images} of them "
            f"with a mask",
        ],
        ["error rates, by these images", found.seen_here],
        ["error rates, said at calibration", found.promise],
        *(line.split(": ", 1) for line in found.remarks.lines()),
        ["date", numbers["date"]],
    ]


def _measure_rows(found: Evaluation) -> list[list[object]]:
    image = found.image
    rows: list[list[object]] = [
        [name, f"{estimate.value:.4f}", _interval(estimate.low, estimate.high), meaning]
        for name, estimate, meaning in (
            (
                "AUROC",
                image.auroc,
                "The chance that an anomalous image scores above a normal one, ties half; 0.5 is a coin, 1 perfect.",
            ),
            ("false-alarm rate (FPR)", image.false_alarm_rate, "The share of the normal images that are rejected."),
            ("miss rate (FNR)", image.miss_rate, "The share of the anomalous images that are accepted."),
            ("g-mean", image.g_mean, "The square root of (1 - FPR)(1 - FNR): both kinds of error in one number."),
        )
    ]
    if found.pixel_auroc is not None and found.aupro is not None:
        rows += [
            [
                "pixel AUROC",
                f"{found.pixel_auroc:.4f}",
                "",
                "The chance that the map is higher at a faulty pixel than at a faultless one.",
            ],
            [
                "AUPRO",
                f"{found.aupro:.4f}",
                "",
                "How much of each fault the map covers on average, large or small alike, over all pixel false-alarm "
                f"rates up to {measures.AUPRO_FALSE_POSITIVE_LIMIT}.",
            ],
        ]
    return rows


def _defect_rows(found: Evaluation, numbers: dict[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    for defect, estimate in found.by_defect.items():
        rows.append(
            [
                defect,
                numbers["images_by_defect"][defect],
                numbers["rejected_by_defect"][defect],
                f"{estimate.value:.4f}",
                _interval(estimate.low, estimate.high),
            ]
        )
    return rows


def _end(picked: Picked, cases: Sequence[dict[str, Any]], picture: bytes) -> str:
    alt = f"{picked.title}: " + "; ".join(
        f"{number}, {case['defect'] or 'normal'}, score {case['score']:.3g}, {case['verdict']}"
        for number, case in enumerate(cases, 1)
    )
    rows = [
        [number, case["defect"] or "normal", f"{case['score']:.6g}", case["verdict"], case["path"]]
        for number, case in enumerate(cases, 1)
    ]
    return (
        f"<h3>{escape(picked.title)}</h3>\n"
        + _figure(picture, f"{alt}.", picked.meaning)
        + table(["case", "kind", "score", "verdict", "file"], rows, (2,))
    )


def _interval(low: float, high: float) -> str:
    return f"[{low:.4f}, {high:.4f}]"


def _figure(picture: bytes, alt: str, caption: str) -> str:
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(picture).decode()}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )
