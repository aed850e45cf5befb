"""Average precision against the official tool, a plain slow version and hand-worked scenes; the error budget."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opsin.data.masks import decode_mask, encode_masks, mask_area
from opsin.detect.average_precision import Objects, Shapes, average_precision, coco_precision, rank
from opsin.detect.error_budget import KINDS, error_budget
from opsin.detect.metrics import CONFIDENCES, brief_metrics, evaluate
from opsin.errors import JobError
from opsin.ops.iou import numpy_ioa, numpy_iou
from opsin.structures import Instances

NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large",
         "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large")  # fmt: skip
AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def instances(
    *rows: tuple[float, ...], labels: list[int] | None = None, scores: list[float] | None = None
) -> Instances:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return Instances(
        boxes,
        torch.tensor(labels if labels is not None else [0] * len(rows), dtype=torch.int64),
        None if scores is None else torch.tensor(scores),
    )


def objects(*images: Instances) -> list[Objects]:
    return [Objects.of(one) for one in images]


def random_scenes(seed: int, images: int = 12, classes: int = 3) -> tuple[list[Instances], list[Instances]]:
    """Truth with regions to ignore, and predictions near it, doubled, of wrong classes and out of nothing."""
    generator = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(images):
        count = int(generator.integers(0, 8))
        corner, side = generator.uniform(0, 300, (count, 2)), generator.uniform(5, 150, (count, 2))
        boxes = np.concatenate([corner, corner + side], axis=1)
        labels = generator.integers(-1, classes, count)
        near = np.repeat(boxes, 2, axis=0)
        near = near + generator.normal(0, 0.12, near.shape) * np.repeat(np.tile(side, 2), 2, axis=0)
        noise = generator.uniform(0, 200, (6, 2))
        near = np.concatenate([near, np.concatenate([noise, noise + generator.uniform(5, 100, (6, 2))], axis=1)])
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        told = np.where(generator.random(len(near)) < 0.7, np.append(np.repeat(labels, 2), [0] * 6), 1).clip(0)
        truth.append(Instances(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(labels)))
        found.append(
            Instances(torch.tensor(near).float(), torch.tensor(told), torch.tensor(generator.random(len(near))))
        )
    return truth, found


def official(truth: list[Instances], found: list[Instances], classes: int, kind: str = "bbox") -> list[float]:
    """pycocotools' twelve numbers; a region to ignore is given to it as a crowd of every class. kind: or "segm"."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (one, two) in enumerate(zip(objects(*truth), objects(*found), strict=True)):
        shapes = [encoded(each[image]) for each in (truth, found)] if kind == "segm" else None
        for place, (box, label, area) in enumerate(
            zip(one.boxes.tolist(), one.labels.tolist(), one.areas.tolist(), strict=True)
        ):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            for category in [label] if label >= 0 else range(classes):
                row = {
                    "image_id": image,
                    "category_id": category,
                    "bbox": xywh,
                    "area": area,
                    "iscrowd": int(label < 0),
                }
                if shapes is not None:
                    row["segmentation"] = shapes[0][place]
                annotations.append({"id": len(annotations) + 1, **row})
        for place, (box, label, score) in enumerate(
            zip(two.boxes.tolist(), two.labels.tolist(), two.scores.tolist(), strict=True)
        ):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            shape = {"bbox": xywh} if shapes is None else {"segmentation": shapes[1][place]}
            results.append({"image_id": image, "category_id": label, "score": score, **shape})
    with contextlib.redirect_stdout(io.StringIO()):
        truth_file = coco.COCO()
        truth_file.dataset = {
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(truth))],
            "categories": [{"id": k, "name": str(k)} for k in range(classes)],
            "annotations": annotations,
        }
        truth_file.createIndex()
        run = cocoeval.COCOeval(truth_file, truth_file.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats]


SIDE = 450  # of the images with masks


