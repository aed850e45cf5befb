"""Recipe, task, trainer, checkpoint, evaluation, prediction and report: one engine for every task."""

from opsin.lazy_modules import lazy_modules

__getattr__, __dir__ = lazy_modules(__name__, __file__)
