"""The options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.choices import AUTO, NORMAL_QUANTILE, Align, Bayer, Colour, FalseAlarmTarget, Level, Light
from service.cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from model.lifecycle.thresholds import ReviewRule, Rule
    from service.part_info import PartInfo


GIB = 1 << 30

Category = Annotated[str, typer.Argument(help="Name of the category.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of categories. Default: INSPECT_WEIGHTS, or weights.")]
Teachers = Annotated[
    Path | None,
    typer.Option(help="Folder of teachers. Default: INSPECT_TEACHERS, or teachers in the folder of categories."),
]
Parts = Annotated[
    Path | None,
    typer.Option(help="Folder of cards of parts. Default: INSPECT_PARTS, or parts beside the folder of categories."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 ... Default: INSPECT_DEVICE, or auto, which prefers a GPU.")
]
Data = Annotated[Path | None, typer.Option(help="Folder of the category's images in the MVTec AD layout.")]
Quantile = Annotated[
    float | None,
    typer.Option(
        help="For a threshold without anomalous images: one minus the desired false-alarm rate.",
        show_default=str(NORMAL_QUANTILE),
    ),
]


def rate_of(text: str) -> float:
    """A rate from what somebody types: ``1%`` or ``0.01``. Without the sign it is a share of 1.

    Raises:
        UsageError: if it is neither, or not between 0 and 100 %.
    """
    number = text.strip().removesuffix("%").rstrip()
    try:
        rate = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise UsageError(f"{text!r} is no rate: write 1% or 0.01 for one part in a hundred") from None
    if 0 < rate < 1:
        return rate
    unsigned = rate >= 1 and "%" not in text
    meant = f": without the sign it is {100 * rate:g} %; write {text}% for {text} in a hundred" if unsigned else ""
    raise UsageError(f"a rate of false alarms must lie between 0 and 100 %, got {text}{meant}")


MaxFalseAlarms = Annotated[
    str | None,
    typer.Option(
        help="Choose the threshold so that at most this share of good parts is rejected on average: 1% or 0.01. Needs "
        "99 good parts for 1%.",
        metavar="RATE",
    ),
]
WithConfidence = Annotated[
    bool,
    typer.Option(
        "--with-confidence",
        help="With --max-false-alarms: not on average but with 95 % confidence. Needs 299 good parts for 1%.",
    ),
]


ReviewLimits = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--review-band",
        metavar="LOW HIGH",
        help="A person should look at parts that score from LOW to below HIGH; the threshold is in between.",
    ),
]
ReviewFalsePasses = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Choose LOW so that, with 95 % confidence, at most this share of faulty parts scores below. Needs 598 "
        "faulty parts for 0.5%.",
    ),
]
ReviewFalseRejects = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Choose HIGH so that, with 95 % confidence, at most this share of good parts scores as much. Needs 598 "
        "good parts for 0.5%.",
    ),
]


def review_of(
    band: tuple[float, float] | None, false_passes: str | None, false_rejects: str | None
) -> "ReviewRule | None":
    """Where the review band is to come from; None if none is asked for.

    Raises:
        UsageError: if the options do not go together, or a rate is none.
    """
    from model.lifecycle.thresholds import ReviewRule

    if band is None and false_passes is None and false_rejects is None:
        return None
    if band is not None and (false_passes is not None or false_rejects is not None):
        raise UsageError("--review-band goes without --review-false-passes and --review-false-rejects")
    passes, rejects = (None if one is None else rate_of(one) for one in (false_passes, false_rejects))
    return ReviewRule(band, passes, rejects)


def rule_of(
    quantile: float | None,
    max_false_alarms: str | None,
    with_confidence: bool,
    threshold: float | None = None,
    review: "ReviewRule | None" = None,
) -> "Rule":
    """Where the threshold is to come from.

    Raises:
        UsageError: if the options do not go together, or the rate is none.
        CalibrationError: see `model.lifecycle.thresholds.Rule.check`.
    """
    from model.lifecycle.thresholds import Rule

    given = {
        "--threshold": threshold is not None,
        "--max-false-alarms": max_false_alarms is not None,
        "--quantile": quantile is not None,
    }
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} exclude each other: each says where the threshold comes from")
    if with_confidence and max_false_alarms is None:
        raise UsageError("--with-confidence goes with --max-false-alarms")
    target = None if max_false_alarms is None else FalseAlarmTarget(rate_of(max_false_alarms), with_confidence)
    rule = Rule(threshold, target, NORMAL_QUANTILE if quantile is None else quantile, review)
    rule.check()
    return rule


RegionFile = Annotated[
    Path | None,
    typer.Option(help="What of the picture counts: a JSON file of polygons, or a picture that is white there."),
]
EachZone = Annotated[
    bool,
    typer.Option(
        "--each-zone",
        help="Judge each zone of the region by its own level, so that a smooth one counts as much as a rough one.",
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(
        "--tiles",
        metavar="COLUMNSxROWS|auto",
        help="Cut the picture, or each zone of the region, into tiles, so that the networks see small faults. auto "
        "needs --smallest-fault.",
    ),
]
SmallestFault = Annotated[
    float | None, typer.Option(help="With --tiles auto: side of the smallest fault to find, pixels of the picture.")
]
Overlap = Annotated[
    float, typer.Option(min=0, max=0.5, help="With --tiles: overlap of neighbours, as a share of a tile's side.")
]


def grid_of(tiles: str | None, smallest_fault: float | None) -> tuple[int, int] | None:
    """Columns and rows from what somebody types; None for ``auto``, or for no tiles.

    Raises:
        UsageError: if it is neither, or the two options do not go together.
    """
    if (tiles == "auto") != (smallest_fault is not None):
        raise UsageError("--tiles auto and --smallest-fault go together: the one is found from the other")
    if tiles is None or tiles == "auto":
        return None
    columns, by, rows = tiles.lower().partition("x")
    if not (by and columns.isascii() and columns.isdigit() and rows.isascii() and rows.isdigit()):
        raise UsageError(f"{tiles!r} is no grid: write COLUMNSxROWS, such as 6x4, or auto")
    return int(columns), int(rows)


WhiteLevel = Annotated[
    str | None,
    typer.Option(
        help="For 16-bit files of 10-, 12- or 14-bit cameras: the largest value that the camera gives (1023, 4095, "
        "16383), or auto, which takes it from the training images.",
        metavar="N|auto",
    ),
]
BlackLevel = Annotated[
    str | None,
    typer.Option(
        help="With --white-level: the value that the camera gives without light, or auto. Default: 0.", metavar="N|auto"
    ),
]
Channels = Annotated[Colour, typer.Option(help="gray: read one channel, for cameras without colour.")]
BayerOrder = Annotated[
    Bayer | None,
    typer.Option("--bayer", help="The images are raw sensor data (PNG, TIFF) whose first colours are these."),
]
NormaliseLight = Annotated[
    Light, typer.Option(help="gain: make each image as bright as the training images were, by a factor of 1/2 to 2.")
]


Alignment = Annotated[
    Align,
    typer.Option(
        help="Bring the part to where it is in a reference picture. template: shifts, turns of up to 20 degrees; "
        "features: shifts, and any turn."
    ),
]
ReferenceFile = Annotated[
    Path | None,
    typer.Option(help="With --align: the reference picture. Default: a training picture that others fit well."),
]


def level_of(option: str, text: str | None) -> Level | None:
    """A level from what somebody types.

    Raises:
        UsageError: if it is neither a whole number of at least 0 nor ``auto``.
    """
    if text is None or text == AUTO:
        return text
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{option} must be a whole number, or {AUTO}, got {text!r}")
    return int(text)


Pattern = Annotated[
    str,
    typer.Option(help="In plain folders: only files that match are images; '*.jpg' if masks are in the same folder."),
]
FeatureMemory = Annotated[
    float, typer.Option(min=0, help="GiB of memory for teacher features. What does not fit is written to a file.")
]
SpillFolder = Annotated[Path | None, typer.Option(help="Folder of that file. Default: the system's temporary folder.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read.")]
WithoutAnomalous = Annotated[
    bool, typer.Option("--without-anomalous", help="Allow replacing a threshold that was set with anomalous images.")
]
AsCandidate = Annotated[
    bool,
    typer.Option(
        "--candidate",
        help="Put the new version beside the one in place, where the server compares the two. It decides after "
        "`eca-inspect promote`.",
    ),
]
PartId = Annotated[str | None, typer.Option(help="Serial number or other name of the part, for the answer.")]
Lot = Annotated[str | None, typer.Option(help="Its lot, for the answer.")]
Station = Annotated[str | None, typer.Option(help="Where it is inspected, for the answer.")]
Metadata = Annotated[
    str | None, typer.Option(help='Anything else for the answer, as a JSON object: \'{"shift": "b"}\'.', metavar="JSON")
]


def part_info_of(part_id: str | None, lot: str | None, station: str | None, metadata: str | None) -> "PartInfo":
    """What is said of the part, with the checks of the server.

    Raises:
        PartInfoError: if it is not allowed.
    """
    from service.part_info import PartInfo

    given = {"part_id": part_id, "lot": lot, "station": station, "metadata": metadata}
    return PartInfo().joined({name: text for name, text in given.items() if text is not None})


KeyFile = Annotated[Path | None, typer.Option("--file", help="File of keys. Default: INSPECT_KEYS_FILE.")]
KeyName = Annotated[str, typer.Argument(help="Name of the key, for people.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def torch_device(name: str) -> "torch.device":
    """The device with this name. Raises `UsageError` if it cannot be used."""
    from service.app import choose_device

    try:
        return choose_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
