"""Adaptation from folders to a run: what it may see, what it says, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import opsin
from opsin.adapt.opening import open_domains
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

from .tiny_domains import CLASSES, recipe, write_domain, write_loose


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("domains")
    return write_domain(folder / "a"), write_domain(folder / "c", shifted=True)


def quiet(line: str) -> None:
    return


def test_a_run_is_ordinary_and_says_what_the_oracle_would(domains: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    run = opsin.train(recipe(*domains, "dann"), out=tmp_path / "run", say=said.append)
    assert [line for line in said if line.startswith("oracle")]
    assert any("source_only" in line for line in said if line.startswith(("dann", "WORSE")))
    assert (tmp_path / "run/stages/source_only/result.safetensors").is_file()
    page = (tmp_path / "run/report.html").read_text()
    assert "Oracle (for comparison only)" in page and "Did it help?" in page
    loaded = opsin.load(run.path)
    answer = loaded.predict(next((domains[1] / "board").iterdir()))
    assert answer["label"] in CLASSES
    assert opsin.evaluate(run.path) == run.metrics
    assert 0 <= opsin.evaluate(run.path, data=str(domains[1]))["accuracy"] <= 1
    opsin.export(run.path, "onnx", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()


def test_permuted_target_labels_change_no_bit(domains: tuple[Path, Path], tmp_path: Path) -> None:
    permuted = tmp_path / "c"
    shutil.copytree(domains[1], permuted)
    files = sorted(permuted.rglob("*.png"))
    order = np.random.RandomState(0).permutation(len(files))
    held = [(file.name, file.read_bytes()) for file in files]
    for file in files:
        file.unlink()
    for file, place in zip(files, order, strict=True):  # every image keeps its name, and gets a class at random
        name, content = held[place]
        (file.parent / name).write_bytes(content)
    weights = []
    for target in (domains[1], permuted):
        out = tmp_path / f"run{len(weights)}"
        values = recipe(domains[0], target, "cdan_e", selection="dev")
        opsin.train(values, {"data.split_seed": 3, "train.epochs": 2, "train.max_steps": 4}, out=out, say=quiet)
        weights.append(load_file(out / "model.safetensors"))
    one, other = weights
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one if not name.startswith("opsin."))


def test_target_labels_stay_outside_of_what_is_trained_on(domains: tuple[Path, Path]) -> None:
    source = open_domains(load_recipe(recipe(*domains, "dann")), quiet)
    for key in ("train", "val"):
        truth = source.splits[key].kind
        assert (truth.labels[truth.domains < 0] == -1).all() and (truth.domains < 0).any()
        assert (truth.labels[truth.domains >= 0] >= 0).all()
    assert source.oracle is not None
    some = open_domains(load_recipe(recipe(*domains, "dann", target_labels=2)), quiet).splits["train"].kind
    assert np.bincount(some.labels[(some.domains < 0) & (some.labels >= 0)]).tolist() == [2, 2, 2]


def test_a_folder_of_images_without_labels_is_a_target(domains: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    opsin.train(
        recipe(domains[0], write_loose(tmp_path / "loose"), "deep_coral"), out=tmp_path / "run", say=said.append
    )
    assert any("no labels that could say whether deep_coral helped" in line for line in said)
    assert not [line for line in said if line.startswith("oracle")]


def test_what_cannot_be_is_refused_in_a_line(domains: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    one = write_domain(tmp_path / "one", names=("across",))
    other = write_domain(tmp_path / "other", names=("across", "board", "circle"))
    source, target = domains
    cases = [
        (recipe(source, empty, "dann"), "holds no images"),
        (recipe(source, target, "dann") | {"train": {"batch_size": 400}}, "lower, or give more images"),
        (recipe(one, target, "dann"), "only the class 'across'"),
        (recipe(source, None, "dann"), "adapts to a target, and there is none"),
        (recipe(source, source, "dann"), "is a source and the target too"),
        (recipe(source, target, "dan", sources=[str(other)]), "differ in 'circle', 'down'"),
        (recipe(source, target, "damn"), "did you mean"),
        (recipe(source, target, "dann", options={"hiden": 5}), "did you mean hidden"),
        (recipe(source, None, "source_only", selection="snd"), "looks at a target's validation images"),
        (recipe(source, write_loose(tmp_path / "loose"), "dann", target_labels=1), "needs labels, and loose has none"),
    ]
    for values, words in cases:
        with pytest.raises(InputError, match=words):
            opsin.train(values, out=tmp_path / "never", say=quiet)
    assert not (tmp_path / "never").exists()


def test_classes_that_differ_are_named(domains: tuple[Path, Path], tmp_path: Path) -> None:
    target = write_domain(tmp_path / "c", shifted=True, names=("across", "board", "circle"))
    source = open_domains(load_recipe(recipe(domains[0], target, "dann")), quiet)
    assert "classes of c that a lacks, which no method here can learn: 'circle'" in source.notes
    assert any(note.startswith("classes of a that c lacks") and note.endswith("'down'") for note in source.notes)
    assert source.oracle is not None and set(source.oracle.kind.labels.tolist()) <= {0, 1}


def test_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from opsin.adapt.command import adapt
    from opsin.adapt.methods import METHODS

    adapt(list_methods=True, as_json=True)
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(METHODS)