def ellipses(instances: Instances) -> torch.Tensor:
    """Masks that fill an ellipse in each box."""
    x1, y1, x2, y2 = instances.boxes.T[:, :, None, None]
    x, y = torch.arange(SIDE)[None, None] + 0.5, torch.arange(SIDE)[None, :, None] + 0.5
    return ((x - (x1 + x2) / 2) / (x2 - x1) * 2) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1) * 2) ** 2 < 1


def encoded(instances: Instances) -> list[dict[str, Any]]:
    coco = pytest.importorskip("pycocotools.mask")
    return [coco.encode(np.asfortranarray(mask.byte().numpy())) for mask in ellipses(instances)]


@pytest.mark.parametrize("seed", range(2))
def test_masks_equal_the_official_tool(seed: int) -> None:
    truth, found = random_scenes(seed)
    shapes = [Shapes.of(ellipses(one), ellipses(two)) for one, two in zip(truth, found, strict=True)]
    metrics = evaluate(truth, found, ["a", "b", "c"], shapes=shapes).metrics
    masked = [replace(one, masks=ellipses(one)) for one in truth]  # an object has the area of its mask
    for name, value in zip(NAMES[:6], official(masked, found, 3, "segm"), strict=False):
        assert metrics.get(f"mask_{name}", -1.0) == pytest.approx(value, abs=1e-6), name
    assert metrics["map"] == evaluate(truth, found, ["a", "b", "c"]).metrics["map"] != metrics["mask_map"]


def assert_official(truth: list[Instances], found: list[Instances], classes: int) -> dict[str, float]:
    metrics = coco_precision(objects(*truth), objects(*found), classes).metrics
    for name, value in zip(NAMES, official(truth, found, classes), strict=True):
        assert metrics.get(name, -1.0) == pytest.approx(value, abs=1e-6), name
    return metrics


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_official_tool_with_regions_to_ignore(seed: int) -> None:
    assert_official(*random_scenes(seed), 3)


@pytest.mark.real_data
def test_equals_the_official_tool_on_real_detections(data_dir: Path) -> None:
    truth, found, names = voc100(data_dir / "voc100")
    metrics = assert_official(truth, found, len(names))
    known = {"map": 0.347, "map_50": 0.610, "map_75": 0.354, "mar_100": 0.523}
    assert {name: round(metrics[name], 3) for name in known} == known
    evaluation = evaluate(truth, found, names)
    assert {name: evaluation.metrics[name] for name in metrics} == metrics
    assert brief_metrics(truth, found, len(names)) == {k: metrics[k] for k in ("map", "map_50", "map_75")}


def voc100(folder: Path) -> tuple[list[Instances], list[Instances], list[str]]:
    """The truth and the detections of some detector, from their COCO files, which number classes differently."""
    files = (
        json.loads((folder / "coco/instances.json").read_text()),
        json.loads((folder / "detections/coco_dets.json").read_text()),
    )
    names = [category["name"] for category in files[0]["categories"]]
    images = [image["file_name"] for image in files[0]["images"]]
    read = []
    for file in files:
        label = {category["id"]: names.index(category["name"]) for category in file["categories"]}
        place = {image["id"]: images.index(image["file_name"]) for image in file["images"]}
        rows: list[list[Any]] = [[] for _ in images]
        for one in file["annotations"]:
            x, y, width, height = one["bbox"]
            rows[place[one["image_id"]]].append(
                ((x, y, x + width, y + height), label[one["category_id"]], one.get("score", 1.0))
            )
        read.append(
            [instances(*[r[0] for r in row], labels=[r[1] for r in row], scores=[r[2] for r in row]) for row in rows]
        )
    return read[0], read[1], names


