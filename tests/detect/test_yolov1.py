"""YOLOv1: counts, an image worked by hand, the layer with weights of its own at each place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin import create_model, registry
from opsin.detect.yolov1 import LocalConv2d, YOLOv1, yolov1
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters

from .test_yolov3 import truth


@pytest.fixture(scope="module")
def small() -> YOLOv1:
    """2x2 cells of 64 pixels, 2 boxes, 3 classes."""
    return create_model("yolov1_tiny", num_classes=3, size=128).eval()  # type: ignore[return-value]


def make_outputs() -> dict[str, Tensor]:
    """Box 0 of every cell is 64x64 in its middle, box 1 32x32; all confidences 0.2, all classes 0.1."""
    boxes = torch.full((1, 4, 2, 4), 0.5)
    boxes[:, :, 0, 2:] = 0.5**0.5
    return {"classes": torch.full((1, 4, 3), 0.1), "confidences": torch.full((1, 4, 2), 0.2), "boxes": boxes}


@pytest.mark.parametrize("name", ["yolov1", "yolov1_darknet", "yolov1_tiny"])
def test_published_counts(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = create_model(name)
    assert count_parameters(model) == published.params
    if name == "yolov1_tiny":
        assert count_macs(model, published.input) == published.macs


def test_starts_in_the_middle_of_cells_with_small_weights() -> None:
    """Weights of a deviation of 0.01, so that what is found hardly depends on the image: a quarter of it each."""
    torch.manual_seed(0)
    model: Any = create_model("yolov1_tiny", num_classes=3, size=64)
    last = model.head[-1]
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert last.weight.abs().max() > 0.03  # normal, not uniform
    assert last.bias.tolist() == [0] * (3 + 2) + [0.5] * 8


def test_an_image_by_hand(small: YOLOv1) -> None:
    """A box of 32x64 at (96, 32), the middle of cell 1. It is half of box 0; box 1, 32x32, is half of it: box 0 first.

    The second truth of the cell is nobody's.
    """
    target = truth([[80, 0, 112, 64], [90, 20, 100, 40]], [2, 0])
    losses = small.loss(make_outputs(), [target])
    sides = (0.25**0.5 - 0.5**0.5) ** 2
    assert losses["box"].item() == pytest.approx(5 * sides, rel=1e-4)
    assert losses["objectness"].item() == pytest.approx((0.5 - 0.2) ** 2 + 0.5 * 7 * 0.2**2, rel=1e-5)
    assert losses["class"].item() == pytest.approx(0.9**2 + 2 * 0.1**2, rel=1e-5)
    assigned = small.assign(make_outputs(), [target])[0]
    assert assigned.matched.tolist() == [-1, -1, 0, -1, -1, -1, -1, -1]
    assert assigned.boxes[2].tolist() == [64, 0, 128, 64]


def test_where_nothing_overlaps_the_nearest_answers(small: YOLOv1) -> None:
    matched = small.assign(make_outputs(), [truth([[1, 1, 3, 3]], [0])])[0].matched
    outputs = make_outputs()
    outputs["boxes"][:, :, 0] = torch.tensor([0.99, 0.99, 0.01, 0.01])  # far corner of the cell, next to nothing
    assert matched.tolist()[:2] == [0, -1]  # inside the large box
    assert small.assign(outputs, [truth([[1, 1, 3, 3]], [0])])[0].matched.tolist()[:2] == [-1, 0]


def test_decode(small: YOLOv1) -> None:
    outputs = make_outputs()
    outputs["confidences"][0, 3, 1] = 1.5  # linear: more than certain is certain
    outputs["classes"][0, 3, 1] = 0.8
    found = small.decode(outputs, score_threshold=0.5)[0]
    assert found.boxes.tolist() == [[80, 80, 112, 112]]
    assert found.labels.tolist() == [1]  # type: ignore[union-attr]
    assert found.scores.tolist() == pytest.approx([0.8])  # type: ignore[union-attr]
    assert small.predictions(outputs)[0].shape == (1, 8, 4)


def test_a_region_to_ignore(small: YOLOv1) -> None:
    losses = small.loss(make_outputs(), [truth([[0, 0, 128, 128]], [-1])])
    assert {name: value.item() for name, value in losses.items()} == {"box": 0, "objectness": 0, "class": 0}


def test_empty_and_many(small: YOLOv1) -> None:
    torch.manual_seed(0)
    corners = torch.rand(2000, 2) * 120
    many = truth(torch.cat([corners, corners + 5], dim=1).tolist(), [0] * 2000)
    outputs = small.train()(torch.randn(2, 3, 128, 128))
    losses = small.loss(outputs, [truth([], []), many])
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
    small.eval()


def test_local_convolution_with_equal_weights_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer, weight = LocalConv2d(2, 3, 4), torch.randn(3, 2, 3, 3)
    layer.weight.data = weight.flatten(1).expand(16, 3, 18).clone()
    x = torch.randn(5, 2, 4, 4)
    assert torch.allclose(layer(x), F.conv2d(x, weight, padding=1), atol=1e-5)


def test_export_with_any_batch(small: YOLOv1) -> None:
    images = torch.randn(3, 3, 128, 128)
    program = torch.export.export(small, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=9)},))
    with torch.no_grad():
        for name, value in program.module()(images).items():
            assert torch.allclose(value, small(images)[name], atol=1e-5)


def test_errors(small: YOLOv1) -> None:
    with pytest.raises(InputError, match="128x128 only, got 64x64"):
        small(torch.zeros(1, 3, 64, 64))
    wrong: list[tuple[dict[str, Any], str]] = [({"size": 100}, "multiple of 64"), ({"boxes": 0}, "boxes must be")]
    for options, message in wrong:
        with torch.device("meta"), pytest.raises(InputError, match=message):
            create_model("yolov1", **options)


def test_backbone_and_a_finer_grid() -> None:
    """Cells of 32 pixels: the middle of the box, (112, 64), lies in column 3 of row 2."""
    model = yolov1(backbone="shufflenet_v2_x0_5", width=0.125, hidden=32, stride=32, size=128, num_classes=3)
    outputs = model(torch.zeros(2, 3, 128, 128))
    assert outputs["classes"].shape == (2, 16, 3)
    (assigned,) = model.assign({k: v[:1] for k, v in outputs.items()}, [truth([[96, 32, 128, 96]], [1])])
    (place,) = (assigned.matched == 0).nonzero()[:, 0].tolist()
    assert assigned.boxes[place].tolist() == [96, 64, 128, 96]
    coarse = yolov1(backbone="shufflenet_v2_x0_5", width=0.125, hidden=32, size=128)
    assert coarse(torch.zeros(1, 3, 128, 128))["classes"].shape == (1, 4, 20)
    state = create_model("shufflenet_v2_x0_5").state_dict()
    left = coarse.initialize_from(state)
    assert left and not any(name.startswith("backbone.backbone.stages") for name in left)
    local = create_model("yolov1_darknet", backbone="shufflenet_v2_x0_5", width=0.125, stride=32, size=96)
    assert isinstance(local.head[0], LocalConv2d) and local.head[0].weight.shape == (9, 256, 128 * 9)  # type: ignore[index]
    assert local(torch.zeros(1, 3, 96, 96))["confidences"].shape == (1, 9, 3)
    wrong: list[tuple[dict[str, Any], str]] = [({"stride": 32}, "with a backbone"), ({"stride": 16}, "is 32 or 64")]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            yolov1(**options)
