"""Images that are described: sentences by hand, the network against its equations, and the verbs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import opsin
from opsin import cli, data, registry
from opsin.engine.export import export
from opsin.engine.train import train
from opsin.errors import InputError
from opsin.sequence.captioner import Captioner
from opsin.sequence.encoder_decoder import shift
from opsin.sequence.scene_captions import caption

SMALL: dict[str, Any] = {"model.width": 4, "model.hidden": 12, "model.embedding": 8, "sequence.unit": "words"}


def build(**options: Any) -> Captioner:
    torch.manual_seed(0)
    model = registry.create_model("captioner", target_vocabulary=9, width=4, hidden=6, embedding=5, **options)
    assert isinstance(model, Captioner)
    return model.double().eval()


def test_a_sentence_names_digits_as_one_reads() -> None:
    # thirds of 90 pixels end at 30 and 60; the left of two in one third comes first
    found = caption([(8, 70, 31), (1, 29.9, 29.9), (5, 30, 89), (2, 10, 5)], 90)
    assert (
        found == "a 2 at the top left and a 1 at the top left and an 8 at the middle right and a 5 at the bottom centre"
    )


def test_sentences_are_of_the_boxes_of_the_scenes() -> None:
    source, scenes = data.open("captions:6", "sequence"), data.open("scenes:6", "detect")
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 6, "val": 2, "test": 2}
    for key, split in source.splits.items():
        for i in range(len(split)):
            labels = sorted(scenes.splits[key].kind.at(i).labels.tolist())
            assert sorted(int(word) for word in split.kind.texts[i].split() if word.isdecimal()) == labels
            assert torch.equal(split.read(i), scenes.splits[key].read(i))
    with pytest.raises(InputError, match="'captions:0'; expected captions, or captions:N"):
        data.open("captions:0", "sequence")


def test_a_step_is_the_paper_s() -> None:
    """Section 3.1.2 and equation 7 of arXiv:1502.03044, place by place, with torch's own LSTM cell."""
    model = build()
    outputs = model(torch.rand(2, 3, 40, 33, dtype=torch.float64))
    assert outputs["memory"].shape == (2, 9, 16) and model.grid(40, 33) == (3, 3)
    cell = nn.LSTMCell(5 + 16, 6).double()
    cell.load_state_dict(model.decoder.state_dict())
    tokens = torch.tensor([[4, 7, 8], [5, 0, 0]])
    previous, _ = shift(tokens)
    h, c = (torch.tanh(layer(outputs["memory"].mean(dim=1))) for layer in (model.first_state, model.first_cell))
    w, u, v = (model.attend.get_parameter(f"{name}.weight") for name in ("query", "key", "score"))
    rows, looks = [], []
    for t in range(4):
        e = torch.stack([torch.tanh(h @ w.T + a @ u.T) @ v[0] for a in outputs["memory"].unbind(1)], dim=1)
        alpha = e.exp() / e.exp().sum(dim=1, keepdim=True)
        z = sum(alpha[:, i, None] * outputs["memory"][:, i] for i in range(9)) * torch.sigmoid(model.gate(h))
        y = model.embed_target(previous[:, t])
        h, c = cell(torch.cat([y, z], dim=1), (h, c))
        rows.append(model.predict(y + model.of_state(h) + F.linear(z, model.of_context.weight)))
        looks.append(alpha)
    torch.testing.assert_close(model.teach(outputs, previous), torch.stack(rows, dim=1), atol=1e-12, rtol=0)
    torch.testing.assert_close(model.attention(outputs, tokens), torch.stack(looks, dim=1), atol=1e-12, rtol=0)
    fixed, state = model.start(outputs)
    for t in range(4):
        logits, state = model.step(previous[:, t], state, fixed)
        torch.testing.assert_close(logits, rows[t], atol=1e-12, rtol=0)


def test_it_learns_where_a_square_is() -> None:
    """Four images whose middles are the same, told apart by place alone, and what it then looks at."""
    torch.manual_seed(0)
    model = Captioner(target_vocabulary=8, in_channels=1, width=4, hidden=32, embedding=16)
    images, texts = torch.zeros(4, 1, 48, 48), torch.tensor([[4, 6], [4, 7], [5, 6], [5, 7]])
    for k in range(4):
        images[k, :, 32 * (k // 2) : 32 * (k // 2) + 16, 32 * (k % 2) : 32 * (k % 2) + 16] = 1
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(model(images), {"tokens": texts})["loss"].backward()
        optimizer.step()
    written = model.decode(model(images), max_length=4)
    assert [one.tokens for one in written] == texts.tolist()


def test_any_backbone_reads_the_image() -> None:
    model: Any = registry.create_model("captioner", target_vocabulary=9, backbone="resnet18", hidden=6, embedding=5)
    model.eval()
    assert model(torch.rand(1, 3, 70, 90))["memory"].shape == (1, 30, 256)
    assert model.grid(70, 90) == (5, 6)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"backbone_options": {"width": 2}}, "name it"),
        ({"backbone": "lenet5"}, "no stage of stride 16"),
        ({"dropout": 2.0}, "dropout"),
    ]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            Captioner(**options)
    with pytest.raises(InputError, match=r"takes images \(B, 3, H, W\)"):
        model(torch.rand(1, 1, 70, 90))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "captions"
    settings = {**SMALL, "train.accelerator": "cpu", "train.workers": 0, "sequence.max_length": 12}
    train(task="sequence", model="captioner", data="captions:10", epochs=1, overrides=settings, out=out, say=print)
    return out


def test_it_goes_through_the_verbs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["opsin", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    assert "Bright is where the model looked" in (run / "report.html").read_text()
    image = tmp_path / "grey.png"  # of another size, and grey
    Image.fromarray(np.zeros((50, 70), np.uint8)).save(image)
    status, out, _ = call("predict", run, image, "--beam", "2", "--json")
    assert status == 0 and isinstance(json.loads(out)[0]["text"], str)
    status, out, _ = call("eval", run, "--split", "test", "--json")
    assert status == 0 and all(f'"{name}"' in out for name in ("exact_match", "bleu", "wer"))
    (tmp_path / "words.txt").write_text("a 7\n")
    for given, message in (
        (tmp_path / "words.txt", "is no image; the model describes images"),
        ("a 7 at the top", "no file at a 7 at the top; the model reads images"),
        ("-", "the model describes images"),
    ):
        status, _, err = call("predict", run, given)
        assert status == 2 and message in err and "Traceback" not in err
    status, _, err = call("ladder", "captions:10", "--out", tmp_path / "ladder")
    assert status == 2 and "the ladder is of what reads sequences" in err
    status, _, err = call("train", "sequence", "--model", "seq2seq", "--data", "captions:10", "--out", tmp_path / "no")
    assert status == 2 and "captions:10 has a text for each image, and seq2seq is for a text for each text" in err
    answer = opsin.load(run).predict(np.zeros((160, 160, 3), np.uint8))
    assert answer.attention.shape[1:] == (10, 10)
    np.testing.assert_allclose(answer.attention.sum(axis=(1, 2)), 1, atol=1e-5)
    with pytest.raises(InputError, match="the model reads images"):
        opsin.load(run).predict(torch.zeros(3, 3))


def test_encoder_and_step_are_exported(run: Path) -> None:
    found = export(run, "torch")
    assert found.path.name == "model.pt2" and [one.path.name for one in found.beside] == ["model_step.pt2"]
