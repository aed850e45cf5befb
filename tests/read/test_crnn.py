"""CRNN: its numbers of steps, its agreement with a plain version in torch's own layers, its sizes and its learning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.backbones.fitting import copy_in_order
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.read.crnn import CRNN
from opsin.read.recognizer import Recognizer


class PlainCRNN(nn.Module):
    """The network written out once more, layer by layer as the paper's table 1 lists them from below."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 64, 3, 1, 1), nn.Conv2d(64, 128, 3, 1, 1)
        self.c3, self.n3 = nn.Conv2d(128, 256, 3, 1, 1), nn.BatchNorm2d(256)
        self.c4 = nn.Conv2d(256, 256, 3, 1, 1)
        self.c5, self.n5 = nn.Conv2d(256, 512, 3, 1, 1), nn.BatchNorm2d(512)
        self.c6 = nn.Conv2d(512, 512, 3, 1, 1)
        self.c7, self.n7 = nn.Conv2d(512, 512, 2, 1, 0), nn.BatchNorm2d(512)
        self.l1, self.mix = nn.LSTM(512, 256, bidirectional=True), nn.Linear(512, 256)
        self.l2, self.out = nn.LSTM(256, 256, bidirectional=True), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.functional.max_pool2d
        x = pool(self.c1(x).relu(), 2)
        x = pool(self.c2(x).relu(), 2)
        x = self.n3(self.c3(x)).relu()
        x = pool(self.c4(x).relu(), (2, 2), (2, 1), (0, 1))
        x = self.n5(self.c5(x)).relu()
        x = pool(self.c6(x).relu(), (2, 2), (2, 1), (0, 1))
        x = self.n7(self.c7(x)).relu()
        assert x.shape[2] == 1
        x = self.l1(x[:, :, 0].permute(2, 0, 1))[0]
        return self.out(self.l2(self.mix(x))[0]).transpose(0, 1)


def test_equals_the_plain_network() -> None:
    torch.manual_seed(0)
    plain, ours = PlainCRNN(37).eval(), CRNN().eval()
    for norm in (plain.n3, plain.n5, plain.n7):
        nn.init.uniform_(norm.running_mean, -1, 1)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    copy_in_order(ours, plain.state_dict())
    images = torch.randn(2, 1, 32, 100)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["logits"], plain(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "params"), [("crnn", 8_331_301), ("crnn_stacked", 8_724_261)])
def test_parameters_are_exact(name: str, params: int) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    assert isinstance(model, Recognizer)
    assert count_parameters(model) == params == registry.find_model(name).params
    assert (model.num_classes, model.characters, model.blank) == (37, 36, 0)


def test_width_100_gives_26_steps_and_any_width_what_it_says() -> None:
    model = CRNN(width=4, hidden=8)
    assert model.steps((32, 100)) == 26
    for size in ((32, 100), (32, 4), (32, 5), (47, 31), (64, 402)):
        assert model(torch.zeros(1, 1, *size))["logits"].shape == (1, model.steps(size), 37)
    for size in ((31, 100), (32, 3)):
        with pytest.raises(InputError, match=r"at least 32 pixels height and 4 width"):
            model(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("backbone", ["resnet20", "mobilenet_v3_small"])
def test_a_backbone_gives_a_step_for_every_four_pixels(backbone: str) -> None:
    model = CRNN(backbone=backbone, in_channels=3, hidden=8)
    assert model.steps((32, 100)) == 25
    assert model(torch.zeros(1, 3, 32, 100))["logits"].shape == (1, 25, 37)


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="backbone='resnet18'"):
        CRNN(backbone_weights="imagenet1k")
    with pytest.raises(InputError, match="images of one size"):
        CRNN(backbone="lenet5")
    with pytest.raises(InputError, match="no classification network"):
        CRNN(backbone="crnn")
    with pytest.raises(InputError, match=r"unknown blank.*middle"):
        CRNN(blank="middle")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_classes must be"):
        CRNN(num_classes=1)


@pytest.mark.parametrize("blank", ["first", "last"])
def test_learns_four_words_wherever_the_blank_is(blank: str) -> None:
    torch.manual_seed(0)
    model = CRNN(num_classes=5, width=8, hidden=64, blank=blank)  # type: ignore[arg-type]
    assert model.blank == (0 if blank == "first" else 4)
    images = torch.randn(4, 1, 32, 40)
    texts = [[0, 1, 2], [3, 3], [2], [1, 0, 1, 0]]
    labels = torch.tensor([text + [-1] * (4 - len(text)) for text in texts])
    targets = {"labels": labels, "lengths": torch.tensor([len(text) for text in texts])}
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(model(images), targets)["loss"]
        loss.backward()
        optimizer.step()
    model.eval()
    readings = model.decode(model(images))
    assert [list(reading.labels) for reading in readings] == texts
    assert all(0 < score <= 1 for reading in readings for score in reading.scores)
    assert all(list(r.steps) == sorted(set(r.steps)) for r in readings)


def test_weights_say_where_their_blank_is() -> None:
    with pytest.raises(ValueError, match="blank='last'"):
        CRNN(width=4, hidden=8).restore_state(CRNN(width=4, hidden=8, blank="last").saved_state())
    CRNN(width=4, hidden=8).restore_state({"blank": "first"})


def test_a_new_head_has_the_blank_in_its_place() -> None:
    model = CRNN(width=4, hidden=8, blank="last")
    model.reset_head(11)
    assert (model.num_classes, model.blank, model.predict.out_features) == (11, 10, 11)
    assert model(torch.zeros(1, 1, 32, 8))["logits"].shape == (1, 3, 11)
    rows = model.class_rows()
    assert set(rows) == {"predict.weight", "predict.bias"} and (
        rows["predict.bias"].before,
        rows["predict.bias"].after,
    ) == (0, 1)
