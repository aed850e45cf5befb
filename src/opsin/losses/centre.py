"""Centre loss: every embedding near the centre of its class, and the centres following the embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from opsin.checks import check_count, check_number
from opsin.errors import InputError
from opsin.losses.terms import check_labels, check_shape, divide, full_precision


class CentreLoss(nn.Module):
    """Half the squared distance of each embedding to the centre of its class, averaged. Wen et al. 2016, section 3.2.

    doi:10.1007/978-3-319-46478-7_31. embeddings: (B, features). labels: (B,) int64, -1 is ignored. To be added to a
    cross-entropy, which alone keeps the centres apart, with the paper's weight of 0.003 (see `WeightedSum`); there both
    are sums over the batch, here both are means, which leaves their ratio as it is.

    alpha: the paper's rule. Once a training step, after the loss was taken, a centre moves by
    alpha * sum(x - centre) / (1 + n) over the n embeddings of its class, all processes together. The 1 damps classes
    with few; the learning rate, momentum and weight decay of the network do not touch it. The centres are a buffer, as
    the running statistics of batch norm: in the checkpoint, not in the optimizer. alpha=None makes them a parameter
    that the optimizer moves along the gradient of the loss. They start at zero.
    """

    centres: Tensor

    def __init__(self, num_classes: int, features: int, *, alpha: float | None = 0.5) -> None:
        super().__init__()
        for option, value in (("num_classes", num_classes), ("features", features)):
            check_count(option, value)
        if alpha is not None and check_number("alpha", alpha) > 1:
            raise InputError(f"alpha={alpha} would overshoot the embeddings; it is at most 1, or None")
        self.alpha = alpha
        centres = torch.zeros(num_classes, features)
        if alpha is None:
            self.centres = nn.Parameter(centres)
        else:
            self.register_buffer("centres", centres)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        num_classes, features = self.centres.shape
        if embeddings.ndim != 2 or embeddings.shape[1] != features:
            raise InputError(f"the centres have {features} features, the embeddings are {tuple(embeddings.shape)}")
        check_shape(labels, embeddings.shape[:1], embeddings, "embeddings")
        check_labels(labels, num_classes)
        embeddings, seen = full_precision(embeddings), labels != -1
        places = labels.long().clamp(min=0)
        errors = embeddings - self.centres.to(embeddings.dtype)[places]
        loss = divide((errors.square().sum(dim=1) * seen).sum() / 2, seen.sum())
        if self.training and self.alpha is not None:
            self._follow(errors.detach() * seen[:, None], places, seen)
        return loss

    @torch.no_grad()
    def _follow(self, errors: Tensor, places: Tensor, seen: Tensor) -> None:
        moves = torch.zeros_like(self.centres, dtype=errors.dtype).index_add_(0, places, errors)
        counts = torch.zeros_like(moves[:, 0]).index_add_(0, places, seen.to(errors.dtype))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(moves)
            distributed.all_reduce(counts)
        assert self.alpha is not None
        self.centres += (self.alpha * moves / (1 + counts)[:, None]).to(self.centres.dtype)

    def extra_repr(self) -> str:
        num_classes, features = self.centres.shape
        return f"num_classes={num_classes}, features={features}, alpha={self.alpha}"
