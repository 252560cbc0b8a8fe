"""Kappa is that of the literature, and its interval holds what it should."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from model.agreement import kappa

PUBLISHED = [
    # J. L. Fleiss, Statistical Methods for Rates and Proportions: two raters, 100 subjects, three diagnoses.
    ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 0.676, 0.088),
    # The examples of Wikipedia's article on Cohen's kappa.
    ([[20, 5], [10, 15]], 0.4, None),
    ([[45, 15], [25, 15]], 0.1304, None),
    ([[25, 35], [5, 35]], 0.2593, None),
]


@pytest.mark.parametrize(("counts", "value", "error"), PUBLISHED)
def test_published_values_are_found(counts: list[list[int]], value: float, error: float | None):
    found = kappa(np.array(counts))
    assert found.value == pytest.approx(value, abs=5e-4)
    if error is not None:
        assert found.standard_error == pytest.approx(error, abs=5e-4)


def test_any_table_has_the_value_of_scikit_learn_and_the_error_of_the_delta_method():
    rng = np.random.default_rng(0)
    for size in (2, 2, 2, 3, 4):
        counts = rng.integers(1, 40, (size, size))
        first, second = (np.repeat(places.ravel(), counts.ravel()) for places in np.indices(counts.shape))
        found = kappa(counts)
        assert found.value == pytest.approx(cohen_kappa_score(first, second))
        assert found.agreed == pytest.approx(np.mean(first == second))
        shares = counts / counts.sum()
        slopes = np.array([slope(shares, place) for place in np.ndindex(shares.shape)]).reshape(shares.shape)
        variance = ((shares * slopes**2).sum() - (shares * slopes).sum() ** 2) / counts.sum()
        assert found.standard_error == pytest.approx(np.sqrt(variance), rel=1e-4)


def slope(shares: np.ndarray, place: tuple[int, ...]) -> float:
    """How kappa changes with a share, by differences."""
    values = []
    for step in (1e-6, -1e-6):
        changed = shares.copy()
        changed[place] += step
        changed /= changed.sum()
        by_chance = changed.sum(axis=0) @ changed.sum(axis=1)
        values.append((np.trace(changed) - by_chance) / (1 - by_chance))
    return (values[0] - values[1]) / 2e-6


def test_the_interval_holds_the_true_kappa():
    rng = np.random.default_rng(1)
    truth = np.array([[0.5, 0.1], [0.1, 0.3]])
    by_chance = truth.sum(axis=0) @ truth.sum(axis=1)
    true_kappa = (np.trace(truth) - by_chance) / (1 - by_chance)
    found = [kappa(rng.multinomial(200, truth.ravel()).reshape(2, 2)) for _ in range(1000)]
    held = sum(one.low is not None and one.low <= true_kappa <= one.high for one in found)
    assert 925 <= held <= 975


def test_where_the_formula_says_nothing_there_is_no_interval():
    all_agree = kappa(np.array([[10, 0], [0, 5]]))
    assert (all_agree.value, all_agree.agreed, all_agree.standard_error, all_agree.low) == (1, 1, None, None)
    one_answer = kappa(np.array([[10, 0], [0, 0]]))
    assert (one_answer.value, one_answer.agreed) == (None, 1)
    empty = kappa(np.zeros((2, 2)))
    assert (empty.value, empty.agreed) == (None, None)
    one_side = kappa(np.array([[10, 5], [0, 0]]))  # the first always says the same
    assert (one_side.value, one_side.standard_error) == (0, pytest.approx(0))
