"""What `opsin data RECIPE --augmented` draws is what the first step of the training is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.processes import run_python

import opsin
from opsin.classify.task import ClassifyTask
from opsin.detect.task import DetectTask
from opsin.engine.augmented import _MARGIN, FirstBatch, _grid, first_batch
from opsin.engine.task import Task
from opsin.errors import InputError

ROOMS = Path(__file__).parents[1] / "rooms"
CLASSIFY = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 100},
    "augment": [{"random_affine": {"degrees": 10}}],
    "mixing": {"mixup": 0.4},
    "train": {"max_steps": 1, "batch_size": 8, "seed": 3, "tensorboard": False},
}
RETINANET = {
    "name": "retinanet",
    "backbone": "anynetx",
    "backbone_options": {
        "depths": [1] * 4, "widths": [8] * 4, "group_widths": [8] * 4, "bottleneck_ratios": [1] * 4, "stem_width": 8,
    },
    "strides": [4, 8], "extra_levels": 0, "channels": 8, "head_repeats": 1,
}  # fmt: skip
DETECT = {
    "task": "detect",
    "model": RETINANET,
    "data": {"source": "scenes:30", "size": 64},
    "augment": ["mosaic", "random_horizontal_flip"],
    "detect": {"multi_scale": [96, 128]},
    "train": {"max_steps": 1, "batch_size": 4, "seed": 1, "tensorboard": False},
}


def trained_on(recipe: dict[str, Any], task: type[Task], out: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the network and its loss were given in the first step of a training."""
    recorded: list[Any] = []
    before = task.losses

    def losses(self: Any, batch: Any) -> Any:
        handle = self.model.register_forward_pre_hook(lambda _, given: recorded.append(given[0].clone()))
        own = self.model.loss

        def loss(outputs: Any, targets: Any) -> Any:
            recorded.append(targets)
            return own(outputs, targets)

        object.__setattr__(self.model, "loss", loss)
        try:
            return before(self, batch)
        finally:
            handle.remove()
            object.__delattr__(self.model, "loss")

    monkeypatch.setattr(task, "losses", losses)
    opsin.train(recipe, out=out, say=lambda line: None)
    return recorded[:2]


def test_a_classifiers_batch_mixed_as_it_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = trained_on(CLASSIFY, ClassifyTask, tmp_path / "run", monkeypatch)
    seen = first_batch(tmp_path / "run")
    assert torch.equal(seen.images, images) and torch.equal(seen.batch["label"], labels)
    assert (labels.sum(dim=1) - 1).abs().max() < 1e-6 and ((labels > 0).sum(dim=1) == 2).any()
    assert seen.lines[1:] == ["1. random affine (degrees 10)", "batches are mixed: mixup alpha 0.4, cutmix alpha 0"]
    with Image.open(seen.draw(tmp_path / "seen.png")) as drawn:
        assert drawn.height > 320


def test_a_detectors_batch_with_its_boxes_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = trained_on(DETECT, DetectTask, tmp_path / "run", monkeypatch)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(DETECT))
    seen = first_batch(file)
    side = images.shape[-1]
    assert side in (96, 128) and torch.equal(seen.images, images)
    for own, target in zip(seen.batch["instances"], targets, strict=True):
        assert torch.allclose(own.boxes * (side / 64), target.boxes, atol=1e-4)
    assert f"this batch was brought to {side}x{side}, from 64x64" in seen.lines


def test_boxes_are_drawn_where_the_objects_are(tmp_path: Path) -> None:
    recipe = {**DETECT, "augment": [], "detect": {}}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    seen = first_batch(file)
    assert "no augmentation" in seen.lines
    visible = seen.visible()
    assert (visible.int() - seen.batch["image"].int()).abs().max() <= 1  # as before normalisation
    black = FirstBatch(seen.images * 0 - 10, seen.batch, seen.truth, seen.preprocessing, seen.lines)
    with Image.open(black.draw(tmp_path / "seen.png")) as drawn:
        pixels = drawn.convert("RGB").load()
    left, top = 6, 6  # the margin; a cell is enlarged from 64 to 192 pixels
    x1, y1, x2, y2 = ((3 * seen.batch["instances"][0].boxes[0]).round().int()).tolist()
    for x, y in ((x1, (y1 + y2) // 2), (x2 - 1, (y1 + y2) // 2), ((x1 + x2) // 2, y2 - 1)):
        assert max(pixels[left + x, top + y]) > 60
    assert max(pixels[left + 1, top + 190]) == 0 or len(seen.batch["instances"][0]) > 3


@pytest.mark.parametrize(("cells", "across", "down"), [(5, 3, 2), (8, 4, 2), (11, 4, 3), (14, 5, 3)])
def test_a_sheet_leaves_few_cells_empty(cells: int, across: int, down: int) -> None:
    """About 1.6 times as wide as high; of the numbers of columns near that, the one that leaves the fewest empty."""
    images = [Image.new("RGB", (20, 20), (k, 0, 0)) for k in range(cells)]
    sheet, step = _grid(images), 20 + _MARGIN
    assert sheet.size == (across * step + _MARGIN, down * step + _MARGIN)
    corners = [(_MARGIN + step * (k % across), _MARGIN + step * (k // across)) for k in range(cells)]
    assert [sheet.getpixel(corner) for corner in corners] == [(k, 0, 0) for k in range(cells)]


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("path,label\n")
    for wrong, words in ((tmp_path / "data.csv", "is no recipe and no run"), ("lenet5_digitz", "lenet5_digits")):
        with pytest.raises(InputError, match=words):
            first_batch(wrong)


def test_tasks_outside_the_package(tmp_path: Path) -> None:
    """Dots have a count, which no step moves; rows have no images."""
    code = "from pathlib import Path; from make_dots import make_dots; make_dots(Path('.'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOMS), *sys.path])}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return run_python(command, tmp_path, environment)

    assert call("-c", code).returncode == 0
    (tmp_path / "r.yaml").write_text("task: dots\nmodel: {name: dots_net}\ndata: {source: dots.csv}\n")
    done = call("-m", "opsin", "--import", "dots", "data", "r.yaml", "--augmented", "seen.png")
    assert done.returncode == 0 and "the first batch, seed 0" in done.stdout, done.stdout + done.stderr
    with Image.open(tmp_path / "seen.png") as drawn:
        red, green, _ = np.asarray(drawn.convert("RGB")).astype(int).transpose(2, 0, 1)
    assert (red > green + 100).any()  # as its own truth draws it
    (tmp_path / "t.rows").write_text("\n".join(f"{k},{k + 1},{k + 2}" for k in range(30)))
    (tmp_path / "l.yaml").write_text("task: rows\nmodel: {name: line}\ndata: {source: t.rows}\n")
    done = call("-m", "opsin", "--import", "rows", "data", "l.yaml", "--augmented", "seen.png")
    assert done.returncode == 2 and "has no images to draw: rows is trained on rows" in done.stderr, done.stderr
