"""Drift is seen where the pictures have changed, and where nothing has changed chance does not look like it."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from model.drift import LEAST_LIMIT, QUANTILES, distance, limit, quantiles_of


def test_the_distance_is_that_of_kolmogorov_and_smirnov_at_the_quantiles():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 3.0):
        before, now = rng.normal(size=2000), rng.normal(shift, size=200)
        exact = ks_2samp(before, now).statistic
        found = distance(quantiles_of(before), now)
        assert exact - 1 / (QUANTILES - 1) <= found <= exact + 1 / 2000


def test_equal_values_are_no_distance():
    before = np.repeat([1.0, 2.0], 50)
    assert distance(quantiles_of(before), before) == pytest.approx(0, abs=0.06)  # 2 begins between two quantiles
    assert distance(quantiles_of(np.full(9, 3.0)), np.full(5, 3.0)) == 0
    assert distance(quantiles_of(np.full(9, 3.0)), np.full(5, 3.1)) == 1
    assert distance(quantiles_of(np.full(9, 3.0)), np.full(5, 2.9)) == 1


def test_the_limit_is_the_critical_value():
    # 1.949 sqrt((n + m) / (n m)) for 0.1 %, as tables of the test have it.
    assert limit(20, 200) == pytest.approx(1.949 * np.sqrt(220 / 4000), abs=1e-3)
    assert limit(10_000, 10_000) == LEAST_LIMIT
    assert limit(2, 200) > 1  # nothing can be shown with two images


@pytest.mark.parametrize("before", [5, 10, 20, 60, 200])
@pytest.mark.parametrize("now", [20, 50, 200])
def test_where_nothing_has_changed_chance_rarely_looks_like_drift(before: int, now: int):
    rng = np.random.default_rng(1)
    bound, draws = limit(before, now), 1000
    alarms = sum(
        distance(quantiles_of(rng.lognormal(size=before)), rng.lognormal(size=now)) > bound for _ in range(draws)
    )
    assert alarms <= 4  # of 1000; one is expected


@pytest.mark.parametrize(("before", "shift"), [(20, 1.5), (60, 1.0), (200, 0.9)])
def test_a_change_is_seen_in_the_window_of_the_metrics(before: int, shift: float):
    rng = np.random.default_rng(2)
    bound = limit(before, 200)
    seen = sum(distance(quantiles_of(rng.normal(size=before)), rng.normal(shift, size=200)) > bound for _ in range(200))
    assert seen >= 180
