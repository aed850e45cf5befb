"""Fast R-CNN: the published counts, its loss and answers by hand, and a run from proposals to predictions."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from typer.testing import CliRunner

import opsin
from opsin import cli, registry
from opsin.detect import fast_rcnn
from opsin.detect.fast_rcnn import FastRCNN, truncated_svd
from opsin.detect.regions import Regions
from opsin.detect.truncated_svd import evaluate_thinned
from opsin.engine.checkpoint import read_model
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances

WINDOWS: dict[str, Any] = {"proposals": "sliding_windows"}


class Cells(nn.Module):
    """The means of cells of 4x4 pixels: a map that can be worked out by hand."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images, 4)]


def tiny(**options: Any) -> FastRCNN:
    torch.manual_seed(0)
    given = {"num_classes": 2, "roi_size": 2, "hidden": 8, "dropout": 0.0, **WINDOWS, **options}
    return FastRCNN(Cells(), 3, 4, **given).eval()


def truth(*rows: tuple[float, ...], label: int = 0) -> Instances:
    return Instances(torch.tensor(rows).reshape(-1, 4), torch.full((len(rows),), label))


@pytest.mark.parametrize(
    ("name", "options", "params", "macs"),
    [
        ("fast_rcnn_vgg16", {}, 134_690_729, 423_804_751_872),
        ("fast_rcnn_vgg16", {"truncated_svd": (1024, 256)}, 47_134_633, 248_692_559_872),
        ("fast_rcnn_caffenet", {}, 57_298_409, 119_129_288_576),
        ("fast_rcnn_caffenet", {"truncated_svd": (1024, 256)}, 18_501_097, 41_534_664_576),
        ("fast_rcnn", {}, 16_786_089, 30_864_588_800),
    ],
)
def test_counts_are_those_of_the_published_definitions(
    name: str, options: dict[str, Any], params: int, macs: int
) -> None:
    facts = registry.find_model(name).published
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    assert isinstance(model, FastRCNN)
    assert count_parameters(model) == params
    assert count_macs(model, facts.input) == macs
    if not options:
        assert (facts.params, facts.macs) == (params, macs)


# Forward


def test_the_head_sees_what_a_plain_network_sees() -> None:
    """RoI pooling by loops over cells with rounded borders (section 2.1), then the layers by matrix products."""
    model, images = tiny(), torch.rand(2, 3, 32, 40)
    given = [torch.tensor([[0.0, 0, 24, 16], [9, 5, 33, 30]]), torch.tensor([[4.0, 8, 12, 28]])]
    outputs = model(images, given)
    logits, offsets = model.classify(outputs, Regions(outputs["proposals"], outputs["rows"]))
    rows = []
    for row, box in [(0, given[0][0]), (0, given[0][1]), (1, given[1][0])]:
        x1, y1, x2, y2 = [math.floor(v / 4 + 0.5) for v in box.tolist()]
        width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        features = F.avg_pool2d(images, 4)[row]
        cells = torch.zeros(3, 2, 2)
        for i in range(2):
            for j in range(2):
                top, bottom = y1 + math.floor(i * height / 2), y1 + math.ceil((i + 1) * height / 2)
                left, right = x1 + math.floor(j * width / 2), x1 + math.ceil((j + 1) * width / 2)
                cells[:, i, j] = features[:, top : min(bottom, 8), left : min(right, 10)].amax(dim=(1, 2))
        rows.append(cells.flatten())
    state = model.state_dict()
    hidden = torch.stack(rows)
    for name in ("head.fc6.0", "head.fc7"):
        hidden = (hidden @ state[f"{name}.weight"].T + state[f"{name}.bias"]).clamp(min=0)
    torch.testing.assert_close(logits, hidden @ state["predictor.logits.weight"].T, rtol=1e-4, atol=1e-6)
    wanted = (hidden @ state["predictor.offsets.weight"].T).view(3, 3, 4)
    torch.testing.assert_close(offsets, wanted, rtol=1e-4, atol=1e-7)


def test_forward_is_the_same_in_training_and_never_mixes_images() -> None:
    model, images = tiny(), torch.rand(2, 3, 32, 40)
    given = [torch.tensor([[0.0, 0, 24, 16]]), torch.zeros(0, 4)]
    both, first = model(images, given), model.train()(images[:1], given[:1])
    assert torch.equal(both["features_0"][:1], first["features_0"])
    assert both["rows"].tolist() == [0]
    assert both["size"].tolist() == [32, 40]


