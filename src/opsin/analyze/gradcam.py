"""Class evidence: which places of an image speak for a class.

Grad-CAM, Selvaraju et al. 2016, arXiv:1610.02391, section 3: weigh each feature map A_k of a late layer by the mean of
the class score's gradient over it, add them up, and keep what is positive:

    a_k = mean over places of d y_c / d A_k,    evidence = relu(sum over k of a_k A_k)

Where global average pooling and one linear layer follow, a_k is w_ck / (h w), and the evidence is that of CAM (Zhou et
al. 2015, arXiv:1512.04150) up to the constant h w.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.analyze.feature_maps import evaluating, find_output, recorded
from opsin.errors import InputError

# Layers that only move, thin out or pool what another has found: evidence is taken before them, where it is finest.
_PASSING = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d),
)


@dataclass(frozen=True)
class Evidence:
    """maps: (B, h, w), at least 0, of the layer's size. classes: (B,) int64. logits: (B,), of those classes."""

    maps: Tensor
    classes: Tensor
    logits: Tensor
    layer: str

    def enlarged(self, height: int, width: int) -> Tensor:
        """The maps at the image's size, each scaled to at most 1: (B, height, width)."""
        peak = self.maps.amax(dim=(1, 2), keepdim=True)
        scaled = self.maps / torch.where(peak > 0, peak, 1)
        return F.interpolate(scaled[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


class NoEvidenceError(InputError):
    """The network is no classifier: it gives an image no class that could be explained."""


def grad_cam(
    model: nn.Module, images: Tensor, classes: Sequence[int] | Tensor | None = None, *, layer: str | None = None
) -> Evidence:
    """Grad-CAM of normalised images (B, C, H, W), in eval. classes: one an image; None for the most probable one.

    layer: None finds the last one whose maps still have places (more than 1x1) and decide about the class, not counting
    pooling. Raises InputError for an unknown layer or class, and where no layer is left with places.
    """
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model), _last_maps(model, layer) as outputs:
        images = images.detach().clone().requires_grad_()  # so that even a frozen network has gradients inside
        logits = class_logits(_forward(model, images))
        chosen = _check_classes(classes, logits)
        picked = logits.gather(1, chosen[:, None])[:, 0]
        names = list(reversed(outputs)) if layer is None else [layer]
        for name in names:
            maps = find_output(outputs, name)
            if maps.ndim != 4 or maps.shape[2] * maps.shape[3] == 1:
                continue
            (gradient,) = torch.autograd.grad(picked.sum(), maps, allow_unused=True, retain_graph=True)
            if gradient is not None:  # None: it leads to another output, as an auxiliary head does
                weights = gradient.mean(dim=(2, 3), keepdim=True)
                evidence = F.relu((weights * maps).sum(dim=1)).detach()
                return Evidence(evidence, chosen, picked.detach(), name)
    where = f"layer {layer}" if layer else "no layer"
    raise InputError(f"{where} has feature maps with places that lead to the class; give a larger image or a layer")


def _forward(model: nn.Module, images: Tensor) -> Any:
    """The network's outputs; with copies of parameters that were made in inference mode, which know no gradients."""
    values = dict([*model.named_parameters(), *model.named_buffers()])
    if not any(value.is_inference() for value in values.values()):
        return model(images)
    return torch.func.functional_call(model, {name: value.clone() for name, value in values.items()}, (images,))


def class_logits(outputs: Any) -> Tensor:
    """The (B, K) logits of what a classifier's forward gives: the tensor itself, or "logits" beside auxiliary ones."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise NoEvidenceError("class evidence needs a classifier: a network that gives logits of shape (B, classes)")
    return logits


def _check_classes(classes: Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    if classes is None:
        return logits.argmax(dim=1)
    chosen = torch.as_tensor(classes, device=logits.device).long()
    if chosen.shape != logits.shape[:1]:
        raise InputError(f"{len(logits)} images need as many classes, got {tuple(chosen.shape)}")
    if chosen.min() < 0 or chosen.max() >= logits.shape[1]:
        raise InputError(f"classes must be 0 to {logits.shape[1] - 1}, got {chosen.min()} to {chosen.max()}")
    return chosen


@contextmanager
def _last_maps(model: nn.Module, layer: str | None) -> Iterator[dict[str, Tensor]]:
    """As `recorded`: one layer, or in the order of completion every one that makes maps of its own."""
    if layer is not None:
        with recorded(model, [layer]) as outputs:
            yield outputs
        return
    outputs: dict[str, Tensor] = {}
    passed: list[tuple[Tensor, int]] = []  # known already, with its version: a container may hand it on

    def keep(name: str, module: nn.Module, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or output.ndim != 4 or _known(output, passed):
            return None
        if isinstance(module, _PASSING):
            passed.append((output, output._version))
            return None
        outputs.pop(name, None)
        outputs[name] = output
        fresh = output.clone()  # the next layer may write into it
        passed.append((fresh, fresh._version))
        return fresh

    handles = [
        module.register_forward_hook(lambda m, _i, out, name=name: keep(name, m, out))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _known(output: Tensor, passed: list[tuple[Tensor, int]]) -> bool:
    return any(output is old and output._version == version for old, version in passed)
