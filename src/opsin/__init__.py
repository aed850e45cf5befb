"""opsin: classifiers, detectors, segmenters and readers of text, trained, evaluated, explained and exported.

The verbs, and the packages such as `opsin.data` and `opsin.losses`, are imported when they are first used, so that
`import opsin` stays fast and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opsin.version import __version__

if TYPE_CHECKING:
    from opsin import analyze as analyze
    from opsin import backbones as backbones
    from opsin import classify as classify
    from opsin import data as data
    from opsin import detect as detect
    from opsin import downloading as downloading
    from opsin import engine as engine
    from opsin import errors as errors
    from opsin import losses as losses
    from opsin import necks as necks
    from opsin import nn as nn
    from opsin import ops as ops
    from opsin import optim as optim
    from opsin import registry as registry
    from opsin import rooms as rooms
    from opsin import scratch as scratch
    from opsin import structures as structures
    from opsin.analyze.design import design
    from opsin.analyze.design_results import Design
    from opsin.analyze.explain import explain
    from opsin.backbones.fitting import Fitted, load_weights
    from opsin.engine.ablation import ablate, race
    from opsin.engine.comparison import Comparison
    from opsin.engine.evaluate import evaluate
    from opsin.engine.export import export
    from opsin.engine.pipeline import load_pipeline, save_pipeline
    from opsin.engine.predict import Predictor, load
    from opsin.engine.push import push
    from opsin.engine.score import evaluate_predictions
    from opsin.engine.train import Run, find_lr, train
    from opsin.engine.tune import Tuning, tune
    from opsin.errors import InputError, JobError
    from opsin.nn.inference import Optimized, optimize
    from opsin.registry import create_model, list_models
    from opsin.registry import register as register_model
    from opsin.rooms import Metric, Option, Room, list_tasks, register

_VERBS = {
    "Comparison": "opsin.engine.comparison",
    "Design": "opsin.analyze.design_results",
    "Fitted": "opsin.backbones.fitting",
    "InputError": "opsin.errors",
    "JobError": "opsin.errors",
    "Metric": "opsin.rooms",
    "Option": "opsin.rooms",
    "Optimized": "opsin.nn.inference",
    "Predictor": "opsin.engine.predict",
    "Room": "opsin.rooms",
    "Run": "opsin.engine.train",
    "ablate": "opsin.engine.ablation",
    "create_model": "opsin.registry",
    "design": "opsin.analyze.design",
    "evaluate": "opsin.engine.evaluate",
    "evaluate_predictions": "opsin.engine.score",
    "explain": "opsin.analyze.explain",
    "export": "opsin.engine.export",
    "find_lr": "opsin.engine.train",
    "list_models": "opsin.registry",
    "list_tasks": "opsin.rooms",
    "load": "opsin.engine.predict",
    "load_pipeline": "opsin.engine.pipeline",
    "load_weights": "opsin.backbones.fitting",
    "optimize": "opsin.nn.inference",
    "push": "opsin.engine.push",
    "race": "opsin.engine.ablation",
    "register": "opsin.rooms",
    "register_model": "opsin.registry:register",
    "save_pipeline": "opsin.engine.pipeline",
    "Tuning": "opsin.engine.tune",
    "train": "opsin.engine.train",
    "tune": "opsin.engine.tune",
}

_ROOMS = (
    "analyze",
    "backbones",
    "classify",
    "data",
    "detect",
    "downloading",
    "engine",
    "errors",
    "losses",
    "necks",
    "nn",
    "ops",
    "optim",
    "registry",
    "rooms",
    "scratch",
    "structures",
)

__all__ = [
    "Comparison",
    "Design",
    "Fitted",
    "InputError",
    "JobError",
    "Metric",
    "Optimized",
    "Option",
    "Predictor",
    "Room",
    "Run",
    "Tuning",
    "__version__",
    "ablate",
    "create_model",
    "design",
    "evaluate",
    "evaluate_predictions",
    "explain",
    "export",
    "find_lr",
    "list_models",
    "list_tasks",
    "load",
    "load_pipeline",
    "load_weights",
    "optimize",
    "push",
    "race",
    "register",
    "register_model",
    "save_pipeline",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        import importlib

        module, _, attribute = _VERBS[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)
    if name in _ROOMS:
        import importlib

        return importlib.import_module(f"opsin.{name}")
    raise AttributeError(f"module 'opsin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


def _find_old_names() -> None:
    from opsin import old_names

    old_names.install()


_find_old_names()
