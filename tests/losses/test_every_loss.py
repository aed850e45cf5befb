"""What every loss owes: its definition, its gradient, and sense at the edges. One case for each name.

The references are written one number at a time in plain Python, from the papers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.losses import create_loss, list_losses

Inputs = tuple[Tensor, ...]
Rows = Sequence[Sequence[float]]


# Scenes: predictions first, drawn once


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points() -> Inputs:
    return draw(7, 4) * 8, draw(7, 4, seed=4) * 8


def heatmaps() -> Inputs:
    return draw(7, 4), torch.rand(7, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def classes() -> Inputs:
    return draw(7, 5) * 3, torch.tensor([0, 1, -1, 3, 4, 2, 0])


def dense_classes() -> Inputs:
    return draw(2, 3, 5) * 3, torch.tensor([[0, 4, -1], [2, 2, 1]])


def labels_of_many() -> Inputs:
    targets = (draw(7, 5, seed=4) > 0).double()
    targets[0, :3] = torch.tensor([-1.0, 0.25, 1.0])
    return draw(7, 5) * 3, targets


def distributions() -> Inputs:
    targets = draw(7, 5, seed=4).softmax(dim=1)
    targets[0] = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0])
    return draw(7, 5) * 3, targets


def boxes() -> Inputs:
    corner, size = draw(7, 2), draw(7, 2, seed=4).abs() * 2 + 0.1
    other, extent = draw(7, 2, seed=5), draw(7, 2, seed=6).abs() * 2 + 0.1
    return torch.cat([corner, corner + size], 1), torch.cat([other, other + extent], 1)


def masks() -> Inputs:
    return draw(2, 3, 4), torch.tensor([[0, 2, -1, 1], [2, 2, 2, 0]])


def embeddings() -> Inputs:
    return draw(8, 4), torch.tensor([0, 1, 0, 2, 1, 0, 3, -1])


def pairs() -> Inputs:
    return draw(6, 3) / 2, draw(6, 3, seed=4) / 2, torch.tensor([1, 0, 1, 0, 0, 1])


def scores() -> Inputs:
    return draw(6), draw(6, seed=4), torch.tensor([1, -1, 1, -1, -1, 1])


def texts() -> Inputs:
    return draw(4, 3, 3), torch.tensor([[1, 2], [2, 2], [-1, -1]])


# References


def mean_of(term: Callable[[float, float], float]) -> Callable[[Tensor, Tensor], float]:
    def plain(predictions: Tensor, targets: Tensor) -> float:
        terms = [term(p, t) for p, t in zip(predictions.flatten().tolist(), targets.flatten().tolist(), strict=True)]
        return sum(terms) / len(terms)

    return plain


def smooth_l1(beta: float) -> Callable[[float, float], float]:
    return lambda p, t: (p - t) ** 2 / (2 * beta) if abs(p - t) < beta else abs(p - t) - beta / 2


def wing(w: float, epsilon: float) -> Callable[[float, float], float]:
    c = w - w * math.log(1 + w / epsilon)
    return lambda p, t: w * math.log(1 + abs(p - t) / epsilon) if abs(p - t) < w else abs(p - t) - c


def adaptive_wing(p: float, y: float, omega: float = 14, theta: float = 0.5, eps: float = 1, alpha: float = 2.1):
    """As the paper writes A and C."""
    a = omega * (1 / (1 + (theta / eps) ** (alpha - y))) * (alpha - y) * (theta / eps) ** (alpha - y - 1) / eps
    c = theta * a - omega * math.log(1 + (theta / eps) ** (alpha - y))
    e = abs(y - p)
    return omega * math.log(1 + (e / eps) ** (alpha - y)) if e < theta else a * e - c


def softmax(row: Sequence[float]) -> list[float]:
    total = sum(math.exp(z) for z in row)
    return [math.exp(z) / total for z in row]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def focal_softmax(gamma: float, weight: Sequence[float] = (1,) * 5) -> Callable[[Tensor, Tensor], float]:
    def plain(logits: Tensor, labels: Tensor) -> float:
        rows, flat = logits.flatten(end_dim=-2).tolist(), labels.flatten().tolist()
        terms = [
            -weight[t] * (1 - softmax(z)[t]) ** gamma * math.log(softmax(z)[t])
            for z, t in zip(rows, flat, strict=True)
            if t >= 0
        ]
        return sum(terms) / len(terms)

    return plain


def soft_focal(logits: Tensor, targets: Tensor) -> float:
    total = 0.0
    for z, y in zip(logits.tolist(), targets.tolist(), strict=True):
        total -= sum(t * abs(t - p) ** 1.5 * math.log(p) for t, p in zip(y, softmax(z), strict=True))
    return total / len(logits)


def binary(logits: Tensor, targets: Tensor, alpha: float | None = None, gamma: float = 0) -> list[float]:
    """The terms of what is not ignored: -alpha_t (1 - p_t)^gamma log p_t for 0 and 1, and a mixture between."""
    terms = []
    for z, t in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = sigmoid(z)
        share = 1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
        entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
        terms += [share * (1 - (p * t + (1 - p) * (1 - t))) ** gamma * entropy] if t != -1 else []
    return terms


def mean_binary(logits: Tensor, targets: Tensor) -> float:
    terms = binary(logits, targets)
    return sum(terms) / len(terms)


def kl(logits: Tensor, targets: Tensor) -> float:
    total = 0.0
    for z, y in zip(logits.tolist(), targets.tolist(), strict=True):
        total += sum(t * math.log(t / p) for t, p in zip(y, softmax(z), strict=True) if t > 0)
    return total / len(logits)


def box(kind: str) -> Callable[[Tensor, Tensor], float]:
    def term(a: list[float], b: list[float]) -> float:
        width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        sizes = [(c[2] - c[0], c[3] - c[1]) for c in (a, b)]
        union = sum(w * h for w, h in sizes) - width * height
        iou = width * height / union
        outer = (max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
        if kind == "iou":
            return 1 - iou
        if kind == "giou":
            return 1 - iou + (outer[0] * outer[1] - union) / (outer[0] * outer[1])
        apart = sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
        diou = 1 - iou + apart / (outer[0] ** 2 + outer[1] ** 2)
        v = 4 / math.pi**2 * (math.atan(sizes[1][0] / sizes[1][1]) - math.atan(sizes[0][0] / sizes[0][1])) ** 2
        return diou if kind == "diou" else diou + v * v / (1 - iou + v)

    return lambda p, t: sum(map(term, p.tolist(), t.tolist())) / len(p)


def dice(logits: Tensor, labels: Tensor) -> float:
    """V-Net's, softmax over classes, pixel by pixel."""
    terms = []
    for image, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        columns = [softmax([row[i] for row in image]) for i in range(len(truth))]
        for k in range(len(image)):
            seen = [(column[k], float(t == k)) for column, t in zip(columns, truth, strict=True) if t != -1]
            shared, sizes = sum(p * y for p, y in seen), sum(p * p + y * y for p, y in seen)
            terms.append(1 - (2 * shared + 1) / (sizes + 1))
    return sum(terms) / len(terms)


