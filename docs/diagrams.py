"""Graphs of boxes and arrows from a few lines of text, as SVG that takes the colours of the page.

    x -> 3x3 conv -> ReLU -> 3x3 conv#2 -> add
    x -> add

Each line is a path. A node is its label; the same label twice is told apart by a suffix `#2`, which is not drawn.
The layout is layered (Sugiyama, Tagawa and Toda 1981): ranks by the longest path, few crossings, then straight lines.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FONT = 13  # px
LINE = 16  # px, from one line of a label to the next
WRAP = 24  # characters
PADDING = 9  # px, between a label and its box
GAP = 18  # px, between boxes side by side
FLOW = 26  # px, between ranks: the arrows' length
PAGE = 660  # px, what fits beside the page's navigation
_JOIN = re.compile(r"(add|sum|concat\w*|concatenate|multiply|scale|split|shuffle|max|[+*·⊕⊗])", re.IGNORECASE)
_LEARNS = re.compile(r"conv|linear|fully connected|\bfc\b|depthwise|pointwise|^\d+x\d+,", re.IGNORECASE)
_WIDE, _NARROW = set("mwMWOQGDHNUCRAB@%—"), set("iljtfrI.,:;'|()[]!/ -")


@dataclass(eq=False)
class Node:
    """A box, or with no lines of text a place where a long edge passes a rank."""

    lines: list[str]
    rank: int = 0
    above: list[Node] = field(default_factory=list)
    below: list[Node] = field(default_factory=list)
    pull: dict[Node, float] = field(default_factory=dict)  # how much a neighbour should stand in line with it
    width: float = 0.0
    height: float = 0.0
    across: float = 0.0  # the centre, across the flow
    along: float = 0.0  # the centre, along the flow
    depth: float = 0.0  # of its rank, along the flow

    @property
    def label(self) -> str:
        return " ".join(self.lines)


def draw(text: str, caption: str = "") -> str:
    """A figure in HTML, on one line. Raises ValueError for a line that is no path, and for a circle."""
    paths = list(_parse(text))
    drawings = [_svg(_layout(paths, sideways), sideways, caption) for sideways in (False, True)]
    (tall, *_), (wide, width, height) = drawings[0], drawings[1]
    svg = wide if width <= PAGE and height < 0.8 * drawings[0][2] else tall
    shown = re.sub(r"`(.+?)`", r"<code>\1</code>", html.escape(caption))
    words = f"<figcaption>{shown}</figcaption>" if caption else ""
    return f'<figure class="diagram">{svg}{words}</figure>'


def _parse(text: str) -> Iterator[list[str]]:
    for line in filter(None, map(str.strip, text.splitlines())):
        path = [label.strip() for label in re.split(r"\s*->\s*", line)]
        if not all(path):
            raise ValueError(f"a diagram's line is a path `a -> b -> c`, got {line!r}")
        yield path
    if not text.strip():
        raise ValueError("a diagram needs at least one path `a -> b`")


# Layout: every function works in the directions across and along the flow, whichever of them is x


def _layout(paths: Sequence[Sequence[str]], sideways: bool) -> list[list[Node]]:
    """Ranks of placed nodes, with the edges cut into steps from rank to rank."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[Node, Node], None] = {}
    for path in paths:
        placed = [nodes.setdefault(name, _box(name)) for name in path]
        edges |= dict.fromkeys(pairwise(placed))
    _rank(list(nodes.values()), list(edges))
    ranks: list[list[Node]] = [[] for _ in range(1 + max(n.rank for n in nodes.values()))]
    for node in nodes.values():
        ranks[node.rank].append(node)
    reach = _reach(list(edges))
    for start, end in edges:
        around = any(end in reach[other] for s, other in edges if s is start and other is not end)
        _connect(start, end, ranks, around)
    _order(ranks)
    _place(ranks, sideways)
    return ranks


def _box(name: str) -> Node:
    lines = textwrap.wrap(re.sub(r"#\w+$", "", name), WRAP, break_long_words=False) or [" "]
    width = max(sum(0.78 if c in _WIDE else 0.34 if c in _NARROW else 0.58 for c in line) for line in lines)
    return Node(lines, width=round(width * FONT) + 2 * PADDING, height=LINE * len(lines) + PADDING)


