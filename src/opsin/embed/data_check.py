"""What `opsin data` finds of identities beside its own checks: near-duplicates, and labels that neighbours deny."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data import Source
from opsin.data.images import UnreadableImage
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.ops.nearest_neighbours import nearest_neighbours

NEAR = 12  # of 256 bits by which two near-duplicates may differ; two photographs of a face in ORL by 18 or more
AGREEING = 3  # neighbours that agree on another identity
_SIDE, _AT_ONCE = 16, 32


@dataclass
class Finding:
    """What a check found. text: a line for people."""

    text: str
    values: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return self.values

    def render(self) -> str:
        """Lines for a terminal."""
        return self.text

    def draw(self) -> None:
        """Nothing is drawn."""
        return


@dataclass(frozen=True)
class _Example:
    split: str
    name: str
    identity: str


def check(source: Source, name: str, split: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Findings by their key in JSON. options: near, and neighbours, a run or "pixels"; see the task's room."""
    found: dict[str, Any] = {}
    if options.get("near"):
        found["near_duplicates"] = find_near(source)
    if (by := options.get("neighbours")) is not None:
        found["contradicted"] = find_contradicted(source, by)
    return found


def find_near(source: Source) -> Finding:
    """Images of one split that are almost those of another: the same photograph, scaled, compressed or lightened.

    By the signs of 256 differences of neighbouring pixels of 17x16, which few changes of an image change. Equal images
    are found without this.
    """
    examples, hashes = _describe(source, _difference_hash)
    problems = []
    splits = np.array([one.split for one in examples])
    main = next(iter(source.splits))
    for key in list(source.splits)[1:]:
        inside, others = np.flatnonzero(splits == key), np.flatnonzero(splits == main)
        if not len(inside) or not len(others):
            continue
        found = nearest_neighbours(hashes[torch.from_numpy(inside)], hashes[torch.from_numpy(others)], 1)
        bits = found.distances[:, 0].square().round().long().tolist()
        for i, place, distance in zip(inside.tolist(), found.places[:, 0].tolist(), bits, strict=True):
            twin = examples[int(others[place])]
            if distance <= NEAR:
                reason = f"in {key}, almost the image {twin.name} of {twin.identity} in {main} ({distance} of 256 bits)"
                problems.append(Problem("near_duplicate", examples[i].name, reason, "warning"))
    text = f"near-duplicates between splits: {len(problems):,}"
    return Finding(text, {"count": len(problems), "bits": NEAR}, problems)


def find_contradicted(source: Source, by: str) -> Finding:
    """Images whose nearest ones, three at least, are all of one other identity: look for wrong labels among them.

    by: "pixels", grey ones of 16x16 less their mean, or a run of this task, whose embeddings tell more.
    """
    examples, points = _describe(source, _thumbnail) if by == "pixels" else _embed(source, by)
    if len(examples) <= AGREEING:
        raise InputError(
            f"{source.name} has {len(examples)} images, too few for neighbours to contradict; leave it out"
        )
    found = nearest_neighbours(points, points, AGREEING, leave_out=torch.arange(len(points)))
    problems = []
    for one, places in zip(examples, found.places.tolist(), strict=True):
        others = {examples[place].identity for place in places}
        if len(others) == 1 and one.identity not in others:
            (name,) = others
            reason = f"labelled {one.identity}, but its {AGREEING} nearest images by {by} are all of {name}"
            problems.append(Problem("contradicted_label", one.name, reason, "warning"))
    text = f"labels that their neighbours contradict: {len(problems):,} of {len(examples):,} images"
    return Finding(text, {"count": len(problems), "by": by, "neighbours": AGREEING}, problems)


def _describe(source: Source, make: Callable[[Tensor], Tensor]) -> tuple[list[_Example], Tensor]:
    """Every readable image of a known identity, and what is made of its pixels, (N, D) float32."""
    examples, rows = list[_Example](), list[Tensor]()
    for key, split in source.splits.items():
        for i in range(len(split)):
            try:
                rows.append(make(split.read(i)))
            except UnreadableImage:
                continue
            label = int(split.kind.labels[i])
            examples.append(
                _Example(key, split.name(i), str(split.kind.names[label]) if label >= 0 else "nobody known")
            )
    return examples, torch.stack(rows) if rows else torch.zeros(0, 1)


def _small(image: Tensor, height: int, width: int) -> Tensor:
    grey = image.float().mean(dim=0, keepdim=True)[None]
    return torch.nn.functional.interpolate(grey, (height, width), mode="area")[0, 0]


def _difference_hash(image: Tensor) -> Tensor:
    """(256,) float32 of 0 and 1: whether each pixel of 17x16 is lighter than the one to its left."""
    small = _small(image, _SIDE, _SIDE + 1)
    return (small[:, 1:] > small[:, :-1]).flatten().float()


def _thumbnail(image: Tensor) -> Tensor:
    """(256,) float32 of length 1: grey pixels of 16x16 less their mean."""
    small = _small(image, _SIDE, _SIDE).flatten()
    return torch.nn.functional.normalize(small - small.mean(), dim=0)


def _embed(source: Source, run: str) -> tuple[list[_Example], Tensor]:
    """The same by the embeddings of a run. Raises InputError for a run of another task."""
    from opsin.engine.predict import load

    predictor: Any = load(run)
    if predictor.recipe.task != "embed":
        raise InputError(f"{run} is of the task {predictor.recipe.task}; give a run of embed, or pixels")
    examples, rows = list[_Example](), list[Tensor]()
    for key, split in source.splits.items():
        names, images = list[_Example](), list[Tensor]()
        for i in range(len(split)):
            try:
                images.append(split.read(i))
            except UnreadableImage:
                continue
            label = int(split.kind.labels[i])
            names.append(_Example(key, split.name(i), str(split.kind.names[label]) if label >= 0 else "nobody known"))
            if len(images) == _AT_ONCE or i + 1 == len(split):
                rows += [torch.from_numpy(one.embedding) for one in predictor.predict(images)]
                images = []
        rows += [torch.from_numpy(one.embedding) for one in predictor.predict(images)] if images else []
        examples += names
    return examples, torch.stack(rows) if rows else torch.zeros(0, 1)
