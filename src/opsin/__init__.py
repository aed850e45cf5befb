"""opsin: the whole canon of deep vision, trained, evaluated, understood and shipped with the same few verbs.

The verbs are imported when they are first used, so that `import opsin` stays fast and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from opsin.analyze.explain import explain
    from opsin.engine.evaluate import evaluate
    from opsin.engine.export import export
    from opsin.engine.predict import Predictor, load
    from opsin.engine.train import Run, train
    from opsin.errors import InputError, JobError
    from opsin.nn.inference import Optimized, optimize
    from opsin.registry import create_model, list_models

_VERBS = {
    "InputError": "opsin.errors",
    "JobError": "opsin.errors",
    "Optimized": "opsin.nn.inference",
    "Predictor": "opsin.engine.predict",
    "Run": "opsin.engine.train",
    "create_model": "opsin.registry",
    "evaluate": "opsin.engine.evaluate",
    "explain": "opsin.analyze.explain",
    "export": "opsin.engine.export",
    "list_models": "opsin.registry",
    "load": "opsin.engine.predict",
    "optimize": "opsin.nn.inference",
    "train": "opsin.engine.train",
}

__all__ = [
    "InputError",
    "JobError",
    "Optimized",
    "Predictor",
    "Run",
    "create_model",
    "evaluate",
    "explain",
    "export",
    "list_models",
    "load",
    "optimize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        import importlib

        return getattr(importlib.import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'opsin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
