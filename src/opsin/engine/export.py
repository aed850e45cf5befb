"""A trained model as a file for other runtimes, compared with the original before it is handed over.

The program takes "images", uint8 (B, channels, H, W) for any B, as `Preprocessing.prepare` leaves images, and
normalises them itself. A classifier gives "scores" (B, K) in [0, 1]. A detector gives "boxes" (B, A, 4), xyxy in pixels
of the input, and "scores" (B, A, K) of each; suppressing duplicates is left to the caller. All that it takes to use the
file is written into it as metadata, see `describe`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from opsin import __version__, data
from opsin.data import Preprocessing, UnreadableImage
from opsin.engine.predict import Predictor, load
from opsin.engine.task import split_data
from opsin.errors import InputError, JobError, unknown
from opsin.files import atomic

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
TOLERANCE = 1e-4  # of the value, or where that is below 1, or below the input's longer side for boxes, of that

_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
_OPSET = 18  # the one that torch writes without conversion, and that every runtime since 2023 reads
_IMAGES = 8

_FITS = {
    "squash": "resize both sides to size",
    "crop": "resize until it covers size / crop_ratio, then cut out the centre",
    "pad": "shrink until it fits into size, never enlarge, and set it in the middle of black",
}

Run = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Compared:
    """An output of the file and how far it is from PyTorch's: `relative` is what TOLERANCE bounds."""

    name: str
    shape: tuple[int, ...]  # without the batch
    absolute: float
    relative: float


@dataclass(frozen=True)
class Exported:
    """What was written. input: (channels, height, width). checked_on: which images it was compared on."""

    path: Path
    format: str
    input: tuple[int, ...]
    outputs: list[Compared]
    checked_on: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        outputs = {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in self.outputs}
        return {**asdict(self), "path": str(self.path), "outputs": outputs, "tolerance": TOLERANCE}

    def describe(self) -> str:
        """Lines for a terminal."""
        lines = [f"images  uint8 (batch, {', '.join(map(str, self.input))})"]
        for one in self.outputs:
            shape = ", ".join(map(str, one.shape))
            apart = f"{one.absolute:.1e} from PyTorch's, relatively {one.relative:.1e}"
            lines.append(f"{one.name:6}  float32 (batch, {shape}), at most {apart}")
        return "\n".join([f"{self.path}: {self.format}, compared on {self.checked_on}", *(f"  {x}" for x in lines)])


class Program(nn.Module):
    """What is exported: normalisation, network, and its outputs as boxes and scores."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing
        self.outputs = ["boxes", "scores"] if hasattr(model, "predictions") else ["scores"]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: uint8 (B, channels, H, W)."""
        outputs = self.model(self.preprocessing.normalize(images))
        if "boxes" in self.outputs:
            return dict(zip(self.outputs, self.model.predictions(outputs), strict=True))  # type: ignore[operator]
        return {"scores": self.model.decode(outputs)["scores"]}  # type: ignore[operator]


