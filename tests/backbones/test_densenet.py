from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from pytorchcv.models.densenet_cifar import densenet40_k12_bc_cifar10
from torch import Tensor, nn
from torch.export import Dim

from opsin import registry
from opsin.backbones import Backbone, copy_in_order
from opsin.backbones.densenet import DenseNet
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters

SMALL = {"growth": 4, "small_images": True, "num_classes": 3}


@pytest.mark.parametrize("name", ["densenet121", "densenet161"])
def test_outputs_equal_torchvision(name: str, assert_equal: Callable[..., None]) -> None:
    assert_equal(partial(registry.create_model, name), getattr(torchvision.models, name), [(64, 64), (53, 71)])


def test_bc_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    # its pooling at the end has a window of 8x8: one size
    assert_equal(partial(registry.create_model, "densenet_bc40_k12"), densenet40_k12_bc_cifar10, [(32, 32)])


def test_torchvisions_files_fit_under_their_old_names() -> None:
    # The published files call a layer's parts norm.1, conv.1, norm.2, conv.2, and have no batch counters.
    reference = torchvision.models.densenet121()
    old = {}
    for key, tensor in reference.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            for part in ("norm1", "conv1", "norm2", "conv2"):
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in key else key
            old[key] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model = registry.create_model("densenet121").eval()
    copy_in_order(model, old)
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference.eval()(images))


def test_plain_net_is_the_network_of_the_paper() -> None:
    model = registry.create_model("densenet40_k12", depths=(2, 1)).eval()
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    tensors = iter([v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")])

    def norm_relu(x: Tensor) -> Tensor:
        scale, shift, mean, var = (next(tensors)[:, None, None] for _ in range(4))
        return ((x - mean) / torch.sqrt(var + 1e-5) * scale + shift).clamp(min=0)

    images = torch.randn(2, 3, 9, 8)
    x = F.conv2d(images, next(tensors), padding=1)
    for _ in range(2):
        x = torch.cat([x, F.conv2d(norm_relu(x), next(tensors), padding=1)], dim=1)
    assert x.shape[1] == 16 + 2 * 12
    x = F.avg_pool2d(F.conv2d(norm_relu(x), next(tensors)), 2)
    assert x.shape[1:] == (16 + 2 * 12, 4, 4)  # without compression
    x = torch.cat([x, F.conv2d(norm_relu(x), next(tensors), padding=1)], dim=1)
    expected = norm_relu(x).mean(dim=(2, 3)) @ next(tensors).T + next(tensors)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_264_is_table_1() -> None:
    # By hand: 1x1 from c to 128 and 3x3 to 32 maps in each layer, halving transitions, norms before each convolution.
    params, channels = 3 * 64 * 49 + 2 * 64, 64
    for place, depth in enumerate((6, 12, 64, 48)):
        if place:
            params += 2 * channels + channels * channels // 2
            channels //= 2
        for _ in range(depth):
            params += 2 * channels + 128 * channels + 2 * 128 + 9 * 128 * 32
            channels += 32
    params += 2 * channels + 1000 * (channels + 1)
    assert registry.find_model("densenet264").published.params == params


@pytest.mark.parametrize("bottleneck", [True, False])
def test_recomputation_changes_no_output_gradient_or_statistic(bottleneck: bool) -> None:
    options: dict[str, Any] = {**SMALL, "depths": (3, 2), "bottleneck": bottleneck}
    plain, thrifty = DenseNet(**options).train(), DenseNet(**options, recompute=True).train()
    thrifty.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 8, 8)
    for _ in range(2):
        losses = [model(images).square().sum() for model in (plain, thrifty)]
        assert torch.equal(losses[0], losses[1])
        for loss in losses:
            loss.backward()
    for ours, theirs in zip(thrifty.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    # Running means, variances and batch counters: recomputing runs the norm a second time, and must not count it.
    buffers = dict(thrifty.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in plain.named_buffers())
    assert {int(v) for k, v in buffers.items() if k.endswith("num_batches_tracked")} == {2}


def test_recomputation_with_dropout_and_frozen_norms() -> None:
    options: dict[str, Any] = {**SMALL, "depths": (2, 2), "dropout": 0.3}
    plain, thrifty = DenseNet(**options).train(), DenseNet(**options, recompute=True).train()
    thrifty.load_state_dict(plain.state_dict())
    images, gradients = torch.randn(4, 3, 8, 8), []
    for model in (plain, thrifty):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        torch.manual_seed(0)
        model(images).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def saved_bytes(depth: int, recompute: bool, bottleneck: bool) -> int:
    """What the graph of one training step holds on to until the backward pass, parameters aside, each memory once."""
    model = DenseNet(**SMALL, depths=(depth,), bottleneck=bottleneck, recompute=recompute).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}
    kept = []  # an address may be used again once its tensor is gone

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(torch.randn(1, 3, 16, 16)).sum()
    assert loss.requires_grad
    return sum(held.values())


@pytest.mark.parametrize("bottleneck", [True, False])
def test_memory_grows_linearly_with_recomputation_and_quadratically_without(bottleneck: bool) -> None:
    def growth(recompute: bool) -> tuple[int, int]:
        six, twelve, eighteen = (saved_bytes(depth, recompute, bottleneck) for depth in (6, 12, 18))
        return twelve - six, eighteen - twelve

    first, second = growth(recompute=True)
    assert second == pytest.approx(first, rel=0.01)
    # Each further layer holds 4 more maps of 16x16 float32 in its copy, and in what the norm and the ReLU make of it.
    first, second = growth(recompute=False)
    assert second - first >= 36 * 4 * 16 * 16 * 4 * 2
    assert saved_bytes(18, True, bottleneck) < 0.6 * saved_bytes(18, False, bottleneck)


def test_recomputation_exports() -> None:
    model = DenseNet(**SMALL, depths=(2, 2), recompute=True).eval()
    images = torch.randn(3, 3, 16, 16)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: Dim("batch", max=64)},))
    torch.testing.assert_close(program.module()(images), model(images))


