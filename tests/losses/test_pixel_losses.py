"""Losses of maps of classes, with none, half and all of the pixels ignored: plain versions and another library's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.errors import InputError
from opsin.losses import create_pixel_loss, dice_loss, list_pixel_losses, lovasz_loss
from opsin.losses.pixels import pixel_cross_entropy, pixel_focal_loss, pixel_sigmoid_focal_loss

K, IGNORED = 4, [0.0, 0.5, 1.0]
Case = tuple[str, dict[str, Any]]
CASES: list[Case] = [
    ("cross_entropy", {}),
    ("cross_entropy", {"weight": [1.0, 0.5, 3.0, 0.0]}),
    ("cross_entropy", {"smoothing": 0.1}),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "weight": [1.0, 0.5, 3.0, 0.0]}),
    ("sigmoid_focal", {}),
    ("sigmoid_focal", {"alpha": None, "gamma": 1.5, "weight": [1.0, 0.5, 3.0, 0.0]}),
    ("dice", {}),
    ("dice", {"squared": False, "smooth": 0.0, "per_image": False, "only_present": True}),
    ("jaccard", {}),
    ("jaccard", {"per_image": False, "only_present": True, "smooth": 0.5}),
    ("lovasz", {}),
    ("lovasz", {"per_image": True}),
    ("weighted_sum", {"criteria": {"cross_entropy": None, "dice": {"smooth": 0.0}}, "weights": {"dice": 2.0}}),
]


def scene(ignored: float, *, overlapping: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and weights; the last class is never there."""
    generator = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(2, K, 5, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 5, 6, generator=generator, dtype=torch.float64) * 3
    if overlapping:
        labels = torch.rand(2, K, 5, 6, generator=generator) < 0.4
        labels[:, -1] = False
        return logits, labels, weights
    labels = torch.randint(0, K - 1, (2, 5, 6), generator=generator)
    hidden = torch.rand(2, 5, 6, generator=generator) < ignored
    return logits, labels.masked_fill(hidden, -1), weights


# Plain versions: pixel by pixel, in numbers


class Pixel:
    """One pixel of which something is known: its logits, of each class whether it is there, and what it counts."""

    def __init__(self, image: int, z: list[float], y: list[int], w: float, exclusive: bool) -> None:
        self.image, self.z, self.y, self.w = image, z, y, w
        total = sum(math.exp(v) for v in z)
        self.p = [math.exp(v) / total if exclusive else 1 / (1 + math.exp(-v)) for v in z]


def pixels_of(logits: Tensor, labels: Tensor, weights: Tensor | None) -> list[Pixel]:
    found, exclusive = [], labels.dtype != torch.bool
    for image in range(len(logits)):
        for row in range(5):
            for column in range(6):
                own = labels[image, ..., row, column].tolist()
                if own == -1:
                    continue
                y = [int(own == k) for k in range(K)] if exclusive else [int(one) for one in own]
                w = 1.0 if weights is None else float(weights[image, row, column])
                found.append(Pixel(image, logits[image, :, row, column].tolist(), y, w, exclusive))
    return found


def entropies(pixel: Pixel, exclusive: bool, smoothing: float, weight: list[float]) -> float:
    if exclusive:
        soft = [y * (1 - smoothing) + smoothing / K for y in pixel.y]
        return -sum(c * y * math.log(p) for c, y, p in zip(weight, soft, pixel.p, strict=True))
    terms = []
    for c, y, z in zip(weight, pixel.y, pixel.z, strict=True):
        soft, p = y * (1 - smoothing) + smoothing / 2, 1 / (1 + math.exp(-z))
        terms.append(-c * (soft * math.log(p) + (1 - soft) * math.log(1 - p)))
    return sum(terms) / K


def sigmoid_focal(pixel: Pixel, gamma: float, alpha: float | None, weight: list[float]) -> float:
    terms = []
    for c, y, z in zip(weight, pixel.y, pixel.z, strict=True):
        p = 1 / (1 + math.exp(-z))
        own = p if y else 1 - p
        share = 1.0 if alpha is None else alpha if y else 1 - alpha
        terms.append(-c * share * (1 - own) ** gamma * math.log(own))
    return sum(terms) / K


def plain_cross_entropy(pixels: list[Pixel], exclusive: bool, options: dict[str, Any]) -> float:
    weight = options.get("weight", [1.0] * K)
    total = sum(one.w * entropies(one, exclusive, options.get("smoothing", 0.0), weight) for one in pixels)
    mass = sum(one.w * (weight[one.y.index(1)] if exclusive else 1.0) for one in pixels)
    return total / mass


