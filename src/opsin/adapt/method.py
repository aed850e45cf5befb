"""What a method of adaptation is: losses of what a network sees of several domains, beside the classification loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from opsin.adapt.features import Seen

if TYPE_CHECKING:
    from opsin.engine.task import Update


class Method(nn.Module):
    """One method. Its parameters, such as a discriminator's, are trained with the network and not kept with it.

    family: where it stands among the methods: "features", "instances", "parameters" or "generalisation". adapts:
    whether it needs images of the target; mixes: whether they are in its batches. needs_labels: whether it needs the
    labels of some. replaces: whether its losses are in the place of the classification loss.
    weight: of its losses, where the recipe names none. continues: whether it goes on from the network that was trained
    on the sources alone, and not from the first weights.

    features: the D of the network's features. num_classes: K. num_sources: domains that teach. Keyword-only parameters
    are the options of the recipe, `adapt.options`.
    """

    family: ClassVar[str] = "features"
    adapts: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    replaces: ClassVar[bool] = False
    weight: ClassVar[float] = 1.0
    continues: ClassVar[bool] = False

    def __init__(self, features: int, num_classes: int, num_sources: int) -> None:
        super().__init__()
        self.features, self.num_classes, self.num_sources = features, num_classes, num_sources

    def prepare(self, model: nn.Module) -> None:
        """Make the parameters that depend on the form of the network, before any optimizer."""
        return

    def losses(self, seen: Seen) -> Mapping[str, Tensor]:
        """Named terms of a batch, before the weight."""
        return {}

    def updates(self, task: Any) -> Sequence[Update] | None:
        """The optimizers of a step where it takes several; None for one of everything."""
        return None

    def acting(self, model: nn.Module) -> AbstractContextManager[None]:
        """What is different in the network while it trains: by default nothing."""
        return nullcontext()

    def hold(self, model: nn.Module) -> None:
        """Change gradients before an optimizer steps, such as those of what is frozen."""
        return

    def begin(self, model: nn.Module) -> None:
        """Look at the network before the first step, with the weights that the training begins with."""
        return


class SourceOnly(Method):
    """Training on the sources alone: what every method has to be better than."""

    family = "parameters"
    adapts = False
