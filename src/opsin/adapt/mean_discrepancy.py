"""Maximum mean discrepancy with several kernels: how far apart the means of two samples are in a space of functions.

Gretton et al. 2012, "A kernel two-sample test", JMLR 13, lemma 6 and section 6; as a loss between features: Long et al.
2015, "Learning transferable features with deep adaptation networks" (DAN), arXiv:1502.02791.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from opsin.adapt.features import Seen
from opsin.adapt.method import Method
from opsin.errors import InputError, unknown

Estimator = Literal["quadratic", "linear"]
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def gaussian_kernels(one: Tensor, other: Tensor, widths: Sequence[float] | Tensor) -> Tensor:
    """k(x, y) = (1 / U) sum_u exp(-|x - y|^2 / w_u), the mean of Gaussian kernels: (N, D) and (M, D) -> (N, M).

    widths: the w_u, of squared distances, above 0.
    """
    distances = squared_distances(one, other)
    return torch.stack([torch.exp(-distances / width) for width in widths]).mean(dim=0)


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """|x_i - y_j|^2 of (N, D) and (M, D): (N, M). By differences: the short form loses the digits of near points."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").square()


def kernel_widths(source: Tensor, target: Tensor, factors: Sequence[float] = FACTORS) -> Tensor:
    """Widths for two samples: their mean squared distance over all pairs of different points, times each factor.

    Without gradient, as in DAN, whose range of factors, powers of 2 about the mean, this is.
    """
    both = torch.cat([source, target]).detach()
    count = len(both)
    # The sum over all pairs of |x - y|^2 is 2 n sum |x - mean|^2.
    mean = 2 * (both - both.mean(dim=0)).square().sum() / max(1, count - 1)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny) * torch.tensor(factors, dtype=mean.dtype, device=mean.device)


def mmd_quadratic(source: Tensor, target: Tensor, widths: Sequence[float] | Tensor) -> Tensor:
    """The unbiased estimator of MMD^2, which may be below 0. Gretton et al. 2012, eq. 3.

    1 / (n (n - 1)) sum_{i != j} k(s_i, s_j) + 1 / (m (m - 1)) sum_{i != j} k(t_i, t_j) - 2 / (n m) sum_{ij} k(s_i, t_j)

    source: (n, D), target: (m, D), n and m at least 2. Cost n m. Raises InputError for fewer.
    """
    n, m = len(source), len(target)
    if min(n, m) < 2:
        raise InputError(f"the discrepancy of {n} and {m} examples is not defined; take two or more of each domain")
    within_s, within_t = gaussian_kernels(source, source, widths), gaussian_kernels(target, target, widths)
    first = (within_s.sum() - within_s.diagonal().sum()) / (n * (n - 1))
    second = (within_t.sum() - within_t.diagonal().sum()) / (m * (m - 1))
    return first + second - 2 * gaussian_kernels(source, target, widths).mean()


def mmd_linear(source: Tensor, target: Tensor, widths: Sequence[float] | Tensor) -> Tensor:
    """The estimator of linear cost: the mean of h over pairs of pairs. Gretton et al. 2012, lemma 14; DAN, eq. 5.

    2 / n sum_{i = 1}^{n / 2} [k(s_2i-1, s_2i) + k(t_2i-1, t_2i) - k(s_2i-1, t_2i) - k(s_2i, t_2i-1)]

    source and target: (n, D) and (m, D); of the longer one the last rows are left out, and an odd one. Raises
    InputError for fewer than two of each.
    """
    count = min(len(source), len(target)) // 2
    if count < 1:
        raise InputError(
            f"the discrepancy of {len(source)} and {len(target)} examples is not defined; take two or more of each"
        )
    s, t = source[: 2 * count], target[: 2 * count]

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        distances = (one - other).square().sum(dim=1)
        return torch.stack([torch.exp(-distances / width) for width in widths]).mean(dim=0)

    return (
        kernel(s[0::2], s[1::2]) + kernel(t[0::2], t[1::2]) - kernel(s[0::2], t[1::2]) - kernel(s[1::2], t[0::2])
    ).mean()


_ESTIMATORS = {"quadratic": mmd_quadratic, "linear": mmd_linear}


class DAN(Method):
    """Deep adaptation by MMD with several kernels, of the features before the last layer. Long et al. 2015.

    estimator: "quadratic", unbiased, over all pairs of a batch, or "linear", the paper's, whose gradient is noisier.
    factors: of the kernels' widths about the mean squared distance. The paper aligns the last three layers of AlexNet
    and learns the kernels' weights by a quadratic program; here one layer, and equal weights.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        num_sources: int,
        *,
        estimator: Estimator = "quadratic",
        factors: Sequence[float] = FACTORS,
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        if estimator not in _ESTIMATORS:
            raise unknown("estimator of the discrepancy", estimator, _ESTIMATORS)
        if not factors or min(factors) <= 0:
            raise InputError(f"factors is {list(factors)!r}; expected numbers above 0, such as 0.5, 1 and 2")
        self.estimator, self.factors = estimator, tuple(factors)

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        source, target = seen.halves(seen.features)
        widths = kernel_widths(source, target, self.factors)
        return {"mmd": _ESTIMATORS[self.estimator](source, target, widths)}
