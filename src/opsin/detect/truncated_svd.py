"""What a trained Fast R-CNN is worth with its two hidden layers decomposed, and what that saves. Section 3.1."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from opsin.detect.fast_rcnn import FastRCNN, truncated_svd
from opsin.engine.evaluate import evaluate_run
from opsin.engine.predict import Predictor
from opsin.errors import InputError
from opsin.nn.counting import count_parameters, short_count

_REGIONS = 2000  # of an image, as in the paper
_ROUNDS = 5


@dataclass(frozen=True)
class Thinned:
    """A detector with fc6 and fc7 as two thin layers each. Pairs are before and after.

    ranks: of fc6 and fc7. metrics: with the thin layers, see `opsin.evaluate`. parameters: of the detector. macs: of
    fc6 and fc7 on `regions` regions. seconds: of the whole head on as many, the median of rounds that take turns.
    device: where those were.
    """

    ranks: tuple[int, int]
    metrics: dict[str, float]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    seconds: tuple[float, float]
    device: str
    regions: int = _REGIONS

    @property
    def speedup(self) -> float:
        """How many times faster the head is."""
        return self.seconds[0] / self.seconds[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "speedup": self.speedup}

    def describe(self) -> str:
        """What is saved, as lines for a terminal."""
        (many, few), (much, little), (long, short) = self.parameters, self.macs, self.seconds
        return "\n".join(
            [
                f"fc6 and fc7 at ranks {self.ranks[0]} and {self.ranks[1]}, {self.regions:,} regions:",
                f"  parameters     {many:,} -> {few:,}",
                f"  multiply-adds  {short_count(much)} -> {short_count(little)} in fc6 and fc7",
                f"  head           {long:.4f} s -> {short:.4f} s on {self.device}, {self.speedup:.2f} times as fast",
            ]
        )


def evaluate_thinned(
    run: str | Path,
    ranks: Sequence[int],
    data: str | Path | None = None,
    split: str | None = None,
    *,
    device: str | None = None,
) -> Thinned:
    """Evaluate a trained Fast R-CNN with fc6 and fc7 at these ranks as `opsin.evaluate` does, and time both heads.

    Raises InputError for a run of another detector, one whose layers are thin already, and ranks that cannot be.
    """
    found = evaluate_run(run, data, split, device=device, truncated_svd=",".join(map(str, ranks))).addition
    assert isinstance(found, Thinned)
    return found


def parse_ranks(text: str) -> tuple[int, int]:
    """`1024,256` as the ranks of fc6 and fc7. Raises InputError for anything else."""
    parts = text.replace("x", ",").split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"truncated SVD takes two ranks, of fc6 and fc7, for example 1024,256; got {text!r}")
    return int(parts[0]), int(parts[1])


@dataclass(frozen=True)
class Decomposed:
    """A Fast R-CNN, whole and with its layers decomposed."""

    whole: FastRCNN
    thin: FastRCNN
    ranks: tuple[int, int]

    def measured(self, metrics: dict[str, float]) -> Thinned:
        """What the thin one is worth, and what it saves; takes the time of both heads."""
        return Thinned(
            ranks=self.ranks,
            metrics=metrics,
            parameters=(count_parameters(self.whole), count_parameters(self.thin)),
            macs=(_macs(self.whole), _macs(self.thin)),
            seconds=_time_heads(self.whole, self.thin),
            device=str(next(self.whole.parameters()).device),
        )


def replace_layers(predictor: Predictor, ranks: tuple[int, int]) -> Decomposed:
    """Give a predictor its Fast R-CNN with layers decomposed. Raises InputError for another detector."""
    whole = predictor.model
    if not isinstance(whole, FastRCNN):
        raise InputError(
            f"truncated SVD is of the layers fc6 and fc7 of Fast R-CNN, and {predictor.recipe.model.name} is a "
            f"{type(whole).__name__}"
        )
    predictor.model = thin = truncated_svd(whole, *ranks).eval()
    return Decomposed(whole, thin, ranks)


def _macs(model: FastRCNN) -> int:
    """Of fc6 and fc7."""
    layers = [layer for layer in model.head.modules() if isinstance(layer, nn.Linear)]
    return _REGIONS * sum(layer.weight.numel() for layer in layers)


@torch.inference_mode()
def _time_heads(whole: FastRCNN, thin: FastRCNN) -> tuple[float, float]:
    """Seconds of the heads on the same pooled regions, by turns, the first turn to warm up."""
    weight = next(whole.head.parameters())
    pooled = torch.rand(_REGIONS, weight.shape[1], device=weight.device, dtype=weight.dtype)
    rounds = [[_time(model, pooled) for model in (whole, thin)] for _ in range(_ROUNDS + 1)][1:]
    first, second = (median(times) for times in zip(*rounds, strict=True))
    return first, second


def _time(model: FastRCNN, pooled: Tensor) -> float:
    started = time.perf_counter()
    model.predictor(model.head([pooled]))
    if pooled.is_cuda:
        torch.cuda.synchronize(pooled.device)
    return time.perf_counter() - started
