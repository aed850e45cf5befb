"""R-CNN: counts, the warp pixel by pixel, the stages' answers worked by hand, and a training through all of them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.ops import box_iou, nms

from opsin import registry
from opsin.detect import rcnn_training as training
from opsin.detect.rcnn import RCNN, Description, warp
from opsin.detect.rcnn_timing import time_parts
from opsin.detect.regions import Regions
from opsin.engine import train as engine
from opsin.engine.recipe import load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.stages import read_records, run_stages
from opsin.engine.task import Task
from opsin.errors import InputError, JobError
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances


def small(**options: Any) -> RCNN:
    torch.manual_seed(0)
    given = {"num_classes": 3, "backbone": "lenet5", "side": 32, "context": 4, "windows": 16}
    return RCNN(**{**given, **options}).eval()


def make_images(batch: int = 1, height: int = 48, width: int = 64) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


@pytest.mark.parametrize("name", ["rcnn", "rcnn_vgg16"])
def test_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == registry.find_model(name).published.params


def test_region_costs_what_the_authors_network_does() -> None:
    with torch.device("meta"):
        model = RCNN()
    assert count_macs(model.network, (3, 227, 227)) == 720_396_832  # their pascal_finetune_deploy.prototxt
    # An answer: 2,000 regions through the network, and four regressions of each class from the last pooling.
    assert count_macs(model, (3, 500, 500)) == 2000 * (720_396_832 + 20 * 4 * 256 * 6 * 6)


# The network on regions


def plain_warp(image: Tensor, box: list[float], side: int, context: int) -> Tensor:
    """One pixel after the other: where it lies in the image, and what is interpolated there."""
    channels, height, width = image.shape
    out = torch.zeros(channels, side, side)
    inner = side - 2 * context
    for row in range(side):
        for column in range(side):
            y = box[1] + (row + 0.5 - context) / inner * (box[3] - box[1]) - 0.5
            x = box[0] + (column + 0.5 - context) / inner * (box[2] - box[0]) - 0.5
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
            top, left = min(int(y), height - 1), min(int(x), width - 1)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = image[:, top, left] * (1 - x + left) + image[:, top, right] * (x - left)
            below = image[:, bottom, left] * (1 - x + left) + image[:, bottom, right] * (x - left)
            out[:, row, column] = above * (1 - y + top) + below * (y - top)
    return out


def test_warp_pixel_by_pixel() -> None:
    images = make_images(2)
    boxes = [[10.0, 5.0, 30.5, 44.0], [0.0, 0.0, 64.0, 48.0], [50.0, 40.0, 70.0, 60.0]]  # the last reaches out of it
    regions = Regions(torch.tensor(boxes), torch.tensor([1, 0, 1]))
    warped = warp(images, regions, 21, 3)
    for box, row, found in zip(boxes, regions.rows.tolist(), warped, strict=True):
        assert torch.allclose(found, plain_warp(images[row], box, 21, 3), atol=1e-4)
    assert not warped[2][:, :, -3:].any()  # the mean of normalised inputs, where there is no one


def test_warp_of_the_middle_shows_the_context() -> None:
    image = torch.zeros(1, 1, 100, 100)
    image[:, :, 30:60, 20:80] = 1
    square = warp(image, Regions(torch.tensor([[20.0, 30.0, 80.0, 60.0]]), torch.tensor([0])), 100, 20)[0, 0]
    assert square[22:78, 22:78].eq(1).all()
    assert not square[:18].any()
    assert not square[:, 82:].any()


def test_description_is_the_networks() -> None:
    model = small(backbone="alexnet", backbone_options={"hidden_features": 8}, side=64)
    images, boxes = make_images(), [torch.tensor([[4.0, 4.0, 40.0, 30.0], [0.0, 0.0, 20.0, 20.0]])]
    outputs = model(images, boxes)
    found = model.describe(outputs, next(model.parts(outputs)))
    warped = warp(images, Regions(boxes[0], torch.zeros(2, dtype=torch.int64)), 64, 4)
    assert torch.allclose(found.logits, model.network(warped))
    assert found.pooled.shape == (2, 256 * 36)
    assert found.features.shape == (2, 8)
    assert torch.allclose(found.features @ model.network.head[-1].weight.T + model.network.head[-1].bias, found.logits)  # type: ignore


def test_features_are_pooled_where_there_is_no_hidden_layer() -> None:
    model = small(backbone="resnet18", side=64)
    outputs = model(make_images(), [torch.tensor([[4.0, 4.0, 40.0, 30.0]])])
    found = model.describe(outputs, next(model.parts(outputs)))
    assert found.features.shape == (1, 512)
    assert torch.equal(found.pooled, found.features)


def test_chunks_change_nothing() -> None:
    boxes = [torch.rand(7, 4) * 20 + torch.tensor([0.0, 0, 20, 20]), torch.zeros(0, 4), torch.tensor([[0.0, 0, 9, 9]])]
    whole, parts = small(), small(chunk=3)
    expected, found = (model.score_regions(model(make_images(3), boxes)) for model in (whole, parts))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, found, strict=True))


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="context=16 on both sides leaves nothing of side=32"):
        small(context=16)
    with pytest.raises(InputError, match="the head of nin does not end in linear layers"):
        small(backbone="nin")
    with pytest.raises(InputError, match="yolov3_tiny is no classification network"):
        small(backbone="yolov3_tiny")
    with pytest.raises(InputError, match="unknown precision 'float8'"):
        small(precision="float8")
    with pytest.raises(InputError, match="2 images need as many sets of proposals, got 1"):
        small()(make_images(2), [torch.zeros(0, 4)])


def test_weights_of_a_classification_network_go_in() -> None:
    model, trained = small(), registry.create_model("lenet5", in_channels=3)
    fresh = model.initialize_from(trained.state_dict())
    assert torch.equal(model.network.stem[0].weight, trained.stem[0].weight)  # type: ignore
    assert [name for name in fresh if name.startswith("network.")] == ["network.head.3.weight", "network.head.3.bias"]


# The loss


def test_fine_tuning_takes_one_positive_to_three_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images share 16 windows: of each 2 around the object and 6 that overlap it by less than a half."""
    model, seen = small(), []
    object_ = torch.tensor([10.0, 10.0, 30.0, 30.0])
    near = object_ + torch.arange(9)[:, None] / 4
    far = torch.tensor([40.0, 0.0, 60.0, 20.0]) + torch.arange(20)[:, None] / 10
    describe = model.describe
    monkeypatch.setattr(model, "describe", lambda outputs, regions: seen.append(regions) or describe(outputs, regions))
    outputs = model(make_images(2), [torch.cat([near, far])] * 2)
    losses = model.loss(outputs, [truth([object_.tolist()], [1])] * 2)
    (regions,) = seen
    assert regions.rows.tolist() == [0] * 8 + [1] * 8
    assert (regions.boxes[:, 0] < 13).tolist() == ([True] * 2 + [False] * 6) * 2
    logits = model.network(warp(outputs["images"], regions, 32, 4))
    wanted = torch.tensor(([2] * 2 + [0] * 6) * 2)
    assert torch.allclose(losses["class"], torch.nn.functional.cross_entropy(logits, wanted))


