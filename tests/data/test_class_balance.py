"""Batches of all classes alike: how often each comes, and that a training by a recipe is given them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from opsin.data.class_balance import BalancedBatches
from opsin.engine.recipe import load_recipe
from opsin.engine.task import Task
from opsin.errors import InputError

CLASSES = np.array([0] * 90 + [1] * 9 + [2] * 1 + [-1] * 5)


def test_every_class_comes_equally_often() -> None:
    order = BalancedBatches(CLASSES, 20, seed=1)
    seen = Counter(CLASSES[np.concatenate([b for epoch in range(9) for b in order(epoch)])].tolist())
    assert len(order(0)) == 5
    assert set(seen) == {0, 1, 2}
    assert max(seen.values()) - min(seen.values()) <= 9, "each epoch deals its last turn out or not"


def test_every_example_of_a_large_class_comes_in_time() -> None:
    order = BalancedBatches(CLASSES, 20)
    seen = Counter(np.concatenate([b for epoch in range(30) for b in order(epoch)]).tolist())
    assert set(seen) == set(range(100))
    rare = [seen[k] for k in range(90, 99)]
    assert max(rare) - min(rare) <= 30


def test_an_epoch_is_the_same_again_and_another_is_not() -> None:
    first, again = BalancedBatches(CLASSES, 20, seed=3), BalancedBatches(CLASSES, 20, seed=3)
    assert [b.tolist() for b in first(2)] == [b.tolist() for b in again(2)]
    assert [b.tolist() for b in first(2)] != [b.tolist() for b in first(3)]


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="less than two"):
        BalancedBatches(np.zeros(8, np.int64), 4)


def test_a_recipe_asks_for_it() -> None:
    """On digits with three of a kind left."""
    from opsin import data
    from opsin.classify.task import ClassifyTask

    values = {"model": {"name": "lenet5"}, "data": {"source": "digits"}, "train": {"batch_size": 40}}
    split = data.open("digits").splits["train"]
    labels = split.kind.labels
    few = split.subset(np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:3]]))

    def order_of(sampling: str) -> object:
        recipe = load_recipe(values, {"train.sampling": sampling})
        source = data.open("digits").with_splits({"train": few, "val": few})
        task = ClassifyTask.build(recipe, ClassifyTask.create_preprocessing(recipe, source), source)
        assert isinstance(task, Task)
        return task.order(few)

    assert order_of("shuffled") is None
    order = order_of("balanced")
    assert isinstance(order, BalancedBatches)
    assert Counter(few.kind.labels[order(0)[0]].tolist()) == {0: 20, 1: 20}