def plain_focal(pixels: list[Pixel], exclusive: bool, options: dict[str, Any], sigmoid: bool) -> float:
    gamma, weight = options.get("gamma", 2.0), options.get("weight", [1.0] * K)
    total = 0.0
    for one in pixels:
        if exclusive and not sigmoid:
            k = one.y.index(1)
            total -= one.w * weight[k] * (1 - one.p[k]) ** gamma * math.log(one.p[k])
        else:
            total += one.w * sigmoid_focal(one, gamma, options.get("alpha", 0.25) if sigmoid else None, weight)
    return total / sum(one.w for one in pixels)


def plain_regions(pixels: list[Pixel], options: dict[str, Any], jaccard: bool) -> float:
    smooth, squared = options.get("smooth", 1.0), options.get("squared", True)
    terms = []
    for image in range(2) if options.get("per_image", True) else [None]:
        own = [one for one in pixels if image is None or one.image == image]
        for k in range(K):
            shared = sum(one.w * one.p[k] * one.y[k] for one in own)
            truth = sum(one.w * one.y[k] for one in own)
            found = sum(one.w * one.p[k] for one in own)
            square = sum(one.w * one.p[k] ** 2 for one in own)
            if options.get("only_present") and not truth:
                continue
            if jaccard:
                terms.append(1 - (shared + smooth) / (found + truth - shared + smooth))
            else:
                terms.append(1 - (2 * shared + smooth) / ((square if squared else found) + truth + smooth))
    return sum(terms) / len(terms)


def plain_lovasz(pixels: list[Pixel], exclusive: bool, options: dict[str, Any]) -> float:
    images = []
    for image in range(2) if options.get("per_image") else [None]:
        own, terms = [one for one in pixels if image is None or one.image == image], []
        for k in range(K):
            if exclusive and not any(one.y[k] for one in own):
                continue
            errors = [
                (abs(one.y[k] - one.p[k]) if exclusive else 1 - one.z[k] * (2 * one.y[k] - 1), one.y[k], one.w)
                for one in own
            ]
            errors.sort(key=lambda error: -error[0])
            whole = sum(w for _, y, w in errors if y)
            right, union, before, total = whole, whole, 0.0, 0.0
            for error, y, w in errors:  # one after the other becomes wrong
                right, union = right - w * y, union + w * (1 - y)
                loss = 1 - right / union
                total, before = total + max(0.0, error) * (loss - before), loss
            terms.append(total)
        images.append(sum(terms) / len(terms))
    return sum(images) / len(images)


def plain(case: Case, logits: Tensor, labels: Tensor, weights: Tensor | None) -> float:
    name, options = case
    pixels, exclusive = pixels_of(logits, labels, weights), labels.dtype != torch.bool
    if not pixels:
        return 0.0
    if name == "weighted_sum":
        dice = plain_regions(pixels, options["criteria"]["dice"], False)
        return plain_cross_entropy(pixels, exclusive, {}) + 2 * dice
    if name == "cross_entropy":
        return plain_cross_entropy(pixels, exclusive, options)
    if name in ("focal", "sigmoid_focal"):
        return plain_focal(pixels, exclusive, options, name == "sigmoid_focal")
    if name == "lovasz":
        return plain_lovasz(pixels, exclusive, options)
    return plain_regions(pixels, options, name == "jaccard")


def build(case: Case) -> nn.Module:
    return create_pixel_loss(case[0], **case[1]).double()


def test_every_loss_of_pixels_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(list_pixel_losses())


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *case[1]]))
class TestEveryLossOfPixels:
    @pytest.mark.parametrize("ignored", IGNORED)
    def test_equals_its_definition(self, case: Case, weighted: bool, ignored: float) -> None:
        logits, labels, weights = scene(ignored)
        given = weights if weighted else None
        logits.requires_grad_()
        loss = build(case)(logits, labels, given)
        assert loss.item() == pytest.approx(plain(case, logits, labels, given), rel=1e-9, abs=1e-12)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()
        assert (gradient[(labels == -1)[:, None].expand_as(gradient)] == 0).all()

    def test_equals_its_definition_where_classes_overlap(self, case: Case, weighted: bool) -> None:
        logits, labels, weights = scene(0.0, overlapping=True)
        given = weights if weighted else None
        assert build(case)(logits, labels, given).item() == pytest.approx(plain(case, logits, labels, given), rel=1e-9)

    def test_gradient(self, case: Case, weighted: bool) -> None:
        logits, labels, weights = scene(0.5)
        criterion, given = build(case), weights if weighted else None
        small = logits[:, :, :2, :2].clone().requires_grad_()
        some = None if given is None else given[:, :2, :2]
        assert torch.autograd.gradcheck(lambda z: criterion(z, labels[:, :2, :2], some), small)


def test_a_weight_of_zero_is_as_good_as_ignored() -> None:
    logits, labels, _ = scene(0.5)
    _, known, _ = scene(0.0)
    weights = (labels >= 0).double()
    for case in CASES:
        assert build(case)(logits, known, weights).item() == pytest.approx(build(case)(logits, labels).item()), case


