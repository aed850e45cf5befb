"""Metrics of pages, worked by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from opsin.ops.quads import quad_of_box
from opsin.read.page_metrics import PageCounts, Written, count_page, match_lines, measure_pages

TRUE = Written(
    [quad_of_box(box) for box in ((0, 0, 40, 10), (0, 20, 40, 30), (60, 20, 80, 30), (0, 40, 30, 50))],
    ["Total Due", "tea tea", "2", "###"],
    [False, False, False, True],
)
FOUND = Written(
    [quad_of_box(box) for box in ((0, 0, 40, 12), (0, 20, 22, 30), (0, 41, 30, 49), (60, 90, 80, 99))],
    ["Total due", "tea", "smudge", "tea"],
    [False] * 4,
)


def test_a_page_worked_by_hand() -> None:
    matched, counted = match_lines(TRUE, FOUND)
    assert matched == {0: 0, 1: 1}  # IoU of 40 x 10 / 40 x 12, and of 22 / 40
    assert counted == [0, 1, 3]  # the third lies in what is to be ignored
    page = count_page(TRUE, FOUND)
    assert page.words == [3, 4, 5]  # Total, and tea twice, the second one wherever it is; due is not Due
    assert page.lines == [2, 3, 3] and page.equal == 0
    assert page.pairs == [("Total Due", "Total due"), ("tea tea", "tea"), ("2", "")]
    found = measure_pages([page, count_page(TRUE, TRUE)])
    # The true page as its own answer: five words, three lines.
    expected = {
        "word_precision": Fraction(3 + 5, 4 + 5),
        "word_recall": Fraction(3 + 5, 5 + 5),
        "word_f1": Fraction(2 * 8, 9 + 10),
        "precision": Fraction(2 + 3, 3 + 3),
        "recall": Fraction(5, 6),
        "hmean": Fraction(2 * 5, 12),
        "end_to_end_precision": Fraction(3, 6),
        "end_to_end_recall": Fraction(3, 6),
        "end_to_end_f1": Fraction(6, 12),
        "cer": Fraction(1 + 4 + 1, 2 * (9 + 7 + 1)),
        "line_accuracy": Fraction(3, 6),
    }
    assert found == pytest.approx({key: float(value) for key, value in expected.items()})
    folded = count_page(TRUE, FOUND, ignore_case=True)
    assert (folded.words, folded.equal) == ([4, 4, 5], 1)


def test_what_is_undefined_is_absent() -> None:
    assert measure_pages([]) == {}
    nothing = count_page(Written(), Written())
    assert measure_pages([nothing]) == {}
    assert measure_pages([PageCounts(), count_page(Written(), FOUND)])["word_precision"] == 0.0
    missed = measure_pages([count_page(TRUE, Written())])
    assert missed["recall"] == 0 and missed["cer"] == 1 and "precision" not in missed


def test_one_line_is_matched_once() -> None:
    box = quad_of_box((0, 0, 10, 10))
    twice = Written([box, quad_of_box((0, 0, 10, 9))], ["a", "a"], [False, False])
    matched, counted = match_lines(Written([box], ["a"], [False]), twice)
    assert matched == {0: 0} and counted == [0, 1]
