"""Data that changed between stop and resume: refused or accepted, said exactly, and never trained on what is tested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import opsin
from opsin.data.members import Members
from opsin.engine.checkpoint import MEMBERS, read_checkpoint, read_model, read_tensors, write_tensors
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

COUNT = 120
TRAIN = {"epochs": 1, "batch_size": 16, "keep": "last", "accelerator": "cpu"}
LENET = {
    "model": {"name": "lenet5"},
    "data": {"source": "data"},
    "optim": {"name": "sgd", "lr": 0.01},
    "train": TRAIN,
}
TINY = {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "group_widths": [8] * 4, "bottleneck_ratios": [1] * 4}
RETINA = {
    "task": "detect",
    "model": {
        "name": "retinanet",
        "backbone": "anynetx",
        "backbone_options": {**TINY, "stem_width": 8},
        "channels": 8,
        "strides": [4, 8],
        "extra_levels": 0,
        "head_repeats": 1,
    },
    "data": {"source": "data/boxes.csv", "size": 32},
    "optim": {"name": "sgd", "lr": 0.001},
    "train": TRAIN,
}
RECIPES = {"classify": LENET, "detect": RETINA}


def write(path: Path, k: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.RandomState(k).randint(0, 120, (32, 32)) + 120 * (k % 2)
    Image.fromarray(image.astype(np.uint8)).save(path)


def make_data(task: str) -> None:
    for k in range(COUNT):
        write(Path("data") / f"c{k % 2}" / f"{k:03d}.png", k)
    if task == "detect":
        list_boxes()


def list_boxes() -> None:
    files = sorted(Path("data").rglob("*.png"))
    rows = [f"{file.relative_to('data').as_posix()},4,4,20,20,{file.parent.name}" for file in files]
    Path("data/boxes.csv").write_text("\n".join(["path,x1,y1,x2,y2,label", *rows]) + "\n")


@pytest.fixture(scope="module", params=["classify", "detect"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A folder with data, and a run of one epoch on it."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("OPSIN_RUN_FOLDER", raising=False)
        make_data(request.param)
        opsin.train(RECIPES[request.param], out="run", say=lambda line: None)
    return request.param, folder


@pytest.fixture
def place(trained: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The task; in a copy of the folder, which is the current one."""
    monkeypatch.chdir(shutil.copytree(trained[1], tmp_path / "copy"))
    return trained[0]


def members(run: str = "run") -> dict[str, set[str]]:
    packed = read_model(run).members
    assert packed is not None
    return {key: set(names) for key, names in Members.unpack(packed).names.items()}


def resume(**overrides: Any) -> list[str]:
    lines: list[str] = []
    opsin.train(resume="run", overrides={"train.epochs": 2, **overrides}, say=lines.append)
    return lines


def change(task: str, how: str) -> tuple[str, str]:
    """Change the data; the words by which that is to be said, and the names of which one is to be said."""
    old = members()
    if how == "added":
        write(Path("data/c0/new.png"), 1000)
        words, name = "new: 1 added", "c0/new.png"
    elif how == "removed":
        gone = [f"c{k % 2}/{k:03d}.png" for k in range(50)]
        for one in gone:
            (Path("data") / one).unlink()
        count = len(old["train"] & set(gone))
        words, name = f"train: {count} removed", min(old["train"] & set(gone), key=lambda one: (one[:2], one))
    else:
        name = sorted(old["test"])[0]
        write(Path("data") / name, 2000)
        words = "test: 1 edited"
    if task == "detect":
        list_boxes()
    return words, name


