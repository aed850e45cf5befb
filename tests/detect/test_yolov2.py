"""YOLOv2: counts, an image worked by hand, softmax, images that say what and not where."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from opsin import create_model, registry
from opsin.detect.yolov2 import VOC_ANCHORS, YOLOv2
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.ops import pairwise_iou
from opsin.structures import Instances

from . import plain_yolo as plain
from .test_yolov3 import make_outputs, truth

SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 0.0625}


@pytest.fixture(scope="module")
def small() -> YOLOv2:
    anchors = [[16, 16], [32, 48], [64, 64]]
    return create_model("yolov2", num_classes=2, anchors=anchors, **SMALL).eval()  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["yolov2", "yolov2_voc"])
def test_published_counts(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(create_model(name)) == registry.find_model(name).published.params


def test_an_image_by_hand(small: YOLOv2) -> None:
    """64x64 pixels, numbers of 0, a box of 32x32 at (40, 16): cell (1, 0), sigmoid(t) shall be 0.25 and 0.5.

    It predicts 32x48 at (48, 16), which shares 24x32 with the truth.
    """
    target = truth([[24, 0, 56, 32]], [1])  # 32x32 at (40, 16): 32x48 fits by 2 / 3, 16x16 by 1 / 4, 64x64 by 1 / 4
    losses = small.loss(make_outputs(1, 64, 21, strides=(32,)), [target])
    weight = 2 - 1024 / 4096
    offsets = (0.5 - 0.25) ** 2 + 0 + math.log(1.5) ** 2
    assert losses["box"].item() == pytest.approx(weight * offsets / 2, rel=1e-5)
    assert losses["class"].item() == pytest.approx(math.log(2), rel=1e-5)
    overlap = 24 * 32 / (1024 + 1536 - 24 * 32)
    outputs = make_outputs(1, 64, 21, strides=(32,))
    free = (small.assign(outputs, [target])[0].matched == -1).sum().item()
    expected = (5 * (0.5 - overlap) ** 2 + free * 0.25) / 2
    assert losses["objectness"].item() == pytest.approx(expected, rel=1e-5)


def test_boxes_are_pulled_to_their_anchors_at_first() -> None:
    anchors = [[16, 16], [32, 48], [64, 64]]
    model = create_model("yolov2", num_classes=2, anchors=anchors, anchor_pull=3, **SMALL)
    assert isinstance(model, YOLOv2)
    target = truth([[24, 0, 56, 32]], [1])  # the second anchor's in cell (1, 0): see above
    outputs = make_outputs(2, 64, 21, 1.0, strides=(32,))
    assert "pull" not in model.eval().loss(outputs, [target] * 2)  # a validation is no training
    found = model.train().loss(outputs, [target] * 2)["pull"].item()
    expected = 0.0
    for image in range(2):
        for place in plain.places(outputs, image, model.anchors, model.strides, model.scales):
            x, y, w, h = place.raw[:4]
            if (place.anchor, place.x, place.y) != ((32.0, 48.0), 1, 0):
                expected += 0.01 * ((plain.sigmoid(x) - 0.5) ** 2 + (plain.sigmoid(y) - 0.5) ** 2 + w**2 + h**2) / 2
    assert found == pytest.approx(expected / 2, rel=1e-5)
    assert "pull" in model.loss(outputs, [target] * 2) and "pull" not in model.loss(outputs, [target] * 2)
    assert model.state_dict()["images_seen"] == 6  # kept over a resume
    with pytest.raises(InputError, match="anchor_pull"):
        create_model("yolov2", anchor_pull=-1, **SMALL)


def test_classes_exclude_each_other_and_boxes_are_those_of_plain_loops(small: YOLOv2) -> None:
    outputs = make_outputs(1, 64, 21, 1.0, strides=(32,))
    boxes, scores = small.predictions(outputs)
    every = plain.places(outputs, 0, small.anchors, small.strides, small.scales)
    assert torch.allclose(boxes[0], torch.tensor([p.box() for p in every]), atol=1e-3)
    objectness = torch.tensor([plain.sigmoid(p.raw[4]) for p in every])
    assert torch.allclose(scores[0].sum(dim=1), objectness, atol=1e-5)


def test_published_anchors_are_in_pixels() -> None:
    assert VOC_ANCHORS[0] == pytest.approx((42.3072, 55.4064))


def test_an_image_that_says_what_and_not_where(small: YOLOv2) -> None:
    outputs = make_outputs(2, 64, 21, 1.0, strides=(32,))
    alone = small.loss({"stride32": outputs["stride32"][:1]}, [Instances.somewhere([1])])
    assert alone["box"] == alone["class"] == alone["objectness"] == 0
    _, scores = small.predictions(outputs)
    best = int(scores[0, :, 1].argmax())
    place = plain.places(outputs, 0, small.anchors, small.strides, small.scales)[best]
    a, b = place.raw[5:]
    expected = math.log(1 + math.exp(a - b)) + 5 * max(0.3 - plain.sigmoid(place.raw[4]), 0) ** 2 / 2
    assert alone["somewhere"].item() == pytest.approx(expected, rel=1e-4)
    both = small.loss(outputs, [Instances.somewhere([1]), truth([[24, 0, 56, 32]], [0])])
    assert both["somewhere"].item() == pytest.approx(expected / 2, rel=1e-4)
    assert both["box"] > 0
    assert "somewhere" not in small.loss(outputs, [truth([], []), truth([], [])])


def test_ignored_by_iou(small: YOLOv2) -> None:
    outputs = make_outputs(1, 64, 21, strides=(32,))
    target = Instances(torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([0]))
    assigned = small.assign(outputs, [target])[0]
    near = pairwise_iou(assigned.boxes, target.boxes)[:, 0] > 0.6
    assert torch.equal(assigned.matched == -2, near & (assigned.matched < 0))


def test_without_passthrough() -> None:
    model = create_model("yolov2", num_classes=1, passthrough=False, **SMALL).eval()
    with_it = create_model("yolov2", num_classes=1, **SMALL).eval()
    assert count_parameters(model) < count_parameters(with_it)
    assert model(torch.randn(1, 3, 64, 96))["stride32"].shape == (1, 30, 2, 3)
