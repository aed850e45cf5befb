"""What a network is shown: the images of a run, or photographs; any channels, any form of output."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opsin.analyze import sections, visualize
from opsin.analyze.explain_schema import Field
from opsin.analyze.gradcam import NoEvidenceError
from opsin.analyze.visualize import Image, Subject, called_names, photographs
from opsin.data import Preprocessing
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels
from opsin.data.source import Split

GREY = Preprocessing(size=(28, 28), channels=1, mean=(0.5,), std=(0.5,))


class Auxiliary(nn.Module):
    """Gives a dict; has neither stages nor rectifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.body(x).mean(dim=(2, 3)))
        return {"logits": logits, "auxiliary": logits}

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        return {"scores": logits.softmax(dim=1)}


def subject() -> Subject:
    torch.manual_seed(0)
    return Subject(Auxiliary(), GREY, True, photographs(GREY), ["cat", "dog"])


def test_photographs_fit_any_preprocessing() -> None:
    colour = Preprocessing(size=(40, 60), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, fit="crop")
    assert [p.name for p in photographs(colour)] == list(visualize.PHOTOGRAPHS)
    assert {tuple(p.image.shape) for p in photographs(colour)} == {(3, 40, 60)}
    assert {tuple(p.image.shape) for p in photographs(GREY)} == {(1, 28, 28)}


def test_grey_images_side_outputs_and_no_rectifier() -> None:
    shown = subject()
    tiles = visualize.show_evidence(shown)
    assert len(tiles) == 4 and all(len(t.sources) == 2 and not t.wrong for t in tiles)
    (group,) = visualize.show_feature_maps(shown, ["body"])
    assert group.heading == "body" and len(group.tiles) == 4
    (maps,) = visualize.show_excitements(shown, {"body": Field((5, 5), (2.0, 2.0), (0, 0), (2.5, 2.5))}, [1, 3])
    assert [t.caption.split("\n")[0] for t in maps.tiles] == ["unit 1", "unit 3"]
    assert [a.rectifier for a in visualize.show_dead_units(shown)] == [False]


def test_wrong_answers_show_the_right_class_too() -> None:
    shown = subject()
    with torch.no_grad():
        answers = shown.model(shown.normalized(shown.images))["logits"].argmax(dim=1).tolist()
    shown.images = [replace(p, label=1 - k) for p, k in zip(shown.images, answers, strict=True)]
    for tile in visualize.show_evidence(shown):
        assert tile.wrong and len(tile.sources) == 3 and "\nis " in tile.caption


def test_vectors_are_one_image() -> None:
    shown = subject()
    (group,) = visualize.show_feature_maps(shown, ["head"])
    assert len(group.tiles) == 1 and group.note.startswith("2 units without places")


def test_a_unit_that_nothing_excites_says_so() -> None:
    shown = subject()
    nn.init.constant_(shown.model.body[0].bias, -90.0)  # type: ignore[index, union-attr, arg-type]
    nn.init.zeros_(shown.model.body[0].weight)  # type: ignore[index, union-attr, arg-type]
    (group,) = visualize.show_excitements(shown, {"body": None})
    assert group.tiles == [] and group.note == "Nothing excites any unit."
    (group,) = visualize.show_excitements(shown, {"body": None}, [0])
    assert group.tiles[0].caption == "unit 0\nnothing excites it" and group.tiles[0].sources == []


def test_examples_are_one_a_class_where_there_are_enough() -> None:
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    split = Split(ImageArray(images, "x"), ClassLabels(np.repeat(np.arange(4), 10), ["a", "b", "c", "d"]))
    assert visualize._spread(split, 4).kind.presence.tolist() == [0, 1, 2, 3]
    assert len(visualize._spread(split, 6)) == 6 and len(visualize._spread(split, 100)) == 40
    several = split.with_truth(ClassLabels(np.ones((40, 3), np.float32), ["a", "b", "c"]))
    assert len(visualize._spread(several, 5)) == 5


def test_images_reach_the_network_normalised() -> None:
    batch = subject().normalized([Image("white", torch.full((1, 28, 28), 255, dtype=torch.uint8))])
    assert batch.shape == (1, 1, 28, 28) and torch.allclose(batch, torch.ones(1))


def test_a_stage_that_is_not_run_as_a_whole_is_its_last_layer() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), nn.Sequential(nn.ReLU())])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.stages[0]:  # type: ignore[union-attr]
                x = layer(x)
            return self.stages[1](x)

    assert called_names(Parts(), (1, 4, 4), ["stages.0", "stages.1", "stages.2"]) == ["stages.0.1", "stages.1"]


class Detector(Auxiliary):
    """Gives boxes and no class of the image."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"boxes": self.head(self.body(x).flatten(2).transpose(1, 2))}


def test_a_network_without_classes_of_images_is_shown_all_but_their_evidence() -> None:
    shown = replace(subject(), model=Detector())
    assert visualize.show_evidence(subject())
    with pytest.raises(NoEvidenceError):
        visualize.show_evidence(shown)
    evidence, *rest = sections.seen_sections(fake_explanation(), shown, ["body"], None)
    assert isinstance(evidence, sections.Tiles) and "Not shown: class evidence needs a classifier" in evidence.note
    assert [one.title for one in rest] == ["Feature maps", "What excites units", "Dead units"]


def fake_explanation() -> Any:
    return SimpleNamespace(stages=(), layers=(), identity=SimpleNamespace(input=(1, 28, 28)))
