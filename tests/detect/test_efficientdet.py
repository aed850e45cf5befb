"""EfficientDet: counts, a plain re-computation of its maps and heads, anchors, loss and decoding worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from opsin import registry
from opsin.detect.detector import Outputs
from opsin.detect.efficientdet import EfficientDet
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances

NAMES = ["efficientdet", *(f"efficientdet_{size}" for size in ("d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d7x"))]
SMALL: dict[str, Any] = {
    "backbone": "mobilenet_v3_small",
    "backbone_options": {"width": 0.35},
    "channels": 16,
    "neck_repeats": 1,
    "head_repeats": 1,
    "num_classes": 3,
}


def small(**options: Any) -> EfficientDet:
    torch.manual_seed(0)
    return EfficientDet(**{**SMALL, **options})


def make_images(height: int, width: int | None = None, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(1))


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == registry.find_model(name).published.params


@pytest.mark.parametrize("name", ["efficientdet_d0", "efficientdet_d7x"])
def test_multiply_adds_are_the_published_ones(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_macs(model, published.input) == published.macs


# A plain re-computation: one layer of a BiFPN and the heads, written out node by node from the state dict.


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    scale = weight / (var + 1e-3).sqrt()
    return x * scale.view(-1, 1, 1) + (bias - mean * scale).view(-1, 1, 1)


def separable(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], padding=1, groups=x.shape[1])
    return F.conv2d(x, state[f"{name}.1.weight"], state[f"{name}.1.bias"])


def thin(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """1x1 and norm where the channels change."""
    if f"{name}.conv.0.weight" not in state:
        return x
    x = F.conv2d(x, state[f"{name}.conv.0.weight"], state[f"{name}.conv.0.bias"])
    return norm(state, f"{name}.conv.1", x)


def up(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def down(x: Tensor) -> Tensor:
    """TensorFlow's SAME max-pooling of an even map, 3x3 of stride 2: a row below and a column to the right."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)


def fuse(state: dict[str, Tensor], name: str, maps: list[Tensor], fusion: str) -> Tensor:
    if fusion == "sum":
        shares = torch.ones(len(maps))
    else:
        weights = state[f"{name}.weights"].clamp(min=0)
        shares = weights / (weights.sum() + 1e-4) if fusion == "fast" else state[f"{name}.weights"].softmax(0)
    x = sum(share * x for share, x in zip(shares, maps, strict=True))
    assert isinstance(x, Tensor)
    return norm(state, f"{name}.conv.2", separable(state, f"{name}.conv", x * x.sigmoid()))


def plain_bifpn(state: dict[str, Tensor], c3: Tensor, c4: Tensor, c5: Tensor, fusion: str) -> list[Tensor]:
    """Figure 3 of the paper, P3 to P7."""

    def edge(node: str, place: int, x: Tensor) -> Tensor:
        return thin(state, f"layers.0.{node}.edges.{place}", x)

    def node(name: str, *maps: Tensor) -> Tensor:
        return fuse(state, f"layers.0.{name}", list(maps), fusion)

    c6 = down(thin(state, "extra.0", c5))
    c7 = down(c6)
    t6 = node("down.0", c6, up(c7))
    t5 = node("down.1", edge("down.1", 0, c5), up(t6))
    t4 = node("down.2", edge("down.2", 0, c4), up(t5))
    p3 = node("down.3", edge("down.3", 0, c3), up(t4))
    p4 = node("up.0", edge("up.0", 0, c4), t4, down(p3))
    p5 = node("up.1", edge("up.1", 0, c5), t5, down(p4))
    p6 = node("up.2", c6, t6, down(p5))
    p7 = node("up.3", c7, down(p6))
    return [p3, p4, p5, p6, p7]


def plain_head(state: dict[str, Tensor], maps: list[Tensor], repeats: int, anchors: int, values: int) -> Tensor:
    rows = []
    for level, x in enumerate(maps):
        for place in range(repeats):
            x = norm(state, f"norms.{place}.{level}", separable(state, f"convs.{place}", x))
            x = x * x.sigmoid()
        x = separable(state, "predict", x)[0]
        for y in range(x.shape[1]):
            for column in range(x.shape[2]):
                rows += [x[values * i : values * (i + 1), y, column] for i in range(anchors)]
    return torch.stack(rows)


