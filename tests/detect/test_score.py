"""Files of detections against the official tools, in every form, and what is refused of them."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.detect import detection_files
from opsin.detect.answers import DetectAnswer, DetectAnswers
from opsin.detect.average_precision import Objects
from opsin.engine.score import evaluate_predictions, score
from opsin.errors import InputError

from .plain_devkit import evaluate_class

COCO = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large",
        "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large")  # fmt: skip
CLASSES = ("cat", "dog", "owl")
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One truth as COCO json, VOC and YOLO, in whole pixels; detections near it, with equal scores, in rows."""
    made, generator = tmp_path_factory.mktemp("truth"), np.random.default_rng(5)
    for name in ("voc/Annotations", "voc/JPEGImages", "yolo/images", "yolo/labels", "coco"):
        (made / name).mkdir(parents=True)
    images, annotations, rows = [], [], []
    for number in generator.permutation(14).tolist():
        stem = f"{number:06d}"
        Image.new("RGB", (WIDTH, HEIGHT)).save(made / "voc" / "JPEGImages" / f"{stem}.jpg")
        Image.new("RGB", (WIDTH, HEIGHT)).save(made / "yolo" / "images" / f"{stem}.jpg")
        images.append({"id": 100 + number, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT})
        objects = []
        for _ in range(int(generator.integers(0, 9))):
            x, y = int(generator.integers(0, 200)), int(generator.integers(0, 150))
            w, h = int(generator.integers(8, WIDTH - x)), int(generator.integers(8, HEIGHT - y))
            label, ignored = int(generator.integers(0, 3)), bool(generator.random() < 0.2)
            objects.append((x, y, w, h, label, ignored))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": 10 * (label + 1),
                 "bbox": [x, y, w, h], "area": float(w * h * generator.uniform(0.3, 1)), "iscrowd": int(ignored),
                 "ignore": len(annotations) % 3 == 0}
            )  # fmt: skip
            for _ in range(int(generator.integers(0, 4))):
                dx, dy, dw, dh = (int(v) for v in generator.normal(0, 0.1, 4) * (w, h, w, h))
                wrong = int(generator.integers(0, 3)) if generator.random() < 0.2 else label
                sure = round(float(generator.random()), 1)
                rows.append((stem, wrong, sure, x + dx, y + dy, max(1, w + dw), max(1, h + dh)))
        write_truth(made, stem, objects)
    generator.shuffle(rows)
    categories = [{"id": 10 * (k + 1), "name": name} for k, name in enumerate(CLASSES)]
    (made / "coco" / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (made / "yolo" / "classes.txt").write_text("\n".join(CLASSES))
    (made / "rows.json").write_text(json.dumps(rows))
    return made


def write_truth(made: Path, stem: str, objects: list[tuple[int, int, int, int, int, bool]]) -> None:
    text = "".join(
        f"<object><name>{CLASSES[label]}</name><difficult>{int(ignored)}</difficult><bndbox><xmin>{x + 1}</xmin>"
        f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for x, y, w, h, label, ignored in objects
    )
    (made / "voc" / "Annotations" / f"{stem}.xml").write_text(
        f"<annotation><filename>{stem}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        f"{text}</annotation>"
    )
    (made / "yolo" / "labels" / f"{stem}.txt").write_text(
        "".join(
            f"{label} {(x + w / 2) / WIDTH:.9f} {(y + h / 2) / HEIGHT:.9f} {w / WIDTH:.9f} {h / HEIGHT:.9f}\n"
            for x, y, w, h, label, ignored in objects
            if not ignored
        )
    )


Row = tuple[str, int, float, float, float, float, float]  # stem, class, score, x, y, width, height


def rows_of(folder: Path) -> list[Row]:
    return [tuple(row) for row in json.loads((folder / "rows.json").read_text())]


def as_coco(rows: list[Row], path: Path) -> Path:
    path.write_text(
        json.dumps(
            [
                {"image_id": 100 + int(stem), "category_id": 10 * (label + 1), "bbox": box, "score": sure}
                for stem, label, sure, *box in rows
            ]
        )
    )
    return path


def as_voc(rows: list[Row], path: Path) -> Path:
    path.mkdir()
    for number, name in enumerate(CLASSES):
        own = [f"{s} {v} {x + 1} {y + 1} {x + w} {y + h}\n" for s, label, v, x, y, w, h in rows if label == number]
        (path / f"comp4_det_test_{name}.txt").write_text("".join(own))
    return path


def as_yolo(rows: list[Row], path: Path) -> Path:
    path.mkdir()
    for stem in {row[0] for row in rows}:
        lines = [
            f"{label} {(x + w / 2) / WIDTH:.12f} {(y + h / 2) / HEIGHT:.12f} {w / WIDTH:.12f} {h / HEIGHT:.12f} {v}\n"
            for s, label, v, x, y, w, h in rows
            if s == stem
        ]
        (path / f"{stem}.txt").write_text("".join(lines))
    return path


def as_pixels(rows: list[Row], path: Path) -> Path:
    path.mkdir()
    for stem in {row[0] for row in rows}:
        own = [f"{n} {v} {x + 1} {y + 1} {x + w} {y + h}\n" for s, n, v, x, y, w, h in rows if s == stem]
        (path / f"{stem}.txt").write_text("".join(own))
    return path


def as_csv(rows: list[Row], path: Path) -> Path:
    lines = [f"elsewhere/{s}.jpg,{CLASSES[n]},{v},{x},{y},{x + w},{y + h}\n" for s, n, v, x, y, w, h in rows]
    path.write_text("path,class,score,x1,y1,x2,y2\n" + "".join(lines))
    return path


def answers(rows: list[Row], found: type = DetectAnswers) -> Any:
    made = []
    for stem in dict.fromkeys(row[0] for row in rows):
        instances = [
            {"label": CLASSES[n], "class_id": n, "score": v, "box": [x, y, x + w, y + h]}
            for s, n, v, x, y, w, h in rows
            if s == stem
        ]
        answer = DetectAnswer({"path": f"photos/{stem}.jpg", "instances": instances}, size=(HEIGHT, WIDTH))
        answer._predictor = type("Names", (), {"classes": list(CLASSES)})()
        made.append(answer)
    return found(made)


def as_json(rows: list[Row], path: Path) -> Path:
    path.write_text(json.dumps(answers(rows).to_list()))
    return path


def as_jsonl(rows: list[Row], path: Path) -> Path:
    answers(rows).to_jsonl(path)
    return path


def as_own_csv(rows: list[Row], path: Path) -> Path:
    answers(rows).to_csv(path)
    return path


def as_own_coco(rows: list[Row], path: Path) -> Path:
    answers(rows).to_coco(path)
    return path


def official(truth: Path, results: Path, ious: list[float] | None = None) -> list[float]:
    """pycocotools' twelve numbers, or with `ious` the means over these and of each."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO(str(truth))
        run = cocoeval.COCOeval(known, known.loadRes(str(results)), "bbox")
        if ious is not None:
            run.params.iouThrs = np.array(ious)
        run.evaluate()
        run.accumulate()
        if ious is None:
            run.summarize()
            return run.stats.tolist()
    values = run.eval["precision"][:, :, :, 0, 2]
    return [float(one[one > -1].mean()) for one in (values, *values)]


def test_coco_results_have_the_official_twelve_numbers(folder: Path, tmp_path: Path) -> None:
    results = as_coco(rows_of(folder), tmp_path / "results.json")
    truth = folder / "coco" / "instances.json"
    found = evaluate_predictions(results, truth)
    assert [found[name] for name in COCO] == pytest.approx(official(truth, results), abs=1e-9)
    assert 0.2 < found["map"] < 0.9


def test_any_ious_as_the_official_tool_has_them(folder: Path, tmp_path: Path) -> None:
    results, truth = as_coco(rows_of(folder), tmp_path / "results.json"), folder / "coco" / "instances.json"
    found = evaluate_predictions(results, truth, iou=[0.35, 0.5, 0.825], protocol="coco")
    names = ("map", "map_35", "map_50", "map_82.5")
    assert [found[name] for name in names] == pytest.approx(official(truth, results, [0.35, 0.5, 0.825]), abs=1e-9)
    assert not [name for name in found if name.startswith("voc")] and "map_75" not in found


@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_voc_text_as_the_development_kit_has_it(folder: Path, tmp_path: Path, iou: float) -> None:
    path = as_voc(rows_of(folder), tmp_path / "results")
    result = score(path, folder / "voc", iou=[iou], protocol="voc")
    plain = []
    for name, row in zip(CLASSES, result.details["per_class"], strict=True):
        lines = (path / f"comp4_det_test_{name}.txt").read_text().splitlines()
        plain.append(evaluate_class(folder / "voc", name, lines, iou))
        assert (row["voc_map"], row["voc_map_11"]) == pytest.approx(plain[-1], abs=1e-12)
    every, eleven = np.mean(plain, axis=0)
    assert (result.metrics["voc_map"], result.metrics["voc_map_11"]) == pytest.approx((every, eleven), abs=1e-12)
    assert "map" not in result.metrics and "mar_1" not in result.metrics


def test_a_difficult_object_is_ignored_for_its_own_class_alone(tmp_path: Path) -> None:
    # A cat that counts, and a difficult dog. The dog found is neither right nor wrong; a cat on the dog is wrong.
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    for name in ("yolo/labels",):
        (tmp_path / name).mkdir(parents=True)
    write_truth(tmp_path, "000001", [(0, 0, 50, 50, 0, False), (100, 100, 60, 60, 1, True)])
    write_truth(tmp_path, "000002", [(0, 0, 50, 50, 1, False)])
    rows: list[Row] = [
        ("000001", 1, 0.9, 100, 100, 60, 60),  # the difficult dog
        ("000001", 0, 0.8, 100, 100, 60, 60),  # called a cat: wrong
        ("000001", 0, 0.7, 0, 0, 50, 50),
        ("000002", 1, 0.6, 0, 0, 50, 50),
    ]
    found = evaluate_predictions(as_voc(rows, tmp_path / "found"), tmp_path / "voc", protocol="voc")
    assert found["voc_map"] == pytest.approx((1 / 2 + 1) / 2)  # cat: wrong, right; dog: right


def test_files_named_after_classes_in_ones_own_way(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder)
    expected = score(as_voc(rows, tmp_path / "results"), folder / "voc", protocol="voc").metrics
    for own in ("{}.txt", "mine_v2_{}.txt"):
        path = as_voc(rows, tmp_path / own.format("all"))
        for name in CLASSES:
            (path / f"comp4_det_test_{name}.txt").rename(path / own.format(name))
        assert score(path, folder / "voc", protocol="voc").metrics == expected
    assert detection_files._ending("mine_traffic_light", {"light", "traffic_light"}) == "traffic_light"  # the longest
    assert detection_files._ending("mine_traffic_light", {"traffic"}) is None


FORMS: dict[str, Callable[[list[Row], Path], Path]] = {
    "found.json": as_coco,
    "voc": as_voc,
    "yolo": as_yolo,
    "pixels": as_pixels,
    "found.csv": as_csv,
    "answers.json": as_json,
    "answers.jsonl": as_jsonl,
    "answers.csv": as_own_csv,
    "answers_coco.json": as_own_coco,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    # Distinct scores: the forms order images differently, and what is equal is ranked as it comes.
    rows = [(*row[:2], round(0.05 + 0.9 * k / 400, 6), *row[3:]) for k, row in enumerate(rows_of(folder))]
    truth = folder / "coco" / "instances.json"
    expected = score(as_coco(rows, tmp_path / "reference.json"), truth)
    found = score(FORMS[name](rows, tmp_path / name), truth)
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-9)
    assert found.details["score_threshold"] == expected.details["score_threshold"]
    assert len(found.details["per_class"]) == 3 and found.details["errors"]["missed"]["count"] > 0


@pytest.mark.parametrize("truth", ["voc", "yolo"])
def test_other_forms_of_truth(folder: Path, tmp_path: Path, truth: str) -> None:
    results = as_csv(rows_of(folder), tmp_path / "found.csv")
    found = score(results, folder / truth)
    plain = {name: [r for r in rows_of(folder) if CLASSES[r[1]] == name] for name in CLASSES}
    if truth == "voc":
        expected = []
        for name, rows in plain.items():
            lines = [f"{s} {v} {x + 1} {y + 1} {x + w} {y + h}" for s, _, v, x, y, w, h in rows]
            expected.append(evaluate_class(folder / "voc", name, lines))
        assert found.metrics["voc_map"] == pytest.approx(np.mean(expected, axis=0)[0])
    else:
        assert found.details["objects"] == sum(
            len(file.read_text().splitlines()) for file in (folder / "yolo" / "labels").glob("*.txt")
        )


def test_built_in_scenes_are_a_truth(tmp_path: Path) -> None:
    source = data.open("scenes", "detect")
    split = source.splits["test" if "test" in source.splits else "all"]
    rows = []
    for i in range(len(split)):
        one = Objects.of(split.kind.at(i))
        rows += [
            f"{split.name(i)},{source.classes[label]},0.9,{','.join(map(str, box))}\n"
            for label, box in zip(one.labels, one.boxes.tolist(), strict=True)
        ]
    (tmp_path / "found.csv").write_text("path,label,score,x1,y1,x2,y2\n" + "".join(rows))
    assert evaluate_predictions(tmp_path / "found.csv", "scenes")["map"] == pytest.approx(1.0)


def test_scores_of_any_range_rank_alike(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder)
    moved = [(*row[:2], 20 * row[2] - 7, *row[3:]) for row in rows]
    truth = folder / "coco" / "instances.json"
    plain = score(as_coco(rows, tmp_path / "plain.json"), truth)
    other = score(as_coco(moved, tmp_path / "moved.json"), truth)
    assert other.metrics["map"] == plain.metrics["map"] and other.metrics["f1"] == plain.metrics["f1"]
    assert 20 * plain.details["score_threshold"] - 7 == pytest.approx(other.details["score_threshold"], abs=2.1)


# What is refused, and what is said


def refusal(path: Path, truth: Path, **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        evaluate_predictions(path, truth, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_score_that_is_no_number_is_named_with_its_place(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder)
    rows[2] = (*rows[2][:2], float("nan"), *rows[2][3:])
    truth = folder / "coco" / "instances.json"
    assert "found.csv line 4: the score is nan" in refusal(as_csv(rows, tmp_path / "found.csv"), truth)
    assert "found.json [2]: the score is nan" in refusal(as_coco(rows, tmp_path / "found.json"), truth)
    for form in (as_voc, as_yolo, as_pixels):
        message = refusal(form(rows, tmp_path / form.__name__), truth)
        assert re.search(r"\.txt line \d+: the score is nan", message), message


def test_images_that_the_truth_has_not(folder: Path, tmp_path: Path) -> None:
    rows, truth = rows_of(folder), folder / "coco" / "instances.json"
    wrong = as_csv([("other", *rows[0][1:]), *rows], tmp_path / "found.csv")
    assert "line 2: the image 'elsewhere/other.jpg' is not in instances" in refusal(wrong, truth)
    assert "none of the classes" in refusal(as_csv_of("fish", rows, tmp_path / "fish.csv"), truth)


def as_csv_of(name: str, rows: list[Row], path: Path) -> Path:
    path.write_text(as_csv(rows, path).read_text().replace(CLASSES[0], name).replace("dog", name).replace("owl", name))
    return path


def test_a_class_more_is_left_out_and_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, truth = rows_of(folder), folder / "coco" / "instances.json"
    plain = evaluate_predictions(as_csv(rows, tmp_path / "plain.csv"), truth)
    more = as_csv(rows, tmp_path / "more.csv")
    more.write_text(more.read_text() + f"{rows[0][0]}.png,zebra,0.5,1,1,9,9\n")  # another ending: the stem means it
    with pytest.raises(InputError, match="name it once"):
        evaluate_predictions(more, truth)
    more.write_text(more.read_text().replace(f"{rows[0][0]}.png", f"elsewhere/{rows[0][0]}.jpg"))
    assert evaluate_predictions(more, truth) == plain
    assert "1 detections of classes that the truth does not have are left out: 'zebra'" in capsys.readouterr().err


def test_images_of_another_split_are_left_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((folder / "coco" / "instances.json").read_text())
    for name, part in (("train", slice(0, 7)), ("val", slice(7, None))):
        images = content["images"][part]
        ids = {one["id"] for one in images}
        own = [one for one in content["annotations"] if one["image_id"] in ids]
        (tmp_path / f"instances_{name}.json").write_text(json.dumps({**content, "images": images, "annotations": own}))
    everything = as_csv(rows_of(folder), tmp_path / "found.csv.tmp")
    everything.rename(tmp_path / "found.csv")
    both = tmp_path / "both"
    both.mkdir()
    for name in ("train", "val"):
        (tmp_path / f"instances_{name}.json").rename(both / f"instances_{name}.json")
    found = score(tmp_path / "found.csv", both, "val")
    assert "are left out: they are of 'train'" in capsys.readouterr().err
    ids = {f"{one['id'] - 100:06d}" for one in content["images"][7:]}
    own = as_coco([row for row in rows_of(folder) if row[0] in ids], tmp_path / "own.json")
    assert found.metrics["map"] == pytest.approx(official(both / "instances_val.json", own)[0], abs=1e-9)
    only = as_csv([row for row in rows_of(folder) if row[0] not in ids], tmp_path / "only.csv")
    assert "give --split train" in refusal(only, both, split="val")


def test_coordinates_of_another_kind(folder: Path, tmp_path: Path) -> None:
    rows, truth = rows_of(folder), folder / "coco" / "instances.json"
    shares = [(*row[:3], row[3] / WIDTH, row[4] / HEIGHT, row[5] / WIDTH, row[6] / HEIGHT) for row in rows]
    assert "shares of the image's sides" in refusal(as_csv(shares, tmp_path / "shares.csv"), truth)
    assert "shares of the image's sides" in refusal(as_coco(shares, tmp_path / "shares.json"), truth)
    inside = [r for r in rows if r[3] >= 0 and r[4] >= 0 and r[3] + r[5] <= WIDTH and r[4] + r[6] <= HEIGHT]
    corners = [(*row[:3], row[3], row[4], row[3] + row[5], row[4] + row[6]) for row in inside]
    assert "a COCO bbox is x, y, width, height" in refusal(as_coco(corners, tmp_path / "corners.json"), truth)
    content = json.loads(truth.read_text())
    named = {row[0] for row in inside}
    unsized = next(one for one in content["images"] if Path(one["file_name"]).stem in named)
    del unsized["width"], unsized["height"]
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "instances.json").write_text(json.dumps(content))
    message = refusal(tmp_path / "corners.json", tmp_path / "truth" / "instances.json")
    assert "a COCO bbox is x, y, width, height" in message  # the other images' sizes say enough
    far = [row for row in rows if row[3] > row[5] or row[4] > row[6]]
    lines = [f"{s}.jpg,{CLASSES[n]},{v},{x},{y},{w},{h}\n" for s, n, v, x, y, w, h in far]
    (tmp_path / "sides.csv").write_text("path,class,score,x1,y1,x2,y2\n" + "".join(lines))
    assert "end before they begin" in refusal(tmp_path / "sides.csv", truth)
    (tmp_path / "sides.csv").write_text("path,class,score,x,y,w,h\n" + "".join(lines))
    assert evaluate_predictions(tmp_path / "sides.csv", truth)["map_50"] > 0


def test_names_that_may_be_several_images(tmp_path: Path) -> None:
    rows = ["a/1.jpg,0,0,9,9,cat\n", "b/1.jpg,0,0,5,5,cat\n"]
    (tmp_path / "truth.csv").write_text("path,x1,y1,x2,y2,label\n" + "".join(rows))
    found = tmp_path / "found.csv"
    found.write_text("path,class,score,x1,y1,x2,y2\n1.jpg,cat,0.5,0,0,9,9\n")
    assert "may be" in refusal(found, tmp_path / "truth.csv")
    found.write_text("path,class,score,x1,y1,x2,y2\nhere/a/1.jpg,cat,0.5,0,0,9,9\nhere/b/1.jpg,cat,0.5,0,0,5,5\n")
    assert evaluate_predictions(found, tmp_path / "truth.csv")["map"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mot.txt", "1,-1,10,20,30,40,0.9,-1,-1,-1\n", "looks like MOT's text"),
        ("found.json", "{}", "no list of detections"),
        ("found.json", '[{"image_id": 101, "category_id": 10, "score": 1}]', "has no bbox"),
        ("found.json", '[{"image_id": 101, "category_id": 10, "score": 1, "segmentation": {}}]', "masks are not"),
        ("found.json", "[1", "not readable JSON"),
        ("found.csv", "a,b\n1,2\n", "missing columns"),
        ("found.bin", "", "not a known file of detections"),
    ],
)
def test_files_that_are_none(folder: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    assert message in refusal(tmp_path / name, folder / "coco" / "instances.json")


def test_category_ids_need_a_truth_that_has_them(folder: Path, tmp_path: Path) -> None:
    results = as_coco(rows_of(folder), tmp_path / "found.json")
    text = re.sub(r'"image_id": 1(\d\d)', r'"image_id": "0000\1"', results.read_text())
    results.write_text(text)
    assert "give that json as --data" in refusal(results, folder / "voc")
    for number, name in enumerate(CLASSES):
        text = text.replace(f'"category_id": {10 * (number + 1)},', f'"category_id": "{name}",')
    results.write_text(text)
    expected = evaluate_predictions(as_csv(rows_of(folder), tmp_path / "found.csv"), folder / "voc")
    assert evaluate_predictions(results, folder / "voc") == pytest.approx(expected, abs=1e-9)


def test_options_are_checked(folder: Path, tmp_path: Path) -> None:
    results, truth = as_csv(rows_of(folder), tmp_path / "found.csv"), folder / "voc"
    assert "unknown protocol 'coca'; did you mean coco" in refusal(results, truth, protocol="coca")
    assert "truncated_svd is for the evaluation of a run" in refusal(results, truth, truncated_svd="1,1")
    assert "twice" in refusal(results, truth, iou=[0.5, 0.5])
    assert "no split 'val'" in refusal(results, truth, split="val")


def test_a_run_takes_the_same_thresholds() -> None:
    from opsin.detect.metrics import evaluate
    from opsin.structures import Instances

    truth = [Instances(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0]))]
    found = [Instances(torch.tensor([[0.0, 0, 10, 6.5]]), torch.tensor([0]), torch.tensor([0.9]))]
    metrics = evaluate(truth, found, ["a", "b"], ious=[0.6, 0.7]).metrics
    assert (metrics["map"], metrics["map_60"], metrics["map_70"]) == pytest.approx((0.5, 1, 0))
    assert (metrics["voc_map"], metrics["voc_map_60"], metrics["voc_map_11_70"]) == pytest.approx((0.5, 1, 0))


def test_an_image_that_could_not_be_read_hides_no_other(folder: Path, tmp_path: Path) -> None:
    truth, rows = folder / "coco" / "instances.json", rows_of(folder)
    expected = score(as_json(rows, tmp_path / "found.json"), truth)
    answered = json.loads((tmp_path / "found.json").read_text())
    failed = {"path": "000000.jpg", "error": "cannot read it", "instances": []}
    (tmp_path / "with.json").write_text(json.dumps([failed, *answered]))
    found = score(tmp_path / "with.json", truth)
    assert found.metrics == expected.metrics and found.metrics["map"] > 0
