"""What `evaluate` finds: scenes worked out by hand as fractions, and scikit-learn and torchmetrics as references."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional.classification as reference
from torch import Tensor

from opsin.classify.metrics import Evaluation, evaluate, expected_calibration_error, reliability
from opsin.errors import InputError, JobError

CLASSES = ["cat", "dog", "owl"]


def hand_worked() -> Evaluation:
    """Five animals, of which the second, third and fifth are taken for others."""
    scores = torch.tensor(
        [
            [0.75, 0.25, 0.0],  # cat, right
            [0.125, 0.875, 0.0],  # cat, taken for dog
            [0.5, 0.25, 0.25],  # dog, taken for cat
            [0.25, 0.5, 0.25],  # dog, right
            [0.625, 0.25, 0.125],  # dog, taken for cat
        ]
    )
    return evaluate(scores, torch.tensor([0, 0, 1, 1, 1]), CLASSES)


def random_scene(rows: int = 400, classes: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes - 1, (rows,), generator=generator)  # the last class has no example
    logits = torch.randn(rows, classes, generator=generator)
    logits[torch.arange(rows), labels] += 1.5
    return torch.softmax(logits.double(), dim=1), labels, [f"class {i}" for i in range(classes)]


def random_multi_label(rows: int = 300, classes: int = 6) -> tuple[Tensor, Tensor, list[str]]:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(rows, classes, generator=generator) < 0.3).long()
    labels[:, -1] = 0
    logits = torch.randn(rows, classes, generator=generator) + 2 * labels - 1
    return torch.sigmoid(logits), labels, [f"class {i}" for i in range(classes)]


class TestByHand:
    def test_accuracy(self) -> None:
        assert hand_worked().metrics["accuracy"] == pytest.approx(2 / 5)

    def test_confusion_has_the_truth_in_rows(self) -> None:
        confusion = hand_worked().confusion
        assert confusion is not None
        assert confusion.tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]

    def test_per_class(self) -> None:
        cat, dog, owl = hand_worked().per_class
        assert cat == {
            "class": "cat",
            "examples": 2,
            "predicted": 3,
            "precision": pytest.approx(1 / 3),
            "recall": pytest.approx(1 / 2),
            "f1": pytest.approx(2 / 5),
        }
        assert (dog["precision"], dog["recall"]) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
        assert owl == {
            "class": "owl",
            "examples": 0,
            "predicted": 0,
            "precision": None,
            "recall": None,
            "f1": None,
        }

    def test_averages_leave_out_the_class_without_examples(self) -> None:
        metrics = hand_worked().metrics
        assert metrics["precision"] == pytest.approx((1 / 3 + 1 / 2) / 2)
        assert metrics["recall"] == pytest.approx((1 / 2 + 1 / 3) / 2)
        assert metrics["f1"] == pytest.approx(2 / 5)

    def test_nll(self) -> None:
        truth = [3 / 4, 1 / 8, 1 / 4, 1 / 2, 1 / 4]
        assert hand_worked().metrics["nll"] == pytest.approx(-sum(math.log(p) for p in truth) / 5)

    def test_ece(self) -> None:
        """Every answer is alone in its bin: |1 - .75|, |0 - .875|, |0 - .625|, and .5 twice: one right of two."""
        gaps = 1 / 4 + 7 / 8 + 5 / 8 + 2 * abs(1 / 2 - 1 / 2)
        assert hand_worked().metrics["ece"] == pytest.approx(gaps / 5)

    def test_mistakes_begin_with_the_most_confident(self) -> None:
        assert hand_worked().mistakes == [1, 4, 2]

    def test_five_classes_and_fewer_have_no_top5(self) -> None:
        assert "top5_accuracy" not in hand_worked().metrics
        scores = torch.full((2, 5), 0.2)
        assert "top5_accuracy" not in evaluate(scores, torch.tensor([0, 4]), list("abcde")).metrics

    def test_multi_label(self) -> None:
        scores = torch.tensor([[0.9, 0.2, 0.1], [0.6, 0.8, 0.1], [0.3, 0.4, 0.2]])
        labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
        found = evaluate(scores, labels, CLASSES)
        assert found.confusion is None
        assert found.metrics["subset_accuracy"] == pytest.approx(1 / 3)
        assert found.metrics["hamming_accuracy"] == pytest.approx(7 / 9)
        assert found.metrics["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
        # cat: found first and third of the ranking .9 .6 .3; dog: first; owl has no example
        assert found.per_class[0]["ap"] == pytest.approx((1 + 2 / 3) / 2)
        assert found.metrics["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
        assert found.metrics["f1"] == pytest.approx((1 / 2 + 1) / 2)
        assert found.per_class[2]["ap"] is None
        assert found.mistakes == [2, 1]  # off by .7 and .6


class TestAgainstReferences:
    def test_precision_recall_f1(self) -> None:
        scores, labels, classes = random_scene()
        found, predicted = evaluate(scores, labels, classes), scores.argmax(dim=1)
        present = sorted(set(labels.tolist()))
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected = np.asarray(score(labels, predicted, labels=present, average=None))  # type: ignore[arg-type]
            np.testing.assert_allclose([found.per_class[i][name] for i in present], expected, rtol=1e-6)
            assert found.metrics[name] == pytest.approx(expected.mean(), rel=1e-6)

    def test_accuracy_confusion_and_nll(self) -> None:
        scores, labels, classes = random_scene()
        found = evaluate(scores, labels, classes)
        assert found.metrics["accuracy"] == pytest.approx(sk.accuracy_score(labels, scores.argmax(dim=1)))
        assert found.confusion is not None
        np.testing.assert_array_equal(found.confusion, sk.confusion_matrix(labels, scores.argmax(1), labels=range(7)))
        assert found.metrics["nll"] == pytest.approx(sk.log_loss(labels, scores.double(), labels=range(7)), rel=1e-5)

    def test_top5(self) -> None:
        scores, labels, classes = random_scene()
        expected = sk.top_k_accuracy_score(labels, scores, k=5, labels=range(7))
        assert evaluate(scores, labels, classes).metrics["top5_accuracy"] == pytest.approx(expected)
        with_torchmetrics = reference.multiclass_accuracy(scores, labels, 7, average="micro", top_k=5)
        assert evaluate(scores, labels, classes).metrics["top5_accuracy"] == pytest.approx(with_torchmetrics.item())

    @pytest.mark.parametrize("seed", range(3))
    def test_ece(self, seed: int) -> None:
        scores, labels, classes = random_scene(seed=seed)
        expected = reference.multiclass_calibration_error(scores, labels, 7, n_bins=15, norm="l1")
        assert evaluate(scores, labels, classes).metrics["ece"] == pytest.approx(expected.item(), rel=1e-5)

    def test_multi_label(self) -> None:
        scores, labels, classes = random_multi_label()
        found, predicted, present = evaluate(scores, labels, classes).metrics, (scores >= 0.5).long(), slice(0, -1)
        few, guess = labels[:, present], predicted[:, present]
        assert found["map"] == pytest.approx(sk.average_precision_score(few, scores[:, present]), rel=1e-5)
        assert found["f1"] == pytest.approx(sk.f1_score(few, guess, average="macro"), rel=1e-6)
        assert found["precision"] == pytest.approx(sk.precision_score(few, guess, average="macro"), rel=1e-6)
        assert found["recall"] == pytest.approx(sk.recall_score(few, guess, average="macro"), rel=1e-6)
        assert found["f1_micro"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"), rel=1e-6)
        assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
        assert found["hamming_accuracy"] == pytest.approx(1 - sk.hamming_loss(labels, predicted))
        assert found["nll"] == pytest.approx(sk.log_loss(labels.flatten(), scores.flatten().double()), rel=1e-5)
        expected = reference.binary_calibration_error(scores.flatten(), labels.flatten(), n_bins=15)
        assert found["ece"] == pytest.approx(expected.item(), rel=1e-5)


class TestTies:
    def test_equal_scores_take_the_first_class(self) -> None:
        scores = torch.full((3, 6), 1 / 6)
        found = evaluate(scores, torch.tensor([0, 4, 5]), list("abcdef"))
        assert found.metrics["accuracy"] == pytest.approx(1 / 3)
        assert found.metrics["top5_accuracy"] == pytest.approx(2 / 3)

    def test_equally_confident_mistakes_keep_their_order(self) -> None:
        scores = torch.tensor([[0.25, 0.75]]).repeat(40, 1)
        assert evaluate(scores, torch.zeros(40, dtype=torch.long), ["a", "b"]).mistakes == list(range(40))


class TestReliability:
    def test_edges_belong_to_the_bin_below(self) -> None:
        bins = reliability(torch.tensor([0.0, 0.5, 0.50001, 1.0]), torch.tensor([True, True, False, True]), bins=2)
        assert [b["count"] for b in bins] == [2, 2]
        assert bins[0] == {"low": 0, "high": 0.5, "count": 2, "confidence": 0.25, "accuracy": 1}

    def test_certainty_shares_the_last_bin(self) -> None:
        """|mean(.98, 1) - 1/2|; torchmetrics keeps confidence 1 apart and finds (.98 + 0) / 2."""
        bins = reliability(torch.tensor([0.98, 1.0], dtype=torch.float64), torch.tensor([False, True]))
        assert bins[-1]["count"] == 2
        assert expected_calibration_error(bins) == pytest.approx(0.99 - 0.5)

    def test_empty_bins_are_none(self) -> None:
        bins = reliability(torch.tensor([0.9]), torch.tensor([True]))
        assert len(bins) == 15
        assert (bins[0]["confidence"], bins[0]["accuracy"], bins[0]["count"]) == (None, None, 0)

    def test_nothing_is_not_miscalibrated(self) -> None:
        assert expected_calibration_error(reliability(torch.zeros(0), torch.zeros(0, dtype=torch.bool))) == 0


class TestLeftOut:
    def test_examples_without_a_label(self) -> None:
        scores, labels, classes = random_scene()
        expected = evaluate(scores[10:], labels[10:], classes)
        labels = labels.clone()
        labels[:10] = -1
        found = evaluate(scores, labels, classes)
        assert found.metrics == expected.metrics
        assert found.count == len(labels) - 10
        assert found.mistakes == [i + 10 for i in expected.mistakes]

    def test_unknown_entries_of_multi_label(self) -> None:
        scores = torch.tensor([[0.9, 0.9], [0.9, 0.1], [0.2, 0.2]])
        labels = torch.tensor([[1, -1], [-1, 0], [-1, -1]])
        found = evaluate(scores, labels, ["a", "b"])
        assert found.count == 2
        assert found.metrics["subset_accuracy"] == 1
        assert found.metrics["hamming_accuracy"] == 1
        assert found.mistakes == []
        assert found.per_class[0] == {
            "class": "a",
            "examples": 1,
            "predicted": 1,
            "precision": 1,
            "recall": 1,
            "f1": 1,
            "ap": 1,
        }


def test_a_class_never_predicted_has_precision_zero() -> None:
    found = evaluate(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]), ["a", "b"])
    assert found.per_class[1]["precision"] == 0
    assert found.metrics["precision"] == pytest.approx(1 / 4)


def test_a_true_class_of_score_zero_has_a_finite_nll() -> None:
    assert evaluate(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), ["a", "b"]).metrics["nll"] == pytest.approx(
        87.3, abs=0.1
    )


@pytest.mark.parametrize("scene", [random_scene, random_multi_label])
def test_plain_values_are_json(scene) -> None:
    found = evaluate(*scene()).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (torch.full((2, 2), 0.5), torch.zeros(2), InputError, "do not fit 3 classes"),
        (torch.full((2, 3), 0.5), torch.zeros(3), InputError, r"labels of shape \(3,\)"),
        (torch.full((2, 3), 0.5), torch.tensor([0, 3]), InputError, "label 3 of example 1 is out of range.*0 to 2"),
        (torch.full((2, 3), 0.5), torch.full((2, 3), 2), InputError, "label 2 of example 0.*0 to 1"),
        (torch.full((2, 3), 0.5), torch.tensor([-1, -1]), InputError, "nothing to evaluate"),
        (torch.zeros(0, 3), torch.zeros(0), InputError, "nothing to evaluate"),
        (torch.tensor([[0.1, 0.2, math.nan]]), torch.tensor([0]), JobError, "1 of 1 examples, the first is number 0"),
        (torch.tensor([[4.0, -2.0, 1.0]]), torch.tensor([0]), InputError, "expected probabilities"),
    ],
)
def test_impossible_input_is_named(scores: Tensor, labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(scores, labels, CLASSES)