def test_whole_map_of_one_class_and_hard_predictions() -> None:
    labels = torch.randint(0, K, (2, 8, 9), generator=torch.Generator().manual_seed(0))
    found = torch.randint(0, K, (2, 8, 9), generator=torch.Generator().manual_seed(1))
    hard = 200.0 * F.one_hot(found, K).movedim(-1, 1).double()
    ious = [float(((found == k) & (labels == k)).sum() / ((found == k) | (labels == k)).sum()) for k in range(K)]
    expected = 1 - sum(ious) / K
    assert lovasz_loss(hard, labels).item() == pytest.approx(expected)
    assert build(("jaccard", {"smooth": 0.0, "per_image": False}))(hard, labels).item() == pytest.approx(expected)
    dices = 1 - sum(2 * iou / (1 + iou) for iou in ious) / K
    assert dice_loss(hard, labels, smooth=0.0, per_image=False).item() == pytest.approx(dices)


@pytest.mark.parametrize("ignored", IGNORED)
class TestAgainstTorch:
    def test_cross_entropy(self, ignored: float) -> None:
        logits, labels, _ = scene(ignored)
        weight = torch.tensor([1.0, 0.5, 3.0, 0.0], dtype=torch.float64)
        expected = F.cross_entropy(logits, labels, weight, ignore_index=-1) if ignored < 1 else torch.tensor(0.0)
        assert pixel_cross_entropy(logits, labels, weight=weight).item() == pytest.approx(expected.item())

    def test_no_focus_is_cross_entropy(self, ignored: float) -> None:
        logits, labels, weights = scene(ignored)
        focal, plain = (
            f(logits, labels, weights) for f in (lambda *a: pixel_focal_loss(*a, gamma=0), pixel_cross_entropy)
        )
        assert focal.item() == pytest.approx(plain.item())


@pytest.mark.parametrize("ignored", [0.0, 0.5])  # of nothing known theirs are NaN or fail
class TestAgainstSegmentationModels:
    def test_regions(self, ignored: float) -> None:
        smp = pytest.importorskip("segmentation_models_pytorch.losses")
        logits, labels, _ = scene(ignored)
        options = {"smooth": 0.0, "per_image": False, "only_present": True}
        share = (K - 1) / K  # they divide by all classes, and the last is never there
        dice = smp.DiceLoss("multiclass", ignore_index=-1)(logits, labels.clone())
        assert share * build(("dice", {**options, "squared": False}))(logits, labels).item() == pytest.approx(
            dice.item()
        )
        jaccard = smp.JaccardLoss("multiclass", ignore_index=-1)(logits, labels.clone())
        assert share * build(("jaccard", options))(logits, labels).item() == pytest.approx(jaccard.item())

    @pytest.mark.parametrize("per_image", [False, True])
    def test_lovasz(self, ignored: float, per_image: bool) -> None:
        smp = pytest.importorskip("segmentation_models_pytorch.losses")
        logits, labels, _ = scene(ignored)
        expected = smp.LovaszLoss("multiclass", per_image=per_image, ignore_index=-1)(logits.float(), labels)
        assert lovasz_loss(logits, labels, per_image=per_image).item() == pytest.approx(expected.item())

    def test_hinge_and_focal(self, ignored: float) -> None:
        smp = pytest.importorskip("segmentation_models_pytorch.losses")
        logits, labels, _ = scene(ignored)
        focal = smp.FocalLoss("multiclass", alpha=0.25, ignore_index=-1)(logits, labels)
        ours = pixel_sigmoid_focal_loss(logits, labels)  # they add up over the classes, and take their mean
        assert ours.item() == pytest.approx(focal.item(), rel=1e-4)
        _, masks, _ = scene(0.0, overlapping=True)
        hinge = smp.LovaszLoss("binary")(logits[:, 0].float(), masks[:, 0].long())
        assert lovasz_loss(logits[:, :1], masks[:, :1]).item() == pytest.approx(hinge.item())


def test_options_and_shapes_are_checked() -> None:
    logits, labels, weights = scene(0.5)
    with pytest.raises(InputError, match="unknown option of dice 'smoth'"):
        create_pixel_loss("dice", smoth=1)
    with pytest.raises(InputError, match="unknown loss of pixels 'dise'"):
        create_pixel_loss("dise")
    with pytest.raises(InputError, match="weight has 3 numbers, the model 4 classes"):
        build(("focal", {"weight": [1.0, 2.0, 3.0]}))(logits, labels)
    for case in CASES:
        if case[0] != "weighted_sum":
            with pytest.raises(InputError, match=r"\(2, 4, 6\)"):
                build(case)(logits, labels[:, 1:], None)
            with pytest.raises(InputError, match=r"\(2, 4, 6\)"):
                build(case)(logits, labels, weights[:, 1:])
    with pytest.raises(InputError, match="labels hold 4"):
        build(("dice", {}))(logits, labels.clamp(min=4))
