"""RFBNet: counts, maps, and the blocks of its larger form by a plain re-computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.detect import rfbnet
from opsin.errors import InputError
from opsin.nn.context import ReceptiveField
from opsin.nn.counting import count_macs, count_parameters

NAMES = ["rfbnet", "rfbnet300_vgg16", "rfbnet512_vgg16", "rfbnet512_e_vgg16"]


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_published_ones(name: str) -> None:
    published = registry.find_model(name).published
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == published.params
    assert count_macs(model, published.input) == published.macs


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("rfbnet300_vgg16", 45_104_096, 39_841_528_320), ("rfbnet512_vgg16", 46_820_510, 114_101_113_856)],
)
def test_counts_for_coco(name: str, params: int, macs: int) -> None:
    with torch.device("meta"):
        model = registry.create_model(name, num_classes=80)
    assert count_parameters(model) == params
    assert count_macs(model, registry.find_model(name).published.input) == macs


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [("rfbnet300_vgg16", 300, 11620), ("rfbnet512_vgg16", 512, 32756), ("rfbnet512_e_vgg16", 512, 32756)],
)
def test_default_boxes(name: str, size: int, count: int) -> None:
    with torch.device("meta"):
        model: Any = registry.find_model(name).builder(num_classes=2)
        outputs = model(torch.zeros(1, 3, size, size))
        with pytest.raises(InputError, match="only"):
            model(torch.zeros(1, 3, 64, 64))
    assert outputs["logits"].shape == (1, count, 3)
    assert len(model.strides) == len(model.class_heads) == (6 if size == 300 else 7)


def test_on_any_backbone() -> None:
    """Maps of 8, 4 and 2 places, the last by a block of stride 2; six boxes a place."""
    options: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "strides": (8, 16), "extra_channels": (64,)}
    model: Any = registry.create_model("rfbnet", num_classes=3, **options).train()
    outputs = model(torch.rand(2, 3, 64, 64))
    assert model.strides == (8, 16, 32)
    assert outputs["logits"].shape == (2, 6 * (64 + 16 + 4), 4)
    first, second = model.neck.blocks
    assert (len(first.branches), len(second.branches), len(model.extra[0].branches)) == (4, 3, 3)
    assert rates(second) == rates(model.extra[0]) == [2, 3, 5]


def rates(block: ReceptiveField) -> list[int]:
    return [branch[-1][0].dilation[0] for branch in block.branches]  # type: ignore[index]


def test_rates_of_the_authors_code() -> None:
    with torch.device("meta"):
        plain: Any = registry.find_model("rfbnet512_vgg16").builder()
        wide: Any = registry.find_model("rfbnet512_e_vgg16").builder()
    blocks = [plain.neck.shallow_block, plain.neck.deep_block, *plain.extra[:4]]
    assert [rates(block) for block in blocks] == [[1, 3, 3, 5], *[[2, 3, 5]] * 3, *[[1, 2, 3]] * 2]
    blocks = [wide.neck.shallow_block, wide.neck.deep_block, *wide.extra[:4]]
    assert [rates(block) for block in blocks] == [[1, 3, 3, 5, 5, 7, 7], *[[1, 3, 5, 7]] * 3, *[[1, 3, 7]] * 2]
    assert all(block.scale == 1.0 for block in blocks)


@torch.no_grad()
def apply(layers: nn.Module, x: Tensor) -> Tensor:
    """Conv, batch norm in eval and ReLU, layer by layer, from the tensors alone."""
    for layer in layers:  # type: ignore[attr-defined]
        conv, norm = layer[0], layer[1]
        x = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
        x = x.relu() if len(layer) > 2 else x
    return x


@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_the_larger_form(stride: int) -> None:
    torch.manual_seed(0)
    block = rfbnet._wide_block(32, 24, stride).eval()
    x = torch.randn(2, 32, 9, 9)
    joined = torch.cat([apply(branch, x) for branch in block.branches], dim=1)
    assert joined.shape[1] == 4 * 8
    expected = (apply([block.join], joined) + apply([block.shortcut], x)).relu()  # type: ignore[arg-type]
    assert torch.allclose(block(x), expected, atol=1e-5)
    assert expected.shape[2] == -(-9 // stride)
    kernels = [layer[0].kernel_size for layer in block.branches[3]]  # type: ignore[union-attr, index]
    assert kernels == [(1, 1), (1, 7), (7, 1), (3, 3)]


def test_fc7_joins_conv4_3_in_the_larger_form() -> None:
    with torch.device("meta"):
        neck: Any = registry.find_model("rfbnet512_e_vgg16").builder().neck
        shallow, deep = neck([torch.zeros(1, 512, 38, 38), torch.zeros(1, 512, 19, 19)])
    assert shallow.shape == (1, 512, 38, 38) and deep.shape == (1, 1024, 19, 19)


def test_a_batch_of_one_trains() -> None:
    """The last map is a single place, of which a batch norm has no variance."""
    torch.manual_seed(0)
    trunk = rfbnet._joined(nn.Identity(), nn.Identity(), [], 300)
    x = torch.randn(1, 256, 5, 5)
    for layers in trunk.extra:
        x = layers.train()(x)
    assert x.shape == (1, 256, 1, 1) and x.isfinite().all()
