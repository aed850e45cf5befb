"""Whether a training that reads nothing is at its beginning, as all of CTC are, or will never read."""

from __future__ import annotations

NORMAL_STEPS = 1000  # in which nothing may be read: CRNN leaves the phase after some hundreds, small data later
_PATIENCE = 3  # validations without a lower loss, before it is said that nothing will come
_LOWER = 0.99  # times the least loss before is a lower one


class BlankWatch:
    """Follows the validations of a training, and says once that nothing is read, and once that nothing will be.

    By CTC a network first learns that most steps are blank, and reads every image as empty while its loss still falls;
    then it finds the characters within a few epochs. What does not leave that phase has a loss that stands still.
    """

    def __init__(self) -> None:
        self._least = float("inf")
        self._still = 0
        self._said: set[str] = set()

    def observe(self, empty: float, loss: float | None, steps: int) -> str | None:
        """A line after a validation, if there is something to say.

        empty: the share of images in which nothing was read. loss: of validation, None where there is none. steps: of
        training so far.
        """
        falls = loss is None or loss < _LOWER * self._least
        self._still = 0 if falls else self._still + 1
        self._least = self._least if loss is None else min(self._least, loss)
        if empty < 1:
            self._said.clear()
            return None
        if steps >= NORMAL_STEPS and self._still >= _PATIENCE:
            return self._once(
                "stuck",
                f"nothing is read after {steps:,} steps and the loss stands still: the network gives blanks alone. "
                "Raise optim.lr or warm it up longer, see whether the texts fit their images (opsin data), and whether "
                "data.size leaves characters a few pixels of width",
            )
        return self._once(
            "beginning",
            "nothing is read yet: a network first learns that most steps are blank, and reads when its loss has fallen "
            "further",
        )

    def _once(self, what: str, line: str) -> str | None:
        if what in self._said:
            return None
        self._said.add(what)
        return line
