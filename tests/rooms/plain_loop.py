"""Dots trained with two optimizers by opsin, and the same by a loop that is written out; compared by its test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dots.network
import dots.task
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import opsin

LR, HEAD_LR, ACCUMULATE, CLIP, DECAY = 0.0005, 0.002, 2, 60.0, 0.9
RECIPE = {
    "task": "dots",
    "model": {"name": "dots_net"},
    "data": {"source": "dots.csv", "mean": [0.4], "std": [0.3], "split": "stratified"},
    "optim": {"name": "sgd", "lr": LR, "momentum": 0.9},
    "schedule": {"name": "constant"},
    "train": {
        **{"epochs": 1, "batch_size": 8, "accelerator": "cpu", "keep": "last", "tensorboard": False},
        **{"accumulate": ACCUMULATE, "clip_norm": CLIP, "ema_decay": DECAY},
    },
    "dots": {"head_lr": HEAD_LR},
}


class Record(dots.task.DotsTask):
    """Writes down the first weights, every batch, every loss, and how often the two optimizers stepped."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        SEEN.update(first={name: value.clone() for name, value in self.model.state_dict().items()}, batches=[])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        SEEN["batches"].append((batch["image"].clone(), batch["count"].clone()))
        before = float(self._sums.get("loss", 0.0))
        super().training_step(batch, batch_idx)
        SEEN.setdefault("losses", []).append(float(self._sums["loss"]) - before)
        SEEN.update(last={name: value.clone() for name, value in self.model.state_dict().items()}, steps=self.steps)
        return None


SEEN: dict[str, Any] = {}


def train_plainly(first: dict[str, Tensor], batches: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """The same training: the losses of each batch, the last weights and their moving average."""
    model = dots.network.DotsNet()
    model.load_state_dict(first)
    average = {name: value.clone() for name, value in first.items()}
    parts = [
        (list(model.features.parameters()), torch.optim.SGD(model.features.parameters(), LR, momentum=0.9)),
        (list(model.density.parameters()), torch.optim.SGD(model.density.parameters(), HEAD_LR, momentum=0.9)),
    ]
    sums = [[torch.zeros_like(p) for p in parameters] for parameters, _ in parts]
    losses, norms, steps, waiting = [], [], 0, 0
    for place, (images, counts) in enumerate(batches):
        normalised = (images.float() / 255 - 0.4) / 0.3
        waiting += 1
        due, loss_of_batch = waiting == ACCUMULATE or place == len(batches) - 1, 0.0
        for number, (parameters, optimizer) in enumerate(parts):
            loss = F.smooth_l1_loss(model(normalised), counts)
            gradients = torch.autograd.grad(loss / ACCUMULATE, parameters)
            sums[number] = [old + new for old, new in zip(sums[number], gradients, strict=True)]
            loss_of_batch += float(loss.detach())
            if due:
                norm = torch.cat([gradient.flatten() for gradient in sums[number]]).norm()
                norms.append(float(norm))
                for parameter, gradient in zip(parameters, sums[number], strict=True):
                    parameter.grad = gradient * min(1.0, CLIP / (float(norm) + 1e-6))
                optimizer.step()
                sums[number] = [torch.zeros_like(p) for p in parameters]
        losses.append(loss_of_batch)
        if due:
            steps, waiting = steps + 1, 0
            decay = min(DECAY, (1 + steps) / (10 + steps))
            now = model.state_dict()
            average = {name: decay * old + (1 - decay) * now[name] for name, old in average.items()}
    return {"losses": losses, "last": model.state_dict(), "average": average, "steps": steps, "norms": norms}


def main() -> None:
    """Train both ways in this folder, and print what each found; the weights as their largest difference."""
    dots.task.DotsTask = Record
    opsin.train(RECIPE, out="plain", say=lambda line: None)
    saved = load_file(Path("plain") / "model.safetensors")
    saved = {name: value for name, value in saved.items() if not name.startswith("opsin.")}
    found = train_plainly(SEEN["first"], SEEN["batches"])

    def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        assert one.keys() == other.keys()
        return max(float((one[name] - other[name]).abs().max()) for name in one)

    report = {
        "losses": [SEEN["losses"], found["losses"]],
        "steps": [SEEN["steps"], found["steps"]],
        "weights apart": apart(SEEN["last"], found["last"]),
        "average apart": apart(saved, found["average"]),
        "clipped": [norm > CLIP for norm in found["norms"]],
        "moved": apart(SEEN["first"], found["last"]),
        "average from weights": apart(found["last"], found["average"]),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
