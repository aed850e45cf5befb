"""Metrics of maps of classes: a scene worked by hand, torchmetrics, and what is absent, unknown or wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from torchmetrics.classification import MulticlassJaccardIndex

from opsin.errors import InputError
from opsin.segment.metrics import Counts, brief_metrics, confusion_matrix, evaluate

Array = np.ndarray
NAMES = ["road", "tree", "sign", "sky"]
# Of 12 pixels one is unknown; "sky" is neither there nor found.
TRUTH = np.array([[0, 0, 0, 0], [1, 1, 1, 255], [0, 0, 2, 2]], np.uint8)
FOUND = np.array([[0, 0, 1, 0], [1, 1, 0, 2], [0, 2, 2, 2]], np.uint8)


def draw(count: int, shape: tuple[int, ...], dtype: type = np.uint8, unknown: float = 0.2) -> tuple[Array, Array]:
    random = np.random.default_rng(count)
    truth, found = random.integers(0, count, shape), random.integers(0, count, shape)
    truth = np.where(random.random(shape) < unknown, 255 if dtype == np.uint8 else -1, truth)
    return truth.astype(dtype), found.astype(dtype)


def plain(truth: Array, found: Array, count: int) -> Array:
    matrix, unknown = np.zeros((count, count + 1), np.int64), 255 if truth.dtype == np.uint8 else -1
    for own, theirs in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
        if own != unknown:
            matrix[own, count if theirs == unknown else theirs] += 1
    return matrix


@pytest.mark.parametrize("count", [1, 2, 3, 14, 15, 200, 254, 255])
@pytest.mark.parametrize("shape", [(7, 9), (8, 8), (1, 1), (0, 5)])
def test_confusion_counts_every_pair(count: int, shape: tuple[int, ...]) -> None:
    truth, found = draw(count, shape)
    assert np.array_equal(confusion_matrix(truth, found, count), plain(truth, found, count))
    found[::2] = 255
    assert np.array_equal(confusion_matrix(truth, found, count), plain(truth, found, count))


def test_confusion_of_many_classes_and_of_views() -> None:
    truth, found = draw(300, (20, 30), np.int16)
    found[3] = -1
    assert np.array_equal(confusion_matrix(truth, found, 300), plain(truth, found, 300))
    truth, found = draw(4, (20, 30))
    turned = confusion_matrix(truth.T[::2], found.T[::2], 4)
    assert np.array_equal(turned, plain(truth.T[::2], found.T[::2], 4))


@pytest.mark.parametrize(
    ("count", "dtype"), [(3, np.uint8), (14, np.uint8), (15, np.uint8), (200, np.uint8), (300, np.int16)]
)
@pytest.mark.parametrize("which", ["true", "found"])
def test_numbers_that_are_no_class_are_refused(count: int, dtype: type, which: str) -> None:
    maps = {"true": np.zeros((4, 4), dtype), "found": np.zeros((4, 4), dtype)}
    maps[which][1, 2] = count
    with pytest.raises(InputError, match=f"a map of {which} classes holds {count}; expected 0 to {count - 1}"):
        confusion_matrix(maps["true"], maps["found"], count)


def test_maps_of_other_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="the map is 4x5, the truth 4x4"):
        confusion_matrix(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)


def test_a_scene_by_hand() -> None:
    confusion = confusion_matrix(TRUTH, FOUND, 4)
    assert confusion.tolist() == [[4, 1, 1, 0, 0], [1, 2, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]]
    found = evaluate(NAMES, [Counts.of(confusion)], confusion)
    ious = [4 / 7, 2 / 4, 2 / 3]
    dices = [8 / 11, 4 / 6, 4 / 5]
    assert found.metrics == {
        "miou": pytest.approx(sum(ious) / 3),
        "miou_all_classes": pytest.approx(sum(ious) / 4),
        "miou_per_image": pytest.approx(sum(ious) / 3),
        "dice": pytest.approx(sum(dices) / 3),
        "pixel_accuracy": pytest.approx(8 / 11),
        "mean_accuracy": pytest.approx((4 / 6 + 2 / 3 + 1) / 3),
        "frequency_weighted_iou": pytest.approx((6 * ious[0] + 3 * ious[1] + 2 * ious[2]) / 11),
    }
    sign, sky = found.per_class[2:]
    assert sign == {
        "class": "sign",
        "pixels": 2,
        "found": 3,
        "iou": pytest.approx(2 / 3),
        "dice": pytest.approx(4 / 5),
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
    }
    assert sky == {
        "class": "sky",
        "pixels": 0,
        "found": 0,
        **dict.fromkeys(("iou", "dice", "precision", "recall"), None),
    }


def test_a_class_that_is_found_and_not_there_counts_as_zero() -> None:
    confusion = np.array([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0]])
    found = evaluate(NAMES[:3], [Counts.of(confusion)], confusion)
    assert found.metrics["miou"] == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert found.metrics["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert found.per_class[2]["recall"] is None and found.per_class[2]["precision"] == 0


def test_the_mean_of_images_is_another_number_than_that_of_the_data_set() -> None:
    first, second = np.array([[90, 10, 0], [0, 0, 0]]), np.array([[0, 1, 0], [0, 1, 0]])
    found = evaluate(["a", "b"], [Counts.of(first), Counts.of(second)], first + second)
    assert found.metrics["miou"] == pytest.approx((90 / 101 + 1 / 12) / 2)
    assert found.metrics["miou_per_image"] == pytest.approx(((0.9 + 0) / 2 + (0 + 1 / 2) / 2) / 2)
    assert found.images == [pytest.approx(0.45), pytest.approx(0.25)]


def test_a_pixel_without_an_answer_is_missed_and_wrong() -> None:
    truth, found = np.array([[0, 0, 0, 1, 1, 255]], np.uint8), np.array([[0, 0, 255, 1, 0, 255]], np.uint8)
    confusion = confusion_matrix(truth, found, 2)
    assert confusion.tolist() == [[2, 0, 1], [1, 1, 0]]
    evaluation = evaluate(["a", "b"], [Counts.of(confusion)], confusion)
    assert evaluation.metrics["pixel_accuracy"] == pytest.approx(3 / 5)
    assert evaluation.metrics["miou"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert evaluation.to_dict()["confusion"] == [[2, 0], [1, 1]]
    assert evaluation.to_dict()["unanswered"] == [1, 0]


@pytest.mark.parametrize("count", [2, 11, 40])
def test_equal_to_torchmetrics(count: int) -> None:
    truth, found = draw(count, (3, 17, 23), np.int16)
    matrices = [confusion_matrix(own, theirs, count) for own, theirs in zip(truth, found, strict=True)]
    metrics = evaluate(
        [str(k) for k in range(count)], [Counts.of(one) for one in matrices], np.sum(matrices, axis=0)
    ).metrics
    own, theirs = torch.from_numpy(truth).long(), torch.from_numpy(found).long()
    metric = MulticlassJaccardIndex(count, ignore_index=-1)
    assert metrics["miou"] == pytest.approx(float(metric(theirs, own)), abs=1e-6)
    for name, function in {
        "dice": reference.multiclass_f1_score,
        "mean_accuracy": reference.multiclass_accuracy,
    }.items():
        assert metrics[name] == pytest.approx(float(function(theirs, own, count, ignore_index=-1)), abs=1e-6)
    micro = reference.multiclass_accuracy(theirs, own, count, average="micro", ignore_index=-1)
    assert metrics["pixel_accuracy"] == pytest.approx(float(micro), abs=1e-6)
    weighted = reference.multiclass_jaccard_index(theirs, own, count, average="weighted", ignore_index=-1)
    assert metrics["frequency_weighted_iou"] == pytest.approx(float(weighted), abs=1e-6)


def test_masks_that_overlap_are_questions_of_yes_or_no() -> None:
    random = np.random.default_rng(0)
    truth, found = random.random((2, 3, 8, 9)) < 0.4, random.random((2, 3, 8, 9)) < 0.4
    counts = [Counts.of_masks(own, theirs) for own, theirs in zip(truth, found, strict=True)]
    evaluation = evaluate(["a", "b", "c"], counts, None)
    by_class = (torch.from_numpy(values).movedim(1, -1).reshape(-1, 3).long() for values in (found, truth))
    theirs, own = by_class
    ious = reference.multilabel_jaccard_index(theirs, own, 3, average="none").tolist()
    assert [row["iou"] for row in evaluation.per_class] == pytest.approx(ious)
    assert evaluation.metrics["miou"] == pytest.approx(sum(ious) / 3)
    assert evaluation.metrics["pixel_accuracy"] == pytest.approx(float((found == truth).mean()))
    assert evaluation.confusion is None


def test_an_empty_mask_found_empty_is_right_and_has_no_iou() -> None:
    counts = Counts.of_masks(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool))
    found = evaluate(["lesion"], [counts], None)
    assert found.metrics == {"miou_all_classes": 0.0, "pixel_accuracy": 1.0}
    assert brief_metrics([counts], None) == {"pixel_accuracy": 1.0}


def test_nothing_known_is_nothing_to_evaluate() -> None:
    confusion = confusion_matrix(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 2)
    for call in (
        lambda: evaluate(["a", "b"], [Counts.of(confusion)], confusion),
        lambda: brief_metrics([Counts.of(confusion)], confusion),
        lambda: evaluate(["a", "b"], [], np.zeros((2, 3), np.int64)),
    ):
        with pytest.raises(InputError, match="nothing to evaluate"):
            call()


def test_an_image_of_which_nothing_is_known_is_left_out_of_the_mean_of_images() -> None:
    unknown = np.zeros((2, 3), np.int64)
    known = np.array([[3, 1, 0], [0, 4, 0]])
    found = evaluate(["a", "b"], [Counts.of(unknown), Counts.of(known)], known)
    assert found.metrics["miou_per_image"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert np.isnan(found.images[0])
