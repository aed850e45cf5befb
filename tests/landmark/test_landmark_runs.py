"""A task of points from end to end: trained, evaluated, used, exported, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import opsin
from opsin import data
from opsin.cli import app_for
from opsin.engine.recipe import own_section
from opsin.errors import InputError

from .conftest import RECIPE


def changed(**sections: Any) -> dict[str, Any]:
    return {**RECIPE, **{key: {**RECIPE.get(key, {}), **value} for key, value in sections.items()}}


def test_a_run_learns_and_says_its_normalizer(run: Path) -> None:
    result = opsin.evaluate(run, split="train")
    truth = data.open("drawn_faces:60", "landmark").splits["train"].kind.points
    between = np.linalg.norm(truth[:, 0] - truth[:, 3], axis=1)
    mean_face = (np.linalg.norm(truth.mean(axis=0) - truth, axis=2).mean(axis=1) / between).mean()
    assert result["nme_inter_ocular"] < 0.75 * mean_face  # it knows more than the mean face does
    assert {"nme_box_size", "auc_10_inter_ocular", "failure_rate_8_inter_ocular", "loss"} <= set(result)
    assert not any(name in ("nme", "auc_10") for name in result)
    metrics = (run / "metrics.csv").read_text().splitlines()[0]
    assert "val_nme_inter_ocular" in metrics and "val_nme_box_diagonal" in metrics
    page = (run / "report.html").read_text()
    assert "distance between the outer corners of the eyes" in page and "Furthest off" in page


def test_answers_are_points_in_pixels_of_the_image(run: Path, tmp_path: Path) -> None:
    split = data.open("drawn_faces:60", "landmark").splits["test"]
    image, truth = split.read(0), split.kind.points[0]
    wide = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((192, 96))  # twice as wide
    wide.save(tmp_path / "face.png")
    model = opsin.load(run)
    plain, answer = model.predict(image), model.predict(tmp_path / "face.png")
    assert [one["name"] for one in answer["points"]] == list(split.kind.names)
    assert np.abs(answer.points - plain.points * (2, 1)).max() < 3
    assert np.linalg.norm(plain.points - truth, axis=1).mean() < 14
    assert (
        answer.errors.shape == (10,) and (answer.errors > 0).all() and answer.point("nose") == tuple(answer.points[4])
    )
    assert answer.plot().size[0] >= 192 and "10 points: right_eye_outer (" in model.describe(answer)
    assert len(answer.rows()) == 10 and json.loads(json.dumps(answer)) == answer


def test_the_mean_of_an_image_and_its_mirror_image_is_mirrored_with_it(run: Path) -> None:
    model = opsin.load(run)
    image = data.open("drawn_faces:60", "landmark").splits["test"].read(1)
    one, other = (model.predict(given, flip=True).points for given in (image, image.flip(-1)))
    flip = list(model.facts.meaning["flip"])
    assert np.allclose(one, other[flip] * (-1, 1) + (96, 0), atol=0.01)
    assert not np.allclose(one, model.predict(image).points, atol=0.05)


def test_expected_errors_are_those_of_validation(run: Path) -> None:
    model = opsin.load(run)
    split = data.open("drawn_faces:60", "landmark").splits["val"]
    found = [model.predict(split.read(place)) for place in range(len(split))]
    errors = [np.linalg.norm(f.points - p, axis=1) for f, p in zip(found, split.kind.points, strict=True)]
    assert np.allclose(found[-1].errors, np.mean(errors, axis=0), rtol=0.02)


def test_an_exported_file_answers_as_the_run_does(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = opsin.export(run, "onnx", tmp_path / "points.onnx").path
    image = data.open("drawn_faces:60", "landmark").splits["test"].read(2)
    one, two = (opsin.load(model).predict(image) for model in (run, file))
    assert np.abs(one.points - two.points).max() < 0.01 and np.allclose(one.errors, two.errors, atol=0.01)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"mixing": {"mixup": 0.2}}, "set mixing.mixup=0"),
        ({"data": {"size": 96}}, "wing_cnn6 takes images of 64x64"),
        ({"model": {"num_points": 5}}, "model.num_points is 5, and the data has 10 points"),
        ({"loss": {"name": "dice"}}, "unknown loss of points 'dice'"),
        ({"loss": {"name": "wing", "widht": 3}}, "unknown option of wing 'widht'; did you mean width"),
        ({"loss": {"class_weights": "balanced"}}, "points have none"),
        ({"landmark": {"flip_pairs": [["nose", "chin"]]}}, "do not change places in a mirror image"),
        (
            {"landmark": {"normalizer": "inter_pupil"}},
            "take one of inter_ocular, box_diagonal, box_size, image_diagonal",
        ),
        (
            {"landmark": {"person_before": "_"}},
            "drawn_faces are divided already, whole, and show nobody; leave person_before out",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(sections: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        opsin.train(changed(**sections), out=tmp_path / "run")


def test_data_with_other_points_than_the_models_is_refused(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "points.csv").write_text("image,nose_x,nose_y\na.png,1,2\n")
    with pytest.raises(InputError, match=r"the model knows 10 points, right_eye_outer.*this data has 1, nose"):
        opsin.evaluate(run, data=tmp_path / "points.csv", split="all")


def half_empty(folder: Path, count: int = 24) -> Path:
    """A table of two points, of which every other image knows the first, and none the second."""
    rows = ["image,a_x,a_y,b_x,b_y"]
    for place in range(count):
        pixels = np.random.default_rng(place).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        rows.append(f"{place}.png,,,," if place % 2 else f"{place}.png,{place},8,,")
    (folder / "points.csv").write_text("\n".join(rows))
    return folder / "points.csv"


def test_images_without_a_point_teach_nothing_and_do_not_stop_a_training(tmp_path: Path) -> None:
    section = {"source": str(half_empty(tmp_path)), "split": "stratified", "val_fraction": 0.3}
    recipe = changed(data=section, train={"epochs": 1, "batch_size": 2})
    found = opsin.train({**recipe, "augment": None}, out=tmp_path / "run")
    assert np.isfinite(found.metrics["loss"]) and np.isfinite(found.metrics["nme_image_diagonal"])
    text = (tmp_path / "run" / "metrics.csv").read_text()
    assert "nan" not in text
    with pytest.raises(InputError, match="val has no image with a point"):
        (tmp_path / "val.csv").write_text("image,a_x,a_y,b_x,b_y\n1.png,,,,\n")
        (tmp_path / "points.csv").rename(tmp_path / "train.csv")
        opsin.train(changed(data={"source": str(tmp_path)}), out=tmp_path / "other")


def test_a_box_is_looked_at_as_if_it_had_been_cut_out(run: Path) -> None:
    model = opsin.load(run)
    image = data.open("drawn_faces:60", "landmark").splits["test"].read(3)
    plain = model.predict(image).points
    wide = np.zeros((3, 200, 240), np.uint8)
    wide[:, 40:136, 70:166] = image.numpy()
    half = 48 / own_section(model.recipe).box_scale  # so that the square around the box is the image again
    box = ",".join(f"{118 - half:g} {88 - half:g} {118 + half:g} {88 + half:g}".split())
    found = model.predict(wide.transpose(1, 2, 0), box=box).points
    assert np.allclose(found - (70, 40), plain, atol=0.01)
    for wrong in ("1,2,3", "5,5,1,9", "a,b,c,d"):
        with pytest.raises(InputError, match=r"expected x1"):
            model.predict(image, box=wrong)


def test_frames_are_smoothed_and_a_new_video_begins_anew(run: Path) -> None:
    from opsin.landmark.smoothing import measure_jitter

    model = opsin.load(run)
    image = data.open("drawn_faces:60", "landmark").splits["test"].read(0)
    random = np.random.default_rng(0)
    frames = [
        (image.permute(1, 2, 0).numpy() + random.normal(0, 40, (96, 96, 1))).clip(0, 255).astype(np.uint8)
        for _ in range(12)
    ]
    plain, smooth = model.predict(frames), model.predict(frames, smooth=0.03)
    assert smooth.jitter() < 0.5 * plain.jitter() and plain.jitter() == measure_jitter(plain.points)
    assert np.array_equal(smooth[0].points, plain[0].points)
    assert np.array_equal(model.predict(frames[:3], smooth=0.03).points, smooth.points[:3])


def test_shifted_boxes_are_measured_and_drawn(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.png"
    words = ["eval", str(run), "--split", "val", "--boxes", str(out), "--json"]
    called = CliRunner().invoke(app_for(words), words)
    assert called.exit_code == 0, called.output
    found = json.loads(called.stdout)
    boxes = found["boxes"]
    assert boxes["normalizer"] == "inter_ocular" and boxes["images"] == 12 and Image.open(out).width > 300
    # Unchanged boxes have the split's own error, and boxes that are far off a larger one.
    for key, same in (("shift_x", "0.0"), ("shift_y", "0.0"), ("scale", "1.0")):
        assert boxes[key][same] == pytest.approx(found["nme_inter_ocular"], rel=1e-3)
    assert boxes["shift_x"]["0.2"] > 1.2 * boxes["shift_x"]["0.0"] < boxes["shift_x"]["-0.2"]


def test_poses_are_balanced_in_a_training(tmp_path: Path) -> None:
    recipe = changed(
        landmark={"balance_poses": 4}, data={"source": "drawn_faces:20"}, train={"max_steps": 2, "epochs": 1}
    )
    found = opsin.train(recipe, out=tmp_path / "run")
    assert np.isfinite(found.metrics["loss"])