@pytest.mark.parametrize(
    ("boxes", "labels", "proposals"),
    [
        ([], [], torch.zeros(0, 4)),  # nothing at all
        ([], [], torch.tensor([[0.0, 0.0, 9.0, 9.0]])),  # all background
        ([[5.0, 5.0, 20.0, 20.0]], [2], torch.zeros(0, 4)),  # no proposals: the truth alone
        ([[0.0, 0.0, 64.0, 48.0]], [-1], torch.tensor([[0.0, 0.0, 9.0, 9.0]])),  # all of it to be ignored
    ],
)
def test_loss_is_finite_whatever_there_is(boxes: list[list[float]], labels: list[int], proposals: Tensor) -> None:
    model = small().train()
    loss = sum(model.loss(model(make_images(), [proposals]), [truth(boxes, labels)]).values())
    assert torch.isfinite(loss)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[union-attr]
    assert model.decode(model(make_images(), [torch.zeros(0, 4)]))[0].boxes.shape == (0, 4)


# Evaluation


def test_answers_by_hand() -> None:
    """Two SVMs that read one feature each, and a regression that moves boxes of class 1 a tenth to the right."""
    model = small(num_classes=2)
    proposals = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [30, 30, 50, 40]])
    described = Description(
        pooled=torch.zeros(3, 120),
        features=torch.tensor([[3.0, -3], [1, -3], [-3, 2]]) @ torch.eye(2, 84),
        logits=torch.zeros(3, 3),
    )
    assert model.classify(described)[0].allclose(torch.full((3, 2), 1 / 3))  # the softmax, before there are SVMs
    model.has_svms.fill_(True)
    model.svm_weights.copy_(torch.eye(2, 84))
    model.box_biases[1] = torch.tensor([0.1, 0, math.log(2), 0])
    scores, offsets = model.classify(described)
    assert scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))])
    outputs = model(make_images(), [proposals])
    (found,) = model.choose(outputs, scores, offsets, model.selection)
    # The second overlaps the first by 8 / 12, more than 0.3, and goes; so does class 1 of the first two.
    kept = found[found.scores > 0.5]  # type: ignore
    assert kept.labels.tolist() == [0, 1]  # type: ignore
    assert kept.boxes[0].tolist() == [0, 0, 10, 10]
    assert kept.boxes[1].tolist() == pytest.approx([22, 30, 62, 40])  # its middle from 40 to 42, twice as wide


