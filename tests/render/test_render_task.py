"""Radiance fields and shapes through the verbs: train, resume, evaluate, predict, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import data
from opsin.engine.checkpoint import read_checkpoint
from opsin.engine.evaluate import evaluate_run
from opsin.engine.task import Task
from opsin.engine.train import Run, train
from opsin.errors import InputError
from opsin.ops.cameras import image_rays
from opsin.render.image_metrics import psnr, ssim
from opsin.render.ray_batches import ray_batches
from opsin.render.shape_evaluation import euler_number, measure_surface
from opsin.render.watching import RayWatch

pytestmark = pytest.mark.rendered

_SMALL = {
    "nerf": {"depth": 2, "width": 8, "coarse_samples": 4, "fine_samples": 4},
    "fast_nerf": {"resolution": 12, "cells": 8, "steps": 16},
}


def fit(
    out: Path, model: str, source: str = "spheres_views:16", settings: Mapping[str, Any] | None = None
) -> tuple[Run, list[str]]:
    lines: list[str] = []
    own = {"render.rays": 32, "render.epoch_steps": 4, "render.val_views": 1, "render.test_views": 2, "train.epochs": 2}
    own |= {f"model.{key}": value for key, value in _SMALL.get(model, {}).items()}
    recipe = {"task": "render", "model": {"name": model}, "data": {"source": source}}
    return train(recipe, {**own, **(settings or {})}, out=out, say=lines.append), lines


def test_rays_are_those_of_the_pixels() -> None:
    split = data.open("spheres_views:8", "render").splits["val"]
    batches, truth = ray_batches(split, 400, 3), split.kind
    assert len(batches) == 3 and len(batches.colours) == 640
    torch.manual_seed(0)
    rays = batches.read(0)
    every, colours = [], []
    for i in range(len(split)):
        pose, intrinsics = (torch.from_numpy(one[i]).float() for one in (truth.poses, truth.intrinsics))
        origins, along = image_rays((8, 8), pose, intrinsics)
        every.append(torch.cat([origins, along], dim=-1).view(-1, 6))
        colours.append(split.read(i).permute(1, 2, 0).reshape(-1, 3).float() / 255)
    distance = torch.cdist(rays[:, :6], torch.cat(every))
    nearest = distance.argmin(dim=1)
    assert float((torch.cat(every)[nearest] - rays[:, :6]).abs().max()) < 1e-5 and len(set(nearest.tolist())) > 250
    torch.testing.assert_close(rays[:, 8:], torch.cat(colours)[nearest])
    assert rays[0, 6:8].tolist() == [truth.near, truth.far]
    torch.manual_seed(0)
    assert torch.equal(batches.read(2), rays)  # what is drawn is the loader's seed's alone


@pytest.mark.parametrize("model", ["nerf", "fast_nerf"])
def test_a_resumed_run_is_the_uninterrupted_one(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "whole", model, settings={"train.save_every_steps": 2})
    own = Task.training_step

    def dying(self: Task, batch: Any, batch_idx: int) -> Any:
        if 4 * self.current_epoch + batch_idx == 6:
            raise RuntimeError("power failed")
        return own(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", dying)
        with pytest.raises(RuntimeError, match="power failed"):
            fit(tmp_path / "run", model, settings={"train.save_every_steps": 2})
    train(resume=tmp_path / "run", say=lambda line: None)
    whole, again = (read_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "run"))
    assert whole.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in whole.items())
    assert not model.startswith("fast") or float(whole["model.grid.highest"].min()) < 2  # what was seen is kept


def test_a_run_is_evaluated_and_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, lines = fit(tmp_path / "run", "fast_nerf")
    assert any("61,440" in line or "15,360 rays" in line for line in lines)
    assert {"psnr", "ssim", "loss", "depth_error", "floor_white", "floor_mean", "floor_nearest"} - {
        "depth_error"
    } <= set(run.metrics)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(title in page for title in ("Views that nobody took", "Worst views", "How to read the numbers"))
    predictor = opsin.load(tmp_path / "run")
    answer = predictor.predict(path="spiral", views=2, side=10)
    assert answer.images.shape == (2, 10, 10, 3) and answer.depths.shape == (2, 10, 10)
    assert answer["views"] == 2 and answer["size"] == [10, 10]
    poses = tmp_path / "poses.json"
    split = data.open("spheres_views:16", "render").splits["test"]
    poses.write_text(json.dumps(split.kind.poses[:1].tolist()))
    image = predictor.predict(path=str(poses)).images[0].astype(float) / 255
    truth = split.read(0).permute(1, 2, 0).numpy() / 255
    expected = -10 * np.log10(((image - truth) ** 2).mean())
    views = evaluate_run(tmp_path / "run", split="test").details["views"]
    assert len(views) == 20 and views[0]["psnr"] == pytest.approx(expected, abs=0.1)
    monkeypatch.setattr(
        "opsin.render.evaluate.load_lpips", lambda files: lambda a, b: torch.full((1,), float(len(files)))
    )
    result = evaluate_run(tmp_path / "run", split="val", lpips=["alex.pth", "network.pth"])
    assert result.metrics["lpips"] == 2 and result.details["views"][0]["lpips"] == 2
    answers = type(answer).list_class([answer])
    assert answers.write("gif", tmp_path / "views").read_bytes()[:3] == b"GIF"
    answers.write("images", tmp_path / "views")
    assert {"0001.png", "0001_depth.png", "0001_normals.png"} <= {p.name for p in (tmp_path / "views").iterdir()}
    for bad, message in (
        (tmp_path / "none.json", "orbit, spiral or a JSON"),
        (tmp_path / "bad.json", "expected 1 to 10,000 matrices"),
    ):
        (tmp_path / "bad.json").write_text("[[1, 2]]") if bad.name == "bad.json" else None
        with pytest.raises(InputError, match=message):
            predictor.predict(path=str(bad))


def test_a_shape_is_learned_from_its_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsin.render.evaluate.measure_surface", lambda model, truth: measure_surface(model, truth, 32))
    monkeypatch.setattr("opsin.render.report._SECONDS", 0.2)
    mesh = tmp_path / "cube.obj"
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    mesh.write_text(
        "".join(f"v {x} {y} {z}\n" for x, y, z in corners) + "".join(f"f {a} {b} {c} {d}\n" for a, b, c, d in quads)
    )
    settings = {"render.rays": 1024, "render.epoch_steps": 60, "model.width": 32, "model.depth": 2, "train.epochs": 1}
    run, _ = fit(tmp_path / "run", "sdf", str(mesh), settings={**settings, "optim.lr": 0.005})
    assert run.metrics["iou"] > 0.85 and run.metrics["chamfer"] < 0.03 and run.metrics["euler_true"] == 2
    answer = opsin.load(tmp_path / "run").predict(mesh=str(tmp_path / "cube.ply"), resolution=16)
    assert answer["faces"] > 100 and (tmp_path / "cube.ply").exists()
    assert "euler" in run.metrics and euler_number(np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])) == 2
    seen = opsin.load(tmp_path / "run").predict(path="orbit", views=2, side=12)
    assert seen.images.shape == (2, 12, 12, 3) and 0.2 < seen.opacities.mean() < 0.6
    faces = np.abs(seen.normals[seen.opacities > 0]).max(-1)  # of a cube along an axis, but near its edges
    assert np.median(faces) > 0.95 and np.isnan(seen.depths[seen.opacities == 0]).all()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Views that nobody took" in page and page.count('alt="view ') >= 8
    with pytest.raises(InputError, match="lpips compares views, and sdf learns a shape"):
        evaluate_run(tmp_path / "run", lpips="alex.pth")
    with pytest.raises(InputError, match=r"is a mesh, which nerf does not learn; take sdf or occupancy"):
        fit(tmp_path / "other", "nerf", str(mesh))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.batch_size": 2}, "leave it at 1 and set render.rays"),
        ({"augment": ["random_horizontal_flip"]}, "cameras would then be wrong"),
        ({"model.background": "green"}, "unknown background 'green'"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        fit(tmp_path / "run", "nerf", settings=settings)


def test_an_empty_field_is_reported_once_with_a_remedy() -> None:
    lines: list[str] = []
    watch = RayWatch(lines.append)
    dead = {"opacity": torch.zeros(8), "coarse": torch.ones(8, 3)}
    colors = torch.rand(8, 3)
    for step in (0, 100, 200, 400):
        watch.look(dead, colors, step)
    assert len(lines) == 1 and "step 200" in lines[0] and "train.seed" in lines[0]
    watch = RayWatch(lines.append)
    watch.look({"opacity": torch.zeros(8)}, torch.ones(8, 3), 200)  # white images are rightly empty
    watch.look({"opacity": torch.full((8,), 0.5)}, colors, 400)
    assert len(lines) == 1
    watch.look({"opacity": torch.zeros(8)}, colors, 600)
    assert "near and far" in lines[1]


def test_psnr_and_ssim() -> None:
    torch.manual_seed(0)
    truth = torch.rand(3, 24, 20)
    image = (truth + 0.1 * torch.randn(3, 24, 20)).clamp(0, 1)
    assert psnr(truth, truth) == float("inf")
    assert psnr(torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.1)) == pytest.approx(20)
    metrics = pytest.importorskip("skimage.metrics")
    expected = metrics.structural_similarity(
        image.double().numpy(), truth.double().numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    found = ssim(image, truth)
    assert found == pytest.approx(expected, abs=5e-3)  # it takes in the border, which it mirrors; here it is left out
    assert ssim(truth, truth) == pytest.approx(1) and ssim(truth[:, :8], truth[:, :8]) is None


def test_fields_are_exported_as_what_they_say_at_places(tmp_path: Path) -> None:
    fit(tmp_path / "run", "nerf", settings={"train.epochs": 1, "render.test_views": 1})
    predictor = opsin.load(tmp_path / "run")
    (program,) = predictor.programs()
    points = predictor.collate([None] * 5)
    exported = torch.export.export(
        program.module.eval(), (points,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},)
    )
    density, color = predictor.model.fine(points[:, :3], points[:, 3:])
    found = exported.module()(points)
    torch.testing.assert_close(found["density"], density)
    torch.testing.assert_close(found["color"], color)
    fit(tmp_path / "fast", "fast_nerf", settings={"train.epochs": 1, "render.test_views": 1})
    with pytest.raises(InputError, match="tables"):
        opsin.load(tmp_path / "fast").programs()
