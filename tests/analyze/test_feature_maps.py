"""Recorded layers: exact values, in the graph, and the network as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opsin import create_model
from opsin.analyze.feature_maps import as_grey, evaluating, feature_maps, grid, most_active, recorded, stage_names
from opsin.errors import InputError


class Inside(nn.Module):
    """Writes into what its layers gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.relu(self.conv(x)))


def test_a_stage_is_what_features_says() -> None:
    model = create_model("resnet20").eval()
    images = torch.randn(2, 3, 32, 32)
    maps = feature_maps(model, images)
    assert list(maps) == ["stages.0", "stages.1", "stages.2"]
    with torch.no_grad():
        for got, expected in zip(maps.values(), model.features(images), strict=True):  # type: ignore[operator]
            torch.testing.assert_close(got, expected)


def test_what_is_written_in_place_later_does_not_change_a_map() -> None:
    model, images = Inside(), torch.randn(3, 1, 5, 5)
    maps = feature_maps(model, images, ["conv", "relu"])
    expected = model.conv(images).detach()
    torch.testing.assert_close(maps["conv"], expected)
    torch.testing.assert_close(maps["relu"], expected.relu())


def test_gradients_reach_a_recorded_layer() -> None:
    model, images = Inside().eval(), torch.randn(1, 1, 5, 5)
    with recorded(model, ["conv"]) as outputs:
        total = model(images).sum()
        (gradient,) = torch.autograd.grad(total, outputs["conv"])
    torch.testing.assert_close(gradient, (outputs["conv"] > 0).float() / (1 + model.norm.eps) ** 0.5)


def test_vectors_and_sequences_are_maps_too() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(16, 5), nn.Flatten(), nn.Linear(15, 7))
    maps = feature_maps(model, torch.randn(2, 3, 4, 4), ["1", "3"])
    assert maps["1"].shape == (2, 5, 3, 1) and maps["3"].shape == (2, 7, 1, 1)


def test_the_network_stays_as_it_was() -> None:
    model = Inside().train()
    model.norm.eval()
    mean = model.norm.running_mean
    before = [m.training for m in model.modules()]
    assert isinstance(mean, Tensor)
    kept = mean.clone()
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        assert not model.training
        raise RuntimeError("stop")
    feature_maps(model, torch.randn(2, 1, 5, 5), ["norm"])
    assert [m.training for m in model.modules()] == before
    torch.testing.assert_close(model.norm.running_mean, kept)
    assert not model.conv._forward_hooks


def test_unknown_layers_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown layer 'stages.8'; did you mean stages\.\d"):
        feature_maps(create_model("lenet5"), torch.zeros(1, 1, 32, 32), ["stages.8"])
    with pytest.raises(InputError, match="has no stages; name the layers"):
        stage_names(Inside())
    skipping = nn.ModuleDict({"used": nn.Identity(), "unused": nn.Identity()})
    skipping.forward = lambda x: skipping["used"](x)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="layer unused did not run"):
        feature_maps(skipping, torch.zeros(1, 1, 2, 2), ["unused"])


def test_a_layer_of_several_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    model = nn.Sequential(Two())
    with pytest.raises(InputError, match="layer 0 gives a tuple"):
        feature_maps(model, torch.zeros(1, 1, 2, 2), ["0"])


def test_images_of_maps() -> None:
    maps = torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]], [[0.0, 0.0]], [[-1.0, 1.0]], [[-2.0, -2.0]]])
    assert most_active(maps, 9) == [1, 4, 3, 0]  # ties keep their order; what is all zero is left out
    assert most_active(maps, 1) == [1]
    assert as_grey(maps[1]).tolist() == [[[0, 255]]]
    assert as_grey(maps[2]).tolist() == [[[0, 0]]]
    assert as_grey(maps[3]).tolist() == [[[0, 255]]]
    sheet = grid(maps, columns=2)
    assert sheet.shape == (1, 5, 5) and sheet.dtype == torch.uint8
    assert sheet[0].tolist() == [
        [0, 255, 255, 0, 255],
        [255] * 5,
        [0, 0, 255, 0, 255],
        [255] * 5,
        [0, 0, 255, 255, 255],
    ]
