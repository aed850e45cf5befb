"""YOLOv3, its tiny and its ASFF form: counts, an image worked by hand, the loss and the decoding in plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin import create_model, registry
from opsin.detect import yolov3
from opsin.detect.detector import Detector
from opsin.detect.postprocess import Selection
from opsin.detect.yolov3 import YOLOv3
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.ops import pairwise_iou
from opsin.structures import Instances

from . import plain_yolo as plain

SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 0.0625}


@pytest.fixture(scope="module")
def small() -> YOLOv3:
    torch.manual_seed(0)
    return create_model("yolov3", num_classes=2, **SMALL).eval()  # type: ignore[return-value]


def make_outputs(
    images: int, size: int, numbers: int, scale: float = 0.0, strides: tuple[int, ...] = (8, 16, 32)
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"stride{s}": scale * torch.randn(images, numbers, size // s, size // s, generator=generator) for s in strides
    }


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


@pytest.mark.parametrize("name", ["yolov3", "yolov3_spp", "yolov3_tiny", "yolov3_asff"])
def test_published_counts(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = create_model(name)
    assert count_parameters(model) == published.params
    if name == "yolov3_tiny":  # the large ones take seconds: the contract's
        assert count_macs(model, published.input) == pytest.approx(published.macs, rel=1e-6)


def test_counts_that_the_author_and_the_release_have_besides() -> None:
    with torch.device("meta"):
        assert count_parameters(create_model("yolov3", num_classes=20)) == 61_626_049
        assert count_parameters(create_model("yolov3_asff", fusion=False)) == 75_554_428


def test_an_image_by_hand(small: YOLOv3) -> None:
    """64x64 pixels, all numbers 0, one object of 32x32 at (24, 24).

    The anchor 33x23 fits best: 32 * 23 / (1024 + 759 - 736) = 0.703, on the map of stride 8, cell (3, 3), at whose
    upper left corner the centre is: sigmoid(t_xy) is 0.5 and shall be 0.
    """
    target = truth([[8, 8, 40, 40]], [1])
    outputs = make_outputs(1, 64, 21)
    losses = small.loss(outputs, [target])
    weight = 2 - 1024 / 4096
    sides = (math.log(32 / 33) ** 2 + math.log(32 / 23) ** 2) / 2
    assert losses["box"].item() == pytest.approx(weight * (2 * math.log(2) + sides), rel=1e-5)
    assert losses["class"].item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assigned = small.assign(outputs, [target])[0]
    place = 2 * 64 + 3 * 8 + 3
    assert assigned.matched[place] == 0
    assert (assigned.matched >= 0).sum() == 1
    assert assigned.boxes[place].tolist() == [28 - 16.5, 28 - 11.5, 28 + 16.5, 28 + 11.5]
    near = pairwise_iou(assigned.boxes, target.boxes)[:, 0] > 0.5
    assert torch.equal(assigned.matched == -2, near & (assigned.matched < 0))
    assert (assigned.matched == -2).any()
    seen = (assigned.matched != -2).sum().item()
    assert losses["objectness"].item() == pytest.approx(seen * math.log(2), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"ignore": 0.2}, {"threshold": 0.2, "smoothing": 0.1}])
def test_loss_equals_plain_loops(small: YOLOv3, options: dict[str, Any]) -> None:
    outputs = make_outputs(2, 64, 21, 0.7)
    targets = [
        truth([[8, 8, 40, 40], [30, 2, 44, 33], [8, 8, 41, 39], [1, 1, 63, 60]], [1, 0, 0, 1]),  # two in one place
        truth([[20, 30, 30, 44], [50, 50, 64, 64]], [0, 1]),
    ]
    settings = {"ignore_threshold": options.get("ignore", 0.5), "match_threshold": options.get("threshold"),
                "label_smoothing": options.get("smoothing", 0.0)}  # fmt: skip
    before = {name: getattr(small, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(small, name, value)
        losses = small.loss(outputs, targets)
    finally:
        for name, value in before.items():
            setattr(small, name, value)
    expected = plain.loss(outputs, targets, small.anchors, small.strides, small.scales, (64, 64), **options)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_predictions_equal_plain_loops(small: YOLOv3) -> None:
    outputs = make_outputs(2, 64, 21, 1.0)
    boxes, scores = small.predictions(outputs)
    for image in (0, 1):
        every = plain.places(outputs, image, small.anchors, small.strides, small.scales)
        assert torch.allclose(boxes[image], torch.tensor([p.box() for p in every]), atol=1e-3)
        expected = [[plain.sigmoid(p.raw[4]) * plain.sigmoid(k) for k in p.raw[5:]] for p in every]
        assert torch.allclose(scores[image], torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("selection", [Selection(), Selection(0.3), Selection(0.001, suppression="gaussian")])
def test_decode_that_looks_at_objectness_first_finds_the_same(small: YOLOv3, selection: Selection) -> None:
    outputs = make_outputs(2, 64, 21, 2.0)
    dense = Detector.decode(small, {**outputs, "size": torch.tensor([64, 64])}, selection)
    for found, expected in zip(small.decode(outputs, selection), dense, strict=True):
        assert torch.allclose(found.boxes, expected.boxes, atol=1e-4)
        assert torch.equal(found.labels, expected.labels)  # type: ignore[arg-type]
        assert torch.allclose(found.scores, expected.scores)  # type: ignore[arg-type]
        assert found.boxes.min() >= 0 and found.boxes.max() <= 64


def test_nothing_found(small: YOLOv3) -> None:
    outputs = {name: value - 20 for name, value in make_outputs(2, 64, 21).items()}
    assert [len(found) for found in small.decode(outputs)] == [0, 0]


@pytest.mark.parametrize("name", ["yolov3", "yolov4", "yolov3_asff", "yolov2"])
def test_odd_truths_stay_finite(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=1, **SMALL)
    generator = torch.Generator().manual_seed(0)
    corners = 64 * torch.rand(3000, 2, generator=generator)
    many = Instances(torch.cat([corners, corners + 9], dim=1), torch.zeros(3000, dtype=torch.int64))
    odd = truth(
        [[5, 5, 5, 20], [-50, -50, -10, -10], [60, 60, 200, 200], [0, 0, 64, 64], [3, 3, 3.0001, 3.0001]], [0] * 5
    )
    targets = [truth([], []), many, odd]
    losses = model.loss(model(torch.randn(3, 3, 64, 64)), targets)  # type: ignore[operator]
    torch.stack(list(losses.values())).sum().backward()
    for value in losses.values():
        assert value.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    alone = model.loss(model(torch.randn(2, 3, 64, 64)), targets[:1] * 2)  # type: ignore[operator]
    assert {name: v.item() for name, v in alone.items() if name != "objectness"} == pytest.approx(
        dict.fromkeys(set(alone) - {"objectness"}, 0)
    )


def test_no_prediction_in_a_region_to_ignore_is_wrong(small: YOLOv3) -> None:
    outputs = make_outputs(1, 64, 21)
    free = small.loss(outputs, [truth([], [])])["objectness"]
    everywhere = small.loss(outputs, [truth([[0, 0, 64, 64]], [-1])])["objectness"]
    assigned = small.assign(outputs, [truth([[0, 0, 64, 64]], [-1])])[0].matched
    assert (assigned == -2).sum() * math.log(2) == pytest.approx((free - everywhere).item(), rel=1e-4)
    assert (assigned[:64] == -2).all()  # of 10x13 pixels half is inside even in the corner


@pytest.mark.parametrize("neck", ["none", "fpn", "panet", "bifpn", "asff"])
def test_any_neck(neck: str) -> None:
    model = create_model("yolov3", num_classes=2, neck=neck, **SMALL).eval()
    shapes = {name: tuple(value.shape) for name, value in model(torch.randn(1, 3, 64, 96)).items()}
    assert shapes == {"stride8": (1, 21, 8, 12), "stride16": (1, 21, 4, 6), "stride32": (1, 21, 2, 3)}


def test_anchors_of_ones_own_on_two_levels() -> None:
    anchors = [[10, 10], [20, 20], [40, 40], [60, 60]]
    model = create_model("yolov3", num_classes=1, strides=[16, 32], anchors=anchors, **SMALL).eval()
    assert model.anchors == (((10, 10), (20, 20)), ((40, 40), (60, 60)))
    outputs = model(torch.randn(1, 3, 64, 64))
    assigned = model.assign(outputs, [truth([[2, 2, 43, 43]], [0])])[0]  # type: ignore[operator]
    assert (assigned.matched == 0).nonzero().tolist() == [[2 * 16]]  # of 40x40, the first cell of stride 32


def test_tiny_gives_a_shape_of_both_levels_to_both() -> None:
    with torch.device("meta"):
        model = create_model("yolov3_tiny", num_classes=1)
    outputs = make_outputs(1, 128, 18, strides=(16, 32))
    matched = model.assign(outputs, [truth([[10, 10, 91, 92]], [0])])[0].matched  # type: ignore[operator]
    assert (matched == 0).sum() == 2
    assert (matched[: 3 * 64] == 0).sum() == 1


def test_tiny_runs() -> None:
    model = create_model("yolov3_tiny", num_classes=1).eval()
    assert [tuple(v.shape) for v in model(torch.randn(1, 3, 64, 32)).values()] == [(1, 18, 4, 2), (1, 18, 2, 1)]


@pytest.mark.parametrize("name", ["yolov3", "yolov3_asff", "yolov4", "yolov2"])
def test_export_with_any_batch(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, **SMALL).eval()
    images = torch.randn(3, 3, 64, 64)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        for name, value in program.module()(images).items():
            assert torch.allclose(value, model(images)[name], atol=1e-5)


def test_an_untrained_network_states_its_prior() -> None:
    model = create_model("yolov3", num_classes=2, prior=0.1, **SMALL).eval()
    with torch.no_grad():
        raw = model(torch.zeros(1, 3, 64, 64))["stride8"].unflatten(1, (3, 7))[:, :, 4]
    assert raw.sigmoid().mean().item() == pytest.approx(0.1, abs=0.02)


def test_guesses_take_a_truth_over_where_they_fit_better() -> None:
    model = create_model("yolov3_asff", num_classes=1, **SMALL).eval()
    outputs = make_outputs(1, 64, 24) | {f"guide{s}": torch.zeros(1, 8, 64 // s, 64 // s) for s in (8, 16, 32)}
    target = truth([[8, 8, 40, 40]], [0])  # 32x32 is exactly the free anchor of stride 8, 33x23 the best of the fixed
    matched = model.assign(outputs, [target])[0].matched  # type: ignore[operator]
    assert (matched == 0).nonzero().tolist() == [[3 * 64 + 3 * 8 + 3]]
    outputs["guide8"][:, 6:] = 2.0
    matched = model.assign(outputs, [target])[0].matched  # type: ignore[operator]
    assert (matched == 0).nonzero().tolist() == [[2 * 64 + 3 * 8 + 3]]


def test_a_guess_is_part_of_the_box() -> None:
    model = create_model("yolov3_asff", num_classes=1, **SMALL).eval()
    outputs = make_outputs(1, 64, 24) | {f"guide{s}": torch.full((1, 8, 64 // s, 64 // s), 0.5) for s in (8, 16, 32)}
    boxes, _ = model.predictions(outputs)  # type: ignore[operator]
    assert (boxes[0, 0, 2] - boxes[0, 0, 0]).item() == pytest.approx(10 * math.exp(0.5), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchors": [[10, 13]] * 8}, "8 anchors cannot be dealt out to 3 levels"),
        ({"anchors": [[10, -13]] * 9}, "pairs of width and height"),
        ({"anchors": []}, "pairs of width and height"),
        ({"neck": "fpm"}, "did you mean 'fpn'|fpn"),
        ({"neck": "fpn", "spp": True}, "spp belongs to neck='yolo'"),
        ({"neck_options": {"norm": None}}, "belong to another neck"),
        ({"neck": "fpn", "neck_options": {"extra_levels": 1}}, "leave extra_levels out"),
        ({"width": 0}, "width is the share"),
        ({"box_loss": "l1"}, "box_loss"),
        ({"ignore_threshold": 2}, "from 0 to 1"),
        ({"prior": 0}, "between 0 and 1"),
        ({"grid_scales": [1.0]}, "one for each level"),
        ({"strides": [3, 8, 16]}, "no stage of stride 3"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        create_model("yolov3", **{**SMALL, **options})


def test_errors_of_inputs_and_labels(small: YOLOv3) -> None:
    with pytest.raises(InputError, match="multiples of 32, got 64x65; pad or resize them to 64x96"):
        small(torch.zeros(1, 3, 64, 65))
    with pytest.raises(InputError, match="label 7, the model was built for 2 classes"):
        small.loss(make_outputs(1, 64, 21), [truth([[1, 1, 9, 9]], [7])])


def test_backbone_weights_start_the_backbone(small: YOLOv3) -> None:
    backbone = create_model("mobilenet_v3_small")
    left = create_model("yolov3", num_classes=2, **SMALL).initialize_from(backbone.state_dict())  # type: ignore[operator]
    assert left and not any(name.startswith("backbone") for name in left)
    assert yolov3.ANCHORS[0] == (10, 13)
