"""Adversarial discriminative adaptation: a target encoder of its own learns to look like the source's.

Tzeng et al. 2017, "Adversarial discriminative domain adaptation" (ADDA), arXiv:1702.05464.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.adapt.adversarial import Discriminator, domain_loss
from opsin.adapt.features import last_layer, look
from opsin.adapt.method import Method
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.task import Update


def inverted_loss(logits: Tensor) -> Tensor:
    """-mean log d(M_T(x)): what the target's encoder lowers, its labels inverted. ADDA, eq. 9. logits: (B,)."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


class ADDA(Method):
    """The network of the sources is copied and stands still; the copy adapts until no discriminator separates them.

    It goes on from the training on the sources alone, and the last layer stays the sources'. Of each batch the
    discriminator learns first, then the encoder. hidden: units of the discriminator. rate: of the encoder's learning
    rate beside the discriminator's; nothing holds the classes in place, so it is to be small.
    """

    continues = True

    def __init__(
        self, features: int, num_classes: int, num_sources: int, *, hidden: int = 500, rate: float = 0.1
    ) -> None:
        super().__init__(features, num_classes, num_sources)
        self.discriminator, self.rate = Discriminator(features, hidden), rate
        self.still: list[nn.Module] = []  # the sources' network: in a list, so that nothing trains or saves it

    def begin(self, model: nn.Module) -> None:
        self.still[:] = [copy.deepcopy(model).eval().requires_grad_(False)]

    def updates(self, task: Any) -> Sequence[Update]:
        from opsin.engine.task import Update

        last = {id(parameter) for parameter in last_layer(task.model).parameters()}
        encoder = nn.ParameterList([p for p in task.model.parameters() if id(p) not in last])

        def logits(batch: Batch) -> tuple[Tensor, Tensor]:
            """The discriminator's, of the sources by the still network and of the target by the copy."""
            fields: Any = batch
            (images,) = task.inputs(batch)
            source = fields["domain"] >= 0
            with torch.no_grad():
                known, _ = look(self.still[0], images[source])
            own, _ = look(task.model, images[~source])
            return self.discriminator(known), self.discriminator(own)

        def discriminate(batch: Batch) -> Mapping[str, Tensor]:
            known, own = logits(batch)
            of_source = torch.arange(len(known) + len(own), device=known.device) < len(known)
            return {"domain": domain_loss(torch.cat([known, own]), of_source)}

        def deceive(batch: Batch) -> Mapping[str, Tensor]:
            return {"inverted": task.weight * inverted_loss(logits(batch)[1])}

        rate = {"lr": task.recipe.optim.lr * self.rate}
        return [Update("discriminator", self.discriminator, discriminate), Update("encoder", encoder, deceive, rate)]
