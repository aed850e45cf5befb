"""Evaluation of a segmenter: at the images' own size, the same whatever process sees which image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from opsin.data import Preprocessing, Split, create_loader
from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.inputs import ImageArray
from opsin.engine.checkpoint import Facts
from opsin.engine.evaluate import evaluate_split
from opsin.engine.predict import Predictor
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.segment.borders import compare_borders
from opsin.segment.evaluate import SegmentEvaluator
from opsin.segment.regions import compare_regions
from opsin.segment.segmenter import Segmenter

RECIPE = {"model": {"name": "lenet5"}, "data": {"source": ""}, "train": {"batch_size": 2}}
NAMES = ["dark", "middle", "bright"]


class Threshold(Segmenter):
    """Pixels by their brightness: as exact as the image."""

    def __init__(self, overlapping: bool = False) -> None:
        super().__init__(3, 1)
        self.overlapping = overlapping
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        centres = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None]
        return {"logits": self.scale * (1 - 8 * (images - centres).abs())}


class Answering(Predictor):
    """What is most probable of each pixel, at the image's own size."""

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Tensor], **options: Any
    ) -> list[dict[str, Any]]:
        scores = self.model.decode(outputs)
        found = []
        for one, size in zip(scores, sizes, strict=True):
            own = F.interpolate(one[None], size, mode="bilinear")[0] if one.shape[-2:] != size else one
            chosen = own >= 0.5 if self.model.overlapping else own.argmax(dim=0).to(torch.uint8)
            found.append({"class_map": chosen.numpy()})
        return found

    def _checked(self, options: Any, batch_size: int) -> dict[str, Any]:
        return {}


def scene(count: int = 5, size: tuple[int, int] = (12, 16)) -> Split:
    random = np.random.default_rng(0)
    maps = random.integers(0, 3, (count, *size)).astype(np.uint8)
    images = np.array([51, 128, 204])[maps] + random.integers(-60, 61, maps.shape)
    maps[random.random(maps.shape) < 0.1] = 255
    inputs = ImageArray(torch.from_numpy(images.clip(0, 255).astype(np.uint8))[:, None], "scene")
    return Split(inputs, ClassMaps(MapArray(maps), NAMES))


def create(size: tuple[int, int] = (12, 16), overlapping: bool = False) -> Answering:
    preprocessing = Preprocessing(size=size, channels=1, mean=(0.0,), std=(1.0,))
    recipe = load_recipe(RECIPE).model_copy(update={"task": "segment"})  # the network is registered nowhere
    facts = Facts(recipe, preprocessing, {"classes": NAMES})
    return Answering(Threshold(overlapping), facts)


def validate(predictor: Answering, split: Split, processes: int = 1) -> SegmentEvaluator:
    """As a training does it: outputs, of the size of the network's input."""
    evaluators = []
    for rank in range(processes):
        evaluator = SegmentEvaluator(predictor)
        loader = create_loader(split, predictor.preprocessing, batch_size=2, rank=rank, world_size=processes)
        with torch.no_grad():
            for batch in loader:
                evaluator.update(predictor.outputs(batch), batch)
        evaluators.append(evaluator)
    evaluators[0].merge([one.state() for one in evaluators])
    return evaluators[0]


def test_validation_and_evaluation_are_equal_where_nothing_is_resized() -> None:
    predictor, split = create(), scene()
    outputs, answers = validate(predictor, split).result(), evaluate_split(SegmentEvaluator(predictor), split).result
    assert answers.metrics == {name: value for name, value in outputs.metrics.items() if name != "loss"}
    assert answers.details == outputs.details
    assert 0.3 < answers.metrics["miou"] < 0.9


def test_evaluation_is_at_the_size_of_the_mask_as_it_was_read() -> None:
    predictor, split = create(size=(6, 8)), scene()
    found = evaluate_split(SegmentEvaluator(predictor), split).result
    pixels = sum(row["pixels"] for row in found.details["per_class"])
    known = sum(int((split.kind.maps.read(i, None) != 255).sum()) for i in range(len(split)))
    assert pixels == known
    matrix = np.zeros((3, 3), np.int64)
    for i in range(len(split)):
        answer = predictor.predict(split.read(i))["class_map"]
        for own, theirs in zip(split.kind.maps.read(i, None).ravel(), answer.ravel(), strict=True):
            if own != 255:
                matrix[own, theirs] += 1
    assert found.details["confusion"] == matrix.tolist()


