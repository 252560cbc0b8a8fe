"""What can be chosen for a category, and the defaults: names and numbers, which cost nothing to import.

The command line and the settings show these before anything is loaded, so this module imports neither torch nor OpenCV.
"""

from enum import StrEnum
from typing import Literal, NamedTuple

IMAGENET = "imagenet"
COMPACT = "compact"
"""The two teachers that have a name of their own: VGG16 trained on ImageNet, and the small one that is built in."""

ANY_NAME = "*"
"""The pattern that every file name matches."""

NORMAL_QUANTILE = 0.9
"""For a threshold without anomalous images; measured in ``benchmarks/accuracy.md``."""

SMALLEST_SIDE, LARGEST_SIDE = 32, 2048
"""Of the image that the networks see, pixels."""
LARGEST_SEED = 2**32 - 1

MAX_PIXELS = 64_000_000
"""Of an image, unless a setting says otherwise."""
PILLOW_MAX_PIXELS = 178_956_970
"""Pillow itself refuses more than this."""


class Score(StrEnum):
    """Which score a category has.

    ``global``: equation 13, the paper's. It compares whole maps, so a small fault drowns in what surrounds it.
    ``local``: the largest sum of `model.score.layer_distances` at one location. On even surfaces it finds more; where a
    part lies on a ground, the ground counts as much as the part.
    ``weighted``: the same distances with each location weighted by how much the teacher sees there, as the mean of the
    largest half per cent. It is safe on surfaces and on objects (``benchmarks/accuracy.md``).

    All three belong to the same networks, trained on the same loss.
    """

    GLOBAL = "global"
    LOCAL = "local"
    WEIGHTED = "weighted"


DEFAULT_SCORE = Score.WEIGHTED
"""Of new categories."""


class Schedule(StrEnum):
    """How the learning rate changes in a training.

    ``constant``: it does not. ``one-cycle``: it rises in the first tenth of the steps, and then falls along a cosine to
    nothing (Smith and Topin, Super-Convergence, 2018).
    """

    CONSTANT = "constant"
    ONE_CYCLE = "one-cycle"


class Align(StrEnum):
    """How a picture is aligned with a reference picture; see `model.alignment`.

    ``none``: it is taken as it is. ``template``: shift, and a turn of up to 20 degrees. ``features``: shift, and any
    turn. Both allow a tenth more or less in size.
    """

    NONE = "none"
    TEMPLATE = "template"
    FEATURES = "features"


class TermWeights(NamedTuple):
    """How much each term of equation 13 counts. The paper's lambda is ``direction``: 0.1 for MVTec AD, else 0.01."""

    squared: float = 1.0
    direction: float = 0.1


class FalseAlarmTarget(NamedTuple):
    """The share of good parts, above 0 and below 1, that may be rejected: on average, or with 95 % confidence."""

    rate: float
    with_confidence: bool = False


class Basis(StrEnum):
    """How the parts that an error rate was counted on relate to the threshold; see `model.error_rates`."""

    INDEPENDENT = "independent"
    ORDER_STATISTIC = "order-statistic"
    SAME_PARTS = "same-parts"


class MapForm(StrEnum):
    """What an anomaly map shows.

    ``gradient``: equation 5, the gradient of equation 13. ``distance``: the distances between the two networks at
    each location, which need no gradient and so cost nothing. ``gradient-distance``: the gradient of their power mean,
    filtered as in equation 5, and the distances themselves, as the geometric mean of the two.
    """

    GRADIENT = "gradient"
    GRADIENT_DISTANCE = "gradient-distance"
    DISTANCE = "distance"


class Fit(StrEnum):
    """How a picture, or a view of it, becomes a square.

    ``stretch``: without its aspect ratio. ``letterbox``: with it, and a border of the mean colour of its edge.
    ``crop``: the square in the middle.
    """

    STRETCH = "stretch"
    LETTERBOX = "letterbox"
    CROP = "crop"


OVERLAP = 0.1
"""Of neighbouring tiles, as a share of a tile's side."""


class Colour(StrEnum):
    """Which channels of an image are read. ``gray``: one, for cameras without colour; the networks see it thrice."""

    RGB = "rgb"
    GRAY = "gray"


class Bayer(StrEnum):
    """The colours of the first two rows of raw sensor data, from the upper left."""

    RGGB = "RGGB"
    BGGR = "BGGR"
    GRBG = "GRBG"
    GBRG = "GBRG"


class Light(StrEnum):
    """What is done about light that changes. ``gain``: each image is made as bright as the training images were."""

    NONE = "none"
    GAIN = "gain"


AUTO: Literal["auto"] = "auto"
"""A level that is taken from the training images."""
Level = int | Literal["auto"]


class Reason(StrEnum):
    """Why a picture is anomalous: its score, or that it is not a picture as those of good parts are.

    See `model.quality` for the latter.
    """

    SCORE = "score"
    TOO_DARK = "too-dark"
    TOO_BRIGHT = "too-bright"
    TOO_LITTLE_CONTRAST = "too-little-contrast"
    BLURRED = "blurred"
    WRONG_SHAPE = "wrong-shape"
    NOT_ALIGNED = "not-aligned"


class SeenPolicy(StrEnum):
    """What evaluation does with images that training or calibration has seen."""

    REFUSE = "refuse"
    SKIP = "skip"
    INCLUDE = "include"
