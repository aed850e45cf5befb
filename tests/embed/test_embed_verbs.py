"""Verification, galleries and embeddings, by the command line and in Python, of a network that learned in a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import opsin
from opsin.cli import app_for
from opsin.embed.gallery import Gallery, fingerprint, read_gallery
from opsin.errors import InputError
from opsin.ops.similarity import FIVE_POINTS

from .tiny_people import draw_person, write_people, write_splits


def train(folder: Path, out: Path, seed: int = 0) -> Path:
    settings = {"train.epochs": 2, "train.batch_size": 24, "train.seed": seed, "train.workers": 0, "data.size": 32}
    base = {"task": "embed", "model": {"name": "conv4"}, "data": {"source": str(folder)}}
    opsin.train(base, settings, out=out)
    return out


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def bare(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a threshold."""
    return train(people, tmp_path_factory.mktemp("bare") / "run")


@pytest.fixture(scope="module")
def run(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one."""
    folder = tmp_path_factory.mktemp("fitted") / "run"
    shutil.copytree(bare, folder)
    call("eval", folder, "--far", "0.05")
    return folder


def load(run: Path) -> Any:
    """What predicts, with what embedding alone has."""
    return opsin.load(run)


def invoke(*args: object) -> Result:
    words = [str(one) for one in args]
    return CliRunner().invoke(app_for(words), words)


def call(*args: object) -> str:
    result = invoke(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refusal(*args: object) -> str:
    result = invoke(*args)
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    return str(result.exception)


def test_the_threshold_is_fitted_on_validation_people_and_kept(run: Path, people: Path) -> None:
    threshold = load(run).threshold
    assert threshold is not None
    assert (threshold.far, threshold.different, threshold.people) == (0.05, 10 * 9 // 2 * 25, 10)
    # worked out anew of the embeddings themselves, with all distances written out
    model = load(run)
    names = sorted((people / "val").rglob("*.png"))
    points = np.stack([one.embedding for one in model.predict([str(name) for name in names])])
    distances = np.sqrt(((points[:, None].astype(np.float64) - points) ** 2).sum(axis=2))
    same = np.array([[a.parent == b.parent for b in names] for a in names])
    upper = np.triu(np.ones_like(same), 1)
    others, own = distances[upper & ~same], distances[upper & same]
    assert (others <= threshold.distance).mean() <= 0.05
    assert (own <= threshold.distance).mean() == pytest.approx(threshold.tar)
    above = own[own > threshold.distance + 1e-5]  # the next pair of the same would let too many in
    assert not len(above) or (others <= above.min()).mean() > 0.05
    metrics = json.loads(call("eval", run, "--json"))
    assert {"auc", "eer", "recall@1", "r_precision", "map@r", "tar@threshold", "far@threshold"} <= metrics.keys()


def test_only_the_values_of_the_file_change(bare: Path, run: Path) -> None:
    with safe_open(bare / "model.safetensors", "pt") as one, safe_open(run / "model.safetensors", "pt") as two:
        assert set(one.keys()) == set(two.keys())
        assert all(torch.equal(one.get_tensor(key), two.get_tensor(key)) for key in one.keys())  # noqa: SIM118
        before, after = (json.loads(opened.metadata()["opsin"]) for opened in (one, two))
    assert before.pop("values") == {} and set(after.pop("values")) == {"threshold"}
    assert before == after


def test_nothing_is_fitted_on_test_or_training_data(bare: Path) -> None:
    assert "test split, which makes its scores too good" in refusal("eval", bare, "--far", "0.1", "--split", "test")
    assert "which the model was trained on" in refusal("eval", bare, "--far", "0.1", "--split", "train")
    assert "takes 1,000,000 pairs of two identities" in refusal("eval", bare, "--far", "1e-6")
    assert load(bare).threshold is None


def test_two_images_are_compared(run: Path, people: Path) -> None:
    one, same, other = (people / "test" / name for name in ("p40/0.png", "p40/3.png", "p47/0.png"))
    (near,), (far,) = (json.loads(call("predict", run, one, two, "--json")) for two in (same, other))
    assert near["same"] and not far["same"] and near["probability"] > 0.5 > far["probability"]
    assert near["far"] == 0.05 and near["threshold"] == load(run).threshold.distance
    answer = load(run).verify(one, Image.open(same))
    assert answer.same and answer.distance == pytest.approx(near["distance"], abs=1e-5)
    assert load(run).verify(one, one).distance == pytest.approx(0, abs=1e-4)
    assert call("predict", run, one, same).startswith("the same: distance ")
    assert "false accept rate of 0.05" in call("predict", run, one, other)
    assert len(json.loads(call("predict", run, one, same, other, "--json"))) == 3  # three are not compared


def test_without_a_threshold_nothing_is_the_same(bare: Path, people: Path) -> None:
    one = people / "test/p40/0.png"
    assert "no threshold is fitted" in refusal("predict", bare, one, one)
    with pytest.raises(InputError, match="opsin eval RUN --far"):
        load(bare).verify(one, one)
    (answer,) = json.loads(call("predict", bare, one, "--gallery", people / "test", "--json"))
    assert answer["name"] is None and answer["nearest"][0]["name"] == "p40"


def test_who_of_a_folder(run: Path, people: Path, tmp_path: Path) -> None:
    gallery = write_people(tmp_path / "gallery", range(40, 46), images=2)
    query, stranger = people / "test/p43/4.png", people / "test/p49/0.png"
    known, unknown = json.loads(call("predict", run, query, stranger, "--gallery", gallery, "--top", "3", "--json"))
    assert known["name"] == "p43" and [one["name"] for one in known["nearest"]].count("p43") == 1
    assert len(known["nearest"]) == 3 and known["nearest"][0]["file"].endswith(".png")
    assert unknown["name"] == "unknown" and unknown["probability"] < 0.5
    assert unknown["distance"] > load(run).threshold.distance
    drawn = tmp_path / "drawn"
    call("predict", run, query, "--gallery", gallery, "--out", drawn)
    assert Image.open(drawn / "4.png").height > 32  # over who it is


def test_people_are_added_to_a_gallery_and_removed(run: Path, people: Path, tmp_path: Path) -> None:
    file, query = tmp_path / "team.safetensors", people / "test/p43/4.png"
    first = write_people(tmp_path / "first", range(40, 43), images=2)
    assert "3 people, 6 images" in call("gallery", file, "--run", run, "--add", first)
    (answer,) = json.loads(call("predict", run, query, "--gallery", file, "--json"))
    assert answer["name"] == "unknown"
    second = write_people(tmp_path / "second", range(43, 45), images=2)
    shown = json.loads(call("gallery", file, "--run", run, "--add", second, "--remove", "p41", "--json"))
    assert shown["people"] == {"p40": 2, "p42": 2, "p43": 2, "p44": 2}
    call("gallery", file, "--run", run, "--add", second)  # the same images again are the same images
    assert len(read_gallery(file)) == 8
    (answer,) = json.loads(call("predict", run, query, "--gallery", file, "--json"))
    assert answer["name"] == "p43"
    assert "did you mean" in refusal("gallery", file, "--remove", "p4")


def test_bad_galleries_are_refused(run: Path, people: Path, tmp_path: Path) -> None:
    query, file = people / "test/p43/4.png", tmp_path / "team.safetensors"
    model = load(run)
    held = model.embed_people(people / "test")
    assert held.model == fingerprint(model)
    Gallery(held.embeddings, held.names, held.files, "0" * 32, "facenet").save(file)
    message = refusal("predict", run, query, "--gallery", file)
    assert "was made by another model (facenet)" in message
    assert "another model" in refusal("gallery", file, "--run", run, "--add", people / "test")
    broken = held.embeddings.clone()
    broken[0, 0] = torch.nan
    Gallery(broken, held.names, held.files, held.model, "conv4").save(file)
    assert "not finite" in refusal("predict", run, query, "--gallery", file)
    Gallery(held.embeddings[:3], held.names, held.files, held.model, "conv4").save(file)
    assert "50 names of (3, " in refusal("predict", run, query, "--gallery", file)
    save_file({"embeddings": held.embeddings}, file, metadata={"opsin.gallery": "{"})
    assert "damaged gallery" in refusal("predict", run, query, "--gallery", file)
    assert "is no gallery" in refusal("predict", run, query, "--gallery", run / "model.safetensors")
    assert "--run RUN" in refusal("gallery", tmp_path / "new.safetensors", "--add", people / "test")
    assert "no gallery at" in refusal("gallery", tmp_path / "new.safetensors")
    assert "has to end in .safetensors" in refusal("gallery", tmp_path / "new.npz")


def test_another_network_makes_another_fingerprint(run: Path) -> None:
    one, two = load(run), load(run)
    assert fingerprint(one) == fingerprint(two)
    with torch.no_grad():
        next(two.model.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(one) != fingerprint(two)


def test_unreadable_images(run: Path, people: Path, tmp_path: Path) -> None:
    gallery = write_people(tmp_path / "gallery", range(40, 42), images=2)
    (gallery / "p41/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    held = load(run).embed_people(gallery)
    assert held.people == {"p40": 2, "p41": 2}
    assert "broken.png" in refusal("predict", run, people / "test/p40/0.png", gallery / "p41/broken.png")


def test_embeddings_are_written(run: Path, people: Path, tmp_path: Path) -> None:
    file = tmp_path / "points.npz"
    call("predict", run, people / "test/p40", "--embeddings", file)
    with np.load(file, allow_pickle=False) as stored:
        points, paths = stored["embeddings"], stored["paths"].tolist()
    assert points.shape[0] == 5 and points.dtype == np.float32
    assert [Path(one).name for one in paths] == [f"{k}.png" for k in range(5)]
    np.testing.assert_allclose(points[2], load(run).predict(paths[2]).embedding, atol=1e-5)
    # two images are embedded, where that is asked, and not compared
    call("predict", run, people / "test/p40/0.png", people / "test/p41/0.png", "--embeddings", file)
    assert "is a folder" in refusal("predict", run, people / "test/p40", "--embeddings", tmp_path)
    assert "is an input" in refusal(
        "predict", run, people / "test/p40/0.png", "--embeddings", people / "test/p40/0.png"
    )


def test_other_people_and_listed_pairs_are_evaluated(run: Path, people: Path, tmp_path: Path) -> None:
    for seed in (60, 61):
        write_people(tmp_path / "lfw", range(seed, seed + 1), images=2)
    files = {name: f"lfw/{name}.png" for name in ("p60/0", "p60/1", "p61/0", "p61/1")}
    rows = [("p60/0", "p60/1", 1, 0), ("p60/0", "p61/1", 0, 0), ("p61/0", "p61/1", 1, 1), ("p61/0", "p60/1", 0, 1)]
    lines = [f"{files[a]},{files[b]},{same},{fold}" for a, b, same, fold in rows]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,same,fold", *lines]))
    metrics = json.loads(call("eval", run, "--data", tmp_path / "pairs.csv", "--json"))
    assert metrics["auc"] == 1 and metrics["fold_accuracy"] == 1 and "recall@1" not in metrics
    episodes = json.loads(call("eval", run, "--ways", "4", "--shots", "2", "--json"))
    assert 0.25 < episodes["4way_2shot_accuracy"] <= 1
    lone = tmp_path / "lone"
    write_people(lone, range(70, 72), images=1)
    assert "no two images of this split show the same identity" in refusal("eval", run, "--data", lone)
    assert "leave it out" in refusal("eval", run, "--hausdorff")


def test_faces_are_aligned_by_five_points(run: Path, people: Path, tmp_path: Path) -> None:
    """A person turned by a right angle is the same again, once the points say so."""
    straight, turned, table = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "points.csv"
    image = draw_person(44, 0).resize((112, 112))
    image.save(straight)
    image.transpose(Image.Transpose.ROTATE_90).save(turned)  # (x, y) comes to (y, 112 - x)
    rows = [["a.png", *(f"{v}" for point in FIVE_POINTS for v in point)]]
    rows.append(["b.png", *(f"{v}" for x, y in FIVE_POINTS for v in (y, 112 - x))])
    table.write_text("\n".join(",".join(row) for row in [["path", *"abcdefghij"], *rows]))
    (plain,) = json.loads(call("predict", run, straight, turned, "--json"))
    (aligned,) = json.loads(call("predict", run, straight, turned, "--points", table, "--json"))
    assert aligned["distance"] < 0.05 * plain["distance"] and aligned["same"]
    assert "has no points of" in refusal("predict", run, straight, people / "test/p40/0.png", "--points", table)
    table.write_text("a.png,1,2,3\n")
    assert "line 1: expected a path and ten numbers" in refusal("predict", run, straight, turned, "--points", table)
    assert "cannot read the points" in refusal("predict", run, straight, turned, "--points", tmp_path / "none.csv")


def test_a_person_in_noise_is_drawn_twice_alike() -> None:
    assert draw_person(3, 1).tobytes() == draw_person(3, 1).tobytes() != draw_person(3, 2).tobytes()
