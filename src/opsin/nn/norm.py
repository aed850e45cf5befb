"""Normalisation by name, and the kinds that torch lacks or has with other constants."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.nn.naming import build, check_map


def alexnet_lrn() -> nn.LocalResponseNorm:
    """Local response normalisation with the constants of Krizhevsky et al. 2012, section 3.3.

    b_i = a_i / (k + alpha * sum of a_j^2 over the n channels around i)^beta; n = 5, k = 2, alpha = 1e-4, beta = 0.75.
    """
    # torch and Caffe divide alpha by n, the paper's formula does not: hence n * 1e-4. Caffe's own AlexNet passes 1e-4
    # and k = 1, which normalises less than the paper's (BVLC/caffe issue 1453).
    return nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm of a map: every place over its channels, as a transformer does its tokens. arXiv:1607.06450.

    (B, C, H, W) in and out. Over channels and places at once, as Wu and He read it, is group norm with one group.
    """

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, eps, affine)

    def forward(self, input: Tensor) -> Tensor:
        check_map(self, input, self.normalized_shape[0])
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SwitchableNorm2d(nn.Module):
    """A learned mixture of instance, layer and batch statistics. Luo et al. 2018, arXiv:1806.10779, eq. 3 to 5.

    Means and variances are each averaged over the three with softmax weights of their own. The layer's are over
    channels and places; all variances are the biased ones, as in the paper. Evaluation uses a moving average of the
    batch's, where the paper averages over batches of the finished network. momentum: of that average, as in batch norm.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        check_count("channels", channels)
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mean_logits = nn.Parameter(torch.zeros(3))  # of instance, layer, batch
        self.var_logits = nn.Parameter(torch.zeros(3))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x, len(self.weight))
        if x.numel() == 0:
            return x  # the mean of nothing would spoil the moving average for good
        full = x.to(self.weight.dtype)  # half precision cannot hold the sums
        var, mean = torch.var_mean(full, dim=(2, 3), correction=0)  # (B, C); the rest follows from them, eq. 5
        layer_mean = mean.mean(dim=1, keepdim=True)
        layer_var = (var + (mean - layer_mean).square()).mean(dim=1, keepdim=True)
        if self.training:
            batch_mean = mean.mean(dim=0)
            batch_var = (var + (mean - batch_mean).square()).mean(dim=0)
            with torch.no_grad():
                self.running_mean.lerp_(batch_mean, self.momentum)
                self.running_var.lerp_(batch_var, self.momentum)
        else:
            batch_mean, batch_var = self.running_mean, self.running_var
        a, b = torch.softmax(self.mean_logits, 0), torch.softmax(self.var_logits, 0)
        mean = a[0] * mean + a[1] * layer_mean + a[2] * batch_mean
        scale = torch.rsqrt(b[0] * var + b[1] * layer_var + b[2] * batch_var + self.eps) * self.weight
        shift = self.bias - mean * scale
        return (full * scale[:, :, None, None] + shift[:, :, None, None]).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"


class LocalResponseNormWithin(nn.Module):
    """Local response normalisation over a square of places within each channel: Caffe's WITHIN_CHANNEL.

    y = x / (k + alpha / size^2 * sum of x^2 over size x size places)^beta, zeros around the map. Caffe takes its k for
    the norm across channels only: here it is 1 unless given. size: odd. divided=False leaves alpha undivided, as
    Krizhevsky et al. 2012 write theirs across channels.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, divided: bool = True
    ) -> None:
        super().__init__()
        check_count("size", size)
        if size % 2 == 0:
            raise InputError(f"size must be odd to have a middle, got {size}")
        self.size, self.alpha, self.beta, self.k, self.divided = size, alpha, beta, k, divided

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        mean = F.avg_pool2d(x.square(), self.size, stride=1, padding=self.size // 2)
        return x * (self.k + self.alpha * (1 if self.divided else self.size**2) * mean) ** -self.beta

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, divided={self.divided}"


class L2Norm(nn.Module):
    """Every place's channels at length 1, times a learned scale for each channel. ParseNet, arXiv:1506.04579, sec. 3.3.

    scale: where it begins; SSD, arXiv:1512.02325, section 3.1, puts it at 20 behind conv4_3, whose values are larger
    than those of its other maps. (B, C, H, W) in and out.
    """

    def __init__(self, channels: int, scale: float = 20.0, eps: float = 1e-10) -> None:
        super().__init__()
        check_count("channels", channels)
        self.eps = eps  # under the root, as in SSD's Caffe: a place where all is zero stays zero
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x, len(self.weight))
        full = x.to(self.weight.dtype)  # half precision holds neither the sum of squares nor eps
        length = torch.rsqrt(full.square().sum(dim=1, keepdim=True) + self.eps)
        return (full * length * self.weight[:, None, None]).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


class SteadyBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that trains on a map of one place from one image too, by its running statistics.

    There the batch has no variance and torch refuses; the coarsest level of a pyramid comes to that in a batch of one,
    and so does the mean of a whole map.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0, self.eps)
        return super().forward(input)


def _group(channels: int, groups: int = 32, eps: float = 1e-5, affine: bool = True) -> nn.GroupNorm:
    # 32: Wu and He 2018, arXiv:1803.08494, section 3.1
    check_count("groups", groups)
    if channels % groups:
        raise InputError(f"{channels} channels cannot be normalised in {groups} groups; pass groups that divide them")
    return nn.GroupNorm(groups, channels, eps, affine)


def _lrn(channels: int, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(size, alpha, beta, k)


def _lrn_within(
    channels: int, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, divided: bool = True
) -> LocalResponseNormWithin:
    return LocalResponseNormWithin(size, alpha, beta, k, divided)


def _frozen_batch(channels: int, eps: float = 1e-5) -> nn.Module:
    from torchvision.ops import FrozenBatchNorm2d  # here: no backbone needs torchvision to be listed

    return FrozenBatchNorm2d(channels, eps)


_NORMS: Mapping[str, Any] = MappingProxyType(
    {
        "batch": nn.BatchNorm2d,
        "frozen_batch": _frozen_batch,
        "layer": LayerNorm2d,
        "instance": nn.InstanceNorm2d,
        "group": _group,
        "switchable": SwitchableNorm2d,
        "lrn": _lrn,
        "lrn_within": _lrn_within,
        "l2": L2Norm,
    }
)


def list_norms() -> list[str]:
    """Names that `create_norm` knows."""
    return sorted(_NORMS)


def create_norm(name: str, channels: int, **options: Any) -> nn.Module:
    """A normalisation of maps (B, C, H, W) by name: batch, frozen_batch, layer, instance, group, switchable, l2, lrn
    (across channels), lrn_within (a channel).

    batch, instance and lrn are torch's, with its options; group has `groups`, 32 unless given. frozen_batch is
    torchvision's: statistics and scale are buffers, for detectors whose batches are too small to estimate them.
    Raises InputError for an unknown name or option, with the nearest known ones, and for channels that do not fit.
    """
    check_count("channels", channels)
    return build("norm", _NORMS, name, channels, **options)


def freeze_batch_norm(model: nn.Module) -> nn.Module:
    """Replace every 2D batch norm within a model by a frozen one with its statistics, in place; returns the model.

    The outputs are those of `model.eval()`, and stay so while the rest is trained. Raises InputError for a batch norm
    that keeps no statistics.
    """
    for name, norm in list(model.named_modules()):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm.running_mean is None or norm.running_var is None:
            raise InputError(f"batch norm {name or 'itself'} keeps no statistics that could be frozen")
        frozen = create_norm("frozen_batch", norm.num_features, eps=norm.eps).to(norm.running_mean.device)
        state = {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
        frozen.load_state_dict(state, strict=False)  # one without an affine part keeps the ones and zeros
        if not name:
            return frozen
        model.set_submodule(name, frozen)
    return model
