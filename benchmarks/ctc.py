"""CTC prefix beam search: ours against a plain search in Python, and pyctcdecode where it is installed.

    python benchmarks/ctc.py [--steps 80] [--classes 37] [--width 100] [--sequences 3] [--json]

Outputs are softmax of random numbers, flat (as a network gives at the start of its training) and sharp (as at its end).
All see the same outputs; the best strings must be equal. Ours is measured one sequence at a time and all in a batch.
Target: at least 50 times as fast as the plain search. Edit distances of 20,000 pairs of words are measured beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from opsin.ops import ctc_prefix_beam, edit_distance, edit_distances

SHARPNESS = {"flat": 1.0, "sharp": 6.0}


def log_sum(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def plain_prefix_beam(log_probs: list[list[float]], width: int) -> tuple[int, ...]:
    """Hannun et al. 2014, algorithm 1 without a language model: the best prefix. The blank is class 0."""
    beam = {(): (0.0, -math.inf)}
    for row in log_probs:
        found: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (ends_blank, ends_label) in beam.items():
            total = log_sum(ends_blank, ends_label)
            stay = found[prefix]
            stay[0] = log_sum(stay[0], total + row[0])
            last = prefix[-1] if prefix else 0
            for label in range(1, len(row)):
                longer = found[(*prefix, label)]
                if label == last:
                    stay[1] = log_sum(stay[1], ends_label + row[label])
                    longer[1] = log_sum(longer[1], ends_blank + row[label])
                else:
                    longer[1] = log_sum(longer[1], total + row[label])
        best = sorted(found.items(), key=lambda item: log_sum(*item[1]), reverse=True)[:width]
        beam = {prefix: (ends[0], ends[1]) for prefix, ends in best}
    return next(iter(beam))


def pyctcdecode_search(classes: int, width: int) -> Callable[[Tensor], str] | None:
    """The search of pyctcdecode with nothing pruned but the beam, None where it is not installed."""
    try:
        from pyctcdecode import build_ctcdecoder  # type: ignore[import-not-found]
    except ImportError:
        return None
    decoder = build_ctcdecoder(["", *(chr(0x4E00 + label) for label in range(1, classes))])
    limits = {"beam_width": width, "beam_prune_logp": -1e9, "token_min_logp": -1e9}
    return lambda log_probs: decoder.decode(log_probs.numpy(), **limits)


def timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds, and what it gave."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def measure_beam(name: str, options: argparse.Namespace) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(options.steps, options.sequences, options.classes, generator=generator) * SHARPNESS[name]
    log_probs = logits.log_softmax(2)
    singles = log_probs.split(1, dim=1)
    ctc_prefix_beam(singles[0], width=options.width)  # warm up
    plain_seconds, ours_seconds, same = [], [], []
    for single in singles:  # in turns
        rows = single[:, 0].double().tolist()
        seconds, expected = timed(lambda rows=rows: plain_prefix_beam(rows, options.width), 1)
        plain_seconds.append(seconds)
        seconds, found = timed(lambda single=single: ctc_prefix_beam(single, width=options.width), 7)
        ours_seconds.append(seconds)
        same.append(tuple(found[0][0].labels) == expected)
    batch = log_probs.repeat(1, max(1, 16 // options.sequences), 1)
    batch_seconds, _ = timed(lambda: ctc_prefix_beam(batch, width=options.width), 3)
    result = {
        "outputs": name,
        "plain_milliseconds": 1000 * statistics.median(plain_seconds),
        "ours_milliseconds": 1000 * statistics.median(ours_seconds),
        "ours_in_a_batch_milliseconds": 1000 * batch_seconds / batch.shape[1],
        "ratio": statistics.median(a / b for a, b in zip(plain_seconds, ours_seconds, strict=True)),
        "same_best_strings": all(same),
    }
    other = pyctcdecode_search(options.classes, options.width)
    if other is not None:
        result["pyctcdecode_milliseconds"] = 1000 * timed(lambda: other(singles[0][:, 0]), 3)[0]
    return result


def plain_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def measure_distances() -> dict[str, Any]:
    """Words of 3 to 12 letters and what a reader may have read: microseconds for each pair."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 12))) for _ in range(20_000)]
    read = ["".join(draw.choice([c, c, c, c, "", "x"]) for c in word) for word in words]
    pairs = list(zip(words, read, strict=True))
    plain, expected = timed(lambda: [plain_distance(a, b) for a, b in pairs[:1000]], 1)
    single, singles = timed(lambda: [edit_distance(a, b) for a, b in pairs], 3)
    batch, distances = timed(lambda: edit_distances(words, read), 3)
    return {
        "plain_microseconds": 1e3 * plain,
        "one_by_one_microseconds": 1e6 * single / len(pairs),
        "batch_microseconds": 1e6 * batch / len(pairs),
        "same": distances.tolist() == singles and singles[:1000] == expected,
    }


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--classes", type=int, default=37)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--sequences", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure_beam(name, options) for name in SHARPNESS]
    distances = measure_distances()
    if options.json:
        sizes = {name: getattr(options, name) for name in ("steps", "classes", "width")}
        print(json.dumps({**sizes, "beam": rows, "edit_distance": distances}, indent=1))
        return
    for row in rows:
        print(f"{row['outputs']:5} outputs, T={options.steps}, {options.classes} classes, width {options.width}:")
        print(f"  plain {row['plain_milliseconds']:.0f} ms, ours {row['ours_milliseconds']:.2f} ms a sequence", end="")
        print(f" ({row['ours_in_a_batch_milliseconds']:.2f} ms in a batch), ratio {row['ratio']:.0f} (target 50)")
        other = row.get("pyctcdecode_milliseconds")
        print(f"  pyctcdecode {other:.0f} ms" if other else "  pyctcdecode is not installed", end="; ")
        print("the same best strings" if row["same_best_strings"] else "DIFFERENT best strings")
    plain, single, batch = (distances[f"{name}_microseconds"] for name in ("plain", "one_by_one", "batch"))
    print(f"edit distance of two words: plain {plain:.1f} us, one by one {single:.1f} us, in a batch {batch:.1f} us")


if __name__ == "__main__":
    main()