def _rank(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> None:
    """The longest path from a start, then starts drawn to what they feed: an operand does not float at the top."""
    for _ in range(len(nodes) + 1):
        moved = False
        for start, end in edges:
            if end.rank <= start.rank:
                end.rank, moved = start.rank + 1, True
        if not moved:
            break
    else:
        raise ValueError("a diagram cannot go in a circle; name the second visit of a node with #2")
    for node in nodes:
        fed = [end.rank for start, end in edges if start is node]
        if fed and not any(end is node for _, end in edges):
            node.rank = min(fed) - 1


def _reach(edges: Sequence[tuple[Node, Node]]) -> dict[Node, set[Node]]:
    """Every node with all that can be come to from it."""
    reach = {node: {node} for edge in edges for node in edge}
    for start, end in sorted(edges, key=lambda edge: -edge[0].rank):
        reach[start] |= reach[end]
    return reach


def _connect(start: Node, end: Node, ranks: list[list[Node]], around: bool) -> None:
    """An edge as a chain of steps. around: there is another, longer way from its start to its end."""
    chain = [start]
    for rank in range(start.rank + 1, end.rank):
        chain.append(Node([], rank, width=2))
        ranks[rank].append(chain[-1])
    chain.append(end)
    for one, two in pairwise(chain):
        one.below.append(two)
        two.above.append(one)
        for node, other in ((one, two), (two, one)):
            if around and (node.lines or other.lines):
                node.pull[other] = 0.0 if node.lines else 0.005  # boxes stay in line, whatever goes around them
            else:
                node.pull[other] = 1.0 if node.lines and other.lines else 2.0


def _order(ranks: list[list[Node]]) -> None:
    """Sweeps of the barycentre heuristic, down and up; the best order seen is kept."""
    best, fewest = [list(rank) for rank in ranks], _crossings(ranks)
    for sweep in range(12):
        downwards = sweep % 2 == 0
        for rank in ranks if downwards else reversed(ranks):
            place = {node: i for other in ranks for i, node in enumerate(other)}

            def centre(node: Node, place: dict[Node, int] = place, downwards: bool = downwards) -> float:
                near = node.above if downwards else node.below
                return sum(place[n] for n in near) / len(near) if near else place[node]

            rank.sort(key=centre)
        if (crossings := _crossings(ranks)) < fewest:
            best, fewest = [list(rank) for rank in ranks], crossings
    ranks[:] = best


def _crossings(ranks: Sequence[Sequence[Node]]) -> int:
    total = 0
    for upper, lower in pairwise(ranks):
        place = {node: i for i, node in enumerate(lower)}
        ends = [(i, place[n]) for i, node in enumerate(upper) for n in node.below]
        total += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[:i])
    return total


def _place(ranks: Sequence[Sequence[Node]], sideways: bool) -> None:
    along = 0.0
    for rank in ranks:
        depth = max(n.width if sideways and n.lines else n.height for n in rank)
        for node in rank:
            node.along, node.depth = along + depth / 2, depth
        along += depth + FLOW
    for sweep in range(200):
        for rank in ranks if sweep % 2 else reversed(ranks):
            _settle(rank, sideways)


def _settle(rank: Sequence[Node], sideways: bool) -> None:
    """Each node as near as can be to where its neighbours pull it, in the rank's order and without overlap.

    With the gaps taken out that is a regression to rising values, which pooling adjacent violators solves.
    """
    offset, blocks = 0.0, []
    for i, node in enumerate(rank):
        if i:
            offset += (_breadth(rank[i - 1], sideways) + _breadth(node, sideways)) / 2 + GAP
        weight = sum(node.pull.values())
        wish = sum(w * n.across for n, w in node.pull.items()) / weight if weight else node.across
        firm = weight if node.lines else weight / 20  # where there is no room for both, the line gives way
        blocks.append([wish - offset, firm or 0.01, [(node, offset)]])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            wish, weight, members = blocks.pop()
            total = blocks[-1][1] + weight
            blocks[-1][0] = (blocks[-1][0] * blocks[-1][1] + wish * weight) / total
            blocks[-1][1] = total
            blocks[-1][2] += members
    for wish, _, members in blocks:
        for node, shift in members:
            node.across = wish + shift


