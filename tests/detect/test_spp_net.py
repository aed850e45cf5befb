"""SPP-Net: counts, windows on maps by hand, the pyramid of each window, and what is trained at which stage."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from opsin import registry
from opsin.detect.detector import Outputs
from opsin.detect.rcnn import RCNN
from opsin.detect.regions import Regions
from opsin.detect.spp_net import PyramidNetwork, SPPNet, first_centre, window_cells
from opsin.detect.spp_net_training import WarpedRegions, train_network
from opsin.engine import train as engine
from opsin.engine.recipe import load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.stages import read_records, run_stages
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.nn.pooling import SpatialPyramidPooling
from opsin.structures import Instances

SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small", "backbone_options": {"width": 0.35}, "hidden_features": 8}


def small(**options: Any) -> SPPNet:
    torch.manual_seed(0)
    return SPPNet(**{"num_classes": 3, "scales": [96], "windows": 16, "context": 4, **SMALL, **options}).eval()


def images(batch: int = 1, height: int = 96, width: int = 128) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def one_region(box: list[float]) -> Regions:
    return Regions(torch.tensor([box]), torch.tensor([0]))


@pytest.mark.parametrize("name", ["spp_net", "zfnet_spp"])
def test_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == registry.find_model(name).published.params


def test_network_takes_any_size() -> None:
    network = PyramidNetwork(num_classes=5, **SMALL).eval()
    assert [tuple(network(images(2, *size)).shape) for size in ((64, 64), (97, 180))] == [(2, 5), (2, 5)]
    channels = network.channels[-1]
    assert network.head[1].in_features == 50 * channels  # type: ignore[index]
    with pytest.raises(InputError, match="yolov3_tiny is no classification network"):
        PyramidNetwork(backbone="yolov3_tiny")


# Windows on maps


def test_window_cells_by_hand() -> None:
    """Appendix A, x' = floor(x / S) + 1 and ceil(x / S) - 1, for S = 16 and cells centred on pixels 0, 16, 32, ..."""
    windows = torch.tensor(
        [
            [20.0, 20.0, 100.0, 70.0],  # the cells at 32 .. 96 and 32 .. 64
            [32.0, 16.0, 96.0, 48.0],  # those on its border lie outside
            [17.0, 17.0, 27.0, 29.0],  # none inside; its middle, 22 and 23, is nearest to 16
            [-50.0, 100.0, 5.0, 500.0],  # cut at the map
        ]
    )
    cells = window_cells(windows, (10, 8), 16, 0.0)
    assert cells.tolist() == [[2, 2, 6, 4], [3, 2, 5, 2], [1, 1, 1, 1], [0, 7, 0, 9]]


def test_window_takes_the_cells_whose_centres_it_holds() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, 2, generator=generator) * torch.tensor([200.0, 160.0])
    windows = torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 20], dim=1)
    cells = window_cells(windows, (11, 14), 16, 20.5)
    for axis, count in ((0, 14), (1, 11)):
        centres = 20.5 + 16 * torch.arange(count)
        for window, found in zip(windows, cells, strict=True):
            inside = ((centres > window[axis]) & (centres < window[axis + 2])).nonzero()[:, 0]
            if len(inside):
                assert found[[axis, axis + 2]].tolist() == [inside[0], inside[-1]]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("zfnet", 0.5 + 2 + 2 * 1 + 4 * 2 + 8 * 1),  # 7x7 with padding 1; pooling, 5x5 and pooling without
        ("alexnet_2012", 0.5 + 5 + 4 * 1 + 8 * 1),  # 11x11, and two poolings of 3x3
        ("vgg16", 0.5 + 0.5 * (1 + 2 + 4 + 8)),  # four poolings of 2x2
        ("resnet18", 0.5),  # every kernel is padded by half of it
        ("densenet121", 0.5 + 0.5 * (4 + 8 + 16)),  # three average poolings of 2x2
    ],
)
def test_first_centre_by_hand(name: str, first: float) -> None:
    with torch.device("meta"):
        assert first_centre(registry.create_model(name)) == first  # type: ignore


def test_region_is_pooled_as_a_pyramid_of_its_part_of_the_map() -> None:
    model = small(scales=[96, 192])
    outputs = model(images(2))
    assert set(outputs) == {"map_96", "map_192", "proposals", "counts", "size"}
    boxes = torch.tensor([[0.0, 0, 128, 96], [20, 30, 90, 80], [70, 10, 110, 60]])
    regions = Regions(boxes, torch.tensor([1, 0, 1]))
    pooled = model.pool(outputs, regions)
    pyramid = SpatialPyramidPooling((6, 3, 2, 1))
    for box, row, found in zip(boxes, regions.rows, pooled, strict=True):
        left, top, right, bottom = window_cells(2 * box[None], (6, 8), 32, 0.5).int()[0].tolist()
        part = outputs["map_192"][row, :, top : bottom + 1, left : right + 1]  # the scale nearest to 224
        assert torch.equal(found, pyramid(part[None])[0])


def test_a_finer_map_than_the_last() -> None:
    """At a stride of 16 a region of 128x96 has 8x6 cells; the stage behind that map is left out."""
    model, last = small(stride=16, scales=[96]), small()
    assert model.stride == 16 and len(model.network.stages) == len(last.network.stages) - 1
    outputs = model(images())
    assert outputs["map_96"].shape[-2:] == (6, 8)
    found = model.describe(outputs, next(model.parts(outputs)))
    assert torch.allclose(found.logits, model.network(images()), atol=1e-6)
    with pytest.raises(InputError, match="has no map of stride 5, only"):
        small(stride=5)


