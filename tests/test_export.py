"""Exported files as another program uses them: read by their own runtimes, with nothing but what is written inside."""

from __future__ import annotations

import copy
import errno
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.processes import run_python
from torch import Tensor, nn
from torchvision.ops import batched_nms

import opsin
from opsin import cli, data
from opsin.classify.predict import Scores
from opsin.engine import export as exporting
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.export import export
from opsin.engine.export_comparison import TOLERANCE
from opsin.engine.recipe import load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.engine.runtimes import openvino_core
from opsin.errors import InputError, JobError

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

# Of each kind: task, model, data and the size of its input.
KINDS: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "classifier": ("classify", {"name": "lenet5"}, "digits", 32),
    "ssd": (
        "detect",
        {
            "name": "ssd",
            "backbone": "vgg11",
            "backbone_options": {"hidden_features": 1, "pooled_size": 1},
            "strides": [8],
            "extra_channels": [16],
            "lite": False,
        },
        "scenes:4",
        32,
    ),
    "yolo": ("detect", {"name": "yolov3_tiny"}, "scenes:4", 64),
}
CLASSES = 3


def randomize(model: nn.Module) -> None:
    """Weights that keep the scale of what passes through, but for heads, whose scores shall not all be 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                scale = 0.3 if "heads" in name else 1.0
                tensor.normal_(0, scale * (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)


def save_run(folder: Path, kind: str, source: str | None = None) -> Path:
    task, model, own, size = KINDS[kind]
    recipe = load_recipe({"task": task, "model": model, "data": {"source": source or own, "size": size}})
    preprocessing = create_preprocessing(recipe, 1 if kind == "classifier" else 3)
    options = {key: value for key, value in model.items() if key != "name"}
    built: Any = opsin.create_model(
        model["name"], num_classes=CLASSES, in_channels=preprocessing.channels, **options
    ).eval()
    randomize(built)
    built.temperature = 1.7
    built.score_threshold = 0.45
    folder.mkdir()
    options = {"num_classes": 3, "in_channels": preprocessing.channels}
    facts = Facts(recipe, preprocessing, {"classes": ["cat", "dog", "crème brûlée"]}, options)
    save_model(folder / "model.safetensors", built, facts, {})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind with its model.onnx."""
    folders = {kind: save_run(tmp_path_factory.mktemp(kind) / "run", kind) for kind in KINDS}
    for folder in folders.values():
        export(folder, "onnx")
    return folders


def make_images(kind: str, count: int) -> Tensor:
    """Prepared images, uint8 (count, C, H, W)."""
    channels, size = (1 if kind == "classifier" else 3), KINDS[kind][3]
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


def run_onnx(file: Path, images: Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))


def read_metadata(file: Path) -> dict[str, Any]:
    texts = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    return {k: v if k in ("opsin", "model", "task", "usage") else json.loads(v) for k, v in texts.items()}


def test_a_classifiers_scores_are_those_worked_out_by_hand(runs: dict[str, Path]) -> None:
    images = make_images("classifier", 5)
    found = run_onnx(runs["classifier"] / "model.onnx", images)["scores"]
    logits = opsin.load(runs["classifier"], "cpu").model((images.float() / 255 - 0.5) / 0.5).detach().double().numpy()
    powers = np.exp(logits / 1.7)
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("kind", ["ssd", "yolo"])
def test_a_detectors_file_finds_what_predict_finds(runs: dict[str, Path], kind: str) -> None:
    """What the metadata says, followed word by word with torchvision's suppression."""
    file = runs[kind] / "model.onnx"
    images, metadata = make_images(kind, 3), read_metadata(file)
    selection, outputs = metadata["selection"], run_onnx(file, images)
    assert selection["score_threshold"] == 0.45
    wanted = opsin.load(runs[kind], "cpu").predict(list(images))
    assert sum(len(answer["instances"]) for answer in wanted) > 5
    for boxes, scores, answer in zip(outputs["boxes"], outputs["scores"], wanted, strict=True):
        places, labels = (torch.from_numpy(scores) > selection["score_threshold"]).nonzero(as_tuple=True)
        boxes, values = torch.from_numpy(boxes)[places], torch.from_numpy(scores)[places, labels]
        best = values.topk(min(len(values), selection["candidates"])).indices
        boxes, values, labels = boxes[best], values[best], labels[best]
        kept = batched_nms(boxes, values, labels, selection["iou_threshold"])[: selection["limit"]]
        boxes = boxes[kept].clamp(0, images.shape[-1])
        inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        rows = zip(labels[kept][inside], values[kept][inside], boxes[inside], strict=True)
        for one, (label, score, box) in zip(answer["instances"], rows, strict=True):
            assert one["label"] == metadata["classes"][label]
            assert one["score"] == pytest.approx(float(score), abs=1e-5)
            assert one["box"] == pytest.approx(box.tolist(), abs=0.02)


