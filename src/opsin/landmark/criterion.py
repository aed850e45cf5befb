"""The criterion of a network that finds points, by a recipe: one switch for L1, L2, smooth L1, Wing, adaptive Wing."""

from __future__ import annotations

from torch import nn

from opsin import objects
from opsin.engine.recipe import Recipe
from opsin.errors import InputError, unknown
from opsin.losses import create_loss

# Of coordinates in pixels of the input; adaptive Wing is of heat maps.
NAMES = ("adaptive_wing", "huber", "l1", "l2", "smooth_l1", "wing")


def create_criterion(recipe: Recipe) -> nn.Module | None:
    """The recipe's criterion, called with (found, wanted) and giving a term for each value; None keeps the model's own.

    Raises InputError for a loss that is none of regression, and for weights of classes.
    """
    section = recipe.loss
    if section.class_weights is not None:
        raise InputError("loss.class_weights are of classes, and points have none; leave it out")
    if section.name is None:
        if section.options:
            raise InputError(
                f"loss.{next(iter(section.options))} is of no loss: set loss.name, one of {', '.join(NAMES)}"
            )
        return None
    if objects.is_object(section.name) or "." in section.name:
        return OfEach(create_loss(section.name, **section.options))
    if section.name not in NAMES:
        raise unknown("loss of points", section.name, NAMES)
    return create_loss(section.name, **{**section.options, "reduction": "none"})


class OfEach(nn.Module):
    """A loss of the user's own, (found, wanted) -> one number: every value's term is that number."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, found, wanted):  # type: ignore[no-untyped-def]
        term = self.criterion(found, wanted)
        return term if term.shape == found.shape else term.expand_as(found)
