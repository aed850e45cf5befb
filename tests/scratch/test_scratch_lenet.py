"""LeNet from NumPy alone: its gradients are torch's, and it reads the built-in digits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from opsin.scratch.cross_entropy import one_hot, softmax_cross_entropy, softmax_cross_entropy_backward
from opsin.scratch.lenet import backward, create_weights, draw, forward, main, to_input

Rng = np.random.Generator


def by_torch(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    x = F.max_pool2d(F.conv2d(images, weights["c1"], weights["c1_bias"]).relu(), 2)
    x = F.max_pool2d(F.conv2d(x, weights["c3"], weights["c3_bias"]).relu(), 2)
    x = F.conv2d(x, weights["c5"], weights["c5_bias"]).relu().flatten(1)
    x = F.linear(x, weights["f6"], weights["f6_bias"]).relu()
    return F.linear(x, weights["out"], weights["out_bias"])


def test_the_whole_network_is_torchs(rng: Rng) -> None:
    weights = {name: weight.astype(np.float64) for name, weight in create_weights(rng).items()}
    images, labels = rng.normal(size=(4, 1, 32, 32)), np.array([3, 1, 4, 1])
    tensors = {name: torch.tensor(weight, requires_grad=True) for name, weight in weights.items()}
    loss = F.cross_entropy(by_torch(tensors, torch.tensor(images)), torch.tensor(labels))
    loss.backward()
    logits, seen = forward(weights, images)
    targets = one_hot(labels, 10)
    assert_allclose(softmax_cross_entropy(logits, targets), loss.item(), rtol=1e-9)
    gradients = backward(softmax_cross_entropy_backward(logits, targets), seen, weights)
    assert gradients.keys() == weights.keys()
    for name, tensor in tensors.items():
        assert tensor.grad is not None
        assert_allclose(gradients[name], tensor.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_has_lenets_weights_and_stays_in_float32(rng: Rng) -> None:
    weights = create_weights(rng)
    assert sum(weight.size for weight in weights.values()) == 61_706
    logits, seen = forward(weights, rng.normal(size=(2, 1, 32, 32)).astype(np.float32))
    gradients = backward(logits, seen, weights)
    assert {array.dtype for array in (logits, *gradients.values())} == {np.dtype(np.float32)}


def test_images_stand_in_the_middle() -> None:
    images = to_input(np.full((2, 8, 8), 16.0))
    assert images.shape == (2, 1, 32, 32)
    assert images.dtype == np.float32
    inside = np.zeros((32, 32))
    inside[6:26, 6:26] = 1
    assert_allclose(images[0, 0], inside)
    assert draw(np.array([[0.0, 16.0]])) == "  @@"


def test_it_reads_97_percent_of_the_digits() -> None:
    lines: list[str] = []
    accuracy = main(epochs=10, show=lines.append)  # half of the training that the page shows
    assert accuracy >= 0.97, "\n".join(lines)
