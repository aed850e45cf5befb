"""Intervals against scipy's own tests, and the cases that have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from opsin.engine.intervals import mean_interval, paired_difference, unpaired_difference
from opsin.errors import InputError

DRAWS = np.random.default_rng(0)
SAMPLES = [(DRAWS.normal(0.9, 0.02, n), DRAWS.normal(0.88, 0.05, n)) for n in (2, 3, 5, 20)]


@pytest.mark.parametrize(("one", "two"), SAMPLES)
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_they_are_scipys(one: np.ndarray, two: np.ndarray, level: float) -> None:
    found, theirs = mean_interval(one, level), stats.ttest_1samp(one, 0).confidence_interval(level)
    assert (found.mean, found.low, found.high) == pytest.approx((one.mean(), theirs.low, theirs.high))
    found, theirs = paired_difference(one, two, level), stats.ttest_rel(one, two).confidence_interval(level)
    assert (found.mean, found.low, found.high) == pytest.approx(((one - two).mean(), theirs.low, theirs.high))
    longer = np.append(two, 0.9)
    found = unpaired_difference(one, longer, level)
    theirs = stats.ttest_ind(one, longer, equal_var=False).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    tested: Any = stats.ttest_ind(one, longer, equal_var=False)
    assert found.beyond_noise == (tested.pvalue < 1 - level)


def test_what_a_seed_does_to_both_sides_is_no_noise() -> None:
    luck = np.array([0.7, 0.8, 0.9])  # of seeds: far more than what a switch does
    switched = luck + np.array([0.011, 0.010, 0.009])
    assert paired_difference(switched, luck).beyond_noise
    assert not unpaired_difference(switched, luck).beyond_noise


def test_a_single_value_knows_no_noise_and_equal_ones_have_none() -> None:
    alone = mean_interval([0.5])
    assert alone.half is None and not alone.beyond_noise and alone.low == -np.inf
    assert not unpaired_difference([0.5], [0.1, 0.2]).beyond_noise
    assert not paired_difference([0.5, 0.6], [0.5, 0.6]).beyond_noise
    assert unpaired_difference([0.5, 0.5], [0.4, 0.4]).half == 0


def test_bad_input_is_said() -> None:
    with pytest.raises(InputError, match="2 values cannot be paired with 3"):
        paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="the level of confidence is 95; expected a number between 0 and 1"):
        mean_interval([1, 2], 95)
    with pytest.raises(InputError, match="no values"):
        mean_interval([])