def test_the_batch_is_free_and_the_file_is_valid(runs: dict[str, Path]) -> None:
    for kind, folder in runs.items():
        onnx.checker.check_model(onnx.load(folder / "model.onnx"), full_check=True)
        images = make_images(kind, 3)
        together = run_onnx(folder / "model.onnx", images)
        for name, array in together.items():
            alone = np.concatenate([run_onnx(folder / "model.onnx", one[None])[name] for one in images])
            np.testing.assert_allclose(alone, array, atol=1e-4, rtol=1e-4)


def test_the_file_says_how_to_use_it(runs: dict[str, Path]) -> None:
    metadata = read_metadata(runs["classifier"] / "model.onnx")
    assert metadata["classes"] == ["cat", "dog", "crème brûlée"]
    assert (metadata["opsin"], metadata["task"], metadata["model"]) == (opsin.__version__, "classify", "lenet5")
    saved = opsin.load(runs["classifier"], "cpu").preprocessing
    assert data.Preprocessing.from_dict(metadata["preprocessing"]) == saved
    assert "uint8 (batch, 1, 32, 32), grey" in metadata["usage"]
    assert "iou_threshold" in read_metadata(runs["yolo"] / "model.onnx")["usage"]


def test_no_path_of_this_machine_is_in_the_file(runs: dict[str, Path], tmp_path: Path) -> None:
    export(runs["classifier"], "torch", tmp_path / "model.pt2")
    for file in (runs["yolo"] / "model.onnx", tmp_path / "model.pt2"):
        assert str(Path(exporting.__file__).parent).encode() not in file.read_bytes()


def test_torch_loads_its_program_without_opsin(runs: dict[str, Path], tmp_path: Path) -> None:
    written = export(runs["classifier"], "torch", tmp_path / "model.pt2")
    texts = {"classes": "", "usage": ""}
    program = torch.export.load(written.path, extra_files=texts)
    assert json.loads(texts["classes"])[2] == "crème brûlée" and "grey" in texts["usage"]
    images = make_images("classifier", 4)
    wanted = run_onnx(runs["classifier"] / "model.onnx", images)["scores"]
    np.testing.assert_allclose(program.module()(images)["scores"].detach().numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "ssd"])
def test_openvino_agrees_and_nothing_is_reported(
    runs: dict[str, Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    telemetry = pytest.importorskip("openvino_telemetry")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("telemetry")

    monkeypatch.setattr(telemetry.Telemetry, "__init__", refuse)
    written = export(runs[kind], "openvino", tmp_path / "found" / "model.xml")
    assert sorted(path.name for path in written.path.parent.iterdir()) == ["model.bin", "model.xml"]
    core = openvino_core()
    model = core.read_model(written.path)
    assert json.loads(model.get_rt_info(["opsin", "classes"]).astype(str))[2] == "crème brûlée"
    images = make_images(kind, 3)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"images": images.numpy()})
    for name, array in run_onnx(runs[kind] / "model.onnx", images).items():
        np.testing.assert_allclose(found[name], array, atol=1e-5 if name == "scores" else 1e-3, rtol=1e-4)