def export(run: str | Path, format: str, out: str | Path | None = None) -> Exported:
    """Write a trained model as an ONNX file, an OpenVINO pair (.xml and .bin beside it) or a torch.export program.

    run: a run folder, a model.safetensors or published weights by name. out: model.onnx, model.xml or model.pt2 in the
    run folder if None. The file is run on images of the run's own data, or on noise where they are gone, and replaces
    what was at `out` only if it gives what the model gives. Raises InputError for an unknown format, an `out` that does
    not fit it, packages that are missing and a detector that looks at regions; JobError for a network that cannot be
    exported, a file whose outputs differ by more than TOLERANCE, and one that cannot be written.
    """
    if format not in SUFFIXES:
        raise unknown("format", format, SUFFIXES)
    path = _target(run, format, out)
    missing = [name for name in _PACKAGES[format] if importlib.util.find_spec(name) is None]
    if missing:
        listed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise InputError(f"format {format} needs {listed}: pip install 'opsin[export]'")
    predictor = load(run, "cpu")
    refusal = getattr(predictor.model, "export_refusal", "")
    if refusal:
        raise InputError(
            f"{predictor.recipe.model.name} cannot be exported: {refusal}. Use it by `opsin predict` or opsin.load, or "
            "train a detector of one stage for other runtimes, such as ssd, retinanet or yolov4"
        )
    program = Program(predictor.model.requires_grad_(False), predictor.preprocessing).eval()
    images, checked_on = _images(predictor)
    traced = _trace(program, predictor)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path.parent}: {error.strerror}") from None
    with atomic(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        file = Path(folder) / path.name
        _WRITERS[format](traced, program.outputs, file, describe(predictor))
        try:
            outputs = _compare(program, _open(file, format), images, path)
        except (JobError, OSError):
            raise
        except Exception as error:  # each runtime has its own
            raise JobError(f"{path} was not written: {format} cannot run it: {_first_line(error)}") from error
        for part in set(Path(folder).iterdir()) - {file}:  # weights that the format keeps beside it
            with atomic(path.with_name(part.name)) as beside:
                part.replace(beside)
        file.replace(temporary)
    return Exported(path, format, tuple(images.shape[1:]), outputs, checked_on)


def describe(predictor: Predictor) -> dict[str, str]:
    """What is written into the file beside the program, texts by name; all but the first four are JSON.

    opsin: the version. model, task, usage. classes: names in the order of scores. preprocessing: see `Preprocessing`.
    Of a detector selection: how boxes and scores become instances, see `Selection`; its score_threshold is the one
    fitted in validation, where there was one.
    """
    model, preprocessing = predictor.model, predictor.preprocessing
    size = ", ".join(map(str, (preprocessing.channels, *preprocessing.size)))
    usage = (
        f"images: uint8 (batch, {size}), {'RGB' if preprocessing.channels == 3 else 'grey'}, 0 to 255, not normalised. "
        f"Of each image, {_FITS[preprocessing.fit]} (height, width), {preprocessing.interpolation}, antialiased. "
    )
    values: dict[str, Any] = {"classes": predictor.classes, "preprocessing": preprocessing.to_dict()}
    if hasattr(model, "predictions"):
        usage += (
            "boxes: (batch, places, 4), x1, y1, x2, y2 in pixels of the input. scores: (batch, places, classes), "
            "0 to 1. Keep what exceeds selection's score_threshold, suppress duplicates within a class at its "
            "iou_threshold, and bring the boxes back to the image."
        )
        selection = dict(vars(model.selection))
        selection["score_threshold"] = getattr(model, "score_threshold", selection["score_threshold"])
        values["selection"] = selection
    else:
        several = " An image has every class of at least 0.5." if getattr(model, "multi_label", False) else ""
        usage += f"scores: (batch, classes), calibrated probabilities.{several}"
    texts = {
        "opsin": __version__,
        "model": predictor.recipe.model.name,
        "task": predictor.recipe.task,
        "usage": usage,
    }
    return texts | {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def _target(run: str | Path, format: str, out: str | Path | None) -> Path:
    suffix = SUFFIXES[format]
    if out is None:
        path = Path(run)
        if path.is_dir():
            return path / f"model{suffix}"
        return path.with_suffix(suffix) if path.exists() else Path(f"{path.name.replace(':', '_')}{suffix}")
    path = Path(out)
    if path.is_dir():
        raise InputError(f"--out {out} is a folder; name a file, such as {path / f'model{suffix}'}")
    if path.suffix != suffix:
        raise InputError(f"--out {out}: a file of format {format} ends in {suffix}; try {path.with_suffix(suffix)}")
    return path


def _images(predictor: Predictor) -> tuple[Tensor, str]:
    """Prepared images, uint8 (N, C, H, W), of the run's test or validation data, and where they are from."""
    section, prepare = predictor.recipe.data, predictor.preprocessing.prepare
    found: list[Tensor] = []
    reason = "published weights come without data"
    if section.source:
        try:
            source = data.open(section.source, predictor.recipe.task, multi_label=section.multi_label)
            splits = split_data(predictor.recipe, source)
            name = next(name for name in ("test", "val", "all", "train") if name in splits)
            split, reason = splits[name], "none of the run's images can be read"
            for place in np.unique(np.linspace(0, len(split) - 1, _IMAGES).astype(int)).tolist():
                try:
                    found.append(prepare(split.read(place)))
                except UnreadableImage:
                    continue
            if found:
                return torch.stack(found), f"{len(found)} images of {source.name}, {name}"
        except InputError as error:
            reason = str(error)
    shape = (_IMAGES, predictor.preprocessing.channels, *predictor.preprocessing.size)
    noise = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return noise, f"{_IMAGES} images of random noise ({reason})"


def _trace(program: Program, predictor: Predictor) -> ExportedProgram:
    example = torch.zeros(2, predictor.preprocessing.channels, *predictor.preprocessing.size, dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet():
            traced = torch.export.export(program, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    except Exception as error:  # whatever the network's own code and torch's tracing raise
        raise JobError(f"torch.export cannot trace {predictor.recipe.model.name}: {_first_line(error)}") from error
    for node in traced.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody's business
    return traced


def _write_torch(traced: ExportedProgram, outputs: list[str], file: Path, metadata: Mapping[str, str]) -> None:
    content = io.BytesIO()  # torch's own writer ends the process where the disk is full
    torch.export.save(traced, content, extra_files=dict(metadata))
    file.write_bytes(content.getbuffer())


def _write_onnx(traced: ExportedProgram, outputs: list[str], file: Path, metadata: Mapping[str, str]) -> None:
    try:
        with _quiet():
            made = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=_OPSET,
                input_names=["images"],
                output_names=outputs,
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # torch wraps the reason in reports of many pages
            cause = cause.__cause__
        raise JobError(f"this network cannot be written as ONNX: {_first_line(cause)}") from error
    assert made is not None
    made.model.metadata_props.update(metadata)
    made.model.producer_name, made.model.producer_version = "opsin", __version__
    made.save(file)


def _write_openvino(traced: ExportedProgram, outputs: list[str], file: Path, metadata: Mapping[str, str]) -> None:
    import openvino

    # Through ONNX: openvino.convert_model, which takes the program itself, reports its use to its makers.
    onnx = file.with_suffix(".onnx")
    _write_onnx(traced, outputs, onnx, {})
    try:
        model = openvino.Core().read_model(onnx)
    except RuntimeError as error:  # a report, the summary last
        raise JobError(f"OpenVINO cannot read this network: {str(error).strip().splitlines()[-1]}") from error
    for name, text in metadata.items():
        model.set_rt_info(text, ["opsin", name])
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:  # all it says of a full disk is "iostream error"
        raise OSError(errno.EIO, _first_line(error)) from error
    del model  # it may hold the file
    onnx.unlink()


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}


def _open(file: Path, format: str) -> Run:
    """The program in a file, on the CPU in full precision."""
    if format == "torch":
        return torch.export.load(file).module()
    if format == "onnx":
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # Microsoft's builds for Windows send them
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(images: Tensor) -> dict[str, Tensor]:
            found = session.run(names, {"images": images.numpy()})
            return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

        return run
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def infer(images: Tensor) -> dict[str, Tensor]:
        found = compiled({"images": images.numpy()})
        return {output.any_name: torch.from_numpy(found[output].copy()) for output in compiled.outputs}

    return infer


@torch.inference_mode()
def _compare(program: Program, run: Run, images: Tensor, path: Path) -> list[Compared]:
    """Every output on the first image alone and on the others together. Raises JobError for a mismatch."""
    batches = [part for part in (images[:1], images[1:]) if len(part)]
    pairs = [(program(batch), run(batch)) for batch in batches]
    compared = []
    for name in pairs[0][0]:
        wanted, got = (torch.cat([pair[side][name] for pair in pairs]) for side in (0, 1))
        if wanted.shape != got.shape:
            raise JobError(f"{path} was not written: {name} came out as {tuple(got.shape)}, not {tuple(wanted.shape)}")
        apart = (got - wanted).abs()
        unit = max(images.shape[-2:]) if name == "boxes" else 1.0
        relative = float((apart / wanted.abs().clamp(min=unit)).max())
        compared.append(Compared(name, tuple(wanted.shape[1:]), float(apart.max()), relative))
        if not relative <= TOLERANCE:
            raise JobError(
                f"{path} was not written: its {name} differ from PyTorch's by up to {float(apart.max()):.2g}, "
                f"relatively {relative:.2g}, more than {TOLERANCE:g}"
            )
    return compared


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch prints of its own: where it fails, whole programs. The reason is in the exception too."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
