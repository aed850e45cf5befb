"""How the embeddings of a training lie, epoch by epoch; and whether they have collapsed to one place, which ends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opsin.engine.charts import LINES, Canvas
from opsin.engine.charts import image as draw_image
from opsin.engine.report import Figure, Section
from opsin.errors import JobError
from opsin.files import atomic, load_json, read_regular
from opsin.losses.triplets import mined_gaps

FOLDER = "embedding"  # of a run: a file an epoch
_LOOKED_AT = 1000  # embeddings of an epoch, evenly spread over the split
_COLLAPSED = 1e-3  # distance of two identities, as a share of the length of embeddings
_PATIENCE = 2  # epochs in which it holds before the training is stopped
_MOST_FRAMES = 40


class CollapsedError(JobError):
    """All embeddings of a training lie at one place."""


@dataclass(frozen=True)
class Spread:
    """How embeddings lie. None where there is no pair of a kind.

    deviation: the root of the mean squared distance to their mean, as a share of the root of the mean squared length.
    effective_rank: exp of the entropy of the singular values' shares, from 1, all on a line, to the features (Roy and
    Vetterli 2007, EUSIPCO). same, different: mean distances of pairs of one identity, and of two. active: the share of
    anchors whose hardest triplet violates the margin. within_between: the mean distance of an embedding to the centre
    of its identity over that of two centres, of identities with two images or more.
    """

    deviation: float
    effective_rank: float
    length: float
    same: float | None = None
    different: float | None = None
    active: float | None = None
    within_between: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether two identities are nowhere: nearer to each other than a thousandth of the length, or than 1e-4."""
        return self.different is not None and self.different < max(_COLLAPSED * self.length, 1e-4)


def measure_spread(embeddings: Tensor, labels: Tensor, margin: float = 0.0) -> Spread:
    """How decoded embeddings (N, D) of identities (N,) lie. margin: of active triplets, of plain distances."""
    known = labels >= 0
    embeddings, labels = embeddings[known].double(), labels[known]
    centred = embeddings - embeddings.mean(dim=0)
    length = float(embeddings.square().sum(dim=1).mean().sqrt())
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp(min=1e-30)
    entropy = float(-(shares * shares.clamp(min=1e-30).log()).sum())
    spread = float(centred.square().sum(dim=1).mean().sqrt()) / max(length, 1e-30)
    distances = torch.cdist(embeddings, embeddings)
    equal = labels[:, None] == labels
    upper = torch.ones_like(equal).triu(1)
    gaps, valid = mined_gaps(embeddings, labels)
    return Spread(
        spread,
        float(torch.tensor(entropy).exp()) if float(values.sum()) > 0 else 0.0,
        length,
        _mean(distances[equal & upper]),
        _mean(distances[~equal & upper]),
        _mean((gaps > -margin).double()[valid]),
        within_between(embeddings, labels),
    )


def within_between(embeddings: Tensor, labels: Tensor) -> float | None:
    """The mean distance of embeddings to the centre of their identity, over the mean distance of two centres.

    (N, D), (N,); of identities with two embeddings or more. None where there are not two such identities. The less, the
    more compact identities are; the measure of centre loss.
    """
    names, number, counts = labels.unique(return_inverse=True, return_counts=True)
    several = (counts > 1) & (names >= 0)
    if int(several.sum()) < 2:
        return None
    centres = torch.zeros(len(names), embeddings.shape[1], dtype=embeddings.dtype).index_add_(0, number, embeddings)
    centres = centres / counts[:, None]
    within = (embeddings - centres[number]).norm(dim=1)[several[number]].mean()
    between = torch.pdist(centres[several]).mean()
    return float(within / between) if float(between) > 0 else None


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


