"""Detectors on networks of timm and torchvision take a training step and keep their names and maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import opsin
from opsin.structures import Instances

pytest.importorskip("timm")

BACKBONES = ("timm:test_convnext", "torchvision:mnasnet0_5")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", ["retinanet", "yolov3"])
def test_a_step_of_training_reaches_every_parameter(head: str, backbone: str) -> None:
    model: Any = opsin.create_model(head, backbone=backbone, num_classes=2)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0]])
    targets = [Instances(boxes=boxes, labels=torch.tensor([1])) for _ in range(2)]
    losses = model.loss(model(torch.rand(2, 3, 64, 64)), targets)
    torch.stack(list(losses.values())).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle
    fresh = model.initialize_from(opsin.create_model(backbone).state_dict())
    assert not [name for name in fresh if ".backbone." in name], "the backbone takes a classifier's tensors by name"


def test_one_is_trained_and_exported(tmp_path: Path) -> None:
    recipe = {
        "task": "detect",
        "model": {"name": "retinanet", "backbone": BACKBONES[0]},
        "data": {"source": "scenes:20", "size": 64, "limit": 4},
        "train": {"max_steps": 1, "batch_size": 2, "tensorboard": False},
    }
    opsin.train(recipe, out=tmp_path / "run")
    pytest.importorskip("onnx")
    exported = opsin.export(tmp_path / "run", format="onnx")
    assert Path(exported.path).exists()
