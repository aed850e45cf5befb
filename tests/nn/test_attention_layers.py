"""Attention: the plain formulas, torch's multi-head layer on copied weights, masks, and the published blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.nn.attention import (
    CBAM,
    AdditiveAttention,
    MultiHeadAttention,
    PositionEncoding,
    attention_weights,
    dot_product_attention,
    sinusoidal_encoding,
    squeeze_excitation,
)
from opsin.nn.counting import count_parameters

MASK = torch.tensor([[True, True, False, True, False], [True] * 5, [False] * 5])


def sequences(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(2, n, d, generator=generator, dtype=dtype) for n, d in ((3, 8), (5, 8), (5, 6)))
    return query, key, value


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """One query at a time, over the keys that it may see."""
    rows = []
    for i, q in enumerate(query):
        seen = [j for j in range(len(key)) if mask is None or mask[i, j]]
        weights = [math.exp(float(q @ key[j]) * scale) for j in seen]
        total = sum(w / sum(weights) * value[j] for w, j in zip(weights, seen, strict=True))
        rows.append(total if seen else torch.zeros_like(value[0]))
    return torch.stack(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("scaled", [True, False])
def test_equals_the_formula(scaled: bool, mask: Tensor | None) -> None:
    query, key, value = sequences()
    scale = 8**-0.5 if scaled else 1.0
    expected = torch.stack([plain(q, k, v, mask, scale) for q, k, v in zip(query, key, value, strict=True)])
    torch.testing.assert_close(dot_product_attention(query, key, value, mask, scaled=scaled), expected)
    torch.testing.assert_close(attention_weights(query, key, mask, scaled=scaled) @ value, expected)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_gradients_are_finite_even_where_nothing_is_seen(mask: Tensor | None) -> None:
    inputs = [x[:1].clone().requires_grad_() for x in sequences()]
    assert torch.autograd.gradcheck(lambda q, k, v: dot_product_attention(q, k, v, mask), inputs)
    query, key, value = inputs
    total = dot_product_attention(query, key, value, mask).sum()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(total, inputs))


def test_causal_sees_the_past() -> None:
    query = torch.randn(2, 5, 8, dtype=torch.float64)
    _, key, value = sequences()
    past = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = dot_product_attention(query, key, value, past)
    torch.testing.assert_close(dot_product_attention(query, key, value, causal=True), expected)
    first = torch.tensor([False, True, True, True, True])  # and a padded first key: its query sees nothing
    both = dot_product_attention(query, key, value, first, causal=True)
    torch.testing.assert_close(both, dot_product_attention(query, key, value, past & first))
    assert not both[:, 0].any()
    torch.testing.assert_close(attention_weights(query, key, first, causal=True) @ value, both)


def test_uniform_keys_give_the_mean() -> None:
    query, key, value = sequences()
    expected = value.mean(dim=1, keepdim=True).expand(-1, 3, -1)
    torch.testing.assert_close(dot_product_attention(query, torch.zeros_like(key), value), expected)


def test_additive_attention_by_hand() -> None:
    layer = AdditiveAttention(4, 3, 2).double()
    query, key = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    context, weights = layer(query, key, mask=MASK)
    w, u, v = (p.detach() for p in (layer.query.weight, layer.key.weight, layer.score.weight[0]))
    for b, i in ((0, 0), (1, 1)):
        scores = {j: float(v @ torch.tanh(w @ query[b, i] + u @ key[b, j])) for j in range(5) if MASK[i, j]}
        total = sum(math.exp(s) for s in scores.values())
        for j in range(5):
            expected = math.exp(scores[j]) / total if j in scores else 0
            assert weights[b, i, j].item() == pytest.approx(expected)
    assert not weights[:, 2].any() and not context[:, 2].any()
    torch.testing.assert_close(context, weights @ key)
    assert torch.autograd.gradcheck(lambda q, k: layer(q, k)[0], (query.requires_grad_(), key.requires_grad_()))


def torchs(layer: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's own layer with the same weights."""
    features, key_features = layer.query.in_features, layer.key.in_features
    theirs = nn.MultiheadAttention(features, layer.heads, kdim=key_features, vdim=key_features, batch_first=True)
    theirs.to(layer.out.weight.dtype)
    parts = layer.query, layer.key, layer.value
    state = {"in_proj_bias": torch.cat([p.bias for p in parts])}
    if features == key_features:
        state["in_proj_weight"] = torch.cat([p.weight for p in parts])
    else:
        state |= {f"{n}_proj_weight": p.weight for n, p in zip("qkv", parts, strict=True)}
    theirs.load_state_dict(state | {f"out_proj.{k}": v for k, v in layer.out.state_dict().items()})
    return theirs


@pytest.mark.parametrize("key_features", [16, 12])
def test_multi_head_is_torchs(key_features: int) -> None:
    layer = MultiHeadAttention(16, 4, key_features=key_features).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    query, key = (torch.randn(2, n, d, dtype=torch.float64) for n, d in ((3, 16), (5, key_features)))
    mask = MASK.clone()
    mask[2, 0] = True
    expected, weights = torchs(layer)(query, key, key, attn_mask=~mask, average_attn_weights=False)
    torch.testing.assert_close(layer(query, key, mask=mask), expected)
    torch.testing.assert_close(layer.weights(query, key, mask), weights)
    padding = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected, _ = torchs(layer)(query, key, key, key_padding_mask=~padding)
    torch.testing.assert_close(layer(query, key, mask=padding[:, None]), expected)