@dataclass
class EmbeddingHistory:
    """What is kept of each epoch, in a file of its own, so that a resumed training has it too.

    rows: epoch -> its values; points, where embeddings are of two numbers: [x, y, identity].
    """

    folder: Path | None = None
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    def load(self, before: int) -> None:
        """Take up the epochs before one from the folder; what cannot be read is left out."""
        for path in sorted(self.folder.glob("epoch_*.json")) if self.folder is not None else []:
            number = path.stem.removeprefix("epoch_")
            if number.isdigit() and int(number) < before and int(number) not in self.rows:
                try:
                    found = load_json(read_regular(path, 1 << 24))
                except (OSError, ValueError):
                    continue
                if isinstance(found, dict):
                    self.rows[int(number)] = found

    def add(self, epoch: int, embeddings: Tensor, labels: Tensor, margin: float, *, write: bool = True) -> None:
        """Keep an epoch, and raise CollapsedError where the embeddings have collapsed and stayed so."""
        self.load(epoch)
        count = len(embeddings)
        chosen = torch.linspace(0, count - 1, min(count, _LOOKED_AT)).round().long()
        embeddings, labels = embeddings[chosen], labels[chosen]
        if count < 2 or not bool(torch.isfinite(embeddings).all()):
            return  # broken weights are said by others
        spread = measure_spread(embeddings, labels, margin)
        row: dict[str, Any] = {**asdict(spread), "collapsed": spread.collapsed}
        if embeddings.shape[1] == 2:
            row["points"] = [
                [round(x, 5), round(y, 5), k] for (x, y), k in zip(embeddings.tolist(), labels.tolist(), strict=True)
            ]
        self.rows[epoch] = row
        if write and self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic(self.folder / f"epoch_{epoch:04d}.json", flush=False) as temporary:
                temporary.write_text(json.dumps(row), encoding="utf-8")
        if all(self.rows.get(epoch - k, {}).get("collapsed") for k in range(_PATIENCE)):
            raise CollapsedError(describe_collapse(spread, epoch))

    def sections(self) -> list[Section]:
        """The report's charts of the epochs, and the plane of embeddings, animated, where they are of two numbers."""
        if not self.rows:
            return []
        return [*_charts(self.rows), *_animation(self.rows)]


def describe_collapse(spread: Spread, epoch: int) -> str:
    """What has happened, and the usual remedies."""
    return (
        f"the embeddings have collapsed: after epoch {epoch} two identities are {spread.different:.2g} apart, of a "
        f"length of {spread.length:.2g}; every image is the same to the network, and more training seldom helps. Lower "
        "optim.lr or warm it up longer (schedule.warmup_epochs), begin with easier triplets (loss.mining=semi_hard or "
        "batch_all in the place of batch_hard), take more identities into a batch (train.batch_size), or begin with "
        "published weights"
    )


def _charts(rows: dict[int, dict[str, Any]]) -> list[Section]:
    from opsin.engine.charts import lines

    def series(*names: str) -> dict[str, tuple[list[float], list[float]]]:
        found = {}
        for name in names:
            kept = [(epoch, row[name]) for epoch, row in sorted(rows.items()) if row.get(name) is not None]
            if kept:
                found[name.replace("_", " ")] = ([float(e) for e, _ in kept], [float(v) for _, v in kept])
        return found

    parts = (
        ("Distances", ("same", "different"), "Mean distances of pairs of one identity, and of two."),
        ("Effective rank", ("effective_rank",), "How many directions embeddings spread into; 1 is a line."),
        ("Active triplets", ("active",), "Anchors whose hardest triplet still violates the margin."),
    )
    return [
        Figure(title, lines(found, percent=names == ("active",)), caption)
        for title, names, caption in parts
        if (found := series(*names))
    ]


def _animation(rows: dict[int, dict[str, Any]]) -> list[Section]:
    """An animated PNG: a frame for each of at most 40 epochs, evenly spread, the last one held."""
    import io

    epochs = [epoch for epoch, row in sorted(rows.items()) if row.get("points")]
    if not epochs:
        return []
    places = torch.linspace(0, len(epochs) - 1, min(len(epochs), _MOST_FRAMES)).round().long().unique().tolist()
    points = torch.tensor([p for k in places for p in rows[epochs[k]]["points"]], dtype=torch.float64)
    reach = float(points[:, :2].abs().flatten().quantile(0.995)) or 1.0
    frames = [draw_image(_plane(rows[epochs[k]]["points"], epochs[k], reach), 4.6, 4.6) for k in places]
    buffer = io.BytesIO()
    times = [400] * (len(frames) - 1) + [2500]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=times, loop=0)
    caption = "Embeddings of the validation split on the plane, a frame an epoch; a colour an identity."
    return [Figure("The embedding, epoch by epoch", buffer.getvalue(), caption)]


_COLOURS = (*LINES, "#e69f00", "#cc79a7", "#8c564b", "#7f7f7f", "#bcbd22")  # of ten classes, as of digits


def _plane(points: Sequence[Sequence[float]], epoch: int, reach: float) -> Any:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for number in sorted({int(k) for _, _, k in points}):
            own = [(x, y) for x, y, k in points if k == number]
            colour = _COLOURS[number % len(_COLOURS)]
            axes.scatter([x for x, _ in own], [y for _, y in own], s=6, color=colour, linewidths=0)
        axes.set_xlim(-1.05 * reach, 1.05 * reach)
        axes.set_ylim(-1.05 * reach, 1.05 * reach)
        axes.set_aspect("equal")
        axes.set_title(f"epoch {epoch}")

    return draw
