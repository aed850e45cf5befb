"""What a training says, kept in its folder in the place of the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def train_log(folder: Path, say: Callable[[str], None]) -> Callable[[str], None]:
    """A `say` that writes lines to train.log of the folder. say: for the answer to who has just pressed Ctrl-C."""

    def write(line: str) -> None:
        if "Ctrl-C" in line:
            say(line)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    return write
