"""How far two raters agree on good and faulty parts, beyond what chance would bring: Cohen's kappa."""

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959964
"""Of a normal distribution, for a 95 % interval."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa (J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960).

    Attributes:
        value: -1 to 1; 1 is full agreement, 0 what chance would bring. None if both raters always say the same one
            thing, so that chance alone would bring full agreement.
        standard_error: asymptotic, after J. L. Fleiss, J. Cohen and B. S. Everitt, Large Sample Standard Errors of
            Kappa and Weighted Kappa, Psychological Bulletin 72, 1969. None without a value, and where all agree,
            because the formula gives 0 then, however few the parts.
        low: lower end of the 95 % interval, None without a standard error.
        high: upper end.
        agreed: share of the parts on which both say the same, 0 to 1; None without parts.
    """

    value: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    agreed: float | None


def kappa(counts: np.ndarray) -> Kappa:
    """Kappa of a table of counts.

    Args:
        counts: of the parts by what the first rater says (row) and the second says (column), ``[K, K]``, 0 and above.
    """
    total = counts.sum()
    if total == 0:
        return Kappa(None, None, None, None, None)
    shares = counts / total
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, by_chance = float(np.trace(shares)), float(rows @ columns)
    if by_chance >= 1:
        return Kappa(None, None, None, None, agreed)
    value = (agreed - by_chance) / (1 - by_chance)
    if agreed == 1:
        return Kappa(value, None, None, None, agreed)
    same = np.diag(shares) * ((1 - by_chance) - (rows + columns) * (1 - agreed)) ** 2
    sums = columns[:, None] + rows[None, :]  # of the first rater's saying j and the second's saying i
    other = (shares * sums**2).sum() - (np.diag(shares) * np.diag(sums) ** 2).sum()
    spread = same.sum() + (1 - agreed) ** 2 * other - (agreed * by_chance - 2 * by_chance + agreed) ** 2
    error = math.sqrt(max(0.0, float(spread)) / float(total)) / (1 - by_chance) ** 2
    return Kappa(value, error, max(-1.0, value - Z * error), min(1.0, value + Z * error), agreed)
