"""Drift: how far the pictures of today are from those of the calibration, without any label.

The measure is the Kolmogorov-Smirnov distance: the largest difference between two cumulative distributions, that is,
the largest share of pictures that lie beyond some value now and did not then. Its limit follows from the number of
pictures on both sides (N. Smirnov, Table for Estimating the Goodness of Fit of Empirical Distributions, Annals of
Mathematical Statistics 19, 1948). The population stability index with its usual limits, 0.1 and 0.25, was not taken:
where nothing has changed its mean is about (bins - 1) (1/n + 1/m) (B. Yurdakul, Statistical Properties of Population
Stability Index, 2018), so with 10 bins, 20 pictures at calibration and 200 now it is 0.5.
"""

import math

import numpy as np

QUANTILES = 21
"""That a card keeps of a measure: from the least value to the largest in steps of 5 % of the pictures."""
SIGNIFICANCE = 0.001
"""How often, where nothing has changed, chance alone may bring the distance above its limit."""
LEAST_LIMIT = 0.25
"""Chosen: a smaller change is no drift, however sure it is that there is one."""


def quantiles_of(values: np.ndarray) -> np.ndarray:
    """What is kept of a measure.

    Args:
        values: of the pictures, ``[N]``, one at least.

    Returns:
        float64 ``[QUANTILES]``, rising.
    """
    found: np.ndarray = np.quantile(np.asarray(values, np.float64), np.linspace(0, 1, QUANTILES))
    return found


def distance(reference: np.ndarray, values: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance at the kept quantiles, 0 to 1; at most that of all values.

    Args:
        reference: quantiles in even steps from 0 to 1, rising, ``[Q]``.
        values: of the pictures of today, ``[N]``, one at least.
    """
    today, levels = np.sort(values), np.linspace(0, 1, len(reference))
    # Where quantiles are equal, the reference jumps from the level of the first of them to that of the last.
    below = levels[np.searchsorted(reference, reference, "left")]
    up_to = levels[np.searchsorted(reference, reference, "right") - 1]
    below_today = np.searchsorted(today, reference, "left") / len(today)
    up_to_today = np.searchsorted(today, reference, "right") / len(today)
    return float(max(np.abs(below_today - below).max(), np.abs(up_to_today - up_to).max()))


def limit(reference_count: int, count: int) -> float:
    """The distance above which there is a drift: the critical value for `SIGNIFICANCE`, and `LEAST_LIMIT` at least.

    Args:
        reference_count: pictures of the calibration, one at least.
        count: pictures of today, one at least.
    """
    factor = math.sqrt(-math.log(SIGNIFICANCE / 2) / 2)
    return max(LEAST_LIMIT, factor * math.sqrt(1 / reference_count + 1 / count))
