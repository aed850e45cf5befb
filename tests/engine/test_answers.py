"""Answers: dicts and lists that cannot be changed by accident, and the forms other tools read, read by these tools."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
import sys
import types
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import opsin
from opsin.cli import app_for, main
from opsin.cli.which_task import task_of_run
from opsin.data import Preprocessing
from opsin.data.masks import encode_masks
from opsin.detect.answers import DetectAnswer, DetectAnswers
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.export import export
from opsin.engine.predict import Predictor
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

CLASSES = ["cat", "dog", "owl"]


def save_run(folder: Path, task: str, name: str, **options: Any) -> Path:
    """A run with weights at random, small enough that it finds something everywhere."""
    recipe = load_recipe({"task": task, "model": {"name": name, **options}, "data": {"source": ""}})
    torch.manual_seed(0)
    model: Any = opsin.create_model(name, num_classes=3, in_channels=3, **options).eval()
    with torch.no_grad():  # what keeps the scale of what passes through, so that scores differ
        for name_, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
            elif name_.endswith("bias"):
                tensor.normal_(0, 0.1)
    model.temperature, model.score_threshold = 0.5, 0.3
    folder.mkdir()
    size = (32, 32) if task == "classify" else (64, 64)
    facts = Facts(recipe, Preprocessing(size=size, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3),
                  {"classes": CLASSES}, {"num_classes": 3, "in_channels": 3})  # fmt: skip
    save_model(folder / "model.safetensors", model, facts, {})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "classify": save_run(folder / "classify", "classify", "lenet5"),
        "detect": save_run(folder / "detect", "detect", "yolov3_tiny"),
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images in two folders, two of one name."""
    noise = np.random.default_rng(0)
    for name, size in {"a/1.png": (40, 60), "a/2.png": (64, 64), "b/1.png": (50, 30), "b/3.jpg": (33, 70)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


class Stub(Predictor):
    """Draws a red image, without a run."""

    def __init__(self) -> None:
        pass

    classes = CLASSES  # type: ignore[assignment]

    def draw(self, image: Tensor, answer: dict[str, Any]) -> Any:
        return Image.new("RGB", (image.shape[2], image.shape[1]), "red")


def objects(
    *rows: tuple[int, float, Sequence[float]], path: str = "a.png", masks: Tensor | None = None
) -> DetectAnswer:
    """The answer for an image, 10 high and 20 wide, whose pixels count up."""
    found = [{"label": CLASSES[i], "class_id": i, "score": s, "box": list(box)} for i, s, box in rows]
    if masks is not None:
        found = [one | {"mask": mask} for one, mask in zip(found, encode_masks(masks), strict=True)]
    image = torch.arange(200, dtype=torch.uint8).reshape(1, 10, 20)
    values = {"path": path, "instances": found, "masked": masks is not None}
    return DetectAnswer(values, Stub(), image, (10, 20))


def test_an_answer_is_a_dict_that_cannot_be_changed(runs: dict[str, Path], photos: Path) -> None:
    answer = opsin.load(runs["classify"], "cpu").predict(photos / "a/1.png")
    plain = dict(answer)
    assert set(plain) == {"path", "label", "class_id", "score", "top"} and answer == plain and plain == answer
    assert json.loads(json.dumps(answer)) == answer.to_dict() == {**answer}
    for change in (
        lambda: answer.update(label="x"), lambda: answer.pop("label"), lambda: answer.clear(), lambda: answer.popitem(),
        lambda: answer.setdefault("x", 1), lambda: answer.__setitem__("x", 1), lambda: answer.__delitem__("label"),
        lambda: answer.__ior__({"x": 1}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="read-only"):
            change()
    assert answer == plain and len(repr(answer)) < 160 and "60x40" in repr(answer) and answer["label"] in repr(answer)
    answer.to_dict()["top"].clear()
    assert len(answer["top"]) == 3
    for other in (pickle.loads(pickle.dumps(answer)), copy.copy(answer), copy.deepcopy(answer)):
        assert other == answer and type(other) is type(answer)
        assert np.array_equal(other.probabilities, answer.probabilities)
        assert np.array_equal(np.asarray(other.plot()), np.asarray(answer.plot()))
    assert len(pickle.dumps(answer)) < 20_000  # the network is not in it


def test_what_was_given_is_there(runs: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    predictor = opsin.load(runs["classify"], "cpu")
    pixels = np.asarray(Image.open(photos / "a/1.png"))
    for given in (photos / "a/1.png", pixels, torch.from_numpy(pixels.copy()).permute(2, 0, 1)):
        answer = predictor(given)
        assert answer.size == (40, 60) and answer.image.dtype == np.uint8 and np.array_equal(answer.image, pixels)
        assert answer.path == (given if isinstance(given, Path) else None)
        assert (answer.frame, answer.time, answer.error) == (None, None, None)
        assert np.array_equal(np.asarray(answer.plot()), np.asarray(predictor.annotate(given, answer)))
    saved = predictor(photos / "a/1.png").save(tmp_path / "new/drawn.png")
    assert np.array_equal(np.asarray(Image.open(saved)), np.asarray(answer.plot()))
    with pytest.raises(InputError, match="is the image that was given"):
        predictor(photos / "a/1.png").save(photos / "b/../a/1.png")
    assert np.array_equal(np.asarray(Image.open(photos / "a/1.png")), pixels)


def test_a_classifiers_fields_and_its_threshold(runs: dict[str, Path], photos: Path) -> None:
    predictor = opsin.load(runs["classify"], "cpu")
    answer = predictor.predict(photos / "a/1.png", top=2)
    logits = predictor.model(predictor.normalize(predictor.collate([predictor.read(photos / "a/1.png")]))).detach()
    expected = (logits[0] / 0.5).softmax(0).numpy()
    assert np.allclose(answer.probabilities, expected, atol=1e-6) and answer.probabilities.shape == (3,)
    order = np.argsort(-expected)[:2]
    assert answer.class_ids.tolist() == order.tolist() and np.allclose(answer.scores, expected[order])
    assert (answer.label, answer.class_id) == (CLASSES[order[0]], order[0]) and answer.labels == [answer.label]
    certain = float(expected.max())
    assert predictor.predict(photos / "a/1.png", threshold=certain - 1e-3)["label"] == answer.label
    unsure = predictor.predict(photos / "a/1.png", threshold=min(1.0, certain + 1e-5))
    assert unsure.label is None and unsure["class_id"] is None and unsure.score == pytest.approx(certain)
    assert np.array_equal(unsure.probabilities, answer.probabilities) and predictor.describe(unsure) == "nothing"
    unsure.plot()
    predictor.model.multi_label = True
    shares = torch.sigmoid(logits[0] / 0.5).numpy()
    for threshold in (None, 0.1, 0.9):
        found = predictor.predict(photos / "a/1.png", threshold=threshold)
        wanted = {CLASSES[i] for i in range(3) if shares[i] >= (0.5 if threshold is None else threshold)}
        assert set(found.labels) == wanted and np.allclose(found.probabilities, shares, atol=1e-6)
    with pytest.raises(InputError, match="multi-label"):
        _ = found.label


def test_another_tasks_field_is_one_line(runs: dict[str, Path], photos: Path) -> None:
    answers = opsin.load(runs["classify"], "cpu").predict(photos)
    for one, name in ((answers[0], "boxes"), (answers[0], "to_coco"), (answers, "to_coco"), (answers, "to_yolo")):
        assert not hasattr(one, name)
        with pytest.raises(InputError, match=f"has no '{name}'; answers of detect.* have it"):
            getattr(one, name)
    with pytest.raises(AttributeError, match="it has label"):
        _ = answers[0].lable
    with pytest.raises(InputError, match="answers of classify and adapt have it"):
        _ = objects().probabilities


def test_a_detectors_fields() -> None:
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 3:7] = masks[1, :, 19] = True
    answer = objects((1, 0.9, (3.2, 2.0, 6.9, 5.0)), (0, 0.5, (19.5, -0.0, 20.0, 10.0)), masks=masks)
    assert answer.labels == ["dog", "cat"] and answer.class_ids.tolist() == [1, 0]
    assert answer.boxes.dtype == np.float32 and answer.boxes.shape == (2, 4) and answer.scores.dtype == np.float32
    assert answer.masks is not None and np.array_equal(answer.masks, masks.numpy()) and "masked" not in answer
    first, second = answer.crops()
    assert np.array_equal(first, answer.image[2:5, 3:7]) and np.array_equal(second, answer.image[0:10, 19:20])
    none = objects()
    assert none.boxes.shape == (0, 4) and none.masks is None and none.crops() == []
    assert objects(masks=masks[:0]).masks.shape == (0, 10, 20)  # type: ignore[union-attr]


def test_pycocotools_reads_to_coco(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    masks = torch.zeros(1, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 3:7] = True
    one = objects((2, 0.75, (3.0, 2.0, 7.0, 5.0)), masks=masks)
    answers = DetectAnswers([objects(path="empty.png"), one, Answer({"path": "x", "error": "broken"})])
    answers.to_coco(tmp_path / "deep/found.json")
    read = coco.COCO(str(tmp_path / "deep/found.json"))
    assert {k: v["name"] for k, v in read.cats.items()} == {1: "cat", 2: "dog", 3: "owl"}
    assert [(i["id"], i["file_name"], i["height"], i["width"]) for i in read.dataset["images"]] == [
        (1, "empty.png", 10, 20), (2, "a.png", 10, 20),
    ]  # fmt: skip
    (annotation,) = read.loadAnns(read.getAnnIds(imgIds=[2]))
    assert (annotation["category_id"], annotation["bbox"], annotation["area"]) == (3, [3, 2, 4, 3], 12)
    assert np.array_equal(read.annToMask(annotation), masks[0].numpy())
    again = read.loadRes(read.dataset["annotations"])
    assert again.loadAnns([1])[0]["score"] == 0.75


def test_yolo_csv_and_lines_of_json(tmp_path: Path) -> None:
    answers = DetectAnswers([
        objects((1, 0.5, (5.0, 2.0, 15.0, 4.0)), path="a/1.png"), objects(path="b/1.png"),
        Answer({"path": "c.png", "error": "broken"}),
    ])  # fmt: skip
    assert answers.to_yolo(tmp_path) == ["1 0.500000 0.300000 0.500000 0.200000\n", "", ""]
    assert answers[0].to_yolo(scores=True).endswith(" 0.500000\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1-2.txt", "1.txt"]
    rows = list(csv.DictReader(io.StringIO(answers.to_csv(tmp_path / "table.csv"))))
    assert rows[0] == {"path": "a/1.png", "label": "dog", "class_id": "1", "score": "0.5",
                       "x1": "5.0", "y1": "2.0", "x2": "15.0", "y2": "4.0", "error": ""}  # fmt: skip
    assert len(rows) == 2 and (rows[1]["path"], rows[1]["error"]) == ("c.png", "broken")
    assert [json.loads(line) for line in answers.to_jsonl().splitlines()] == answers == answers.to_list()
    assert repr(answers) == "<DetectAnswers: 3 answers, 1 dog, 1 could not be read>"
    assert isinstance(answers[1:], DetectAnswers) and DetectAnswers([]).to_csv().startswith("path,label")
    assert answers.to_coco()["annotations"][0]["area"] == 20


def test_pandas_and_supervision_are_named_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = DetectAnswers([objects((1, 0.5, (5.0, 2.0, 15.0, 4.0)))])
    for name, form in (("pandas", "to_pandas"), ("supervision", "to_supervision")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f"{form} needs {name}: pip install {name}"):
            getattr(answers, form)()
    given: dict[str, Any] = {}
    fake: Any = types.SimpleNamespace(Detections=lambda **fields: given.update(fields) or "made")
    monkeypatch.setitem(sys.modules, "supervision", fake)
    assert answers.to_supervision() == ["made"]
    assert given["xyxy"].tolist() == [[5, 2, 15, 4]] and given["mask"] is None and given["class_id"].tolist() == [1]
    assert given["confidence"].tolist() == [0.5] and given["data"]["class_name"].tolist() == ["dog"]


def test_a_stream_holds_a_batch_and_no_more(runs: dict[str, Path], photos: Path, monkeypatch: Any) -> None:
    predictor = opsin.load(runs["classify"], "cpu")
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0
    read = predictor.read

    def watched(given: Any) -> Any:
        nonlocal most
        image = read(given)
        alive.add(image)
        most = max(most, len(alive))
        return image

    predictor.read = watched  # type: ignore[method-assign]
    many = [photos / "a/1.png", photos / "a/2.png"] * 8
    found = predictor.predict((one for one in many), stream=True, batch_size=4)
    first = next(found)
    assert len(alive) <= 4 and first.path == many[0]
    labels = [answer.label for answer in found]
    assert len(labels) == 15 and most <= 5 and len(alive) <= 1  # one while the next batch begins
    assert [answer.label for answer in predictor.predict(many)] == [first.label, *labels]
    broken = photos / "a/0.png"
    broken.write_text("nothing")
    streamed = list(predictor.predict(photos / "a", stream=True))
    assert [answer.error is None for answer in streamed] == [False, True, True] and streamed[0].path == broken
    with pytest.raises(InputError, match=r"0\.png"):
        _ = streamed[0].label
    with pytest.raises(InputError, match=r"0\.png"):
        predictor.predict(photos / "a")
    with pytest.raises(InputError, match="threshhold"):
        predictor.predict(many, stream=True, threshhold=0.5)  # at once, not when the first is asked for


def test_blue_first_is_said_once_and_holds_for_all(runs: dict[str, Path]) -> None:
    predictor = opsin.load(runs["classify"], "cpu")
    images = list(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8))
    turned = [np.ascontiguousarray(image[..., ::-1]) for image in images]
    right = [answer["top"] for answer in predictor.predict(images)]
    assert right != [answer["top"] for answer in predictor.predict(turned)]
    for given in (turned, iter(turned), np.stack(turned)):
        assert [answer["top"] for answer in predictor.predict(given, bgr=True)] == right
    assert [answer["top"] for answer in predictor.predict(turned, bgr=True, stream=True)] == right
    assert predictor.predict(turned[1], bgr=True)["top"] == predictor.predict(images[1])["top"]


def test_objects_are_cut_out_into_files_of_their_own(tmp_path: Path) -> None:
    cut = (1, 0.9, (2.0, 3.0, 6.0, 8.0))
    images = DetectAnswers([objects(cut, path="x/a.png"), objects(cut, cut, path="y/a.png"), objects(path="b.png")])
    written = images.save_crops(tmp_path / "images")
    assert len(set(written)) == 3 and sorted((tmp_path / "images/dog").iterdir()) == sorted(written)
    expected = np.arange(200).reshape(10, 20)[3:8, 2:6]
    assert all(np.array_equal(np.asarray(Image.open(file).convert("L")), expected) for file in written)
    image = torch.arange(200, dtype=torch.uint8).reshape(1, 10, 20)
    frames = [DetectAnswer({**objects(cut, path="v.mp4"), "frame": k}, Stub(), image, (10, 20)) for k in (0, 7)]
    names = [file.name for file in DetectAnswers(frames).save_crops(tmp_path / "video")]
    assert names == ["v.mp4-000000-1.png", "v.mp4-000007-1.png"]  # their frames tell them apart


def test_a_predictor_says_what_it_is(runs: dict[str, Path]) -> None:
    predictor = opsin.load(runs["classify"], "cpu")
    assert repr(predictor) == "<ClassifyPredictor lenet5 on cpu, 3 classes, 3x32x32>"
    assert predictor.to("cpu") is predictor
    with pytest.raises(InputError, match="device 'nowhere' cannot be used"):
        predictor.to("nowhere")


def test_the_old_name_of_the_threshold(runs: dict[str, Path], photos: Path) -> None:
    predictor = opsin.load(runs["detect"], "cpu")
    new, old = predictor.predict(photos, threshold=0.25), predictor.predict(photos, score_threshold=0.25)
    assert new == old and new != predictor.predict(photos, threshold=0.01)
    with pytest.raises(InputError, match="threshold and score_threshold are one option"):
        predictor.predict(photos, threshold=0.1, score_threshold=0.2)


@pytest.mark.parametrize(("kind", "suffix"), [("classify", "openvino"), ("detect", "onnx")])
def test_an_exported_file_answers_as_its_run(
    runs: dict[str, Path], photos: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    pytest.importorskip("openvino" if suffix == "openvino" else "onnxruntime")
    pytest.importorskip("onnxscript")
    file = export(runs[kind], suffix, tmp_path / ("model.onnx" if suffix == "onnx" else "model.xml")).path
    assert task_of_run(str(file)) == kind
    run, exported = opsin.load(runs[kind], "cpu"), opsin.load(file)
    given: list[dict[str, Any]] = [{}, {"threshold": 0.05}, {"threshold": 0.9}]
    for options in given:
        for one, other in zip(run.predict(photos, **options), exported.predict(photos, **options), strict=True):
            alike(other.to_dict(), one.to_dict())
    with pytest.raises(InputError, match="run on the CPU"):
        opsin.load(file, "cuda")


def alike(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            alike(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            alike(one, other)
    else:
        assert found == (pytest.approx(wanted, abs=0.02) if isinstance(wanted, float) else wanted)


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07nothing of the kind")
    with pytest.raises(InputError, match=r"x\.onnx cannot be read"):
        opsin.load(tmp_path / "x.onnx")
    assert task_of_run(str(tmp_path / "x.onnx")) is None


def test_the_commands_files(runs: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    call = ["predict", str(runs["detect"]), str(photos), "--threshold", "0.02", "--limit", "2", "--jsonl"]
    call += ["--csv", str(tmp_path / "t.csv"), "--coco", str(tmp_path / "c.json"), "--crops", str(tmp_path / "crops")]
    printed = CliRunner().invoke(app_for(call), call, catch_exceptions=False).stdout
    answers = opsin.load(runs["detect"], "cpu").predict(photos, threshold=0.02, limit=2)
    assert [json.loads(line) for line in printed.splitlines()] == answers
    count = sum(len(answer["instances"]) for answer in answers)
    assert count > 4 and (tmp_path / "t.csv").read_text() == answers.to_csv()
    assert json.loads((tmp_path / "c.json").read_text()) == json.loads(json.dumps(answers.to_coco()))
    assert len(list((tmp_path / "crops").rglob("*.png"))) == count  # of images of one name too
    for flags, said in (
        (["--coco", "x.json"], "--coco is for answers of detect"),
        (["--crops", "x"], "--crops is for answers of detect"),
        (["--csv", str(photos)], "is a folder"),
        (["--csv", str(photos / "a/1.png")], "is an input"),
        (["--json", "--jsonl"], "give one of them"),
    ):
        wrong = ["opsin", "predict", str(runs["classify"]), str(photos / "a/1.png"), *flags]
        monkeypatch.setattr(sys, "argv", wrong)
        monkeypatch.setattr("opsin.engine.predict.load", None)  # nothing is loaded first
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2 and said in capsys.readouterr().err


def test_an_exported_file_does_nothing_but_predict() -> None:
    for call in (lambda: opsin.evaluate("model.onnx", data="digits"), lambda: export("model.xml", "onnx")):
        with pytest.raises(InputError, match="written by opsin export and only predicts"):
            call()
