"""Cross-entropy and binary cross-entropy: plain references in float64, degenerate cases, gradients, empty batches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError
from opsin.losses import BinaryCrossEntropy, CrossEntropy, binary_cross_entropy, create_loss, cross_entropy

SMOOTHING = [0.0, 0.1]
WEIGHTS = [None, torch.tensor([1.0, 0.5, 3.0, 0.0, 2.0], dtype=torch.float64)]
HALF = [torch.float16, torch.bfloat16]


def scene(rows: int = 7, classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    return logits, torch.tensor([0, 1, 2, 3, 4, 2, 0])[:rows] % classes


def plain_cross_entropy(logits: Tensor, rows: list[list[float]], weight: Tensor | None, smoothing: float) -> float:
    """The definition, one number at a time. A row of zeros is an ignored example."""
    total = mass = 0.0
    for z, target in zip(logits.tolist(), rows, strict=True):
        if not any(target):
            continue
        log_sum = math.log(sum(math.exp(v) for v in z))
        for k, share in enumerate(target):
            w = 1.0 if weight is None else float(weight[k])
            total -= w * ((1 - smoothing) * share + smoothing / len(z)) * (z[k] - log_sum)
            mass += w * share
    return total / mass


def plain_binary(logits: Tensor, targets: Tensor, weight: list[float], pos_weight: list[float], eps: float) -> float:
    terms = []
    for z_row, t_row in zip(logits.tolist(), targets.tolist(), strict=True):
        for k, (z, t) in enumerate(zip(z_row, t_row, strict=True)):
            if t == -1:
                continue
            t = t * (1 - eps) + eps / 2
            p = 1 / (1 + math.exp(-z))
            terms.append(-weight[k] * (pos_weight[k] * t * math.log(p) + (1 - t) * math.log(1 - p)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted"])
class TestCrossEntropy:
    def test_equals_the_definition(self, weight: Tensor | None, smoothing: float) -> None:
        logits, labels = scene()
        labels[1] = -1
        rows = [[float(k == label) for k in range(5)] for label in labels.tolist()]
        got = cross_entropy(logits, labels, weight, smoothing)
        assert got.item() == pytest.approx(plain_cross_entropy(logits, rows, weight, smoothing), rel=1e-12)

    def test_soft_targets_equal_the_definition(self, weight: Tensor | None, smoothing: float) -> None:
        logits, _ = scene()
        soft = torch.softmax(logits.flip(0), dim=1)
        got = cross_entropy(logits, soft, weight, smoothing)
        assert got.item() == pytest.approx(plain_cross_entropy(logits, soft.tolist(), weight, smoothing), rel=1e-12)

    def test_is_torchs_for_class_indices(self, weight: Tensor | None, smoothing: float) -> None:
        logits, labels = scene()
        expected = F.cross_entropy(logits, labels, weight, label_smoothing=smoothing)
        torch.testing.assert_close(cross_entropy(logits, labels, weight, smoothing), expected, rtol=1e-12, atol=0)

    def test_one_hot_is_the_class(self, weight: Tensor | None, smoothing: float) -> None:
        logits, labels = scene()
        soft = F.one_hot(labels, 5).double()
        hard = cross_entropy(logits, labels, weight, smoothing)
        torch.testing.assert_close(cross_entropy(logits, soft, weight, smoothing), hard, rtol=1e-12, atol=0)

    def test_gradient(self, weight: Tensor | None, smoothing: float) -> None:
        logits, labels = scene()
        labels[0] = -1
        logits.requires_grad_()
        soft = torch.softmax(logits.detach().flip(0), dim=1)
        assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels, weight, smoothing), logits)
        assert torch.autograd.gradcheck(lambda x: cross_entropy(x, soft, weight, smoothing), logits)


def test_an_ignored_label_changes_nothing() -> None:
    logits, labels = scene()
    padded = torch.cat([logits, torch.full((2, 5), 1e4, dtype=torch.float64)])
    ignored = torch.cat([labels, torch.tensor([-1, -1])])
    torch.testing.assert_close(cross_entropy(padded, ignored), cross_entropy(logits, labels))


@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_binary_equals_the_definition(smoothing: float) -> None:
    logits, _ = scene()
    targets = (logits.flip(0) > 0).double()
    targets[0, :3] = torch.tensor([-1.0, 0.25, 1.0])
    weight, pos_weight = [1.0, 2.0, 0.5, 1.0, 0.0], [3.0, 1.0, 1.0, 0.1, 9.0]
    got = binary_cross_entropy(logits, targets, torch.tensor(weight), torch.tensor(pos_weight), smoothing)
    # 1e-7: the weights 0.1 above are float32
    assert got.item() == pytest.approx(plain_binary(logits, targets, weight, pos_weight, smoothing), rel=1e-7)


def test_binary_is_torchs() -> None:
    logits, _ = scene()
    targets = (logits.flip(0) > 0).double()
    torch.testing.assert_close(
        binary_cross_entropy(logits, targets), F.binary_cross_entropy_with_logits(logits, targets)
    )


def test_binary_takes_class_indices_as_one_hot() -> None:
    logits, labels = scene()
    expected = binary_cross_entropy(logits[1:], F.one_hot(labels[1:], 5).double())
    labels[0] = -1
    torch.testing.assert_close(binary_cross_entropy(logits, labels), expected)


def test_binary_of_two_classes_is_cross_entropy() -> None:
    """A sigmoid of the difference is a softmax of two."""
    logits, labels = scene(classes=2)
    difference = (logits[:, 1] - logits[:, 0])[:, None]
    torch.testing.assert_close(
        binary_cross_entropy(difference, labels[:, None].double()), cross_entropy(logits, labels)
    )


def test_binary_gradient() -> None:
    logits, _ = scene()
    targets = (logits.flip(0) > 0).double()
    targets[2] = -1
    pos_weight = torch.tensor([3.0, 1.0, 1.0, 0.1, 9.0])
    function = lambda x: binary_cross_entropy(x, targets, None, pos_weight, 0.1)  # noqa: E731
    assert torch.autograd.gradcheck(function, logits.requires_grad_())


@pytest.mark.parametrize(
    "criterion", [CrossEntropy(), CrossEntropy(0.1), BinaryCrossEntropy(), BinaryCrossEntropy(0.1)]
)
class TestEveryCriterion:
    def test_finite_at_extreme_logits(self, criterion: torch.nn.Module) -> None:
        logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
        for labels in (torch.tensor([0, 1]), torch.tensor([1, 0])):
            loss = criterion(logits, labels)
            (gradient,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite()
            assert gradient.isfinite().all()

    @pytest.mark.parametrize("targets", ["empty", "soft and empty", "ignored"])
    def test_nothing_to_learn_is_zero_with_a_gradient(self, criterion: torch.nn.Module, targets: str) -> None:
        logits = torch.randn(3 if targets == "ignored" else 0, 5, requires_grad=True)
        labels = {
            "empty": torch.zeros(0, dtype=torch.int64),
            "soft and empty": torch.zeros(0, 5),
            "ignored": torch.full((3,), -1),
        }[targets]
        loss = criterion(logits, labels)
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None
        assert (logits.grad == 0).all()

    @pytest.mark.parametrize("dtype", HALF)
    def test_half_precision_is_computed_in_float32(self, criterion: torch.nn.Module, dtype: torch.dtype) -> None:
        logits, labels = scene()
        rounded = (logits * 20).to(dtype)
        loss = criterion(rounded, labels)
        assert loss.dtype is torch.float32
        torch.testing.assert_close(loss, criterion(rounded.float(), labels))
        soft = F.one_hot(labels, 5).to(dtype)
        torch.testing.assert_close(criterion(rounded, soft), loss)

    def test_is_not_in_the_state_dict(self, criterion: torch.nn.Module) -> None:
        assert not criterion.state_dict()

    def test_wrong_shape_is_named(self, criterion: torch.nn.Module) -> None:
        with pytest.raises(InputError, match=r"targets of shape \(2,\) do not fit logits of shape \(3, 5\)"):
            criterion(torch.zeros(3, 5), torch.tensor([0, 1]))


def test_create_loss() -> None:
    criterion = create_loss("cross_entropy", smoothing=0.1, weight=[1, 2, 3])
    assert isinstance(criterion, CrossEntropy)
    assert criterion.weight is not None
    assert criterion.weight.tolist() == [1, 2, 3]
    assert isinstance(create_loss("bce", pos_weight=torch.ones(3)), BinaryCrossEntropy)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross_entrop", {}, "did you mean cross_entropy"),
        ("cross_entropy", {"smoothin": 0.1}, "unknown option of cross_entropy 'smoothin'; did you mean smoothing"),
        ("cross_entropy", {"smoothing": 1.0}, "smoothing must be a number of at least 0 and below 1, got 1.0"),
        ("cross_entropy", {"weight": [1.0, -1.0]}, "finite number >= 0"),
        ("bce", {"pos_weight": [1.0, math.inf]}, "pos_weight must be one finite number"),
    ],
)
def test_wrong_calls_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_loss(name, **options)


@pytest.mark.parametrize(
    "criterion", [CrossEntropy(weight=torch.ones(4)), BinaryCrossEntropy(pos_weight=torch.ones(4))]
)
def test_weights_for_other_classes_are_refused(criterion: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="weight has 4 numbers, the model 5 classes"):
        criterion(torch.zeros(2, 5), torch.tensor([0, 1]))


def test_weights_follow_the_module() -> None:
    criterion = CrossEntropy(weight=torch.ones(3)).to(torch.float64).to("meta")
    assert criterion.weight is not None
    assert criterion.weight.device.type == "meta"


def test_weights_of_classes_are_not_in_the_state_dict() -> None:
    """They come from the recipe or the data: a model saved with them loads where there are others, or none."""
    ones = torch.ones(4)
    assert not CrossEntropy(weight=ones).state_dict()
    assert not BinaryCrossEntropy(weight=ones, pos_weight=ones).state_dict()
