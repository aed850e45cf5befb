"""An embedder's part of the report: distances, the embedding drawn, the worst pairs, few-shot accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from PIL import Image

from opsin.data import Split
from opsin.data.drawing import enlarge, shorten, to_pil, to_tensor
from opsin.data.images import UnreadableImage
from opsin.embed.comparison import Comparison
from opsin.embed.evidence import Evidence
from opsin.embed.projection import neighbour_embedding, principal_components
from opsin.embed.retrieval import LONGEST, Retrieval
from opsin.embed.thresholds import Threshold
from opsin.engine import charts
from opsin.engine.evaluator import Result
from opsin.engine.report import Figure, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError

_POINTS = 400  # that are drawn, and of which neighbours are laid out: a second
_COLOURED = 10  # identities with a colour of their own, those of most images
_PANEL = 128  # pixels of each image of a pair
_RATES = (1e-4, 1.0)
_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b0609a",
    "#56b4e9",
    "#e69f00",
    "#94a03a",
    "#8c564b",
    "#4b5bb5",
    "#7f7f7f",
)
_MEANING = {
    "auc": "area under the ROC curve: how often a pair of the same identity is nearer than one of two",
    "eer": "equal error rate: where as many pairs of two are accepted as of the same are rejected",
    "tar@far=": "true accept rate: pairs of the same that are accepted where so many of two identities are",
    "tar@threshold": "pairs of the same that the fitted threshold accepts on these people",
    "far@threshold": "pairs of two identities that it accepts on these people",
    "recall@": "queries with one of their identity among the K nearest images",
    "r_precision": "of the R nearest images the share of the query's identity, of which there are R others",
    "map@r": "mean over these R ranks of the precision so far where the rank is right, 0 where not",
    "nmi": "normalised mutual information of k-means clusters and identities",
    "fold_accuracy": "share of pairs told right, each fold by the threshold that is best on the others",
    "one_shot_accuracy": "queries whose nearest support, of those of their run, is of their class",
    "hausdorff_one_shot_accuracy": "the same by the modified Hausdorff distance of the ink, which learns nothing",
    "hausdorff_5way_1shot_accuracy": "five classes drawn of all runs, by the modified Hausdorff distance of the ink",
    "shot_accuracy": "queries of the right identity in episodes of so many identities and images of each",
}


def sections(result: Result, split: Split, threshold: Threshold | None = None) -> list[Section]:
    """What is drawn of an evaluated split."""
    evidence: Evidence = result.evidence
    found: list[Section] = []
    if evidence.comparison is not None:
        found += [distances_figure(evidence.comparison, threshold), roc_figure(evidence.comparison)]
    if evidence.retrieval is not None:
        found.append(matches_figure(evidence.retrieval))
    found += embedding_figures(evidence.embeddings.numpy(), evidence.identities, split)
    if evidence.shots:
        found.append(shots_table(evidence))
    if evidence.comparison is not None:
        found += pair_galleries(evidence.comparison, split)
    rows = [[name, text] for name in result.metrics for start, text in _MEANING.items() if start in name]
    found.append(Table("How to read the numbers", ["metric", "meaning"], list({row[0]: row for row in rows}.values())))
    return found


def distances_figure(comparison: Comparison, threshold: Threshold | None = None) -> Figure:
    """Histograms of the distances of both kinds of pairs, each as shares of its own."""
    middle = (comparison.edges[:-1] + comparison.edges[1:]) / 2
    width = float(comparison.edges[1] - comparison.edges[0])

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for counts, colour, name in (
            (comparison.same, charts.BLUE, f"the same ({int(comparison.same.sum()):,})"),
            (comparison.different, charts.ORANGE, f"two identities ({int(comparison.different.sum()):,})"),
        ):
            shares = 100 * counts / max(1, counts.sum())
            axes.bar(middle, shares, width, color=colour, alpha=0.6, label=name)
        if threshold is not None:
            axes.axvline(threshold.distance, color=charts.INK, linestyle="--", linewidth=1.2, label="threshold")
        axes.set(xlabel="distance", ylabel="pairs, in %")
        axes.legend(fontsize=9)

    far = "" if threshold is None else " The dashed line is the fitted threshold."
    return Figure("Distances of pairs", charts.svg(paint), f"Where the two overlap no threshold is right.{far}")


def roc_figure(comparison: Comparison) -> Figure:
    """The true accept rate over the false accept rate, which is logarithmic."""
    roc = comparison.roc
    low = max(_RATES[0], 1 / max(1, roc.different))

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.plot(np.maximum(roc.far, low / 10), 100 * roc.tar, color=charts.BLUE)
        rate, _ = roc.equal_error()
        axes.plot([rate], [100 * (1 - rate)], "o", color=charts.ORANGE, label=f"equal error rate {100 * rate:.1f} %")
        axes.set(
            xscale="log",
            xlim=(low, 1.0),
            ylim=(0, 101),
            xlabel="false accept rate",
            ylabel="accepted of the same, in %",
        )
        ticks = [10.0**k for k in range(math.ceil(math.log10(low)), 1)]
        axes.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.legend(fontsize=9, loc="lower right")

    return Figure("Verification", charts.svg(paint), f"ROC curve; its area is {roc.auc:.4f}.")


def matches_figure(retrieval: Retrieval) -> Figure:
    """Cumulative matches: queries with one of their identity among the first k."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.plot(range(1, LONGEST + 1), 100 * retrieval.matches, marker="o", markersize=4, color=charts.BLUE)
        axes.set(
            xlabel="rank", ylabel="queries with a match, in %", ylim=(min(98.0, 100 * retrieval.matches[0] - 1), 100.5)
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    lone = f" {retrieval.lone:,} images are alone of their identity, and no query." if retrieval.lone else ""
    return Figure("Retrieval", charts.svg(paint), f"Cumulative matches of {len(retrieval.queries):,} queries.{lone}")


def embedding_figures(embeddings: np.ndarray, identities: np.ndarray, split: Split) -> list[Section]:
    """The embedding drawn: its principal components, or itself where it is a plane, and by t-SNE."""
    known = np.flatnonzero(identities >= 0)
    if len(known) < 3:
        return []
    numbers, counts = np.unique(identities[known], return_counts=True)
    order = numbers[np.argsort(-counts, kind="stable")][:_COLOURED]
    shown = _spread(known, identities, _POINTS)
    points, labels = embeddings[shown].astype(np.float64), identities[shown]
    names = [shorten(str(split.kind.names[k]), 20) for k in order.tolist()]
    if points.shape[1] == 2:
        return [
            _scatter("The embedding", points, labels, order, names, "Each point is an image; colours are identities.")
        ]
    flat, share = principal_components(points)
    caption = f"Onto the two directions of most variance, {100 * share[0]:.0f} and {100 * share[1]:.0f} % of it."
    found: list[Section] = [_scatter("Principal components", flat, labels, order, names, caption)]
    if points.std() > 0:
        caption = "Near points are near in the embedding; how far groups lie apart says little."
        found.append(_scatter("t-SNE", neighbour_embedding(points), labels, order, names, caption))
    return found


def _spread(known: np.ndarray, identities: np.ndarray, most: int) -> np.ndarray:
    """At most `most` places, of those of the identities with the most images all first."""
    if len(known) <= most:
        return known
    return np.sort(np.random.RandomState(0).permutation(known)[:most])


def _scatter(
    title: str, points: np.ndarray, labels: np.ndarray, order: np.ndarray, names: Sequence[str], caption: str
) -> Figure:
    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        rest = ~np.isin(labels, order)
        axes.scatter(*points[rest].T, s=7, color=charts.MUTED, alpha=0.35, linewidths=0)
        for colour, label, name in zip(_COLOURS, order.tolist(), names, strict=False):
            chosen = labels == label
            if chosen.any():
                axes.scatter(*points[chosen].T, s=14, color=colour, linewidths=0, label=name)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))

    others = " Grey: all others." if (~np.isin(labels, order)).any() else ""
    return Figure(title, charts.svg(paint, 6.0, 4.2), caption + others)


