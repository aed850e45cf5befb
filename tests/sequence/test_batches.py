"""Batches of about equal lengths: every example once, little padding, another order each epoch."""

from __future__ import annotations

import numpy as np

from opsin.sequence.batches import Buckets


def test_batches_of_equal_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 41, 1003)
    order = Buckets(lengths, 20, seed=5)
    first, second = order(0), order(1)
    for batches in (first, second):
        assert len(batches) == 51 and sorted(np.concatenate(batches).tolist()) == list(range(1003))
        padding = sum(int((lengths[one].max() - lengths[one]).sum()) for one in batches)
        assert padding < 0.05 * lengths.sum()  # at random it is about as much as there are symbols
    assert [one.tolist() for one in first] == [one.tolist() for one in order(0)]
    assert [one.tolist() for one in first] != [one.tolist() for one in second]
    assert np.mean([lengths[one].mean() for one in first[:10]]) < 35  # batches do not come sorted
