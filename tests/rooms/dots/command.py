"""`opsin count-dots`."""

from __future__ import annotations


def count_dots(run: str, image: str) -> None:
    """How many dots an image shows, and nothing else."""
    import opsin

    print(f"{opsin.load(run).predict(image, round=True)['count']:.0f}")
