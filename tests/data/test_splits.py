"""Splits are stratified, seeded, exact in size, and leave official ones alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opsin import data
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels
from opsin.data.source import Source, Split
from opsin.data.splits import stratified, stratify
from opsin.errors import InputError

RANDOM = np.random.RandomState(0)


def split_of(labels: np.ndarray, prefix: str = "x") -> Split:
    images = ImageArray(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), prefix)
    return Split(images, ClassLabels(labels, ["a", "b", "c"]))


def source_of(**splits: Split) -> Source:
    return Source("set", "array", dict(splits))


def sizes(splits: dict[str, Split]) -> dict[str, int]:
    return {key: len(split) for key, split in splits.items()}


@pytest.mark.parametrize("fractions", [[0.2], [0.2, 0.1], [0.5, 0.25], [0.0], [1 / 3]])
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_are_exact_disjoint_and_proportional(fractions: list[float], seed: int) -> None:
    labels = RANDOM.choice(5, 997, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    *parts, rest = stratify(labels, fractions, seed)
    assert np.array_equal(np.sort(np.concatenate([*parts, rest])), np.arange(997))
    for part, fraction in zip(parts, fractions, strict=True):
        assert len(part) == math.ceil(997 * fraction)
        assert np.array_equal(part, np.unique(part))
        wanted = np.bincount(labels) * len(part) / 997
        assert np.abs(np.bincount(labels[part], minlength=5) - wanted).max() < 1


def test_hand_worked_shares() -> None:
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    test, val, rest = stratify(labels, [0.3, 0.2], 0)
    # 3 of 10: quotas 1.8, 0.9, 0.3 -> 1, 0, 0 and the two largest remainders. 2 of 10: 1.2, 0.6, 0.2 -> 1, 1, 0.
    assert np.bincount(labels[test], minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(labels[val], minlength=3).tolist() == [1, 1, 0]
    assert np.bincount(labels[rest], minlength=3).tolist() == [3, 1, 1]


def test_every_class_keeps_one_for_training() -> None:
    labels = np.repeat(np.arange(4), [1, 1, 2, 2])
    part, rest = stratify(labels, [0.9], 0)
    assert np.bincount(labels[rest]).tolist() == [1, 1, 1, 1]
    assert np.bincount(labels[part], minlength=4).tolist() == [0, 0, 1, 1]


def test_seed_decides() -> None:
    labels = np.arange(300) % 3
    assert np.array_equal(stratify(labels, [0.2], 5)[0], stratify(labels, [0.2], 5)[0])
    assert not np.array_equal(stratify(labels, [0.2], 5)[0], stratify(labels, [0.2], 6)[0])
    assert stratify(labels, [0.02], 5)[0].tolist() == [19, 76, 96, 143, 188, 198]  # frozen: runs are resumed


def test_multi_label_counts_as_the_rarest() -> None:
    labels = np.zeros((400, 3), np.float32)
    labels[:, 0] = 1
    labels[:100, 1] = 1
    labels[:20, 2] = 1
    labels[390:] = 0
    part, _ = stratify(labels, [0.25], 0)
    assert labels[part].sum(axis=0).tolist() in ([98, 25, 5], [97, 25, 5])


def test_a_source_without_splits_is_cut_in_three() -> None:
    labels = np.arange(60) % 3
    parts = data.divide(source_of(all=split_of(labels)), val_fraction=0.1, test_fraction=0.2)
    assert list(parts) == ["train", "val", "test"]
    assert sizes(parts) == {"train": 42, "val": 6, "test": 12}
    names = {part.name(i) for part in parts.values() for i in range(len(part))}
    assert len(names) == 60
    assert all(np.bincount(part.kind.presence).tolist() == [len(part) // 3] * 3 for part in parts.values())
    assert sizes(data.divide(source_of(all=split_of(labels)), val_fraction=0, test_fraction=0)) == {"train": 60}


def test_own_splits_are_kept() -> None:
    train, val, test = (split_of(np.arange(n) % 3, str(n)) for n in (30, 9, 12))
    parts = data.divide(source_of(train=train, test=test))
    assert sizes(parts) == {"train": 27, "val": 3, "test": 12} and parts["test"] is test
    assert sizes(data.divide(source_of(train=train, test=test), val_fraction=0)) == {"train": 30, "test": 12}
    assert sizes(data.divide(source_of(train=train, val=val))) == {"train": 30, "val": 9}
    assert sizes(data.divide(source_of(val=val, train=train, test=test))) == {"train": 30, "val": 9, "test": 12}
    assert sizes(data.divide(source_of(test=test))) == {"test": 12}


def test_split_seed_leaves_the_test_split_of_digits_alone() -> None:
    one, two = (data.divide(data.open("digits"), seed=seed) for seed in (0, 1))
    assert [one["test"].name(i) for i in range(360)] == [two["test"].name(i) for i in range(360)]
    assert [one["val"].name(i) for i in range(144)] != [two["val"].name(i) for i in range(144)]


@pytest.mark.parametrize("fractions", [(-0.1, 0.2), (0.1, 1.0), (0.5, 0.5)])
def test_impossible_fractions(fractions: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="fraction"):
        data.divide(source_of(all=split_of(np.arange(9) % 3)), val_fraction=fractions[0], test_fraction=fractions[1])


def test_a_stratified_few() -> None:
    labels = np.repeat([0, 1], [90, 10])
    few = data.stratified(labels, 20)
    assert np.bincount(labels[few]).tolist() == [18, 2]
    assert data.stratified(labels, 500).tolist() == list(range(100))


def test_so_many_are_taken_also_where_each_class_has_but_one() -> None:
    assert len(set(stratified(np.arange(10), 8).tolist())) == 8
    assert len(set(stratified(np.array([0, 0, 1]), 2).tolist())) == 2
