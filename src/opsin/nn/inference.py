"""A trained network made fast to use: the same outputs, sooner."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.nn.capabilities import size_limits
from opsin.nn.surgery import InputSize, fold_batch_norm

_TOLERANCE = 1e-4  # of the largest output

_log = logging.getLogger(__name__)


class Optimized(nn.Module):
    """What `optimize` made: called like the network, and has its other methods, such as `decode`. Never for training.

    steps: what was done. difference: the largest of any output on the example, over the largest output.
    """

    _run: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.steps: tuple[str, ...] = ()
        self.difference = 0.0
        self._use(model)
        self._shapes: set[torch.Size] = set()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """images: (B, C, H, W) -> the network's outputs, without gradients."""
        check = getattr(self.model, "_check", None)  # within compiled code a network checks nothing
        if check is not None:
            check(images)
        if self._run is self.model:
            return self.model(images.contiguous(memory_format=torch.channels_last))
        if images.shape in self._shapes:
            return self._run(images)
        # Not an option of torch.compile: the graph's capture must know of it, and here it may be captured anew.
        from torch._inductor import config

        with config.patch(freezing=images.device.type == "cpu"):
            outputs = self._run(images)
        self._shapes.add(images.shape)
        return outputs

    def _use(self, run: Any) -> None:
        object.__setattr__(self, "_run", run)  # past the registration of submodules: it is the model once more

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def train(self, mode: bool = True) -> Optimized:
        if mode:
            raise InputError("an optimized network has no batch norms left to train; train the one it was made from")
        return super().train(False)


def optimize(
    model: nn.Module, input_size: InputSize | None = None, *, batch_size: int = 1, compile: bool = True
) -> Optimized:
    """A copy of a network that computes the same outputs faster, for use.

    Auxiliary heads go, and batch norms are folded into the layers before them. Where torch finds a C++ compiler, the
    graph is compiled with its weights frozen into it, in the layout that its kernels want: that takes some seconds, and
    again for the first call with another size; later sizes share that. Without a compiler, or with compile=False,
    weights and maps are laid out with channels last instead; `steps` says what was done.

    input_size: (C, H, W) of the example, the network's smallest reasonable one if None; batch_size: of the example.
    Raises InputError where the outputs on the example differ by more than 1e-4 of the largest.
    """
    input_size = _example_size(model) if input_size is None else input_size
    tensor = next(model.parameters(), torch.empty(0))
    images = torch.randn(batch_size, *input_size, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(
        tensor
    )
    training = model.training
    with torch.no_grad():
        expected = _logits(model.eval()(images)).clone()
    model.train(training)

    plain = copy.deepcopy(model)
    steps = ["auxiliary heads dropped"] if _drop_heads(plain) else []
    surgery = fold_batch_norm(plain, input_size)
    result = Optimized(surgery.model.requires_grad_(False))
    result.eval()
    steps.append(f"{len(surgery.changed)} batch norms folded")
    if compile:
        steps.append(_compile(result, images))
    if result._run is result.model:
        result.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps.append("channels last")
    result.steps = tuple(steps)
    got = _logits(result(images))
    result.difference = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not result.difference <= _TOLERANCE:
        raise InputError(
            f"the optimized {type(model).__name__} differs by {result.difference:.1e} of the largest output, more than "
            f"{_TOLERANCE:.0e}; use the network as it is, or report it with its options"
        )
    return result


def _compile(result: Optimized, images: Tensor) -> str:
    """Compile in place. Returns what was done."""
    result._use(torch.compile(result.model))
    try:
        result(images)
    except Exception as error:  # no compiler, or one that fails: what torch raises then differs by version
        result._use(result.model)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("not compiled: %s", reason)
        return f"not compiled: {reason}"
    return "compiled, weights frozen" if images.device.type == "cpu" else "compiled"


def _drop_heads(model: Any) -> bool:
    if not (getattr(model, "aux_taps", None) or getattr(model, "aux_weights", None)):
        return False
    model.drop_aux_heads()
    return True


def _example_size(model: nn.Module) -> InputSize:
    channels = getattr(model, "in_channels", 3)
    limits = size_limits(model)
    side = limits.fixed or max(limits.smallest, 224)
    return channels, side, side


def _logits(outputs: Any) -> Tensor:
    return outputs["logits"] if isinstance(outputs, dict) else outputs
