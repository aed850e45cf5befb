"""Attention: additive, dot-product and multi-head over sequences; over channels and places of maps; positions.

Masks are bool and True where a query may look, broadcast to (B, Q, K). A query that may look nowhere gets zeros.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.naming import check_map


def dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scaled: bool = True,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V, by torch's fused kernels. Vaswani et al. 2017, arXiv:1706.03762, eq. 1.

    query: (..., Q, D), key: (..., K, D), value: (..., K, V) -> (..., Q, V). scaled=False leaves the root out: Luong et
    al. 2015, arXiv:1508.04025. causal: a query sees keys up to its own place. dropout: of weights, in training or not.
    Raises InputError for shapes that do not fit.
    """
    _check_attention(query, key, value, mask)
    scale = None if scaled else 1.0
    if causal and query.shape[-2] != key.shape[-2]:
        raise InputError(f"causal attention needs as many queries as keys, got {query.shape[-2]} and {key.shape[-2]}")
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, None, dropout, causal, scale=scale)
    if causal:
        mask = mask & _causal(mask.new_ones(query.shape[-2], key.shape[-2]))
    seeing = mask.any(dim=-1, keepdim=True)
    # Without a key the softmax is 0 / 0, whose value and gradient differ by kernel: let it see all, then take zero.
    result = F.scaled_dot_product_attention(query, key, value, mask | ~seeing, dropout, scale=scale)
    return result.masked_fill(~seeing, 0)


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, *, scaled: bool = True, causal: bool = False
) -> Tensor:
    """The weights (..., Q, K) of `dot_product_attention` by the plain formula, to be looked at. Rows sum to 1 or 0."""
    _check_attention(query, key, key, mask)
    scores = query @ key.transpose(-2, -1)
    if scaled:
        scores = scores * query.shape[-1] ** -0.5
    if causal:
        order = _causal(torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device))
        mask = order if mask is None else mask & order
    return _masked_softmax(scores, mask)


