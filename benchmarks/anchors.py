"""k-means anchors of 100,000 boxes: seconds, and how well they fit, beside scikit-learn's k-means of squared distances.

    python benchmarks/anchors.py [--boxes 100000] [--json]

Sizes are log-normal, as those of data sets are: a few octaves around 50 pixels, sides correlated. Fit is the mean IoU
of each box with its best anchor. Target: seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from opsin.ops import box_area, kmeans_anchors, pairwise_iou


def make_sizes(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    scale, shape = torch.randn(2, count, generator=generator)
    return torch.exp(torch.stack([scale * 0.9 + shape * 0.3, scale * 0.9 - shape * 0.3], dim=1)) * 50


def fit(sizes: Tensor, anchors: Tensor) -> float:
    """Mean IoU with the best anchor, of boxes with one corner in common, which is that of boxes on one centre."""
    boxes, others = (torch.cat([torch.zeros_like(sides), sides], dim=1) for sides in (sizes, anchors))
    assert (box_area(boxes) > 0).all()
    return float(pairwise_iou(boxes, others).max(dim=1).values.mean())


def measure(sizes: Tensor, k: int) -> list[dict[str, Any]]:
    ways: dict[str, Callable[[], Tensor]] = {
        "1 - IoU, means": lambda: kmeans_anchors(sizes, k, centre="mean").sizes,
        "1 - IoU, medians": lambda: kmeans_anchors(sizes, k).sizes,
        "squared distance (scikit-learn)": lambda: torch.from_numpy(
            KMeans(k, n_init=3, random_state=0).fit(sizes.numpy()).cluster_centers_  # type: ignore[arg-type]
        ),
    }
    rows = []
    for name, way in ways.items():
        start = time.perf_counter()
        anchors = way()
        rows.append({"k": k, "way": name, "seconds": time.perf_counter() - start, "mean_iou": fit(sizes, anchors)})
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = make_sizes(options.boxes)
    rows = [row for k in (5, 9) for row in measure(sizes, k)]
    if options.json:
        print(json.dumps({"boxes": options.boxes, "threads": torch.get_num_threads(), "rows": rows}, indent=1))
        return
    for row in rows:
        print(f"k={row['k']} {row['way']:32} {row['seconds']:6.2f} s   mean IoU {row['mean_iou']:.4f}")


if __name__ == "__main__":
    main()
