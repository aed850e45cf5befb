"""Networks and callbacks of the user's own after the training: explained, exported, kept in a checkpoint, refused."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.test_own_parts import QUIET, Holds, Net, Squares, Unread, assert_same, net, train
from torch import Tensor, nn

import opsin
from opsin.errors import InputError


def test_a_run_is_explained_and_exported_with_its_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path, fresh = train(tmp_path / "run", epochs=1).path, net(7)
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    found, alone = opsin.explain(path, model=fresh), opsin.explain(fresh, input_size=(1, 8, 8))
    assert found.identity.name == "Net" and found.training is not None and found.identity.family == ""
    # conv 1 -> 4 of 3x3 on 6x6 places, linear 16 -> 3
    assert found.totals.macs == alone.totals.macs == 4 * 9 * 36 + 16 * 3
    assert found.totals.params == alone.totals.params == 4 * 10 + 17 * 3
    file = opsin.export(path, "onnx", model=fresh).path
    assert_same(before, fresh.state_dict())  # it stays as it is
    assert all(one.requires_grad for one in fresh.parameters())
    image = Squares()[4][0]
    theirs, ours = opsin.load(file).predict(image), opsin.load(path, model=fresh).predict(image)
    assert theirs.label == ours.label and theirs.score == pytest.approx(ours.score, abs=1e-5)
    for call in (opsin.explain, functools.partial(opsin.export, format="onnx")):
        with pytest.raises(InputError, match=r"model\.name was the object .*Net, .* in Python: model="):
            call(path)
    with pytest.raises(InputError, match=r"give the input of Net: input_size=\(channels, height, width\)"):
        opsin.explain(fresh)


class Remembers(Net):
    """Keeps the maps of the last batch, as many do to look at them."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = self.body(images)
        return self.last(self.seen)


class Uncopied(Net):
    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        raise TypeError("cannot pickle 'generator' object")


def test_a_network_that_cannot_be_copied_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Uncopied cannot be copied, .*cannot pickle 'generator' object\. Keep open"):
        train(tmp_path / "run", Uncopied(), data=Unread(), batch_size="auto")
    run = train(tmp_path / "run", Remembers(), epochs=1, batch_size="auto")
    assert run.report is not None and "<td>accuracy</td>" in run.report.read_text("utf-8")


def test_a_callback_keeps_what_a_resumed_run_can_read(tmp_path: Path) -> None:
    kept = {"a": (1, 2.5, True, None), 3: {"b", "c"}, "t": [torch.ones(2)], "d": torch.float16, "e": b"x", "f": 1j}
    run = train(tmp_path / "run", callbacks=[Holds(kept, kept)], epochs=1)
    again = Holds()
    opsin.train(
        resume=run.path, model=net(), data=Squares(), callbacks=[again], epochs=1, say=lambda line: None
    )  # nothing is left to train: its state is read all the same
    assert (
        again.held.keys() == kept.keys()
        and again.held["a"] == kept["a"]
        and torch.equal(again.held["t"][0], torch.ones(2))
    )
    for i, held in enumerate((np.float64(3.0), QUIET.keys(), Path("a"), nn.Linear(1, 1))):
        with pytest.raises(
            InputError, match=r"the callback Holds keeps a .* at state_dict\(\)\['held'\], and a checkpoint"
        ):
            train(tmp_path / f"later{i}", callbacks=[Holds(later=held)], epochs=1)


SCRIPT = """
import sys

import torch
from torch import nn

import opsin

net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def loss(logits, targets):
    return nn.functional.cross_entropy(logits, targets)


settings = {"train.devices": 2, "train.accelerator": "cpu", "train.max_steps": 3, "data.channels": 1}
data = {"train": "digits", "test": "digits"}
try:
    run = opsin.train(model=net, data=data, loss=loss, size=8, overrides=settings, out=sys.argv[1], say=lambda _: None)
except opsin.InputError as error:
    sys.exit(f"refused: {error}")
other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
opsin.load(run.path, model=other)
print("after", run.split, torch.equal(net[1].weight.cpu(), other[1].weight.cpu()))
"""


@pytest.mark.skipif("OPSIN_SOAK" not in os.environ, reason="two more trainings in two processes: make soak")
def test_own_parts_in_two_processes_are_those_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    out = str(tmp_path / "run")
    done = subprocess.run([sys.executable, tmp_path / "script.py", out], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, ["after", "test", "True"]), done.stderr
    out = str(tmp_path / "other")
    done = subprocess.run([sys.executable, "-c", SCRIPT, out], capture_output=True, text=True, timeout=300)
    assert "refused: 2 devices are as many processes" in done.stderr and "write it to a file" in done.stderr