def test_options_by_their_counts() -> None:
    def count(**options: Any) -> int:
        with torch.device("meta"):
            return count_parameters(registry.create_model("densenet_bc40_k12", **options))

    with torch.device("meta"):
        plain = count_parameters(registry.create_model("densenet40_k12"))
    assert count(bottleneck=False, compression=1.0, stem_channels=16, depths=(12, 12, 12)) == plain
    assert count(recompute=True) == count(dropout=0.2) == count()
    # pytorchcv's net without B compresses: trap of the counts, reachable all the same
    assert count(bottleneck=False, stem_channels=16, depths=(12, 12, 12)) < plain
    # without concatenations every layer but the first of a block reads 12 maps, and hands on 12
    layer, transition = 2 * 12 + 12 * 48 + 2 * 48 + 48 * 12 * 9, 2 * 12 + 12 * 6
    stem, first = 3 * 24 * 9, 2 * 24 + 24 * 48 - 2 * 12 - 12 * 48
    later = 2 * (transition + 2 * 6 + 6 * 48 - 2 * 12 - 12 * 48)
    assert count(dense=False) == stem + 18 * layer + first + later + 2 * 12 + 12 * 10 + 10


def test_a_narrow_net_for_small_images() -> None:
    with torch.device("meta"):
        model = registry.create_model("densenet_bc40_k12", growth=6, depths=(4, 4, 4), in_channels=1)
    assert isinstance(model, Backbone)
    assert (model.strides, model.min_size) == ((1, 2, 4), 4)
    assert model(torch.empty(2, 1, 28, 28, device="meta")).shape == (2, 10)
    assert count_parameters(model) < 30_000 and count_macs(model, (1, 28, 28)) < 10_000_000
    with torch.device("meta"):
        small = registry.create_model("densenet121", small_images=True)
    assert isinstance(small, Backbone) and small.strides == (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth": 0}, "growth must be"),
        ({"depths": ()}, "depths names no block"),
        ({"depths": (3, 0)}, "depths must be"),
        ({"compression": 0}, "compression must be a number above 0"),
        ({"compression": 1.5}, "compression must be a number above 0"),
        ({"stem_channels": 0}, "stem_channels must be"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.create_model("densenet121", **options)
