"""Optimizers and learning-rate schedules, by name."""

from opsin.optim.optimizers import create_optimizer
from opsin.optim.schedules import Schedule, create_schedule

__all__ = ["Schedule", "create_optimizer", "create_schedule"]
