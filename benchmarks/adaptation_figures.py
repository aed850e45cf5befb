"""The figures of the pages on adaptation: distributions of two classes in two domains, before and after.

    python benchmarks/adaptation_figures.py docs/images

What is drawn after is computed: features by `coral_map` and a shift of means, weights by `density_ratio`, the rest as
the pages describe it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from opsin.adapt.coral import coral_map
from opsin.adapt.selection import density_ratio

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "opsin"
from matplotlib.figure import Figure  # noqa: E402 - after the backend is chosen

BLUE, ORANGE, GREY = "#3465a4", "#d9822b", "#8a8f98"
COUNT = 90


def draw_domains(turned: float, moved: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes, (2 COUNT, 2), turned by an angle and moved, and their classes."""
    random = np.random.RandomState(seed)
    points = np.concatenate([random.randn(COUNT, 2) * (0.9, 0.3) + (0, side) for side in (-0.8, 0.8)])
    turn = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
    return points @ turn + moved, np.repeat([0, 1], COUNT)


def scatter(axes: Any, points: np.ndarray, classes: np.ndarray, source: bool, sizes: Any = 14) -> None:
    for label, colour in ((0, BLUE), (1, ORANGE)):
        rows = classes == label
        size = sizes[rows] if isinstance(sizes, np.ndarray) else sizes
        fill = {"color": colour} if source else {"facecolors": "none", "edgecolors": colour}
        axes.scatter(*points[rows].T, s=size, marker="o" if source else "s", linewidths=0.9, alpha=0.8, **fill)


def frame(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", color="#333333")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#cccccc")


def two_panels() -> tuple[Figure, Any]:
    canvas = Figure(figsize=(7.2, 3.0), layout="constrained")
    return canvas, canvas.subplots(1, 2, sharex=True, sharey=True)


def features(folder: Path) -> None:
    canvas, (before, after) = two_panels()
    source, classes = draw_domains(0.0, (0, 0), 0)
    target, others = draw_domains(0.5, (1.2, 0.9), 1)
    centre = source.mean(axis=0)
    mapped = coral_map(source - centre, target - target.mean(axis=0), 0.01) + target.mean(axis=0)
    for axes, points, title in (
        (before, source, "before: filled is the source, and its boundary"),
        (after, mapped, "after: the source with the target's mean and covariance"),
    ):
        scatter(axes, points, classes, True)
        scatter(axes, target, others, False)
        means = [points[classes == k].mean(axis=0) for k in (0, 1)]
        middle, normal = sum(means) / 2, means[1] - means[0]
        along = np.array([normal[1], -normal[0]]) / np.linalg.norm(normal)
        axes.plot(*np.stack([middle - 2.6 * along, middle + 2.6 * along]).T, color=GREY, linewidth=1, linestyle="--")
        frame(axes, title)
    canvas.savefig(folder / "adaptation_features.svg", metadata={"Date": None})


def instances(folder: Path) -> None:
    canvas, (before, after) = two_panels()
    random = np.random.RandomState(2)
    source, target = random.randn(160, 2), random.randn(90, 2) * 0.6 + (1.1, 0.4)
    classes, others = ((points[:, 1] > 0.4 * points[:, 0] ** 2).astype(int) for points in (source, target))
    weights = density_ratio(source, target, source)
    weights = (weights / weights.mean()).clip(0, 5)  # the method has a limit, too
    for axes, sizes, title in (
        (before, 14, "before: each source image counts as one"),
        (after, 14 * weights, "after: as much as it is like the target's, at most five"),
    ):
        scatter(axes, source, classes, True, sizes)
        scatter(axes, target, others, False)
        frame(axes, title)
    canvas.savefig(folder / "adaptation_instances.svg", metadata={"Date": None})


def parameters(folder: Path) -> None:
    canvas = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = canvas.subplots()
    rungs = ["linear_probe", "last_block", "gradual_unfreezing", "l2_sp", "source_only"]
    layers = ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "last layer"]
    trained = [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1], [0.35, 0.5, 0.65, 0.8, 0.9, 1], [0.3] * 5 + [1], [1] * 6]
    for row, shares in enumerate(trained):
        for column, share in enumerate(shares):
            axes.barh(-row, 0.94, left=column, height=0.8, color=BLUE, alpha=0.08 + 0.8 * share)
    axes.set_yticks([-k for k in range(len(rungs))], rungs, fontsize=8)
    axes.set_xticks([k + 0.47 for k in range(len(layers))], layers, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title(
        "how free each layer is: pale stays as it was, dark is trained", fontsize=9, loc="left", color="#333"
    )
    for side in axes.spines.values():
        side.set_visible(False)
    canvas.savefig(folder / "adaptation_parameters.svg", metadata={"Date": None})


def generalisation(folder: Path) -> None:
    canvas, panels = two_panels()
    random = np.random.RandomState(4)
    for axes, agrees, title in (
        (panels[0], 0.9, "source 1: across predicts 90 %, up predicts 75 %"),
        (panels[1], 0.1, "a domain not seen: across 10 %, up 75 %"),
    ):
        classes = random.randint(0, 2, 2 * COUNT)
        shape = np.where(random.rand(len(classes)) < 0.75, classes, 1 - classes)
        shortcut = np.where(random.rand(len(classes)) < agrees, classes, 1 - classes)
        points = np.stack([shortcut, shape], axis=1) * 2 - 1 + 0.3 * random.randn(len(classes), 2)
        scatter(axes, points, classes, agrees > 0.5)
        axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
        axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
        frame(axes, title)
    canvas.savefig(folder / "adaptation_generalisation.svg", metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    place = parser.parse_args().folder
    for one in (features, instances, parameters, generalisation):
        one(place)