def test_no_two_of_a_class_overlap_by_more_than_the_threshold() -> None:
    model = small()
    boxes = torch.rand(200, 4, generator=torch.Generator().manual_seed(2)) * 20
    boxes[:, 2:] += boxes[:, :2] + 5
    (found,) = model.decode(model(make_images(), [boxes]))
    scores, _ = model.score_regions(model(make_images(), [boxes]))
    for label in range(3):
        own = boxes.clamp(max=48)[nms(boxes.clamp(max=48), scores[:, label], 0.3)]
        mine = found.boxes[found.labels == label]
        assert box_iou(mine, mine).triu(1).max() <= 0.3
        assert len(mine) == len(own)


def test_predictions_of_images_with_unequal_proposals() -> None:
    model = small()
    boxes, scores = model.predictions(model(make_images(2), [torch.tensor([[1.0, 1, 9, 9]]), torch.zeros(0, 4)]))
    assert boxes.tolist() == [[[1, 1, 9, 9]], [[0, 0, 0, 0]]]  # nothing has been regressed
    assert scores.shape == (2, 1, 3)
    assert not scores[1].any()


def test_state_is_kept(tmp_path: Path) -> None:
    model, other = small(), small()
    model.has_svms.fill_(True)
    model.svm_weights.normal_()
    other.load_state_dict(model.state_dict())
    outputs = [one(make_images(), [torch.tensor([[1.0, 1, 30, 30]])]) for one in (model, other)]
    assert torch.equal(model.score_regions(outputs[0])[0], other.score_regions(outputs[1])[0])


# The stages


def test_what_the_stages_learn_from_an_image() -> None:
    model = small(num_classes=2)
    objects = truth([[0, 0, 20, 20], [30, 0, 50, 20], [0, 30, 20, 48]], [0, 1, -1])
    proposals = torch.tensor(
        [
            [0.0, 0, 20, 16],  # IoU 0.8 with the first: the regression learns from it
            [0, 0, 20, 10],  # 0.5: nobody's
            [0, 0, 20, 5],  # 0.25: background of its class too
            [31, 0, 51, 20],  # 0.9 with the second
            [1, 31, 19, 47],  # inside the region to ignore
        ]
    )
    made = training._features(model, model(make_images(), [proposals]), objects)
    assert made["labels"].tolist() == [0, 1, -1, -1, -1, -1, -1]
    first, second = made["background"].T.tolist()
    assert first == [False, True, False, False, True, True, False]
    assert second == [True, False, True, True, True, False, False]
    assert made["answers"].tolist() == [0, 1]
    assert made["targets"][0].tolist() == pytest.approx([0, 2 / 16, 0, math.log(20 / 16)])
    assert made["targets"][1].tolist() == pytest.approx([-1 / 20, 0, 0, 0])
    assert made["features"].dtype is made["pooled"].dtype is torch.float16
    outputs = model(make_images(), [proposals])
    described = model.describe(outputs, Regions(proposals, torch.zeros(5, dtype=torch.int64)))
    assert torch.allclose(made["features"][2:].float(), described.features, atol=1e-2)
    assert torch.allclose(made["pooled"].float(), described.pooled[[0, 3]], atol=1e-2)


def test_image_without_anything_gives_empty_features() -> None:
    model = small(num_classes=2, precision="float32")
    made = training._features(model, model(make_images(), [torch.zeros(0, 4)]), truth([], []))
    shapes = [(0, 84), (0,), (0, 2), (0, 120), (0,), (0, 4)]
    assert [tuple(value.shape) for value in made.values()] == shapes
    assert made["features"].dtype is torch.float32


