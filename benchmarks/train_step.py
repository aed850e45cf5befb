"""Our training step over a plain PyTorch loop's, ResNet-18 on batches of 32 images of 64x64.

    python benchmarks/train_step.py [--steps 60] [--threads 2] [--device cpu] [--json]

Ours is what `opsin train` runs: Lightning's loop with every callback of a run, our task and our ResNet-18, finite-loss
watchdog and loss records included. Theirs is torchvision's ResNet-18 in the loop that a tutorial would show. Both get
the same uint8 batches, normalise them on the device, and make a step of SGD with momentum and weight decay.
The two take turns, step by step in one process, so that a busy moment hits both alike; the figure is the median of the
ratios of neighbouring steps. Target: at most 1.05.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from opsin import registry
from opsin.classify.task import ClassifyTask
from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.train import _create_trainer, _quiet_lightning
from opsin.structures import Batch

CLASSES, BATCH, SIZE, WARMUP = 10, 32, 64, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIM = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


def make_batches(count: int) -> list[Batch]:
    """Random images with random labels, as a loader would yield them."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
            "label": torch.randint(0, CLASSES, (BATCH,), generator=generator),
            "index": torch.arange(BATCH),
            "path": [f"image[{i}]" for i in range(BATCH)],
        }
        for _ in range(count)
    ]


def plain_step(device: torch.device) -> Callable[[Batch], None]:
    """A step of the loop that a tutorial would show."""
    model = torchvision.models.resnet18(num_classes=CLASSES).to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=OPTIM["lr"], momentum=0.9, weight_decay=OPTIM["weight_decay"])
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))

    def step(batch: Batch) -> None:
        images, labels = batch["image"].to(device), batch["label"].to(device)
        loss: Tensor = criterion(model((images.float() / 255 - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


class Turns:
    """A loader for our trainer that runs and times the plain step between two of ours."""

    def __init__(
        self, batches: list[Batch], steps: int, plain: Callable[[Batch], None], wait: Callable[[], None]
    ) -> None:
        self.batches, self.steps, self.plain, self.wait = batches, steps, plain, wait
        self.position = (0, 0)
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.steps):
            batch = self.batches[number % len(self.batches)]
            self.wait()
            start = time.perf_counter()
            self.plain(batch)
            self.wait()
            middle = time.perf_counter()
            yield {**batch}
            self.wait()
            self.theirs.append(middle - start)
            self.ours.append(time.perf_counter() - middle)


def measure(steps: int, device: torch.device) -> Turns:
    """Train both, in turns."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    turns = Turns(make_batches(4), steps + WARMUP, plain_step(device), wait)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    recipe = load_recipe(
        {
            "model": {"name": "resnet18"},
            "data": {"source": "random", "size": SIZE},
            "optim": OPTIM,
            "schedule": {"name": "constant"},
            "train": {"epochs": 1, "batch_size": BATCH, "accelerator": accelerator, "keep": "last"},
        }
    )
    preprocessing = Preprocessing(size=(SIZE, SIZE), channels=3, fit="squash", mean=MEAN, std=STD)
    model = registry.create_model("resnet18", num_classes=CLASSES)
    task = ClassifyTask(model, Facts(recipe, preprocessing, {"classes": [f"class {i}" for i in range(CLASSES)]}))
    with tempfile.TemporaryDirectory() as folder, _quiet_lightning():
        trainer = _create_trainer(task, RunFolder(Path(folder)), lambda line: None, has_val=False)
        trainer.fit(task, turns)
    return turns


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    turns = measure(options.steps, torch.device(options.device))
    ours, theirs = turns.ours[WARMUP:], turns.theirs[WARMUP:]
    result = {
        "ours_milliseconds": 1000 * statistics.median(ours),
        "plain_milliseconds": 1000 * statistics.median(theirs),
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "steps": len(ours),
        "threads": torch.get_num_threads(),
        "device": options.device,
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"opsin {result['ours_milliseconds']:.1f} ms, plain {result['plain_milliseconds']:.1f} ms a step")
        print(f"ratio {result['ratio']:.3f} (median of {len(ours)}; target 1.05)")


if __name__ == "__main__":
    main()
