"""Digests of a split: of what they are, and that they stay what they were, for files on disk are known by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from opsin import data
from opsin.data.boxes import Boxes
from opsin.data.fingerprint import fingerprint, identify
from opsin.data.inputs import ImageArray, ImageFiles
from opsin.data.labels import ClassLabels
from opsin.data.source import Split
from opsin.structures import Instances


def images(count: int, reach: float = 12.0) -> Split:
    """Noise, with an object each."""
    pixels = torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    middle = Instances(torch.tensor([[6.0, 6.0, reach, 18.0]]), torch.tensor([1]))
    return Split(ImageArray(pixels, "noise"), Boxes.of([middle] * count, ["a", "b"]))


def test_the_fingerprint_is_of_pixels_and_order() -> None:
    split = images(4)
    assert fingerprint(split) == fingerprint(images(4))
    assert fingerprint(split) == fingerprint(split.with_truth(split.kind.relabel([1, 0], "cd")))
    prints = {fingerprint(split.subset(places)) for places in ([0, 1], [1, 0], [0], [])}
    assert len(prints | {fingerprint(split)}) == 5


def test_files_are_known_by_their_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path, content in zip(paths, (b"one", b"two"), strict=True):
        path.write_bytes(content)
    first = fingerprint(Split(ImageFiles([str(p) for p in paths])))
    paths[0].rename(tmp_path / "c.png")
    assert fingerprint(Split(ImageFiles([str(tmp_path / "c.png"), str(paths[1])]))) == first
    paths[1].write_bytes(b"too")
    assert fingerprint(Split(ImageFiles([str(tmp_path / "c.png"), str(paths[1])]))) != first


def test_all_that_is_known_counts() -> None:
    split = images(3)
    turned = split.with_truth(split.kind.relabel([1, 0], "cd"))
    assert identify(split) == identify(images(3))
    assert len({identify(one) for one in (split, images(3, reach=13.0), turned, images(2))}) == 4
    first, second = (
        Split(split.inputs, ClassLabels(np.array(labels), ["a", "b", "c"])) for labels in ([0, 1, 2], [0, 1, 1])
    )
    assert identify(first) != identify(second)


def test_the_digest_of_a_detection_split_stays_what_it_was() -> None:
    """Trainings in stages that were cut off go on by it: these were made by the first version."""
    objects = [Instances(torch.tensor([[0.0, 0.0, 4.0 + i, 4.0]]), torch.tensor([i])) for i in range(3)]
    pixels = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    made = Split(ImageArray(pixels, "made"), Boxes.of(objects, ["a", "b", "c"]))
    assert identify(made) == "edf3daf9d45093ca29122a88360d1e6e0a9944e3552b8a74be414a0eab60c6e0"
    scenes = data.open("scenes:4", "detect").splits["train"]
    assert identify(scenes) == "df755fcf9ff791ec53f212a30e110a241fb816216ea9535bb2b4f7fbdc9ded0d"