@pytest.mark.parametrize("how", ["added", "removed", "edited"])
def test_a_change_is_refused_and_said_and_accepted(
    how: str, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = members()
    words, name = change(place, how)
    with pytest.raises(InputError) as refused:
        resume()
    assert words in str(refused.value) and name in str(refused.value)
    assert "--set data.changes=accept" in str(refused.value)
    opsin.evaluate("run")
    said = capsys.readouterr().err
    assert words in said and name in said and "has changed since the training" in said
    lines = resume(**{"data.changes": "accept"})
    assert any(words in line and "accepted" in line for line in lines)
    after = members()
    for key, names in before.items():
        assert after[key] - {"c0/new.png"} <= names  # nobody goes from one split to another
        assert names - after[key] <= {f"c{k % 2}/{k:03d}.png" for k in range(50)} and (how == "removed") == bool(
            names - after[key]
        )
    assert ("c0/new.png" in set().union(*after.values())) == (how == "added")
    assert load_recipe("run/recipe.yaml").data.changes == "refuse"
    capsys.readouterr()
    opsin.evaluate("run")
    assert "changed" not in capsys.readouterr().err
    if place == "classify":
        resume(**{"train.epochs": 3})  # what was accepted is what the run has now


def test_unchanged_and_moved_data_are_not_changed(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = read_checkpoint(Path("run/last.ckpt"))["opsin"]["members"].numpy().tobytes()
    assert packed == read_model("run").members
    shutil.copytree("data", tmp_path / "elsewhere")
    inside = "elsewhere/boxes.csv" if place == "detect" else "elsewhere"
    source = str(tmp_path / inside)
    recipe = Path("run/recipe.yaml")
    own = RECIPES[place]["data"]["source"]  # type: ignore[index]
    recipe.write_text(recipe.read_text().replace(f"source: {own}", f"source: {source}"))
    lines = resume()
    assert not any("changed" in line for line in lines)
    opsin.evaluate("run")
    assert "changed" not in capsys.readouterr().err


def test_what_was_trained_on_is_said_of_any_data(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = members()["train"]
    opsin.evaluate("run", data=RECIPES[place]["data"]["source"])  # type: ignore[index]
    assert f"{len(known)} of {COUNT} images are among those it was trained on" in capsys.readouterr().err
    opsin.evaluate("run")
    assert "trained on" not in capsys.readouterr().err
    if place == "classify":  # other files of the same pixels, under other names
        for k, name in enumerate([*sorted(known)[:3], *sorted(members()["test"])[:4]]):
            target = Path("other") / f"c{name[1]}" / f"{k}.bmp"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(Path("data") / name).save(target)
        for workers in (0, 1):
            (saved := opsin.load("run", "cpu")).recipe.train.workers = workers
            opsin.evaluate(saved, data="other")
            assert "3 of 7 images are among those it was trained on" in capsys.readouterr().err


def test_what_left_train_is_still_what_was_trained_on(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    if place == "detect":
        pytest.skip("one task is enough")
    name = sorted(members()["train"])[0]
    Path("other/c0").mkdir(parents=True)
    Path("other/c1").mkdir()
    (Path("data") / name).rename(f"other/{name[:2]}/x.png")
    write(Path(f"other/c{1 - int(name[1])}/y.png"), 3000)
    resume(**{"data.changes": "accept"})
    opsin.evaluate("run", data="other")
    assert "1 of 2 images are among those it was trained on" in capsys.readouterr().err


def test_a_run_without_members_divides_as_it_did(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = opsin.evaluate("run")
    tensors, metadata = read_tensors(Path("run/model.safetensors"))
    write_tensors(
        Path("run/model.safetensors"),
        {k: v for k, v in tensors.items() if k != MEMBERS},
        json.loads(metadata["opsin"]),
    )
    checkpoint = read_checkpoint(Path("run/last.ckpt"))
    del checkpoint["opsin"]["members"]
    torch.save(checkpoint, "run/last.ckpt")
    if place == "classify":
        assert opsin.evaluate("run") == before
        write(Path("data/c0/new.png"), 1000)
        assert not any("changed" in line for line in resume())


def test_given_splits_name_their_twins_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k in range(40):
        write(Path("data") / ("train" if k < 30 else "test") / f"c{k % 2}" / f"{k}.png", k % 35)
    lines: list[str] = []
    opsin.train(LENET, {"data.val_fraction": 0}, out="run", say=lines.append)
    assert any("images that are in train too, the same pixel for pixel: 5 of 10 in test" in line for line in lines)
    write(Path("data/test/c0/new.png"), 500)
    with pytest.raises(InputError, match=r"test: 1 added \(test/c0/new.png\)"):
        resume()
    resume(**{"data.changes": "accept"})
    assert "test/c0/new.png" in members()["test"]


def test_a_stratified_run_gives_new_ones_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data("classify")
    opsin.train(LENET, {"data.split": "stratified"}, out="run", say=lambda line: None)
    before = members()
    assert [len(before[key]) for key in ("train", "val", "test")] == [84, 12, 24]
    for k in range(10):
        write(Path(f"data/c0/new{k}.png"), 700 + k)
    resume(**{"data.changes": "accept"})
    after = members()
    assert after["train"] - before["train"] == {f"c0/new{k}.png" for k in range(10)}
    assert (after["val"], after["test"]) == (before["val"], before["test"])


def test_which_division_a_recipe_has() -> None:
    new = {"model": {"name": "lenet5"}, "data": {"source": "photos"}}
    assert load_recipe(new).data.split == "hash"
    for version in (1, 2):
        assert load_recipe({**new, "version": version}).data.split == "stratified"
        assert load_recipe(new, {"version": version}).data.split == "stratified"
    assert load_recipe({**new, "data": {"source": "digits"}}).data.split == "stratified"
    assert load_recipe({**new, "data": {"source": "digits", "split": "hash"}}).data.split == "hash"
    assert load_recipe("lenet5_mnist").data.split == "stratified"
    saved = load_recipe(new).model_dump(mode="json")
    assert load_recipe(saved).data.split == "hash" and saved["version"] == 3
    del saved["version"], saved["data"]["split"]  # as it was saved before versions were written
    assert load_recipe(saved).data.split == "stratified"
