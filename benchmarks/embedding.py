"""Triplet losses on the CPU: mining, loss and gradient, ours against pytorch-metric-learning's, the same triplets.

    python benchmarks/embedding.py [--batch 512] [--features 128] [--identities 128] [--seconds 3] [--json]

Embeddings of length 1, of so many identities with as many images each. batch_hard is BatchHardMiner, semi_hard_all is
TripletMarginMiner of type "semihard", and facenet, which has the nearest of these negatives alone, is compared with it
in time, not in value. All three are averaged with TripletMarginLoss(margin=0.2), by the mean of all terms for
batch_hard, as Hermans et al. have it, and of those that are not zero for the others. The two take turns in one process,
so that a busy moment hits both alike; ratio is the median of theirs / ours. Both use one thread.
Targets: at least 3 times as fast; value and gradient equal to 1e-6 of their size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn import functional as F

from opsin.losses import triplet_loss

MARGIN = 0.2
MININGS = {"batch_hard": True, "semi_hard_all": True, "facenet": False}  # whether the values are the same
Loss = Callable[[Tensor, Tensor], Tensor]


def theirs(mining: str) -> Loss:
    """The loss of pytorch-metric-learning, distances as the embeddings have them."""
    distance = distances.LpDistance(normalize_embeddings=False)
    hard = mining == "batch_hard"
    miner: Any = (
        miners.BatchHardMiner(distance=distance)
        if hard
        else miners.TripletMarginMiner(MARGIN, type_of_triplets="semihard", distance=distance)
    )
    reducer = reducers.MeanReducer() if hard else reducers.AvgNonZeroReducer()
    loss = losses.TripletMarginLoss(MARGIN, distance=distance, reducer=reducer)
    return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))


def ours(mining: Any) -> Loss:
    """The loss of opsin."""
    return lambda embeddings, labels: triplet_loss(embeddings, labels, margin=MARGIN, mining=mining)


def step(loss: Loss, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient."""
    value = loss(embeddings, labels)
    return value.detach(), torch.autograd.grad(value, embeddings)[0]


def measure(mining: str, embeddings: Tensor, labels: Tensor, seconds: float) -> dict[str, Any]:
    """Both in turns for a while; the first turn warms up and compares what they give, in double precision."""
    ways = {"ours": ours(mining), "theirs": theirs(mining)}
    wide = embeddings.detach().double().requires_grad_()
    found = {name: step(way, wide, labels) for name, way in ways.items()}
    (value, gradient), (other, slope) = found["ours"], found["theirs"]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        step(way, embeddings, labels)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours"]) < 5:
        for name, way in ways.items():
            start = time.perf_counter()
            step(way, embeddings, labels)
            times[name].append(time.perf_counter() - start)
    same = {"value": float((value - other).abs() / other), "gradient": float((gradient - slope).norm() / slope.norm())}
    return {
        "mining": mining,
        "ours_milliseconds": 1000 * statistics.median(times["ours"]),
        "theirs_milliseconds": 1000 * statistics.median(times["theirs"]),
        "ratio": statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True)),
        "differences": same if MININGS[mining] else None,
        "turns": len(times["ours"]),
    }


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--identities", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each mining")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(options.batch) % options.identities
    centres = torch.randn(options.identities, options.features, generator=generator)
    spread = torch.randn(options.batch, options.features, generator=generator)
    embeddings = F.normalize(centres[labels] + spread).requires_grad_()
    rows = [measure(mining, embeddings, labels, options.seconds) for mining in MININGS]
    if options.json:
        versions = {"torch": torch.__version__, "pytorch_metric_learning": pytorch_metric_learning.__version__}
        print(json.dumps({**vars(options), "rows": rows, **versions}, indent=1))
        return
    print(f"{'mining':14} {'theirs':>12} {'ours':>12} {'ratio':>7}  difference of value and gradient")
    for row in rows:
        times = f"{row['theirs_milliseconds']:9.2f} ms {row['ours_milliseconds']:9.2f} ms {row['ratio']:7.2f}"
        same = row["differences"]
        print(f"{row['mining']:14} {times}  {'-' if same is None else '{value:.1e} {gradient:.1e}'.format(**same)}")


if __name__ == "__main__":
    main()
