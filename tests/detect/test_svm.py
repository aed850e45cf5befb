"""SVMs and ridge regressions: the dual solved by scipy, mining against all negatives at once, normal equations."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from torch import Tensor

import opsin
from opsin.detect import rcnn_training
from opsin.detect.rcnn import RCNN
from opsin.detect.svm import Margin, Shard, fit_ridge, fit_svm, mine_svms
from opsin.errors import InputError


def cloud(count: int, middle: float, dimensions: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) + middle


def objective(weights: np.ndarray, bias: float, positives: np.ndarray, negatives: np.ndarray, margin: Margin) -> float:
    """What the dual of liblinear maximises, written as the primal: the bias is held down as one more weight."""
    lost = np.maximum(0, 1 - positives @ weights - bias).sum() * margin.positive_weight
    lost += np.maximum(0, 1 + negatives @ weights + bias).sum()
    return 0.5 * (weights @ weights + (bias / margin.bias_scale) ** 2) + margin.cost * lost


def test_svm_solves_the_dual() -> None:
    """The dual with a box for every example, by scipy; the bias is the weight of a constant feature of 10."""
    positives, negatives = cloud(40, 0.7).numpy(), cloud(60, -0.7, seed=1).numpy()
    margin = Margin(cost=0.05, tolerance=1e-8)
    weights, bias = fit_svm(positives, negatives, margin)
    signed = np.concatenate([positives, -negatives]).astype(np.float64)
    signed = np.column_stack([signed, np.repeat([10.0, -10.0], [40, 60])])
    kernel = signed @ signed.T
    bounds = [(0.0, 0.1)] * 40 + [(0.0, 0.05)] * 60
    solved = minimize(
        lambda a: (0.5 * a @ kernel @ a - a.sum(), kernel @ a - 1),
        np.zeros(100),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    )
    primal = signed.T @ solved.x
    assert np.allclose(weights, primal[:-1], atol=1e-4)
    assert bias == pytest.approx(10 * primal[-1], abs=1e-4)
    assert objective(weights, bias, positives, negatives, margin) == pytest.approx(-solved.fun, rel=1e-5)


@pytest.mark.parametrize("retrain", [20, 200])
def test_mining_finds_the_optimum_of_all_negatives(retrain: int) -> None:
    positives = [cloud(30, 1.0), cloud(20, -1.0, seed=5)]
    features = cloud(900, 0.0, seed=2) * 1.5
    background = torch.rand(900, 2, generator=torch.Generator().manual_seed(3)) < 0.8
    passes = 0

    def shards() -> Iterator[Shard]:
        nonlocal passes
        passes += 1
        for rows in torch.arange(900).split(70):
            yield Shard(features[rows], background[rows])

    margin = Margin(cost=0.1, tolerance=1e-6, retrain=retrain, passes=20)
    found = mine_svms(positives, shards, margin)
    assert 2 <= passes < 20  # the last one found nothing that was hard
    for place in range(2):
        own, others = positives[place].numpy(), features[background[:, place]].numpy()
        weights, bias = fit_svm(own, others, margin)
        assert np.allclose(found.weights[place].numpy(), weights, atol=2e-3)
        assert float(found.biases[place]) == pytest.approx(bias, abs=2e-3)
        least = objective(weights, bias, own, others, margin)
        mined = objective(found.weights[place].double().numpy(), float(found.biases[place]), own, others, margin)
        assert mined == pytest.approx(least, rel=1e-4)


def test_one_pass_takes_what_was_hard_when_it_was_seen() -> None:
    near, far = cloud(50, -0.5, seed=1), cloud(500, -9.0, seed=2)
    shards = [Shard(near, torch.ones(50, 1, dtype=torch.bool)), Shard(far, torch.ones(500, 1, dtype=torch.bool))]
    margin = Margin(cost=0.1, tolerance=1e-6, retrain=50)
    found = mine_svms([cloud(50, 1.0)], lambda: shards, margin)
    weights, bias = fit_svm(cloud(50, 1.0).numpy(), near.numpy(), margin)  # the far ones are never looked at twice
    assert np.allclose(found.weights[0].numpy(), weights)
    assert float(found.biases[0]) == pytest.approx(bias)


def test_half_precision_features() -> None:
    shard = Shard(cloud(50, -1.0, seed=1).half(), torch.ones(50, 1, dtype=torch.bool))
    found = mine_svms([cloud(30, 1.0).half()], lambda: [shard])
    assert found.weights.dtype is found.biases.dtype is torch.float32
    assert float((cloud(30, 1.0) @ found.weights[0]).mean()) > float(
        (cloud(50, -1.0, seed=1) @ found.weights[0]).mean()
    )


def test_class_without_objects_is_never_found() -> None:
    shard = Shard(cloud(50, -1.0), torch.ones(50, 2, dtype=torch.bool))
    found = mine_svms([cloud(30, 1.0, seed=1), torch.zeros(0, 6)], lambda: [shard])
    assert found.weights[1].eq(0).all()
    assert torch.sigmoid(found.biases[1]) < 1e-30


def test_no_background_is_refused() -> None:
    shard = Shard(cloud(50, 0.0), torch.zeros(50, 1, dtype=torch.bool))
    with pytest.raises(InputError, match="class 0 has 3 objects and no background"):
        mine_svms([cloud(3, 1.0)], lambda: [shard])
    with pytest.raises(InputError, match="no background"):
        mine_svms([cloud(3, 1.0)], list)


def test_bad_margins_are_refused() -> None:
    with pytest.raises(InputError, match=r"cost must be above 0, got -1"):
        Margin(cost=-1)
    with pytest.raises(InputError, match="passes"):
        Margin(passes=0)


@pytest.mark.parametrize("count", [200, 9])  # more examples than features, and fewer
def test_ridge_is_the_normal_equations(count: int) -> None:
    x, y = cloud(count, 2.0, dimensions=12).double(), cloud(count, -1.0, dimensions=4, seed=1).double()
    weights, bias = fit_ridge(x, y, penalty=30.0)
    # The penalty as rows of the least-squares system; the column of ones for the intercept has none.
    left = np.block([[x.numpy(), np.ones((count, 1))], [np.sqrt(30.0) * np.eye(12), np.zeros((12, 1))]])
    right = np.concatenate([y.numpy(), np.zeros((12, 4))])
    solved = np.linalg.lstsq(left, right, rcond=None)[0]
    assert np.allclose(weights.numpy(), solved[:12])
    assert np.allclose(bias.numpy(), solved[12])
    other = Ridge(alpha=30.0).fit(x.numpy(), y.numpy())
    assert np.allclose(weights.numpy(), other.coef_.T)
    assert np.allclose(bias.numpy(), other.intercept_)


def test_ridge_of_nothing_and_of_one() -> None:
    weights, bias = fit_ridge(torch.zeros(0, 5), torch.zeros(0, 4))
    assert weights.shape == (5, 4)
    assert not weights.any()
    assert not bias.any()
    weights, bias = fit_ridge(torch.ones(1, 5), torch.tensor([[1.0, 2, 3, 4]]))
    assert not weights.any()  # nothing varies, so the mean is all there is
    assert bias.tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match="penalty"):
        fit_ridge(torch.ones(1, 5), torch.ones(1, 4), penalty=0)


def test_without_its_solver_the_stages_are_refused_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opsin.create_model("rcnn", num_classes=2)
    assert isinstance(model, RCNN) and "svm" in [stage.name for stage in rcnn_training.stages(model)]
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(InputError, match=r"linear SVMs need scikit-learn: pip install 'opsin\[svm\]'"):
        rcnn_training.stages(model)
