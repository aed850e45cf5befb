"""The Transformer: torch's own on copied weights, and a cache that neither padding nor the batch can disturb."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.errors import InputError
from opsin.nn.attention import MultiHeadAttention, sinusoidal_encoding
from opsin.nn.transformer import TransformerLayer
from opsin.sequence.tokens import END, PAD, START
from opsin.sequence.transformer import Transformer

FEATURES, HEADS, HIDDEN, LAYERS, VOCABULARY = 16, 4, 24, 2, 11


def build(**options: Any) -> Transformer:
    torch.manual_seed(0)
    given = {"source_vocabulary": VOCABULARY, "target_vocabulary": VOCABULARY, "features": FEATURES, "heads": HEADS}
    model = registry.create_model("transformer", **given | {"hidden": HIDDEN, "layers": LAYERS} | options)  # type: ignore[arg-type]
    assert isinstance(model, Transformer)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):  # they start at 1 and 0, which hides a wrong place
            nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return model.double().eval()


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    parts = ours.query, ours.key, ours.value
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )


def copy_layer(ours: TransformerLayer, theirs: Any) -> None:
    copy_attention(ours.attend, theirs.self_attn)
    norms = [ours.around_attend.norm, ours.around_feed.norm]
    if ours.cross is not None and ours.around_cross is not None:
        copy_attention(ours.cross, theirs.multihead_attn)
        norms.insert(1, ours.around_cross.norm)
    for k, norm in enumerate(norms):
        getattr(theirs, f"norm{k + 1}").load_state_dict(norm.state_dict())
    theirs.linear1.load_state_dict(ours.feed.widen.state_dict())
    theirs.linear2.load_state_dict(ours.feed.narrow.state_dict())


def torchs(model: Transformer, *, pre_norm: bool) -> nn.Transformer:
    """torch's own layers with the same weights; without final norms, which it has by itself, where they are behind."""
    options: Any = {"batch_first": True, "norm_first": pre_norm, "dropout": 0.0, "dtype": torch.float64}
    norms = [nn.LayerNorm(FEATURES).double() if pre_norm else None for _ in range(2)]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(FEATURES, HEADS, HIDDEN, **options), LAYERS, norms[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(FEATURES, HEADS, HIDDEN, **options), LAYERS, norms[1])
    # before the copying, as it starts all weights anew
    whole = nn.Transformer(FEATURES, HEADS, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
    for ours, theirs in ((model.encoder, encoder), (model.decoder, decoder)):
        for one, other in zip(ours, theirs.layers, strict=True):
            assert isinstance(one, TransformerLayer)
            copy_layer(one, other)
    for ours, theirs in zip((model.encoder_norm, model.decoder_norm), norms, strict=True):
        if theirs is not None:
            theirs.load_state_dict(ours.state_dict())
    return whole.eval()


def texts(*rows: list[int]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


SOURCE = texts([4, 5, 6, 7, 8, 9], [10, 4], [7, 7, 8, 5])
PREVIOUS = texts([START, 5, 6, 4], [START, 9], [START, 4, 4])


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_torchs_transformer_with_its_gradients(pre_norm: bool, padded: bool) -> None:
    model = build(pre_norm=pre_norm)
    theirs = torchs(model, pre_norm=pre_norm)
    source, previous = (SOURCE, PREVIOUS) if padded else (SOURCE[:1], PREVIOUS[:1])
    table = model.embed_source.weight

    def embed(tokens: Tensor) -> Tensor:
        return table[tokens] * FEATURES**0.5 + sinusoidal_encoding(tokens.shape[1], FEATURES).double()

    hidden = theirs(
        embed(source),
        embed(previous),
        tgt_mask=torch.ones(previous.shape[1], previous.shape[1], dtype=torch.bool).triu(1),
        src_key_padding_mask=source == PAD,
        tgt_key_padding_mask=previous == PAD,
        memory_key_padding_mask=source == PAD,
    )
    expected = hidden @ table.T
    ours = model.teach(model(source), previous)
    seen = previous != PAD
    torch.testing.assert_close(ours[seen], expected[seen], rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(logits[seen].logsumexp(dim=1).sum(), table)[0] for logits in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "shared": False}, {"activation": "gelu"}])
