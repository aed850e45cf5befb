"""The attention reader: its count, its decoder against a plain loop, its end, its learning; and the rectification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor, nn

from opsin import registry
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.read.attention_reader import END, START, AttentionDecoder, AttentionReader
from opsin.read.decoding import Decoding
from opsin.read.greedy import read_until_end
from opsin.read.predict import ReadPredictor
from opsin.read.thin_plate_spline import ThinPlateSplineRectifier

MEANING = {"alphabet": "abcd"}
WEIGHTS = ("query.weight", "query.bias", "key.weight", "score.weight")
SMALL: dict[str, Any] = {"num_classes": 6, "width": 4, "hidden": 16, "max_length": 5}


def test_parameters_are_exact() -> None:
    with torch.device("meta"):
        model = registry.create_model("trba")
        assert isinstance(model, AttentionReader)
        assert model(torch.zeros(1, 1, 32, 100))["columns"].shape == (1, 26, 256)
    assert count_parameters(model) == 49_555_182
    assert (model.num_classes, model.characters, model.blank, model.steps((32, 100))) == (38, 36, None, 25)


def test_the_decoder_equals_bahdanaus_attention_written_out() -> None:
    """Torch's own LSTM cell, one text, one step, one column after another."""
    torch.manual_seed(0)
    decoder = AttentionDecoder(5, 7, 6)
    cell = nn.LSTMCell(5 + 6, 7)
    cell.load_state_dict(decoder.cell.state_dict())
    columns, previous = torch.randn(2, 4, 5), torch.tensor([[START, 3, 5], [START, 2, END]])
    rows = []
    for k in range(2):
        h, c, row = torch.zeros(1, 7), torch.zeros(1, 7), []
        for given in previous[k].tolist():
            w, b, u, v = (decoder.attend.get_parameter(name) for name in WEIGHTS)
            e = [torch.tanh(w @ h[0] + b + u @ column) @ v.T for column in columns[k]]
            share = torch.cat(e).softmax(dim=0)
            context = torch.stack([s * column for s, column in zip(share, columns[k], strict=True)]).sum(dim=0)
            h, c = cell(torch.cat([context, torch.eye(6)[given]])[None], (h, c))
            row.append(decoder.predict(h)[0])
        rows.append(torch.stack(row))
    torch.testing.assert_close(decoder.teach(columns, previous), torch.stack(rows))


def test_writing_is_being_taught_what_was_written() -> None:
    torch.manual_seed(0)
    decoder = AttentionDecoder(5, 7, 6)
    nn.init.normal_(decoder.predict.weight, std=3)
    columns = torch.randn(8, 4, 5)
    logits, looks = decoder.write(columns, 6)
    assert looks.shape == (8, 6, 4)
    torch.testing.assert_close(looks.sum(dim=2), torch.ones(8, 6))
    classes = logits.argmax(dim=2)
    assert len({tuple(row) for row in classes.tolist()}) > 1
    previous = torch.cat([torch.full((8, 1), START), classes[:, :-1]], dim=1)
    torch.testing.assert_close(decoder.teach(columns, previous), logits)


def test_a_text_ends_at_the_first_end() -> None:
    rows = [[2, 4, END, 3], [END, 2, 2, 2], [3, 3, 3, 3], [2, START, 3, END]]
    probabilities = torch.eye(6)[torch.tensor(rows)] * 0.9
    readings = read_until_end(probabilities, END, first=2)
    assert [list(one.labels) for one in readings] == [[0, 2], [], [1, 1, 1, 1], [0, 1]]
    assert list(readings[0].scores) == pytest.approx([0.9, 0.9]) and list(readings[2].steps) == [0, 1, 2, 3]


def test_the_loss_is_that_of_the_characters_and_the_end() -> None:
    torch.manual_seed(0)
    model = AttentionReader(rectify=False, **SMALL).eval()
    outputs = model(torch.randn(3, 1, 32, 40))
    texts = [[0, 3], [], [1, 1, 1, 1, 1, 1]]  # the last is longer than five
    labels = torch.tensor([text + [-1] * (6 - len(text)) for text in texts])
    loss = model.loss(outputs, {"labels": labels, "lengths": torch.tensor([2, 0, 6])})["loss"]
    terms: list[Tensor] = []
    for k, given, wanted in ((0, [START, 2, 5], [2, 5, END]), (1, [START], [END])):
        logits = model.decoder.teach(outputs["columns"][k : k + 1], torch.tensor([given]))[0]
        terms += [-logits[i].log_softmax(dim=0)[one] for i, one in enumerate(wanted)]
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    long = {"labels": labels[2:], "lengths": torch.tensor([6])}
    assert model.loss({"columns": outputs["columns"][2:]}, long)["loss"] == 0
    exact = {"labels": labels[2:, :5], "lengths": torch.tensor([5])}
    assert model.loss({"columns": outputs["columns"][2:]}, exact)["loss"] > 0


