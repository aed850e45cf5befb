"""Grad-CAM equals CAM where that exists, and a hand-worked case; the right layer is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from opsin import create_model
from opsin.analyze.gradcam import grad_cam
from opsin.errors import InputError


def test_equals_cam_with_global_pooling_and_one_linear_layer() -> None:
    model, images = create_model("resnet20").eval(), torch.randn(3, 3, 40, 32)
    found = grad_cam(model, images, [1, 5, 9])
    assert found.layer == "stages.2.2.relu" and found.maps.shape == (3, 10, 8)
    maps = model.features(images)[-1]  # type: ignore[operator]
    weight = model.head[-1].weight  # type: ignore[index, union-attr]
    for place, k in enumerate([1, 5, 9]):
        cam = torch.einsum("c,chw->hw", weight[k], maps[place]).relu() / 80  # 80 = h w
        torch.testing.assert_close(found.maps[place], cam.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.logits, model(images)[torch.arange(3), torch.tensor([1, 5, 9])].detach())


def test_by_hand() -> None:
    """Two maps of 1x2, weighed 3 and -1 after a mean: evidence relu((3 A - B) / 2)."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2)[..., None, None])  # type: ignore[operator]
        model[3].weight.copy_(torch.tensor([[3.0, -1.0]]))  # type: ignore[operator]
    found = grad_cam(model, torch.tensor([[[[2.0, 1.0]], [[1.0, 7.0]]]]))
    assert found.layer == "0" and found.maps.tolist() == [[[2.5, 0.0]]]
    assert found.enlarged(1, 2).tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize(
    ("name", "layer"),
    [("lenet5", "stages.0.2"), ("vgg11", "stages.4.2.1"), ("alexnet", "stages.1.6"), ("resnet18", "stages.3.1.relu")],
)
def test_finds_the_last_layer_with_places(name: str, layer: str) -> None:
    size = {"lenet5": (1, 32, 32), "alexnet": (3, 95, 95)}.get(name, (3, 64, 64))
    assert grad_cam(create_model(name), torch.randn(1, *size)).layer == layer


class Auxiliary(nn.Module):
    """A main head, and a side head that runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.side = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        logits = self.head(x.mean(dim=(2, 3)))
        return {"logits": logits, "auxiliary": self.head(self.side(x).mean(dim=(2, 3)))}


def test_auxiliary_heads_are_passed_over() -> None:
    found = grad_cam(Auxiliary(), torch.randn(2, 3, 9, 9))
    assert found.layer == "body" and found.maps.shape == (2, 7, 7)


def test_functions_between_layers_count() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(1, 2, 3))
            self.head = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(x).relu_().mean(dim=(2, 3)))

    found = grad_cam(Functional(), torch.randn(1, 1, 8, 8))
    assert found.layer == "block.0"


def test_frozen_networks_have_evidence_and_stay_as_they_are() -> None:
    model = create_model("resnet20").requires_grad_(False).train()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found = grad_cam(model, images)
    assert model.training and not found.maps.requires_grad and not images.requires_grad
    assert found.maps.min() >= 0


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m, x: grad_cam(m, x, [10]), "classes must be 0 to 9, got 10"),
        (lambda m, x: grad_cam(m, x, [1, 2]), "1 images need as many classes"),
        (lambda m, x: grad_cam(m, x, layer="stages.9"), "unknown layer 'stages.9'; did you mean"),
        (lambda m, x: grad_cam(m, x, layer="head.1"), "layer head.1 has feature maps|layer head.1"),
    ],
)
def test_wrong_calls(ask: Callable[[nn.Module, Tensor], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(create_model("resnet20"), torch.randn(1, 3, 32, 32))


def test_what_is_no_classifier_or_has_no_places() -> None:
    with pytest.raises(InputError, match="needs a classifier"):
        grad_cam(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.randn(1, 1, 4, 4))
    with pytest.raises(InputError, match="no layer has feature maps"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.randn(1, 1, 4, 4))


def test_inference_mode_makes_no_difference():
    torch.manual_seed(0)
    model, images = create_model("lenet5", num_classes=3, in_channels=1), torch.rand(2, 1, 32, 32)
    expected = grad_cam(model, images)
    with torch.inference_mode():
        made = create_model("lenet5", num_classes=3, in_channels=1)  # its parameters know no gradients
        made.load_state_dict(model.state_dict())
        for network, given in ((model, images), (model, images.clone()), (made, images.clone())):
            found = grad_cam(network, given)
            torch.testing.assert_close(found.maps, expected.maps)
            assert found.classes.tolist() == expected.classes.tolist()