def test_processes_together_find_what_one_does() -> None:
    predictor, split = create(), scene()
    one, three = validate(predictor, split), validate(predictor, split, 3)
    assert one.result().metrics == pytest.approx(three.result().metrics)
    assert one.result().evidence.evaluation.images == three.result().evidence.evaluation.images
    assert one.brief() == pytest.approx(three.brief())
    assert set(one.brief()) == {"loss", "miou", "pixel_accuracy"}


def test_loss_is_the_mean_of_each_image_by_itself() -> None:
    predictor, split = create(), scene(2)
    whole = next(iter(create_loader(split, predictor.preprocessing, batch_size=2)))
    labels = whole["class_map"].long()
    labels[labels == 255] = -1
    logits = predictor.outputs(whole)["logits"].detach()
    each = [float(F.cross_entropy(logits[k : k + 1], labels[k : k + 1], ignore_index=-1)) for k in range(2)]
    evaluator = SegmentEvaluator(predictor)
    evaluator.update({"logits": logits}, whole)
    assert evaluator.brief()["loss"] == pytest.approx(sum(each) / 2)


def test_an_image_of_which_nothing_is_known_has_no_loss() -> None:
    predictor, split = create(), scene(2)
    maps = np.stack([split.kind.maps.read(0, None), np.full((12, 16), 255, np.uint8)])
    blank = split.with_truth(ClassMaps(MapArray(maps), NAMES))
    alone = validate(predictor, split.subset([0])).brief()
    assert validate(predictor, blank).brief() == pytest.approx(alone)


def test_classes_that_overlap() -> None:
    random = np.random.default_rng(0)
    maps = random.random((3, 3, 12, 16)) < 0.5
    split = Split(scene(3).inputs, ClassMaps(MapArray(maps), NAMES, overlapping=True))
    predictor = create(overlapping=True)
    outputs, answers = validate(predictor, split).result(), evaluate_split(SegmentEvaluator(predictor), split).result
    assert answers.metrics == {name: value for name, value in outputs.metrics.items() if name != "loss"}
    assert answers.details["confusion"] is None


def test_a_split_of_which_nothing_is_known() -> None:
    split = scene(2)
    blank = split.with_truth(ClassMaps(MapArray(np.full((2, 12, 16), 255, np.uint8)), NAMES))
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate_split(SegmentEvaluator(create()), blank)
    with pytest.raises(InputError, match="nothing to evaluate"):
        validate(create(), blank).brief()


def test_borders_and_regions_by_option() -> None:
    predictor, split = create(), scene()
    names = {"border_f1", "hausdorff_95", "adapted_rand_error", "variation_of_information"}
    assert not names & evaluate_split(SegmentEvaluator(predictor), split).metrics.keys()
    found = evaluate_split(SegmentEvaluator(predictor, borders=True, regions="dark"), split).result
    assert names <= found.metrics.keys()
    borders = [compare_borders(*pair, 3)[0] for pair in pairs(predictor, split)]
    assert found.metrics["border_f1"] == pytest.approx(np.nanmean(borders, axis=0).mean())
    errors = [compare_regions(*pair, 0)[0] for pair in pairs(predictor, split)]
    assert found.metrics["adapted_rand_error"] == pytest.approx(np.mean(errors))
    with pytest.raises(InputError, match="unknown class of regions 'dork'; did you mean dark"):
        SegmentEvaluator(predictor, regions="dork")


def pairs(predictor: Answering, split: Split) -> list[tuple[Any, Any]]:
    return [(split.kind.maps.read(i, None), predictor.predict(split.read(i))["class_map"]) for i in range(len(split))]


def test_metrics_of_ones_own_are_given_every_known_pixel() -> None:
    predictor, split = create(), scene()
    evaluator = SegmentEvaluator(predictor)
    evaluator.own_metrics["jaccard"] = MulticlassJaccardIndex(3)
    evaluator.own_metrics["right"] = lambda found, truth: (found == truth).double().mean()
    metrics = evaluate_split(evaluator, split).metrics
    assert metrics["jaccard"] == pytest.approx(metrics["miou"], abs=1e-6)
    assert metrics["right"] == pytest.approx(metrics["pixel_accuracy"])


def test_the_report_is_drawn_by_a_fresh_evaluator() -> None:
    predictor, split = create(), scene()
    result = evaluate_split(SegmentEvaluator(predictor), split).result
    titles = [section.title for section in SegmentEvaluator(predictor).sections(result, split)]
    assert {"Classes", "Errors by distance from a border", "Worst images"} <= set(titles)
    assert [place for _, place, _ in result.evidence.worst] == np.argsort(result.evidence.evaluation.images).tolist()
