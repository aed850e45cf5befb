"""Faster R-CNN: counts, torchvision's proposals, boxes, masks and losses, steps of a training, and bad cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.models.detection as reference
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

import opsin.detect.faster_rcnn  # noqa: F401  # registers it
from opsin import registry
from opsin.backbones import copy_in_order
from opsin.detect.alternating_training import ALTERNATING, take_step
from opsin.detect.faster_rcnn import FasterRCNN
from opsin.detect.mask_head import paste_masks
from opsin.detect.regions import Regions
from opsin.detect.rpn import take_proposals
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters, layer_table
from opsin.structures import Instances

from .conftest import randomize

# Ours and torchvision's.
PORTS = {
    "faster_rcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn",
    "faster_rcnn_resnet50_fpn_v2": "fasterrcnn_resnet50_fpn_v2",
    "mask_rcnn_resnet50_fpn": "maskrcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2": "maskrcnn_resnet50_fpn_v2",
}
NAMES = ["faster_rcnn_vgg16", "faster_rcnn_zf", "faster_rcnn", *PORTS]
SIZE = (96, 136)  # 136 is no multiple of the strides


def small(**options: Any) -> FasterRCNN:
    torch.manual_seed(0)
    form: dict[str, Any] = {
        "backbone": "mobilenet_v3_small",
        "backbone_options": {"width": 0.35},
        "strides": (8, 16, 32),
        "channels": 16,
        "hidden": 32,
        "num_classes": 3,
        "proposals": 100,
        "test_proposals": 50,
        "sampled": 64,
    }
    return FasterRCNN(**{**form, **options})


def make_images(height: int, width: int | None = None, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(1))


def truth(boxes: list[list[float]], labels: list[int], size: int | None = None) -> Instances:
    """With masks of an image of that size, the left upper half of each box."""
    found = Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))
    if size is not None:
        y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
        x1, y1, x2, y2 = found.boxes.T[..., None, None]
        found.masks = (x > x1) & (y > y1) & ((x - x1) / (x2 - x1) + (y - y1) / (y2 - y1) < 1)
    return found


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


# Counts


class First(nn.Module):
    """Forward alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


def macs_of_regions(model: Any, proposals: int, masks: int) -> int:
    channels, size = model.rpn.objectness.in_channels, model.roi.pooler.size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.roi.predictor(model.roi.head([torch.empty(proposals, channels, size, size, device="meta")]))
        if model.roi.mask_head is not None:
            model.roi.mask_head([torch.empty(masks, channels, 2 * size, 2 * size, device="meta")])
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_published_ones(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model: Any = registry.create_model(name).eval()
    assert count_parameters(model) == published.params
    assert published.macs is not None and count_macs(model, published.input) == published.macs
    first = count_macs(First(model), published.input)
    assert published.macs - first == macs_of_regions(model, model.test_proposals, 100)
    layers = layer_table(model, published.input)
    assert sum(layer.macs for layer in layers) == published.macs
    assert sum(layer.params for layer in layers) == published.params


@pytest.mark.parametrize("name", PORTS)
def test_counts_are_torchvisions(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        theirs: Any = getattr(reference, PORTS[name])(weights=None, weights_backbone=None).eval()
    frozen = 0 if name.endswith("v2") else 53_120  # of norms, which the published ones have as buffers
    assert count_parameters(theirs) == published.params + frozen
    theirs.forward = lambda images: theirs.rpn.head(list(theirs.backbone(images).values()))
    macs = count_macs(theirs, published.input)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(torch.empty(1000, 256, 7, 7, device="meta")))
        if name.startswith("mask"):
            pooled = torch.empty(100, 256, 14, 14, device="meta")
            theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(pooled))
    assert macs + counter.get_total_flops() // 2 == published.macs


# torchvision


