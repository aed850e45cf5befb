"""The cases in which one loss is another, or an independent implementation's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from opsin import losses
from opsin.errors import InputError
from opsin.losses import create_loss

close = torch.testing.assert_close


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of)[0]


PREDICTIONS, TARGETS = draw(5, 4) * 3, draw(5, 4, seed=4) * 3
LABELS = torch.tensor([0, 1, 3, 3, 2])


class TestRegression:
    def test_huber_is_smooth_l1_times_beta(self) -> None:
        for beta in (0.1, 1.0, 7.0):
            smooth = losses.smooth_l1_loss(PREDICTIONS, TARGETS, beta=beta)
            close(losses.huber_loss(PREDICTIONS, TARGETS, beta=beta), beta * smooth)

    def test_smooth_l1_of_beta_0_is_l1(self) -> None:
        close(losses.smooth_l1_loss(PREDICTIONS, TARGETS, beta=0), losses.l1_loss(PREDICTIONS, TARGETS))

    def test_huber_of_a_wide_beta_is_half_of_l2(self) -> None:
        close(losses.huber_loss(PREDICTIONS, TARGETS, beta=1e3), losses.l2_loss(PREDICTIONS, TARGETS) / 2)

    def test_sse_is_l2_summed(self) -> None:
        close(losses.sse_loss(PREDICTIONS, TARGETS), losses.l2_loss(PREDICTIONS, TARGETS) * PREDICTIONS.numel())

    def test_means_are_torchs(self) -> None:
        close(losses.l1_loss(PREDICTIONS, TARGETS), F.l1_loss(PREDICTIONS, TARGETS))
        close(losses.l2_loss(PREDICTIONS, TARGETS), F.mse_loss(PREDICTIONS, TARGETS))

    def test_wing_of_a_wide_flat_logarithm_is_l1(self) -> None:
        wing = losses.wing_loss(PREDICTIONS, TARGETS, width=1e8, epsilon=1e8)
        close(wing, losses.l1_loss(PREDICTIONS, TARGETS), rtol=1e-6, atol=0)

    def test_wing_beyond_its_width_is_l1_less_a_constant(self) -> None:
        far = torch.tensor([11.0, -50.0], dtype=torch.float64)
        expected = far.abs() - (10 - 10 * math.log(6))
        close(losses.wing_loss(far, torch.zeros_like(far), reduction="none"), expected)

    @pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
    def test_adaptive_wing_is_smooth_at_theta_and_at_zero(self, y: float) -> None:
        target = torch.full((6,), y, dtype=torch.float64)
        error = torch.tensor([0.5 - 1e-9, 0.5 + 1e-9, -0.5 - 1e-9, -0.5 + 1e-9, 1e-12, -1e-12], dtype=torch.float64)
        x = (target + error).requires_grad_()
        terms = losses.adaptive_wing_loss(x, target, reduction="none")
        slope = gradient(terms.sum(), x)
        close(terms[0::2], terms[1::2], rtol=0, atol=1e-7)
        close(slope[0:4:2], slope[1:4:2], rtol=0, atol=1e-5)
        assert slope[4:].abs().max() < 1


class TestClassification:
    def test_dense_forms_are_the_plain_ones(self) -> None:
        close(losses.softmax_cross_entropy(PREDICTIONS, LABELS), losses.cross_entropy(PREDICTIONS, LABELS))
        close(losses.sigmoid_cross_entropy(PREDICTIONS, LABELS), losses.binary_cross_entropy(PREDICTIONS, LABELS))

    def test_a_logits_gradient_is_p_minus_y(self) -> None:
        x = PREDICTIONS.clone().requires_grad_()
        one_hot = F.one_hot(LABELS, 4)
        softmax = gradient(losses.softmax_cross_entropy(x, LABELS, reduction="sum"), x)
        close(softmax, x.detach().softmax(dim=1) - one_hot)
        sigmoid = gradient(losses.sigmoid_cross_entropy(x, LABELS, reduction="sum"), x)
        close(sigmoid, x.detach().sigmoid() - one_hot)

    def test_kl_of_one_class_is_cross_entropy(self) -> None:
        one_hot = F.one_hot(LABELS, 4).double()
        close(losses.kl_divergence(PREDICTIONS, one_hot), losses.cross_entropy(PREDICTIONS, LABELS))

    def test_kl_of_itself_is_zero(self) -> None:
        same = losses.kl_divergence(PREDICTIONS, PREDICTIONS.softmax(dim=1))
        close(same, torch.zeros_like(same), rtol=0, atol=1e-12)

    def test_focal_of_gamma_0_and_alpha_one_half_is_half_of_bce(self) -> None:
        targets = (TARGETS > 0).double()
        focal = losses.focal_loss(PREDICTIONS, targets, alpha=0.5, gamma=0, reduction="mean")
        close(focal, losses.binary_cross_entropy(PREDICTIONS, targets) / 2)

    @pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
    def test_focal_is_torchvisions(self, gamma: float) -> None:
        for targets in ((TARGETS > 0).double(), TARGETS.sigmoid()):
            expected = sigmoid_focal_loss(PREDICTIONS, targets, alpha=0.3, gamma=gamma, reduction="sum")
            close(losses.focal_loss(PREDICTIONS, targets, alpha=0.3, gamma=gamma), expected)

    def test_focal_has_a_gradient_where_torchvisions_has_none(self) -> None:
        x, targets = torch.tensor([20.0, -20.0], requires_grad=True), torch.tensor([1.0, 0.0])
        assert gradient(sigmoid_focal_loss(x, targets, gamma=0.5, reduction="sum"), x).isnan().all()
        assert gradient(losses.focal_loss(x, targets, gamma=0.5), x).isfinite().all()

    def test_softmax_focal_of_gamma_0_is_cross_entropy(self) -> None:
        close(losses.softmax_focal_loss(PREDICTIONS, LABELS, gamma=0), losses.cross_entropy(PREDICTIONS, LABELS))

    def test_softmax_focal_of_two_classes_is_focal(self) -> None:
        difference, labels = PREDICTIONS[:, 1] - PREDICTIONS[:, 0], LABELS % 2
        binary = losses.focal_loss(difference[:, None], labels[:, None].double(), alpha=None, reduction="mean")
        close(losses.softmax_focal_loss(PREDICTIONS[:, :2], labels), binary)

    def test_softmax_focal_of_one_hot_targets_is_that_of_labels(self) -> None:
        one_hot = F.one_hot(LABELS, 4).double()
        close(losses.softmax_focal_loss(PREDICTIONS, one_hot), losses.softmax_focal_loss(PREDICTIONS, LABELS))


class TestDice:
    def test_of_hard_predictions_is_one_less_f1(self) -> None:
        truth, predicted = torch.randint(0, 2, (2, 40), generator=torch.Generator().manual_seed(0))
        logits = (predicted.double() * 200 - 100)[None, None]
        for squared in (True, False):
            got = losses.dice_loss(logits, truth[None, None].double(), smooth=0, squared=squared)
            assert 1 - got.item() == pytest.approx(f1_score(truth, predicted))

    def test_a_region_that_is_absent_in_both_is_no_error(self) -> None:
        logits = torch.full((1, 1, 4, 4), -100.0)
        for smooth in (0.0, 1.0):
            assert losses.dice_loss(logits, torch.zeros_like(logits), smooth=smooth).item() == pytest.approx(
                0, abs=1e-6
            )

    def test_sigmoids_of_two_opposite_channels_are_a_softmax(self) -> None:
        logits, labels = draw(2, 1, 9), torch.randint(0, 2, (2, 9), generator=torch.Generator().manual_seed(0))
        both = torch.cat([-logits, logits], dim=1)
        one_hot = F.one_hot(labels, 2).movedim(-1, 1).double()
        close(losses.dice_loss(both / 2, labels), losses.dice_loss(both, one_hot))


ELEMENTWISE = ["l1", "l2", "smooth_l1", "huber", "wing", "giou"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_reductions_agree(name: str) -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 4, 5], [2, 0, 3, 9]]), torch.tensor([[0.0, 1, 2, 3]] * 3)
    terms = create_loss(name, reduction="none")(*boxes)
    assert terms.shape in (boxes[0].shape, boxes[0].shape[:1])
    close(create_loss(name, reduction="sum")(*boxes), terms.sum())
    close(create_loss(name)(*boxes), terms.mean())


def test_terms_of_what_is_ignored_are_zero() -> None:
    labels = LABELS.clone()
    labels[1] = -1
    for function in (losses.softmax_cross_entropy, losses.softmax_focal_loss):
        terms = function(PREDICTIONS, labels, reduction="none")
        assert terms.shape == (5,)
        assert (terms == 0).tolist() == [False, True, False, False, False]
        close(function(PREDICTIONS, labels), terms.sum() / 4)
    for function in (losses.sigmoid_cross_entropy, losses.focal_loss):
        assert (function(PREDICTIONS, labels, reduction="none")[1] == 0).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("l1", {"reduction": "average"}, "unknown reduction 'average'; known: mean, none, sum"),
        ("smooth_l1", {"beta": -1}, "beta must be at least 0, got -1"),
        ("huber", {"beta": 0}, "beta must be above 0, got 0"),
        ("huber", {"beta": "1"}, "beta must be a number, got '1'"),
        ("wing", {"epsilon": math.nan}, "epsilon must be a number, got nan"),
        ("wing", {"w": 10}, "unknown option of wing 'w'; known: epsilon, reduction, width"),
        ("adaptive_wing", {"alpha": 2}, "alpha must be above 2, got 2"),
        ("focal", {"gamma": -1.0}, r"gamma must be at least 0, got -1\.0"),
        ("focal", {"alpha": 1.5}, r"alpha=1\.5 is the share of the positives"),
        ("softmax_focal", {"weight": 3}, "weight is one number for each class, 4 of them, got 3"),
        ("softmax_focal", {"weight": ["a", 1]}, r"weight takes numbers only, got \['a', 1\]"),
        ("weighted_sum", {"criteria": ["l1"]}, "criteria takes numbers only"),
        ("weighted_sum", {"criteria": "l1"}, "criteria are losses by name, each with its options; got 'l1'"),
        ("dice", {"smooth": -1}, "smooth must be at least 0"),
        ("contrastive", {"margin": 0}, "margin must be above 0"),
        ("triplet", {"mining": "hard"}, "unknown mining 'hard'; did you mean semi_hard or batch_hard"),
        ("triplet", {"margin": "softer"}, "margin must be a number, got 'softer'"),
        ("ctc", {"blank": -1}, "blank=-1 is not one of"),
        ("centre", {"num_classes": 3}, "the loss centre needs features"),
        ("centre", {"num_classes": 0, "features": 2}, "num_classes must be a whole number of at least 1, got 0"),
        ("centre", {"num_classes": 3, "features": 2, "alpha": 2.0}, r"alpha=2\.0 would overshoot"),
        ("weighted_sum", {"criteria": {}}, "at least one criterion"),
        ("weighted_sum", {"criteria": {"l3": None}}, "unknown loss 'l3'"),
        (
            "weighted_sum",
            {"criteria": {"l1": None}, "weights": {"l2": 1}},
            "unknown criterion of the weighted sum 'l2'",
        ),
    ],
)
def test_wrong_options_are_refused_before_training(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_loss(name, **options)


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("cross_entropy", torch.tensor([0, 5]), r"labels hold 5 at \(1,\); expected 0 to 4, or -1 to be ignored"),
        ("cross_entropy", torch.tensor([-2, 1]), r"labels hold -2 at \(0,\)"),
        ("cross_entropy", torch.full((2, 5), 2.0), r"targets hold 2 at \(0, 0\); expected 0 to 1"),
        ("bce", torch.full((2, 5), -0.5), r"targets hold -0\.5 at \(0, 0\); expected 0 to 1"),
        ("bce", torch.tensor([7, 0]), "labels hold 7"),
        ("focal", torch.full((2, 5), 3), r"targets hold 3 at \(0, 0\)"),
        ("softmax_focal", torch.tensor([1, 9]), "labels hold 9"),
        ("kl", torch.full((2, 5), -0.2), r"targets hold -0\.2"),
        ("adaptive_wing", torch.full((2, 5), 1.5), r"targets hold 1\.5"),
        ("l2", torch.full((2, 5), math.inf), r"targets hold inf at \(0, 0\); expected finite numbers"),
        ("triplet", torch.tensor([0.0, 1.0]), r"class indices are whole numbers, got torch\.float32"),
        ("dice", torch.tensor([5, 0]), "labels hold 5"),
    ],
)
def test_targets_out_of_range_are_named(name: str, targets: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_loss(name)(torch.zeros(2, 5), targets)


def test_a_compiled_loss_is_the_loss() -> None:
    compiled = torch.compile(losses.softmax_focal_loss, backend="aot_eager", fullgraph=True)
    close(compiled(PREDICTIONS, LABELS), losses.softmax_focal_loss(PREDICTIONS, LABELS))


def test_a_criterion_follows_its_device_and_shows_its_options() -> None:
    criterion = create_loss("softmax_focal", gamma=3, weight=[1, 2, 3, 4])
    assert not criterion.state_dict()
    assert str(criterion) == "Criterion(softmax_focal_loss, gamma=3)"
    close(criterion(PREDICTIONS, LABELS), criterion.double()(PREDICTIONS, LABELS))
    assert [buffer.device.type for buffer in criterion.to("meta").buffers()] == ["meta"]
