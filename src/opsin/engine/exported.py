"""Files of `opsin export`, run by their own runtimes: for the comparison when they are written, and in use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import load_recipe
from opsin.engine.runtimes import import_onnxruntime, openvino_core
from opsin.errors import InputError
from opsin.files import load_json

# Endings of what `opsin.load` takes, with their formats. "torch" is not there: reading its files may run code in them.
FILES = {".onnx": "onnx", ".xml": "openvino"}
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
_PLAIN = ("opsin", "model", "task", "usage")  # metadata that is text; the others are JSON
_OF_PROGRAM = ("preprocessing", "values", "selection", "decoding", "sides", "tile")  # which say nothing of the data

Run = Callable[..., Mapping[str, Tensor]]  # of tensors, mostly one


@dataclass(frozen=True)
class ExportedFile:
    """A file in use. run: its program, on the CPU. texts: its metadata, read from JSON where they are JSON."""

    run: Run
    facts: Facts
    texts: Mapping[str, Any]


def read_exported(path: Path) -> ExportedFile:
    """A file that `opsin export` wrote, ready to run. Raises InputError for any other, and for a missing runtime."""
    if not path.is_file():
        raise InputError(f"no file at {path}")
    format = FILES[path.suffix.lower()]
    if importlib.util.find_spec(_PACKAGES[format]) is None:
        raise InputError(f"{path} needs {_PACKAGES[format]}: pip install 'opsin[export]'")
    try:
        run, texts = (_read_onnx if format == "onnx" else _read_openvino)(path)
    except Exception as error:  # each runtime has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as a file of format {format}: {reason}") from error
    if not {"task", "model"} <= texts.keys():
        raise InputError(f"{path} was not written by opsin export: it does not say its task")
    try:
        read = {key: text if key in _PLAIN else load_json(text) for key, text in texts.items()}
        return ExportedFile(run, _facts(read), read)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} has a damaged description: {error}") from None


def refuse_exported(path: str | Path, verb: str) -> None:
    """Raise InputError for an exported file, which predicts and does nothing else. verb: what it was to do."""
    if Path(path).suffix.lower() in (*FILES, ".pt2"):
        raise InputError(f"{path} was written by opsin export and only predicts; {verb} the run that it was made of")


def _facts(texts: Mapping[str, Any]) -> Facts:
    prepared = texts.get("preprocessing")
    meaning = {key: v for key, v in texts.items() if key not in (*_PLAIN, *_OF_PROGRAM)}
    if "classes" in meaning:
        meaning["classes"] = [str(name) for name in meaning["classes"]]
    recipe = {"task": texts["task"], "model": {"name": texts["model"]}, "data": {"source": ""}}
    return Facts(load_recipe(recipe), None if prepared is None else Preprocessing.from_dict(prepared), meaning)


def _read_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    """The program, and the metadata."""
    session = _onnx_session(path)
    return _run_onnx(session, [session.get_inputs()[0].name]), dict(session.get_modelmeta().custom_metadata_map)


def _read_openvino(path: Path) -> tuple[Run, dict[str, str]]:
    model = openvino_core().read_model(path)
    texts = {key: model.get_rt_info(["opsin", key]).astype(str) for key in model.get_rt_info(["opsin"]).value}
    return _run_openvino(model, [model.inputs[0].any_name]), texts


def _onnx_session(path: Path) -> Any:
    return import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])


def open_program(file: Path, format: str, names: Sequence[str]) -> Run:
    """The program in a file, on the CPU in full precision. names: of its inputs."""
    if format == "torch":
        return torch.export.load(file).module()
    if format == "onnx":
        return _run_onnx(_onnx_session(file), names)
    return _run_openvino(openvino_core().read_model(file), names)


def _run_onnx(session: Any, inputs: Sequence[str]) -> Run:
    names = [output.name for output in session.get_outputs()]

    def run(*tensors: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {name: value.numpy() for name, value in zip(inputs, tensors, strict=True)})
        return {key: torch.from_numpy(array) for key, array in zip(names, found, strict=True)}

    return run


def _run_openvino(model: Any, inputs: Sequence[str]) -> Run:
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def infer(*tensors: Tensor) -> dict[str, Tensor]:
        found = compiled({name: value.numpy() for name, value in zip(inputs, tensors, strict=True)})
        return {output.any_name: torch.from_numpy(found[output].copy()) for output in compiled.outputs}

    return infer
