"""Edit distance: the table of Levenshtein, cell by cell, and its properties."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from opsin.errors import InputError
from opsin.ops import edit_distance, edit_distances, sequence


def plain(first: Sequence, second: Sequence) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def some_pairs(alphabet: str, longest: int, count: int = 150) -> tuple[list[str], list[str]]:
    draw = random.Random(longest)
    first = ["".join(draw.choices(alphabet, k=draw.randint(0, longest))) for _ in range(count)]
    second = ["".join(draw.choices(alphabet, k=draw.randint(0, longest))) for _ in range(count)]
    # Every other one a variant of its partner.
    second[::2] = ["".join(draw.choice([c, c, c, "", "x"]) for c in text) for text in first[::2]]
    return first, second


@pytest.mark.parametrize(
    ("alphabet", "longest"), [("ab", 12), ("abcdefghij", 30), ("abc", 64), ("abcd", 90), ("a", 70)]
)
def test_is_the_plain_table(alphabet: str, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "_CHUNK", 40)
    first, second = some_pairs(alphabet, longest)
    expected = [plain(a, b) for a, b in zip(first, second, strict=True)]
    assert [edit_distance(a, b) for a, b in zip(first, second, strict=True)] == expected
    assert edit_distances(first, second).tolist() == expected
    assert edit_distances(second, [list(a) for a in first]).tolist() == expected


def test_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance("", "") == edit_distance("same", "same") == 0
    assert edit_distance(["to", "be", "or", "not"], ["to", "be", "be"]) == 2
    assert edit_distance("蓝天", "蓝色的天") == 2
    assert edit_distance(torch.tensor([1, 2, 3]), torch.tensor([1, 3])) == 1
    assert edit_distances([torch.tensor([1, 2, 3])], [[1, 3]]).tolist() == [1]
    assert edit_distances([], []).tolist() == []
    assert edit_distances(["x" * 64, "x" * 65], ["y" * 64, "x" * 64]).tolist() == [64, 1]


def test_is_a_metric() -> None:
    first, second = some_pairs("abc", 15)
    third = second[1:] + second[:1]
    for a, b, c in zip(first, second, third, strict=True):
        assert edit_distance(a, b) == edit_distance(b, a)
        assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
        assert (edit_distance(a, b) == 0) == (a == b)
        assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_lists_of_different_lengths_are_named() -> None:
    with pytest.raises(InputError, match="2 sequences cannot be compared with 1"):
        edit_distances(["a", "b"], ["a"])
