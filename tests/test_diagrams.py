"""The diagrams of the documentation: every box and arrow of the text is drawn, once, and nothing lies on another."""

from __future__ import annotations

import importlib.util
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where dataclasses look their annotations up
    specification.loader.exec_module(module)
    return module


diagrams = load("diagrams")

RESIDUAL = "x -> 3x3 conv -> BN, ReLU -> 3x3 conv#2 -> BN -> add -> ReLU\nx -> add"
INCEPTION = """
x -> 1x1 conv, 64 -> concat
x -> 1x1 conv, 96 -> 3x3 conv, 128 -> concat
x -> 1x1 conv, 16 -> 5x5 conv, 32 -> concat
x -> 3x3 max pool -> 1x1 conv, 32 -> concat
"""
DENSE = "\n".join(f"H{i} -> H{j}" for j in range(1, 6) for i in range(j))


def boxes(figure: str) -> list[tuple[float, float, float, float]]:
    shapes = [e for e in ElementTree.fromstring(figure).iter() if e.tag.endswith("rect")]
    sides = [[float(e.attrib[k]) for k in ("x", "y", "width", "height")] for e in shapes]
    return [(x, y, x + width, y + height) for x, y, width, height in sides]


@pytest.mark.parametrize(("text", "nodes", "edges"), [(RESIDUAL, 7, 7), (INCEPTION, 9, 11), (DENSE, 6, 15)])
def test_everything_is_drawn_once_inside_the_image_and_apart(text: str, nodes: int, edges: int) -> None:
    figure = diagrams.draw(text, "A block")
    found = boxes(figure)
    assert len(found) == nodes
    assert len(re.findall(r'stroke-opacity="0.6"', figure)) == edges
    width, height = (float(re.search(rf' {side}="(\d+)"', figure)[1]) for side in ("width", "height"))  # type: ignore[index]
    for i, (left, top, right, bottom) in enumerate(found):
        assert left >= 0 <= top and right <= width and bottom <= height
        for a, b, c, d in found[:i]:
            assert right <= a or c <= left or bottom <= b or d <= top


def test_every_diagram_of_the_documentation_can_be_drawn() -> None:
    for page in DOCS.rglob("*.md"):
        for caption, text in re.findall(r"^```diagram(.*)\n((?:.*\n)*?)```", page.read_text(encoding="utf-8"), re.M):
            assert len(boxes(diagrams.draw(text, caption))) > 1, page


@pytest.mark.parametrize("sideways", [False, True])
@pytest.mark.parametrize("text", [RESIDUAL, INCEPTION, DENSE])
def test_arrows_go_onward_and_no_line_runs_through_a_box(text: str, sideways: bool) -> None:
    ranks = diagrams._layout(list(diagrams._parse(text)), sideways)
    for upper, lower in pairwise(ranks):
        assert max(n.along + n.depth / 2 for n in upper) < min(n.along - n.depth / 2 for n in lower)
    for rank in ranks:  # in its own rank a line is straight, and stands beside the boxes
        for one, two in pairwise(rank):
            assert two.across - one.across >= (diagrams._breadth(one, sideways) + diagrams._breadth(two, sideways)) / 2


def test_a_skip_leaves_the_chain_straight() -> None:
    ranks = diagrams._layout(list(diagrams._parse(RESIDUAL)), False)
    chain = [node for rank in ranks for node in rank if node.lines]
    assert max(n.across for n in chain) - min(n.across for n in chain) < 0.5
    aside = [node.across for rank in ranks for node in rank if not node.lines]
    assert aside and max(aside) - min(aside) < 2


def test_a_long_chain_with_short_labels_lies_down_and_one_with_long_labels_stands() -> None:
    def size(text: str) -> tuple[int, int]:
        found = re.search(r'viewBox="0 0 (\d+) (\d+)"', diagrams.draw(text))
        assert found is not None
        return int(found[1]), int(found[2])

    width, height = size("a -> b -> c -> d -> e")
    assert width > 4 * height
    width, height = size(" -> ".join(f"3x3 convolution, {n} maps" for n in range(8)))
    assert height > width


def test_labels_wrap_and_hide_their_suffix() -> None:
    figure = diagrams.draw("x -> one label that is far too long for a single line -> x#2", "from `x` & <y>")
    words = [e.text for e in ElementTree.fromstring(figure).iter() if e.tag.endswith("text")]
    assert words.count("x") == 2 and len(words) == 5 and max(len(word or "") for word in words) <= diagrams.WRAP
    assert figure.endswith("<figcaption>from <code>x</code> &amp; &lt;y&gt;</figcaption></figure>")
    assert "\n" not in figure  # Markdown would take a blank line for the end of it


def test_colours_follow_the_page() -> None:
    figure = diagrams.draw("x -> 3x3 conv -> add\nx -> add")
    assert figure.count("var(--md-primary-fg-color, teal)") == 2  # fill and edge of the one box that learns
    assert set(re.findall(r'(?:fill|stroke)="(.*?)"', figure)) == {
        "currentColor",
        "none",
        "var(--md-primary-fg-color, teal)",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [("a -> -> b", "a path"), ("", "at least one path"), ("a -> b -> a", "circle"), ("a -> a", "circle")],
)
def test_what_is_no_graph_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagrams.draw(text)
