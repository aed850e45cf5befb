"""What every registered network of pairs must keep, whatever its family."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin import registry
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.sequence.encoder_decoder import EncoderDecoder, shift
from opsin.sequence.tokens import END, PAD, START

# Each structure that there is, small.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "seq2seq": ("seq2seq", {"layers": 2, "hidden": 6, "embedding": 5}),
    "forwards": ("seq2seq", {"cell": "gru", "layers": 1, "hidden": 6, "embedding": 5, "reverse": False}),
    "affine": ("seq2seq", {"cell": "lstm_affine_output", "layers": 1, "hidden": 6, "embedding": 5}),
    "luong": ("luong", {"layers": 2, "hidden": 6, "embedding": 5}),
    "general": ("luong", {"layers": 1, "hidden": 6, "embedding": 5, "attention": "general", "cell": "rnn"}),
    "additive": ("seq2seq", {"layers": 1, "hidden": 6, "embedding": 5, "attention": "additive"}),
    "transformer": ("transformer", {"features": 8, "heads": 2, "hidden": 12, "layers": 2, "shared": False}),
    "pre_norm": (
        "transformer_big",
        {"features": 8, "heads": 2, "hidden": 12, "layers": 1, "pre_norm": True, "shared": False},
    ),
    "rnnsearch": ("rnnsearch", {"hidden": 6, "embedding": 5, "maxout": 4}),
    "rnnsearch_lstm": ("rnnsearch", {"hidden": 6, "embedding": 5, "maxout": 4, "cell": "lstm"}),
}
NAMES = [name for name in registry.list_models(task="sequence") if registry.find_model(name).facts is not None]
SOURCE = torch.tensor([[5, 6, 7, 8, 9], [6, 4, PAD, PAD, PAD], [8, 8, 5, 4, PAD]])
TARGET = torch.tensor([[4, 5, 6], [7, PAD, PAD], [5, 4, PAD]])


def build(name: str) -> EncoderDecoder:
    torch.manual_seed(0)
    registered, options = SMALL[name]
    model = registry.create_model(registered, source_vocabulary=10, target_vocabulary=9, **options)
    assert isinstance(model, EncoderDecoder)
    return model.double()


@functools.cache
def small(name: str) -> EncoderDecoder:
    return build(name).eval()


def test_every_network_has_a_small_one() -> None:
    assert {name for name, _ in SMALL.values()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_published_facts(name: str) -> None:
    entry = registry.find_model(name)
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == entry.published.params and type(model) is entry.network
    assert entry.published.paper and entry.published.idea and entry.input_size is None
    with pytest.raises(InputError, match="source_vocabulary must be"):
        registry.create_model(name, source_vocabulary=4, target_vocabulary=4)


@pytest.mark.parametrize("name", SMALL)
def test_steps_equal_what_is_taught_and_padding_changes_nothing(name: str) -> None:
    model = small(name)
    previous, _ = shift(TARGET)
    with torch.no_grad():
        outputs = model(SOURCE)
        taught = model.teach(outputs, previous)
        fixed, state = model.start(outputs)
        for t in range(previous.shape[1]):
            logits, state = model.step(previous[:, t], state, fixed)
            torch.testing.assert_close(logits, taught[:, t], rtol=0, atol=1e-12)
        for row in range(3):  # alone and without padding
            source, target = (x[row : row + 1] for x in (SOURCE, TARGET))
            alone = model(source[:, : int((source != PAD).sum())])
            length = int((target != PAD).sum()) + 1
            own = model.teach(alone, shift(target[:, : length - 1])[0])
            torch.testing.assert_close(own[0], taught[row, :length], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_losses_reach_every_parameter_and_are_the_plain_ones(name: str) -> None:
    model = build(name).eval()
    outputs = model(SOURCE)
    model.smoothing = 0.0
    loss = model.loss(outputs, {"tokens": TARGET})["loss"]
    each = model.loss_of_each(outputs, {"tokens": TARGET})
    texts = [[4, 5, 6, END], [7, END], [5, 4, END]]
    for row, text in enumerate(texts):
        fixed, state = model.start({key: value[row : row + 1] for key, value in outputs.items()})
        last, total = START, torch.zeros(()).double()
        for token in text:
            logits, state = model.step(torch.tensor([last]), state, fixed)
            total = total - logits[0].log_softmax(dim=0)[token]
            last = token
        torch.testing.assert_close(each[row], total / len(text))
    torch.testing.assert_close(loss, sum(each[k] * len(texts[k]) for k in range(3)) / 9)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", SMALL)
def test_attention_is_where_it_looks(name: str) -> None:
    model = small(name)
    weights = model.attention(model(SOURCE), TARGET)
    if name in ("seq2seq", "forwards", "affine"):
        assert weights is None
        return
    assert weights is not None and weights.shape == (3, 4, 5)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 4).double())
    assert not weights[1, :, 2:].any() and (weights[1, :, :2] > 0).all()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("way", ["greedy", "beam", "sample"])
def test_texts_do_not_depend_on_the_batch(name: str, way: Any) -> None:
    model = small(name)
    options = {"seed": 3, "top_k": 1} if way == "sample" else {}
    together = model.decode(model(SOURCE), way, max_length=6, **options)
    for row, source in enumerate(SOURCE):
        alone = model.decode(model(source[source != PAD][None]), way, max_length=6, **options)[0]
        assert alone.tokens == together[row].tokens
        assert alone.scores == pytest.approx(together[row].scores)
        assert not {PAD, START, END} & set(alone.tokens)


@pytest.mark.parametrize("name", SMALL)
def test_an_empty_source_is_never_nan(name: str) -> None:
    model = small(name)
    source = torch.cat([SOURCE[:1], torch.zeros_like(SOURCE[:1])])
    assert model.teach(model(source), shift(TARGET[:2])[0]).isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_pure_and_dropout_is_of_training(name: str) -> None:
    model = copy.deepcopy(small(name))
    before = {key: value.clone() for key, value in model(SOURCE).items()}
    for key, value in model(SOURCE).items():
        assert torch.equal(value, before[key])


def test_wrong_tokens_are_refused() -> None:
    model = small("seq2seq")
    with pytest.raises(InputError, match="takes tokens from 0 to 9, got 10"):
        model(torch.full((1, 3), 10))
    with pytest.raises(InputError, match=r"behind a text, not before it"):
        model(torch.tensor([[PAD, 5]]))
    with pytest.raises(InputError, match=r"int64, got torch\.float32 \(2, 3\)"):
        model(torch.zeros(2, 3))
    with pytest.raises(InputError, match="the target takes tokens from 0 to 8, got 9"):
        model.loss(model(SOURCE), {"tokens": torch.full((3, 1), 9)})
    with pytest.raises(InputError, match=r"unknown way to decode 'greedi'; did you mean greedy"):
        model.decode(model(SOURCE), "greedi")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown attention"):
        registry.create_model("seq2seq", layers=1, hidden=4, embedding=3, attention="dots")


def plain_shift(tokens: Tensor) -> Tensor:
    return torch.cat([torch.full((len(tokens), 1), START), tokens], dim=1)


def test_shift_puts_the_end_behind_each_text() -> None:
    previous, wanted = shift(TARGET)
    assert torch.equal(previous, plain_shift(TARGET))
    assert wanted.tolist() == [[4, 5, 6, END], [7, END, PAD, PAD], [5, 4, END, PAD]]