def test_window_of_the_whole_image_is_the_networks_view_of_it() -> None:
    model = small(scales=[96])
    outputs = model(images())  # without proposals the image is the only one
    found = model.describe(outputs, next(model.parts(outputs)))
    assert torch.allclose(found.logits, model.network(images()), atol=1e-6)
    assert found.features.shape == (1, 8)


@pytest.mark.parametrize(
    ("side", "scale", "sizes"),
    [
        *((side, scale, [224, 180]) for side, scale in ((100, 1200), (233, 480), (160, 688), (20, 1200), (500, 480))),
        *((side, scale, [64]) for side, scale in ((20, 1200), (50, 688), (60, 576), (100, 480))),
    ],  # at 500 pixels, 224 is reached at 112000 / side, 64 at 32000 / side
)
def test_scale_is_that_where_the_area_is_nearest_to_the_largest_size(side: float, scale: int, sizes: list[int]) -> None:
    model = small(scales=[480, 576, 688, 864, 1200], sizes=sizes)
    channels = model.network.channels[-1]
    maps: Outputs = {f"map_{s}": torch.full((1, channels, 9, 9), float(s)) for s in model.scales}
    outputs = {**maps, "size": torch.tensor([500, 700])}
    assert model.pool(outputs, one_region([0.0, 0, side, side])).unique().tolist() == [scale]


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="scales and sizes each need"):
        small(scales=[])
    with pytest.raises(InputError, match="each of scales must be a whole number"):
        small(scales=[0.5])


# Training


def loss_of(model: RCNN) -> Tensor:
    proposals = torch.tensor([[20.0, 20, 60, 60], [22, 20, 60, 60], [40, 40, 80, 80], [0, 0, 30, 30]])
    target = Instances(torch.tensor([[20.0, 20, 60, 60]]), torch.tensor([2]))
    return model.loss(model(images(), [proposals]), [target])["class"]


def test_convolutions_are_not_fine_tuned() -> None:
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    loss_of(model).backward()
    trained = {name.split(".")[0] for name, p in model.network.named_parameters() if p.grad is not None}
    assert trained == {"head"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())


def test_classification_network_trains_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small(sizes=[48, 64])
    model = WarpedRegions(whole)
    assert [*model.state_dict()] == [*whole.state_dict()]
    seen, features = [], model.network.features
    monkeypatch.setattr(model.network, "features", lambda x: seen.append(tuple(x.shape[2:])) or features(x))
    model.train()
    for seed in range(8):
        torch.manual_seed(seed)
        loss_of(model).backward()
    assert set(seen) == {(48, 48), (64, 64)}
    trained = {name.split(".")[0] for name, p in model.network.named_parameters() if p.grad is not None}
    assert trained == {"stem", "stages", "head"}
    assert all(mine is own for mine, own in zip(model.parameters(), whole.parameters(), strict=True))
    assert model.network.stages.training and not whole.train().network.stages.training


def test_given_weights_are_not_trained_again() -> None:
    model = small()
    work: Any = SimpleNamespace(
        task=SimpleNamespace(
            model=model, recipe=load_recipe({"task": "detect", "model": {"name": "spp_net"}, "data": {"source": ""}})
        ),
        say=print,
        fit=None,
    )
    work.task.recipe.train.init = "runs/classifier"
    kept = train_network(work)
    assert all(torch.equal(kept[f"network.{name}"], tensor) for name, tensor in model.network.state_dict().items())


def test_classifier_gives_its_weights() -> None:
    classifier = PyramidNetwork(num_classes=7, **SMALL)
    model = small()
    fresh = model.initialize_from(classifier.state_dict())
    assert torch.equal(model.network.head[1].weight, classifier.head[1].weight)  # type: ignore[index]
    assert [name for name in fresh if name.startswith("network.")] == ["network.head.7.weight", "network.head.7.bias"]


def fit(task: Task, splits: Any, folder: RunFolder, say: Any) -> None:
    engine._fit(task, splits, folder, say, resume=folder.last.exists())
    engine._load_last(task, folder)


def test_all_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path))
    options = {**SMALL, "scales": [96], "sizes": [32, 48], "context": 4, "windows": 32}
    proposals = {"proposals": "sliding_windows", "proposal_options": {"limit": 40}}
    train = {"epochs": 1, "batch_size": 4, "tensorboard": False, "accelerator": "cpu"}
    data = {"source": "scenes:12", "size": 96}
    recipe = load_recipe(
        {"task": "detect", "model": {"name": "spp_net", **options, **proposals}, "data": data, "train": train}
    )
    task, _, splits = engine.prepare(recipe, lambda line: None)
    run = RunFolder(tmp_path / "run")
    model: Any = task.model
    run_stages(task.stages(), task, splits, run, fit, lambda line: None)
    names = ["proposals", "network", "finetune", "features", "svm", "boxes"]
    assert [record.name for record in read_records(run.path)] == names
    one, two = (load_file(run.path / "stages" / name / "result.safetensors") for name in ("network", "finetune"))
    changed = {key.split(".")[1] for key in one if not torch.equal(one[key], two[key])}
    assert changed == {"head"}
    assert model.training is False and task.model is model
    assert model.has_svms
    found = model.eval().decode(model(torch.zeros(1, 3, 96, 96), [torch.tensor([[0.0, 0, 50, 50]])]))
    assert len(found) == 1