def slow_precision(
    truth: list[Objects], found: list[Objects], label: int, threshold: float, area: tuple[float, float], limit: int
) -> tuple[float, float] | None:
    """AP and recall of one class, step by step as COCO defines them. None where there is nothing to find."""
    verdicts: list[tuple[float, bool]] = []
    count = 0
    for real, told in zip(truth, found, strict=True):
        within = (real.areas >= area[0]) & (real.areas <= area[1])
        counted = [i for i in range(len(real)) if real.labels[i] == label and within[i]]
        excused = [i for i in range(len(real)) if real.labels[i] == label and not within[i]]
        crowds = [i for i in range(len(real)) if real.labels[i] == -1]
        count += len(counted)
        taken: set[int] = set()
        order = sorted((i for i in range(len(told)) if told.labels[i] == label), key=lambda i: -told.scores[i])
        for i in order[:limit]:
            ious = {j: numpy_iou(told.boxes[[i]], real.boxes[[j]])[0, 0] for j in counted + excused if j not in taken}
            shares = [numpy_ioa(told.boxes[[i]], real.boxes[[j]])[0, 0] for j in crowds]
            best = max((j for j in counted if j in ious), key=lambda j: ious[j], default=None)
            if best is not None and ious[best] >= threshold:
                taken.add(best)
                verdicts.append((told.scores[i], True))
                continue
            best = max((j for j in excused if j in ious), key=lambda j: ious[j], default=None)
            if best is not None and ious[best] >= threshold:
                taken.add(best)
            elif not any(share >= threshold for share in shares) and area[0] <= told.areas[i] <= area[1]:
                verdicts.append((told.scores[i], False))
    if not count:
        return None
    verdicts.sort(key=lambda pair: -pair[0])
    hits = 0
    points = []
    for place, (_, right) in enumerate(verdicts, 1):
        hits += right
        points.append((hits / count, hits / place))
    levels = np.linspace(0, 1, 101)
    return float(np.mean([max((p for r, p in points if r >= level), default=0.0) for level in levels])), hits / count


def test_equals_a_plain_slow_version() -> None:
    truth, found = (objects(*images) for images in random_scenes(7))
    metrics = coco_precision(truth, found, 3).metrics
    thresholds = np.linspace(0.5, 0.95, 10)
    for name, area in {"": (0, 1e10), **AREAS}.items():
        known = [v for k in range(3) for t in thresholds if (v := slow_precision(truth, found, k, t, area, 100))]
        assert metrics[f"map_{name}".rstrip("_")] == pytest.approx(np.mean([p for p, _ in known]), abs=1e-9)
        assert metrics[f"mar_{name or 100}"] == pytest.approx(np.mean([r for _, r in known]), abs=1e-9)
    ones = [v for k in range(3) for t in thresholds if (v := slow_precision(truth, found, k, t, (0, 1e10), 1))]
    assert metrics["mar_1"] == pytest.approx(np.mean([r for _, r in ones]), abs=1e-9)
    for k, ranking in enumerate(rank(truth, found, 3)):
        slow = slow_precision(truth, found, k, 0.5, (0, 1e10), 100)
        assert slow is not None
        assert average_precision(ranking.right, ranking.count) == pytest.approx(slow[0], abs=1e-12)


def test_three_forms_of_average_precision_by_hand() -> None:
    right = np.array([True, False, True, False])  # precision 1, 1/2, 2/3, 1/2 at recall 1/4, 1/4, 1/2, 1/2
    assert average_precision(right, 4, "voc") == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    assert average_precision(right, 4, "voc_11") == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # recalls 0-.2 and .3-.5
    assert average_precision(right, 4) == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)  # recalls 0-.25 and .26-.5
    assert average_precision(np.zeros(3, bool), 4, "voc") == 0
    assert average_precision(np.zeros(0, bool), 4) == 0
    assert average_precision(right, 0) is None


def test_recalls_of_tenths_belong_to_their_level() -> None:
    right = np.array([True, True, True])  # recall 0.3 is reached exactly: 4 of 11 levels
    assert average_precision(right, 10, "voc_11") == pytest.approx(4 / 11)


def test_coco_gives_the_next_object_where_voc_calls_it_a_duplicate() -> None:
    """Two objects side by side, two predictions that both overlap the first most."""
    truth = objects(instances((0, 0, 10, 10), (3, 0, 13, 10)))
    found = objects(instances((1, 0, 11, 10), (0.5, 0, 11, 10), scores=[0.9, 0.8]))
    coco, voc = (rank(truth, found, 1, rule=rule)[0] for rule in ("coco", "voc"))
    assert coco.right.tolist() == [True, True]
    assert voc.right.tolist() == [True, False]
    assert coco.truth.tolist() == [0, 1]


