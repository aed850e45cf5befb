from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.bninception import bninception
from torch import nn

from opsin.backbones import bn_inception
from opsin.backbones.bn_inception import BNInception, HalvingPool
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.nn.padding import output_size
from opsin.nn.pooling import SameAveragePool2d, SameMaxPool2d


def test_outputs_equal_pytorchcv(assert_equal: Callable[..., None]) -> None:
    def pool_globally(model: nn.Module) -> None:
        model.features.final_pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[union-attr]  # its own is a 7x7 window

    assert_equal(bn_inception.bn_inception, bninception, [(64, 64), (96, 128)], pool_globally)


def layers(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def on_meta(builder: Callable[..., BNInception], **options: object) -> BNInception:
    with torch.device("meta"):
        return builder(**options)


def test_the_two_forms_differ_in_the_biases_the_stem_and_two_projections() -> None:
    caffe, tensorflow = on_meta(bn_inception.bn_inception), on_meta(bn_inception.inception_v2)
    normed = sum(module.num_features for module in layers(caffe, nn.BatchNorm2d))  # type: ignore[misc]
    biases = normed  # one for each channel that is normalised
    stem = 64 * 3 * 49 - 24 * 49 - 64 * 24
    # 32 channels fewer from the poolings of 4c and of 4d: their projections with batch norm, and all that reads them
    projections = 32 * (576 + 2) + 32 * (608 + 2)
    readers_4d = 32 * (96 + 128 + 160) + 32 * 96
    readers_4e = 32 * (128 + 192)
    readers_5a = 32 * (352 + 192 + 160 + 128)
    fewer = biases + stem + projections + readers_4d + readers_4e + readers_5a
    assert count_parameters(caffe) - count_parameters(tensorflow) == fewer
    assert {conv.bias is None for conv in layers(tensorflow, nn.Conv2d)} == {True}  # type: ignore[union-attr]


def test_padding_is_that_of_each_framework() -> None:
    caffe, tensorflow = on_meta(bn_inception.bn_inception), on_meta(bn_inception.inception_v2)
    for size in (224, 97, 75):
        expected = size
        for _ in range(3):
            expected = output_size(expected, 3, 2, padding="tf")
        images = torch.empty(1, 3, size, size, device="meta")
        assert tensorflow.features(images)[0].shape[2] == expected
        first = output_size(size, 7, 2, border=3)
        for _ in range(2):
            first = output_size(first, 3, 2, padding="caffe", pooling=True)
        assert caffe.features(images)[0].shape[2] == first
    assert len(layers(tensorflow, SameMaxPool2d)) == 2 + 2 + 1 + 7  # the average is one too
    assert len(layers(tensorflow, SameAveragePool2d)) == 7
    assert not layers(caffe, SameMaxPool2d)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_halving_pool_is_caffes_on_even_maps_and_never_smaller_than_a_convolution(size: int) -> None:
    x = torch.randn(1, 1, size, size)
    pooled = HalvingPool()(x)
    assert pooled.shape == nn.Conv2d(1, 1, 3, 2, 1)(x).shape
    if size % 2 == 0:
        torch.testing.assert_close(pooled, F.max_pool2d(x, 3, 2, ceil_mode=True))
    assert pooled[0, 0, -1, -1] == x[0, 0, (size - 1) // 2 * 2 :, (size - 1) // 2 * 2 :].max()


def test_without_batch_norm() -> None:
    caffe, plain = on_meta(bn_inception.bn_inception), on_meta(bn_inception.bn_inception, norm=None)
    assert len(layers(caffe, nn.BatchNorm2d)) == 69 and not layers(plain, nn.BatchNorm2d)
    scales = sum(2 * module.num_features for module in layers(caffe, nn.BatchNorm2d))  # type: ignore[misc]
    assert count_parameters(caffe) - count_parameters(plain) == scales
    biased = on_meta(bn_inception.inception_v2, norm=None)
    assert sum(conv.bias is None for conv in layers(biased, nn.Conv2d)) == 1  # the depthwise half of the stem
    with pytest.raises(InputError, match="unknown norm 'lrn'"):
        bn_inception.inception_v2(norm="lrn")