class AdditiveAttention(nn.Module):
    """v^T tanh(W q + U k), softmax over the keys. Bahdanau et al. 2014, arXiv:1409.0473, appendix A.1.2.

    forward(query (B, Q, query_features), key (B, K, key_features), value (B, K, V) or the keys, mask) -> context
    (B, Q, V), weights (B, Q, K). bias: one inside the tanh, which the paper has not and Baek et al. 2019 have.
    """

    def __init__(self, query_features: int, key_features: int, hidden_features: int, *, bias: bool = False) -> None:
        super().__init__()
        self.query = nn.Linear(query_features, hidden_features, bias)
        self.key = nn.Linear(key_features, hidden_features, bias=False)
        self.score = nn.Linear(hidden_features, 1, bias=False)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        value = key if value is None else value
        _check_keys(key, value)
        return self.attend(query, self.project(key), value, mask)

    def project(self, key: Tensor) -> Tensor:
        """U k, (B, K, hidden_features): what is the same for every query, to be computed once."""
        _check_features("key", key, self.key.in_features)
        return self.key(key)

    def attend(
        self, query: Tensor, projected: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`forward`, of keys that `project` has seen."""
        _check_features("query", query, self.query.in_features)
        hidden = torch.tanh(self.query(query)[..., :, None, :] + projected[..., None, :, :])
        weights = _masked_softmax(self.score(hidden).squeeze(-1), mask)
        return weights @ value, weights


class MultiHeadAttention(nn.Module):
    """Attention in `heads` subspaces of features / heads, side by side. Vaswani et al. 2017, section 3.2.2.

    forward(query (B, Q, features), key (B, K, key_features), value like key, mask) -> (B, Q, features). Without a key
    it is self-attention, without a value the keys are it. arXiv:1706.03762 has 512 features in 8 heads.
    """

    def __init__(
        self,
        features: int,
        heads: int = 8,
        *,
        key_features: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_count("features", features)
        check_count("heads", heads)
        check_probability("dropout", dropout)
        if features % heads:
            raise InputError(f"{features} features cannot be cut into {heads} heads; take a divisor")
        key_features = features if key_features is None else key_features
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(features, features, bias)
        self.key = nn.Linear(key_features, features, bias)
        self.value = nn.Linear(key_features, features, bias)
        self.out = nn.Linear(features, features, bias)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            if bias:
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
    ) -> Tensor:
        key = query if key is None else key
        return self.attend(query, *self.project(key, value), mask, causal=causal)

    def project(self, key: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of every head, each (B, heads, K, features / heads): what is the same for every query."""
        return self._split(self.key, key), self._split(self.value, key if value is None else value)

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """`forward`, of keys and values that `project` gave, now or at steps before."""
        dropout = self.dropout if self.training else 0.0
        y = dot_product_attention(
            self._split(self.query, query), keys, values, _for_heads(mask), causal=causal, dropout=dropout
        )
        return self.out(y.transpose(1, 2).flatten(2))

    def weights(
        self, query: Tensor, key: Tensor | None = None, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """What every head looks at: (B, heads, Q, K)."""
        q, k = self._split(self.query, query), self._split(self.key, query if key is None else key)
        return attention_weights(q, k, _for_heads(mask), causal=causal)

    def _split(self, linear: nn.Linear, x: Tensor) -> Tensor:
        _check_features("sequence", x, linear.in_features)
        if x.ndim != 3:
            raise InputError(f"multi-head attention takes sequences of (B, L, features), got {tuple(x.shape)}")
        return linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)


def sinusoidal_encoding(length: int, features: int, base: float = 10000.0) -> Tensor:
    """(length, features): sin(p / base^(2i / features)) at 2i, its cosine at 2i + 1. arXiv:1706.03762, section 3.5."""
    check_count("length", length, least=0)
    if features % 2:
        raise InputError(f"sines and cosines come in pairs: features must be even, got {features}")
    # float64: the angle of place 10,000 has lost three digits in float32
    places = torch.arange(length, dtype=torch.float64)[:, None]
    angles = places * base ** (-torch.arange(0, features, 2, dtype=torch.float64) / features)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


class PositionEncoding(nn.Module):
    """x + `sinusoidal_encoding`, then dropout; the paper has 0.1. (B, L, features) in and out, L up to max_length.

    forward(x, places=None): of which places they are, (B, L) int64; 0, 1, ... if None.
    """

    encoding: Tensor

    def __init__(self, features: int, max_length: int = 5000, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("encoding", sinusoidal_encoding(max_length, features), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        longest, features = self.encoding.shape
        _check_features("sequence", x, features)
        if not torch.compiler.is_compiling() and x.shape[-2] > longest:
            raise InputError(f"a sequence of {x.shape[-2]} is longer than max_length={longest}; build it with more")
        added = self.encoding[: x.shape[-2]] if places is None else self.encoding[places]
        return self.dropout(x + added.to(x.dtype))


def squeeze_excitation(
    channels: int,
    squeeze_channels: int | None = None,
    *,
    ratio: int = 16,
    gate: Literal["sigmoid", "hard_sigmoid"] = "sigmoid",
) -> nn.Module:
    """Weigh channels by what the whole map holds: torchvision's block. Hu et al. 2017, arXiv:1709.01507, section 3.

    squeeze_channels: hidden ones, channels / ratio unless given. gate "hard_sigmoid" is MobileNetV3's form, with a
    quarter of the channels, rounded to 8 (arXiv:1905.02244, section 5.3). The hidden activation is a ReLU in both.
    """
    from torchvision.ops import SqueezeExcitation  # here: no backbone needs torchvision to be listed

    gates = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}
    if gate not in gates:
        raise unknown("gate", gate, gates)
    check_count("channels", channels)
    check_count("ratio", ratio)
    squeeze_channels = max(1, channels // ratio) if squeeze_channels is None else squeeze_channels
    check_count("squeeze_channels", squeeze_channels)
    return SqueezeExcitation(channels, squeeze_channels, scale_activation=gates[gate])


class CBAM(nn.Module):
    """Weigh channels, then places, each by its mean and its maximum. Woo et al. 2018, arXiv:1807.06521, section 3.

    (B, C, H, W) in and out. ratio: channels to hidden ones of the shared perceptron. kernel_size: of the convolution
    over the two maps of means and maxima. As in the paper: the authors' code has a batch norm behind it as well.
    """

    def __init__(self, channels: int, ratio: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("ratio", ratio), ("kernel_size", kernel_size)):
            check_count(name, value)
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size must be odd to keep the size of the map, got {kernel_size}")
        hidden = max(1, channels // ratio)
        self.channels = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))
        self.places = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        weights = torch.sigmoid(self.channels(x.mean(dim=(2, 3))) + self.channels(x.amax(dim=(2, 3))))
        x = x * weights[:, :, None, None]
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.places(summary))


def _masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores.softmax(dim=-1)
    _check_mask(mask, scores.shape)
    seeing = mask.any(dim=-1, keepdim=True)
    return scores.masked_fill(~(mask | ~seeing), -torch.inf).softmax(dim=-1).masked_fill(~seeing, 0)


def _causal(square: Tensor) -> Tensor:
    return square.tril()


def _for_heads(mask: Tensor | None) -> Tensor | None:
    return mask if mask is None or mask.ndim < 3 else mask[:, None]


def _check_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    _check_features("key", key, query.shape[-1])
    _check_keys(key, value)
    if mask is not None:
        _check_mask(mask, torch.Size([*query.shape[:-1], key.shape[-2]]))


def _check_features(name: str, x: Tensor, features: int) -> None:
    if x.ndim < 2 or x.shape[-1] != features:
        raise InputError(f"{name} of shape {tuple(x.shape)} must end in (length, {features})")


def _check_keys(key: Tensor, value: Tensor) -> None:
    if key.shape[:-1] != value.shape[:-1]:
        raise InputError(f"there are keys of shape {tuple(key.shape)} for values of {tuple(value.shape)}")


def _check_mask(mask: Tensor, scores: torch.Size) -> None:
    if torch.compiler.is_compiling():  # lengths that are left open are not compared
        return
    if mask.dtype != torch.bool:
        raise InputError(f"a mask is bool, True where a query may look, got {mask.dtype}")
    try:
        fits = torch.broadcast_shapes(mask.shape, scores) == scores
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(f"a mask of shape {tuple(mask.shape)} does not fit scores of {tuple(scores)}")
