"""How far a loss reaches back, worked by hand; gates, alignments and the ladder as they are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import registry
from opsin.data import Split
from opsin.data.texts import PackedTexts
from opsin.errors import InputError
from opsin.sequence.inputs import NumberInputs, TextInputs
from opsin.sequence.ladder import READERS, WRITERS, climb, table
from opsin.sequence.reach import gates_of, gradient_by_step, longest_places
from opsin.sequence.report import alignment
from opsin.sequence.truth import SequenceTruth

pytestmark = pytest.mark.rendered


def test_a_plain_cell_halves_the_gradient_at_each_step() -> None:
    model: Any = registry.create_model("sequence_regressor", trunk="rnn", hidden=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(0.5 if "weight_hh" in name else 0.0 if "bias" in name else 1.0)
    # h' = tanh(x + h / 2) at x = h = 0 has the slopes 1 and 1/2; the loss (h - 1)^2 that of -2
    series = [np.zeros((6, 1), np.float32)] * 4 + [np.zeros((9, 1), np.float32)]
    split = Split(NumberInputs.pack(series, "series "), SequenceTruth("values", 5, numbers=np.ones((5, 1), np.float32)))
    assert longest_places(split, 32) == [0, 1, 2, 3] and longest_places(split, 2) == [0, 1]

    def inputs(batch: Any) -> tuple[Any, ...]:
        return torch.stack(list(batch["source"])), torch.full((len(batch["source"]),), 6)

    predictor = SimpleNamespace(model=model, inputs=inputs, targets=lambda batch: {"values": batch["target"]})
    norms = gradient_by_step(predictor, split)
    np.testing.assert_allclose(norms, [2 * 0.5**k / 4 for k in range(5, -1, -1)], rtol=1e-6)  # of a batch of four


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rungs, hardly trained."""
    out = tmp_path_factory.mktemp("ladder") / "it"
    found = climb("reverse:4,count=64,val=8,test=24", ["gru", "lstm+dot"], epochs=1, out=out)
    lines = table(found)
    assert [line.split()[0] for line in lines] == ["rung", "gru", "lstm+dot"]
    assert all(sum(count for _, _, count, _ in one.by_length) == 24 for one in found)
    assert all(2 <= len(one.gradient) <= 4 and (one.gradient > 0).all() for one in found)
    return out


def test_the_ladder(rungs: Path) -> None:
    found = json.loads((rungs / "ladder.json").read_text())
    assert [one["name"] for one in found] == ["gru", "lstm+dot"] and set(found[0]["step_seconds"]) == {
        "10",
        "20",
        "40",
        "80",
    }
    page = (rungs / "ladder.html").read_text()
    assert all(title in page for title in ("What each reached", "How far the loss reaches", "Cost of a step"))
    with pytest.raises(InputError, match="is there already"):
        climb("reverse:4", out=rungs)
    with pytest.raises(InputError, match="unknown rung 'lstmdot'"):
        climb("reverse:4", ["lstmdot"], out=rungs / "new")
    assert {name for name, _ in WRITERS.values()} == {"seq2seq", "transformer"} and set(READERS) < {*WRITERS}


def test_the_report_shows_alignments_and_gates(rungs: Path) -> None:
    page = (rungs / "lstm_dot/report.html").read_text()
    assert "Alignment of " in page and "Gates of the first layer" in page and "How far the loss reaches" in page
    assert "Alignment of " not in (rungs / "gru/report.html").read_text()
    predictor = opsin.load(rungs / "lstm_dot")
    gates, symbols = gates_of(predictor, predictor.read("abcd")) or ({}, [])
    assert symbols == list("dcba")  # the encoder reads from the end
    assert set(gates) == {"input", "forget", "output"} and all(gate.shape == (4, 128) for gate in gates.values())
    assert all(0 < gate.min() < gate.max() < 1 for gate in gates.values())


def test_an_alignment_is_drawn_over_both_texts() -> None:
    svg = alignment(np.eye(3), ["x", " ", "z"], ["a", "b", "end"]).decode()
    assert all(f">{name}<" in svg for name in ("x", "\u2423", "z", "a", "b", "end"))


def test_texts_of_one_length_are_found() -> None:
    inputs = TextInputs(PackedTexts.pack(["ab", "c", "de", "fgh"]), "line ", np.arange(1, 5))
    assert longest_places(Split(inputs, SequenceTruth("language", 4)), 5) == [0, 2]