def fit(task: Task, splits: Any, folder: RunFolder, say: Any) -> None:
    engine._fit(task, splits, folder, say, resume=folder.last.exists())
    engine._load_last(task, folder)


def prepare(monkeypatch: pytest.MonkeyPatch, home: Path, **options: Any) -> tuple[Task, Any]:
    monkeypatch.setenv("OPSIN_HOME", str(home))
    model = {
        "name": "rcnn",
        "backbone": "lenet5",
        "side": 32,
        "context": 4,
        "proposals": "sliding_windows",
        "proposal_options": {"limit": 40},
        **options,
    }
    train = {"epochs": 1, "batch_size": 4, "tensorboard": False, "accelerator": "cpu"}
    recipe = load_recipe(
        {"task": "detect", "model": model, "data": {"source": "scenes:20", "size": 96}, "train": train}
    )
    torch.manual_seed(0)
    task, _, splits = engine.prepare(recipe, lambda line: None)
    return task, splits


def test_all_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Killed while features are written, it goes on with the next shard, to what an unkilled run makes."""
    monkeypatch.setattr(training, "_IMAGES", 4)
    whole, splits = prepare(monkeypatch, tmp_path)
    run_stages(whole.stages(), whole, splits, RunFolder(tmp_path / "whole"), fit, print)
    names = ["proposals", "finetune", "features", "svm", "boxes"]
    assert [record.name for record in read_records(tmp_path / "whole")] == names
    assert whole.model.has_svms
    assert whole.model.svm_weights.any()  # type: ignore
    assert whole.model.box_biases.any()  # type: ignore

    calls, made = 0, training._features

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise JobError("killed")
        return made(*arguments)

    run, (task, splits) = RunFolder(tmp_path / "killed"), prepare(monkeypatch, tmp_path)
    run.path.mkdir()
    monkeypatch.setattr(training, "_features", dies)
    with pytest.raises(JobError, match="killed"):
        run_stages(task.stages(), task, splits, run, fit, print)
    assert len(list((run.path / "stages/features").glob("0*.safetensors"))) == 2
    calls = 10
    task, splits = prepare(monkeypatch, tmp_path)
    said: list[str] = []
    run_stages(task.stages(), task, splits, run, fit, said.append)
    assert calls == 10 + len(splits["train"]) - 8  # no image of the two shards again
    assert "features: 2 of 5 shards were there" in said
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, task.model.state_dict()[name]), name

    times = time_parts(task.model, task.preprocessing, [splits["val"].read(0)], task.predictor.proposer)  # type: ignore[arg-type]
    assert list(times) == ["proposals", "features", "classification", "suppression"]
    assert min(times.values()) > 0
    shard = load_file(run.path / "stages/features/000000.safetensors")
    objects = sum(len(one) for one in splits["train"].kind.instances[:4])
    assert int((shard["labels"] >= 0).sum()) == objects
    assert len(shard["features"]) == 4 * 40 + objects


def test_svms_tell_what_the_features_show(tmp_path: Path) -> None:
    """Features in which a class is one coordinate: the SVMs find it, and the regression the offset of each class."""
    model = small(num_classes=2)
    folder = tmp_path / "features"
    folder.mkdir()
    features = torch.zeros(40, 84)
    features[:10, 0] = features[10:20, 1] = 5
    features[20:, 2] = 5
    labels = torch.tensor([0] * 10 + [1] * 10 + [-1] * 20)
    pooled = torch.zeros(6, 120)
    shard = {
        "features": features,
        "labels": labels,
        "background": torch.stack([labels != 0, labels != 1], dim=1),
        "pooled": pooled,
        "answers": torch.tensor([0, 0, 0, 1, 1, 1]),
        "targets": torch.tensor([[0.1, 0, 0, 0]] * 3 + [[0, 0, 0.2, 0]] * 3),
    }
    save_file(shard, folder / "000000.safetensors")
    work: Any = SimpleNamespace(task=SimpleNamespace(model=model), folder_of=lambda name: folder, say=print)
    svms = training.fit_svms(work)
    model.load_state_dict({**svms, **training.fit_boxes(work)}, strict=False)
    scores, offsets = model.classify(Description(torch.zeros(40, 120), features, torch.zeros(40, 3)))
    assert (scores[:10, 0] > 0.7).all()
    assert (scores[10:20, 1] > 0.7).all()
    assert (scores[20:] < 0.3).all()
    assert offsets[0].flatten().tolist() == pytest.approx([0.1, 0, 0, 0, 0, 0, 0.2, 0])
