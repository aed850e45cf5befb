"""What no anchor is matched to: each reason by hand, YOLO's cells in plain loops, RetinaNet's rule on every anchor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou
from typer.testing import CliRunner

from opsin import cli, data, registry
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray, ImageFiles
from opsin.data.source import Source, Split
from opsin.detect.anchor_coverage import blank_outputs, find_unmatched
from opsin.detect.detector import Detector
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.structures import Instances

from . import plain_yolo as plain

YOLO = {"name": "yolov3", "backbone": "mobilenet_v3_small", "width": 0.0625}
RETINA = {"name": "retinanet", "backbone": "mobilenet_v3_small", "channels": 16, "head_repeats": 1}


def recipe(model: dict[str, Any], **settings: Any) -> Any:
    return load_recipe({"task": "detect", "model": model}, {"data.source": "x", **settings})


def source(*inputs: Sequence[Sequence[float]], side: int = 64) -> Source:
    """Images of a side, their boxes with labels."""
    rows = [torch.tensor(boxes, dtype=torch.float32).view(-1, 5) for boxes in inputs]
    instances = [Instances(row[:, :4], row[:, 4].long()) for row in rows]
    images = torch.zeros(len(rows), 3, side, side, dtype=torch.uint8)
    split = Split(ImageArray(images, "x"), Boxes.of(instances, ["cat", "dog"]))
    return Source("x", "made", {"train": split}, task="detect")


def test_each_reason_by_hand() -> None:
    """64x64 at half the size: cells of 8, 16 and 32, the anchors 10x13, 16x30 and 33x23 the finest."""
    crowded = [[0, 0, 20, 26, 0], [2, 2, 22, 28, 1], [40, 40, 41, 60, 1], [0, 0, 9, 9, -1]]
    made = recipe(YOLO, **{"data.size": 32})
    found = find_unmatched(source(crowded, [], [[2, 2, 22, 28, 1]]), made)
    assert found.size == (32, 32) and found.places == 3 * (16 + 4 + 1)
    assert found.objects == {"cat": 1, "dog": 3} and found.unmatched == {"cat": 1, "dog": 1}
    assert [p.path for p in found.problems] == ["x[0]", "x[0]"]
    first, second = (p.reason for p in found.problems)
    assert first.startswith("object 1, a cat of 10x13 input pixels, has no anchor or cell to itself")
    assert second.startswith("object 3, a dog of 0.5x10 input pixels, has less than one within the input")
    text = found.render()
    assert text.startswith(
        "yolov3 at 32x32: 63 anchors or cells, no match for 2 of 4 objects\n  cat  1 of 1\n  dog  1 of 3\n"
    )
    assert "what may help: model.anchors, data.size, another model" in text
    assert json.loads(json.dumps(found.to_dict()))["unmatched"]["dog"] == 1


def crowd(images: int, each: int, side: int) -> Source:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(images, each, 2, generator=generator) * side * 0.8
    sides = 4 + torch.rand(images, each, 2, generator=generator) * side / 3
    boxes = torch.cat([corners, (corners + sides).clamp(max=side), torch.zeros(images, each, 1)], dim=2)
    return source(*boxes.tolist(), side=side)


def numbers(problems: list[data.Problem], words: str = "") -> list[tuple[str, int]]:
    return [(p.path, int(p.reason.split(",")[0].split()[1])) for p in problems if words in p.reason]


def test_yolos_cells_are_those_of_plain_loops() -> None:
    made, opened = recipe(YOLO, **{"data.size": 64}), crowd(4, 30, 64)
    found = find_unmatched(opened, made)
    model: Any = registry.create_model(**made.model.model_dump(exclude_none=True), num_classes=2)
    outputs = {f"stride{s}": torch.zeros(1, 21, 64 // s, 64 // s) for s in (8, 16, 32)}
    every, expected = plain.places(outputs, 0, model.anchors, model.strides, model.scales), []
    assert found.places == len(every)
    for k, one in enumerate(opened.splits["train"].kind.instances):
        answered = {truths[-1] for truths in plain.owners(every, one).values()}
        expected += [(f"x[{k}]", n + 1) for n in range(len(one)) if n not in answered]
    assert expected and numbers(found.problems, "no anchor or cell to itself") == expected
    # k-means, from the boxes themselves: of each the best of the anchors, on one centre.
    sides = [
        (x2 - x1, y2 - y1) for one in opened.splits["train"].kind.instances for x1, y1, x2, y2 in one.boxes.tolist()
    ]
    for mean, anchors in ((found.anchor_iou, sum(model.anchors, ())), (found.cluster_iou, found.clusters)):
        best = [max(plain.shape_iou(side, anchor) for anchor in anchors) for side in sides]
        assert mean == pytest.approx(np.mean(best), abs=1e-5)
    assert len(found.clusters) == 9 and f"--set 'model.anchors={[list(c) for c in found.clusters]}'" in found.render()


def test_retinanets_thresholds_are_those_of_every_anchor() -> None:
    made, opened = recipe({**RETINA, "low_quality": False}, **{"data.size": 128}), crowd(3, 30, 128)
    found = find_unmatched(opened, made)
    model: Any = registry.create_model(**made.model.model_dump(exclude_none=True), num_classes=2).eval()
    anchors, apart, taken = model(torch.zeros(1, 3, 128, 128))["anchors"], [], []
    assert found.places == len(anchors)
    for k, one in enumerate(opened.splits["train"].kind.instances):
        overlap = box_iou(one.boxes, anchors)
        best, owner = overlap.max(dim=0)
        answered = set(owner[best >= 0.5].tolist())
        for n, reach in enumerate(overlap.amax(dim=1).tolist()):
            if n not in answered:
                (apart if reach < 0.5 else taken).append((f"x[{k}]", n + 1))
    assert apart and numbers(found.problems, "overlaps no anchor enough") == apart
    assert numbers(found.problems, "no anchor or cell to itself") == taken
    assert found.settings == ["model.anchor_scale", "model.octaves", "model.ratios", "data.size"]
    rescued = find_unmatched(opened, recipe(RETINA, **{"data.size": 128}))
    assert not numbers(rescued.problems, "overlaps no anchor enough")


def test_a_detector_without_anchors_has_cells() -> None:
    boxes = [[4, 4, 30, 30, 0], [20, 20, 60, 60, 1], [70, 4, 120, 50, 0]]  # the first two are centred in one cell
    made = recipe({"name": "yolov1_tiny", "size": 128}, **{"data.size": 128})
    found = find_unmatched(source(boxes, side=128), made)
    assert numbers(found.problems) == [("x[0]", 2)]
    assert found.clusters == [] and found.settings == [] and "k-means" not in found.render()


def test_images_that_cannot_be_read_and_empty_splits_do_not_count(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    files, one = (
        [str(tmp_path / "a.png"), str(tmp_path / "gone.png")],
        Instances(torch.tensor([[4.0, 4, 30, 30]]), torch.tensor([0])),
    )
    train, val = Split(ImageFiles(files), Boxes.of([one, one], ["cat"])), Split(ImageFiles([]), Boxes.of([], ["cat"]))
    opened = Source("x", "made", {"train": train, "val": val}, task="detect")
    assert find_unmatched(opened, recipe(YOLO, **{"data.size": 64})).objects == {"cat": 1}
    opened.splits["train"] = train.with_truth(Boxes.of([one[:0], one[:0]], ["cat"]))
    found = find_unmatched(opened, recipe(YOLO, **{"data.size": 64}))
    assert found.objects == {"cat": 0} and found.clusters == []
    assert found.render() == "yolov3 at 64x64: 252 anchors or cells, a match for each of 0 objects"


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"multiples of 32, data\.size gives 100x100"):
        find_unmatched(source([]), recipe(YOLO, **{"data.size": 100}))
    grey = recipe(YOLO, **{"data.size": 64, "data.mean": [0.5], "data.std": [0.5]})
    assert find_unmatched(source([]), grey).places == 252


def run(*arguments: object) -> Any:
    words = [str(one) for one in arguments]
    return CliRunner().invoke(cli.app_for(words), words)


def test_the_command_names_them() -> None:
    small = ("--model", "yolov1_tiny", "--set", "model.size=128", "--set", "data.size=128")
    result = run("data", "scenes:10", *small, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    lost = Counter({name: count for name, count in said["matches"]["unmatched"].items() if count})
    named = Counter(p["reason"].split(" a ")[1].split()[0] for p in said["problems"] if p["kind"] == "unmatchable")
    assert lost and named == lost
    text = run("data", "scenes:10", *small).stdout
    assert f"warning: unmatchable ({sum(lost.values())})" in text
    assert f"yolov1_tiny at 128x128: 8 anchors or cells, no match for {sum(lost.values())} of" in text
    for arguments, message in (
        (("data", "scenes:10", "--set", "data.size=64"), "--model NAME"),
        (("data", "scenes:10", "--model", "ssd30"), "did you mean ssd"),
        (("data", "scenes:10", "--model", "lenet5_digits"), "a model for classify, not for detect"),
    ):
        assert message in str(run(*arguments).exception)


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "yolov3_tiny", "yolov1_tiny"])
def test_outputs_without_products_have_the_places(name: str) -> None:
    torch.manual_seed(0)
    model = registry.create_model(name, num_classes=2).eval()
    assert isinstance(model, Detector)
    images = torch.randn(1, 3, model.fixed_size or 64, model.fixed_size or 64)
    with torch.no_grad():
        real, blank = model(images), blank_outputs(model, images)
    assert {name: tensor.shape for name, tensor in blank.items()} == {
        name: tensor.shape for name, tensor in real.items()
    }
    for name in real.keys() & {"anchors", "size"}:
        assert torch.equal(blank[name], real[name])