@pytest.mark.parametrize("fusion", ["fast", "softmax", "sum"])
def test_it_is_what_the_paper_draws(fusion: str) -> None:
    model = small(fusion=fusion, head_repeats=2).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith(("neck", "class_head", "box_head")) and tensor.is_floating_point():
                if tensor.ndim > 1:
                    tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
                else:
                    tensor.uniform_(0.2, 1.0, generator=generator)
        images = make_images(128, 256, batch=1)
        outputs, maps = model(images), model.backbone(images)
        c3, c4, c5 = maps
        expected = plain_bifpn(model.neck.state_dict(), c3, c4, c5, fusion)
        for ours, plain in zip(model.neck(maps), expected, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
        logits = plain_head(model.class_head.state_dict(), expected, 2, 9, 3)
        offsets = plain_head(model.box_head.state_dict(), expected, 2, 9, 4)
    torch.testing.assert_close(outputs["logits"][0], logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs["offsets"][0], offsets, rtol=1e-4, atol=1e-4)


def test_anchors_are_nine_a_cell() -> None:
    model = small().eval()
    anchors = model(make_images(256, 128, batch=1))["anchors"]
    assert anchors.shape == (9 * (32 * 16 + 16 * 8 + 8 * 4 + 4 * 2 + 2 * 1), 4)
    assert anchors[0].tolist() == [-12, -12, 20, 20]  # 4 times the stride of 8, around the middle of the first cell
    sides = anchors[:, 2:] - anchors[:, :2]
    expected = [
        [32 * 2 ** (octave / 3) * width, 32 * 2 ** (octave / 3) * height]
        for octave in range(3)
        for width, height in ((1, 1), (1.4, 0.7), (0.7, 1.4))
    ]
    torch.testing.assert_close(sides[:9], torch.tensor(expected))
    assert ((anchors[9, :2] + anchors[9, 2:]) / 2).tolist() == [12, 4]  # the next cell is to the right
    assert (anchors[-9, 2:] - anchors[-9, :2]).tolist() == [512, 512]


def test_small_options_reach_every_part() -> None:
    model = small(
        strides=(16, 32), extra_levels=1, octaves=1, aspects=[[1, 1], [2, 0.5]], anchor_scale=2, in_channels=1
    ).eval()
    outputs = model(torch.zeros(2, 1, 128, 128))
    assert model.strides == (16, 32, 64)
    assert outputs["logits"].shape == (2, 2 * (64 + 16 + 4), 3)
    assert (outputs["anchors"][1, 2:] - outputs["anchors"][1, :2]).tolist() == [64, 16]
    assert count_parameters(small(fusion="sum")) == count_parameters(small()) - (4 * 2 + 3 * 3 + 2)


@pytest.mark.parametrize("neck", ["fpn", "panet", "sfam", "asff", "none", None])
def test_any_neck_serves(neck: str | None) -> None:
    model = small(neck=neck).eval()
    outputs = model(make_images(128, batch=1))
    assert model.strides == (8, 16, 32, 64, 128)
    assert outputs["offsets"].shape == (1, len(outputs["anchors"]), 4)


@pytest.mark.parametrize("backbone", ["resnet18", "shufflenet_v2_x0_5"])
def test_any_backbone_serves(backbone: str) -> None:
    with torch.device("meta"):
        model = small(backbone=backbone, backbone_options=None).eval()
        assert model(torch.empty(2, 3, 64, 64))["logits"].shape == (2, 9 * (64 + 16 + 4 + 1 + 1), 3)


def test_an_untrained_network_states_the_prior() -> None:
    model = small().eval()
    with torch.no_grad():
        scores = model.predictions(model(make_images(128)))[1]
    assert scores.mean().item() == pytest.approx(0.01, rel=0.1)
    assert scores.max() < 0.02


# An image of one cell a level by hand: strides of 32 and 64, one square anchor of 2 strides a cell.

HAND: dict[str, Any] = {"strides": (32,), "extra_levels": 1, "octaves": 1, "aspects": [[1, 1]], "anchor_scale": 2}


def by_hand() -> tuple[EfficientDet, Outputs]:
    """64x64: four anchors of 64 around (16, 16), (48, 16), (16, 48), (48, 48), one of 128 around (32, 32)."""
    model = small(**HAND).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 64))
    assert outputs["anchors"].tolist() == [
        [-16, -16, 48, 48],
        [16, -16, 80, 48],
        [-16, 16, 48, 80],
        [16, 16, 80, 80],
        [-32, -32, 96, 96],
    ]
    return model, outputs


