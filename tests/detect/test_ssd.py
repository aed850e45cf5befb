"""SSD: counts, default boxes, torchvision's outputs and losses, an image worked by hand, and what any trunk can do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision.models.detection as reference
from torch import Tensor, nn
from torch.export import Dim
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from opsin import registry
from opsin.backbones import copy_in_order
from opsin.backbones.extraction import find_backbone
from opsin.detect.default_boxes import DefaultBoxes, evenly_spaced
from opsin.detect.detector import Outputs
from opsin.detect.ssd import COCO_300, COCO_512, RATIOS_300, RATIOS_512, SSD, VOC_300, VOC_512, thin_out
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances

from .conftest import randomize

NAMES = ["ssd", "ssd300_vgg16", "ssd300_vgg16_torchvision", "ssd512_vgg16", "ssdlite320_mobilenet_v3_large"]
SMALL: dict[str, Any] = {
    "backbone": "mobilenet_v3_small",
    "backbone_options": {"width": 0.35},
    "extra_channels": (16,),
    "num_classes": 3,
}


def small(**options: Any) -> SSD:
    torch.manual_seed(0)
    return registry.find_model("ssd").builder(**{**SMALL, **options})  # type: ignore[return-value]


def make_images(height: int, width: int | None = None, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(1))


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


# Counts


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_published_ones(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == published.params
    assert count_macs(model, published.input) == published.macs


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("ssd300_vgg16", 34_305_206, 34_360_351_232), ("ssd512_vgg16", 36_038_196, 98_628_936_704)],
)
def test_counts_for_coco(name: str, params: int, macs: int) -> None:
    with torch.device("meta"):
        model = registry.create_model(name, num_classes=80)
    assert count_parameters(model) == params
    assert count_macs(model, registry.find_model(name).published.input) == macs


# Default boxes


@pytest.mark.parametrize(
    ("scales", "ratios", "cells", "steps", "size", "count"),
    [
        (COCO_300, RATIOS_300, (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300), 300, 8732),
        (VOC_512, RATIOS_512, (64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512), 512, 24564),
        (COCO_512, RATIOS_512, (64, 32, 16, 8, 4, 2, 1), None, 512, 24564),
    ],
)
def test_default_boxes_are_torchvisions(
    scales: Any, ratios: Any, cells: Any, steps: Any, size: int, count: int
) -> None:
    theirs = DefaultBoxGenerator([list(r) for r in ratios], scales=list(scales), steps=steps)
    maps = [torch.zeros(1, 1, n, n) for n in cells]
    expected = theirs(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)[0]
    found = DefaultBoxes(scales, ratios, steps, clip=True).lay_out(
        [(n, n) for n in cells], (size, size), torch.device("cpu")
    )
    assert found.shape == (count, 4)
    assert torch.allclose(found, expected, atol=1e-3)


def test_short_names() -> None:
    found = [registry.find_model(name).name for name in ("ssd300", "ssd512", "ssdlite")]
    assert found == ["ssd300_vgg16", "ssd512_vgg16", "ssdlite320_mobilenet_v3_large"]


def test_default_boxes_by_hand() -> None:
    found = DefaultBoxes((0.25, 1.0), [(4,)]).lay_out([(1, 2)], (40, 80), torch.device("cpu"))
    cell = [[10, 15, 30, 25], [0, 10, 40, 30], [0, 17.5, 40, 22.5], [15, 10, 25, 30]]
    assert found[:4].tolist() == cell  # squares stretch with the image
    assert found[4:].tolist() == [[x1 + 40, y1, x2 + 40, y2] for x1, y1, x2, y2 in cell]
    assert DefaultBoxes(VOC_300, RATIOS_300).per_cell == (4, 6, 6, 6, 4, 4)
    assert max(max(pair) for sides in DefaultBoxes((0.9, 1.3), [(4,)], clip=True).sides for pair in sides) == 1
    assert evenly_spaced(0.2, 0.9, 6) == pytest.approx((0.2, 0.34, 0.48, 0.62, 0.76, 0.9))


def test_errors_of_default_boxes() -> None:
    for scales, ratios, message in (
        ((0.2,), [], "grow from above 0"),
        ((0.4, 0.2), [(2,)], "grow from above 0"),
        ((0.2, 0.4), [(2,), (2,)], "2 scales are for 1 maps"),
        ((0.2, 0.4), [(0.5,)], "ratios are above 1"),
    ):
        with pytest.raises(InputError, match=message):
            DefaultBoxes(scales, ratios)


# torchvision


def assert_same_instances(theirs: nn.Module, ours: SSD, image: Tensor, mean: Tensor, std: Tensor) -> None:
    with torch.no_grad():
        expected = theirs([image])[0]
        outputs = ours(((image - mean) / std)[None])
        found = ours.decode(outputs)[0]
    assert len(found) == len(expected["boxes"]) == ours.selection.limit
    assert torch.allclose(found.scores, expected["scores"], atol=1e-5)  # type: ignore[arg-type]
    assert torch.equal(found.labels + 1, expected["labels"])  # type: ignore[operator]
    assert torch.allclose(found.boxes, expected["boxes"], atol=1e-2)
    assert float(expected["scores"].std()) > 1e-3  # else any order would do


@pytest.fixture(scope="module")
def torchvision_ssd() -> tuple[Any, SSD]:
    theirs = reference.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=7).eval()
    randomize(theirs)
    with torch.no_grad():
        for head, factor in ((theirs.head.classification_head, 0.02), (theirs.head.regression_head, 0.005)):
            for conv in head.module_list:  # type: ignore[union-attr]
                conv.weight.mul_(factor)
    entry = registry.find_model("ssd300_vgg16_torchvision")
    ours: Any = entry.builder(num_classes=6).eval()
    arrange = entry.weights["coco"].arrange
    assert arrange is not None
    copy_in_order(ours, arrange(theirs.state_dict()))
    return theirs, ours


def test_ssd300_finds_what_torchvisions_finds(torchvision_ssd: tuple[Any, SSD]) -> None:
    image = torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.48235, 0.45882, 0.40784])[:, None, None]
    assert_same_instances(*torchvision_ssd, image, mean, torch.tensor(1 / 255))


def test_ssdlite320_finds_what_torchvisions_finds() -> None:
    theirs = reference.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=7).eval()
    randomize(theirs)
    ours: Any = registry.find_model("ssdlite320_mobilenet_v3_large").builder(num_classes=6).eval()
    copy_in_order(ours, theirs.state_dict())
    image = torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(0))
    assert_same_instances(theirs, ours, image, torch.tensor(0.5), torch.tensor(0.5))


def test_losses_are_torchvisions(torchvision_ssd: tuple[Any, SSD]) -> None:
    theirs, ours = torchvision_ssd
    generator = torch.Generator().manual_seed(0)
    cells = [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    anchors = ours.default_boxes.lay_out(cells, (300, 300), torch.device("cpu"))
    logits = torch.randn(2, len(anchors), 7, generator=generator)
    offsets = torch.randn(2, len(anchors), 4, generator=generator)
    targets = [truth([[20, 30, 120, 160], [200, 10, 260, 100], [5, 200, 40, 230]], [0, 3, 5]), truth([], [])]
    outputs = {"logits": logits, "offsets": offsets, "anchors": anchors, "size": torch.tensor([300, 300])}
    matched = [one.matched for one in ours.assign(outputs, targets)]
    labelled = [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets]  # type: ignore[operator]
    given = {"bbox_regression": offsets, "cls_logits": logits}
    expected = theirs.compute_loss(labelled, given, [anchors] * 2, matched)
    found = ours.loss(outputs, targets)
    assert torch.allclose(found["class"], expected["classification"])
    assert torch.allclose(found["box"], expected["bbox_regression"])


# By hand: four anchors, a truth on the first, another one that only the second overlaps at all.


def by_hand() -> Outputs:
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8], [24, 0, 32, 8]])
    logits = torch.zeros(1, 4, 4)
    logits[0, 3, 0] = 5.0  # sure of the background
    return {
        "logits": logits.requires_grad_(),
        "offsets": torch.zeros(1, 4, 4, requires_grad=True),
        "anchors": anchors,
        "size": torch.tensor([8, 32]),
    }


TRUTH = truth([[0, 0, 8, 8], [10, 0, 14, 4]], [1, 0])


def test_loss_by_hand() -> None:
    model, outputs = small(negatives=1.0, box_weight=2.0), by_hand()
    assert model.assign(outputs, [TRUTH])[0].matched.tolist() == [0, 1, -1, -1]
    losses = model.loss(outputs, [TRUTH])
    sure = math.log(math.exp(5) + 3) - 5
    # Two answer, each with the cross-entropy of four equal classes; as many negatives, one of them sure.
    assert float(losses["class"].detach()) == pytest.approx((3 * math.log(4) + sure) / 2)
    # Of the second: the centre is 2 of 8 too high, over 0.1; both sides are half as long, over 0.2.
    terms = (2 / 8 / 0.1 - 0.5) + 2 * (math.log(2) / 0.2 - 0.5)
    assert float(losses["box"].detach()) == pytest.approx(2 * terms / 2, rel=1e-5)


def test_hard_negatives_are_those_of_the_highest_loss() -> None:
    model, outputs = small(negatives=0.5), by_hand()
    expected = 3 * math.log(4) / 2
    assert float(model.loss(outputs, [TRUTH])["class"].detach()) == pytest.approx(expected)


def test_regions_to_ignore_are_no_negatives() -> None:
    model, outputs = small(), by_hand()
    ignoring = truth([*TRUTH.boxes.tolist(), [15, 0, 25, 8]], [1, 0, -1])
    assert model.assign(outputs, [ignoring])[0].matched.tolist() == [0, 1, -2, -1]
    sure = math.log(math.exp(5) + 3) - 5
    assert float(model.loss(outputs, [ignoring])["class"].detach()) == pytest.approx((2 * math.log(4) + sure) / 2)


@pytest.mark.parametrize(
    "one",
    [
        truth([], []),
        Instances(torch.zeros(0, 4)),
        truth([[3, 3, 3, 8]], [1]),
        truth([[90, 90, 99, 99]], [1]),
        truth([[0, 0, 32, 8]], [-1]),
    ],
    ids=["empty", "without labels", "flat", "outside", "ignored"],
)
def test_images_without_a_truth_to_learn_have_no_loss(one: Instances) -> None:
    outputs = by_hand()
    losses = small().loss(outputs, [one])
    assert {name: float(term.detach()) for name, term in losses.items()} == {"class": 0.0, "box": 0.0}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert outputs["logits"].grad is not None and not outputs["logits"].grad.any()


def test_decoding_by_hand() -> None:
    outputs = by_hand()
    with torch.no_grad():
        outputs["logits"][0, 0, 2] = 3.0
        outputs["logits"][0, 1, 2] = 2.0
        outputs["offsets"][0, 0] = torch.tensor([1.0, 0.0, math.log(2) / 0.2, 0.0])  # 0.8 to the right, twice as wide
        outputs["offsets"][0, 1, 0] = -6.0  # 4.8 to the left: within the first
    found = small().decode(outputs, score_threshold=0.5, iou_threshold=0.63)[0]  # the IoU is 0.625
    first, second = math.exp(3) / (math.exp(3) + 3), math.exp(2) / (math.exp(2) + 3)
    assert found.labels.tolist() == [1, 1]  # type: ignore[union-attr]
    assert found.scores.tolist() == pytest.approx([first, second])  # type: ignore[union-attr]
    assert found.boxes.flatten().tolist() == pytest.approx([0, 0, 12.8, 8, 3.2, 0, 11.2, 8], abs=1e-5)
    assert len(small().decode(outputs, score_threshold=0.5, iou_threshold=0.62)[0]) == 1


# Any trunk


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lite": False},
        {"neck": "fpn", "neck_options": {"out_channels": 16}},
        {"neck": "none", "neck_options": {"out_channels": 8}, "strides": (16, 32)},
        {"backbone": "resnet18", "backbone_options": {}, "extra_channels": ()},
    ],
    ids=["small", "not lite", "fpn", "laterals", "resnet18"],
)
def test_trunks_and_shapes(options: dict[str, Any]) -> None:
    model = small(**options).eval()
    outputs = model(make_images(70, 96))
    count = len(outputs["anchors"])
    assert outputs["logits"].shape == (2, count, 4)
    assert outputs["offsets"].shape == (2, count, 4)
    boxes, scores = model.predictions(outputs)
    assert boxes.shape == (2, count, 4) and scores.shape == (2, count, 3)
    assert all(len(one) <= 200 for one in model.decode(outputs))


def test_every_parameter_learns_in_a_batch_of_one() -> None:
    model = small().train()
    outputs = model(make_images(64, batch=1))
    sum(model.loss(outputs, [truth([[8, 8, 40, 40], [1, 1, 9, 9], [0, 0, 64, 64]], [0, 1, 2])]).values()).backward()  # type: ignore[union-attr]
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


def test_it_overfits_an_image() -> None:
    model = small(scales=(0.3, 0.5, 0.7, 0.9, 1.0)).train()
    images, target = make_images(64, batch=2), [truth([[8, 8, 40, 40]], [2]), truth([[20, 10, 60, 50]], [0])]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = torch.stack(list(model.loss(model(images), target).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, found in zip(target, model.decode(model(images)), strict=True):
        assert found.labels[0] == one.labels[0]  # type: ignore[index]
        assert (found.boxes[0] - one.boxes[0]).abs().max() < 4


def test_a_batch_of_two_is_two_of_one() -> None:
    model, images = small().eval(), make_images(64)
    with torch.no_grad():
        both, one = model(images), model(images[1:])
    assert torch.allclose(both["logits"][1], one["logits"][0], atol=1e-5)


def test_export_with_any_batch() -> None:
    model, images = small().eval(), make_images(64)
    program = torch.export.export(model, (images,), dynamic_shapes={"images": {0: Dim("batch", min=2, max=8)}})
    with torch.no_grad():
        exported, expected = program.module()(make_images(64, batch=3)), model(make_images(64, batch=3))
    for name in expected:
        assert torch.allclose(exported[name], expected[name], atol=1e-5)


# VGG


def test_fc6_and_fc7_are_thinned_out() -> None:
    state = {
        "head.3.weight": torch.arange(4096.0)[:, None].expand(4096, 25088) + torch.arange(25088) / 25088,
        "head.3.bias": torch.arange(4096.0),
        "head.6.weight": torch.arange(4096.0)[:, None] * 10_000 + torch.arange(4096.0),
        "head.6.bias": torch.arange(4096.0),
    }
    thin = thin_out(state)
    assert thin["1.weight"].shape == (1024, 512, 3, 3) and thin["3.weight"].shape == (1024, 1024, 1, 1)
    assert thin["1.bias"].tolist() == list(range(0, 4096, 4)) == thin["3.bias"].tolist()
    places = (thin["1.weight"][0, 2] * 25088).round().int()
    assert places.tolist() == [[98 + 7 * y + x for x in (0, 3, 6)] for y in (0, 3, 6)]
    assert float(thin["3.weight"][2, 3]) == 8 * 10_000 + 12


def test_a_vgg_gives_its_layers_to_the_trunk() -> None:
    with torch.device("meta"):
        model = registry.find_model("ssd300_vgg16").builder()
        vgg = registry.create_model("vgg16")
        fresh = model.initialize_from(vgg.state_dict())  # type: ignore[operator]
    assert find_backbone(model) == "vgg16"
    assert {name.partition(".")[0] for name in fresh} == {"neck", "extra", "class_heads", "box_heads"}
    assert [name for name in fresh if name.startswith("neck")] == ["neck.shallow.weight"]


@pytest.mark.parametrize(
    ("name", "deep"), [("rfbnet300_vgg16", "neck.deep"), ("rfbnet512_e_vgg16", "neck.deep"), ("m2det320_vgg16", "deep")]
)
def test_a_vgg_gives_its_layers_to_others_that_stand_on_it(name: str, deep: str) -> None:
    with torch.device("meta"):
        model: Any = registry.find_model(name).builder()
        assert find_backbone(model) == "vgg16"
        fresh = model.initialize_from(registry.create_model("vgg16").state_dict())
    assert not [key for key in fresh if key.startswith((f"{deep}.", "backbone."))]
    assert len(fresh) == len(model.state_dict()) - 2 * (13 + 2)


# A reduced tail differs in the last 1x1 of its first block, 5 tensors with its norm, in the other two blocks, three
# convolutions and 4 tensors of the squeeze each, and in the 1x1 behind them.
@pytest.mark.parametrize(("reduced", "left"), [(False, 0), (True, 5 + 2 * (3 * 5 + 4) + 5)])
def test_a_mobilenet_gives_its_layers_to_ssdlite(reduced: bool, left: int) -> None:
    with torch.device("meta"):
        model: Any = registry.find_model("ssdlite320_mobilenet_v3_large").builder(reduced_tail=reduced)
        assert find_backbone(model) == "mobilenet_v3_large"
        fresh = model.initialize_from(registry.create_model("mobilenet_v3_large").state_dict())
    kept = [key for key in fresh if key.startswith("backbone") and not key.endswith("num_batches_tracked")]
    assert len(kept) == left
    assert all(key.startswith(("backbone.backbone.stages.4", "backbone.backbone.head")) for key in kept)


def test_published_inputs_are_fixed_and_pooling_rounds_up() -> None:
    with torch.device("meta"):
        model: Any = registry.find_model("ssd300_vgg16").builder()
        outputs = model(torch.zeros(1, 3, 300, 300))
        with pytest.raises(InputError, match=r"300x300 only, got 320x320.*ssd512_vgg16"):
            model(torch.zeros(1, 3, 320, 320))
    assert outputs["logits"].shape == (1, 8732, 21)


def test_conv4_3_starts_at_a_length_of_20_or_as_it_is() -> None:
    for norm_scale, expected in ((20.0, 20.0), (None, None)):
        with torch.device("meta"):
            model: Any = registry.find_model("ssd300_vgg16").builder(norm_scale=norm_scale)
        assert (expected is None) == isinstance(model.neck.shallow, nn.Identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match_threshold": 0.0}, "match_threshold"),
        ({"negatives": -1.0}, "negatives"),
        ({"scales": (0.1, 0.5, 1.0)}, "3 scales are for 2 maps"),
        ({"scales": (0.1, 0.5, 1.0), "ratios": ((2,), (2,))}, "the trunk has 4 maps"),
        ({"strides": (8, 12)}, "no stage of stride 12"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)


def test_a_reduced_tail_takes_no_published_weights() -> None:
    with pytest.raises(InputError, match="reduced_tail"):
        registry.find_model("ssdlite320_mobilenet_v3_large").builder(reduced_tail=True, backbone_weights="imagenet1k")
    with torch.device("meta"):
        model: Any = registry.find_model("ssdlite320_mobilenet_v3_large").builder(reduced_tail=False)
    assert model.backbone.channels == (672, 960)
