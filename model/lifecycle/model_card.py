"""The model card of a version: from what it was made, how it decides, how often it errs, and what is not known."""

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256

from model import pages
from model.store.card import Card, ErrorRate, SeenImages

FEW = 30
"""Fewer images than this say little of an error rate."""
METHODS = {
    "youden": "where the Youden index of normal and anomalous images is largest",
    "synthetic": "from normal images and defects pasted on them; no real fault was there",
    "false-alarm-target": "from normal images and the false-alarm rate that was asked for",
    "manual": "set by hand",
    "normal-quantile": "a quantile of the scores of normal images",
}
BASES = {
    "independent": "these parts did not choose the threshold",
    "order-statistic": "the threshold is the score of one of these parts, whose rank was chosen before",
    "same-parts": "these parts chose the threshold; the bound allows for it",
}
PURPOSE = (
    "Tells pictures of good parts from others, for this category only. It has learned good parts and knows no kinds of "
    "fault. The decision is anomalous when the score is at or above the threshold, or the picture is not as those of "
    "good parts are."
)
DIGEST = (
    "The hash of a list is the SHA-256 of its files' SHA-256 values, sorted, each followed by a line feed. The list "
    "itself is images.json beside the student."
)


def digest_of(images: Iterable[str]) -> str:
    """The hash of a list of images, whatever their order.

    Args:
        images: the SHA-256 of each, hexadecimal.
    """
    return sha256("".join(f"{one}\n" for one in sorted(images)).encode()).hexdigest()


def model_card(card: Card, seen: SeenImages | None) -> str:
    """The page, in HTML.

    Args:
        card: of the version.
        seen: the images that shaped it; None if that is not known.
    """
    return pages.page(
        f"Model card: {card.category}, version {card.model_version}",
        pages.note(PURPOSE),
        pages.section("Version", pages.table([], _version(card))),
        pages.section("Data", _data(card, seen)),
        pages.section("Networks and training", pages.table([], _training(card))),
        pages.section("Picture and score", pages.table([], _picture(card))),
        pages.section("Threshold", pages.table([], _threshold(card))),
        pages.section("Error rates on new parts like these", _rates(card)),
        pages.section("Known limits", "".join(pages.note(one) for one in limits(card))),
    )  # fmt: skip


def _version(card: Card) -> list[list[object]]:
    return [
        ["category", card.category],
        ["version", card.model_version],
        ["fingerprint of all that decides", card.fingerprint()],
        ["trained", _day(card.training.date)],
        ["threshold set", _day(card.calibration.date)],
        ["this page made", _day(datetime.now(UTC))],
    ]