def test_the_cache_equals_the_whole_at_every_step_for_any_padding(options: dict[str, Any]) -> None:
    model = build(**options)
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, VOCABULARY, (7, 6), generator=generator)
    previous = torch.randint(4, VOCABULARY, (7, 8), generator=generator)
    previous[:, 0] = START
    source[0, 4:] = previous[0, 5:] = PAD  # behind
    source[1, :3] = previous[1, :4] = PAD  # before
    source[2, [1, 4]] = previous[2, [2, 3, 6]] = PAD  # inside
    source[3] = PAD  # nothing to look at
    previous[4] = PAD  # nothing was written
    source[5], previous[5] = PAD, PAD
    with torch.no_grad():
        outputs = model(source)
        whole = model.teach(outputs, previous)
        assert whole.isfinite().all()
        fixed, state = model.start(outputs)
        for t in range(8):
            logits, state = model.step(previous[:, t], state, fixed)
            assert (logits - whole[:, t]).abs().max() < 1e-12
            assert (logits - model.teach(outputs, previous[:, : t + 1])[:, -1]).abs().max() < 1e-12
        for row in range(7):  # alone, and without what is padded
            kept = previous[row, seen := previous[row] != PAD][None]
            own = source[row][source[row] != PAD][None]
            if kept.numel() and own.numel():
                assert (model.teach(model(own), kept)[0] - whole[row, seen]).abs().max() < 1e-12


@pytest.mark.parametrize("pre_norm", [False, True])
def test_gradients_are_finite_where_nothing_is_seen(pre_norm: bool) -> None:
    model = build(pre_norm=pre_norm)
    source, previous = torch.full((2, 3), PAD), torch.full((2, 4), PAD)
    source[1, 0] = 5
    model.teach(model(source), previous).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_smoothing_is_a_mean_over_all_tokens() -> None:
    model = build(smoothing=0.1)
    tokens = texts([5, 6], [7])
    outputs = model(SOURCE[:2])
    log_p = model.teach(outputs, texts([START, 5, 6], [START, 7])).log_softmax(dim=2)
    terms = []
    for row, text in enumerate([[5, 6, END], [7, END]]):
        for t, token in enumerate(text):
            terms.append(-0.9 * log_p[row, t, token] - 0.1 * log_p[row, t].mean())
    torch.testing.assert_close(model.loss(outputs, {"tokens": tokens})["loss"], torch.stack(terms).mean())


def test_attention_of_the_last_layer_by_hand() -> None:
    model = build(layers=1)
    layer: Any = model.decoder[0]
    outputs = model(SOURCE)
    x = model.place(model.embed_source(PREVIOUS[:1]) * 4)
    attended = layer.attend(x, causal=True)
    query = layer.around_attend.norm(x + attended)
    q = F.linear(query, layer.cross.query.weight, layer.cross.query.bias)[0].view(4, HEADS, 4)
    k = F.linear(outputs["memory"][:1], layer.cross.key.weight, layer.cross.key.bias)[0].view(6, HEADS, 4)
    expected = torch.einsum("qhd,khd->hqk", q, k).div(2).softmax(dim=2).mean(dim=0)
    weights = model.attention(outputs, texts([5, 6, 4], [9], [4, 4]))
    assert weights is not None
    torch.testing.assert_close(weights[0], expected)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 4).double())


def test_wrong_calls() -> None:
    with pytest.raises(InputError, match="one table cannot embed"):
        build(target_vocabulary=12)
    model = build(max_positions=4)
    with pytest.raises(InputError, match="a sequence of 6 is longer than max_length=4"):
        model(SOURCE)
    outputs = model(SOURCE[:, :4])
    assert all(len(one.tokens) <= 3 for one in model.decode(outputs, max_length=50))
    fixed, state = model.start(outputs)
    for _ in range(4):
        _, state = model.step(torch.full((3,), 5), state, fixed)
    with pytest.raises(InputError, match="longer than max_positions=4"):
        model.step(torch.full((3,), 5), state, fixed)
    with pytest.raises(InputError, match="takes a memory"):
        TransformerLayer(16, 4, 8, crosses=True)(torch.zeros(1, 2, 16))
