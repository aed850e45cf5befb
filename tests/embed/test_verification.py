"""Verification against scikit-learn, and scenes that are worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from opsin.embed.verification import (
    PairCounts,
    Roc,
    accept_rates,
    best_threshold,
    describe_far,
    interval_over_people,
    measure_folds,
    share_interval,
)
from opsin.errors import InputError


def make_pairs(seed: int, *, step: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distances, and whether the same. step: they are rounded to it, so that many are equal."""
    random = np.random.RandomState(seed)
    same = random.rand(700) < 0.2
    distances = np.abs(random.randn(700) + np.where(same, 1.0, 2.2))
    return (distances if step is None else np.round(distances / step) * step), same


@pytest.mark.parametrize("step", [None, 0.25])
def test_equal_to_scikit_learn(step: float | None) -> None:
    for seed in range(5):
        distances, same = make_pairs(seed, step=step)
        roc = Roc.of(distances, same)
        assert roc.auc == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)
        far, tar, _ = roc_curve(same, -distances, drop_intermediate=False)
        eer = brentq(lambda x, far=far, tar=tar: 1 - x - interp1d(far, tar)(x), 0, 1)  # Brent 1973, as the field has it
        assert roc.equal_error()[0] == pytest.approx(eer, abs=1e-6)
        for rate in (0.01, 0.05, 0.3):
            assert roc.accept(rate)[0] == tar[far <= rate + 1e-12].max()


def test_a_scene_worked_by_hand() -> None:
    # the same: 1 2 4 6; others: 2 3 5 7 8
    roc = Roc.of(np.array([1, 2, 4, 6, 2, 3, 5, 7, 8.0]), np.array([True] * 4 + [False] * 5))
    # of 20 couples nearer: 1 before all 5; 2 before 4, and one equal; 4 before 3; 6 before 2
    assert roc.auc == (5 + 4.5 + 3 + 2) / 20
    assert roc.accept(0.19) == (1 / 4, 1.0)
    assert roc.accept(0.2) == (2 / 4, 2.0)
    assert roc.accept(0.4) == (3 / 4, 4.0)
    assert roc.accept(1.0) == (1.0, 6.0)
    # at 4: two of five accepted, one of four rejected; just before 4: two of five and two of four
    rate, threshold = roc.equal_error()
    assert rate == pytest.approx(0.4)
    assert threshold == 4
    assert roc.rates(4.0) == (3 / 4, 2 / 5)
    assert roc.rates(0.5) == (0, 0)
    assert roc.rates(2.5) == (2 / 4, 2 / 5)  # how many of those between 2 and 4 are accepted is not known
    asked = Roc.of(np.array([1, 2, 4, 6, 2, 3, 5, 7, 8.0]), np.array([True] * 4 + [False] * 5), at=2.5)
    assert asked.rates(2.5) == (2 / 4, 1 / 5) and asked.auc == roc.auc


def test_nothing_is_accepted_where_one_is_too_many() -> None:
    roc = Roc.of(np.array([2.0, 1.0]), np.array([True, False]))
    assert roc.accept(0.5) == (0.0, -np.inf)
    assert roc.equal_error()[0] == 1
    assert Roc.of(np.array([1.0, 2.0]), np.array([True, False])).equal_error()[0] == 0


def test_counts_in_parts_are_those_of_all() -> None:
    distances, same = make_pairs(3, step=0.1)
    counts = PairCounts(distances[same])
    for part in np.array_split(distances[~same], 7):
        counts.add(part)
    whole, parts = Roc.of(distances, same), counts.roc()
    assert (whole.below == parts.below).all()
    assert (whole.upto == parts.upto).all()


def test_rates_without_pairs_enough_are_absent() -> None:
    roc = Roc.of(np.arange(101.0), np.arange(101) == 0)
    assert accept_rates(roc, (1e-1, 1e-2, 1e-3)) == {"tar@far=1e-1": 1.0, "tar@far=1e-2": 1.0}
    assert [describe_far(one) for one in (1e-3, 0.02, 0.1, 5e-5)] == ["1e-3", "0.02", "1e-1", "5e-05"]


def test_lfw_folds_by_hand() -> None:
    # of fold 0 the same are below 1, of fold 1 below 3: the threshold of one is wrong for a pair of the other
    distances = np.array([0.5, 0.6, 1.4, 1.6, 0.5, 2.6, 3.4, 3.6])
    same = np.array([True, True, False, False] * 2)
    folds = np.repeat([0, 1], 4)
    found = measure_folds(distances, same, folds)
    assert found.thresholds.tolist() == [3.0, 1.0]
    assert found.accuracies.tolist() == [0.5, 0.75]
    assert found.mean == 0.625
    assert found.error == pytest.approx(0.125)  # sqrt of variance 1/32 over 2 folds
    with pytest.raises(InputError, match="1 fold"):
        measure_folds(distances, same, np.zeros(8, np.int64))


def test_best_threshold_against_all_of_them() -> None:
    for seed in range(20):
        distances, same = make_pairs(seed, step=0.2)
        tried = [((distances <= one) == same).mean() for one in np.linspace(-1, 8, 2000)]
        chosen = ((distances <= best_threshold(distances, same)) == same).mean()
        assert chosen == max(tried)
    assert best_threshold(np.array([1.0, 2.0]), np.array([False, False])) == 0.0  # accepts nothing


def test_wilson_is_scipys() -> None:
    for right, count in ((0, 10), (7, 9), (10, 10), (450, 1000)):
        low, high = binomtest(right, count).proportion_ci(method="wilson")
        assert share_interval(right, count) == pytest.approx((low, high), abs=1e-6)


def test_people_whose_pairs_agree_widen_the_interval() -> None:
    # 20 people of 45 pairs each: of a person all pairs are accepted, or none
    right, count = np.array([45] * 15 + [0] * 5), np.full(20, 45)
    low, high = interval_over_people(right, count)
    # as of 20 cases, not of 900: a standard error of sqrt(.75 * .25 / 20) = .097
    assert high - low == pytest.approx(2 * 1.96 * 0.097, rel=0.1)
    narrow = share_interval(675, 900)
    assert narrow[1] - narrow[0] < 0.06


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="no pair of the same identity"):
        Roc.of(np.array([1.0]), np.array([False]))
    with pytest.raises(InputError, match="no pair of two identities"):
        Roc.of(np.array([1.0]), np.array([True]))
    with pytest.raises(InputError, match="not finite"):
        Roc.of(np.array([1.0, np.nan]), np.array([True, False]))
    with pytest.raises(InputError, match="far is 0"):
        Roc.of(np.array([1.0, 2.0]), np.array([True, False])).accept(0.0)