def _breadth(node: Node, sideways: bool) -> float:
    return node.height if sideways and node.lines else node.width


# Drawing


def _svg(ranks: Sequence[Sequence[Node]], sideways: bool, caption: str) -> tuple[str, float, float]:
    """The image, its width and its height."""
    nodes = [node for rank in ranks for node in rank]
    position = {n: (n.along, n.across) if sideways else (n.across, n.along) for n in nodes}
    left = min(position[n][0] - n.width / 2 for n in nodes) - 2
    right = max(position[n][0] + n.width / 2 for n in nodes) + 2
    top = min(position[n][1] - n.height / 2 for n in nodes) - 2
    bottom = max(position[n][1] + n.height / 2 for n in nodes) + 2
    position = {n: (x - left, y - top) for n, (x, y) in position.items()}
    parts = [_edge(n, end, position, sideways) for n in nodes if n.lines for end in n.below]
    parts += [_node(n, *position[n]) for n in nodes if n.lines]
    width, height = round(right - left), round(bottom - top)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(caption or "diagram")}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-size="{FONT}" '
        f'text-anchor="middle" fill="currentColor" style="max-width: 100%; height: auto">{"".join(parts)}</svg>'
    )
    return svg, width, height


def _node(node: Node, x: float, y: float) -> str:
    """A box that learns is tinted, one that joins or parts ways is a pill."""
    joins = _JOIN.fullmatch(node.label) is not None
    learns = not joins and _LEARNS.search(node.label) is not None
    fill = "var(--md-primary-fg-color, teal)" if learns else "currentColor"
    box = (
        f'<rect x="{x - node.width / 2:.1f}" y="{y - node.height / 2:.1f}" width="{node.width:g}" '
        f'height="{node.height:g}" rx="{node.height / 2 if joins else 5:g}" fill="{fill}" '
        f'fill-opacity="{0.16 if learns else 0.05}" stroke="{fill}" stroke-opacity="{0.9 if learns else 0.45}"/>'
    )
    first = y - LINE * (len(node.lines) - 1) / 2 + 0.35 * FONT
    words = [
        f'<text x="{x:.1f}" y="{first + LINE * i:.1f}">{html.escape(line)}</text>' for i, line in enumerate(node.lines)
    ]
    return box + "".join(words)


def _edge(start: Node, step: Node, position: dict[Node, tuple[float, float]], sideways: bool) -> str:
    """A curve from a box through the places it passes to the next box, with an arrow's head."""
    chain = [start, step]
    while not chain[-1].lines:
        chain += chain[-1].below
    path, last = "", len(chain) - 1
    across = along = 0.0
    for i, node in enumerate(chain):
        # Straight beside the boxes of its rank, bent only in the gap between two ranks.
        centre, place = position[node][::-1] if sideways else position[node]
        half = (node.width if sideways else node.height) / 2
        before, after = place - node.depth / 2, place + node.depth / 2
        if i:
            middle, before = (along + before) / 2, before - (0 if i < last else 5)
            bent = "C" + " ".join(_point(*p, sideways) for p in ((across, middle), (centre, middle), (centre, before)))
            path += bent if abs(across - centre) > 0.5 else ""
        else:
            path = f"M{_point(centre, place + half, sideways)}"
        across, along = centre, place - half - 5 if i == last else after
        path += f"L{_point(across, along, sideways)}"
    head = " ".join(_point(across + a, along + b, sideways) for a, b in ((-3.5, -2), (3.5, -2), (0, 5)))
    return (
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="0.6"/><path d="M{head}Z" opacity="0.75"/>'
    )


def _point(across: float, along: float, sideways: bool) -> str:
    return f"{along:.1f},{across:.1f}" if sideways else f"{across:.1f},{along:.1f}"
