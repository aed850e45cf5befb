"""An encoder and a step of its decoder as programs: a loop over them writes what the model writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin import registry
from opsin.engine import export as exporting
from opsin.engine.export import export
from opsin.engine.export_comparison import compare
from opsin.engine.exported import open_program
from opsin.engine.program import Program
from opsin.engine.train import train
from opsin.errors import JobError
from opsin.ops.generation import State, write_greedy
from opsin.sequence.encoder_decoder import BANNED
from opsin.sequence.program import programs_of
from opsin.sequence.tokens import END, PAD, START

SOURCE = torch.tensor([[5, 6, 7, 8, 9], [6, 4, PAD, PAD, PAD], [8, 8, 5, 4, PAD]])
OTHER = torch.tensor([[5, 6, 7, 8, 9, 4, 4, 6], [6, 4, 9, PAD, PAD, PAD, PAD, PAD]])
SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"features": 8, "heads": 2, "hidden": 12, "layers": 1, "shared": False},
    "luong": {"hidden": 6, "embedding": 5, "layers": 1},
}


def build(name: str) -> Any:
    torch.manual_seed(0)
    model = registry.create_model(name, source_vocabulary=10, target_vocabulary=9, **SMALL[name])
    return model.eval().requires_grad_(False)


def written(program: Program, format: str, folder: Path) -> Callable[..., Any]:
    """What a program's file runs, after the gate."""
    shown: Any = type("Predictor", (), {"recipe": type("Recipe", (), {"model": type("Model", (), {"name": "net"})})})
    traced = exporting._trace(program, shown, SOURCE)
    file = folder / f"model{program.part}{exporting.SUFFIXES[format]}"
    exporting._WRITERS[format](traced, program, file, {})
    run = open_program(file, format, program.input_names)
    compare(program, run, SOURCE, file)
    return run


@pytest.mark.parametrize(
    ("name", "format"),
    [("transformer", "onnx"), ("luong", "torch"), *([("luong", "openvino")] if "OPSIN_SOAK" in os.environ else [])],
)
def test_a_loop_over_the_files_writes_what_the_model_writes(name: str, format: str, tmp_path: Path) -> None:
    model = build(name)
    encode, step = (written(program, format, tmp_path) for program in programs_of(model, "sequence"))
    for source in (SOURCE, OTHER) if name == "transformer" else (SOURCE,):  # of another length, where that is left open
        found = encode(source)
        states = [key for key in found if key.startswith("state")]
        fixed = [value for key, value in found.items() if key not in states]

        def advance(tokens: Tensor, state: State, fixed: list[Tensor]) -> tuple[Tensor, State]:
            logits, *after = step(tokens, *state, *fixed).values()
            return logits, tuple(after)

        given: dict[str, Any] = {"start": START, "end": END, "max_length": 6, "banned": BANNED}
        state = tuple(found[key] for key in states)
        texts = write_greedy(partial(advance, fixed=fixed), state, len(source), **given)
        expected = model.decode(model(source), max_length=6)
        for one, other in zip(texts, expected, strict=True):
            assert one.tokens == other.tokens and one.scores == pytest.approx(other.scores, abs=1e-5)


def test_the_gate_refuses_a_step_that_differs(tmp_path: Path) -> None:
    model = build("luong")
    _, program = programs_of(model, "sequence")

    def wrong(*tensors: Tensor) -> dict[str, Tensor]:
        found = program.module(*tensors)
        later = bool((tensors[0] != START).any())  # right at the first step alone
        return {**found, "logits": found["logits"] + (0.01 if later else 0)}

    with pytest.raises(JobError, match="its logits differ"):
        compare(program, wrong, SOURCE, tmp_path / "model.onnx")


def test_a_run_becomes_two_files(tmp_path: Path) -> None:
    small = {"model.hidden": 8, "model.embedding": 8, "model.layers": 1, "train.accelerator": "cpu"}
    made = train(
        task="sequence", model="seq2seq", data="copy:1-3,letters=3,count=40,val=9,test=9", epochs=1, overrides=small,
        out=tmp_path / "run", say=lambda line: None,
    )  # fmt: skip
    found = export(made.path, "torch")
    assert found.path.name == "model.pt2" and [one.path.name for one in found.beside] == ["model_step.pt2"]
    assert (tmp_path / "run/model_step.pt2").is_file()
    assert "tokens  int64 (batch, ), and 2 more" in found.describe()
    assert [one["path"] for one in found.to_dict()["beside"]] == [str(tmp_path / "run/model_step.pt2")]
