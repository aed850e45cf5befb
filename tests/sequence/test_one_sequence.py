"""Networks of one sequence: steps equal the whole, padding changes nothing, losses are the plain ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin import registry
from opsin.errors import InputError
from opsin.ops.generation import write_greedy
from opsin.sequence.tokens import END, PAD, START

TOKENS = torch.tensor([[5, 6, 7, 8, 4], [6, 4, PAD, PAD, PAD], [8, 8, 5, 4, PAD]])
KINDS = ["rnn", "lstm", "gru", "transformer"]
ANSWERING = ["sequence_classifier", "sequence_labeller", "sequence_regressor"]


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    given: Any = {"hidden": 8, "layers": 2, "heads": 2} | options
    return registry.create_model(name, **given).double().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_scores_each_token_by_those_before(kind: str) -> None:
    model = build("language_model", trunk=kind, vocabulary=10)
    with torch.no_grad():
        logits = model(TOKENS)["logits"]
        changed = TOKENS.clone()
        changed[0, 3:] = 9
        torch.testing.assert_close(model(changed)["logits"][0, :4], logits[0, :4])
        state = model.initial_state(3)
        last = torch.full((3,), START)
        for t in range(5):
            step, state = model.step(last, state)
            seen = TOKENS[:, t] != PAD
            torch.testing.assert_close(step[seen], logits[seen, t], rtol=0, atol=1e-12)
            last = TOKENS[:, t]
    each = model.loss_of_each(model(TOKENS), {"tokens": TOKENS})
    plain = [F.cross_entropy(logits[row, :n], TOKENS[row, :n]) for row, n in enumerate((5, 2, 4))]
    torch.testing.assert_close(each, torch.stack(plain))
    loss = model.loss(model(TOKENS), {"tokens": TOKENS})["loss"]
    torch.testing.assert_close(loss, (5 * plain[0] + 2 * plain[1] + 4 * plain[2]) / 11)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_goes_on_with_a_text(kind: str) -> None:
    model = build("language_model", trunk=kind, vocabulary=7)
    text, expected = TOKENS[:1, :0], list[int]()
    for _ in range(6):
        scores = model(F.pad(text, (0, 1), value=4))["logits"][0, -1]  # the last token is not looked at
        scores[[PAD, START]] = -math.inf
        if (token := int(scores.argmax())) == END:
            break
        expected.append(token)
        text = F.pad(text, (0, 1), value=token)
    assert model.generate(TOKENS[:1, :0], max_length=6, temperature=0) == expected
    if len(expected) > 2:
        assert model.generate(torch.tensor([expected[:2]]), max_length=4, temperature=0) == expected[2:]
    drawn = [model.generate(TOKENS[:1, :0], max_length=9, seed=seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len({tuple(one) for one in drawn}) > 1


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("numbers", [False, True])
def test_padding_changes_nothing_and_gradients_reach_all(name: str, kind: str, numbers: bool) -> None:
    given = {"in_channels": 3} if numbers else {"vocabulary": 10}
    model = build(name, trunk=kind, bidirectional=True, **given)
    lengths = (TOKENS != PAD).sum(dim=1)
    x: Tensor = torch.randn(3, 5, 3).double() if numbers else TOKENS
    ((key, together),) = model(x, lengths).items()
    for row, length in enumerate(lengths.tolist()):
        alone = model(x[row : row + 1, :length])[key][0]
        torch.testing.assert_close(alone, together[row, :length] if "labeller" in name else together[row])
    targets = {
        "label": torch.tensor([1, 0, 9]),
        "labels": torch.where(TOKENS == PAD, -1, TOKENS),
        "values": torch.tensor([[0.5], [1.0], [2.0]]).double(),
    }
    each = model.loss_of_each({key: together}, targets)
    loss = model.loss({key: together}, targets)["loss"]
    if name == "sequence_labeller":
        torch.testing.assert_close(each[1], F.cross_entropy(together[1, :2], TOKENS[1, :2]))
        torch.testing.assert_close(loss, (each * lengths).sum() / 11)
    elif name == "sequence_classifier":
        torch.testing.assert_close(loss, F.cross_entropy(together, targets["label"]))
    else:
        torch.testing.assert_close(each, (together - targets["values"])[:, 0] ** 2)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_summary_is_what_was_read_last_in_each_direction() -> None:
    model = build("sequence_classifier", trunk="gru", in_channels=3, bidirectional=True)
    x = torch.randn(2, 5, 3).double()
    y = model.trunk.recurrent(x)
    expected = torch.cat([y[:, -1, :8], y[:, 0, 8:]], dim=1)
    torch.testing.assert_close(model.trunk.summary(x, x.new_ones(2, 5, dtype=torch.bool)), expected)


@pytest.mark.parametrize("name", ["language_model", *ANSWERING])
def test_options_are_known_and_wrong_calls_refused(name: str) -> None:
    options = registry.find_model(name).options
    assert {"trunk", "hidden", "layers", "heads", "dropout", "max_positions", "vocabulary"} <= options.keys()
    with pytest.raises(InputError, match="unknown trunk 'lstn'"):
        build(name, trunk="lstn")
    model = build(name, vocabulary=10, trunk="transformer", max_positions=4)
    with pytest.raises(InputError, match="longer than max_length=4"):
        model(TOKENS)
    with pytest.raises(InputError, match="from 0 to 9, got 10"):
        model(TOKENS + 2)
    assert model(model.example(3)[:, :4]) is not None


def test_numbers_of_other_widths_are_refused() -> None:
    model = build("sequence_regressor", in_channels=3)
    with pytest.raises(InputError, match=r"rows \(B, L, 3\) of numbers, got \(2, 5, 4\)"):
        model(torch.zeros(2, 5, 4))
    language = build("language_model", vocabulary=10, trunk="transformer", max_positions=4)
    with pytest.raises(InputError, match="leaves no place"):
        language.generate(TOKENS[:1])
    with pytest.raises(InputError, match="goes on with one text"):
        language.generate(TOKENS)
    assert len(language.generate(TOKENS[:1, :1], max_length=50)) <= 2


def test_greedy_search_takes_a_language_models_step() -> None:
    model = build("language_model", vocabulary=10)
    two = write_greedy(model.step, model.initial_state(2), 2, start=START, end=END, max_length=4, banned=[PAD, START])
    assert two[0] == two[1] and list(two[0].tokens) == model.generate(TOKENS[:1, :0], max_length=4, temperature=0)
