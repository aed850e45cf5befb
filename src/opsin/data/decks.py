"""Examples dealt in a random order, as cards from a deck, so that each comes as often as another."""

from __future__ import annotations

import numpy as np
import torch


class Deck:
    """Cards, (N,) int64, dealt in the order of a generator, and shuffled anew when they have run out."""

    def __init__(self, cards: np.ndarray, generator: torch.Generator) -> None:
        self.cards, self.generator = cards, generator
        self.left: list[int] = []

    def _shuffled(self) -> list[int]:
        return self.cards[torch.randperm(len(self.cards), generator=self.generator).numpy()].tolist()

    def deal(self, count: int) -> np.ndarray:
        """So many, none of them twice; count: at most as many as there are."""
        dealt = [self.left.pop() for _ in range(min(count, len(self.left)))]
        if len(dealt) < count:
            again = [card for card in self._shuffled() if card not in dealt]
            late = count - len(dealt)
            self.left = dealt + again[late:]  # those dealt now come last the next time
            dealt = dealt + again[:late]
        return np.array(dealt, np.int64)

    def deal_other(self, taken: set[int]) -> int:
        """One that is not among those taken; there is to be one."""
        place = next((k for k in reversed(range(len(self.left))) if self.left[k] not in taken), None)
        if place is None:
            self.left = self._shuffled() + self.left
            place = next(k for k in reversed(range(len(self.left))) if self.left[k] not in taken)
        return self.left.pop(place)
