"""Runs with networks of timm and torchvision are explained on images as opsin's own are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import opsin
from opsin.analyze.page import write_page


@pytest.mark.parametrize("name", ["torchvision:mnasnet0_5"])
def test_the_page_of_a_run_shows_maps_and_grad_cam(name: str, tmp_path: Path) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    settings = {
        "model.name": name, "data.source": "digits", "data.limit": 20, "data.size": 32, "train.max_steps": 1,
        "train.batch_size": 8, "train.accelerator": "cpu",
    }  # fmt: skip
    run = opsin.train({"task": "classify"}, settings, out=tmp_path / "run", say=lambda line: None).path
    image = np.zeros((32, 32), np.uint8)
    image[8:24, 14:18] = 255
    Image.fromarray(image).save(tmp_path / "one.png")
    found = opsin.explain(run)
    assert found.identity.name == name and found.totals.params > 50_000
    write_page(tmp_path / "page.html", [found], images=[tmp_path / "one.png"])
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "Grad-CAM" in text and "Feature maps" in text and text.count("data:image/") >= 8