def test_signals_arrive_when_programs_of_openvino_are_let_go(runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    written = export(runs["classifier"], "openvino", tmp_path / "model.xml")
    code = f"""
import gc, os, pathlib, signal
from opsin.engine.exported import open_program
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
first, second = (open_program(pathlib.Path({str(written.path)!r}), "openvino", ["images"]) for _ in range(2))
for name in ("first", "second"):  # in the order in which they were opened
    del globals()[name]
    gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = run_python(["-c", code], tmp_path)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_real_images_are_compared_or_noise_and_it_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    written = export(runs["classifier"], "torch", tmp_path / "model.pt2")
    assert written.checked_on == "8 images of digits, test"
    (scores,) = written.outputs
    assert scores.shape == (CLASSES,) and 0 <= scores.relative <= TOLERANCE
    gone = save_run(tmp_path / "gone", "classifier", source="images/that/moved.zip")
    assert "random noise (no file or folder at images/that/moved.zip" in export(gone, "torch").checked_on


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["opsin", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return Result(int(stop.value.code or 0), out, err)

    return run


def refused(result: Result, status: int, *words: str) -> None:
    """One line on standard error, with these words, and the exit status."""
    assert result.status == status, result
    assert result.err.startswith("opsin: ") and result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err, result.err


@pytest.mark.parametrize("change", [0.01, float("nan")])
def test_a_file_that_differs_is_refused_and_the_old_one_stays(
    runs: dict[str, Path], tmp_path: Path, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, change: float
) -> None:
    trace = exporting._trace

    def wrong(program: Any, *others: Any) -> Any:
        other = copy.copy(program)
        other.module = copy.deepcopy(program.module)
        list(other.module.parameters())[-1].data[0] += change
        return trace(other, *others)

    monkeypatch.setattr(exporting, "_trace", wrong)
    file = tmp_path / "model.pt2"
    file.write_bytes(b"old")
    refused(call(runs["classifier"], "--format", "torch", "--out", file), 1, "was not written", "scores", "0.0001")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_network_that_cannot_be_traced_is_named(
    runs: dict[str, Path], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward = Scores.forward

    def undecided(self: Any, images: Tensor) -> Any:
        return forward(self, images if bool((images > 0).all()) else images + 1)

    monkeypatch.setattr(Scores, "forward", undecided)
    refused(call(runs["classifier"], "--out", tmp_path / "model.onnx"), 1, "cannot trace lenet5")
    assert not list(tmp_path.iterdir())


SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small", "backbone_options": {"width": 0.35}}


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("rcnn", {"backbone": "lenet5", "side": 32, "context": 2}, "proposals are made outside"),
        ("spp_net", {"backbone": "lenet5", "levels": [1], "hidden_features": 8}, "proposals are made outside"),
        ("fast_rcnn", {**SMALL, "hidden": 8}, "proposals are made outside"),
        ("faster_rcnn", {**SMALL, "channels": 8, "hidden": 8}, "a box for each class"),
        ("mask_rcnn_resnet50_fpn", {**SMALL, "channels": 8, "hidden": 8}, "a box for each class"),
    ],
)
def test_detectors_of_regions_are_refused_at_once(
    name: str, options: dict[str, Any], reason: str, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setitem(KINDS, name, ("detect", {"name": name, **options}, "scenes:4", 64))
    monkeypatch.setattr(exporting, "_trace", None)  # nothing is tried
    run = save_run(tmp_path / "run", name)
    for format in ("onnx", "openvino", "torch"):
        refused(call(run, "--format", format), 2, f"{name} cannot be exported", reason, "such as ssd")
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]


def test_a_file_that_its_runtime_refuses_is_not_handed_over(
    runs: dict[str, Path], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(file: Path, format: str, name: str) -> Any:
        raise RuntimeError("no such operator\nat node 3")

    monkeypatch.setattr(exporting, "_open", refuse)
    refused(
        call(runs["classifier"], "-f", "torch", "-o", tmp_path / "m.pt2"), 1, "torch cannot run it: no such operator"
    )
    assert not list(tmp_path.iterdir())


def test_full_disk_is_one_line(
    runs: dict[str, Path], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(traced: object, outputs: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(exporting._WRITERS, "torch", full)
    refused(call(runs["classifier"], "-f", "torch", "-o", tmp_path / "m.pt2"), 1, "No space left", "m.pt2")
    assert not list(tmp_path.iterdir())


def test_wrong_calls_are_one_line(
    runs: dict[str, Path], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = runs["classifier"]
    refused(call(run, "--format", "onxn"), 2, "'onxn'", "did you mean onnx")
    refused(call(run, "--out", tmp_path), 2, "is a folder", "model.onnx")
    refused(call(run, "--out", tmp_path / "model.bin"), 2, "ends in .onnx", "model.onnx")
    refused(call(run.parent / "rnu"), 2, "rnu")
    refused(call(tmp_path), 2, "it is not a run")
    refused(call("lenet5"), 2, "model without weights")
    (tmp_path / "file").write_text("in the way")
    refused(call(run, "--out", tmp_path / "file" / "model.onnx"), 2, "cannot make the folder")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else object())
    refused(call(run), 2, "onnx, onnxscript and onnxruntime", "pip install 'opsin[export]'")


def test_a_file_without_a_name_lies_beside_its_model(tmp_path: Path) -> None:
    (tmp_path / "shared.safetensors").touch()
    assert exporting._target(tmp_path, "onnx", None) == tmp_path / "model.onnx"
    assert exporting._target(tmp_path / "shared.safetensors", "openvino", None) == tmp_path / "shared.xml"
    assert exporting._target("resnet50:imagenet1k", "torch", None) == Path("resnet50_imagenet1k.pt2")


def test_what_is_printed(runs: dict[str, Path], call: Callable[..., Result], tmp_path: Path) -> None:
    result = call(runs["classifier"], "--format", "torch", "--out", tmp_path / "new" / "model.pt2")
    assert result.status == 0 and result.err == ""
    assert "images  uint8 (batch, 1, 32, 32)" in result.out and "scores  float32 (batch, 3)" in result.out
    result = call(runs["classifier"], "--format", "torch", "--out", tmp_path / "model.pt2", "--json")
    told = json.loads(result.out)
    assert told["path"] == str(tmp_path / "model.pt2") and told["outputs"]["scores"]["relative"] <= told["tolerance"]


def test_the_error_is_the_one_that_python_sees(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean torch"):
        export(runs["classifier"], "troch")
    with pytest.raises(JobError, match="cannot write"):
        export(runs["classifier"], "torch", "/proc/model.pt2")
