"""Files of weights as other people save them: what they nest their tensors in, and what they put before the names."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as read_safetensors
from torch import Tensor

from opsin.errors import InputError
from opsin.registry import WEIGHT_FILES

# Where a training's file has its weights, best first: a moving average is what its author measured.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema")
_NESTS = (*_AVERAGES, "state_dict", "model_state_dict", "model", "net", "network", "params", "module", "weights")
_DEEPEST = 4  # nests in nests: {"ema": {"module": {...}}}
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "network.")
_FINITE = ("weight", "bias", "running_mean", "running_var")
_STATE = "opsin.state/"  # before what of a file of ours is no weight

# Plain containers and numbers that trainings save beside their weights; to rebuild them runs no code of the file.
_PLAIN: list[Any] = [argparse.Namespace, collections.defaultdict, dict, set, pathlib.PurePosixPath, pathlib.PosixPath]
_PLAIN += [np.dtype, *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")}]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_PLAIN += [_SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")]  # its place before NumPy 2


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file by their names, in its order.

    nest: where in it they lie, "state_dict_ema"; "" where the file is nothing else. is_sorted: whether it is in the
    order of the names, and so may say nothing of the order of the layers.
    """

    path: Path
    tensors: dict[str, Tensor]
    nest: str = ""
    is_sorted: bool = False

    @property
    def note(self) -> str:
        """What of the file was taken, in words, where it holds more than one set of weights; else ""."""
        averaged = any(part in _AVERAGES for part in self.nest.split("."))
        return f"its moving average ({self.nest}) is taken" if averaged else ""


def read_weights(path: Path) -> WeightFile:
    """A file of weights, .safetensors or what torch saved, without running code of it. Raises InputError if it is none.

    A state dict that lies within what else a training saves is found: under state_dict, model, net, ema and the like.
    """
    if not path.is_file():
        raise InputError(f"no file of weights at {path}")
    if path.suffix.lower() == ".safetensors":
        content, nest = _read_safetensors(path), ""
    else:
        content, nest = _find_state(_read_pickle(path))
    if content is None:
        raise InputError(f"{path} holds no state dict, a mapping of names to tensors")
    tensors = {str(key): tensor for key, tensor in content.items() if isinstance(tensor, Tensor)}
    for key, tensor in tensors.items():
        if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
            raise InputError(f"{path}: {key} is {tensor.dtype}, {tensor.layout}; expected plain numbers")
    is_sorted = path.suffix.lower() == ".safetensors" or [*tensors] == sorted(tensors)
    return WeightFile(path, tensors, nest, is_sorted)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a downloaded file of weights by name, see `read_weights`."""
    try:
        return read_weights(path).tensors
    except InputError as error:
        raise InputError(f"{error}; delete it to have it again") from None


def check_numbers(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError for a tensor that holds what is no number, or weights that are infinite: no answer could be one.

    Other tensors may be: a mask of attention is.
    """
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise InputError(f"{path} is damaged: {key} holds values that are not numbers (NaN)")
        if key.rpartition(".")[2] in _FINITE and bool(torch.isinf(tensor).any()):
            raise InputError(f"{path} is damaged: {key} holds infinite values")


def without_prefixes(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors by the names that they may have had before a wrapper put its own before all of them.

    As they are; without each prefix that all share; and, of the well-known ones, what has one beside what has not.
    """
    current = dict(tensors)
    yield current
    while current and (shared := _shared_prefix(current)):
        current = {key.removeprefix(shared): tensor for key, tensor in current.items()}
        yield current
    for prefix in _PREFIXES:
        inside = {key.removeprefix(prefix): tensor for key, tensor in current.items() if key.startswith(prefix)}
        if 0 < len(inside) < len(current):
            yield from without_prefixes(inside)


def in_natural_order(names: list[str]) -> list[str] | None:
    """Names that are alike but for numbers, in the order of these; None where the names give no order."""
    if len({re.sub(r"\d+", "#", name) for name in names}) != 1:
        return None
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _shared_prefix(tensors: Mapping[str, Tensor]) -> str:
    """The first part of the names, with its dot, where all have the same and something behind it."""
    first = next(iter(tensors)).partition(".")
    prefix = first[0] + first[1]
    return prefix if first[2] and all(key.startswith(prefix) and key != prefix for key in tensors) else ""


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return {key: tensor for key, tensor in read_safetensors(path).items() if not key.startswith(_STATE)}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from None


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds objects that only code can rebuild; it was not loaded") from None
    except Exception as error:  # a damaged pickle can raise nearly any
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    kinds = "" if path.suffix.lower() in WEIGHT_FILES else f" (files of weights end in {', '.join(WEIGHT_FILES)})"
    return InputError(f"{path} is not a readable file of weights{kinds}: {reason}")


def _find_state(content: Any, depth: int = 0) -> tuple[Mapping[str, Any] | None, str]:
    """The mapping of names to tensors within a file, and where it lies; None where there is none."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return None, ""
    for nest in _NESTS:
        found, deeper = _find_state(content.get(nest), depth + 1)
        if found is not None:
            return found, f"{nest}.{deeper}" if deeper else nest
    held = [key for key, value in content.items() if isinstance(value, Tensor) and isinstance(key, str)]
    return (content, "") if held else (None, "")