def test_matching_on_a_hand_worked_image() -> None:
    model, outputs = by_hand()
    # IoU with the anchors: the first box is the fourth anchor but for 8 pixels, 7/8; with its neighbours it shares half
    # of that. The second, of 8x8, overlaps the first and the fifth; it is the first's, its best, by force.
    one = truth([[24, 16, 80, 80], [2, 2, 10, 10]], [2, 0])
    assert model.assign(outputs, [one])[0].matched.tolist() == [1, -1, -1, 0, -1]
    one = truth([[24, 16, 80, 80], [2, 2, 10, 10]], [2, -1])
    assert model.assign(outputs, [one])[0].matched.tolist() == [-1, -1, -1, 0, -1]
    one = truth([[24, 16, 80, 80], [-32, -32, 48, 96]], [2, -1])  # most of the first and the third anchor is ignored
    assert model.assign(outputs, [one])[0].matched.tolist() == [-2, -1, -2, 0, -2]
    one = truth([[2, 2, 12, 10], [2, 2, 10, 10]], [2, 0])  # both are best on the first anchor
    assert model.assign(outputs, [one])[0].matched.tolist() == [1, -1, -1, -1, -1]
    for nothing in (truth([], []), truth([[5, 5, 5, 9], [7, 7, 7, 7]], [0, 1])):
        assert model.assign(outputs, [nothing])[0].matched.tolist() == [-1] * 5


def test_the_loss_on_a_hand_worked_image() -> None:
    model, outputs = by_hand()
    logits = torch.full((1, 5, 3), -2.0)
    logits[0, 3] = torch.tensor([-3.0, 0.0, 1.0])
    offsets = torch.zeros(1, 5, 4)
    offsets[0, 3] = torch.tensor([0.5, 0.0, 0.0, 0.05])
    outputs = {**outputs, "logits": logits, "offsets": offsets}
    losses = model.loss(outputs, [truth([[24, 16, 80, 80]], [2])])

    def focal(logit: float, wanted: int) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -0.25 * (1 - p) ** 1.5 * math.log(p) if wanted else -0.75 * p**1.5 * math.log(1 - p)

    positives = 1 + 1  # the fourth anchor, and one that the release adds
    classes = 4 * 3 * focal(-2, 0) + focal(-3, 0) + focal(0, 0) + focal(1, 1)
    assert losses["class"].item() == pytest.approx(classes / positives, rel=1e-5)
    # The truth is centred on (52, 48), 4 pixels right of the anchor's 48, and 56 wide: dx = 4/64, dw = log(56/64).
    errors = [0.5 - 4 / 64, 0.0, 0.0 - math.log(56 / 64), 0.05]
    huber = sum(e * e / 2 if abs(e) < 0.1 else 0.1 * (abs(e) - 0.05) for e in errors)
    assert losses["box"].item() == pytest.approx(50 * huber / (4 * positives), rel=1e-5)


def test_ignored_regions_cost_nothing() -> None:
    model, outputs = by_hand()
    outputs["logits"] = torch.full((1, 5, 3), 3.0)
    everything = model.loss(outputs, [truth([], [])])["class"]
    nothing = model.loss(outputs, [truth([[-40, -40, 100, 100]], [-1])])
    assert everything > 1 and nothing["class"] == 0 and nothing["box"] == 0


