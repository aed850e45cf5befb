"""Deconvolutions that interpolate: torch's interpolation, and the kernel by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from opsin.errors import InputError
from opsin.nn.upsampling import BilinearDeconvolution, BilinearUpsample, bilinear_kernel


def test_the_kernel_by_hand() -> None:
    assert torch.equal(bilinear_kernel(1), torch.ones(1, 1))
    assert torch.equal(bilinear_kernel(2)[1] * 16, torch.tensor([3.0, 9, 9, 3]))
    assert torch.allclose(bilinear_kernel(3)[2] * 3, torch.tensor([1.0, 2, 3, 2, 1]))
    assert bilinear_kernel(32).shape == (64, 64)
    with pytest.raises(InputError, match="factor"):
        bilinear_kernel(0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("learned", [False, True])
def test_upsampling_is_torchs(factor: int, learned: bool) -> None:
    x = torch.randn(2, 3, 4, 5)
    layer = BilinearUpsample(3, factor, learned=learned)
    torch.testing.assert_close(layer(x), F.interpolate(x, scale_factor=factor, mode="bilinear"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_nothing_is_cut_off_a_deconvolution(factor: int) -> None:
    size = 2 * factor - factor % 2
    fixed, learned = BilinearDeconvolution(2, factor), BilinearDeconvolution(2, factor, learned=True)
    x = torch.randn(1, 2, 3, 4)
    assert fixed(x).shape == (1, 2, 2 * factor + size, 3 * factor + size)
    torch.testing.assert_close(fixed(x), learned(x))
    assert list(fixed.state_dict()) == [] and list(fixed.parameters()) == []
    assert learned.weight.shape == (2, 2, size, size)
    learned(x)[:, 0].sum().backward()
    assert learned.weight.grad is not None and learned.weight.grad[1, 0].any()  # classes may learn of each other
