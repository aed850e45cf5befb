"""The losses of adaptation are those of the papers: held against sums that are written out, and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from opsin.adapt import selection
from opsin.adapt.adversarial import Discriminator, adversarial_strength, domain_loss, reverse_gradient
from opsin.adapt.classifier_discrepancy import classifier_discrepancy
from opsin.adapt.conditional import CDAN, entropy_weights, outer_product, random_product
from opsin.adapt.coral import coral_loss, coral_map, coral_over_domains
from opsin.adapt.features import Seen
from opsin.adapt.fine_tuning import starting_point_penalty
from opsin.adapt.invariant_risk import GroupDRO, VREx, domain_risks, irm_penalty
from opsin.adapt.kernel_mean_matching import match_kernel_means
from opsin.adapt.logistic_regression import fit_logistic
from opsin.adapt.mean_discrepancy import kernel_widths, mmd_linear, mmd_quadratic
from opsin.adapt.mixstyle import mix_style
from opsin.adapt.self_training import confident_answers
from opsin.adapt.test_time import adapt_statistics, entropy_of_logits, minimise_entropy
from opsin.adapt.tradaboost import tradaboost
from opsin.adapt.weighting import effective_share, normalized_weights
from opsin.errors import InputError

DRAW = torch.Generator().manual_seed(0)
SOURCE = torch.randn(6, 4, generator=DRAW, dtype=torch.float64)
TARGET = 0.5 + 2 * torch.randn(8, 4, generator=DRAW, dtype=torch.float64)


def kernel(x: Tensor, y: Tensor, widths: Tensor) -> float:
    return sum(math.exp(-float((x - y).square().sum()) / float(w)) for w in widths) / len(widths)


def test_mmd_is_the_sum_over_pairs() -> None:
    widths = kernel_widths(SOURCE, TARGET)
    both = torch.cat([SOURCE, TARGET])
    pairs = [float((x - y).square().sum()) for i, x in enumerate(both) for j, y in enumerate(both) if i != j]
    assert float(widths[2]) == pytest.approx(np.mean(pairs))
    within = [
        np.mean([kernel(x, y, widths) for i, x in enumerate(side) for j, y in enumerate(side) if i != j])
        for side in (SOURCE, TARGET)
    ]
    across = np.mean([kernel(x, y, widths) for x in SOURCE for y in TARGET])
    assert float(mmd_quadratic(SOURCE, TARGET, widths)) == pytest.approx(sum(within) - 2 * across)
    quadruples = [
        kernel(SOURCE[i], SOURCE[i + 1], widths)
        + kernel(TARGET[i], TARGET[i + 1], widths)
        - kernel(SOURCE[i], TARGET[i + 1], widths)
        - kernel(SOURCE[i + 1], TARGET[i], widths)
        for i in (0, 2, 4)
    ]
    assert float(mmd_linear(SOURCE, TARGET, widths)) == pytest.approx(np.mean(quadruples))


def test_mmd_by_an_index_matrix() -> None:
    # The form of Transfer-Learning-Library's dan.py: kernels summed, off-diagonal weights, and 2 / (B - 1) on top.
    target, count = TARGET[:6], 6
    widths = kernel_widths(SOURCE, target)
    both = torch.cat([SOURCE, target])
    summed = sum(torch.exp(-torch.cdist(both, both).square() / w) for w in widths)
    index = torch.full((12, 12), -1 / count**2, dtype=torch.float64)
    index[:6, :6] = index[6:, 6:] = 1 / (count * (count - 1))
    index.fill_diagonal_(0)
    theirs = (summed * index).sum() + 2 / (count - 1)
    ours = len(widths) * mmd_quadratic(SOURCE, target, widths) + 2 / (count - 1)
    torch.testing.assert_close(ours, theirs)


def test_mmd_has_a_gradient_and_refuses_one_example() -> None:
    values = SOURCE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmd_quadratic(x, TARGET, [1.0, 4.0]), (values,))
    with pytest.raises(InputError, match="take two or more"):
        mmd_quadratic(SOURCE[:1], TARGET, [1.0])
    same = torch.zeros(4, 3)
    assert float(mmd_quadratic(same, same, kernel_widths(same, same))) == 0


def test_coral_is_the_distance_of_covariances() -> None:
    difference = np.cov(SOURCE.numpy(), rowvar=False) - np.cov(TARGET.numpy(), rowvar=False)
    assert float(coral_loss(SOURCE, TARGET)) == pytest.approx(np.square(difference).sum() / (4 * 16))
    mapped = coral_map(SOURCE.numpy(), np.random.RandomState(1).randn(500, 4) * [1, 2, 3, 4], 1e-9)
    np.testing.assert_allclose(np.cov(mapped, rowvar=False).diagonal(), np.square([1, 2, 3, 4]), rtol=0.2)
    three = torch.cat([SOURCE, TARGET])
    domains = torch.tensor([0] * 6 + [1] * 4 + [2] * 4)
    groups = [three[domains == k] for k in range(3)]
    terms = []
    for i in range(3):
        for j in range(i + 1, 3):
            mean = (groups[i].mean(0) - groups[j].mean(0)).square().mean()
            terms.append(mean + (torch.cov(groups[i].T) - torch.cov(groups[j].T)).square().mean())
    torch.testing.assert_close(coral_over_domains(three, domains), torch.stack(terms).mean())


def test_gradient_is_reversed_and_the_strength_rises() -> None:
    values = torch.ones(3, requires_grad=True)
    (reverse_gradient(values, 0.25) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    torch.testing.assert_close(values.grad, -0.25 * torch.tensor([1.0, 2.0, 3.0]))
    assert adversarial_strength(0) == 0 and adversarial_strength(1) == pytest.approx(math.tanh(5))
    torch.manual_seed(0)
    assert Discriminator(4, 8)(SOURCE.float()).shape == (6,)


def test_each_side_of_the_domain_loss_weighs_a_half() -> None:
    logits, source = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([True, False, False])
    other = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 2
    assert float(domain_loss(logits, source)) == pytest.approx((math.log(1 + math.exp(-2)) + other) / 2, rel=1e-5)


def test_cdan_sees_the_product_and_weighs_the_sure() -> None:
    features, answers = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]])
    assert outer_product(features, answers).tolist() == [[0.25, 0.5, 0.75, 1.5]]
    draw = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 20000, generator=draw), torch.randn(2, 20000, generator=draw)
    mapped = random_product(features, answers, one, other)
    assert float(mapped @ mapped.T) == pytest.approx(float(outer_product(features, answers).square().sum()), rel=0.1)
    weights = entropy_weights(torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]), torch.tensor([True, True, False]))
    sure, unsure = 2.0, 1 + math.exp(-math.log(2))
    mean = (sure + unsure) / 2
    assert weights.tolist() == pytest.approx([sure / mean, unsure / mean, 1.0])
    assert CDAN(1000, 10, 1, hidden=4).mapped and not CDAN(100, 10, 1, hidden=4).mapped
    assert float(classifier_discrepancy(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))) == 0.5


def test_irm_penalty_is_the_gradient_of_a_scale() -> None:
    draw = torch.Generator().manual_seed(2)
    logits, labels = torch.randn(8, 3, generator=draw, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])

    def slope(z: Tensor, y: Tensor) -> float:
        def loss(w: float) -> float:
            return float(nn.functional.cross_entropy((w * z).float().double(), y))

        return (loss(1 + 1e-3) - loss(1 - 1e-3)) / 2e-3

    expected = slope(logits[::2], labels[::2]) * slope(logits[1::2], labels[1::2])
    assert float(irm_penalty(logits, labels).detach()) == pytest.approx(expected, rel=1e-2)


def test_risks_of_domains() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    labels, domains = torch.tensor([0, 1, 1, -1]), torch.tensor([0, 0, 1, 1])
    risks, there = domain_risks(logits, labels, domains)
    first = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    second = math.log(1 + math.exp(-1))
    assert risks.tolist() == pytest.approx([first, second]) and there.tolist() == [0, 1]
    seen = Seen(torch.zeros(4, 1), logits, labels, domains, progress=1.0)
    mean = (first + second) / 2
    terms = VREx(1, 2, 2, beta=3.0).losses(seen)
    assert float(terms["variance"]) == pytest.approx(3 * ((first - mean) ** 2 + (second - mean) ** 2) / 2, abs=1e-6)
    robust = GroupDRO(1, 2, 2, eta=1.0)
    q = np.exp([first, second]) / np.exp([first, second]).sum()
    assert float(robust.losses(seen)["risk"]) == pytest.approx(float(q @ [first, second]))
    with pytest.raises(InputError, match="two or more --source"):
        VREx(1, 2, 1)


def test_styles_are_mixed() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    mixed = mix_style(maps, torch.tensor([1, 0]), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(mixed[0].mean(dim=(1, 2)), maps[1].mean(dim=(1, 2)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed[0].std(dim=(1, 2)), maps[1].std(dim=(1, 2)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], maps[1], atol=1e-4, rtol=1e-4)


def test_starting_point_penalty() -> None:
    w, start, v = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]), torch.tensor([3.0])
    assert float(starting_point_penalty({"a": w}, {"a": start}, {"b": v}, 0.2, 0.1)) == pytest.approx(0.5 + 0.45)


def test_kernel_means_are_matched_as_a_solver_does() -> None:
    random = np.random.RandomState(0)
    source, target = random.randn(12, 2), random.randn(9, 2) + 1
    gram = np.exp(-np.square(source[:, None] - source[None]).sum(2) / 2)
    kappa = 12 * np.exp(-np.square(source[:, None] - target[None]).sum(2) / 2).mean(1)
    found = match_kernel_means(gram, kappa, limit=3.0, tolerance=0.1)
    assert found.min() >= 0 and found.max() <= 3 and 10.8 - 1e-6 <= found.sum() <= 13.2 + 1e-6
    bounds = {"bounds": [(0, 3)] * 12, "method": "SLSQP", "options": {"maxiter": 500, "ftol": 1e-12}}
    between = [
        {"type": "ineq", "fun": lambda w: w.sum() - 10.8},
        {"type": "ineq", "fun": lambda w: 13.2 - w.sum()},
    ]
    best = minimize(lambda w: w @ gram @ w / 2 - kappa @ w, np.ones(12), constraints=between, **bounds)
    assert found @ gram @ found / 2 - kappa @ found == pytest.approx(best.fun, abs=1e-4)


def test_density_ratio_and_the_weights_of_a_shift() -> None:
    random = np.random.RandomState(0)
    source, target = random.randn(1500, 1), random.randn(1000, 1) + 1
    at = np.array([[-1.0], [0.0], [1.0]])
    expected = np.exp(at[:, 0] - 0.5)  # N(1, 1) / N(0, 1)
    np.testing.assert_allclose(selection.density_ratio(source, target, at), expected, rtol=0.25)
    assert effective_share(np.array([1.0, 1.0])) == 1 and effective_share(np.array([1.0, 0.0])) == 0.5
    assert normalized_weights(np.zeros(3)).tolist() == [1, 1, 1]


def test_a_logistic_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.RandomState(0)
    features, labels, weights = random.randn(60, 3), np.arange(60) % 3 + 5, random.rand(60)
    features[:, 0] += labels
    found = fit_logistic(features, labels, weights, inverse_penalty=0.7)
    theirs = LogisticRegression(C=0.7, max_iter=1000, tol=1e-8).fit(features, labels, sample_weight=weights)
    np.testing.assert_allclose(found.probabilities(features), theirs.predict_proba(features), atol=1e-4)
    assert (found.predict(features) == theirs.predict(features)).all()
    with pytest.raises(InputError, match="one alone"):
        fit_logistic(features, np.zeros(60))


def test_boosting_drops_what_contradicts_the_target() -> None:
    random = np.random.RandomState(0)
    source = random.randn(60, 2)
    labels = (source[:, 0] > 0).astype(int)
    labels[:20] = 1 - labels[:20]  # of another concept
    target = random.randn(12, 2)
    found = tradaboost(source, labels, target, (target[:, 0] > 0).astype(int), rounds=10)
    assert found.weights[:20].mean() < 0.5 * found.weights[20:].mean()
    test = random.randn(200, 2)
    assert (found.predict(test) == (test[:, 0] > 0)).mean() > 0.9


def test_criteria_without_labels() -> None:
    answers = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert selection.mean_entropy(answers) == pytest.approx(math.log(2) / 2)
    three = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]], dtype=torch.float64)
    total = 0.0
    for i in range(3):
        logits = {j: float(three[i] @ three[j] / three[i].norm() / three[j].norm()) / 0.05 for j in range(3) if j != i}
        mass = sum(math.exp(value) for value in logits.values())
        total -= sum(math.exp(v) / mass * math.log(math.exp(v) / mass) for v in logits.values())
    assert selection.neighbourhood_density(three) == pytest.approx(total / 3)
    weights, losses = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.1, 0.2])
    weighed = weights * losses
    eta = -np.cov(weighed, weights)[0, 1] / np.var(weights, ddof=1)
    assert selection.controlled_risk(weights, losses) == pytest.approx(weighed.mean() + eta * weights.mean() - eta)
    assert selection.controlled_risk(np.ones(3), losses) == pytest.approx(losses.mean())


def test_the_least_sure_answers_are_dropped() -> None:
    rows = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.6, 0.4]])
    assert confident_answers(rows, 0.25).tolist() == [0, -1, 1, 0]
    assert confident_answers(rows, 0).tolist() == [0, 1, 1, 0]


def test_statistics_and_scales_adapt_to_a_target() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    images = 5 + 2 * torch.randn(40, 3)
    adapt_statistics(model, lambda: images.split(20))
    norm, linear = model[1], model[2]
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(linear, nn.Linear)
    torch.testing.assert_close(norm.running_mean, images.mean(0))
    expected = torch.stack([part.var(0) for part in images.split(20)]).mean(0)
    torch.testing.assert_close(norm.running_var, expected)
    before, kept = float(entropy_of_logits(model(images)).detach()), linear.weight.detach().clone()
    minimise_entropy(model, lambda: images.split(20), lr=0.05, epochs=5)
    assert float(entropy_of_logits(model(images)).detach()) < before
    assert torch.equal(kept, linear.weight) and not model.training and linear.weight.requires_grad
    assert norm.momentum == 0.1
    with pytest.raises(InputError, match="no batch norm"):
        adapt_statistics(nn.Sequential(nn.Linear(3, 2)), lambda: [images])
