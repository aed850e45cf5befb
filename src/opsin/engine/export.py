"""A trained model as a file for other runtimes, compared with the original before it is handed over.

What is written is a `Program` of the task's `Predictor`. One of images takes "images", uint8 (B, channels, H, W), for
any B, as `Preprocessing.prepare` leaves them, and normalises them itself. A classifier gives "scores" (B, K) in
[0, 1]. A detector gives "boxes" (B, A, 4), xyxy in pixels of the input, and "scores" (B, A, K) of each; suppressing
duplicates is left to the caller. A segmenter gives "probabilities" (B, K, H, W), for images of any height and width. A
recognizer gives "probabilities" (B, T, K) of the classes at each step along a text.
All that it takes to use the file is written into it as metadata, see `describe`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import inspect
import io
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from opsin.data import UnreadableImage
from opsin.engine.export_comparison import Compared, compare, tolerance
from opsin.engine.exported import open_program as _open
from opsin.engine.exported import refuse_exported
from opsin.engine.half_precision import halve_weights
from opsin.engine.membership import divide_as_trained
from opsin.engine.own_networks import twin_of
from opsin.engine.predict import Predictor, load
from opsin.engine.program import FreeSides, Program
from opsin.engine.recipe_data import open_data
from opsin.engine.runtimes import import_openvino, openvino_core
from opsin.errors import InputError, JobError, say, unknown
from opsin.files import atomic
from opsin.nn.capabilities import example_input, saved_values
from opsin.progress import step
from opsin.version import __version__

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
_DEFERS = "prefer_deferred_runtime_asserts_over_guards"  # of torch.export, in newer versions
_HALVES = ("onnx", "openvino")  # formats whose files can hold their weights in 16 bits
_OPSET = 18  # the one that torch writes without conversion, and that every runtime since 2023 reads


@dataclass(frozen=True)
class Exported:
    """What was written. input: its shape, without the batch. checked_on: which examples it was compared on.

    free: whether the last two sides of it may be others, with which it was compared too. half: whether its weights have
    16 bits. same: on how many examples it gave exactly what the model gives, where that was asked. more: how many
    inputs it takes beside that. beside: further programs of the same model, each a file.
    """

    path: Path
    format: str
    input: tuple[int, ...]
    outputs: list[Compared]
    checked_on: str
    name: str = "images"
    dtype: str = "uint8"
    free: bool = False
    half: bool = False
    same: int = 0
    more: int = 0
    beside: tuple[Exported, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        outputs = {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in self.outputs}
        values = {"path": str(self.path), "format": self.format, "input": self.input, "outputs": outputs}
        more: dict[str, Any] = {"free_sides": True} if self.free else {}
        more |= {"half": True} if self.half else {}
        more |= {"same_answers": self.same} if self.same else {}
        more |= {"beside": [one.to_dict() for one in self.beside]} if self.beside else {}
        return {**values, **more, "checked_on": self.checked_on, "tolerance": tolerance(self.half)}

    def describe(self) -> str:
        """Lines for a terminal."""
        lines = [f"{self.name}  {self.dtype} (batch, {', '.join(map(str, self.input))})"]
        lines[0] += ", and of other heights and widths" if self.free else ""
        lines[0] += f", and {self.more} more" if self.more else ""
        for one in self.outputs:
            shape = ", ".join(map(str, one.shape))
            apart = f"{one.absolute:.1e} from PyTorch's, relatively {one.relative:.1e}"
            lines.append(f"{one.name:6}  float32 (batch, {shape}), at most {apart}")
        lines += [f"the same answers for all {self.same} of them"] if self.same else []
        bits = ", weights of 16 bits" if self.half else ""
        title = f"{self.path}: {self.format}{bits}, compared on {self.checked_on}"
        return "\n".join([title, *(f"  {x}" for x in lines), *(one.describe() for one in self.beside)])


def export(
    run: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    model: nn.Module | None = None,
    half: bool = False,
) -> Exported:
    """Write a trained model as an ONNX file, an OpenVINO pair (.xml and .bin beside it) or a torch.export program.

    run: a run folder, a model.safetensors or published weights by name. out: model.onnx, model.xml or model.pt2 in the
    run folder if None. model: of a run that was given its network as an object, one of the same class, which stays as
    it is. half: store the weights in 16 bits, of a task whose answers can be held to be the same; the file is half as
    large, computes in 32 bits, and is refused where a single answer differs. The file is run on images of the run's own
    data, or on noise where they are gone, and replaces what was at `out` only if it gives what the model gives. Raises
    InputError for an unknown format, an `out` that does not fit it, packages that are missing and a detector that looks
    at regions; JobError for a network that cannot be exported, a file whose outputs or answers differ, see
    `opsin.engine.export_comparison`, and one that cannot be written.
    """
    if format not in SUFFIXES:
        raise unknown("format", format, SUFFIXES)
    path = _target(run, format, out)
    _check_packages(format)
    with step("building the model"):
        refuse_exported(run, "export")
        predictor = load(run, "cpu", model=None if model is None else twin_of(model))
        programs = _programs(predictor, format, half)
    with step("reading images to compare on"):
        images, checked_on = _examples(predictor, programs[0].compared)
    _make_folder(path.parent)
    written = []
    for one in programs:
        own = path.with_name(f"{path.stem}{one.part}{path.suffix}")
        written.append(_export_program(one, predictor, format, own, images, checked_on))
    return replace(written[0], beside=tuple(written[1:]))


def _export_program(
    program: Program, predictor: Predictor, format: str, path: Path, images: Tensor, checked_on: str
) -> Exported:
    """One program as a file, compared before it is there."""
    with step("tracing the network"):
        traced = _trace(program, predictor, images)
    with atomic(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        file = Path(folder) / path.name
        with step(f"converting to {format}"):
            _WRITERS[format](traced, program, file, describe(predictor, program))
        try:
            with step(f"comparing on {checked_on}"):
                outputs = compare(program, _open(file, format, program.input_names), images, path)
        except (JobError, OSError):
            raise
        except Exception as error:  # each runtime has its own
            raise JobError(f"{path} was not written: {format} cannot run it: {_first_line(error)}") from error
        for part in set(Path(folder).iterdir()) - {file}:  # weights that the format keeps beside it
            with atomic(path.with_name(part.name)) as beside:
                part.replace(beside)
        file.replace(temporary)
    *_, (shown, *more) = program.given(images)
    dtype = str(shown.dtype).removeprefix("torch.")
    same = len(images) if program.exact else 0
    facts: dict[str, Any] = {"free": program.sides is not None, "half": program.half, "same": same, "more": len(more)}
    name = program.input_names[0]
    return Exported(path, format, tuple(shown.shape[1:]), outputs, checked_on, name, dtype, **facts)


def _check_packages(format: str) -> None:
    missing = [name for name in _PACKAGES[format] if importlib.util.find_spec(name) is None]
    if missing:
        listed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise InputError(f"format {format} needs {listed}: pip install 'opsin[export]'")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None


def _programs(predictor: Predictor, format: str, half: bool) -> list[Program]:
    """What is written of a model. Raises InputError for weights of 16 bits where nobody would see what they do."""
    programs = predictor.programs()
    if half and format not in _HALVES:
        raise InputError(f"format {format} keeps weights of 32 bits; half is of {' and '.join(_HALVES)}")
    if half and any(program.exact is None for program in programs):
        raise InputError(f"half: of {predictor.recipe.task} it is not known which answers must stay the same; leave it")
    predictor.model.requires_grad_(False)
    for program in programs:
        program.module.eval()
        program.half = half
    return programs


def describe(predictor: Predictor, program: Program) -> dict[str, str]:
    """What is written into the file beside the program, texts by name; all but the first four are JSON.

    opsin: the version. model, task, usage. What the answers mean: classes, names in the order of scores. preprocessing:
    see `Preprocessing`. values: what the model carries beyond weights. Of a detector selection: how boxes and scores
    become instances, see `Selection`; its score_threshold is the one fitted in validation, where there was one. tile:
    where one was saved with the model, how large images are to be cut: size and overlap of tiles, (height, width), and
    that the whole image is looked at too.
    """
    texts = {
        "opsin": __version__,
        "model": predictor.recipe.model.name,
        "task": predictor.recipe.task,
        "usage": "",
    }
    plain = {name: v for name, v in saved_values(predictor.model).items() if not isinstance(v, Tensor)}
    values: dict[str, Any] = {**predictor.facts.meaning, "values": plain}
    if predictor.preprocessing is not None:
        values["preprocessing"] = predictor.preprocessing.to_dict()
    if (tiles := predictor.tiles()) is not None:
        values["tile"] = tiles.tiling.to_dict()
    texts |= {name: json.dumps(value) for name, value in values.items()}
    return texts | dict(program.metadata)


def _target(run: str | Path, format: str, out: str | Path | None) -> Path:
    suffix = SUFFIXES[format]
    if out is None:
        path = Path(run)
        if path.is_dir():
            return path / f"model{suffix}"
        return path.with_suffix(suffix) if path.exists() else Path(f"{re.sub('[:@]', '_', path.name)}{suffix}")
    path = Path(out)
    if path.is_dir():
        raise InputError(f"--out {out} is a folder; name a file, such as {path / f'model{suffix}'}")
    if path.suffix != suffix:
        raise InputError(f"--out {out}: a file of format {format} ends in {suffix}; try {path.with_suffix(suffix)}")
    return path


def _examples(predictor: Predictor, count: int) -> tuple[Tensor, str]:
    """Inputs as the program takes them, (N, ...), of the run's test or validation data, and where they are from."""
    found: list[Any] = []
    reason = "published weights come without data"
    if predictor.recipe.data.source:
        try:
            source = open_data(predictor.recipe)
            splits = divide_as_trained(predictor.recipe, source, predictor.facts.members, say)
            name = next(name for name in ("test", "val", "all", "train") if name in splits)
            split, reason = splits[name], f"none of the run's {splits[name].inputs.noun}s can be read"
            for place in np.unique(np.linspace(0, len(split) - 1, count).astype(int)).tolist():
                try:
                    found.append(split.read(place))
                except UnreadableImage:
                    continue
            if found:
                return predictor.collate(found), f"{len(found)} {split.inputs.noun}s of {source.name}, {name}"
        except InputError as error:
            reason = str(error)
    if predictor.preprocessing is None:
        return example_input(predictor.model, None, count), f"{count} examples of the network's own ({reason})"
    shape = (count, predictor.preprocessing.channels, *predictor.preprocessing.size)
    noise = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return noise, f"{count} images of random noise ({reason})"


