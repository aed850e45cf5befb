"""Evaluation of radiance fields: views of a split against their images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data import Split
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.report import Section
from opsin.errors import InputError
from opsin.render.floors import Floors, find_floors
from opsin.render.image_metrics import psnr, ssim
from opsin.render.lpips import load_lpips
from opsin.render.shape_evaluation import measure_surface
from opsin.render.shape_network import BoxedShape
from opsin.render.shape_source import KEY as POINTS
from opsin.render.shape_source import OfShape
from opsin.structures import Batch


@dataclass(frozen=True)
class RenderedView:
    """A view and what was found of it. color: (H, W, 3) uint8 as rendered. depth: (H, W), NaN where nothing is seen."""

    psnr: float
    ssim: float | None
    mse: float
    depth_error: float | None
    floors: Mapping[str, float]
    color: np.ndarray
    depth: np.ndarray
    lpips: float | None = None


class RenderEvaluator(Evaluator):
    """PSNR and SSIM, each the mean over the views of a split, and what trivial answers reach there.

    lpips: one file or several with the weights of LPIPS, see `opsin.render.lpips`, which is then found too.
    """

    predictor: Any  # a RenderPredictor

    def __init__(self, predictor: Any, *, lpips: str | Sequence[str] | None = None) -> None:
        super().__init__(predictor)
        self.floors: Floors | None = None
        self._truth: Any = None
        if lpips and isinstance(predictor.model, BoxedShape):
            raise InputError(f"lpips compares views, and {predictor.recipe.model.name} learns a shape; leave it out")
        self._lpips = load_lpips([lpips] if isinstance(lpips, str) else lpips) if lpips else None

    def begin(self, split: Split) -> None:
        self._truth = split.truth
        if isinstance(split.truth, OfShape):
            return
        self.floors = find_floors(self.predictor.recipe, self.predictor.facts.members)

    def update(self, outputs: Any, batch: Batch) -> None:
        values: Any = batch
        places = values["index"].tolist()
        if POINTS in values:
            self.collect(places, self._compare_points(outputs.cpu(), values[POINTS][..., 3]))
            return
        found = []
        for k, (output, image) in enumerate(zip(outputs, values["image"], strict=True)):
            truth = image.expand(3, -1, -1).float() / 255
            found.append(self._compare(output, truth, values["pose"][k], places[k]))
        self.collect(places, found)

    def _compare_points(self, outputs: Tensor, distances: Tensor) -> list[tuple[int, int, float]]:
        """Of each batch of points how many are inside of both, and of either, and the loss."""
        found = []
        for row, distance in zip(outputs, distances, strict=True):
            own, true = self.predictor.model.decode(row), distance < 0
            loss = sum(float(term) for term in self.predictor.model.loss(row, {"distance": distance}).values())
            found.append((int((own & true).sum()), int((own | true).sum()), loss))
        return found

    def _compare(self, output: Mapping[str, Tensor], truth: Tensor, pose: Tensor, place: int) -> RenderedView:
        color = output["color"].permute(2, 0, 1)
        depth = torch.where(output["opacity"] > 0.5, output["depth"], torch.nan)
        return RenderedView(
            psnr(color, truth),
            ssim(color, truth),
            float((color - truth).square().mean()),
            self._depth_error(depth, place),
            {} if self.floors is None else self.floors.of(truth, pose),
            (output["color"] * 255).round().to(torch.uint8).numpy(),
            depth.numpy(),
            None if self._lpips is None else float(self._lpips(color[None], truth[None])),
        )

    def _depth_error(self, depth: Tensor, place: int) -> float | None:
        """The mean absolute error of the depth where both the scene and the field have one; None if not known."""
        known = getattr(self._truth, "depth", None)
        exact = None if known is None else known(place)
        if exact is None:
            return None
        both = torch.isfinite(exact) & torch.isfinite(depth)
        return float((depth - exact)[both].abs().mean()) if both.any() else None

    def brief(self) -> dict[str, float]:
        views: list[Any] = self.collected()
        if views and isinstance(views[0], tuple):
            both, either, losses = zip(*views, strict=True)
            return {"loss": _mean(list(losses)), "iou": sum(both) / max(1, sum(either))}
        return {"loss": _mean([one.mse for one in views]), "psnr": _mean([one.psnr for one in views])}

    def result(self) -> Result:
        views: list[RenderedView] = self.collected()
        metrics = self.brief()
        if "iou" in metrics:
            if isinstance(self._truth, OfShape):
                metrics |= measure_surface(self.predictor.model, self._truth)
            return Result(metrics)
        lists = {name: [getattr(one, name) for one in views] for name in ("ssim", "lpips", "depth_error")}
        for name in ("white", "mean", "nearest"):
            lists[f"floor_{name}"] = [one.floors.get(name) for one in views]
        for name, values in lists.items():
            known = [value for value in values if value is not None]
            if known:
                metrics[name] = _mean(known)
        metrics = {"psnr": metrics.pop("psnr"), **metrics}
        kept = ("psnr", "ssim") if self._lpips is None else ("psnr", "ssim", "lpips")
        details = {"views": [{name: getattr(one, name) for name in kept} for one in views]}
        return Result({k: v for k, v in metrics.items() if math.isfinite(v)}, details, evidence=views)

    def compared(self) -> tuple[Any, Any]:
        raise InputError("metrics of your own are not given views; leave metrics out")

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.render.report import sections, turning  # matplotlib, for a report alone

        if result.evidence is None:
            return turning(self.predictor) if isinstance(split.truth, OfShape) else []
        return sections(result.evidence, split, self.predictor)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