def test_predictions_in_ignored_regions_do_not_count() -> None:
    truth = objects(instances((0, 0, 10, 10), (50, 50, 100, 100), labels=[0, -1]))
    found = objects(instances((60, 60, 70, 70), (0, 0, 10, 10), (200, 0, 210, 10), scores=[0.9, 0.8, 0.7]))
    coco = rank(truth, found, 1)[0]
    assert coco.right.tolist() == [True, False]  # a small box within the region is gone
    voc = rank(truth, found, 1, rule="voc")[0]
    assert voc.right.tolist() == [False, True, False]  # by IoU it is not in the region: VOC has no crowds
    assert coco.count == voc.count == 1


def test_masks_say_how_large_an_object_is() -> None:
    """As in COCO: a thin object with a large box is small."""
    masks = torch.zeros(1, 200, 200, dtype=torch.bool)
    masks[0, :5, :100] = True
    truth = Objects.of(Instances(torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([0]), masks=masks))
    metrics = coco_precision([truth], objects(instances((0, 0, 100, 100), scores=[0.9])), 1).metrics
    assert metrics["map_small"] == 1
    assert "map_large" not in metrics


def test_every_kind_of_error_by_hand() -> None:
    """Six objects, one found; five wrong predictions and two objects that nothing came near."""
    truth = objects(
        instances((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10), labels=[0, 0, 1, 1]),
        instances((0, 0, 10, 10), (40, 40, 60, 60), labels=[0, 1]),
    )
    found = objects(
        instances(
            (0, 0, 10, 10),  # right
            (0, 0, 10, 9),  # a duplicate
            (25, 0, 35, 10),  # IoU 1/3 with the second object: localisation
            (40, 0, 50, 10),  # a class error: 0 for the third object
            (65, 0, 75, 10),  # IoU 1/3 with the fourth, of class 1: both
            (200, 0, 210, 10),  # background
            labels=[0, 0, 0, 0, 0, 1],
            scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        ),
        instances(scores=[]),
    )
    rankings = rank(truth, found, 2)
    budget = error_budget(truth, found, rankings)
    places = {kind: [(m.image, m.place, m.truth) for m in budget.mistakes[kind]] for kind in KINDS}
    assert places == {
        "class": [(0, 3, 2)],
        "localisation": [(0, 2, 1)],
        "both": [(0, 4, 3)],
        "duplicate": [(0, 1, 0)],
        "background": [(0, 5, None)],
        "missed": [(1, None, 1), (0, None, 3), (1, None, 0)],  # the largest first
    }
    first, missed = 34 / 101, 2 / 3  # one of three found, at recalls 0 to 0.33; the third precision of two of three
    before = first / 2
    # Class: a hit of class 1 above its background, one of three found. Localisation: a second hit at precision 2/3.
    assert budget.costs["class"] == pytest.approx((first + first) / 2 - before)
    assert budget.costs["localisation"] == pytest.approx((first + 33 / 101 * missed) / 2 - before)
    assert budget.costs["both"] == budget.costs["duplicate"] == budget.costs["background"] == pytest.approx(0)
    assert budget.costs["missed"] == pytest.approx((51 / 101 + 0) / 2 - before)  # one of two, and none of one


def test_mended_class_errors_of_a_found_object_are_taken_away() -> None:
    truth = objects(instances((0, 0, 10, 10), (20, 0, 30, 10), labels=[0, 1]))
    found = objects(
        instances((0, 0, 10, 10), (0, 0, 10, 10), (20, 0, 30, 10), labels=[1, 0, 1], scores=[0.9, 0.8, 0.7])
    )
    budget = error_budget(truth, found, rank(truth, found, 2))
    assert budget.counts["class"] == 1
    assert budget.costs["class"] == pytest.approx((1 + 1) / 2 - (1 + 1 / 2) / 2)


