"""What every registered network that finds points must keep, whatever its family."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin import registry
from opsin.errors import InputError
from opsin.landmark.localizer import Localizer
from opsin.landmark.predict import LandmarkPredictor
from opsin.nn.counting import count_parameters

NAMES = registry.list_models(task="landmark")
# Each structure that there is, small, and an input for it.
SMALL: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "wing_cnn6": ({"width": 4}, (64, 64)),
    "wing_cnn7": ({"width": 4}, (128, 128)),
    "point_regression": ({"backbone": "mobilenet_v2", "backbone_options": {"width": 0.25}}, (64, 96)),
    "heatmap_fpn": ({"backbone": "mobilenet_v2", "backbone_options": {"width": 0.25}, "channels": 8}, (64, 96)),
    "hourglass8": ({"stacks": 2, "channels": 16, "depth": 2}, (48, 64)),
    "hourglass_small": ({"channels": 16, "depth": 2}, (48, 64)),
}
POINTS, CHANNELS = 5, 2


@functools.cache
def small(name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    model = registry.create_model(name, num_points=POINTS, in_channels=CHANNELS, **SMALL[name][0], **more)
    assert isinstance(model, Localizer)
    return model.eval()


def fresh(name: str) -> Any:
    """One of its own, to be changed."""
    return copy.deepcopy(small(name))


def images(name: str, batch: int = 2) -> Tensor:
    return torch.randn(batch, CHANNELS, *SMALL[name][1], generator=torch.Generator().manual_seed(1))


def targets(name: str, batch: int = 2) -> dict[str, Tensor]:
    height, width = SMALL[name][1]
    points = torch.rand(batch, POINTS, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([width, height])
    points[0, 0] = torch.nan
    return {"points": points, "visible": torch.ones(batch, POINTS, dtype=torch.bool)}


def test_all_are_here() -> None:
    assert set(NAMES) == set(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_published(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(registry.create_model(name)) == registry.find_model(name).published.params


@pytest.mark.parametrize("name", NAMES)
def test_points_are_in_pixels_and_a_batch_is_its_images(name: str) -> None:
    model = small(name)
    with torch.no_grad():
        both = model.decode(model(images(name)))
        each = [model.decode(model(images(name)[k : k + 1])) for k in range(2)]
    assert both.points.shape == (2, POINTS, 2) and both.spread.shape == (2, POINTS) and (both.spread > 0).all()
    assert torch.allclose(both.points, torch.cat([one.points for one in each]), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_and_unknown_points_give_none(name: str) -> None:
    model = small(name)
    losses = model.loss(model(images(name)), targets(name))
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None]
    model.zero_grad()
    nothing = {"points": torch.full((2, POINTS, 2), torch.nan)}
    loss: Any = model.loss(model(images(name)), nothing)["loss"]
    assert float(loss) == 0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    model.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_each_is_that_of_it_alone(name: str) -> None:
    model = small(name)
    with torch.no_grad():
        both = model.loss_of_each(model(images(name)), targets(name))
        for k in range(2):
            one = {key: value[k : k + 1] for key, value in targets(name).items()}
            assert torch.allclose(both[k : k + 1], model.loss_of_each(model(images(name)[k : k + 1]), one), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = fresh(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = last = None
    for _ in range(8):
        loss = model.loss(model(images(name)), targets(name))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = loss.item() if first is None else first, loss.item()
    assert first is not None and last is not None and last < 0.9 * first


@pytest.mark.parametrize("name", NAMES)
def test_it_exports(name: str) -> None:
    model = small(name)
    program = torch.export.export(model, (images(name),))
    with torch.no_grad():
        one, two = program.module()(images(name)), model(images(name))
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in two)


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip_and_expected_errors(name: str) -> None:
    model, other = fresh(name), fresh(name)
    with torch.no_grad():
        next(iter(other.parameters())).zero_()
    other.load_state_dict(model.state_dict())
    model.expected_error = torch.arange(1.0, POINTS + 1)
    other.restore_state(model.saved_state())
    assert torch.equal(other.expected_error, model.expected_error)
    model.expected_error = None
    with pytest.raises(ValueError, match="2 numbers for 5 points"):
        other.restore_state({"expected_error": [1.0, 2.0]})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "heatmap_fpn" and not name.startswith("hourglass")])
def test_regression_begins_with_the_mean_shape(name: str) -> None:
    model = fresh(name)
    shape = torch.rand(POINTS, 2)
    model.start_at(shape)
    height, width = SMALL[name][1]
    with torch.no_grad():
        found = model.decode(model(images(name))).points
    assert torch.allclose(found, shape * torch.tensor([width, height]), atol=0.05 * width)


@pytest.mark.parametrize("name", ["hourglass_small", "heatmap_fpn"])
def test_maps_that_are_right_are_read_rightly(name: str) -> None:
    from opsin.ops.heatmaps import draw_gaussians

    height, width = SMALL[name][1]
    wanted = torch.tensor([[[20.0, 16.0], [31.0, 30.5], [12.0, 22.0], [40.0, 18.0], [25.0, 25.0]]])
    for learns in ("heatmaps", "points"):
        model = small(name, learns=learns)
        maps = draw_gaussians(wanted / 4, (height // 4, width // 4), model.sigma)
        maps = maps if learns == "heatmaps" else (maps + 1e-12).log()
        outputs = {"heatmaps": maps[:, None]}
        assert torch.allclose(model.decode(outputs).points, wanted, atol=0.8)
        assert model.loss_of_each(outputs, {"points": wanted}) < 0.35  # of 40 and more where the maps are flat
        assert model.loss_of_each({"heatmaps": torch.zeros_like(maps)[:, None]}, {"points": wanted}) > 1.5


@pytest.mark.parametrize(
    ("name", "size"),
    [("wing_cnn6", (32, 32)), ("wing_cnn7", (64, 128)), ("hourglass_small", (40, 48)), ("heatmap_fpn", (16, 64))],
)
def test_sizes_that_cannot_be_are_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"images of|multiples of"):
        small(name)(torch.zeros(1, CHANNELS, *size))


def test_the_predictor_knows_no_other_kind() -> None:
    assert LandmarkPredictor.labels_of({"points": ["a", "b"]}) == ["a", "b"]