def test_multi_head_is_the_plain_formula_head_by_head() -> None:
    layer = MultiHeadAttention(16, 4).double()
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    heads = []
    for h in range(4):
        rows = slice(4 * h, 4 * h + 4)
        q, k, v = (x @ p.weight[rows].T + p.bias[rows] for p in (layer.query, layer.key, layer.value))
        heads.append(((q @ k.transpose(1, 2)) / 2).softmax(dim=-1) @ v)
    torch.testing.assert_close(layer(x), layer.out(torch.cat(heads, dim=2)))
    causal = layer(x, causal=True)
    torch.testing.assert_close(causal[:, :3], layer(x[:, :3], causal=True))  # the future changes nothing


def test_multi_head_drops_weights_in_training_only() -> None:
    layer, x = MultiHeadAttention(16, 4, dropout=0.5), torch.randn(1, 6, 16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))
    assert count_parameters(MultiHeadAttention(512)) == 4 * (512 * 512 + 512)


def test_encoding_by_the_formula() -> None:
    table = sinusoidal_encoding(50, 8)
    for p in (0, 1, 7, 49):
        for i in range(4):
            angle = p / 10000 ** (2 * i / 8)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)
    far = sinusoidal_encoding(100_001, 2)[-1]  # exact where float32 angles are not
    assert far.tolist() == pytest.approx([math.sin(100_000), math.cos(100_000)], abs=1e-7)


def test_encoding_of_a_shift_is_a_rotation() -> None:
    # what the paper chose it for: PE(p + k) is linear in PE(p), the same for every p
    table = sinusoidal_encoding(30, 6).double()
    shift = torch.linalg.lstsq(table[:-4], table[4:]).solution
    torch.testing.assert_close(table[:-4] @ shift, table[4:], rtol=1e-5, atol=1e-5)


def test_position_layer() -> None:
    layer, x = PositionEncoding(6, max_length=10), torch.randn(2, 7, 6)
    torch.testing.assert_close(layer(x), x + sinusoidal_encoding(7, 6))
    assert not layer.state_dict() and layer(x.half()).dtype == torch.float16


@pytest.mark.parametrize(("gate", "formula"), [("sigmoid", torch.sigmoid), ("hard_sigmoid", nn.Hardsigmoid())])
def test_squeeze_excitation_by_the_formula(gate: Any, formula: Callable[[Tensor], Tensor]) -> None:
    block: Any = squeeze_excitation(32, gate=gate)
    x = torch.randn(2, 32, 5, 4)
    (w1, b1), (w2, b2) = ((c.weight.flatten(1), c.bias) for c in (block.fc1, block.fc2))
    scale = formula(torch.relu(x.mean(dim=(2, 3)) @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(block(x), x * scale[:, :, None, None])
    narrow: Any = squeeze_excitation(32, 8)
    assert w1.shape == (2, 32) and narrow.fc1.out_channels == 8


def test_cbam_by_the_formula() -> None:
    block, x = CBAM(32, ratio=4).double(), torch.randn(2, 32, 6, 5, dtype=torch.float64)
    w1, w2 = block.channels[0], block.channels[2]

    def perceptron(v: Tensor) -> Tensor:
        return w2(torch.relu(w1(v)))

    channels = torch.sigmoid(perceptron(x.mean(dim=(2, 3))) + perceptron(x.flatten(2).max(dim=2).values))
    y = x * channels[:, :, None, None]
    summary = torch.stack([y.mean(dim=1), y.max(dim=1).values], dim=1)
    torch.testing.assert_close(block(x), y * torch.sigmoid(block.places(summary)))
    # 2 C^2 / r weights with their biases, and 2 k^2
    assert count_parameters(block) == 2 * 32 * 8 + 8 + 32 + 2 * 49
    assert torch.autograd.gradcheck(block, x[:1, :, :3, :3].clone().requires_grad_())


def test_errors() -> None:
    query, key, value = sequences()
    with pytest.raises(InputError, match=r"key of shape \(2, 5, 8\) must end in \(length, 7\)"):
        dot_product_attention(query[..., :7], key, value)
    with pytest.raises(InputError, match=r"keys of shape \(2, 5, 8\) for values of \(2, 4, 6\)"):
        dot_product_attention(query, key, value[:, :4])
    with pytest.raises(InputError, match=r"a mask is bool, True where a query may look, got torch\.float32"):
        dot_product_attention(query, key, value, MASK.float())
    with pytest.raises(InputError, match=r"a mask of shape \(3, 4\) does not fit scores of \(2, 3, 5\)"):
        dot_product_attention(query, key, value, MASK[:, :4])
    with pytest.raises(InputError, match="as many queries as keys, got 3 and 5"):
        dot_product_attention(query, key, value, causal=True)
    with pytest.raises(InputError, match="10 features cannot be cut into 4 heads"):
        MultiHeadAttention(10, 4)
    with pytest.raises(InputError, match=r"sequences of \(B, L, features\), got \(3, 16\)"):
        MultiHeadAttention(16)(torch.zeros(3, 16))
    with pytest.raises(InputError, match="features must be even, got 5"):
        sinusoidal_encoding(4, 5)
    with pytest.raises(InputError, match="a sequence of 12 is longer than max_length=10"):
        PositionEncoding(6, max_length=10)(torch.zeros(1, 12, 6))
    with pytest.raises(InputError, match="unknown gate 'hardsigmoid'; did you mean hard_sigmoid"):
        squeeze_excitation(32, gate="hardsigmoid")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kernel_size must be odd"):
        CBAM(32, kernel_size=4)