@pytest.mark.parametrize("size", [(128, 128), (96, 200), (33, 65)])
def test_loss_and_gradients_are_finite(size: tuple[int, int]) -> None:
    model = small().train()
    targets = [truth([[10, 10, 30, 40]], [1]), Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    outputs = model(make_images(*size))
    losses = model.loss(outputs, targets)
    assert set(losses) == {"class", "box"}
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    empty = model.loss(outputs, [targets[1], targets[1]])
    assert empty["box"] == 0 and empty["class"].isfinite()


@pytest.mark.parametrize(
    "boxes",
    [
        [[5.0, 5.0, 5.0, 30.0], [20.0, 20.0, 20.0, 20.0]],  # no area
        [[-300.0, -300.0, -200.0, -200.0], [900.0, 900.0, 990.0, 990.0]],  # outside
        [[0.0, 0.0, 1e-3, 1e-3], [-50.0, -50.0, 400.0, 400.0]],
    ],
)
def test_strange_boxes_leave_the_loss_finite(boxes: list[list[float]]) -> None:
    model = small().eval()
    losses = model.loss(model(make_images(64, batch=1)), [truth(boxes, [0, 2])])
    assert all(value.isfinite() for value in losses.values())


def test_many_boxes_of_one_class() -> None:
    model = small(num_classes=1).eval()
    corners = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 100
    one = Instances(torch.cat([corners, corners + 20], dim=1), torch.zeros(2000, dtype=torch.int64))
    assert all(value.isfinite() for value in model.loss(model(make_images(128, batch=1)), [one]).values())


def test_it_learns_one_image() -> None:
    torch.manual_seed(0)
    model = small(anchor_scale=3.0).train()
    images, targets = torch.zeros(2, 3, 128, 128), [truth([[20, 24, 60, 70]], [1]), truth([[70, 30, 120, 64]], [2])]
    images[0, :, 24:70, 20:60], images[1, 0, 30:64, 70:120] = 2.0, 2.0
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.stack(list(model.loss(model(images), targets).values())).sum()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = model.decode(model(images), score_threshold=0.3)
    for got, wanted in zip(found, targets, strict=True):
        assert len(got) and got.labels is not None and wanted.labels is not None
        assert got.labels[0] == wanted.labels[0]
        assert (got.boxes[0] - wanted.boxes[0]).abs().max() < 6


@pytest.mark.parametrize("options", [{}, {"score_threshold": 0.0, "limit": 7}, {"suppression": "gaussian"}])
def test_decoding_is_that_of_every_detector(options: dict[str, Any]) -> None:
    model = small().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        outputs = model(make_images(64))
        outputs["logits"] = torch.randn(outputs["logits"].shape, generator=generator) - 2
        outputs["offsets"] = torch.randn(outputs["offsets"].shape, generator=generator) / 4
        found, expected = model.decode(outputs, **options), super(EfficientDet, model).decode(outputs, **options)
    for ours, plain in zip(found, expected, strict=True):
        assert 0 < len(ours) <= options.get("limit", 100)
        torch.testing.assert_close(ours.boxes, plain.boxes)
        torch.testing.assert_close(ours.scores, plain.scores)
        assert torch.equal(ours.labels, plain.labels)  # type: ignore[arg-type]
        assert ours.boxes.min() >= 0 and ours.boxes.max() <= 64


def test_it_exports_with_any_batch() -> None:
    model = small().eval()
    program = torch.export.export(model, (make_images(64),), dynamic_shapes=({0: Dim("batch", min=1, max=64)},))
    images = make_images(64, batch=3)
    with torch.no_grad():
        ours, theirs = model(images), program.module()(images)
    assert set(theirs) == {"logits", "offsets", "anchors", "size"}
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name])


def test_a_classifiers_weights_go_into_the_backbone() -> None:
    model = small()
    classifier = registry.create_model("mobilenet_v3_small", width=0.35, num_classes=7)
    missing = model.initialize_from(classifier.state_dict())
    assert all(not name.startswith("backbone") for name in missing)
    ours, theirs = model.backbone.backbone.stem.state_dict(), classifier.stem.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"channels": 0}, "channels"),
        ({"head_repeats": -1}, "head_repeats"),
        ({"octaves": 0}, "octaves"),
        ({"anchor_scale": 0.0}, "anchor_scale"),
        ({"aspects": [[1, 1, 1]]}, "aspects"),
        ({"aspects": []}, "aspects"),
        ({"prior": 1.0}, "prior"),
        ({"neck": "bifnp"}, "bifpn"),
        ({"fusion": "fats"}, "fast"),
        ({"neck_options": {"out_channels": 32}}, "channels=16"),
        ({"match_threshold": 0.4}, "background_threshold"),
        ({"backbone": "alexnet", "backbone_options": None}, "stride"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)


def test_wrong_inputs_are_refused() -> None:
    model = small().train()
    with pytest.raises(InputError, match="single cell"):
        model(make_images(64, batch=1))
    with pytest.raises(InputError, match="3 input channels"):
        model(torch.zeros(2, 1, 64, 64))
    model.eval()
    with pytest.raises(InputError, match="num_classes=4"):
        model.loss(model(make_images(64, batch=1)), [truth([[3, 3, 40, 40]], [3])])


def test_heads_share_convolutions_and_not_norms() -> None:
    head = small(head_repeats=2).class_head
    assert len(head.convs) == 2 and [len(norms) for norms in head.norms] == [5, 5]  # type: ignore[arg-type]
    assert isinstance(head.norms[0][0], nn.BatchNorm2d)  # type: ignore[index]
