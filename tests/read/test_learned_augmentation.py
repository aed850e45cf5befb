"""The agent that learns where to move border points: its network, its draws, what it is taught, and its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import opsin
from opsin.engine.checkpoint import read_checkpoint
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.read.agent_drawing import learned_moves
from opsin.read.learned_augmentation import AugmentationAgent, LearnedAugmentation, Moves
from opsin.read.recognizer import Reading, Recognizer

from .conftest import RECIPE


class Ruler(Recognizer):
    """Reads one text right where an image's mean is below a limit, else nothing: difficulty as a test wants it."""

    def __init__(self) -> None:
        super().__init__(5, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"mean": images.mean(dim=(1, 2, 3))}

    def steps(self, size: tuple[int, int]) -> int:
        return 4

    def loss_of_each(self, outputs: dict[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError

    def read(self, outputs: dict[str, Tensor]) -> tuple[list[Reading], Tensor]:
        labels = [[0, 1, 2] if value < 0.5 else [0] for value in outputs["mean"].tolist()]
        return [Reading(one, [1.0] * len(one), list(range(len(one)))) for one in labels], outputs["mean"]

    def reset_head(self, num_classes: int) -> None:
        raise NotImplementedError


def targets(count: int) -> dict[str, Tensor]:
    return {"labels": torch.tensor([[0, 1, 2]] * count), "lengths": torch.full((count,), 3)}


def test_the_agent_has_the_layers_of_the_table() -> None:
    agent = AugmentationAgent(1)
    convolutions = [
        (layer.in_channels, layer.out_channels) for layer in agent.modules() if isinstance(layer, nn.Conv2d)
    ]
    assert convolutions == [(1, 16), (16, 64), (64, 128), (128, 128), (128, 64), (64, 16)]
    expected = sum(9 * a * b + b for a, b in convolutions) + 2 * (128 + 64 + 16) + 192 * 32 + 32
    assert count_parameters(agent) == expected == 320_496
    assert agent(torch.zeros(2, 1, 32, 100)).shape == (2, 8, 2, 2)
    assert AugmentationAgent(3, 5)(torch.zeros(1, 3, 48, 160)).shape == (1, 12, 2, 2)


def test_an_agent_that_knows_nothing_moves_points_at_random_within_the_radius() -> None:
    torch.manual_seed(0)
    learned = LearnedAugmentation(1, radius=8)
    nn.init.zeros_(learned.agent.predict.weight)
    nn.init.zeros_(learned.agent.predict.bias)
    images = torch.rand(64, 1, 32, 100)
    bent = learned(images)
    moves = learned._moves
    assert moves is not None and bent.shape == images.shape and not torch.equal(bent, images)
    assert moves.directions.abs().eq(1).all() and abs(float(moves.directions.mean())) < 0.15
    assert float(moves.distances.min()) >= 0 and float(moves.distances.max()) <= 1
    other = moves.opposite()
    turned = (other != moves.directions).any(dim=2)
    assert torch.equal(turned.sum(dim=1), torch.ones(64, dtype=torch.int64))
    assert torch.equal(turned.int().argmax(dim=1), moves.turned)
    assert (other == -moves.directions)[turned].all()
    torch.testing.assert_close(learned.bend(images, torch.zeros(64, 8, 2)), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("first", "second", "sign"), [(0.2, 0.8, -1), (0.8, 0.2, 1), (0.2, 0.2, 0)])
def test_the_agent_learns_the_harder_direction_of_the_turned_point(first: float, second: float, sign: int) -> None:
    """first, second: how bright, and so how hard to read, the image and the one with the point turned are."""
    torch.manual_seed(0)
    learned, count = LearnedAugmentation(1), 3
    directions = torch.sign(torch.randn(count, 8, 2))
    turned = torch.tensor([0, 5, 7])
    learned._moves = Moves(torch.full((count, 1, 32, 100), second), directions, torch.rand(count, 8, 2), turned)
    outputs = {"mean": torch.full((count,), first)}
    logits = learned.agent(torch.full((count, 1, 32, 100), second))
    loss = learned.loss(Ruler(), outputs, targets(count))["loss"]
    rows = torch.arange(count)
    wanted = (sign * directions[rows, turned] > 0).long()
    terms = -logits.log_softmax(dim=3)[rows, turned].gather(2, wanted[..., None]).sum()
    torch.testing.assert_close(loss, terms / 6 if sign else torch.zeros(()))
    gradient = torch.autograd.grad(loss, learned.agent.predict.bias)[0].view(8, 4).abs().sum(dim=1)
    assert (gradient > 0).tolist() == [bool(sign) and k in (0, 5, 7) for k in range(8)]
    with pytest.raises(InputError, match="bent first"):
        learned.loss(Ruler(), outputs, targets(count))


def test_the_agent_finds_what_is_hard() -> None:
    """Where an image is hard once the upper left point goes down, the agent comes to send it down."""
    torch.manual_seed(0)

    class Corner(Ruler):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"mean": images[:, 0, 0, 0]}

    # A dark line on top of a bright image: the corner reads bright where the point goes up and out of the line.
    images = torch.ones(16, 1, 32, 50)
    images[:, :, :2] = 0
    learned = LearnedAugmentation(1, radius=10)
    optimizer = torch.optim.Adam(learned.parameters(), 1e-3)
    for _ in range(60):
        bent = learned(images)
        optimizer.zero_grad()
        learned.loss(Corner(), Corner()(bent), targets(16))["loss"].backward()
        optimizer.step()
    learned.eval()
    up = learned.agent(images).softmax(dim=3)[:, 0, 1, 0]  # what it gives to the upper left point's going up
    assert float(up.detach().mean()) > 0.9


def test_an_image_of_what_it_learned() -> None:
    learned = LearnedAugmentation(3)
    images = torch.randint(0, 256, (2, 3, 32, 100), dtype=torch.uint8)
    gallery = learned_moves(learned, images, images.float() / 255)
    assert len(gallery.items) == 2 and gallery.items[0].image.shape[0] == 3
    assert "certain of a direction by" in gallery.items[0].caption
    assert learned.agent.training


def test_it_is_trained_beside_a_recognizer(readers: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe: dict[str, Any] = {**RECIPE, "read": {"learn_to_augment": True, "augment_radius": 2.0, "agent_lr": 0.001}}
    recipe["train"] = {**RECIPE["train"], "epochs": 2}
    opsin.train(recipe, out=tmp_path / "run")
    state = read_checkpoint(tmp_path / "run" / "last.ckpt")["state_dict"]
    assert any(key.startswith("learned.agent.") for key in state)
    from safetensors import safe_open

    with safe_open(str(tmp_path / "run" / "model.safetensors"), "pt") as file:
        assert not any("agent" in key for key in file.keys())  # noqa: SIM118
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert "train_reader_ctc" in rows[0] and "train_agent_loss" in rows[0]
    assert "What the augmentation has learned" in (tmp_path / "run" / "report.html").read_text()
    assert opsin.evaluate(tmp_path / "run", split="test")["cer"] < 2