def both(name: str, **options: Any) -> tuple[Any, Any, Tensor, Tensor]:
    """Ours and torchvision's with the same random weights, an image, and the same normalised. Five classes.

    The layers that predict are scaled: scores and offsets of many values, none of them extreme.
    """
    sizes: dict[str, Any] = {"num_classes": 6, "min_size": SIZE[0], "max_size": SIZE[1]}
    sizes |= {"rpn_post_nms_top_n_train": 120, "rpn_post_nms_top_n_test": 80}
    make = getattr(reference, PORTS[name])
    theirs: Any = make(weights=None, weights_backbone=None, **sizes, **options).eval()
    theirs.transform.size_divisible = 1
    randomize(theirs)
    ours: Any = registry.find_model(name).builder(num_classes=5, proposals=120, test_proposals=80).eval()
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((image - mean[:, None, None]) / std[:, None, None])[None]
    with torch.no_grad():
        maps = list(theirs.backbone(images).values())
        logits, offsets = theirs.rpn.head(maps)
        theirs.rpn.head.cls_logits.weight.div_(logits[0].std())
        theirs.rpn.head.bbox_pred.weight.div_(4 * offsets[0].std())
        heads = theirs.roi_heads
        pooled = heads.box_roi_pool({str(k): x for k, x in enumerate(maps)}, [torch.tensor([[9.0, 9, 80, 90]])], [SIZE])
        logits, offsets = heads.box_predictor(heads.box_head(pooled))
        heads.box_predictor.cls_score.weight.div_(logits.std())
        heads.box_predictor.bbox_pred.weight.div_(offsets.std())
    copy_in_order(ours, theirs.state_dict())
    return ours, theirs, image, images


@pytest.mark.parametrize("name", PORTS)
def test_it_finds_what_torchvisions_finds(name: str) -> None:
    ours, theirs, image, images = both(name)
    seen: dict[str, Any] = {}
    theirs.rpn.register_forward_hook(lambda *call: seen.update(proposals=call[2][0][0]))
    theirs.roi_heads.register_forward_hook(lambda *call: seen.update(raw=call[2][0][0].get("masks")))
    with torch.no_grad():
        expected = theirs([image])[0]
        outputs = ours(images)
        proposals = take_proposals(outputs, ours.test_proposals, ours.test_candidates)[0]
        found = ours.decode(outputs)[0]
    assert len(proposals) == len(seen["proposals"]) == 80
    # Of two proposals whose objectness differs by rounding alone, either may come first: processors decide.
    apart = torch.cdist(proposals, seen["proposals"], p=torch.inf)
    assert apart.amin(dim=0).max() < 1e-2 and apart.amin(dim=1).max() < 1e-2
    assert len(found) == len(expected["boxes"]) > 20
    assert torch.allclose(found.scores, expected["scores"], atol=1e-4)
    assert torch.allclose(found.boxes, expected["boxes"], atol=2e-2)
    assert torch.equal(found.labels, expected["labels"] - 1)
    assert float(found.scores.std()) > 1e-2
    if name.startswith("mask"):
        regions = Regions(found.boxes, torch.zeros(len(found), dtype=torch.int64))
        with torch.no_grad():
            masks = ours.roi.masks([outputs[f"map{place}"] for place in range(4)], regions, found.labels).sigmoid()
        assert torch.allclose(masks, seen["raw"][:, 0], atol=1e-3)
        # They round a box to whole pixels before they paste into it, ours is exact.
        assert found.masks.shape == (len(found), *SIZE)
        assert float((found.masks == (expected["masks"][:, 0] > 0.5)).float().mean()) > 0.97


