"""Folds of identities, by hand and through a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.errors import InputError


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Eleven people of two or three images in two splits, of which one is in both."""
    for k in range(11):
        for split in ("train",) if k < 7 else ("train", "test") if k == 7 else ("test",):
            for number in range(2 + k % 2):
                path = tmp_path / split / f"p{k}" / f"{split}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), 20 * k + number).save(path)
    return tmp_path


def shown(split: data.Split) -> set[str]:
    return {split.kind.names[k] for k in np.unique(split.kind.labels).tolist()}


def test_each_identity_is_tested_once(people: Path) -> None:
    tested, sizes = [], []
    for k in (1, 2, 3):
        source = data.open(people, "embed", fold=f"{k}/3")
        train, test = source.splits["train"], source.splits["test"]
        assert not shown(train) & shown(test) and len(train) + len(test) == 30
        assert all(f"/{test.kind.names[test.kind.labels[i]]}/" in test.name(i) for i in range(len(test)))
        assert test.read(0).shape == (1, 8, 8)
        tested += sorted(shown(test))
        sizes.append(len(shown(test)))
    assert sorted(tested) == sorted(f"p{k}" for k in range(11))
    assert sorted(sizes) == [3, 4, 4]


def test_a_fold_is_the_same_each_time(people: Path) -> None:
    one, two = (data.open(people, "embed", fold="2/5").splits["test"] for _ in range(2))
    assert [one.name(i) for i in range(len(one))] == [two.name(i) for i in range(len(two))]


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ("0/5", "expected which of how many"),
        ("6/5", "expected which of how many"),
        ("1/1", "expected which of how many"),
        ("1 of 5", "expected which of how many"),
        ("1/12", "has 11 identities"),
    ],
)
def test_folds_that_cannot_be(people: Path, fold: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.open(people, "embed", fold=fold)
    with pytest.raises(InputError, match="sees all of them"):
        data.open(people, "embed", fold="1/2", closed=True)
