"""A classifier's sections of the report: what they show, for few and many classes, one label and several."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from opsin.classify import report
from opsin.classify.metrics import Evaluation, evaluate
from opsin.engine.report import Figure, Gallery, Section, Table, Text
from opsin.errors import InputError

pytestmark = pytest.mark.rendered


class Images:
    """A split of grey squares, of which some may be lost."""

    def __init__(self, lost: tuple[int, ...] = ()) -> None:
        self.lost = lost

    def read(self, index: int) -> Tensor:
        if index in self.lost:
            raise InputError(f"cannot read {self.name(index)}")
        return torch.full((1, 8, 8), index % 256, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"images/{index:04d}.png"


def scene(classes: int, rows: int = 300, strength: float = 2.0) -> tuple[Evaluation, list[str]]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    logits = torch.randn(rows, classes, generator=generator)
    logits[torch.arange(rows), labels] += strength
    names = [f"class {i}" for i in range(classes)]
    return evaluate(torch.softmax(logits, dim=1), labels, names), names


def find(sections: list[Section], title: str) -> Section:
    return next(s for s in sections if s.title == title)


def texts(figure: Section) -> list[str]:
    """What is written in an SVG."""
    assert isinstance(figure, Figure)
    tree = ElementTree.fromstring(figure.image)
    return ["".join(e.itertext()) for e in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_few_classes_have_a_matrix_with_counts() -> None:
    found, classes = scene(3)
    sections = report.sections(found, Images(), classes)
    assert [s.title for s in sections] == [
        "Confusion matrix",
        "Most frequent confusions",
        "Reliability",
        "Classes",
        "Most confident mistakes",
        "How to read the numbers",
    ]
    written = texts(sections[0])
    assert found.confusion is not None
    assert {str(n) for n in found.confusion.flatten().tolist()} <= set(written)
    assert set(classes) <= set(written)


def test_a_medium_matrix_has_colours_alone() -> None:
    found, classes = scene(30)
    matrix = report.sections(found, Images(), classes)[0]
    assert not any(text.isdigit() for text in texts(matrix))


def test_many_classes_have_the_table_of_confusions_alone() -> None:
    found, classes = scene(report.MOST_IN_MATRIX + 1)
    titles = [s.title for s in report.sections(found, Images(), classes)]
    assert "Confusion matrix" not in titles
    assert "Most frequent confusions" in titles


def test_confusions_are_in_order_of_their_number() -> None:
    confusion = torch.tensor([[5, 1, 4], [0, 9, 1], [0, 0, 0]])
    table = report.top_confusions(confusion, ["a", "b", "c"])
    assert table.rows == [["a", "c", 4, 4 / 10], ["a", "b", 1, 1 / 10], ["b", "c", 1, 1 / 10]]
    assert table.note == ""
    assert report.top_confusions(confusion, ["a", "b", "c"], limit=1).note == "The 1 most frequent of 3 pairs."


def test_reliability_shows_ece_before_and_after() -> None:
    found, _ = scene(4)
    single = report.reliability_diagram(found)
    assert f"ECE {100 * found.metrics['ece']:.2f} %" in texts(single)
    found.uncalibrated = scene(4, strength=3.0)[0]
    both = " ".join(texts(report.reliability_diagram(found, temperature=1.5)))
    assert f"before scaling: ECE {100 * found.uncalibrated.metrics['ece']:.2f} %" in both
    assert f"after, T = 1.5: ECE {100 * found.metrics['ece']:.2f} %" in both


def test_mistakes_show_answer_truth_and_name() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.75, 0.25], [0.2, 0.8]])
    gallery = report.mistakes(evaluate(scores, torch.tensor([0, 1, 0]), ["cat", "dog"]), Images(), ["cat", "dog"])
    assert isinstance(gallery, Gallery)
    assert [i.caption for i in gallery.items] == [
        "dog (80.0 %)\nis cat (20.0 %)\n0002.png",
        "cat (75.0 %)\nis dog (25.0 %)\n0001.png",
    ]
    assert gallery.items[0].image.unique().item() == 2
    assert gallery.note.startswith("All 2 wrong answers among 3")


def test_mistakes_of_multi_label_name_the_worst_classes() -> None:
    scores = torch.tensor([[0.9, 0.2, 0.6, 0.4]])
    labels = torch.tensor([[0, 1, 1, -1]])
    gallery = report.mistakes(evaluate(scores, labels, list("abcd")), Images(), list("abcd"))
    assert isinstance(gallery, Gallery)
    assert gallery.items[0].caption == "a (90.0 %): not there\nb (20.0 %): is there\n0000.png"


def test_no_mistakes_are_said_to_be_none() -> None:
    found = evaluate(torch.eye(3), torch.arange(3), list("abc"))
    sections = report.sections(found, Images(), list("abc"))
    text = find(sections, "Most confident mistakes")
    assert isinstance(text, Text)
    assert text.body == "None: all 3 examples are answered correctly."
    assert "Most frequent confusions" not in [s.title for s in sections]


def test_a_lost_image_is_left_out() -> None:
    found, classes = scene(3)
    whole = report.mistakes(found, Images(), classes, limit=5)
    gallery = report.mistakes(found, Images(lost=(found.mistakes[0],)), classes, limit=5)
    assert isinstance(whole, Gallery)
    assert isinstance(gallery, Gallery)
    assert [i.caption for i in gallery.items] == [i.caption for i in whole.items][1:]


def test_many_classes_are_listed_from_the_weakest() -> None:
    found, _ = scene(30)
    shown = [row[-1] for row in report.class_table(found).rows]
    assert shown == sorted(shown, key=lambda f1: f1 if isinstance(f1, float) else 2)
    few, names = scene(5)
    assert [row[0] for row in report.class_table(few).rows] == names


def test_a_class_without_examples_is_explained() -> None:
    found = evaluate(torch.eye(3)[:2], torch.tensor([0, 1]), list("abc"))
    table = report.class_table(found)
    assert table.rows[2] == ["c", 0, 0, None, None, None]
    assert "left out of the averages" in table.note


def test_multi_label_has_no_confusions() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(50, 4, generator=generator)
    labels = (torch.rand(50, 4, generator=generator) < scores).long()
    sections = report.sections(evaluate(scores, labels, list("abcd")), Images(), list("abcd"))
    titles = [s.title for s in sections]
    assert titles == ["Reliability", "Classes", "Most confident mistakes", "How to read the numbers"]
    table = find(sections, "Classes")
    assert isinstance(table, Table)
    assert list(table.columns) == ["class", "examples", "predicted", "ap", "precision", "recall", "f1"]


def test_every_metric_is_explained() -> None:
    found, classes = scene(10)
    table = report.meanings(found, len(classes))
    assert [str(row[0]).replace(" ", "_") for row in table.rows] == list(found.metrics)
    assert f"{math.log(10):.2f} is guessing" in str(table.rows)
    assert "on 300 examples" in table.note


@pytest.mark.parametrize(
    "name", ["$5 \\frac{1}{2}$", "<script>alert(1)</script>", "a & b", "%s {0}", "\u72d7", "x" * 500, ""]
)
def test_any_class_name_can_be_drawn(name: str) -> None:
    found = evaluate(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 0]), [name, "other"])
    sections = report.sections(found, Images(), [name, "other"])
    written = texts(sections[0])
    assert (name if len(name) <= 18 else name[:17] + "…") in written or not name


@pytest.mark.parametrize(("right", "count"), [(0, 10), (3, 10), (10, 10), (985, 1000)])
def test_wilson_interval_is_where_the_share_is_just_plausible(right: int, count: int) -> None:
    """Its ends are the p with |share - p| = z sqrt(p (1 - p) / n)."""
    share = right / count
    low, high = report.wilson_interval(share, count)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for p in (low, high):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(share - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / count), rel=1e-6)
