"""Figures for people: from numbers to a drawing. Nothing here decides or measures anything.

Whoever only serves never imports this: matplotlib takes its time to load.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from model.calibration import rejects
from model.localization import fault_mask
from model.measures import Estimate, RocBand

NORMAL, ANOMALOUS, INK = "#0072b2", "#d55e00", "#333333"
"""Blue and vermilion of Okabe and Ito, which the colour-blind tell apart too; and the colour of lines."""

DOTS_PER_INCH = 110
HISTOGRAM_BINS = 40
LOGARITHMIC_FROM = 10
"""Scores whose largest is so many times the smallest are shown on a logarithmic scale."""
HOTTEST = 4
"""Upper end of the heat maps' scale, in multiples of what normal parts show."""

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "figure.dpi": DOTS_PER_INCH,
    "savefig.dpi": DOTS_PER_INCH,
}


@dataclass(frozen=True)
class Case:
    """One image of a montage; the pictures are of one size ``[H, W]``.

    Attributes:
        title: lines above it.
        image: uint8 RGB ``[H, W, 3]``.
        heat: float32 ``[H, W]``, anomaly map in multiples of what normal parts show.
        truth: bool ``[H, W]``, where the fault is, or None if it is not known.
    """

    title: str
    image: np.ndarray
    heat: np.ndarray
    truth: np.ndarray | None


@dataclass(frozen=True)
class Layer:
    """What student and teacher make of an image at one distillation layer; maps float32 ``[H, W]``.

    Attributes:
        name: of the layer.
        student: root mean square of the student's channels at each place.
        teacher: the same of the teacher's.
        difference: the same of their difference.
        note: what the layer adds to the score, one or two lines.
    """

    name: str
    student: np.ndarray
    teacher: np.ndarray
    difference: np.ndarray
    note: str


@contextmanager
def _our_style() -> Iterator[None]:
    """The same look whatever the user's own matplotlib settings are."""
    with style.context(["default", _STYLE], after_reset=True), warnings.catch_warnings():
        # Names in a script that the font lacks become boxes in the figure; the page itself shows them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def png(figure: Figure) -> bytes:
    """Draws a figure as PNG."""
    file = io.BytesIO()
    with _our_style():
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    """An empty figure; inches."""
    return Figure(figsize=(width, height), layout="constrained")


def loss_curve(losses: Sequence[float], title: str) -> Figure:
    """The mean loss of each epoch, on a logarithmic scale."""
    with _our_style():
        figure = _figure(6.5, 3.5)
        axes = figure.add_subplot()
        epochs = np.arange(1, len(losses) + 1)
        axes.plot(epochs, losses, color=NORMAL, marker="o" if len(losses) < 30 else "", markersize=3)
        axes.set(
            title=f"{title}: loss {losses[-1]:.3g} after {len(losses)} epochs",
            xlabel="epoch",
            ylabel="mean loss per image",
        )
        if min(losses) > 0:
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _plain_ticks(axis: mpl.axis.Axis) -> None:
    """Numbers like 0.02 at a few places of a logarithmic axis, which may span less than a decade."""
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def roc(band: RocBand, auroc: Estimate, false_alarm_rate: float, miss_rate: float) -> Figure:
    """The ROC curve with its pointwise band, and the point at which the threshold operates."""
    with _our_style():
        figure = _figure(5, 5)
        axes = figure.add_subplot()
        axes.plot((0, 1), (0, 1), color="#999999", linewidth=1, linestyle=":", label="by chance")
        axes.fill_between(
            band.false_alarm_rates, band.low, band.high, step="post", color=NORMAL, alpha=0.2, linewidth=0,
            label="95 % interval of each detection rate by itself",
        )  # fmt: skip
        axes.step(
            np.r_[0, band.false_alarm_rates], np.r_[0, band.detection_rates], where="post", color=NORMAL, clip_on=False,
            label=f"AUROC {auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]",
        )  # fmt: skip
        axes.plot(
            false_alarm_rate, 1 - miss_rate, "o", color=ANOMALOUS, markersize=8, clip_on=False, zorder=5,
            label=f"threshold: {false_alarm_rate:.1%} false alarms, {1 - miss_rate:.1%} detected",
        )  # fmt: skip
        axes.set(
            xlabel="false-alarm rate: normal images rejected", ylabel="detection rate: anomalous images rejected",
            xlim=(0, 1), ylim=(0, 1), aspect="equal",
        )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
    return figure


