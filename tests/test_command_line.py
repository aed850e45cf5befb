"""What the command line says of itself: its help, its hints, its table of models, and what it offers to a shell."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opsin import cli, registry, rooms
from opsin.cli import completion, train
from opsin.cli.command import VERBS
from opsin.cli.models import rounded, table
from opsin.engine.starting import recipe_of
from opsin.errors import InputError, nearest

DETECTOR = Path(__file__).parent / "compatibility" / "detect"


class Printed(str):
    status: int = 0
    err: str = ""


@pytest.fixture
def opsin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a call prints, in this process."""

    def call(*arguments: str) -> Printed:
        monkeypatch.setattr(sys, "argv", ["python -m opsin", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        printed = Printed(out)
        printed.status, printed.err = int(stop.value.code or 0), err
        return printed

    return call


# Help


OF_TASKS = [name for room in rooms.built_in_rooms() for name in room.commands]  # verbs that tasks bring
CALLS = [("--help",), *((verb, "--help") for verb in [*VERBS, *OF_TASKS]), ("predict", str(DETECTOR), "--help")]


@pytest.mark.parametrize("columns", ["80", "60"])
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help_speaks_the_words_of_the_field(call, columns: str, opsin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = opsin(*call)
    assert text.status == 0
    assert text.startswith("Usage: opsin ") and "python -m" not in text
    assert not re.search(r"<[\w\[\] ]+>|[{}]|\brange\b|\bPath\b|\bint\b(?!:)|\bbool\b|\bstr\b", text), text
    assert "...]..." not in text and "......" not in text
    wide = [line for line in text.splitlines() if len(line) > int(columns)]
    assert not [line for line in wide if not re.search(r"\S{30,}|^ +\S+$", line)], wide
    if columns == "80":
        assert not wide


def test_usage_names_arguments(opsin) -> None:
    assert opsin("predict", "--help").startswith("Usage: opsin predict [OPTIONS] [RUN] [INPUT...]\n")
    assert opsin("explain", "--help").startswith("Usage: opsin explain [OPTIONS] MODEL|RUN|RECIPE...\n")
    assert opsin("eval", "--help").startswith("Usage: opsin eval [OPTIONS] [RUN]\n")
    assert "From 0 to 1." in opsin("predict", str(DETECTOR), "--help")
    bare = opsin()
    assert bare.status == 2 and bare.startswith("Usage: opsin [OPTIONS] VERB ...\n") and not bare.err


# Hints


def refused(printed: Printed, line: str) -> None:
    assert (printed.status, printed.err) == (2, f"opsin: {line}\n")


def test_mistyped_verbs_and_numbers(opsin) -> None:
    verbs = ", ".join([*VERBS, *OF_TASKS])
    refused(opsin("tarin"), f"there is no verb 'tarin'; did you mean 'train'? The verbs are {verbs}")
    refused(opsin("frobnicate"), f"there is no verb 'frobnicate'; the verbs are {verbs}")
    refused(opsin("train", "lenet5", "--epochs", "b"), "--epochs takes a whole number; got 'b'")
    refused(opsin("train", "lenet5", "--lr=fast"), "--lr takes a number or auto; got 'fast'")
    assert opsin("predict", "runs/none", "x.png", "--batch-size", "0").err.endswith("; got '0'\n")


def test_missing_data_is_called_missing(opsin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPSIN_DATA", raising=False)
    refused(opsin("data", "photos/"), "no file or folder at photos/")
    refused(opsin("data", "photos/cats"), "no file or folder at photos/cats")
    assert opsin("data", "photos").err.startswith(
        "opsin: no file or folder at photos; built-in data has a name: digits"
    )
    refused(opsin("data", "digts"), "unknown data source 'digts'; did you mean digits or rows:digits or dates?")
    refused(opsin("train", "lenet5", "--data", "photos/"), "no file or folder at photos/")


LONG = "/".join(["x" * 200] * 25)


@pytest.mark.parametrize(
    "words",
    [
        ("data", LONG),
        ("train", "classify", "--model", "lenet5", "--data", LONG),
        ("train", LONG),
        ("train", "--resume", LONG),
        ("eval", LONG),
        ("predict", str(DETECTOR), LONG),
        ("explain", "y" * 300),
        ("export", LONG),
        ("export", str(DETECTOR), "--out", f"{LONG}.onnx"),
    ],
    ids=lambda words: " ".join(one[:12] for one in words),
)
def test_paths_that_are_too_long_are_one_line(words: tuple[str, ...], opsin) -> None:
    done = opsin(*words)
    assert done.status == 2 and done.err.count("\n") == 1 and len(done.err) < 200
    assert re.search(r"the path [xy]{30}\.\.\.\S{30}, of [\d,]+ characters, is too long here", done.err)


def test_unknown_tasks_list_the_tasks(opsin) -> None:
    tasks = ", ".join(rooms.list_tasks())
    expected = f"unknown task 'clasify'; did you mean classify? The tasks are {tasks}"
    refused(opsin("data", "digits", "--task", "clasify"), expected)
    refused(opsin("models", "--task", "xxxx"), f"unknown task 'xxxx'; the tasks are {tasks}")


def test_unknown_models_list_the_nearest_and_the_command(opsin) -> None:
    for call in (("train", "resnet5O"), ("explain", "resnet5O"), ("models", "resnet5O")):
        printed = opsin(*call)
        assert printed.status == 2 and "resnet50" in printed.err and "`opsin models`" in printed.err, printed.err
    for call in (("train", "swin_t"), ("explain", "swin_t"), ("models", "swin_t"), ("train", "--model", "swin_t")):
        printed = opsin(*call)
        assert (
            printed.status == 2
            and "Swin is not built in; timm and torchvision have it: try `timm:swin_t` or" in printed.err
        ), printed.err


def test_who_is_said_to_have_a_network_has_it() -> None:
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    from fnmatch import filter as matching

    names = {"timm": timm.list_models(), "torchvision": torchvision.models.list_models()}
    for pattern, family, libraries in (*registry._ELSEWHERE, *registry._OF_OTHER_TASKS):
        for library in libraries:
            assert matching(names[library], pattern), f"{library} has no {pattern} ({family})"
        assert not matching(registry.list_models(), pattern), f"{pattern} ({family}) is here"
    for name in ("convnext_tiny", "vit_b_16", "swin_t", "efficientnetv2_s", "ConvNeXt_Tiny"):
        assert registry.elsewhere(name) is not None, name
    assert "`timm:convnext_tiny` or `torchvision:convnext_tiny`" in str(registry.elsewhere("convnext_tiny"))
    assert "`opsin models 'timm:*'`" in str(registry.elsewhere("timm"))
    assert registry.elsewhere("resnet50") is None and registry.elsewhere("resnet5O") is None


def test_a_folder_without_a_model_says_what_is_missing(opsin, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").write_text("task: classify\n")
    assert "its training has not saved a model yet" in opsin("eval", str(tmp_path / "begun")).err
    (tmp_path / "begun" / "last.ckpt").write_text("")
    assert f"opsin train --resume {tmp_path / 'begun'}" in opsin("eval", str(tmp_path / "begun")).err
    (tmp_path / "begun" / "model.safetensors").write_text("")
    assert f"holds 1: {tmp_path / 'begun'}" in opsin("eval", str(tmp_path)).err
    assert f"did you mean {tmp_path / 'begun'}?" in opsin("eval", str(tmp_path / "begum")).err
    (tmp_path / "none").mkdir()
    assert "a run has recipe.yaml and model.safetensors" in opsin("eval", str(tmp_path / "none")).err


def test_nearest_does_not_look_at_case() -> None:
    assert nearest("RESNET5O", ["resnet50", "vgg16"]) == ["resnet50"]


# What to train


def test_a_model_says_its_task() -> None:
    data = {"data.source": "x"}
    assert recipe_of("resnet18", data) == {"task": "classify", "model": {"name": "resnet18"}}
    assert recipe_of("ssdlite", data) == {
        "task": "detect",
        "model": {"name": "ssdlite320_mobilenet_v3_large"},
    }
    assert recipe_of(None, {"model.name": "yolov3"}) == {"task": "detect"}
    assert recipe_of(None, {"model.name": "yolov3", "task": "classify"}) == {}
    assert recipe_of("detect", {}) == {"task": "detect"}
    assert recipe_of("lenet5_digits", {}) == "lenet5_digits"
    assert recipe_of("mine.yaml", {}) == "mine.yaml"
    with pytest.raises(InputError, match=r"resnet18 is a model; say what to train it on: opsin train resnet18 --data"):
        recipe_of("resnet18", {})
    with pytest.raises(InputError, match="two models"):
        recipe_of("resnet18", {"model.name": "vgg16", **data})
    with pytest.raises(InputError, match=r"unknown task, recipe or model 'lenet5_digts'; did you mean lenet5_digits"):
        recipe_of("lenet5_digts", {})
    with pytest.raises(InputError, match=r"is a run; to go on with it: opsin train --resume"):
        recipe_of(str(DETECTOR), {})


def test_a_recipe_of_a_models_name_wins_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from opsin.engine import starting

    monkeypatch.setattr(starting, "list_recipes", lambda: {"resnet18": Path("resnet18.yaml")})
    assert recipe_of("resnet18", {}) == "resnet18"
    assert capsys.readouterr().err == "resnet18 is a recipe and a model; this trains the recipe\n"


def test_a_model_trains_by_its_name(opsin, tmp_path: Path) -> None:
    short = ("--set", "train.max_steps=1", "--set", "data.limit=30", "--set", "train.tensorboard=false")
    for number, words in enumerate((("lenet5",), ("--model", "lenet5"))):
        out = tmp_path / str(number)
        assert opsin("train", *words, "--data", "digits", "--device", "cpu", "--out", str(out), *short).status == 0
        text = (out / "recipe.yaml").read_text()
        assert "task: classify" in text and "name: lenet5\n" in text and "accelerator: cpu" in text


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert train.devices_of("cpu") == {"train.accelerator": "cpu", "train.devices": 1}
    for count, device, words in ((0, "cuda", "no CUDA device here"), (2, "cuda:2", "there is cuda:0, cuda:1")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        with pytest.raises(InputError, match=words):
            train.devices_of(device)
    assert train.devices_of("cuda") == {"train.accelerator": "cuda", "train.devices": 1}
    assert train.devices_of("cuda:1") == {"train.accelerator": "cuda", "train.devices": [1]}
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("mps", "gpu", "cpu:1", "cuda:", "mps:0", ""):
        with pytest.raises(InputError, match="--device"):
            train.devices_of(device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert train.devices_of("mps") == {"train.accelerator": "mps", "train.devices": 1}


# The table of models


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_the_table_of_models_fits_and_keeps_its_columns(columns: int, opsin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = opsin("models")
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert re.search(r"^name +(task +)?params +macs +input +year\b", lines[0])
    names = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    assert names == registry.list_models()
    of_images = [name for name in names if (facts := registry.find_model(name).facts) is not None and facts.input]
    assert len(re.findall(r" \d+x\d+x\d+ +(?:19|20)\d\d\b", text)) == len(of_images) > 300


def test_numbers_are_exact_where_they_fit() -> None:
    entries = [registry.find_model("resnet50")]
    columns, [row] = table(entries, 80)
    assert row[columns.index("macs")] == "4,089,184,256" and "idea" not in columns
    columns, [row] = table(entries, 40)
    assert columns == ["name", "params", "macs", "input", "year"]
    assert row == ["resnet50", "25.6 M", "4.09 G", "3x224x224", "2015"]
    columns, [row] = table(entries, None)
    assert columns == list(entries[0].summary) and row == list(entries[0].summary.values())
    columns, [row] = table(entries, 120)
    assert row[columns.index("idea")].endswith("…") or row[columns.index("idea")] == entries[0].summary["idea"]


def test_rounded_numbers() -> None:
    numbers = {999: "999", 1000: "1.00 k", 61_706: "61.7 k", 999_499: "999 k", 999_500: "1.00 M", 138_357_544: "138 M"}
    assert {number: rounded(number) for number in numbers} == numbers
    assert rounded(9_996_000) == "10.0 M" and rounded(99_960_000) == "100 M" and rounded(4_089_184_256) == "4.09 G"


def test_patterns_are_case_blind_and_an_exact_match_comes_first(opsin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert opsin("models", "ResNet50").splitlines()[1].startswith("resnet50 ")
    assert opsin("models", "SSD300").splitlines()[1].startswith("ssd300_vgg16 ")
    assert registry.list_models("RESNET*") == registry.list_models("resnet*") != []
    listed = [entry["name"] for entry in json.loads(opsin("models", "resnet50", "--json"))]
    assert listed == registry.list_models("resnet50")


# Completion


def complete(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("_OPSIN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    monkeypatch.setattr(sys, "argv", ["opsin"])
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    assert err == ""
    return out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("opsin tr", ["train", "track"]),
        ("opsin train --dev", ["--device"]),
        ("opsin train det", ["detect"]),
        ("opsin train lenet5_1998_m", ["lenet5_1998_mnist"]),
        ("opsin train resnet50_", ["resnet50_imagenet", "resnet50_darknet", "resnet50_v1"]),
        ("opsin train --model resnet50_", ["resnet50_darknet", "resnet50_v1"]),
        ("opsin models resnet50_", ["resnet50_darknet", "resnet50_v1"]),
        ("opsin models --task ", sorted(room.task for room in rooms.built_in_rooms())),
        ("opsin train --device m", ["mps"]),
        ("opsin export RUN --format o", ["onnx", "openvino"]),
        (f"opsin predict {DETECTOR} --score", ["--score-threshold"]),
        ("opsin frobnicate z", []),
    ],
)
def test_completion(
    line: str,
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path))
    assert complete(line, monkeypatch, capsys) == offered


def test_names_of_models_are_kept_until_something_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path))
    assert completion.models("resnet18") == registry.list_models("resnet18*")
    kept = tmp_path / "completion" / "models.json"
    value = json.loads(kept.read_text())
    kept.write_text(json.dumps({**value, "models": ["resnet18_kept"]}))
    assert completion.models("resnet18") == ["resnet18_kept"]
    kept.write_text(json.dumps({"state": "another", "models": ["resnet18_kept"]}))
    assert completion.models("resnet18") == registry.list_models("resnet18*")
    kept.write_text("no JSON")
    assert completion.models("resnet18") == registry.list_models("resnet18*")


def test_the_script_of_a_shell(opsin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(completion, "_shell", lambda: "bash")
    assert "_OPSIN_COMPLETE=complete_bash" in opsin("--show-completion")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path) in opsin("--install-completion")
    assert (tmp_path / ".bash_completions" / "opsin.sh").exists()


# Rooms as attributes


def test_rooms_are_attributes_and_come_late() -> None:
    code = """
import sys, opsin
assert "torch" not in sys.modules
wanted = {"data", "nn", "losses", "ops", "optim", "necks", "analyze", "backbones", "detect", "engine", "scratch"}
assert wanted <= set(dir(opsin)), wanted - set(dir(opsin))
assert "torch" not in sys.modules and "opsin.data" not in sys.modules
opsin.scratch
assert "torch" not in sys.modules
from opsin import data
assert data is opsin.data and callable(opsin.data.open)
opsin.nn.attention.CBAM, opsin.losses.background, opsin.detect.ssd.COCO_300, opsin.analyze.explain_schema.Explanation
assert "attention" in dir(opsin.nn)
for wrong in ("opsin.nowhere", "opsin.nn.nowhere", "opsin.losses.nowhere"):
    try:
        eval(wrong)
    except AttributeError as error:
        assert "nowhere" in str(error)
    else:
        sys.exit(wrong)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_documentation_calls_is_there() -> None:
    import importlib

    import opsin

    root = Path(__file__).parents[1]
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    names = {n for page in pages for n in re.findall(r"(?<![\w./@-])opsin(?:\.\w+)+", page.read_text(encoding="utf-8"))}
    names -= {name for name in names if name.startswith("opsin.git") or name.endswith(".py")}
    missing = []
    for name in sorted(names):
        place = opsin
        for part in name.split(".")[1:]:
            with contextlib.suppress(ImportError):
                importlib.import_module(f"{getattr(place, '__name__', '')}.{part}")
            place = getattr(place, part, None)
        if place is None:
            missing.append(name)
    assert len(names) > 40 and not missing
    assert importlib.import_module("opsin.nn") is opsin.nn
