"""RPN: anchors, proposals and losses against torchvision's, by hand, and trained alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models.detection as reference
from torch import Tensor
from torch.export import Dim
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

import opsin
import opsin.detect.rpn  # registers it
from opsin import registry
from opsin.backbones import copy_in_order
from opsin.data import create_loader
from opsin.data.formats.digit_scenes import open_scenes
from opsin.detect.anchor_grid import AnchorGrid
from opsin.detect.detector import Outputs
from opsin.detect.rpn import RPN, ProposalHead, take_proposals
from opsin.engine.checkpoint import read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.ops import pairwise_iou
from opsin.structures import Instances

SIZE, MAPS = (96, 136), [(24, 34), (12, 17), (6, 9)]  # 136 is no multiple of the coarsest stride
STRIDES = (4, 8, 16)


def small(**options: Any) -> RPN:
    torch.manual_seed(0)
    form: dict[str, Any] = {
        "backbone": "mobilenet_v3_small",
        "backbone_options": {"width": 0.35},
        "channels": 16,
        "num_classes": 3,
    }
    return RPN(**{**form, **options})


def make_images(height: int, width: int | None = None, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(1))


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


def test_counts_are_torchvisions() -> None:
    published = registry.find_model("rpn").published
    with torch.device("meta"):
        theirs: Any = reference.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        model = registry.create_model("rpn")
    theirs.forward = lambda images: theirs.rpn.head(list(theirs.backbone(images).values()))
    assert count_parameters(model) == published.params
    assert published.params == count_parameters(theirs.backbone) + count_parameters(theirs.rpn)
    assert count_macs(model, published.input) == count_macs(theirs, published.input) == published.macs


# Anchors


def test_anchors_by_hand() -> None:
    grid = AnchorGrid((16,), ((128, 256, 512),), (0.5, 1.0, 2.0), "paper")
    (boxes,) = grid.lay_out([(2, 3)], (32, 48), torch.device("cpu"))
    assert grid.count == 9 and len(boxes) == 54
    assert boxes[1].tolist() == [8 - 64, 8 - 64, 8 + 64, 8 + 64]  # 128 around the middle of the first cell
    sides = boxes[:9, 2:] - boxes[:9, :2]
    assert torch.allclose(sides.prod(dim=1).sqrt(), torch.tensor([128.0] * 3 + [256.0] * 3 + [512.0] * 3))
    assert torch.allclose(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1, 2] * 3))


@pytest.mark.parametrize("scales", [(8.0,), (4.0, 8.0)])
def test_anchors_of_torchvision(scales: tuple[float, ...]) -> None:
    theirs = AnchorGenerator(tuple(tuple(s * stride for s in scales) for stride in STRIDES), ((0.5, 1.0, 2.0),) * 3)
    expected = theirs(ImageList(torch.zeros(1, 3, *SIZE), [SIZE]), [torch.zeros(1, 1, *cells) for cells in MAPS])[0]
    sides = [[stride * scale for scale in scales] for stride in STRIDES]
    grid = AnchorGrid(STRIDES, sides, (0.5, 1.0, 2.0), "torchvision")
    assert torch.equal(torch.cat(grid.lay_out(MAPS, SIZE, torch.device("cpu"))), expected)


# torchvision


def pair(**options: Any) -> tuple[ProposalHead, RegionProposalNetwork, list[Tensor]]:
    """Both with the same random weights, and maps of two images."""
    generator = torch.Generator().manual_seed(0)
    anchors = AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), ((0.5, 1.0, 2.0),) * 3)
    counts = {"training": 200, "testing": 100}
    theirs = RegionProposalNetwork(
        anchors, RPNHead(8, 3), 0.7, 0.3, 10**6, 0.5, counts, {"training": 150, "testing": 60}, 0.7
    ).eval()
    with torch.no_grad():
        for tensor in theirs.parameters():
            tensor.normal_(0, 0.2, generator=generator)
    ours = ProposalHead(8, STRIDES, anchors="torchvision", candidates=200, sampled=10**6, **options)
    copy_in_order(ours, theirs.state_dict())
    return ours, theirs, [torch.randn(2, 8, *cells, generator=generator) for cells in MAPS]


def run_theirs(theirs: RegionProposalNetwork, maps: list[Tensor], targets: Any = None) -> Any:
    images = ImageList(torch.zeros(2, 3, *SIZE), [SIZE] * 2)
    return theirs(images, {str(k): x for k, x in enumerate(maps)}, targets)


@pytest.mark.parametrize(("training", "count", "candidates"), [(False, 60, 100), (True, 150, 200)])
def test_proposals_are_torchvisions(training: bool, count: int, candidates: int) -> None:
    ours, theirs, maps = pair()
    with torch.no_grad():
        outputs = ours(maps, SIZE)
        theirs.training = training
        targets = [{"boxes": torch.tensor([[8.0, 8, 40, 40]])}] * 2 if training else None
        expected, _ = run_theirs(theirs, maps, targets)
    for found, boxes in zip(take_proposals(outputs, count, candidates), expected, strict=True):
        assert len(found) == len(boxes) == count
        assert torch.allclose(found, boxes, atol=1e-3)


def test_losses_are_torchvisions() -> None:
    ours, theirs, maps = pair()
    targets = [truth([[10, 10, 50, 50], [40, 8, 90, 60]], [0, 2]), truth([], [])]
    theirs.training = True  # both see every anchor: a million may be sampled
    _, expected = run_theirs(theirs, maps, [{"boxes": one.boxes} for one in targets])
    found = ours.losses(ours(maps, SIZE), targets, 3)
    assert torch.allclose(found["objectness"], expected["loss_objectness"], rtol=1e-4)
    assert torch.allclose(found["rpn_box"], expected["loss_rpn_box_reg"], rtol=1e-4)


def test_two_logits_are_the_papers_softmax() -> None:
    head = ProposalHead(8, (16,), anchor_scales=(2, 4), objectness="softmax", sampled=10**6)
    torch.nn.init.normal_(head.objectness.weight)
    x = torch.randn(1, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    outputs = head([x], (48, 80)) | {"size": torch.tensor([48, 80])}
    logits = head.objectness(head.convs(x)).permute(0, 2, 3, 1).reshape(-1, 2)
    matched = head.assign(outputs, [truth([[8, 8, 40, 40]], [0])], 1)[0].matched
    assert {-2, -1, 0} == set(matched.tolist())
    expected = torch.nn.functional.cross_entropy(logits[matched != -2], (matched[matched != -2] >= 0).long())
    assert torch.allclose(head.losses(outputs, [truth([[8, 8, 40, 40]], [0])], 1)["objectness"], expected, rtol=1e-4)


# By hand


def by_hand() -> Outputs:
    anchors = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 6], [16, 0, 24, 8], [0, 0, 8, 8], [4, 20, 12, 40]])
    return {
        "objectness": torch.tensor([[1.0, 2.0, 0.0, 3.0, -1.0]]).requires_grad_(),
        "offsets": torch.zeros(1, 5, 4).requires_grad_(),
        "anchors": anchors,
        "size": torch.tensor([32, 32]),
    }


def test_proposals_by_hand() -> None:
    head = ProposalHead(4, (8, 16), candidates=2)
    outputs = by_hand()
    found = head.propose(outputs, (3, 2), (32, 32))
    # Of the first level 2 and 1 are candidates, 3/4 of whose union they share; of the second both, one cut below.
    assert found["proposals"][0].tolist() == [[0, 0, 8, 8], [0, 0, 8, 6], [4, 20, 12, 32], [0, 0, 8, 8]]
    assert found["proposal_scores"][0].tolist() == [3, 2, -1, -math.inf]
    assert found["proposal_ranks"][0].tolist() == [0, 0, 1, 1]
    assert [len(one) for one in take_proposals(found, 10)] == [3]
    assert take_proposals(found, 10, 1)[0].tolist() == [[0, 0, 8, 8], [0, 0, 8, 6]]
    assert len(take_proposals(found, 1)[0]) == 1
    assert not found["proposals"].requires_grad


def test_flat_proposals_are_none() -> None:
    outputs = by_hand()
    outputs["anchors"] = outputs["anchors"] + 40  # all beyond the border
    found = ProposalHead(4, (8, 16)).propose(outputs, (3, 2), (32, 32))
    assert [len(one) for one in take_proposals(found, 10)] == [0]


def test_loss_by_hand() -> None:
    one = truth([[0, 0, 8, 6], [15, 0, 25, 8]], [1, -1])
    head, outputs = ProposalHead(4, (8, 16)), by_hand()
    # 3/4 of the first and fourth, all of the second; the third lies where the loss looks away.
    assert head.assign(outputs, [one], 3)[0].matched.tolist() == [0, 0, -2, 0, -1]
    losses = head.losses(outputs, [one], 3)
    certain = [math.log1p(math.exp(-x)) for x in (1, 2, 3, 1)]  # the last, background, has a logit of -1
    assert float(losses["objectness"].detach()) == pytest.approx(sum(certain) / 4)
    moved, grown = 1 / 8, -math.log(3 / 4)
    missed = 2 * sum(e - 1 / 18 if e > 1 / 9 else e * e * 4.5 for e in (moved, grown))
    assert float(losses["rpn_box"].detach()) == pytest.approx(missed / 4, rel=1e-5)


def test_anchors_across_the_border_may_be_left_out() -> None:
    outputs = by_hand()
    head = ProposalHead(4, (8, 16), inside_only=True)
    matched = head.assign(outputs, [truth([[4, 20, 12, 40]], [0])], 3)[0].matched
    assert matched.tolist() == [-1, -1, -1, -1, -2]
    outputs["size"] = torch.tensor([4, 4])
    losses = head.losses(outputs, [truth([[0, 0, 4, 4]], [0])], 3)  # none is inside
    assert [float(term.detach()) for term in losses.values()] == [0, 0]


def test_half_of_the_sample_answers_at_most() -> None:
    outputs = by_hand() | {"anchors": torch.tensor([[0.0, 0, 8, 8]] * 4 + [[20.0, 20, 28, 28]])}
    head = ProposalHead(4, (8, 16), sampled=2)
    losses = head.losses(outputs, [truth([[0, 0, 8, 8]], [0])], 3)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert outputs["objectness"].grad is not None
    assert int((outputs["objectness"].grad != 0).sum()) == 2 and bool(outputs["objectness"].grad[0, 4] != 0)


@pytest.mark.parametrize(
    "one",
    [truth([], []), Instances(torch.zeros(0, 4)), truth([[3, 3, 3, 8]], [1]), truth([[90, 90, 99, 99]], [1])],
    ids=["empty", "without labels", "flat", "outside"],
)
def test_images_without_truth_are_all_background(one: Instances) -> None:
    outputs = by_hand()
    losses = ProposalHead(4, (8, 16)).losses(outputs, [one], 3)
    expected = sum(math.log1p(math.exp(x)) for x in (1, 2, 0, 3, -1)) / 5
    assert float(losses["objectness"].detach()) == pytest.approx(expected)
    assert float(losses["rpn_box"].detach()) == 0


def test_only_regions_to_ignore() -> None:
    losses = ProposalHead(4, (8, 16)).losses(by_hand(), [truth([[0, 0, 32, 60]], [-1])], 3)
    assert [float(term.detach()) for term in losses.values()] == [0, 0]


# The detector


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neck": "panet"},
        {"strides": (16,), "neck": None, "extra_levels": 0, "anchor_scales": (1, 2, 4)},
        {"strides": (8, 16), "neck": None, "extra_levels": 0, "channels": 24, "rpn_options": {"convs": 2}},
        {"anchors": "torchvision", "rpn_options": {"objectness": "softmax"}},
    ],
    ids=["fpn", "panet", "one map", "laterals", "softmax"],
)
def test_trunks_and_shapes(options: dict[str, Any]) -> None:
    model = small(candidates=50, **options).eval()
    outputs = model(make_images(70, 100))
    levels = [3 * len(options.get("anchor_scales", "1")) * -(-70 // s) * -(-100 // s) for s in model.strides]
    count = sum(min(50, level) for level in levels)
    assert outputs["anchors"].shape == (sum(levels), 4) and outputs["proposals"].shape == (2, count, 4)
    boxes, scores = model.predictions(outputs)
    assert boxes.shape == (2, count, 4) and scores.shape == (2, count, 1)
    found = model.decode(outputs, limit=20)
    assert [len(one) for one in found] == [20, 20] and not found[0].labels.any()  # type: ignore[union-attr]
    assert torch.equal(found[0].boxes, take_proposals(outputs, 20)[0])


def test_training_changes_nothing_in_forward() -> None:
    model = small(frozen_norm=True)
    trained, evaluated = model.train()(make_images(64)), model.eval()(make_images(64))
    assert all(torch.equal(trained[name], evaluated[name]) for name in evaluated)


def test_every_parameter_learns_in_a_batch_of_one() -> None:
    model = small(frozen_norm=True).train()
    outputs = model(make_images(64, batch=1))
    sum(model.loss(outputs, [truth([[8, 8, 40, 40], [1, 1, 20, 20]], [0, 1])]).values()).backward()  # type: ignore[union-attr]
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_it_learns_to_propose() -> None:
    model = small(strides=(16,), neck=None, extra_levels=0, anchor_scales=(1, 2, 4)).train()
    images, target = make_images(64, batch=2), [truth([[8, 8, 40, 40]], [2]), truth([[20, 10, 60, 50]], [0])]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(100):
        loss = torch.stack(list(model.loss(model(images), target).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, found in zip(target, model.decode(model(images)), strict=True):
        assert float(pairwise_iou(one.boxes, found.boxes[:1])) > 0.8


def test_trained_alone_it_knows_one_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On scenes of ten digits. Whatever digit an object is, a box around it is right."""
    model = {"name": "rpn", "backbone": "mobilenet_v3_small", "backbone_options": {"width": 0.35}, "channels": 16}
    data = {"source": "scenes:16", "size": 96, "limit": 4}
    train = {"epochs": 1, "batch_size": 2, "tensorboard": False, "accelerator": "cpu"}
    recipe = {"task": "detect", "model": model, "data": data, "train": train}
    run = opsin.train(recipe, out=tmp_path / "run", say=lambda line: None)
    assert {"train_objectness", "train_rpn_box", "val_map"} <= run.history[0].keys()
    saved = read_model(tmp_path / "run")
    assert saved.classes == ["object"]
    assert opsin.evaluate(tmp_path / "run", split="test") == pytest.approx(run.metrics, abs=1e-5)
    assert opsin.evaluate(tmp_path / "run", data="scenes:16", split="test").keys() == run.metrics.keys()
    found: Any = opsin.load(tmp_path / "run").predict(torch.zeros(3, 96, 96, dtype=torch.uint8), score_threshold=0.0)
    assert {one["label"] for one in found["instances"]} == {"object"}

    task, _, splits = prepare(load_recipe(recipe), lambda line: None)
    labels = [
        {label for one in split.kind.instances for label in one.labels.tolist()}
        for split in (open_scenes("scenes:16").splits["val"], splits["val"])
    ]
    assert len(labels[0]) > 5 and labels[1] == {0}
    batch = next(iter(create_loader(splits["val"], task.preprocessing, batch_size=4)))
    right = [
        Instances(one.boxes, torch.zeros(len(one), dtype=torch.int64), torch.ones(len(one)))
        for one in batch["instances"]
    ]
    monkeypatch.setattr(RPN, "decode", lambda self, outputs, selection: right)
    evaluator = task.eval().create_evaluator()
    evaluator.update(task.model(*task.predictor.inputs(batch)), batch)
    result = evaluator.result()
    metrics, evaluation = result.metrics, result.evidence
    assert metrics["map"] == metrics["mar_100"] == metrics["recall"] == 1
    assert evaluation.objects == sum(map(len, right))


