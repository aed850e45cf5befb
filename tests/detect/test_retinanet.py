"""RetinaNet: counts, anchors, torchvision's outputs and losses, and an image worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision.models.detection as reference
from torch import Tensor, nn
from torch.export import Dim

from opsin import registry
from opsin.backbones import copy_in_order
from opsin.detect.detector import Outputs
from opsin.detect.retinanet import RetinaNet
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances

from .conftest import randomize

NAMES = ["retinanet", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"]
SMALL: dict[str, Any] = {
    "backbone": "mobilenet_v3_small",
    "backbone_options": {"width": 0.35},
    "channels": 16,
    "head_repeats": 1,
    "num_classes": 3,
}


def small(**options: Any) -> RetinaNet:
    torch.manual_seed(0)
    return RetinaNet(**{**SMALL, **options})


def make_images(height: int, width: int | None = None, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(1))


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_published_ones(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == published.params
    assert count_macs(model, published.input) == published.macs


def test_counts_are_torchvisions() -> None:
    with torch.device("meta"):
        first = reference.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
        second = reference.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
        thawed = registry.create_model("retinanet_resnet50_fpn", frozen_norm=False)
    assert count_parameters(thawed) == count_parameters(first) == 34_014_999 + 53_120
    assert count_parameters(second) == registry.find_model("retinanet_resnet50_fpn_v2").published.params

    def run(images: Tensor) -> Any:
        return second.head(list(second.backbone(images).values()))

    second.forward = run  # type: ignore[method-assign]
    published = registry.find_model("retinanet_resnet50_fpn_v2").published
    assert count_macs(second, published.input) == published.macs


# Anchors


def test_anchors_of_the_paper() -> None:
    model = small(strides=(8, 16), extra_levels=0, ratios=(1.0, 4.0), octaves=2)
    with torch.device("meta"):
        anchors = model.grid.lay_out([(2, 1), (1, 1)], (16, 8), torch.device("cpu"))
    assert [len(level) for level in anchors] == [8, 4]
    assert anchors[0][0].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]  # a side of 32 around the middle of a cell
    assert anchors[0][1].tolist() == [4 - 8, 4 - 32, 4 + 8, 4 + 32]
    assert torch.allclose(anchors[0][2], torch.tensor([-1.0, -1, 1, 1]) * 16 * math.sqrt(2) + 4)
    assert anchors[0][4].tolist() == [4 - 16, 12 - 16, 4 + 16, 12 + 16]
    assert anchors[1][0].tolist() == [8 - 32, 8 - 32, 8 + 32, 8 + 32]


def test_anchors_of_torchvision() -> None:
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.retinanet import _default_anchorgen

    with torch.device("meta"):
        model: Any = registry.find_model("retinanet_resnet50_fpn").builder()
    model.grid = small(anchors="torchvision").grid
    size, maps = (200, 328), [(25, 41), (13, 21), (7, 11), (4, 6), (2, 3)]
    images = ImageList(torch.zeros(1, 3, *size), [size])
    expected = _default_anchorgen()(images, [torch.zeros(1, 1, *cells) for cells in maps])[0]
    assert torch.equal(torch.cat(model.grid.lay_out(maps, size, torch.device("cpu"))), expected)


# torchvision


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"])
def test_it_finds_what_torchvisions_finds(name: str) -> None:
    height, width = 96, 136  # 136 is no multiple of the strides
    sizes: dict[str, Any] = {"num_classes": 5, "min_size": height, "max_size": width, "size_divisible": 1}
    theirs: Any = getattr(reference, name)(weights=None, weights_backbone=None, **sizes).eval()
    randomize(theirs)
    ours: Any = registry.find_model(name).builder(num_classes=5).eval()
    copy_in_order(ours, theirs.state_dict())
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((image - mean[:, None, None]) / std[:, None, None])[None]
    with torch.no_grad():
        outputs = ours(images)
        theirs.head.classification_head.cls_logits.weight.div_(outputs["logits"].std())  # scores of many values
        theirs.head.regression_head.bbox_reg.weight.div_(4 * outputs["offsets"].std())
        copy_in_order(ours, theirs.state_dict())
        expected = theirs([image])[0]
        found = ours.decode(ours(images))[0]
    assert len(found) == len(expected["boxes"]) > 100
    assert torch.allclose(found.scores, expected["scores"], atol=1e-4)
    rows = [
        sorted(torch.column_stack([boxes, labels]).tolist())  # equal scores may come in any order
        for boxes, labels in ((found.boxes, found.labels), (expected["boxes"], expected["labels"]))
    ]
    assert torch.allclose(torch.tensor(rows[0]), torch.tensor(rows[1]), atol=1e-2)
    assert float(expected["scores"].std()) > 1e-3


def test_published_statistics_are_shifted_by_what_ours_add() -> None:
    arrange = registry.find_model("retinanet_resnet50_fpn").weights["coco"].arrange
    assert arrange is not None
    state = {"a.running_var": torch.tensor([1.0, 1e-6]), "a.weight": torch.tensor([1.0])}
    arranged = arrange(state)
    assert torch.allclose(arranged["a.running_var"] + 1e-5, state["a.running_var"], rtol=1e-3)
    assert arranged["a.weight"] is state["a.weight"]


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_losses_are_torchvisions(box_loss: Any) -> None:
    head = reference.retinanet.RetinaNetHead(8, 9, 3)
    head.regression_head._loss_type = box_loss
    model = small(box_loss=box_loss, beta=1.0, prior=0.1)
    outputs = model(make_images(64, 96))
    generator = torch.Generator().manual_seed(0)
    outputs["logits"] = torch.randn(outputs["logits"].shape, generator=generator)
    outputs["offsets"] = torch.randn(outputs["offsets"].shape, generator=generator) * 0.3
    targets = [truth([[10, 10, 50, 50], [40, 8, 90, 60], [3, 3, 20, 12]], [0, 2, 1]), truth([], [])]
    matched = [one.matched for one in model.assign(outputs, targets)]
    assert {-2, -1, 0, 1, 2} <= set(matched[0].tolist())
    expected = head.compute_loss(
        [{"boxes": t.boxes, "labels": t.labels} for t in targets],  # type: ignore[dict-item, arg-type]
        {"cls_logits": outputs["logits"], "bbox_regression": outputs["offsets"]},
        [outputs["anchors"]] * 2,
        matched,
    )
    found = model.loss(outputs, targets)
    assert torch.allclose(found["class"], expected["classification"], rtol=1e-4)
    assert torch.allclose(found["box"], expected["bbox_regression"], rtol=1e-4)


# By hand


def by_hand() -> Outputs:
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8], [24, 0, 32, 8]])
    return {
        "logits": torch.zeros(1, 4, 3).requires_grad_(),
        "offsets": torch.zeros(1, 4, 4).requires_grad_(),
        "anchors": anchors,
        "levels": torch.tensor([0, 0, 1, 1]),
        "size": torch.tensor([8, 32]),
    }


def test_loss_by_hand() -> None:
    # 3/4 of the first anchor; 0.45 of the second, for which only the second rule is good; 0.44 of the third by nobody.
    one = truth([[0, 0, 8, 6], [8, 0, 16, 3.6], [17, 0, 22, 8]], [1, 2, -1])
    outputs, model = by_hand(), small()
    assert model.assign(outputs, [one])[0].matched.tolist() == [0, 1, -2, -1]
    assert small(low_quality=False).assign(outputs, [one])[0].matched.tolist() == [0, -2, -2, -1]
    losses = model.loss(outputs, [one])
    # Every logit is 0: a positive has 0.25 * 1/4 * ln 2, a negative 0.75 * 1/4 * ln 2; 2 and 7 of them count.
    expected = (2 * 0.25 + 7 * 0.75) / 4 * math.log(2) / 2
    assert float(losses["class"].detach()) == pytest.approx(expected)
    heights = (6 / 8, 3.6 / 8)
    errors = [e for h in heights for e in ((1 - h) / 2, -math.log(h))]  # of the centre, and of the side
    terms = [e * e / 0.22 if e < 0.11 else e - 0.055 for e in errors]
    assert float(losses["box"].detach()) == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_an_untrained_network_states_the_prior() -> None:
    model = small(prior=0.02)
    nn.init.zeros_(model.class_head.predict.weight)
    _, scores = model.predictions(model.eval()(make_images(64)))
    assert torch.allclose(scores, torch.tensor(0.02))


@pytest.mark.parametrize(
    "one",
    [truth([], []), Instances(torch.zeros(0, 4)), truth([[3, 3, 3, 8]], [1]), truth([[90, 90, 99, 99]], [1])],
    ids=["empty", "without labels", "flat", "outside"],
)
def test_images_without_truth_are_all_background(one: Instances) -> None:
    outputs = by_hand()
    losses = small().loss(outputs, [one])
    assert float(losses["class"].detach()) == pytest.approx(12 * 0.75 / 4 * math.log(2))
    assert float(losses["box"].detach()) == 0
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert outputs["offsets"].grad is not None and not outputs["offsets"].grad.any()


def test_decoding_by_hand() -> None:
    outputs = by_hand()
    with torch.no_grad():
        outputs["logits"].fill_(-9.0)
        outputs["logits"][0, 0, 1], outputs["logits"][0, 0, 2], outputs["logits"][0, 3, 1] = 2.0, 1.0, 0.0
        outputs["offsets"][0, 3] = torch.tensor([0.5, 0.0, math.log(2), math.log(0.5)])
    found = small().decode(outputs)[0]
    sigmoid = [1 / (1 + math.exp(-x)) for x in (2, 1, 0)]
    assert found.scores.tolist() == pytest.approx(sigmoid)  # type: ignore[union-attr]
    assert found.labels.tolist() == [1, 2, 1]  # type: ignore[union-attr]
    assert found.boxes.tolist() == [[0, 0, 8, 8], [0, 0, 8, 8], [24, 2, 32, 6]]  # cut at the border
    assert len(small().decode(outputs, candidates=1)[0]) == 2  # one of each level


# Any backbone and neck


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neck": "panet"},
        {"neck": "none", "extra_levels": 0},
        {"neck_options": {"extra_from": "p5"}, "head_norm": "group", "channels": 32},
        {"backbone": "resnet18", "backbone_options": {}, "frozen_norm": True, "strides": (16, 32)},
    ],
    ids=["small", "panet", "laterals", "group norm", "resnet18"],
)
def test_trunks_and_shapes(options: dict[str, Any]) -> None:
    model = small(**options).eval()
    outputs = model(make_images(70, 100))
    count = len(outputs["anchors"])
    assert outputs["logits"].shape == (2, count, 3) and outputs["offsets"].shape == (2, count, 4)
    assert torch.bincount(outputs["levels"]).tolist() == [
        9 * -(-70 // stride) * -(-100 // stride) for stride in model.strides
    ]
    boxes, scores = model.predictions(outputs)
    assert boxes.shape == (2, count, 4) and scores.shape == (2, count, 3)
    assert len(model.decode(outputs)) == 2


def test_frozen_norms_do_not_learn() -> None:
    model = small(frozen_norm=True)
    assert not [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]


def test_every_parameter_learns_in_a_batch_of_one() -> None:
    model = small(frozen_norm=True).train()
    outputs = model(make_images(64, batch=1))
    sum(model.loss(outputs, [truth([[8, 8, 40, 40], [1, 1, 20, 20]], [0, 1])]).values()).backward()  # type: ignore[union-attr]
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_it_overfits_an_image() -> None:
    model = small().train()
    images, target = make_images(64, batch=2), [truth([[8, 8, 40, 40]], [2]), truth([[20, 10, 60, 50]], [0])]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = torch.stack(list(model.loss(model(images), target).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, found in zip(target, model.decode(model(images)), strict=True):
        assert found.labels[0] == one.labels[0]  # type: ignore[index]
        assert (found.boxes[0] - one.boxes[0]).abs().max() < 5


def test_export_with_any_batch() -> None:
    model = small().eval()
    program = torch.export.export(model, (make_images(64),), dynamic_shapes={"images": {0: Dim("batch", min=2, max=8)}})
    with torch.no_grad():
        exported, expected = program.module()(make_images(64, batch=3)), model(make_images(64, batch=3))
    for name in expected:
        assert torch.allclose(exported[name], expected[name], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background_threshold": 0.6}, "must rise"),
        ({"box_loss": "l3"}, "box_loss"),
        ({"anchors": "coco"}, "anchors"),
        ({"prior": 0.0}, "prior"),
        ({"anchor_scale": 0.0}, "anchor_scale"),
        ({"ratios": ()}, "ratios"),
        ({"neck_options": {"out_channels": 8}}, "leave out_channels"),
        ({"head_norm": "grup"}, "group"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)


def test_a_label_without_a_class_is_named() -> None:
    with pytest.raises(InputError, match="label 3"):
        small().loss(by_hand(), [truth([[0, 0, 8, 8]], [3])])