@pytest.mark.parametrize("name", ["faster_rcnn_resnet50_fpn", "mask_rcnn_resnet50_fpn"])
def test_losses_are_torchvisions(name: str) -> None:
    # A million may be sampled, so that both see everything.
    ours, theirs, image, images = both(name, rpn_batch_size_per_image=10**6, box_batch_size_per_image=10**6)
    ours.rpn.sampled = 10**6
    ours.sampler = type(ours.sampler)(10**6)
    target = truth([[10, 10, 90, 80], [60, 8, 130, 60], [3, 3, 40, 42]], [0, 4, 1])
    generator = torch.Generator().manual_seed(0)
    target.masks = torch.rand(3, 12, 17, generator=generator).gt(0.5).repeat_interleave(8, 1).repeat_interleave(8, 2)
    for part in (theirs, theirs.rpn, theirs.roi_heads):
        part.training = True  # not their norms
    with torch.no_grad():
        expected = theirs(
            [image],
            [{"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks.byte()}],  # type: ignore[operator, union-attr]
        )
        found = ours.loss(ours(images), [target])
    names = {
        "objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert len(found) == len(expected)
    for name, value in found.items():
        assert torch.allclose(value, expected[names[name]], rtol=1e-3), name
        assert float(value) > 0


def test_published_statistics_are_shifted_by_what_ours_add() -> None:
    for name in ("faster_rcnn_resnet50_fpn", "mask_rcnn_resnet50_fpn"):
        arrange = registry.find_model(name).weights["coco"].arrange
        assert arrange is not None
        assert arrange({"a.running_var": torch.tensor([1.0])})["a.running_var"] == 1 - 1e-5
    assert registry.find_model("faster_rcnn_resnet50_fpn_v2").weights["coco"].arrange is None


# Masks


def test_pasting_by_hand() -> None:
    masks = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    boxes = torch.tensor([[2.0, 2, 6, 6], [-4, -4, 4, 4], [20, 20, 30, 30]])
    pasted = paste_masks(masks, boxes, (8, 8))
    # Down its middle the first has 3/4, for the zero beyond its border weighs in, then 3/4, 1/4 and 0; at its sides it
    # has three quarters of that.
    assert pasted[0].nonzero().tolist() == [[2, 2], [2, 3], [2, 4], [2, 5], [3, 2], [3, 3], [3, 4], [3, 5]]
    assert (
        pasted[1].nonzero().amax(dim=0).tolist() == [3, 3] and int(pasted[1].sum()) == 15
    )  # its corner has 5/8 of 5/8
    assert not pasted[2].any()
    assert torch.equal(paste_masks(masks.flip(0), boxes.flip(0), (8, 8)), pasted.flip(0))  # whatever came before
    assert paste_masks(masks[:0], boxes[:0], (8, 8)).shape == (0, 8, 8)


def test_it_overfits_two_images_and_their_masks() -> None:
    model = small(mask=True, strides=(8, 16), extra_levels=0, frozen_norm=True).train()
    images, targets = make_images(64), [truth([[8, 8, 40, 40]], [2], 64), truth([[20, 10, 60, 50]], [0], 64)]
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), {}
    for _ in range(80):
        losses = model.loss(model(images), targets)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    assert set(losses) == {"objectness", "rpn_box", "class", "box", "mask"}
    for one, found in zip(targets, model.decode(model(images)), strict=True):
        assert found.labels[0] == one.labels[0] and found.scores[0] > 0.8  # type: ignore[index]
        assert (found.boxes[0] - one.boxes[0]).abs().max() < 5
        both_, either = found.masks[0] & one.masks[0], found.masks[0] | one.masks[0]  # type: ignore[index]
        assert both_.sum() / either.sum() > 0.7


# Degenerate truth


@pytest.mark.parametrize(
    "targets",
    [
        [truth([], [], 64)] * 2,
        [truth([], [], 64), truth([[8, 8, 40, 40]], [1], 64)],
        [truth([[8, 8, 8, 40]], [1], 64), truth([[90, 90, 99, 99]], [0], 64)],
        [truth([[0, 0, 64, 64]], [-1], 64)] * 2,
        [Instances(torch.zeros(0, 4))] * 2,
    ],
    ids=["empty", "one empty", "flat and outside", "only regions to ignore", "without labels"],
)
def test_losses_of_degenerate_truth_are_finite(targets: list[Instances]) -> None:
    model = small(mask=True).train()
    losses = model.loss(model(make_images(64)), targets)
    assert all(bool(term.isfinite()) for term in losses.values())
    total(losses).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    if all(not len(one) for one in targets):
        assert float(losses["box"].detach()) == float(losses["mask"].detach()) == 0 < float(losses["class"].detach())


def test_nothing_is_wrong_in_regions_to_ignore() -> None:
    model = small()
    targets = [truth([[-200, -200, 300, 300]], [-1])] * 2  # every anchor lies in it
    assert [float(term.detach()) for term in model.loss(model(make_images(64)), targets).values()] == [0, 0, 0, 0]


def test_images_without_proposals() -> None:
    model = small(mask=True)
    outputs = model(make_images(64))
    outputs["proposal_scores"] = outputs["proposal_scores"].clone()
    outputs["proposal_scores"][0] = -torch.inf
    found = model.decode(outputs, score_threshold=0.0)
    assert len(found[0]) == 0 < len(found[1]) and found[0].masks.shape == (0, 64, 64)  # type: ignore[union-attr]
    boxes, scores = model.predictions(outputs)
    assert boxes.shape == (2, scores.shape[1], 4) and not scores[0].any() and bool(scores[1].all())
    assert all(bool(term.isfinite()) for term in model.loss(outputs, [truth([], [], 64)] * 2).values())
    # The truth itself is still there to learn from.
    losses = model.loss(outputs, [truth([[8, 8, 40, 40]], [1], 64), truth([], [], 64)])
    assert float(losses["mask"].detach()) > 0
    outputs["proposal_scores"][1] = -torch.inf
    assert [len(one) for one in model.decode(outputs)] == [0, 0]
    losses = model.loss(outputs, [truth([], [], 64)] * 2)
    assert float(losses["class"].detach()) == 0 < float(losses["objectness"].detach())


def test_masks_must_be_there() -> None:
    model = small(mask=True)
    with pytest.raises(InputError, match="image 1 has no masks"):
        model.loss(model(make_images(64)), [truth([], []), truth([[8, 8, 40, 40]], [1])])


def test_a_label_without_a_class_is_named() -> None:
    model = small()
    with pytest.raises(InputError, match="label 3"):
        model.loss(model(make_images(64)), [truth([[8, 8, 40, 40]], [3])] * 2)


# Any backbone and neck


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neck": "panet", "all_levels": True, "mask": True},
        {"neck": None, "strides": (16,), "extra_levels": 0, "channels": None, "roi_pooling": "pool", "dropout": 0.5},
        {"head_convs": 2, "head_norm": "batch", "all_levels": True},
        {"anchors": "torchvision", "rpn_options": {"objectness": "softmax", "convs": 2}},
    ],
    ids=["fpn", "panet", "one map", "convolutions", "torchvision"],
)
def test_trunks_and_shapes(options: dict[str, Any]) -> None:
    model = small(**options).eval()
    outputs = model(make_images(70, 100))
    assert [name for name in outputs if name.startswith("map")] == [
        f"map{k}" for k in range(len(model.roi.pooler.strides))
    ]
    boxes, scores = model.predictions(outputs)
    most = max(len(one) for one in take_proposals(outputs, 50, 1000))
    assert boxes.shape == (2, most, 4) and scores.shape == (2, most, 3) and most > 1
    assert len(model.decode(outputs)) == 2
    assert len(model.assign(outputs, [truth([[8, 8, 40, 40]], [1])])[0].boxes) == len(outputs["anchors"])