def test_export_with_any_batch() -> None:
    model = small(backbone="alexnet", backbone_options={}, strides=(8, 16), candidates=40).eval()
    program = torch.export.export(model, (make_images(64),), dynamic_shapes={"images": {0: Dim("batch", min=2, max=8)}})
    with torch.no_grad():
        exported, expected = program.module()(make_images(64, batch=3)), model(make_images(64, batch=3))
    for name in expected:
        assert torch.allclose(exported[name], expected[name], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rpn_options": {"background_threshold": 0.9}}, "must rise"),
        ({"rpn_options": {"objectness": "relu"}}, "objectness"),
        ({"rpn_options": {"sampeld": 3}}, "sampled"),
        ({"rpn_options": {"convs": 0}}, "convs"),
        ({"anchors": "coco"}, "anchors"),
        ({"ratios": ()}, "ratios"),
        ({"candidates": 0}, "candidates"),
        ({"limit": 0}, "limit"),
        ({"neck_options": {"out_channels": 8}}, "leave out_channels"),
        ({"neck": None, "channels": None, "extra_levels": 0}, "shared by all levels"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)


def test_a_label_without_a_class_is_named() -> None:
    with pytest.raises(InputError, match="label 3"):
        small().loss(by_hand(), [truth([[0, 0, 8, 8]], [3])])
