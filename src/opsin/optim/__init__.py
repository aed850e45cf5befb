"""Optimizers and learning-rate schedules, by name."""

from opsin.lazy_modules import lazy_modules
from opsin.optim.heavy_ball import HeavyBall
from opsin.optim.optimizers import create_optimizer, list_optimizers, parameter_groups
from opsin.optim.schedules import Schedule, create_schedule, list_schedules
from opsin.optim.tracing import plot_rates, trace_rates
from opsin.optim.wrapping import FilterClipping, GradientCentralization, Lookahead

__getattr__, __dir__ = lazy_modules(__name__, __file__)

__all__ = [
    "FilterClipping",
    "GradientCentralization",
    "HeavyBall",
    "Lookahead",
    "Schedule",
    "create_optimizer",
    "create_schedule",
    "list_optimizers",
    "list_schedules",
    "parameter_groups",
    "plot_rates",
    "trace_rates",
]