def _trace(program: Program, predictor: Predictor, inputs: Tensor) -> ExportedProgram:
    shape = [2, *inputs.shape[1:]]
    shapes: dict[int, Any] = {0: Dim("batch", min=1)}
    options: dict[str, Any] = {"dynamic_shapes": (shapes,)}
    given: tuple[Tensor, ...] = ()
    if program.free or program.moments is not None:
        *_, given = program.given(inputs[[0, -1]])  # not one example: a batch of one would be taken for granted
        options["dynamic_shapes"] = _open_shapes(program, len(given), Dim)
    if program.sides is not None:
        shapes |= {axis: _free(name, program.sides) for axis, name in ((2, "height"), (3, "width"))}
        shape[2:] = [_telling(side, program.sides) for side in shape[2:]]
        if _DEFERS in inspect.signature(torch.export.export).parameters:
            options[_DEFERS] = True  # what it cannot prove of all sizes is asserted in the program, and left out below
    try:
        with torch.no_grad(), _quiet():
            given = given or (torch.zeros(shape, dtype=inputs.dtype),)
            traced = torch.export.export(program.module, given, **options)
    except Exception as error:  # whatever the network's own code and torch's tracing raise
        raise JobError(f"torch.export cannot trace {predictor.recipe.model.name}: {_first_line(error)}") from error
    for node in list(traced.graph.nodes):
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody's business
        if program.sides is not None and node.target is torch.ops.aten._assert_scalar.default:
            traced.graph.erase_node(node)  # of sizes such as that a part is never the whole; the comparison decides
    if program.sides is not None:
        traced.graph.eliminate_dead_code()
        traced.graph_module.recompile()
    return traced