def test_the_threshold_is_that_of_the_best_f1() -> None:
    truth = [instances((0, 0, 10, 10), (20, 0, 30, 10))]
    found = [instances((0, 0, 10, 10), (20, 0, 30, 10), (50, 0, 60, 10), scores=[0.9, 0.6, 0.2])]
    evaluation = evaluate(truth, found, ["thing"])
    assert evaluation.threshold == pytest.approx(0.4, abs=2e-3)  # amid 0.2 and 0.6, all of which are perfect
    assert evaluation.metrics["f1"] == 1
    assert evaluation.f1[0, np.searchsorted(CONFIDENCES, 0.1)] == pytest.approx(4 / 5)
    assert evaluation.f1[0, np.searchsorted(CONFIDENCES, 0.7)] == pytest.approx(2 / 3)
    given = evaluate(truth, found, ["thing"], threshold=0.7)
    assert (given.metrics["precision"], given.metrics["recall"]) == (1, 0.5)
    assert [(o.right, o.wrong, o.missed) for o in given.outcomes()] == [([0], [], [1])]


def test_classes_without_objects_are_left_out_of_averages() -> None:
    evaluation = evaluate([instances((0, 0, 10, 10))], [instances((0, 0, 10, 10), scores=[0.9])], ["here", "nowhere"])
    assert evaluation.metrics["map"] == evaluation.metrics["voc_map"] == 1
    assert evaluation.per_class[1]["map"] is None
    json.dumps(evaluation.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ([instances()], [instances(scores=[])]),
        ([instances()], [instances((0, 0, 5, 5), scores=[0.5])]),
        ([instances((0, 0, 5, 5), labels=[-1])], [instances((0, 0, 5, 5), scores=[0.5])]),
        ([instances((0, 0, 5, 5))], [instances(scores=[])]),
        ([instances((0, 0, 5, 5))], [instances((3, 3, 3, 3), scores=[0.5])]),
        ([instances((3, 3, 3, 3))], [instances((3, 3, 3, 3), scores=[0.5])]),
    ],
)
def test_nothing_to_find_or_nothing_found(truth: list[Instances], found: list[Instances]) -> None:
    evaluation = evaluate(truth, found, ["thing"])
    assert evaluation.metrics["map"] == brief_metrics(truth, found, 1)["map"] == 0
    assert np.isfinite(list(evaluation.metrics.values())).all()


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(JobError, match="not finite in image 0"):
        evaluate([instances()], [instances((0, 0, float("nan"), 5), scores=[0.5])], ["thing"])


def test_masks_as_text_are_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for seed, size in enumerate([(7, 5), (1, 9), (40, 30)]):
        masks = torch.rand(4, *size, generator=torch.Generator().manual_seed(seed)) < 0.3
        masks[0] = False
        for mask, told in zip(masks, encode_masks(masks), strict=True):
            assert told["counts"].encode() == coco.encode(np.asfortranarray(mask.byte().numpy()))["counts"]
            assert torch.equal(decode_mask(told), mask)
            assert mask_area(told) == mask.sum()
    assert encode_masks(torch.zeros(0, 3, 4, dtype=torch.bool)) == []


def test_masks_where_nothing_was_found_or_nothing_is_there() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 1:5, 1:5] = True
    one, none = instances((1, 1, 5, 5), scores=[0.9]), instances(scores=[])
    missed = evaluate([one], [none], ["a"], shapes=[Shapes.of(mask, mask[:0])]).metrics
    assert missed["mask_map"] == missed["mask_map_small"] == 0
    invented = evaluate([none], [one], ["a"], shapes=[Shapes.of(mask[:0], mask)]).metrics
    assert not any(name.startswith("mask") for name in invented)  # undefined: there are no objects
    assert evaluate([one], [one], ["a"], shapes=[Shapes.of(mask, mask)]).metrics["mask_map"] == 1
