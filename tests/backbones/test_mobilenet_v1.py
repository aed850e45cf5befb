from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from pytorchcv.models.mobilenet import mobilenet_w3d4
from torch import nn

from opsin import registry
from opsin.backbones import Backbone
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def test_outputs_equal_timm(assert_equal: Callable[..., None]) -> None:
    ours = partial(registry.create_model, "mobilenet_v1", activation="relu6")
    assert_equal(ours, partial(timm.create_model, "mobilenetv1_100"), [(64, 64), (75, 97)])


def test_a_width_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    # its pooling at the end has a window of 7x7: one size
    assert_equal(partial(registry.create_model, "mobilenet_v1_x0_75"), mobilenet_w3d4, [(224, 224)])


def test_one_separable_convolution_by_hand() -> None:
    model = registry.create_model("mobilenet_v1_x0_25", num_classes=2).eval()
    assert isinstance(model, Backbone)
    layer = next(iter(model.stages[1]))  # type: ignore[call-overload]
    tensors = [v for k, v in layer.state_dict().items() if not k.endswith("num_batches_tracked")]
    for tensor in tensors:
        tensor.uniform_(0.1, 1.0)
    depthwise, pointwise = tensors[0], tensors[5]
    assert depthwise.shape == (16, 1, 3, 3) and pointwise.shape == (32, 16, 1, 1)
    x = torch.randn(2, 16, 9, 9)
    y = torch.stack([F.conv2d(x[:, i : i + 1], depthwise[i : i + 1], stride=2, padding=1)[:, 0] for i in range(16)], 1)
    y = F.batch_norm(y, tensors[3], tensors[4], tensors[1], tensors[2]).relu()
    y = torch.einsum("bchw,dc->bdhw", y, pointwise[:, :, 0, 0])
    y = F.batch_norm(y, tensors[8], tensors[9], tensors[6], tensors[7]).relu()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-5)


def test_plain_convolutions_are_the_papers_table_4() -> None:
    # "Conv MobileNet": 29.3 million parameters, 4866 million multiply-adds
    with torch.device("meta"):
        model = registry.create_model("mobilenet_v1", separable=False)
    assert count_parameters(model) == pytest.approx(29.3e6, rel=0.005)
    assert count_macs(model, (3, 224, 224)) == pytest.approx(4866e6, rel=0.005)


def test_a_name_with_a_size_is_the_same_net() -> None:
    for size in (192, 160, 128):
        entry = registry.find_model(f"mobilenet_v1_x0_5_{size}")
        assert entry.published.input == (3, size, size)
        assert entry.published.params == registry.find_model("mobilenet_v1_x0_5").published.params


def test_small_images_and_padding() -> None:
    with torch.device("meta"):
        model = registry.create_model("mobilenet_v1_x0_25", small_images=True, in_channels=1, num_classes=10)
        tf = registry.create_model("mobilenet_v1_x0_25", padding="tf")
    assert isinstance(model, Backbone) and isinstance(tf, Backbone)
    assert model.strides == (1, 1, 2, 4, 8)
    assert model.features(torch.empty(1, 1, 28, 28, device="meta"))[-1].shape[2:] == (4, 4)
    assert tf.features(torch.empty(1, 3, 65, 64, device="meta"))[-1].shape[2:] == (3, 2)


def test_width_is_never_below_8_channels() -> None:
    with torch.device("meta"):
        model = registry.create_model("mobilenet_v1", width=0.1)
    assert next(m for m in model.modules() if isinstance(m, nn.Conv2d)).out_channels == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 0}, "width must be"), ({"activation": "rleu"}, "did you mean"), ({"padding": "same"}, "padding")],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.create_model("mobilenet_v1", **options)