def test_without_proposals_it_lays_out_windows() -> None:
    outputs = tiny()(torch.rand(2, 3, 32, 40))
    assert torch.bincount(outputs["rows"]).tolist() == [len(outputs["proposals"]) // 2] * 2


def test_a_pyramid_sees_each_region_at_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides of 112, 224 and 448 pixels are seen at 2, 1 and 1/2 times the input; other scales must not matter."""
    model = tiny(scales=(1.0, 0.5, 2.0))
    images = torch.rand(1, 3, 480, 480)
    boxes = torch.tensor([[0.0, 0, 224, 224], [8, 8, 456, 456], [100, 60, 212, 172]])
    outputs = model(images, [boxes])
    assert [outputs[f"features_{k}"].shape[-1] for k in range(3)] == [120, 60, 240]
    logits, _ = model.classify(outputs, Regions(boxes, outputs["rows"]))
    for k, (scale, box) in enumerate(zip((1.0, 0.5, 2.0), boxes, strict=True)):
        own = {"features_0": outputs[f"features_{k}"], "size": outputs["size"]}
        single = tiny()
        single.load_state_dict(model.state_dict())
        wanted, _ = single.classify(own, Regions(scale * box[None], torch.zeros(1, dtype=torch.int64)))
        torch.testing.assert_close(logits[k], wanted[0])


# Loss


def plain_loss(model: FastRCNN, outputs: dict[str, Tensor], given: Tensor, objects: Instances) -> dict[str, float]:
    """Equations 1 to 3, region by region, where every region is sampled."""
    with torch.no_grad():
        logits, offsets = model.classify(outputs, Regions(given, torch.zeros(len(given), dtype=torch.int64)))
    ious = torchvision.ops.box_iou(given, objects.boxes)
    wrong, box, count = 0.0, 0.0, 0
    assert objects.labels is not None
    for row in range(len(given)):
        best = int(ious[row].argmax())
        overlap = float(ious[row, best])
        if overlap < 0.1:
            continue
        count += 1
        label = int(objects.labels[best]) + 1 if overlap >= 0.5 else 0
        wrong -= float(logits[row].log_softmax(dim=0)[label])
        if not label:
            continue
        (px1, py1, px2, py2), (gx1, gy1, gx2, gy2) = given[row].tolist(), objects.boxes[best].tolist()
        pw, ph, gw, gh = px2 - px1, py2 - py1, gx2 - gx1, gy2 - gy1
        wanted = [
            ((gx1 + gx2) / 2 - (px1 + px2) / 2) / pw / 0.1,
            ((gy1 + gy2) / 2 - (py1 + py2) / 2) / ph / 0.1,
            math.log(gw / pw) / 0.2,
            math.log(gh / ph) / 0.2,
        ]
        for stated, value in zip(offsets[row, label].tolist(), wanted, strict=True):
            off = abs(stated - value)
            box += 0.5 * off**2 if off < 1 else off - 0.5
    return {"class": wrong / count, "box": box / count}


def test_the_loss_is_the_papers() -> None:
    model = tiny(regions=100, positives=1.0, add_truth=False)
    images = torch.rand(1, 3, 64, 64)
    objects = Instances(torch.tensor([[8.0, 8, 32, 40], [30, 30, 60, 60]]), torch.tensor([0, 1]))
    given = torch.tensor(
        [[9.0, 6, 34, 38], [8, 8, 32, 24], [8, 8, 32, 22], [0, 40, 8, 60], [28, 33, 62, 57], [40, 40, 64, 64]]
    )
    nn.init.normal_(model.predictor.offsets.weight, std=0.5)
    outputs = model(images, [given])
    losses = {name: float(term.detach()) for name, term in model.loss(outputs, [objects]).items()}
    assert losses == pytest.approx(plain_loss(model, outputs, given, objects), rel=1e-5)
    (assigned,) = model.assign(outputs, [objects])
    assert assigned.matched.tolist() == [0, 0, -1, -2, 1, -1]  # IoU 0.5 answers; below 0.1 the loss looks away


def test_the_truth_is_among_the_proposals_of_the_training() -> None:
    objects, images = truth((8.0, 8, 32, 40)), torch.rand(1, 3, 64, 64)
    far = [torch.tensor([[50.0, 50, 60, 60]])]
    with_truth, without = (tiny(add_truth=flag) for flag in (True, False))
    assert with_truth.loss(with_truth(images, far), [objects])["class"] > 0
    assert without.loss(without(images, far), [objects])["class"] == 0


def test_samples_are_64_with_a_quarter_of_objects() -> None:
    model = tiny()
    sampler = model.sampler
    assert (sampler.count, sampler.positives, sampler.threshold, sampler.background) == (64, 0.25, 0.5, (0.1, 0.5))


@pytest.mark.parametrize(
    ("boxes", "objects"),
    [
        (torch.zeros(0, 4), truth()),  # neither proposals nor objects
        (torch.zeros(0, 4), truth((8.0, 8, 32, 40))),  # no proposals
        (torch.tensor([[8.0, 8, 30, 40]]), truth()),  # no objects
        (torch.tensor([[50.0, 50, 60, 60]]), truth((8.0, 8, 32, 40))),  # all background
        (torch.tensor([[8.0, 8, 30, 40]]), truth((8.0, 8, 32, 40), label=-1)),  # a region to ignore
    ],
)
@pytest.mark.parametrize("background", [(0.1, 0.5), (0.0, 0.5)])
def test_nothing_to_learn_is_no_trouble(boxes: Tensor, objects: Instances, background: tuple[float, float]) -> None:
    model = tiny(background=background)
    outputs = model(torch.rand(2, 3, 64, 64), [boxes, torch.zeros(0, 4)])
    losses = model.loss(outputs, [objects, truth()])
    total = sum(losses.values())
    assert isinstance(total, Tensor) and torch.isfinite(total)
    total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    found = model.decode(outputs, score_threshold=0.0)
    assert [len(one) > 0 for one in found] == [len(boxes) > 0, False]


# Answers


def test_answers_by_hand() -> None:
    """Two overlapping regions of one class, one of another; offsets that move and stretch; a box over the border."""
    model = tiny()
    boxes = torch.tensor([[10.0, 10, 30, 30], [11, 10, 31, 30], [40, 40, 60, 60]])
    outputs = model(torch.rand(1, 3, 64, 64), [boxes])
    sure = math.log(8)
    logits = torch.tensor([[0.0, sure, 0], [0, sure - 1, 0], [0, 0, sure]])
    offsets = torch.zeros(3, 3, 4)
    offsets[2, 2] = torch.tensor([2.0, 0, 5 * math.log(2), 0])  # 0.2 sides to the right, twice as wide

    def classify(*_: Any) -> tuple[Tensor, Tensor]:
        return logits, offsets

    model.classify = classify  # type: ignore[method-assign]
    (found,) = model.decode(outputs, score_threshold=0.3)
    assert found.labels is not None and found.scores is not None
    assert sorted(found.labels.tolist()) == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.8, 0.8])
    torch.testing.assert_close(found.boxes[found.labels == 0], boxes[:1])
    # centre 50 + 0.2 * 20 = 54, width 40: from 34 to 74, cut at 64
    torch.testing.assert_close(found.boxes[found.labels == 1], torch.tensor([[34.0, 40, 64, 60]]))


def test_answers_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    outputs = model(torch.rand(2, 3, 64, 64))
    whole = model.decode(outputs, score_threshold=0.0)
    monkeypatch.setattr(fast_rcnn, "_CHUNK", 37)
    for one, two in zip(whole, model.decode(outputs, score_threshold=0.0), strict=True):
        torch.testing.assert_close(one.boxes, two.boxes)


# Weights


def test_a_classifier_gives_its_fully_connected_layers() -> None:
    model = registry.create_model("fast_rcnn_vgg16", hidden=16, num_classes=2)
    classifier = registry.create_model("vgg16", hidden_features=16, num_classes=5)
    fresh = model.initialize_from(classifier.state_dict())  # type: ignore[operator]
    assert all(name.startswith("predictor.") for name in fresh)
    own, given = model.state_dict(), classifier.state_dict()
    assert torch.equal(own["head.fc6.0.weight"], given["head.3.weight"])
    assert torch.equal(own["head.fc7.bias"], given["head.6.bias"])
    images = torch.rand(1, 3, 64, 64)
    (features,) = model.eval().backbone(images)  # type: ignore[operator]
    torch.testing.assert_close(features, classifier.eval().features(images)[-1])  # type: ignore[operator]


def test_frozen_stages_keep_their_weights() -> None:
    model = registry.create_model("fast_rcnn", backbone="vgg11", frozen_stages=2, hidden=8, roi_size=1)
    frozen = {name.split(".")[3] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"0", "1"}


def test_svd_at_full_rank_changes_nothing_and_below_it_is_the_nearest() -> None:
    model = tiny()
    outputs = model(torch.rand(1, 3, 64, 64))
    regions = Regions(outputs["proposals"], outputs["rows"])
    full = truncated_svd(model, 8, 8)
    for one, two in zip(model.classify(outputs, regions), full.classify(outputs, regions), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    thin = truncated_svd(model, 3, 2)
    for name, rank in (("head.fc6.0", 3), ("head.fc7", 2)):
        weight = model.get_parameter(f"{name}.weight")
        product = thin.get_parameter(f"{name}.1.weight") @ thin.get_parameter(f"{name}.0.weight")
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        torch.testing.assert_close(product, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=1e-3, atol=1e-5)
    again = tiny(truncated_svd=(3, 2))
    again.load_state_dict(thin.state_dict())
    assert torch.equal(again.classify(outputs, regions)[0], thin.classify(outputs, regions)[0])
    with pytest.raises(InputError, match="thin layers already"):
        truncated_svd(thin)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": "selective"}, "selective_search"),
        ({"background": (0.5,)}, "background takes two numbers"),
        ({"background": (0.5, 0.1)}, "background"),
        ({"scales": ()}, "scales"),
        ({"scales": (0.0,)}, "scales must be above 0"),
        ({"truncated_svd": (9, 2)}, "no more than either"),
        ({"beta": 0}, "beta must be above 0"),
        ({"pooling": "crop"}, "pooling"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**options)


def test_every_image_has_its_proposals() -> None:
    with pytest.raises(InputError, match="2 images came with the proposals of 1"):
        tiny()(torch.rand(2, 3, 32, 32), [torch.zeros(0, 4)])


# A run


def test_a_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    recipe = {
        "task": "detect",
        "model": {"name": "fast_rcnn", "backbone": "mobilenet_v3_small", "hidden": 16, "roi_size": 3, **WINDOWS,
                  "proposal_options": {"limit": 50}},
        "data": {"source": "scenes:8", "size": 96},
        "augment": "light_boxes",
        "train": {"epochs": 1, "batch_size": 4, "tensorboard": False, "multi_scale": [64, 96]},
    }  # fmt: skip
    lines: list[str] = []
    run = opsin.train(recipe, out=tmp_path / "run", say=lines.append)
    assert {"val_map", "train_class", "train_box"} <= run.history[0].keys()
    assert "Recall of the proposals" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert opsin.evaluate(tmp_path / "run", split="test") == pytest.approx(run.metrics, abs=1e-5)
    model: Any = read_model(tmp_path / "run").build()
    assert model.proposal_options == {"limit": 50}
    changed = opsin.evaluate(tmp_path / "run", split="test", change=partial(truncated_svd, fc6=2, fc7=2))
    assert changed.keys() == run.metrics.keys()
    _thin_on_the_command_line(tmp_path / "run", changed)
    image = torch.randint(0, 255, (1, 70, 50), dtype=torch.uint8)
    answer = opsin.load(tmp_path / "run").predict(image, score_threshold=0.0, limit=5)
    assert len(answer["instances"]) == 5
    for one in answer["instances"]:
        x1, y1, x2, y2 = one["box"]
        assert 0 <= x1 < x2 <= 50 and 0 <= y1 < y2 <= 70


def _thin_on_the_command_line(folder: Path, wanted: dict[str, float]) -> None:
    """`opsin eval --truncated-svd` prints what Python gives, and what the thin layers of 2 values save by hand."""
    built: Any = read_model(folder).build()
    channels = built.backbone.channels[0]
    asked = ("eval", str(folder), "--split", "test", "--truncated-svd", "2,2")
    result = CliRunner().invoke(cli.app_for(asked), [*asked, "--json"])
    assert result.exit_code == 0, result.exception
    said = json.loads(result.stdout)
    assert said["metrics"] == pytest.approx(wanted, abs=1e-5) and said["ranks"] == [2, 2]
    whole, thin = 9 * channels * 16 + 16 * 16, 2 * (9 * channels + 16) + 2 * (16 + 16)
    assert said["macs"] == [2000 * whole, 2000 * thin]
    before, after = said["parameters"]
    assert before - after == whole - thin
    assert said["speedup"] == said["seconds"][0] / said["seconds"][1] > 0
    text = CliRunner().invoke(cli.app_for(asked), list(asked)).stdout
    assert f"parameters     {before:,} -> {after:,}" in text and "map_50" in text
    for ranks, message in (("2", "takes two ranks"), ("2,no", "takes two ranks"), ("2,99", "rank")):
        error = CliRunner().invoke(cli.app_for(asked), [*asked[:-1], ranks]).exception
        assert isinstance(error, InputError) and message in str(error)


def test_other_networks_have_no_layers_to_thin(tmp_path: Path) -> None:
    opsin.train("lenet5_digits", {"train.max_steps": 1, "data.limit": 60}, out=tmp_path / "run", say=lambda line: None)
    with pytest.raises(InputError, match=r"truncated_svd is an option of detect, and .*lenet5 is of classify"):
        evaluate_thinned(tmp_path / "run", (2, 2))
