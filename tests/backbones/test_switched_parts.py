"""Parts of networks that ablations switch: norms, poolings, strides in the place of poolings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opsin import registry
from opsin.errors import InputError
from opsin.nn.counting import count_parameters


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110"])
def test_a_group_norm_has_the_parameters_of_a_batch_norm_and_does_not_mix_images(name: str) -> None:
    with torch.device("meta"):
        plain, grouped = (registry.create_model(name, norm=norm) for norm in ("bn", "gn"))
    assert count_parameters(plain) == count_parameters(grouped)
    norms = [m for m in grouped.modules() if isinstance(m, nn.GroupNorm)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in grouped.modules())
    assert {(m.num_channels, m.num_groups) for m in norms} == {(16, 8), (32, 16), (64, 32)}


def test_in_training_an_image_of_two_is_as_alone_with_a_group_norm_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    for norm, equal in (("gn", True), ("bn", False)):
        model: Any = registry.create_model("resnet20", norm=norm).train()
        alone = torch.cat([model(x[:1]), model(x[1:])])
        assert torch.allclose(model(x), alone, atol=1e-4) == equal
    wide = registry.create_model("resnet18", norm="gn", zero_init_residual=True)
    assert {m.num_groups for m in wide.modules() if isinstance(m, nn.GroupNorm)} == {32}


def test_poolings_of_the_last_map() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 40, 24)
    for pooling, cells in (("average", 1), ("grid", 16), ("pyramid", 21)):
        model: Any = registry.create_model("resnet20", pooling=pooling).eval()
        last = model.features(x)[-1]
        if pooling == "pyramid":
            parts = torch.cat([F.adaptive_max_pool2d(last, n).flatten(1) for n in (4, 2, 1)], 1)
        else:
            parts = F.adaptive_avg_pool2d(last, 4 if pooling == "grid" else 1).flatten(1)
        assert parts.shape == (2, 64 * cells)
        assert torch.allclose(model(x), model.head[-1](parts), atol=1e-5)
        model.reset_head(7)
        assert model(x).shape == (2, 7)
    with pytest.raises(InputError, match="unknown pooling 'max'"):
        registry.create_model("resnet20", pooling="max")


def test_strides_in_the_place_of_poolings() -> None:
    x = torch.randn(1, 3, 64, 64)
    options: dict[str, Any] = {"hidden_features": 8, "pooled_size": 1, "num_classes": 10}
    pooled: Any = registry.create_model("vgg11", **options).eval()
    strided: Any = registry.create_model("vgg11", downsampling="stride", **options).eval()
    assert [m.shape for m in strided.features(x)] == [m.shape for m in pooled.features(x)]
    assert count_parameters(strided) == count_parameters(pooled)
    assert not any(isinstance(m, nn.MaxPool2d) for m in strided.stages.modules())
    first = strided.stages[1][0][0]
    own = F.conv2d(strided.stages[0](x), first.weight, first.bias, stride=2, padding=1).relu()
    assert torch.allclose(strided.features(x)[1], own, atol=1e-6)
    with pytest.raises(InputError, match="unknown downsampling 'average'"):
        registry.create_model("vgg11", downsampling="average")
