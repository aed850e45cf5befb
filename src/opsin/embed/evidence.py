"""What an evaluation of embeddings found, from which its report is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from opsin.embed.comparison import Comparison
from opsin.embed.few_shot import Shots
from opsin.embed.retrieval import Retrieval


@dataclass
class Evidence:
    """What the report is drawn from."""

    embeddings: Tensor
    identities: np.ndarray
    comparison: Comparison | None = None
    retrieval: Retrieval | None = None
    shots: dict[str, Shots] = field(default_factory=dict)