def test_learns_four_words() -> None:
    torch.manual_seed(0)
    model = AttentionReader(rectify=False, **{**SMALL, "width": 8, "hidden": 48})
    images = torch.randn(4, 1, 32, 40)
    texts = [[0, 1, 2], [3, 3], [2], [1, 0, 1, 0]]
    labels = torch.tensor([text + [-1] * (4 - len(text)) for text in texts])
    targets = {"labels": labels, "lengths": torch.tensor([len(text) for text in texts])}
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(model(images), targets)["loss"].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        outputs = model(images)
        readings = model.decode(outputs)
        assert [list(reading.labels) for reading in readings] == texts
        assert all(0 <= step <= 5 for reading in readings for step in reading.steps)
        assert model.probabilities(outputs).shape == (4, 6, 6)
        assert model.attention(outputs).shape == (4, 6, 11)


def test_reading_runs_the_decoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AttentionReader(rectify=False, **SMALL).eval()
    runs: list[int] = []
    write = model.decoder.write
    monkeypatch.setattr(model.decoder, "write", lambda columns, steps: runs.append(steps) or write(columns, steps))
    facts = Facts(load_recipe({"task": "read", "model": {"name": "trba"}, "data": {"source": ""}}), None, MEANING)
    predictor = ReadPredictor(model, facts)
    with torch.no_grad():
        readings, probabilities = predictor.readings(model(torch.zeros(2, 1, 32, 40)), Decoding())
    assert len(readings) == 2 and probabilities.shape == (2, 6, 6) and runs == [6]


def test_a_new_head_keeps_what_is_no_class() -> None:
    model = AttentionReader(rectify=False, **SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_head(9)
    after = model.state_dict()
    changed = {key for key in after if before[key].shape != after[key].shape}
    assert changed == {"decoder.predict.weight", "decoder.predict.bias", "decoder.cell.weight_ih"}
    assert all(
        torch.equal(before[key], after[key]) for key in after if not key.startswith(("decoder.predict", "decoder.cell"))
    )
    assert model.probabilities(model(torch.zeros(1, 1, 32, 16))).shape == (1, 6, 9)


def test_refuses_what_cannot_be() -> None:
    for options, message in (
        ({"num_classes": 2}, "num_classes must be"),
        ({"fiducials": 5}, "fiducials must be even"),
        ({"size": (16, 100)}, "raise it"),
        ({"backbone_weights": "imagenet1k"}, "backbone='resnet18'"),
    ):
        with pytest.raises(InputError, match=message):
            AttentionReader(**{**SMALL, **options})
    with pytest.raises(InputError, match="at least 32 pixels height and 4 width, got 31x40"):
        AttentionReader(rectify=False, **SMALL)(torch.zeros(1, 1, 31, 40))
    model = AttentionReader(backbone="resnet20", **SMALL)
    assert model(torch.zeros(1, 1, 16, 16))["columns"].shape == (1, 25, 16)


# Rectification


def test_it_starts_as_the_identity() -> None:
    rectifier = ThinPlateSplineRectifier(widths=(4, 4)).eval()
    images = torch.rand(2, 1, 32, 100)
    torch.testing.assert_close(rectifier(images), images, atol=1e-5, rtol=0)
    assert rectifier(torch.rand(1, 1, 60, 51)).shape == (1, 1, 32, 100)


def test_it_reads_along_the_spline_through_its_points() -> None:
    """An image of its own coordinates, read at places that scipy's spline gives."""
    torch.manual_seed(0)
    rectifier = ThinPlateSplineRectifier(2, (16, 40), 6, widths=(4, 4)).eval()
    with torch.no_grad():
        base = rectifier.points.bias.view(6, 2).clone()
        # Inside, where reading is exact.
        rectifier.points.bias.add_(torch.randn(12) * 0.1).mul_(0.6)
    points = rectifier.points.bias.detach().view(6, 2).numpy()
    y, x = ((2 * torch.arange(side) + 1) / side - 1 for side in (64, 80))
    images = torch.stack([x.expand(64, 80), y[:, None].expand(64, 80)])[None]
    with torch.no_grad():
        found = rectifier(images)[0].permute(1, 2, 0).reshape(-1, 2).numpy()
    rows, columns = ((2 * np.arange(side) + 1) / side - 1 for side in (16, 40))
    centres = np.stack([np.tile(columns, 16), np.repeat(rows, 40)], axis=1)
    expected = RBFInterpolator(base.numpy(), points, kernel="thin_plate_spline", degree=1)(centres)
    assert np.abs(expected).max() < 0.95 and np.abs(expected - 0.6 * centres).max() > 0.03
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_its_points_are_taught() -> None:
    rectifier = ThinPlateSplineRectifier(widths=(4, 4))
    (rectifier(torch.rand(2, 1, 20, 50)) ** 2).sum().backward()
    assert rectifier.points.weight.grad is not None and rectifier.points.weight.grad.abs().sum() > 0
