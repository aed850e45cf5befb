"""YOLOv4: counts, several anchors for one truth, the stretched grid, CIoU, the tiny form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from opsin import create_model, registry
from opsin.detect.postprocess import suppress
from opsin.detect.yolov4 import YOLOv4
from opsin.errors import InputError
from opsin.losses import ciou_loss
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances

from . import plain_yolo as plain
from .test_yolov3 import make_outputs, truth

SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 0.0625}


@pytest.fixture(scope="module")
def small() -> YOLOv4:
    return create_model("yolov4", num_classes=2, **SMALL).eval()  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["yolov4", "yolov4_tiny"])
def test_published_counts(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = create_model(name)
    assert count_parameters(model) == published.params
    if name == "yolov4_tiny":
        assert count_macs(model, published.input) == published.macs


def test_the_backbone_has_mish_and_another_keeps_its_own() -> None:
    with torch.device("meta"):
        assert any(isinstance(m, torch.nn.Mish) for m in create_model("yolov4").modules())
        other = create_model("yolov4", backbone="darknet53")
    assert not any(isinstance(m, torch.nn.Mish) for m in other.modules())


def test_every_anchor_that_fits_answers(small: YOLOv4) -> None:
    """20x40 overlaps 19x36 by 0.86, 12x16 by 0.24, 40x28 by 0.44, 36x75 by 0.30, and 76x55 by 0.19: too little."""
    target = truth([[20, 10, 40, 50]], [1])
    outputs = make_outputs(1, 64, 21)
    matched = small.assign(outputs, [target])[0].matched
    cell = 3 * 8 + 3  # centre (30, 30), stride 8
    middle = 192 + 1 * 4 + 1  # stride 16
    assert (matched == 0).nonzero()[:, 0].tolist() == [cell, 64 + cell, 128 + cell, middle]
    every = plain.places(outputs, 0, small.anchors, small.strides, small.scales)
    assert sorted(plain.owners(every, target, 0.213)) == (matched == 0).nonzero()[:, 0].tolist()


def test_the_stretched_grid_reaches_the_border() -> None:
    model = create_model("yolov4", num_classes=1, grid_scales=[1.2, 1.2, 1.2], **SMALL).eval()
    outputs = make_outputs(1, 64, 18)
    logit = math.log(11)  # sigmoid 11 / 12: 1.2 * 11 / 12 - 0.1 = 1
    outputs["stride8"][:, 0] = logit
    boxes, _ = model.predictions(outputs)  # type: ignore[operator]
    assert ((boxes[0, 0, 0] + boxes[0, 0, 2]) / 2).item() == pytest.approx(8, abs=1e-4)


def test_decoding_equals_plain_loops(small: YOLOv4) -> None:
    outputs = make_outputs(1, 64, 21, 1.0)
    every = plain.places(outputs, 0, small.anchors, small.strides, small.scales)
    assert torch.allclose(small.predictions(outputs)[0][0], torch.tensor([p.box() for p in every]), atol=1e-3)


def test_the_box_term_is_ciou(small: YOLOv4) -> None:
    outputs = make_outputs(1, 64, 21, 0.5)
    target = truth([[20, 10, 40, 50]], [1])
    places = (small.assign(outputs, [target])[0].matched == 0).nonzero()[:, 0]
    predicted = small.predictions(outputs)[0][0, places]
    expected = 5 * ciou_loss(predicted, target.boxes.expand_as(predicted), reduction="sum")
    assert small.loss(outputs, [target])["box"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_other_terms_equal_plain_loops(small: YOLOv4) -> None:
    outputs = make_outputs(2, 64, 21, 0.7)
    targets = [truth([[20, 10, 40, 50], [2, 2, 60, 60]], [1, 0]), truth([], [])]
    losses = small.loss(outputs, targets)
    expected = plain.loss(
        outputs, targets, small.anchors, small.strides, small.scales, (64, 64), ignore=0.7, threshold=0.213
    )
    for term in ("objectness", "class"):
        assert losses[term].item() == pytest.approx(expected[term], rel=1e-4)


def test_tiny_runs_and_learns_of_its_first_image() -> None:
    torch.manual_seed(0)
    model = create_model("yolov4_tiny", num_classes=1)
    outputs = model(torch.randn(2, 3, 64, 96))
    assert {name: tuple(v.shape) for name, v in outputs.items()} == {
        "stride16": (2, 18, 4, 6),
        "stride32": (2, 18, 2, 3),
    }
    losses = model.loss(outputs, [truth([[10, 10, 50, 40]], [0])] * 2)  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_smoothed_class_targets() -> None:
    model = create_model("yolov4", num_classes=2, label_smoothing=0.1, match_threshold=None, **SMALL).eval()
    loss = model.loss(make_outputs(1, 64, 21), [Instances(torch.tensor([[20.0, 10, 40, 50]]), torch.tensor([1]))])  # type: ignore[operator]
    assert loss["class"].item() == pytest.approx(2 * math.log(2), rel=1e-5)  # at a logit of 0 every target costs this


def test_suppression_by_the_distance_of_centres() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 16]])  # IoU 0.625, less 9 / 356
    with torch.device("meta"):
        plain, other = create_model("yolov4", **SMALL), create_model("yolov4", suppression="diou", **SMALL)
    found = []
    for model in (plain, other):
        selection = replace(model.selection, iou_threshold=0.61)  # type: ignore[arg-type, type-var]
        found.append(len(suppress(boxes, torch.zeros(2).long(), torch.tensor([0.9, 0.8]), selection)))
    assert found == [1, 2]


def test_errors() -> None:
    with torch.device("meta"), pytest.raises(InputError, match="unknown suppression 'dious'; did you mean diou"):
        create_model("yolov4", suppression="dious", **SMALL)
    with torch.device("meta"), pytest.raises(InputError, match="grid_scales are 3 numbers from 1 to 2"):
        create_model("yolov4", grid_scales=[0.5, 1, 1])
