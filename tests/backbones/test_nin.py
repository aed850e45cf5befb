from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.nin_cifar import nin_cifar10 as pytorchcv_nin_cifar10
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import nin
from opsin.nn.counting import count_macs, count_parameters


def _pool_as_the_author(reference: nn.Module) -> None:
    """pytorchcv pads all around by one; the author's frameworks cut the window at the lower and right border."""
    stages = reference.features
    stages.stage2.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)  # type: ignore[union-attr]
    stages.stage3.pool3 = nn.AvgPool2d(3, 2, ceil_mode=True)  # type: ignore[union-attr]
    reference.output.final_pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[union-attr]


def test_cifar_net_equals_pytorchcv_but_for_the_border(assert_equal: Callable[..., None]) -> None:
    assert_equal(nin.nin_cifar10, pytorchcv_nin_cifar10, [(32, 32), (41, 28)], _pool_as_the_author)


def test_imagenet_net_layer_by_layer() -> None:
    """As the author's prototxt has it, Caffe's poolings of 54, 27 and 13 rows to 27, 13 and 6."""
    model = nin.nin(num_classes=20).eval()
    tensors = iter(list(model.state_dict().values()))
    x = torch.randn(1, 3, 224, 224)

    def conv(x: Tensor, stride: int = 1, border: int = 0) -> Tensor:
        return F.conv2d(x, next(tensors), next(tensors), stride, border).clamp(min=0)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    with torch.no_grad():
        y = conv(conv(conv(x, stride=4)))
        y = conv(conv(conv(pool(y), border=2)))
        y = conv(conv(conv(pool(y), border=1)))
        y = conv(conv(conv(pool(y), border=1)))
        assert y.shape == (1, 20, 6, 6) and next(tensors, None) is None
        torch.testing.assert_close(model(x), y.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_counts_at_caffes_other_size() -> None:
    with torch.device("meta"):
        assert count_macs(nin.nin(), (3, 227, 227)) == 1_105_996_320


def test_logits_are_means_of_class_maps() -> None:
    model = nin.nin_cifar10().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = model.head[:2](model.features(images)[-1])  # type: ignore[index]
        torch.testing.assert_close(model(images), maps.mean(dim=(2, 3)))
    assert maps.shape == (2, 10, 8, 8)


def test_without_mlp_only_the_convolutions_are_left() -> None:
    with torch.device("meta"):
        model = nin.nin(mlp=False)
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0]) for m in convolutions] == [
        *((96, 11), (256, 5), (384, 3), (1024, 3)),
        (1000, 1),
    ]
    layers = (3 * 121 + 1) * 96 + (96 * 25 + 1) * 256 + (256 * 9 + 1) * 384 + (384 * 9 + 1) * 1024 + 1025 * 1000
    assert count_parameters(model) == layers


@pytest.mark.parametrize("options", [{"norm": "batch"}, {"dropout": 0.0}, {"mlp": False}])
def test_every_switch_runs(options: dict[str, Any]) -> None:
    model = registry.create_model("nin_cifar100", **options)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 100)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == ("norm" in options)


def test_dropout_stands_where_the_author_has_it() -> None:
    with torch.device("meta"):
        places = [
            [any(isinstance(m, nn.Dropout) for m in stage) for stage in build(dropout=0.3).stages]  # type: ignore[union-attr]
            for build in (nin.nin, nin.nin_cifar10)
        ]
    assert places == [[False, False, False, True], [False, True, True]]