def test_training_changes_nothing_in_forward() -> None:
    model = small(frozen_norm=True, dropout=0.5)
    trained, evaluated = model.train()(make_images(64)), model.eval()(make_images(64))
    assert all(torch.equal(trained[name], evaluated[name]) for name in evaluated)


@pytest.mark.parametrize("options", [{"mask": True}, {"neck": "panet", "all_levels": True, "head_convs": 2}])
def test_every_parameter_learns_in_a_batch_of_one(options: dict[str, Any]) -> None:
    # One region in each level, or the coarse ones learn only from what the RPN says of them.
    model = small(frozen_norm=True, **options).train()
    target = truth([[8, 8, 40, 40], [0, 0, 190, 190]], [0, 1], 192)
    total(model.loss(model(make_images(192, batch=1)), [target])).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_samples_follow_the_seed() -> None:
    model = small(sampled=8)
    outputs = model(make_images(64))
    targets = [truth([[8, 8, 40, 40]], [1])] * 2

    def run(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [float(term.detach()) for term in model.loss(outputs, targets).values()]

    assert run(1) == run(1) != run(2)


def test_hidden_layers_of_a_classification_network_become_the_heads() -> None:
    given: Any = registry.create_model("alexnet", hidden_features=24, num_classes=7)
    form: dict[str, Any] = {"backbone": "alexnet", "backbone_options": {}, "neck": None, "channels": None}
    model: Any = small(**form, strides=(16,), extra_levels=0, roi_size=6, hidden=24)
    fresh = model.initialize_from(given.state_dict())
    assert not [name for name in fresh if name.startswith(("backbone", "roi.head"))]
    first, second, _ = (layer for layer in given.head if isinstance(layer, nn.Linear))
    assert torch.equal(model.roi.head.fc6[0].weight, first.weight)
    assert torch.equal(model.roi.head.fc7.bias, second.bias)
    other = small(**form, strides=(16,), extra_levels=0, roi_size=5, hidden=24)
    assert "roi.head.fc7.weight" in other.initialize_from(given.state_dict())


def test_zf_looks_where_its_regions_are() -> None:
    with torch.device("meta"):
        model: Any = registry.create_model("faster_rcnn_zf")
    middle, step = 0.5, 1
    for layer in model.backbone.modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            values: list[Any] = [layer.kernel_size, layer.stride, layer.padding]
            size, stride, padding = (value[0] if isinstance(value, tuple) else value for value in values)
            middle, step = middle + ((size - 1) / 2 - padding) * step, step * stride
    assert step == 16 and 0 <= middle <= 16


# Steps


def test_alternating_training() -> None:
    model = small().train()
    images, targets = make_images(64), [truth([[8, 8, 40, 40]], [2]), truth([[20, 10, 60, 50]], [0])]
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = []
    for step in ALTERNATING:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        proposed = model.eval()(images)["proposals"]
        model.train()
        with take_step(model, step, start) as stepped:
            ready = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            outputs = stepped(images)
            assert torch.equal(outputs["proposals"], proposed) or not step.borrow
            optimizer = torch.optim.SGD([p for p in stepped.parameters() if p.requires_grad], 0.01, weight_decay=0.1)
            losses = stepped.loss(outputs, targets)
            assert set(losses) == set(step.terms) - {"mask"}
            assert {name for name, child in model.named_children() if child.training} == set(step.trained)
            total(losses).backward()
            optimizer.step()
        after = model.state_dict()
        changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], ready[name])}
        assert changed == set(step.trained)
        for name in after:
            source = start if name.startswith(tuple(step.restart)) and step.restart else before
            assert torch.equal(ready[name], source[name])
        done.append(step.name)
        model.zero_grad()
    assert len(done) == 4
    assert all(p.requires_grad for p in model.parameters())
    assert all(child.training for child in model.children())
    assert set(model.loss(model(images), targets)) == {"objectness", "rpn_box", "class", "box"}


