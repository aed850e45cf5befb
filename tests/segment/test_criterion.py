"""The criterion that a recipe names for a segmenter, and what classes weigh in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opsin import objects
from opsin.engine.recipe import Recipe, load_recipe
from opsin.errors import InputError
from opsin.losses import create_pixel_loss
from opsin.losses.overlap import dice_loss
from opsin.losses.pixels import PixelCrossEntropy, pixel_cross_entropy
from opsin.segment.criterion import class_weights, create_criterion
from opsin.segment.segmenter import Segmenter

# Of three images the pixels of each class, the last those of which nothing is known; "c" is nowhere.
COUNTS = np.array([[80, 20, 0, 5], [100, 0, 0, 0], [40, 60, 0, 0]])


def split(counts: np.ndarray = COUNTS) -> Any:
    return SimpleNamespace(kind=SimpleNamespace(counts=counts, classes=["a", "b", "c"]))


def source(overlapping: bool = False) -> Any:
    return SimpleNamespace(classes=["a", "b", "c"], meaning={"overlapping": overlapping}, splits={"train": split()})


def recipe(**loss: Any) -> Recipe:
    return load_recipe({"model": {"name": "lenet5"}, "data": {"source": ""}, "loss": loss})


def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, generator=generator), torch.randint(-1, 2, (2, 4, 5), generator=generator)


def test_balanced_classes_weigh_the_same() -> None:
    weights = class_weights("balanced", split())
    assert weights == pytest.approx([300 / (2 * 220), 300 / (2 * 80), 0])
    assert weights[0] * 220 == pytest.approx(weights[1] * 80)


def test_median_frequency_is_of_the_images_that_have_a_class() -> None:
    frequencies = 220 / 300, 80 / 200
    median = sum(frequencies) / 2
    assert class_weights("median_frequency", split()) == pytest.approx(
        [median / frequencies[0], median / frequencies[1], 0]
    )


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="of no pixel of the training images is the class known"):
        class_weights("balanced", split(np.array([[0, 0, 0, 100]])))


def test_the_models_own_is_kept() -> None:
    assert create_criterion(recipe(), source()) is None


@pytest.mark.parametrize(
    ("loss", "weighted"), [({"class_weights": "balanced"}, True), ({"name": "cross_entropy", "smoothing": 0.1}, False)]
)
def test_cross_entropy(loss: dict[str, Any], weighted: bool) -> None:
    criterion = create_criterion(recipe(**loss), source())
    assert isinstance(criterion, PixelCrossEntropy)
    assert (criterion.weight is not None) == weighted
    expected = pixel_cross_entropy(*scene(), weight=criterion.weight, smoothing=loss.get("smoothing", 0.0))
    assert criterion(*scene()) == pytest.approx(expected)


def test_any_loss_of_pixels_by_name() -> None:
    criterion = create_criterion(recipe(name="dice", smooth=0.5), source())
    assert criterion is not None
    assert criterion(*scene(), None) == pytest.approx(dice_loss(*scene(), smooth=0.5))


def test_class_weights_in_a_sum_are_of_the_losses_that_take_some() -> None:
    loss = {"name": "weighted_sum", "criteria": {"focal": {"gamma": 1.0}, "lovasz": None}, "class_weights": [1, 2, 3]}
    criterion: Any = create_criterion(recipe(**loss), source())
    focal, lovasz = create_pixel_loss("focal", gamma=1.0, weight=[1.0, 2.0, 3.0]), create_pixel_loss("lovasz")
    assert criterion(*scene()) == pytest.approx(focal(*scene()) + lovasz(*scene()))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "dice", "class_weights": "balanced"}, "needs one of the losses cross_entropy, focal, sigmoid_focal"),
        ({"name": "weighted_sum", "criteria": {"dice": None}, "class_weights": [1, 2, 3]}, "dice take none"),
        ({"class_weights": [1, 2]}, "loss.class_weights has 2 values for 3 classes"),
        ({"name": "torch.nn.CrossEntropyLoss", "class_weights": [1, 2, 3]}, "give torch.nn.CrossEntropyLoss its"),
        ({"name": "dyce"}, "unknown loss of pixels 'dyce'"),
    ],
)
def test_what_does_not_fit_is_refused(loss: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_criterion(recipe(**loss), source())


def test_weights_by_rule_are_of_classes_that_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"where they overlap take loss\.name=dice or focal"):
        create_criterion(recipe(class_weights="balanced"), source(overlapping=True))


def own_loss(logits: Tensor, labels: Tensor, *, pixel_weights: Tensor | None = None) -> dict[str, Tensor]:
    return {"one": logits.sum(), "two": logits.new_ones(()) if pixel_weights is None else pixel_weights.sum()}


def test_a_loss_of_ones_own() -> None:
    logits, labels = scene()
    criterion = create_pixel_loss("torch.nn.CrossEntropyLoss", ignore_index=-1)
    assert criterion(logits, labels, None) == pytest.approx(pixel_cross_entropy(logits, labels))
    with pytest.raises(InputError, match="takes no weights of pixels"):
        criterion(logits, labels, torch.ones(2, 4, 5))
    with objects.lending({"loss.name": own_loss}):
        criterion = create_pixel_loss(objects.describe(own_loss))
    assert criterion(logits, labels) == pytest.approx(logits.sum() + 1)
    assert criterion(logits, labels, torch.ones(2, 4, 5)) == pytest.approx(logits.sum() + 40)


class TwoHeads(Segmenter):
    """Logits that are parameters, and those of an auxiliary head."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.aux_weights = {"aux": 0.4}
        self.main, self.aux = (torch.nn.Parameter(torch.randn(2, 3, 4, 5)) for _ in range(2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.main, "aux": self.aux}


@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "jaccard", "lovasz"])
def test_auxiliary_heads_have_the_same_criterion(name: str, ignored: float) -> None:
    network, labels = TwoHeads(), scene()[1].clamp(min=0)
    network.criterion = create_pixel_loss(name)
    hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < ignored
    targets = {"labels": labels.masked_fill(hidden, -1), "weights": torch.rand(2, 4, 5) + 0.5}
    terms = network.loss(network(labels), targets)
    for key, head, weight in (("main", network.main, 1.0), ("aux", network.aux, 0.4)):
        torch.testing.assert_close(terms[key], weight * network.criterion(head, targets["labels"], targets["weights"]))
    torch.stack(list(terms.values())).sum().backward()
    for head in (network.main, network.aux):
        assert head.grad is not None and (head.grad[hidden[:, None].expand_as(head)] == 0).all()
        assert bool(head.grad.any()) == (ignored < 1)


def test_median_frequency_is_no_rule_for_labels_of_whole_images() -> None:
    from opsin.classify.task import _create_criterion

    with pytest.raises(InputError, match=r"median_frequency is of pixels; use balanced"):
        _create_criterion(recipe(class_weights="median_frequency"), np.array([0, 1, 1]), 2)
