"""Objects found in several tiles, made one answer: worked by hand, and against a plain slow version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from opsin.data.masks import decode_mask, encode_masks
from opsin.detect.merge import merge_instances
from opsin.engine.tiles import Place, Tiling

SIZE = (100, 180)
# Two tiles of 100x100 that overlap by 20, x 80 to 100, and the whole image.
WHOLE, LEFT, RIGHT = Place(0, 0, 100, 180), Place(0, 0, 100, 100), Place(0, 80, 100, 100)
Row = dict[str, Any]


def row(box: Sequence[float], score: float = 0.9, label: str = "cell") -> Row:
    return {"box": box, "label": label, "score": score}


def merge(*views: list[Row], places: Any = (WHOLE, LEFT, RIGHT), **options: Any) -> list[Row]:
    return merge_instances(views, places, SIZE, iou_threshold=0.5, **options)


def test_an_object_at_a_border_is_what_the_other_tile_sees_whole() -> None:
    # Of an object at x 85 to 115 the left tile sees 85 to 100, the right one all: 5 to 35 of its own pixels.
    part, whole = row([85, 40, 100, 60], 0.95), row([5, 40, 35, 60], 0.7)
    assert merge([], [part], [whole]) == [row([85, 40, 115, 60], 0.7)]
    # Whatever the part looks like.
    assert merge([], [{**part, "label": "line"}], [whole]) == [row([85, 40, 115, 60], 0.7)]
    # But a part stays, where what covers it is hardly seen at all, or where nothing does.
    assert len(merge([], [part], [{**whole, "score": 0.1}])) == 2
    assert merge([], [part], []) == [part]


def test_at_the_images_own_border_nothing_is_cut() -> None:
    at_edge, near = row([0, 40, 15, 60], 0.6), row([0, 38, 20, 62], 0.9)
    kept = merge([near], [at_edge], [])
    assert kept == [near]  # by suppression, not as a part: alone it stays, and wins when it is surer
    assert merge([{**near, "score": 0.5}], [at_edge], []) == [at_edge]


def test_an_object_in_the_corner_of_four_tiles_is_there_once() -> None:
    places = [Place(0, 0, 100, 180), *Tiling((60, 100), (20, 20)).places(SIZE)]
    assert [place.box for place in places[1:]] == [
        (0, 0, 100, 60),
        (80, 0, 180, 60),
        (0, 40, 100, 100),
        (80, 40, 180, 100),
    ]
    box = [84.0, 44.0, 96.0, 56.0]  # whole in all four
    views = [[]] + [
        [row([box[0] - p.left, box[1] - p.top, box[2] - p.left, box[3] - p.top], 0.5 + k / 10)]
        for k, p in enumerate(places[1:])
    ]
    assert merge(*views, places=places) == [row(box, 0.8)]


def test_an_object_larger_than_the_overlap_is_joined() -> None:
    # x 40 to 150: the left tile sees 40 to 100, the right one 80 to 150.
    left, right = row([40, 20, 100, 80], 0.6), row([0, 22, 70, 80], 0.8)
    assert merge([], [left], [right]) == [row([40, 20, 150, 80], 0.8)]
    # Not with one of another class, nor with one that is elsewhere in the overlap.
    assert len(merge([], [left], [{**right, "label": "line"}])) == 2
    assert len(merge([], [left], [row([0, 70, 70, 95])])) == 2
    # Where the whole image shows it, it is that.
    assert merge([row([41, 21, 151, 81], 0.7)], [left], [right]) == [row([41, 21, 151, 81], 0.7)]


def test_neighbours_stay_two() -> None:
    one, other = row([82, 10, 92, 30]), row([10, 10, 22, 30], 0.8)
    assert len(merge([], [one], [{**one, "box": [2, 10, 12, 30]}, other])) == 2
    assert len(merge([], [one], [other], limit=1)) == 1
    assert merge([], [], []) == []


def test_masks_are_moved_and_joined() -> None:
    parts = []
    for columns in (slice(40, 100), slice(0, 70)):
        mask = torch.zeros(1, 100, 100, dtype=torch.bool)
        mask[0, 20:80, columns] = True
        parts.append(encode_masks(mask)[0])
    left, right = row([40, 20, 100, 80], 0.6), row([0, 20, 70, 80], 0.8)
    (found,) = merge([], [left | {"mask": parts[0]}], [right | {"mask": parts[1]}])
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[20:80, 40:150] = True
    assert torch.equal(decode_mask(found["mask"]), expected)


def shared(one: list[float], two: list[float]) -> float:
    width, height = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    return max(0.0, width) * max(0.0, height)


def area(one: list[float]) -> float:
    return (one[2] - one[0]) * (one[3] - one[1])


def overlap(one: list[float], two: list[float]) -> float:
    return shared(one, two) / (area(one) + area(two) - shared(one, two))


class Plain:
    """One box in pixels of the image: what of it is cut, in which tile it was seen."""

    def __init__(self, found: Row, view: int, place: Place, size: tuple[int, int]) -> None:
        x1, y1, x2, y2 = place.box
        a, b, c, d = found["box"]
        self.box, self.view, self.score, self.label = (
            [a + x1, b + y1, c + x1, d + y1],
            view,
            found["score"],
            found["label"],
        )
        ends = [(a, x1 > 0, place.width), (b, y1 > 0, place.height)]
        ends += [(place.width - c, x2 < size[1], place.width), (place.height - d, y2 < size[0], place.height)]
        self.cut = [inner and distance <= 0.02 * side for distance, inner, side in ends]


def without_parts(found: list[Plain]) -> list[Plain]:
    def seen_whole(one: Plain) -> bool:
        return any(
            not any(other.cut) and other.view != one.view and other.score >= one.score / 2
            and shared(one.box, other.box) >= area(one.box) / 2
            for other in found
        )  # fmt: skip

    return [one for one in found if not (any(one.cut) and seen_whole(one))]


def plain_merge(views: list[list[Row]], places: list[Place], size: tuple[int, int], threshold: float) -> list[Row]:
    """The rule in loops over pairs."""
    found = [Plain(one, n, places[n], size) for n, view in enumerate(views) for one in view]
    found = without_parts(found)
    groups = [{i} for i in range(len(found))]
    for i, one in enumerate(found):
        for j, two in enumerate(found[:i]):
            (a, b, c, d), (e, f, g, h) = places[one.view].box, places[two.view].box
            window = [max(a, e), max(b, f), min(c, g), min(d, h)]
            clips = []
            for box in (one.box, two.box):
                low, high = [max(box[k], window[k]) for k in (0, 1)], [min(box[k], window[k]) for k in (2, 3)]
                clips.append([*low, *high])
            real = all(x2 - x1 >= 1 and y2 - y1 >= 1 for x1, y1, x2, y2 in clips)
            parts = any(one.cut) and any(two.cut) and one.view != two.view and one.label == two.label
            if parts and real and overlap(*clips) >= 0.5:
                both = next(g for g in groups if i in g) | next(g for g in groups if j in g)
                groups = [g for g in groups if not g & both] + [both]
    joined = []
    for group in groups:
        members = sorted((found[i] for i in sorted(group)), key=lambda one: -one.score)
        first, new = members[0], list(members[0].box)
        cut = list(first.cut)
        for k in range(4):
            furthest = (min if k < 2 else max)(members, key=lambda one: one.box[k])
            new[k], cut[k] = furthest.box[k], furthest.cut[k]
        first.box, first.cut = new, cut
        joined.append(first)
    kept: list[Plain] = []
    for one in sorted(without_parts(joined), key=lambda one: -one.score):
        if all(one.label != other.label or overlap(one.box, other.box) <= threshold for other in kept):
            kept.append(one)
    return [{"box": [round(v, 2) for v in one.box], "label": one.label, "score": one.score} for one in kept]


def test_against_the_plain_slow_version() -> None:
    draw = random.Random(0)
    size, joined = (150, 210), 0
    places = [Place(0, 0, *size), *Tiling((70, 70), (20, 20)).places(size)]
    for _ in range(30):
        objects = []
        for _ in range(12):
            w, h = draw.uniform(8, 60), draw.uniform(8, 60)
            x, y = draw.uniform(0, size[1] - w), draw.uniform(0, size[0] - h)
            objects.append(([x, y, x + w, y + h], draw.choice("ab")))
        views: list[list[Row]] = []
        for place in places:
            seen = []
            for box, label in objects:
                x1, y1, x2, y2 = place.box
                inside = [max(box[0], x1) - x1, max(box[1], y1) - y1, min(box[2], x2) - x1, min(box[3], y2) - y1]
                if inside[2] - inside[0] > 4 and inside[3] - inside[1] > 4 and draw.random() < 0.7:
                    seen.append(row(inside, draw.uniform(0.1, 1.0), label))
            views.append(seen)
        found = merge_instances(views, places, size, iou_threshold=0.5)
        expected = plain_merge(views, places, size, 0.5)
        assert [one["label"] for one in found] == [one["label"] for one in expected]
        for one, other in zip(found, expected, strict=True):
            assert one["score"] == other["score"]
            assert max(abs(a - b) for a, b in zip(one["box"], other["box"], strict=True)) <= 0.02
        joined += sum(max(area(one["box"]), 0) > 70 * 40 for one in found)
    assert joined  # large ones were among them
