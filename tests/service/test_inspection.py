"""The times of an answer are those of the batches with its views, and the rest is waiting."""

import pytest

from service.device.jobs import Outcome
from service.inspection import Found


def outcome(started: float, queue: float, inference: float, localization: float = 0.0) -> Outcome:
    return Outcome(1.0, None, queue, inference, localization, started)


def test_one_view_has_the_times_of_its_batch():
    assert Found([outcome(10.0, 0.5, 0.25, 0.125)], 2.0).seconds_of_stages == (0.5, 0.25, 0.125)


def test_several_views_have_the_time_of_each_of_their_batches_once():
    first = [outcome(10.0, 0.5, 0.25), outcome(10.0, 0.5, 0.25, 0.5)]
    last = [outcome(20.0, 10.5, 0.75)]
    assert Found([*first, *last], 12.0).seconds_of_stages == (12.0 - 1.5, 1.0, 0.5)


def test_where_one_pass_gives_score_and_gradient_it_counts_as_localization():
    views = [outcome(10.0, 0.0, 0.0, 0.5), outcome(20.0, 0.0, 0.0, 0.25)]
    assert Found(views, 1.0).seconds_of_stages == (0.25, 0.0, 0.75)


def test_no_wait_is_below_zero():
    views = [outcome(10.0, 0.0, 0.5), outcome(20.0, 0.0, 0.5)]
    assert Found(views, 0.875).seconds_of_stages == pytest.approx((0.0, 1.0, 0.0))
