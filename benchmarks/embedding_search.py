"""Recall@1 and MAP@R of embeddings on the CPU: exact search of ours against pytorch-metric-learning's with FAISS.

    python benchmarks/embedding_search.py [--classes 6000] [--each 10] [--features 128] [--rounds 3] [--json]

Embeddings of so many classes with as many images each, every image a query among all others. Theirs is
AccuracyCalculator with its default search, FAISS's IndexFlatL2, ours `opsin.embed.retrieval.retrieve`; both give
precision@1, R-precision and MAP@R, which have to be equal. The two take turns; ratio is the median of theirs / ours in
processor time, with one thread each. memory is what ours takes beside the embeddings, in MiB, of a process of its own.
Target: at least as fast, in flat memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before FAISS and torch read it

import torch
from torch import Tensor

from opsin.embed.retrieval import retrieve


def make(classes: int, each: int, features: int) -> tuple[Tensor, Tensor]:
    """Embeddings about centres at random, and their classes."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, features, generator=generator).repeat_interleave(each, 0)
    noise = torch.randn(classes * each, features, generator=generator)
    return centres + 1.5 * noise, torch.arange(classes).repeat_interleave(each)


def ours(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """precision@1, R-precision and MAP@R by opsin."""
    found = retrieve(embeddings, labels.numpy()).metrics()
    return {"precision_at_1": found["recall@1"], "r_precision": found["r_precision"], "map_at_r": found["map@r"]}


def theirs(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """The same by pytorch-metric-learning."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    found = AccuracyCalculator(include=names, k="max_bin_count").get_accuracy(embeddings, labels)
    return {name.replace("mean_average_precision", "map"): found[name] for name in names}


def memory(sizes: tuple[int, int, int], queue: multiprocessing.Queue) -> None:
    """Put how much the peak of a process grows by, in MiB."""
    torch.set_num_threads(1)
    embeddings, labels = make(*sizes)
    ours(embeddings[:2000], labels[:2000])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    ours(embeddings, labels)
    queue.put((peak() - before) / 1024)


def peak() -> int:
    """The most memory that this process had since it was last asked to begin anew, in KiB, as Linux counts it."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("classes", 6000), ("each", 10), ("features", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (given.classes, given.each, given.features)
    embeddings, labels = make(*sizes)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    found: dict[str, dict[str, float]] = {}
    for _ in range(given.rounds):
        for name, run in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            found[name] = run(embeddings, labels)
            times[name].append(time.process_time() - start)
    queue: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=memory, args=(sizes, queue))
    process.start()
    grown = queue.get()
    process.join()
    apart = max(abs(found["ours"][key] - found["theirs"][key]) for key in found["ours"])
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    result = {"images": len(labels), "seconds": seconds, "ratio": ratio, "apart": apart, "memory": grown}
    if given.json:
        print(json.dumps(result))
        return
    print(
        f"{len(labels):,} x {given.features}: ours {seconds['ours']:.2f} s, theirs {seconds['theirs']:.2f} s of a core"
    )
    print(f"ratio {ratio:.2f}; at most {apart:.1e} apart; ours takes {grown:.0f} MiB")


if __name__ == "__main__":
    main()
