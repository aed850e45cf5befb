"""Darknet's .weights files: numbers without names, in the order of a cfg file's layers.

A header of three int32, major, minor, revision, and the images seen: uint64 from version 0.2 on, uint32 before. Then
float32, layer by layer. A convolution: biases, or with batch norm its shifts, scales, means and variances; then weights
(out, in, height, width). A connected layer: biases, weights (out, in), which versions above 1000 store transposed. A
local one: biases (out, height, width), weights (places, out, in * height * width).

The order of a network is that of its `darknet_order`, or of its modules. Darknet adds 1e-6 to a deviation in batch norm
where torch adds 1e-5 to a variance; the sums differ in the sixth digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from opsin.backbones.cspnet import CrossStage
from opsin.detect.yolov1 import LocalConv2d
from opsin.errors import InputError

# Whoever wrote a file with a larger number stored the weights of connected layers transposed. Darknet's parser.c.
_TRANSPOSED_ABOVE = 1000


class _Slot(NamedTuple):
    """A tensor, or a part of one, that the file fills next.

    roll: our places of its input channels are the file's, moved by so many. linear: weights of a connected layer.
    """

    layer: str
    tensor: Tensor
    roll: int = 0
    linear: bool = False
    variance: bool = False


def load_darknet(model: nn.Module, path: str | Path, *, partial: bool = False) -> list[str]:
    """Fill a network with a Darknet file. Returns the names of our tensors that were not filled.

    partial: take a file that ends behind any of the network's layers, as darknet53.conv.74 and yolov4.conv.137 do,
    which are meant to start a training. Raises InputError for a file that is not of this network, naming what differs.
    """
    path = Path(path)
    slots = list(_slots(model))
    _check_whole(model, slots)
    version, numbers = _read(path)
    needed = sum(slot.tensor.numel() for slot in slots)
    if len(numbers) != needed and not (partial and len(numbers) < needed):
        raise InputError(
            f"{path} holds {len(numbers):,} numbers, this {type(model).__name__} has {needed:,}; is it another "
            "network, or trained for another num_classes" + ("?" if partial else ", or a start (partial=True)?")
        )
    filled, at, parts = set(), 0, []
    for slot in slots:
        if at == len(numbers) and slot.layer not in filled:
            break
        count = slot.tensor.numel()
        if at + count > len(numbers):
            raise InputError(f"{path} ends in the middle of layer {slot.layer}; is it another network, or cut off?")
        parts.append((slot, _shape(slot, numbers[at : at + count], version)))
        filled.add(slot.layer)
        at += count
    for slot, values in parts:
        if not bool(values.isfinite().all()) or (slot.variance and bool((values < 0).any())):
            what = "variances below 0" if bool(values.isfinite().all()) else "numbers that are not finite"
            raise InputError(f"{path} has {what} in layer {slot.layer}; it is a file of another network, or damaged")
    with torch.no_grad():
        for slot, values in parts:
            slot.tensor.copy_(values)
    kept = (name for name, _ in model.state_dict().items() if not name.endswith("num_batches_tracked"))
    return [name for name in kept if name.rpartition(".")[0].split(" ")[0] not in _modules_of(filled)]


def _modules_of(layers: set[str]) -> set[str]:
    return {name for layer in layers for name in layer.split(" ")[0].split("+")}


def _read(path: Path) -> tuple[tuple[int, int], np.ndarray]:
    """The version, and every number behind the header."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) < 16:
        raise InputError(f"{path} has {len(content)} bytes, less than the header of a Darknet file")
    major, minor, _ = np.frombuffer(content, "<i4", 3).tolist()
    if not (0 <= major < 10_000 and 0 <= minor < 10_000):
        raise InputError(f"{path} is no Darknet file: its version would be {major}.{minor}")
    wide = major * 10 + minor >= 2 and major < _TRANSPOSED_ABOVE and minor < _TRANSPOSED_ABOVE
    body = content[20 if wide else 16 :]
    if len(body) % 4:
        raise InputError(f"{path} ends in the middle of a number; it was cut off, or is no Darknet file")
    return (major, minor), np.frombuffer(body, "<f4")


def _shape(slot: _Slot, numbers: np.ndarray, version: tuple[int, int]) -> Tensor:
    values = torch.from_numpy(numbers.astype(np.float32))
    if slot.linear and max(version) > _TRANSPOSED_ABOVE:
        return values.view(slot.tensor.shape[1], slot.tensor.shape[0]).T
    values = values.view(slot.tensor.shape)
    return values.roll(slot.roll, dims=1) if slot.roll else values


def _slots(model: nn.Module) -> Iterator[_Slot]:
    names = {id(module): name for name, module in model.named_modules()}
    own: Callable[[], Iterable[nn.Module]] | None = getattr(model, "darknet_order", None)
    for module in [model] if own is None else own():
        yield from _walk(module, names)


def _walk(module: nn.Module, names: dict[int, str]) -> Iterator[_Slot]:
    if isinstance(module, CrossStage):
        yield from _cross_stage(module, names)
        return
    if isinstance(module, nn.Linear | LocalConv2d | nn.Conv2d):
        yield from _layer(module, None, names)
        return
    children = list(module.children())
    place = 0
    while place < len(children):
        child, after = children[place], children[place + 1] if place + 1 < len(children) else None
        if isinstance(child, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            yield from _layer(child, after, names)
            place += 1
        else:
            yield from _walk(child, names)
        place += 1


def _layer(
    layer: nn.Module, norm: nn.BatchNorm2d | None, names: dict[int, str], rows: slice = slice(None), roll: int = 0
) -> Iterator[_Slot]:
    """rows: of a convolution that the file has as several. See `_Slot` for roll."""
    name = names[id(layer)] if norm is None else f"{names[id(layer)]}+{names[id(norm)]}"
    name += f" ({rows.start or 0} to {rows.stop})" if rows != slice(None) else ""
    if norm is None:
        if layer.bias is not None:
            yield _Slot(name, layer.bias[rows])  # type: ignore[index]
    else:
        assert norm.running_mean is not None and norm.running_var is not None
        for tensor in (norm.bias, norm.weight, norm.running_mean):
            yield _Slot(name, tensor[rows])
        yield _Slot(name, norm.running_var[rows], variance=True)
    yield _Slot(name, layer.weight[rows], roll, isinstance(layer, nn.Linear))  # type: ignore[index]


def _cross_stage(stage: CrossStage, names: dict[int, str]) -> Iterator[_Slot]:
    """The file has one convolution for each of the two parts, and joins them with what passes by last."""
    passing = stage.parts[0]
    split, fusion = stage.split, stage.fusion
    assert isinstance(split, nn.Sequential) and isinstance(fusion, nn.Sequential)
    for rows in (slice(0, passing), slice(passing, sum(stage.parts))):
        yield from _layer(split[0], split[1], names, rows)  # type: ignore[arg-type]
    yield from _walk(stage.blocks, names)
    yield from _walk(stage.transition, names)
    yield from _layer(fusion[0], fusion[1], names, roll=passing)  # type: ignore[arg-type]


def _check_whole(model: nn.Module, slots: list[_Slot]) -> None:
    """Every parameter must have its place in the file."""
    learnable = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var")))
    if sum(slot.tensor.numel() for slot in slots) != learnable + statistics:
        raise InputError(f"{type(model).__name__} has layers that Darknet's files do not know; load a state dict")