def histograms(groups: Mapping[str, np.ndarray], threshold: float) -> Figure:
    """Scores of each group above each other on one scale, with the threshold.

    Args:
        groups: scores by the name of their group; the first is the normal one.
        threshold: in score units.
    """
    scores = np.concatenate([*groups.values(), [threshold]]).astype(np.float64)
    logarithmic = bool(0 < scores.min() <= scores.max() / LOGARITHMIC_FROM)
    edges = np.exp(_edges(np.log(scores), np.log(threshold))) if logarithmic else _edges(scores, threshold)
    with _our_style():
        figure = _figure(7.5, 0.9 + 0.85 * len(groups))
        rows = figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
        for index, (axes, (name, scores)) in enumerate(zip(rows, groups.items(), strict=True)):
            colour = NORMAL if index == 0 else ANOMALOUS
            axes.hist(np.float64(scores), edges.tolist(), color=colour)
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--")
            at_or_above = int(np.sum(rejects(scores, threshold)))
            axes.set_ylabel(
                f"{short(name)}\n{at_or_above} of {len(scores)} above", rotation=0, ha="right", va="center",
                color=colour,
            )  # fmt: skip
            axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
            axes.grid(axis="x", visible=False)
        rows[0].annotate(
            f"threshold {threshold:.3g}", (threshold, 1), (3, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="bottom", color=INK,
        )  # fmt: skip
        if logarithmic:
            rows[-1].set_xscale("log")
            _plain_ticks(rows[-1].xaxis)
        rows[-1].set(xlabel="score" + (", logarithmic" if logarithmic else ""), xlim=(edges[0], edges[-1]))
        figure.align_ylabels()
    return figure


def _edges(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Edges of even bins around all scores, one of which is the threshold, so that no bin lies on both its sides."""
    width = max(float(np.ptp(scores)) / HISTOGRAM_BINS, 1e-9)
    first = np.floor((scores.min() - threshold) / width)
    last = np.floor((scores.max() - threshold) / width) + 1  # beyond the highest, which would else close two bins
    edges: np.ndarray = threshold + width * np.arange(first, last + 1)
    return edges


def short(name: str, length: int = 24) -> str:
    """A name that fits, its end left out if need be."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def defects(estimates: Mapping[str, Estimate], images: Mapping[str, int]) -> Figure:
    """AUROC of each kind of defect with its interval.

    Args:
        estimates: by kind.
        images: how many there are of each kind.
    """
    with _our_style():
        figure = _figure(7.5, 0.9 + 0.36 * len(estimates))
        axes = figure.add_subplot()
        lowest = 0.5
        for row, (value, low, high) in enumerate(estimates.values()):
            axes.hlines(row, low, high, color=ANOMALOUS, linewidth=2.5, alpha=0.45, clip_on=False)
            axes.plot(value, row, "o", color=ANOMALOUS, clip_on=False, zorder=5)
            axes.annotate(f"{value:.3f}", (1, row), (8, 0), xycoords=("axes fraction", "data"),
                          textcoords="offset points", va="center")  # fmt: skip
            lowest = min(lowest, low)
        names = [f"{short(defect)} ({images[defect]})" for defect in estimates]
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="AUROC against all normal images; 0.5 is chance", xlim=(lowest - 0.01 * (lowest < 0.5), 1))
        axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


def montage(cases: Sequence[Case]) -> Figure:
    """Image, anomaly map, mask and, if there is one for any, ground truth of each case, one above the other."""
    rows = ["image", "anomaly map", "mask"]
    if any(case.truth is not None for case in cases):
        rows.append("ground truth")
    with _our_style():
        figure = _figure(0.9 + 1.6 * len(cases), 0.5 + 1.62 * len(rows))
        places = figure.add_gridspec(len(rows), len(cases) + 1, width_ratios=(*[1] * len(cases), 0.07))
        grid = places[:, :-1].subgridspec(len(rows), len(cases)).subplots(squeeze=False)
        for column, case in enumerate(cases):
            image, heat, mask, *truth = grid[:, column]
            image.imshow(case.image)
            image.set_title(case.title, fontsize=8)
            shown = heat.imshow(case.heat, cmap="inferno", vmin=0, vmax=HOTTEST)
            height, width = case.heat.shape
            mask.imshow(fault_mask(case.heat, case.image, width, height), cmap="gray", vmin=0, vmax=1)
            for axes in truth:
                if case.truth is None:
                    axes.text(0.5, 0.5, "not given", ha="center", va="center", transform=axes.transAxes)
                    axes.set_box_aspect(1)
                else:
                    axes.imshow(case.truth, cmap="gray", vmin=0, vmax=1)
        for axes in grid.flat:
            _bare(axes)
        for row, name in enumerate(rows):
            grid[row, 0].set_ylabel(name)
        scale = figure.add_subplot(places[rows.index("anomaly map"), -1])
        figure.colorbar(shown, cax=scale, extend="max", ticks=range(HOTTEST + 1), label="times normal")
    return figure


def _bare(axes: Axes) -> None:
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bbbbbb", linewidth=0.5)


def features(image: np.ndarray, layers: Sequence[Layer], title: str) -> Figure:
    """Student, teacher and their difference at each distillation layer, next to the image.

    The three maps of a layer share one scale, so that a small difference looks small.

    Args:
        image: uint8 RGB ``[H, W, 3]``, as the networks see it.
        layers: from the shallowest to the deepest.
        title: of the figure.
    """
    columns = ("student", "teacher", "difference")
    with _our_style():
        figure = _figure(8.6, 0.6 + 1.75 * len(layers))
        places = figure.add_gridspec(len(layers), 1 + len(columns), width_ratios=(1.4, 1, 1, 1))
        axes = figure.add_subplot(places[:, 0])
        axes.imshow(image)
        axes.set_title("image", fontsize=9)
        _bare(axes)
        grid = [[figure.add_subplot(places[row, 1 + column]) for column in range(3)] for row in range(len(layers))]
        for row, layer in zip(grid, layers, strict=True):
            maps = (layer.student, layer.teacher, layer.difference)
            top = max(float(one.max()) for one in maps) or 1.0
            for axes, one in zip(row, maps, strict=True):
                shown = axes.imshow(one, cmap="magma_r", vmin=0, vmax=top)
                _bare(axes)
            row[0].set_ylabel(f"{layer.name}\n{layer.difference.shape[1]} x {layer.difference.shape[0]}")
            row[-1].set_xlabel(layer.note, fontsize=7.5)
            figure.colorbar(shown, ax=row, fraction=0.04, pad=0.02, ticks=MaxNLocator(4))
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(name, fontsize=9)
        figure.suptitle(title, fontsize=10)
    return figure