def jaccard(logits: Tensor, labels: Tensor) -> float:
    """As Dice, with the union below."""
    terms = []
    for image, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        columns = [softmax([row[i] for row in image]) for i in range(len(truth))]
        for k in range(len(image)):
            seen = [(column[k], float(t == k)) for column, t in zip(columns, truth, strict=True) if t != -1]
            shared, union = sum(p * y for p, y in seen), sum(p + y - p * y for p, y in seen)
            terms.append(1 - (shared + 1) / (union + 1))
    return sum(terms) / len(terms)


def lovasz_extension(errors: list[float], truth: list[int]) -> float:
    """Of 1 - IoU, by its definition: the largest errors first, each times what its pixel adds to the loss."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, before = 0.0, 0.0
    for count in range(1, len(order) + 1):
        wrong = set(order[:count])
        right = sum(truth[i] for i in range(len(truth)) if i not in wrong)
        union = sum(1 for i in range(len(truth)) if truth[i] or i in wrong)
        loss = 1 - right / union
        total, before = total + max(0.0, errors[order[count - 1]]) * (loss - before), loss
    return total


def lovasz(logits: Tensor, labels: Tensor) -> float:
    """Softmax over the classes; all images together, classes that are there alone."""
    columns = [
        (softmax(column), t)
        for image, truth in zip(logits.movedim(1, -1).tolist(), labels.tolist(), strict=True)
        for column, t in zip(image, truth, strict=True)
        if t != -1
    ]
    there = sorted({t for _, t in columns})
    terms = [lovasz_extension([abs((t == k) - p[k]) for p, t in columns], [t == k for _, t in columns]) for k in there]
    return sum(terms) / len(terms)


def contrastive(first: Tensor, second: Tensor, same: Tensor) -> float:
    distances = [math.dist(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    terms = [d * d / 2 if s else max(0, 1.5 - d) ** 2 / 2 for d, s in zip(distances, same.tolist(), strict=True)]
    return sum(terms) / len(terms)


def ranking(first: Tensor, second: Tensor, order: Tensor) -> float:
    terms = [
        max(0, -o * (a - b) + 0.3) for a, b, o in zip(first.tolist(), second.tolist(), order.tolist(), strict=True)
    ]
    return sum(terms) / len(terms)


def triplets(mining: str, squared: bool = False) -> Callable[[Tensor, Tensor], float]:
    """Loops over anchors, positives and negatives; margin 0.2."""

    def plain(vectors: Tensor, labels: Tensor) -> float:
        points, names, terms = vectors.tolist(), labels.tolist(), []
        known = [i for i, name in enumerate(names) if name != -1]
        for a in known:
            away = [math.dist(points[a], p) ** (2 if squared else 1) for p in points]
            positives = [away[i] for i in known if names[i] == names[a] and i != a]
            negatives = [away[i] for i in known if names[i] != names[a]]
            if not positives or not negatives:
                continue
            if mining == "batch_hard":
                chosen = [(max(positives), min(negatives))]
            elif mining == "semi_hard":
                chosen = [(p, min([n for n in negatives if n > p] or [max(negatives)])) for p in positives]
            else:
                chosen = list(itertools.product(positives, negatives))
            terms += [max(0.0, p - n + 0.2) for p, n in chosen]
        terms = [t for t in terms if t > 0] if mining == "batch_all_nonzero" else terms
        return sum(terms) / len(terms)

    return plain


def ctc(logits: Tensor, targets: Tensor) -> float:
    """Every path of the network, read by dropping repeats and blanks, summed where it reads as the target."""
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        wanted = [t for t in target if t != -1]
        steps = [softmax(z) for z in logits[:, row].tolist()]
        probability = 0.0
        for path in itertools.product(range(3), repeat=len(steps)):
            if [k for k, _ in itertools.groupby(path) if k != 0] == wanted:
                probability += math.prod(p[k] for p, k in zip(steps, path, strict=True))
        total -= math.log(probability) / max(1, len(wanted))
    return total / len(targets)


def centre(vectors: Tensor, labels: Tensor) -> float:
    """All centres at zero, as they start."""
    terms = [sum(x * x for x in v) / 2 for v, t in zip(vectors.tolist(), labels.tolist(), strict=True) if t != -1]
    return sum(terms) / len(terms)


# Cases


@dataclass(frozen=True)
class Case:
    name: str
    scene: Callable[[], Inputs]
    plain: Callable[..., float]
    options: dict[str, Any] = field(default_factory=dict)
    batch_dim: int = 0

    def build(self) -> nn.Module:
        return create_loss(self.name, **self.options).double().eval()

    def empty(self) -> Inputs:
        return tuple(
            x.narrow(min(self.batch_dim, x.ndim - 1) if i == 0 else 0, 0, 0) for i, x in enumerate(self.scene())
        )

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items() if not isinstance(v, list | dict))])


CLASS_WEIGHTS = [1.0, 0.5, 3.0, 0.0, 2.0]
CASES = [
    Case("l1", points, mean_of(lambda p, t: abs(p - t))),
    Case("l2", points, mean_of(lambda p, t: (p - t) ** 2)),
    Case("sse", points, lambda p, t: mean_of(lambda p, t: (p - t) ** 2)(p, t) * p.numel()),
    Case("smooth_l1", points, mean_of(smooth_l1(1.0))),
    Case("smooth_l1", points, mean_of(smooth_l1(4.0)), {"beta": 4}),
    Case("huber", points, mean_of(lambda p, t: 4 * smooth_l1(4.0)(p, t)), {"beta": 4.0}),
    Case("wing", points, mean_of(wing(10, 2))),
    Case("wing", points, mean_of(wing(5, 0.5)), {"width": 5, "epsilon": 0.5}),
    Case("adaptive_wing", heatmaps, mean_of(adaptive_wing)),
    Case("cross_entropy", classes, focal_softmax(0)),
    Case("bce", labels_of_many, mean_binary),
    Case("softmax_cross_entropy", dense_classes, focal_softmax(0)),
    Case("softmax_cross_entropy", distributions, lambda z, y: kl(z, y) + entropy(y)),
    Case("sigmoid_cross_entropy", labels_of_many, mean_binary),
    Case("focal", labels_of_many, lambda z, t: sum(binary(z, t, 0.25, 2))),
    Case("focal", labels_of_many, lambda z, t: sum(binary(z, t, None, 0.5)), {"alpha": None, "gamma": 0.5}),
    Case("softmax_focal", dense_classes, focal_softmax(2)),
    Case("softmax_focal", classes, focal_softmax(0.5, CLASS_WEIGHTS), {"gamma": 0.5, "weight": CLASS_WEIGHTS}),
    Case("softmax_focal", distributions, soft_focal, {"gamma": 1.5}),
    Case("kl", distributions, kl),
    Case("iou", boxes, box("iou")),
    Case("giou", boxes, box("giou")),
    Case("diou", boxes, box("diou")),
    Case("ciou", boxes, box("ciou")),
    Case("dice", masks, dice),
    Case("jaccard", masks, jaccard),
    Case("lovasz", masks, lovasz),
    Case("contrastive", pairs, contrastive, {"margin": 1.5}),
    Case("margin_ranking", scores, ranking, {"margin": 0.3}),
    Case("triplet", embeddings, triplets("batch_hard")),
    Case("triplet", embeddings, triplets("batch_all"), {"mining": "batch_all"}),
    Case("triplet", embeddings, triplets("batch_all_nonzero"), {"mining": "batch_all_nonzero"}),
    Case("triplet", embeddings, triplets("semi_hard", True), {"mining": "semi_hard", "squared": True}),
    Case("ctc", texts, ctc, batch_dim=1),
    Case("centre", embeddings, centre, {"num_classes": 4, "features": 4}),
    Case(
        "weighted_sum",
        classes,
        lambda z, t: focal_softmax(0)(z, t) + 0.003 * centre(z, t),
        {
            "criteria": {"cross_entropy": None, "centre": {"num_classes": 5, "features": 5}},
            "weights": {"centre": 0.003},
        },
    ),
]
IGNORING = {"cross_entropy", "bce", "softmax_cross_entropy", "sigmoid_cross_entropy", "focal", "softmax_focal", "dice"}
IGNORING |= {"jaccard", "lovasz", "triplet", "centre", "weighted_sum"}


def entropy(targets: Tensor) -> float:
    return -sum(t * math.log(t) for t in targets.flatten().tolist() if t > 0) / len(targets)


def test_every_loss_has_a_case() -> None:
    assert {case.name for case in CASES} == set(list_losses())


@pytest.mark.parametrize("case", CASES, ids=str)
class TestEveryLoss:
    def test_equals_its_definition(self, case: Case) -> None:
        inputs = case.scene()
        assert case.build()(*inputs).item() == pytest.approx(case.plain(*inputs), rel=1e-6)

    def test_finite_at_extremes(self, case: Case) -> None:
        predictions, *rest = case.scene()
        for sign in (1, -1):
            extreme = (sign * 100 * predictions.sign()).float().requires_grad_()
            loss = case.build().float()(extreme, *(x.float() if x.is_floating_point() else x for x in rest))
            (gradient,) = torch.autograd.grad(loss, extreme)
            assert loss.isfinite()
            assert gradient.isfinite().all()

    def test_nothing_to_learn_is_zero_with_a_gradient(self, case: Case) -> None:
        predictions, *rest = case.empty()
        assert predictions.numel() == 0
        loss = case.build()(predictions.requires_grad_(), *rest)
        loss.backward()
        assert loss.item() == 0
        assert predictions.grad is not None

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, case: Case, dtype: torch.dtype) -> None:
        # 100: the squares of the errors are beyond float16
        rounded = [
            (x * 100 if i == 0 else x).to(dtype) if x.is_floating_point() else x for i, x in enumerate(case.scene())
        ]
        full = [x.float() if x.is_floating_point() else x for x in rounded]
        criterion = case.build().float()
        loss = criterion(*rounded)
        assert loss.dtype is torch.float32
        assert loss.isfinite()
        torch.testing.assert_close(loss, criterion(*full))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(criterion(*full), loss, rtol=0, atol=0)

    def test_nan_predictions_are_not_hidden(self, case: Case) -> None:
        predictions, *rest = case.scene()
        predictions[1] = math.nan  # of row 0 something may be ignored
        assert case.build()(predictions, *rest).isnan()

    def test_other_shapes_are_named(self, case: Case) -> None:
        predictions, second, *rest = case.scene()
        wrong = torch.cat([second, second[:1]])
        with pytest.raises(InputError) as caught:
            case.build()(predictions, wrong, *rest)
        assert str(tuple(wrong.shape)) in str(caught.value)
        assert str(tuple(predictions.shape)) in str(caught.value)

    def test_whole_numbers_are_no_predictions(self, case: Case) -> None:
        predictions, *rest = case.scene()
        with pytest.raises(InputError, match=r"floating-point type, got torch\.int64"):
            case.build()(predictions.long(), *rest)


# alpha of CIoU is not differentiated on purpose: its gradient is held equal to torchvision's in test_box_losses
@pytest.mark.parametrize("case", [case for case in CASES if case.name != "ciou"], ids=str)
def test_gradient(case: Case) -> None:
    predictions, *rest = case.scene()
    criterion = case.build()
    assert torch.autograd.gradcheck(lambda x: criterion(x, *rest), predictions.requires_grad_())


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in IGNORING and case.scene is not distributions], ids=str
)
def test_all_ignored_is_zero_with_a_gradient(case: Case) -> None:
    predictions, targets = case.scene()
    loss = case.build()(predictions.requires_grad_(), torch.full_like(targets, -1))
    loss.backward()
    assert loss.item() == 0
    assert predictions.grad is not None
    assert (predictions.grad == 0).all()


@pytest.mark.parametrize("case", [case for case in CASES if case.scene()[1].is_floating_point()], ids=str)
def test_nan_targets_are_named(case: Case) -> None:
    inputs = case.scene()
    place = (2, 1)[: inputs[1].ndim]
    inputs[1][place] = math.nan
    with pytest.raises(InputError, match=r"targets hold nan at \(2,( 1)?\)"):
        case.build()(*inputs)


# torch's CTC itself reads the lengths
@pytest.mark.parametrize("case", [case for case in CASES if case.name != "ctc"], ids=str)
def test_values_are_not_read_on_an_accelerator(case: Case) -> None:
    """The meta device has no values: whatever would wait for a GPU to tell one fails here."""
    criterion = case.build().train().to("meta")
    predictions, *rest = (x.to("meta") for x in case.scene())
    criterion(predictions.requires_grad_(), *rest).backward()