def _day(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _data(card: Card, seen: SeenImages | None) -> str:
    lists, counted = seen or SeenImages(), card.calibration
    in_calibration = f"{counted.normal_images} good, {counted.anomalous_images} faulty"
    rows: list[list[object]] = [
        ["training, good parts", card.training.images, _digest(lists.training)],
        ["held out of training, good parts", card.training.held_out, _digest(lists.held_out)],
        ["calibration", in_calibration, _digest(lists.calibration)],
    ]
    if (labels := counted.labels) is not None:
        span = f"inspections from {labels.first:%Y-%m-%d} to {labels.last:%Y-%m-%d}"
        sampled = f"{labels.sampled_normal} good, {labels.sampled_anomalous} faulty"
        rows.append([f"of these, in the random sample of all {span}", sampled, ""])
    table = pages.table(["images", "number", "hash of the list"], rows)
    if seen is None:
        return table + pages.note("The list of images of this version could not be read.")
    after_training = "" if seen.calibration else "The threshold comes from the images held out of training. "
    return table + pages.note(after_training + DIGEST)


def _digest(images: tuple[str, ...]) -> str:
    return digest_of(images) if images else "not recorded"


def _training(card: Card) -> list[list[object]]:
    found = card.training
    return [
        ["teacher", f"{card.teacher.name}, SHA-256 of its weights {card.teacher.sha256}"],
        ["student", f"SHA-256 of its file {card.student_sha256}"],
        ["student's channels", ", ".join(map(str, card.architecture.plan))],
        ["loss", f"equation 13, squared weight {card.squared_weight:g}, direction weight {card.direction_weight:g}"],
        ["epochs, steps", f"{found.epochs}, {found.steps}"],
        ["images per step", found.batch_size],
        ["learning rate", f"{found.learning_rate:g}, {found.schedule}"],
        ["last loss", f"{found.final_loss:.6g}"],
        ["seed", found.seed],
        ["device, torch, time", f"{found.device}, {found.torch}, {found.seconds:g} s"],
    ]


def _picture(card: Card) -> list[list[object]]:
    prepared, check = card.preprocessing, card.picture_check
    region = "the whole picture" if prepared.region is None else ", ".join(zone.name for zone in prepared.region.zones)
    levels, tiles = prepared.levels, prepared.tiles
    rows: list[list[object]] = [
        ["side of the square that the networks see", f"{card.image_size} pixels"],
        ["channels", prepared.colour.value],
        ["how a picture is fitted", prepared.resize.value],
        ["region", region],
        ["tiles", "none" if tiles is None else ", ".join(f"{k} {v}" for k, v in vars(tiles).items())],
        ["aligned", "no" if prepared.alignment is None else "to a reference picture"],
        ["values", "8 bits" if levels is None else str(levels)],
        ["score", f"{card.score.value}"],
    ]
    if prepared.reference_brightness is not None:
        rows.append(["brightness brought to", f"{prepared.reference_brightness:.4g} of 255"])
    if check is None:
        return [*rows, ["check of the picture", "none"]]
    return [*rows, *([f"check: {name.replace('_', ' ')}", value] for name, value in vars(check).items())]


def _threshold(card: Card) -> list[list[object]]:
    found = card.calibration
    rows: list[list[object]] = [
        ["threshold", f"{found.threshold:.6g}"],
        ["how it was set", f"{found.method}: {METHODS[found.method]}"],
    ]
    if found.max_false_alarms is not None:
        sure = "with 95 % confidence" if found.with_confidence else "on average"
        rows.append(["false-alarm rate that was asked for", f"{found.max_false_alarms:.3%} {sure}"])
    zones = (*card.zone_thresholds, *card.zone_weights)
    rows += [[f"zone {name}", f"{card.threshold_of(name):.6g}"] for name in zones]
    if found.auroc is not None and found.interval is not None:
        low, high = found.interval.low, found.interval.high
        rows.append(["AUROC", f"{found.auroc:.4f}, 95 % interval {low:.4f} to {high:.4f}"])
    return rows


def _rates(card: Card) -> str:
    false_alarms, misses = card.calibration.error_rates
    kinds = (("good parts that are rejected", false_alarms), ("faulty parts that are accepted", misses))
    rows = [_rate(name, rate) for name, rate in kinds if rate is not None]
    heads = ["error", "counted", "expected", "at most, with 95 % confidence", "basis"]
    return (pages.table(heads, rows, (1, 2, 3)) if rows else "") + pages.note(card.promise)


def _rate(name: str, rate: ErrorRate) -> list[object]:
    expected = "not known" if rate.expected is None else f"{rate.expected:.2%}"
    return [name, f"{rate.errors} of {rate.parts}", expected, f"{rate.bound:.2%}", BASES[rate.basis.value]]


def limits(card: Card) -> list[str]:
    """What this version is not known to do, in sentences for people."""
    found = card.calibration
    said = [
        "The error rates hold for parts and pictures like those of the calibration. Another camera, light, position or "
        "kind of part needs a new calibration; the drift of the pictures shows in the service."
    ]
    if not found.anomalous_images:
        said.append("No faulty part was there at calibration, so it is not known how many faults are found.")
    elif found.anomalous_images < FEW:
        said.append(
            f"Only {found.anomalous_images} faulty parts were there at calibration: kinds of fault that are not among "
            "them may be missed."
        )
    if found.normal_images < FEW:
        said.append(f"Only {found.normal_images} good parts were there at calibration, so the bounds are wide.")
    if found.warning:
        said.append(f"This category {found.warning}.")
    if card.preprocessing.region is not None:
        said.append("Places outside of the region are not looked at.")
    if card.preprocessing.alignment is not None:
        said.append("A picture whose part is not found in it is rejected without a look at the part.")
    if card.picture_check is None:
        said.append("Dark, empty or blurred pictures are not refused: where there is nothing to see the score is low.")
    return said