def shots_table(evidence: Evidence) -> Table:
    """Few-shot accuracy with its interval."""
    rows = [
        [name.replace("_", " "), f"{100 * one.accuracy:.2f} %", f"{100 * one.interval:.2f} %", len(one.right)]
        for name, one in evidence.shots.items()
    ]
    note = "The interval holds the true value with 95 %, if trials are independent."
    return Table("Few-shot learning", ["protocol", "accuracy", "+-", "trials or episodes"], rows, note)


def pair_galleries(comparison: Comparison, split: Split) -> list[Section]:
    """The pairs that mislead most: the nearest of two identities, and the farthest of the same."""
    found: list[Section] = []
    for title, pairs, note in (
        ("Nearest pairs of two identities", comparison.alike, "Look for wrong labels among them: one person twice."),
        ("Farthest pairs of the same identity", comparison.unlike, "Look for wrong labels, and for what changed."),
    ):
        items = [item for one in pairs if (item := _pair(one, split)) is not None]
        found.append(Gallery(title, items, note, large=True) if items else Text(title, "None can be shown."))
    return found


def _pair(pair: tuple[float, int, int], split: Split) -> GalleryItem | None:
    distance, *places = pair
    try:
        images = [enlarge(to_pil(split.read(i)), _PANEL)[0] for i in places]
    except (UnreadableImage, InputError):  # moved or lost since it was evaluated
        return None
    for image in images:
        image.thumbnail((_PANEL, _PANEL), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (sum(one.width for one in images) + 4, max(one.height for one in images)), (255, 255, 255))
    whole.paste(images[0], (0, 0))
    whole.paste(images[1], (images[0].width + 4, 0))
    labels = split.kind.labels
    names = dict.fromkeys(
        str(split.kind.names[labels[i]]) if labels[i] >= 0 else Path(split.name(i)).name for i in places
    )
    return GalleryItem(to_tensor(whole), f"{distance:.3f}\n{shorten(' and '.join(names), 60)}")
