"""`opsin explain` as a user calls it, and the JSON that others build on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import opsin
from opsin import cli, registry
from opsin.analyze.explain import explain, explain_model
from opsin.analyze.families import PLACES
from opsin.errors import InputError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Calls the command line in this process: (status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["opsin", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    opsin.train("lenet5_digits", {"train.max_steps": 2, "data.limit": 60}, out=out, say=lambda line: None)
    return out


def test_a_model(call: Call) -> None:
    status, out, err = call("resnet18")
    assert (status, err) == (0, "")
    for words in ("arXiv:1512.03385 2015", "learn the residual", "11,689,512", "1,814,073,344", "MACs", "FLOPs",
                  "connections", "stages.3.1.relu", "FLOPs per byte", "100 %", "imagenet1k top-1",
                  "to train, at the peak", "none of the rules speaks"):  # fmt: skip
        assert words in out


def test_json_holds_everything_and_keeps_its_names(call: Call) -> None:
    status, out, _ = call("lenet5", "--json", "--batch", 4)
    found = json.loads(out)
    assert status == 0 and found["format"] == 1
    assert list(found) == ["format", "identity", "results", "totals", "stages", "layers", "uncounted", "memory",
                           "advice", "training", "latency"]  # fmt: skip
    assert found["identity"]["input"] == [1, 32, 32] and found["identity"]["family"] == "lenet"
    assert found["totals"]["params"] == 61_706 and found["totals"]["macs"] == 416_520
    assert found["memory"]["batch"] == 4 and found["latency"] is None and found["training"] is None
    assert set(found["layers"][0]) == {
        "index", "name", "type", "inputs", "output_shape", "params", "connections", "macs", "flops", "activations",
        "elements", "bytes_read", "bytes_written", "intensity", "share", "operators", "uncounted", "field",
        "kernel_size", "stride", "dilation", "groups", "in_channels", "out_channels", "input_shape",
    }  # fmt: skip
    assert found["stages"][1]["field"] == {
        "size": [14, 14], "jump": [2, 2], "start": [0, 0], "centre": [7.0, 7.0], "whole": False, "exact": True,
    }  # fmt: skip
    assert found == json.loads(call("lenet5", "--json", "--batch", 4)[1])
    assert {"metric": "mnist accuracy", "value": 99.42, "origin": "recipe", "source": "lenet5_mnist"} in found[
        "results"
    ]


def test_a_recipe_shows_its_schedule(call: Call) -> None:
    status, out, _ = call("lenet5_digits", "--json")
    found = json.loads(out)
    training = found["training"]
    assert status == 0 and found["identity"]["kind"] == "recipe"
    assert found["identity"]["options"] == {"num_classes": 10} and found["memory"]["optimizer"] == "adamw"
    assert (training["data"], training["epochs"], training["optimizer"]) == ("digits", 20, "adamw")
    rates = dict(training["rates"])
    assert rates[2.0] == pytest.approx(2e-3) and rates[0.0] == pytest.approx(2e-5)
    assert max(rates) < 20 and training["rates"][-1][1] < 1e-6 < 2e-3
    assert "name: lenet5" in training["recipe"]
    assert "20 epochs of batches of 32" in call("lenet5_digits")[1]


def test_a_recipe_file_with_options(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {name: resnet20, shortcut: B}\ndata: {source: nowhere, size: 48, channels: 1}\n")
    found = json.loads(call(path, "--json")[1])
    assert found["identity"]["input"] == [1, 48, 48]
    assert found["identity"]["options"] == {"shortcut": "B", "in_channels": 1}
    assert found["totals"]["params"] > 269_722


def test_a_run_has_its_own_results(call: Call, run: Path) -> None:
    found = json.loads(call(run, "--json")[1])
    own = [r for r in found["results"] if r["origin"] == "run"]
    assert "digits accuracy" in [r["metric"] for r in own] and {r["source"] for r in own} == {f"{run}, test"}
    assert found["identity"]["kind"] == "run" and found["training"]["epochs"] == 20
    assert explain(run / "model.safetensors").totals == explain(run).totals


def test_measuring_adds_peaks_and_latency(call: Call) -> None:
    found = json.loads(call("lenet5", "--measure", "--batch", 2, "--json")[1])
    assert found["memory"]["measured_train_peak"] > found["memory"]["measured_infer_peak"] > 0
    assert found["latency"]["median"] > 0 and found["latency"]["batch"] == 1


def test_a_comparison(call: Call) -> None:
    status, out, _ = call("resnet18", "vgg11", "--json", "--input", "3,64,64")
    found = json.loads(out)
    assert status == 0 and found["metric"] == "imagenet1k top-1"
    assert [m["name"] for m in found["models"]] == ["resnet18", "vgg11"]
    assert found["models"][0]["accuracy"] == pytest.approx(69.758) and found["models"][0]["input"] == [3, 64, 64]
    assert found["models"][1]["advice"] == ["heavy_head"]
    out = call("resnet18", "vgg11")[1]
    assert "132,863,336" in out and "1.81 G" in out and "69.76" in out


def test_another_input_and_channels() -> None:
    found = explain("resnet18", input_size=(1, 96, 64))
    assert found.identity.options == {"in_channels": 1} and found.stages[-2].output_shape == (512, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5O"], "or resnet50"),
        (["runs/none"], "no run or recipe at runs/none"),
        (["none.yaml"], "no file at none.yaml"),
        (["none.safetensors"], "no file at none.safetensors"),
        (["resnet18", "--input", "3,224"], "for example 3,224,224; got 3,224"),
        (["resnet18", "--input", "a,b,c"], "got 'a,b,c'"),
        (["resnet18", "--input", "3,0,32"], "got 3,0,32"),
        (["vgg16", "--input", "3,16,16"], "at least 32x32, got 16x16"),
        (["lenet5", "--input", "1,28,28"], "32x32 only"),
        (["resnet18", "--batch", "0"], "greater than or equal to 1"),
        (["resnet18", "--optimizer", "adam"], "did you mean adamw"),
        (["resnet18", "--images", "cat.png"], "add --html"),
        (["resnet50:none"], "weights of resnet50"),
        ([], "MODEL|RUN|RECIPE"),
    ],
)
def test_wrong_calls_are_one_line_and_status_2(call: Call, arguments: list[str], words: str) -> None:
    status, out, err = call(*arguments)
    assert (status, out) == (2, "") and words in err, err
    assert err.count("\n") == 1 and err.startswith("opsin: ") and "Traceback" not in err


def test_a_file_that_is_none_of_these(call: Call, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "is no run, recipe" in call(tmp_path / "notes.txt")[2]
    assert "it is not a run" in call(tmp_path)[2]
    (tmp_path / "bad.yaml").write_text("model: [")
    assert "not valid YAML" in call(tmp_path / "bad.yaml")[2]


def test_any_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).train()
    found = explain_model(model, (3, 8, 8), name="mine", batch=2)
    assert (found.identity.name, found.stages, found.totals.coverage) == ("mine", (), 100)
    assert model.training and not any(p.is_meta for p in model.parameters())
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(InputError, match="3,8"):
        explain_model(model, (3, 8))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ssdlite320_mobilenet_v3_large", ""),
        ("fast_rcnn", "2,000 proposals"),
        ("rpn", ""),
        ("mask_rcnn_resnet50_fpn", "1,000 proposals, 100 masks"),
    ],
)
def test_a_detector_is_counted_with_its_second_stage(
    name: str, said: str, call: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = call(name)
    assert status == 0 and (f"the second stage counted on {said};" in out) == bool(said)
    totals, published = explain(name).totals, registry.find_model(name).published
    assert (totals.params, totals.counted_on) == (published.params, said)
    assert totals.macs == pytest.approx(published.macs, rel=0.005)


def test_every_family_has_its_place() -> None:
    families = {registry.find_model(name).family for name in registry.list_models(task="classify")}
    assert families <= PLACES.keys()


def test_nothing_is_computed_without_measuring() -> None:
    with torch.device("meta"):
        before = torch.get_rng_state()
    explain("resnet18")
    assert torch.equal(torch.get_rng_state(), before)