def test_borrowed_proposals_stay_while_the_network_changes() -> None:
    model = small(frozen_norm=True)
    step, start = ALTERNATING[1], small().state_dict()
    before = model(make_images(64))["proposals"]
    with take_step(model, step, start) as stepped:
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1)
        assert torch.equal(stepped(make_images(64))["proposals"], before)
        assert set(stepped.state_dict()) == set(start) - {n for n in start if n.endswith("num_batches_tracked")}
        assert list(stepped.state_dict()) == list(model.state_dict())
        stepped.double()
        assert stepped(make_images(64).double())["proposals"].dtype is torch.float32
        stepped.float()
    assert not torch.equal(model(make_images(64))["proposals"], before)


def test_a_restart_needs_its_start() -> None:
    with pytest.raises(InputError, match="restarts backbone, neck"), take_step(small(), ALTERNATING[1]):
        pass


def test_export_with_any_batch() -> None:
    form: dict[str, Any] = {"backbone": "alexnet", "backbone_options": {}, "strides": (8, 16), "mask": True}
    model = small(**form, candidates=40, test_candidates=20).eval()
    program = torch.export.export(model, (make_images(96),), dynamic_shapes={"images": {0: Dim("batch", min=2, max=8)}})
    with torch.no_grad():
        exported, expected = program.module()(make_images(96, batch=3)), model(make_images(96, batch=3))
    for name in expected:
        assert torch.allclose(exported[name], expected[name], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": 0}, "proposals"),
        ({"test_candidates": 0}, "test_candidates"),
        ({"background": (0.6, 0.5)}, "background"),
        ({"sampled": 0}, "count"),
        ({"roi_size": 0}, "roi_size"),
        ({"roi_pooling": "max"}, "RoI pooling"),
        ({"strides": (8, 32)}, "double"),
        ({"hidden": 0}, "hidden"),
        ({"beta": -1}, "beta"),
        ({"rpn_options": {"covns": 2}}, "convs"),
        ({"mask": True, "mask_norm": "batsh"}, "batch"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)
