"""A run shared and taken up again: the folder for a hub, its card, and what a hub on this machine gives back."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.fake_hub import FakeHub, Repository, fake_hub

import opsin
from opsin import cli
from opsin.engine.checkpoint import read_model
from opsin.engine.model_card import without_paths
from opsin.engine.push import push
from opsin.errors import InputError, JobError

pytest.importorskip("huggingface_hub")

QUICK: dict[str, Any] = {"train.max_steps": 6, "data.limit": 60, "train.tensorboard": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits_net"
    return opsin.train("lenet5_digits", {**QUICK, "train.accelerator": "cpu"}, out=out, say=lambda line: None).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "digits_net"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.delenv("OPSIN_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with fake_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


def share(hub: FakeHub, folder: Path, name: str) -> None:
    hub.repositories[name] = Repository({one.name: one.read_bytes() for one in folder.iterdir()})


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["opsin", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_what_is_pushed_answers_as_the_run(run: Path, hub: FakeHub) -> None:
    pushed = push(run, licence="mit")
    assert pushed.folder == run / "hub"
    assert sorted(one.name for one in pushed.folder.iterdir()) == sorted(pushed.files)
    assert pushed.files == ("model.safetensors", "recipe.yaml", "README.md", "loss.png")
    share(hub, pushed.folder, "ada/digits_net")
    images = [torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8) for _ in range(5)]
    ours, theirs = (
        [dict(answer) for answer in opsin.load(one, "cpu").predict(images)] for one in (run, "hf:ada/digits_net")
    )
    assert ours == theirs
    assert read_model("hf:ada/digits_net").metrics == read_model(run).metrics
    assert opsin.load("hf:ada/digits_net@main", "cpu").classes == list("0123456789")


def test_the_card_says_what_the_run_knows(run: Path) -> None:
    text = (push(run, licence="mit").folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["license"], found["library_name"], found["pipeline_tag"]) == ("mit", "opsin", "image-classification")
    assert found["tags"] == ["opsin", "classify", "lenet5"] and "datasets" not in found
    (result,) = found["model-index"][0]["results"]
    saved = read_model(run)
    assert {f"test_{one['type']}": one["value"] for one in result["metrics"]} == saved.metrics
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    assert f"| test | accuracy | {100 * saved.metrics['test_accuracy']:.2f} % |" in body
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", body, re.S)[1])  # type: ignore[index]
    assert recipe == yaml.safe_load((run / "hub" / "recipe.yaml").read_text()) == saved.recipe.model_dump(mode="json")
    python = re.search(r"```python\n(.*?)```", body, re.S)[1]  # type: ignore[index]
    assert 'opsin.load("hf:OWNER/digits_net")' in python and "opsin predict hf:OWNER/digits_net photo.jpg" in body
    assert "![Loss over the training](loss.png)" in body
    assert np.asarray(Image.open(run / "hub" / "loss.png")).std() > 5


def test_a_model_alone_has_no_chart(run: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(run / "model.safetensors", tmp_path / "net.safetensors"))
    pushed = push(file, tmp_path / "out")
    assert pushed.files == ("model.safetensors", "recipe.yaml", "README.md")
    assert "loss.png" not in (pushed.folder / "README.md").read_text()


def test_paths_of_this_machine_are_left_out(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "private" / "insects" / name).mkdir(parents=True)
        for place in range(10):
            pixels = np.full((16, 16, 3), 20 * place, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "private" / "insects" / name / f"{place}.png")
    recipe = {"model": {"name": "resnet20"}, "data": {"source": str(tmp_path / "private" / "insects"), "size": 16}}
    quick = {**QUICK, "train.accelerator": "cpu"}
    run = opsin.train(recipe, quick, out=tmp_path / "run", say=lambda line: None).path
    folder = push(run).folder
    assert f"{tmp_path / 'private' / 'insects'} is shared as insects" in capsys.readouterr().err
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file
    assert read_model(folder).recipe.data.source == "insects"
    assert read_model(run).recipe.data.source == str(tmp_path / "private" / "insects")


def test_texts_that_are_paths() -> None:
    taken: set[str] = set()
    given = {"a": ["/srv/ada/photos/", "photos/", "C:\\ada\\photos"], "b": {"c": "~/x", "d": 1, "e": "hf:a/b"}}
    assert without_paths(given, taken) == {"a": ["photos", "photos/", "photos"], "b": {"c": "x", "d": 1, "e": "hf:a/b"}}
    assert taken == {"/srv/ada/photos/", "C:\\ada\\photos", "~/x"}


def test_it_uploads_only_where_that_is_asked_for(
    run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    done: list[Any] = []

    class Api:
        def __init__(self, **options: Any) -> None:
            pass

        def create_repo(self, name: str, **options: Any) -> str:
            done.append((name, options))
            return f"https://hub.invalid/{name}"

        def upload_folder(self, **options: Any) -> None:
            if options["repo_id"] == "ada/full":
                raise OSError("quota")
            done.append(options)

    status, out, _ = call(monkeypatch, capsys, "push", str(run))
    assert status == 0 and out.splitlines()[-1].endswith(f"to upload it: opsin push {run} --to OWNER/NAME")
    assert hub.asked == []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    status, _, err = call(monkeypatch, capsys, "push", str(run), "--to", "ada/net")
    assert status == 2 and err == "opsin: --to ada/net needs a login of the hub: run `hf auth login`, or set HF_TOKEN\n"
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    status, out, _ = call(monkeypatch, capsys, "push", str(run), "--to", "ada/net", "--private", "--json")
    assert status == 0 and json.loads(out)["address"] == "https://hub.invalid/ada/net"
    assert done[0] == ("ada/net", {"exist_ok": True, "private": True})
    assert done[1]["folder_path"] == str(run / "hub") and "README.md" in done[1]["allow_patterns"]
    assert 'opsin.load("hf:ada/net")' in (run / "hub" / "README.md").read_text()
    with pytest.raises(JobError, match=r"ada/full could not be uploaded: quota; .*hub is written"):
        push(run, to="ada/full")
    monkeypatch.setenv("OPSIN_OFFLINE", "1")
    with pytest.raises(InputError, match=r"offline, so nothing is uploaded to ada/net"):
        push(run, to="ada/net")


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"full holds thesis.tex, which is of something else; choose another --out"):
        push(run, tmp_path / "full")
    with pytest.raises(InputError, match="no run or file at"):
        push(tmp_path / "nothing")
    with pytest.raises(InputError, match="no run or file at"):
        push("resnet18:imagenet1k")


def test_the_verbs_take_a_run_of_the_hub(
    run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    share(hub, push(run).folder, "ada/digits_net")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "seven.png")
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(monkeypatch, capsys, "predict", "hf:ada/digits_net", "seven.png", "--top", "3", "--json")
    assert status == 0 and len(json.loads(out)[0]["top"]) == 3
    status, out, _ = call(monkeypatch, capsys, "eval", "hf:ada/digits_net", "--json")
    expected = {f"test_{name}": value for name, value in json.loads(out).items()}
    assert status == 0 and expected == pytest.approx(read_model(run).metrics, abs=1e-5)
    status, out, _ = call(monkeypatch, capsys, "explain", "hf:ada/digits_net")
    assert status == 0 and "lenet5" in out
    status, _, _ = call(monkeypatch, capsys, "export", "hf:ada/digits_net", "--format", "torch")
    assert status == 0 and (tmp_path / "digits_net.pt2").exists()
    count = len(hub.asked)
    assert call(monkeypatch, capsys, "predict", "hf:ada/digits_net", "--help")[0] == 0
    assert len(hub.asked) == count
    assert hub.sent == ["/ada/digits_net/resolve/main/model.safetensors"]


def test_first_weights_of_the_hub(run: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    share(hub, push(run).folder, "ada/digits_net")
    lines: list[str] = []
    recipe = {"model": {"name": "lenet5"}, "data": {"source": "digits"}, "train": {"init": "hf:ada/digits_net"}}
    quick = {**QUICK, "train.accelerator": "cpu"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(
        InputError, match=r"only a recipe names is not downloaded; .*--set train.init=hf:ada/digits_net"
    ):
        opsin.train(tmp_path / "recipe.yaml", quick, out=tmp_path / "one", say=lines.append)
    assert hub.asked == []
    opsin.train(recipe, quick, out=tmp_path / "two", say=lines.append)
    assert any(re.match(r"initialized \d+ of \d+ tensors from ", line) for line in lines)
    recipe = {"model": {"name": "lenet5", "weights": "hf:ada/digits_net"}, "data": {"source": "digits"}}
    opsin.train(recipe, {**quick, "data.channels": 1}, out=tmp_path / "three", say=lines.append)
    assert "first weights: hf:ada/digits_net of the Hugging Face hub (the terms of its repository)" in lines
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"only a recipe names is not downloaded; .*--weights hf:ada/digits_net"):
        opsin.train(tmp_path / "recipe.yaml", {**quick, "data.channels": 1}, out=tmp_path / "four")
    with pytest.raises(InputError, match=r"hf:ada/digits_net does not fit resnet18"):
        opsin.create_model("resnet18", weights="hf:ada/digits_net")


def test_weights_that_are_no_run(hub: FakeHub) -> None:
    from safetensors.torch import save

    hub.repositories["ada/plain"] = Repository({"model.safetensors": save({"a": torch.zeros(1)})})
    with pytest.raises(InputError, match=r'hf:ada/plain holds weights, but no run .*weights="hf:ada/plain"'):
        opsin.load("hf:ada/plain")


def test_the_card_names_the_backbone_and_what_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    settings = {
        **QUICK, "model.name": "retinanet", "model.backbone": "timm:test_resnet", "data.source": "scenes:24",
        "data.size": 64, "train.max_steps": 1, "train.batch_size": 2, "train.accelerator": "cpu",
    }  # fmt: skip
    run = opsin.train({"task": "detect"}, settings, out=tmp_path / "run", say=lambda line: None).path
    text = (push(run).folder / "README.md").read_text(encoding="utf-8")
    assert "`retinanet` with the backbone `timm:test_resnet`, for the task detect" in text
    assert "`pip install 'opsin[hub,timm]'`, then" in text
    assert yaml.safe_load(text.split("---\n", 2)[1])["tags"] == ["opsin", "detect", "retinanet", "timm:test_resnet"]


def test_a_network_that_was_an_object_is_not_shared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    settings = {**QUICK, "train.accelerator": "cpu", "data.channels": 1}
    run = opsin.train(model=network, data="digits", size=8, overrides=settings, out=tmp_path / "run", say=print).path
    for given in (run, run / "model.safetensors"):
        with pytest.raises(
            InputError, match=r"no file holds the code of Sequential; train it by a name, opsin\.register"
        ):
            push(given)
    assert not (run / "hub").exists()