def _open_shapes(program: Program, count: int, open_by: Callable[..., Any]) -> Any:
    """Of each of `count` inputs the dimensions that are left open, as torch takes them. open_by: name, min -> one."""
    names = {name for dims in program.free.values() for name in dims.values()}
    made = {name: open_by(name, min=0) for name in names} | {"batch": open_by("batch", min=1)}
    shapes = [{0: made["batch"], **{k: made[v] for k, v in program.free.get(i, {}).items()}} for i in range(count)]
    return (tuple(shapes),) if program.names else tuple(shapes)


def _free(name: str, sides: FreeSides) -> Any:
    """The dimension of a side that is left open, as torch.export has them."""
    if sides.step == 1:
        return Dim(name, min=max(2, sides.least))
    least = -(-(sides.least - sides.offset) // sides.step)
    return sides.step * Dim(f"{name}_steps", min=max(1, least)) + sides.offset


def _telling(side: int, sides: FreeSides) -> int:
    """A side to trace with: whatever a network makes of it, no map has one row, and none is whole but by chance."""
    side = sides.after(max(side, 128))
    return side if side % 2 or sides.step > 1 else sides.after(side)


def _write_torch(traced: ExportedProgram, program: Program, file: Path, metadata: Mapping[str, str]) -> None:
    content = io.BytesIO()  # torch's own writer ends the process where the disk is full
    torch.export.save(traced, content, extra_files=dict(metadata))
    file.write_bytes(content.getbuffer())


def _write_onnx(traced: ExportedProgram, program: Program, file: Path, metadata: Mapping[str, str]) -> None:
    shapes: Any = ({0: "batch", **({2: "height", 3: "width"} if program.sides else {})},)
    if program.free or program.moments is not None:
        shapes = _open_shapes(program, len(program.input_names), lambda name, min: name)
    try:
        with _quiet():
            made = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=_OPSET,
                input_names=program.input_names,
                output_names=program.outputs,
                dynamic_shapes=shapes,
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
    if program.half:
        halve_weights(file)


def _write_openvino(traced: ExportedProgram, program: Program, file: Path, metadata: Mapping[str, str]) -> None:
    openvino = import_openvino()

    # Through ONNX: openvino.convert_model, which takes the program itself, reports its use to its makers.
    onnx = file.with_suffix(".onnx")
    _write_onnx(traced, replace(program, half=False), onnx, {})
    try:
        model = openvino_core().read_model(onnx)
    except RuntimeError as error:  # a report, the summary last
        raise JobError(f"OpenVINO cannot read this network: {str(error).strip().splitlines()[-1]}") from error
    for name, text in metadata.items():
        model.set_rt_info(text, ["opsin", name])
    try:
        openvino.save_model(model, file, compress_to_fp16=program.half)
    except RuntimeError as error:  # all it says of a full disk is "iostream error"
        raise OSError(errno.EIO, _first_line(error)) from error
    del model  # it may hold the file
    onnx.unlink()


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch prints of its own: where it fails, whole programs. The reason is in the exception too."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with silent[0], silent[1], warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # several inputs share a dimension
            yield
    finally:
        logging.disable(disabled)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
