"""The volume integral written out in NumPy, held equal to the tensors' and to numerical gradients."""

from __future__ import annotations

import numpy as np
import torch

from opsin.ops.compositing import composite, density_weights
from opsin.scratch.volume_integral import volume_integral, volume_integral_backward


def test_the_volume_integral_is_that_of_the_tensors() -> None:
    draws = np.random.default_rng(0)
    sigma, colour, length = draws.random((4, 9)) * 3, draws.random((4, 9, 3)), draws.random((4, 9))
    given = [torch.tensor(one, requires_grad=True) for one in (sigma, colour)]
    weights = density_weights(given[0], torch.tensor(length))
    seen = composite(weights, given[1], torch.zeros(4, 9)).values
    found, own = volume_integral(sigma, colour, length)
    np.testing.assert_allclose(found, seen.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(own, weights.detach().numpy(), atol=1e-14)
    dseen = draws.random((4, 3))
    seen.backward(torch.tensor(dseen))
    dsigma, dcolour = volume_integral_backward(dseen, sigma, colour, length)
    for one, tensor in ((dsigma, given[0]), (dcolour, given[1])):
        assert tensor.grad is not None
        np.testing.assert_allclose(one, tensor.grad.numpy(), atol=1e-13)
