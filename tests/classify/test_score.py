"""Files of class predictions: by scikit-learn, in every form, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from PIL import Image

from opsin.classify.answers import ClassAnswer, ClassAnswers
from opsin.classify.metrics import calibration_of, expected_calibration_error
from opsin.engine.score import evaluate_predictions, score
from opsin.errors import InputError

CLASSES = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 70 images, and a matrix of probabilities."""
    made, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    labels = np.sort(generator.integers(0, 7, 70))
    for number, label in enumerate(labels.tolist()):
        (made / "data" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(made / "data" / CLASSES[label] / f"{number:03d}.png")
    logits = generator.normal(0, 1.2, (70, 7))
    logits[np.arange(70), labels] += 1.5
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.savez(made / "known.npz", labels=labels, scores=scores)
    return made


def known(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    values = np.load(folder / "known.npz")
    return values["labels"], values["scores"]


def table(path: Path, header: str, rows: list[list[Any]]) -> Path:
    path.write_text(header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def probabilities(folder: Path, path: Path, prefix: str = "", order: int = 1) -> Path:
    _, scores = known(folder)
    names = [f"{prefix}{name}" for name in CLASSES][::order]
    rows = [[f"{k:03d}.png", *(repr(float(v)) for v in row[::order])] for k, row in enumerate(scores)]
    return table(path, ",".join(["path", *names]), rows[::-1])


@pytest.mark.parametrize(("prefix", "order"), [("", 1), ("prob_", -1)])
def test_probabilities_of_all_classes(folder: Path, tmp_path: Path, prefix: str, order: int) -> None:
    labels, scores = known(folder)
    result = score(probabilities(folder, tmp_path / "found.csv", prefix, order), folder / "data")
    metrics, predicted = result.metrics, scores.argmax(axis=1)
    assert metrics["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert metrics["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=5))
    assert metrics["f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert metrics["nll"] == pytest.approx(sk.log_loss(labels, scores), abs=1e-6)
    assert metrics["ece"] == pytest.approx(plain_ece(scores.max(axis=1), predicted == labels), abs=1e-6)
    assert result.details["confusion"] == sk.confusion_matrix(labels, predicted).tolist()
    assert [row["class"] for row in result.details["per_class"]] == CLASSES


def plain_ece(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(right)


def answers(folder: Path) -> ClassAnswers:
    _, scores = known(folder)
    made = []
    for k, row in enumerate(scores):
        best = [{"label": CLASSES[i], "class_id": int(i), "score": float(row[i])} for i in np.argsort(-row)[:5]]
        made.append(ClassAnswer({"path": f"elsewhere/{k:03d}.png", **best[0], "top": best}))
    return ClassAnswers(made)


def test_labels_alone_and_labels_with_scores_and_the_best_five(folder: Path, tmp_path: Path) -> None:
    _, scores = known(folder)
    full = evaluate_predictions(probabilities(folder, tmp_path / "full.csv"), folder / "data")
    named = [[f"{k:03d}", CLASSES[i]] for k, i in enumerate(scores.argmax(axis=1))]
    alone = evaluate_predictions(table(tmp_path / "kaggle.csv", "id,label", named), folder / "data")
    of_labels = ("accuracy", "precision", "recall", "f1")
    assert alone == pytest.approx({name: full[name] for name in of_labels})
    plain = table(tmp_path / "plain.csv", f"{named[0][0]},{named[0][1]}", named[1:])  # no header
    assert evaluate_predictions(plain, folder / "data") == alone
    numbers = [[name, CLASSES.index(label)] for name, label in named]
    assert evaluate_predictions(table(tmp_path / "n.csv", "id,label", numbers), folder / "data") == alone
    answers(folder).to_csv(tmp_path / "own.csv")
    scored = evaluate_predictions(tmp_path / "own.csv", folder / "data")
    assert scored == pytest.approx({name: full[name] for name in (*of_labels, "ece")}, abs=1e-6)
    answers(folder).to_jsonl(tmp_path / "own.jsonl")
    (tmp_path / "own.json").write_text(json.dumps(answers(folder).to_list()))
    expected = {name: full[name] for name in (*of_labels, "top5_accuracy", "ece")}
    for name in ("own.jsonl", "own.json"):
        assert evaluate_predictions(tmp_path / name, folder / "data") == pytest.approx(expected, abs=1e-6)


def test_a_class_that_the_truth_has_not_is_wrong(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, _ = known(folder)
    rows = [[f"{k:03d}", "zebra" if k < 7 else CLASSES[label]] for k, label in enumerate(labels)]
    found = evaluate_predictions(table(tmp_path / "found.csv", "id,label", rows), folder / "data")
    assert found["accuracy"] == pytest.approx(63 / 70)
    assert found["recall"] == pytest.approx(np.mean([(labels[7:] == k).sum() / (labels == k).sum() for k in range(7)]))
    assert "'zebra'" in capsys.readouterr().err


def test_several_labels_an_image(tmp_path: Path) -> None:
    for k in range(4):
        Image.new("L", (4, 4), k).save(tmp_path / f"{k}.png")
    table(tmp_path / "truth.csv", "path,label", [["0.png", "a|b"], ["1.png", "b"], ["2.png", ""], ["3.png", "a"]])
    rows = [["0.png", "a"], ["0.png", "b"], ["1.png", "a|b"], ["2.png", ""], ["3.png", "a"]]
    found = table(tmp_path / "found.csv", "path,label", rows)
    metrics = evaluate_predictions(found, tmp_path / "truth.csv", multi_label=True)
    assert metrics["subset_accuracy"] == pytest.approx(3 / 4) and metrics["hamming_accuracy"] == pytest.approx(7 / 8)
    assert metrics["f1_micro"] == pytest.approx(8 / 9) and "map" not in metrics and "ece" not in metrics
    scores = [["0.png", 0.9, 0.8], ["1.png", 0.6, 0.7], ["2.png", 0.1, 0.2], ["3.png", 0.7, 0.3]]
    full = evaluate_predictions(table(tmp_path / "p.csv", "path,a,b", scores), tmp_path / "truth.csv", multi_label=True)
    assert full["subset_accuracy"] == pytest.approx(3 / 4) and full["map"] == pytest.approx(1.0)


def refusal(path: Path, truth: Path, **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        evaluate_predictions(path, truth, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    labels, _ = known(folder)
    rows: list[list[Any]] = [[f"{k:03d}", CLASSES[label], 0.5] for k, label in enumerate(labels)]
    data = folder / "data"

    def of(rows: list[list[Any]], header: str = "id,label,score") -> str:
        return refusal(table(tmp_path / "found.csv", header, rows), data)

    assert "no prediction for 2 of 70 images" in of(rows[2:])
    assert "line 72: " in (twice := of([*rows, rows[3]])) and "has a prediction already" in twice
    assert "line 72: the image '999' is not in" in of([*rows, ["999", "ant", 0.5]]).replace("999.png", "999")
    assert "line 2: the score is nan" in of([[*rows[0][:2], "nan"], *rows[1:]])
    assert "from 0 to 1" in of([[*rows[0][:2], 7.5], *rows[1:]])
    assert "no label of the file" in of([[name, "zebra", 0.5] for name, _, _ in rows])
    assert "neither a column label nor" in of([[name, 0.5] for name, _, _ in rows], "path,ant")
    logits = [[name, *range(7)] for name, _, _ in rows]
    assert "softmax or sigmoid" in of(logits, ",".join(["path", *CLASSES]))
    (tmp_path / "found.json").write_text('[{"path": "a.png", "instances": []}]')
    assert "no answer of a classifier" in refusal(tmp_path / "found.json", data)


def test_the_command(folder: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from opsin import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["opsin", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    found = str(probabilities(folder, tmp_path / "found.csv"))
    status, out, _ = call("eval", "--predictions", found, "--data", str(folder / "data"))
    assert status == 0 and out.startswith("found.csv on data, all: 70 images, 7 classes; 70 predictions (a CSV)\n")
    assert "accuracy" in out and out.rstrip().splitlines()[-1].split()[0] == "gnu"
    status, out, _ = call("eval", "--detections", found, "--data", str(folder / "data"), "--json")
    assert status == 0 and {"accuracy", "per_class", "confusion"} <= json.loads(out).keys()
    assert call("eval", "--predictions", found)[2].startswith("opsin: say what")
    assert "give one of them" in call("eval", "runs", "--predictions", found, "--data", str(folder / "data"))[2]
    assert call("eval")[2].startswith("opsin: say what to evaluate: opsin eval RUN")
    status, _, err = call("eval", "--predictions", found, "--data", str(folder / "data"), "--iou", "0.5")
    assert status == 2 and "--iou is an option of detect, track, and this is classify" in err


def test_calibration_error_is_that_of_the_scores_given() -> None:
    import torch

    scores = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    assert expected_calibration_error(calibration_of(scores, torch.tensor([0, 0]))) == pytest.approx((0.1 + 0.6) / 2)


def test_folders_that_look_like_other_data_are_classes_where_that_is_said(tmp_path: Path) -> None:
    for number, name in enumerate(("images", "masks")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(2):
            Image.new("L", (4, 4), 9 * number).save(tmp_path / "data" / name / f"{number}{k}.png")
    rows = [["00.png", "images"], ["01.png", "masks"], ["10.png", "masks"], ["11.png", "masks"]]
    found = table(tmp_path / "found.csv", "path,label", rows)
    metrics = evaluate_predictions(found, tmp_path / "data", task="classify", class_folders=True)
    assert metrics["accuracy"] == 0.75
    with pytest.raises(InputError, match=r"class_folders|class-folders"):
        evaluate_predictions(found, tmp_path / "data", task="classify")
