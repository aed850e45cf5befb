"""The maps inside a segmenter: what they are of any backbone, and those of the stem."""

from __future__ import annotations

import pytest
import torch

from opsin import create_model
from opsin.errors import InputError
from opsin.segment.encoder import create_encoder
from opsin.segment.feature_pyramid_head import SemanticFPN


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "shufflenet_v2_x0_5", "vgg11", "xception"])
def test_maps_are_as_large_as_they_say(name: str) -> None:
    with torch.device("meta"):
        encoder = create_encoder(name).eval()
    side = max(encoder.strides) * 5
    maps = [encoder(torch.empty(1, 3, n, n, device="meta")) for n in (side, side + 2 * max(encoder.strides))]
    assert len(encoder.strides) == len(set(encoder.strides)) and list(encoder.strides) == sorted(encoder.strides)
    for stride, channels, small, large in zip(encoder.strides, encoder.channels, *maps, strict=True):
        assert small.shape[1] == channels
        assert large.shape[2] - small.shape[2] == 2 * max(encoder.strides) // stride
    assert encoder.exact == all(x.shape[2] * s == side for x, s in zip(maps[0], encoder.strides, strict=True))
    assert encoder.exact == (name != "xception")  # its first convolutions have no padding


def test_the_map_of_the_stem_is_the_last_of_its_stride() -> None:
    encoder = create_encoder("resnet18").eval()
    network = create_model("resnet18").eval()
    network.load_state_dict({**network.state_dict(), **encoder.backbone.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = encoder(images)
        expected = network.stem[:-1](images)  # type: ignore[index] # all but its pooling
        torch.testing.assert_close(maps[0], expected)
        for found, theirs in zip(maps[1:], network.features(images), strict=True):  # type: ignore[operator]
            torch.testing.assert_close(found, theirs)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="DenseNet has no map of stride 8, only 1, 2, 4; take another backbone"):
        create_encoder("densenet100_k12").keep([8])
    with pytest.raises(InputError, match=r"images of 32x32 only.*take another backbone"):
        create_encoder("lenet5", in_channels=1)
    with pytest.raises(InputError, match="is no classification network"):
        create_encoder("unet")


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "inception_v3"])
def test_a_pyramid_on_any_backbone(name: str) -> None:
    model = SemanticFPN(num_classes=3, backbone=name, channels=8, head_channels=64).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 129, 98))["logits"].shape == (1, 3, 129, 98)
    assert model.strides == (4,) and [head.doublings for head in model.heads] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="no map of stride 64"):
        SemanticFPN(backbone=name, strides=(4, 64))
