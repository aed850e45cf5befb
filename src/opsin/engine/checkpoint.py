"""Weights on disk: a file that describes itself, and a training's state; neither can run code when it is loaded."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from opsin import objects, registry
from opsin.backbones.weight_files import check_numbers
from opsin.data import Preprocessing
from opsin.engine.named_weights import saved_parts
from opsin.engine.promised import check_promise
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.run import missing_run
from opsin.errors import InputError
from opsin.files import atomic, load_json
from opsin.nn.capabilities import restore_values, saved_values
from opsin.schemes import find_local
from opsin.version import __version__

CRITERION = "criterion."  # what only training needs
_VALUE = "opsin.state/"  # before the names of tensors that are no weights
_PART = "opsin.part/"  # before the name of a pipeline's part and those of its tensors
MEMBERS = "opsin.members"  # the tensor that holds the members of the splits, see `opsin.data.members`


@dataclass
class Facts:
    """What a model is used with, beside its weights.

    preprocessing: None for a model that takes no images. meaning: what its answers mean, as the truth of its data has
    it, plain JSON: {"classes": [...]}. options: the builder's that followed from the data, such as num_classes.
    objects: how large what it was trained on was, as `opsin.engine.tiles.ObjectSizes` has it; empty where that is not
    known. tile: how it looks at large images by default, see `opsin.engine.tiles.read_tile`. first_weights: which its
    training began with, as {"file": "x.th", "sha256": ...}; empty where they were random. members: of the splits that
    it was trained with, packed, see `opsin.data.members.Members`; None where nobody knows.
    """

    recipe: Recipe
    preprocessing: Preprocessing | None
    meaning: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    tile: str | int | None = None
    first_weights: dict[str, Any] = field(default_factory=dict)
    members: bytes | None = field(default=None, repr=False)

    @property
    def classes(self) -> list[str]:
        """Names of classes, none where the meaning has none."""
        return list(self.meaning.get("classes", []))

    def build(self) -> nn.Module:
        """The network, with weights at random."""
        return registry.create_model(self.recipe.model.name, **self.options, **self.recipe.model.options)


@dataclass
class Saved(Facts):
    """What a model.safetensors or a published file holds: weights, and all that is needed to use them.

    values: what the network carries beyond weights, see `saved_values`. metrics: of its evaluation. parts: of a
    pipeline, what each of its runs holds, by name; it has no weights of its own.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    parts: dict[str, Saved] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with its weights, in eval mode. Raises InputError if the weights are another architecture's."""
        if self.parts:
            raise InputError(
                f"this is a pipeline of {' and '.join(self.parts)} for {self.recipe.task}, not one network; "
                "give one of the runs that it was made of"
            )
        headed = any(name.startswith("aux_heads.") for name in self.state)
        if headed and "aux_heads" not in {**self.options, **self.recipe.model.options}:
            self.options = {**self.options, "aux_heads": True}  # of files from when they were built unasked
        check_numbers(f"the saved {self.recipe.model.name}", self.state)
        if not objects.is_object(self.recipe.model.name):  # which is there already
            check_promise(super().build, self.state, self.recipe.model.name)
        model = super().build()
        load_exactly(model, self.state, self.recipe.model.name)
        try:
            restore_values(model, self.values)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise InputError(
                f"what was saved beside the weights of {self.recipe.model.name} is damaged: {error}"
            ) from None
        return model.eval()


def save_model(
    path: Path,
    model: nn.Module,
    facts: Facts,
    metrics: Mapping[str, float],
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model.safetensors: the weights (`state`, else the model's own), without the criterion's parameters."""
    values = saved_values(model)
    tensors = _tensors(facts, values, model.state_dict() if state is None else state)
    write_tensors(path, tensors, _description(facts, metrics, values))


def save_parts(path: Path, facts: Facts, parts: Mapping[str, Saved]) -> None:
    """Write a pipeline as one file: what each of its parts holds, under its name, as in a file of its own."""
    tensors: dict[str, Tensor] = {}
    described: dict[str, Any] = {**_description(facts, {}, {}), "parts": {}}
    for name, part in parts.items():
        described["parts"][name] = _description(part, part.metrics, part.values)
        tensors |= {f"{_PART}{name}/{key}": tensor for key, tensor in _tensors(part, part.values, part.state).items()}
    write_tensors(path, tensors, described)


def _tensors(facts: Facts, values: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a model's file, as copies."""
    tensors = {name: tensor for name, tensor in state.items() if not name.startswith(CRITERION)}
    tensors |= {_VALUE + name: value for name, value in values.items() if isinstance(value, Tensor)}
    if facts.members is not None:
        tensors[MEMBERS] = as_tensor(facts.members)
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _description(facts: Facts, metrics: Mapping[str, float], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's file says."""
    return {
        "opsin": __version__,
        "recipe": facts.recipe.model_dump(mode="json"),
        "preprocessing": None if facts.preprocessing is None else facts.preprocessing.to_dict(),
        "meaning": facts.meaning,
        "options": facts.options,
        "objects": facts.objects,
        "tile": facts.tile,
        "first_weights": facts.first_weights,
        "metrics": dict(metrics),
        "values": {name: value for name, value in values.items() if not isinstance(value, Tensor)},
    }


def as_tensor(content: bytes) -> Tensor:
    """Bytes as a tensor, (N,) uint8, which a checkpoint can hold."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def save_tile(run: str | Path, tile: str | int | None) -> Path:
    """Write into a model.safetensors, or that of a run folder, how its model looks at large images; returns the file.

    tile: see `opsin.engine.tiles.read_tile`. Nothing else in the file changes, and it is whole at every moment. Raises
    InputError for published weights, which are not the user's own.
    """
    path, tensors, described = _read_own(run, "a tile")
    write_tensors(path, tensors, {**described, "tile": tile})
    return path


def save_values(run: str | Path, model: nn.Module) -> Path:
    """The same of what a network carries beyond its weights, such as a threshold that was fitted since."""
    path, tensors, described = _read_own(run, "a threshold")
    values = saved_values(model)
    own = {_VALUE + name: value.detach().cpu() for name, value in values.items() if isinstance(value, Tensor)}
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(_VALUE)}
    plain = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    write_tensors(path, {**rest, **own}, {**described, "values": plain})
    return path


def _read_own(run: str | Path, what: str) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """The file of a user's own model, its tensors, and what it says. what: that is to be saved in it."""
    path = Path(run)
    if not path.exists():
        raise InputError(f"{run} is no file here that {what} could be saved in; give a run or a model.safetensors")
    path = path / "model.safetensors" if path.is_dir() else path
    tensors, metadata = read_tensors(path)
    return path, tensors, json.loads(metadata["opsin"])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> None:
    """A model.safetensors of its tensors and of what its file says, as `read_tensors` reads them."""
    with atomic(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt", "opsin": json.dumps(described)})


def read_model(path: str | Path) -> Saved:
    """Read a model.safetensors, or that of a run folder, or published weights by name, such as resnet50:imagenet1k.

    Or a saved run of a hub, hf:owner/name, fetched where it is not here. Raises InputError for anything else, whatever
    it contains.
    """
    if not Path(path).exists() and (local := find_local(Path(path).as_posix())) is not None:
        return _of_hub(local, str(path))
    path, (name, weights) = Path(path), registry.split_weights(str(path))
    if not path.exists() and registry.is_model(name):
        if weights is None:
            known = registry.find_model(name).weights
            hint = f"; with published weights: {', '.join(f'{name}:{w}' for w in known)}" if known else ""
            raise InputError(f"{name} is a model without weights, not a run{hint}")
        return Saved(**saved_parts(name, weights))
    if path.is_dir():
        if not (path / "model.safetensors").exists():
            raise InputError(f"no model.safetensors in {path}: {_lacking(path)}")
        path = path / "model.safetensors"
    elif not path.exists():
        raise _absent(path)
    if path.suffix.lower() in registry.WEIGHT_FILES and path.suffix.lower() != ".safetensors":
        raise _of_others(path)
    tensors, metadata = read_tensors(path)
    if "opsin" not in metadata:
        raise _of_others(path)
    try:
        return _described(load_json(metadata["opsin"]), tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path} has a damaged description: it is nested too deep") from None
    except KeyError as error:
        raise InputError(f"{path} does not describe a model of opsin: it lacks {error.args[0]!r}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} has a damaged description: {error}") from None


def _of_others(path: Path) -> InputError:
    """The error for weights alone, which say nothing of the network that they are of."""
    return InputError(
        f"{path} holds weights, but does not say of which network: give it with the name, MODEL:{path} "
        f'(opsin predict resnet50:{path} photo.jpg), or opsin.load("{path}", model="resnet50", classes=[...])'
    )


def _of_hub(file: Path, shown: str) -> Saved:
    """A saved run that somebody shares."""
    if "opsin" not in read_tensors(file)[1]:
        raise InputError(
            f"{shown} holds weights, but no run of opsin: give them to the model that they are of, "
            f'create_model(NAME, weights="{shown}") or opsin train NAME --weights {shown}'
        )
    return read_model(file)


def _absent(path: Path) -> InputError:
    """The error for a run that is not there, with the nearest beside it."""
    if ":" in path.name and len(path.parts) == 1:
        try:
            registry.find_model(registry.split_weights(path.name)[0])
        except InputError as error:
            return error
    return missing_run(path)


def _lacking(folder: Path) -> str:
    """Why a folder has no model, and what to do."""
    if (folder / "recipe.yaml").exists():
        how = f"; to go on with it: opsin train --resume {folder}" if (folder / "last.ckpt").exists() else ""
        return f"its training has not saved a model yet{how}"
    runs = sorted(str(path.parent) for path in folder.glob("*/model.safetensors"))
    if runs:
        return f"it is not a run, but holds {len(runs)}: {', '.join(runs[:3])}{', ...' if runs[3:] else ''}"
    return "it is not a run; a run has recipe.yaml and model.safetensors"


def _described(text: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Saved:
    """A saved model, of what its file says and holds."""
    if "parts" in text:
        return _described_parts(text, tensors)
    described = text if "meaning" in text else _of_version_1(text)
    prepared = described["preprocessing"]
    try:
        preprocessing = None if prepared is None else Preprocessing.from_dict(prepared)
    except InputError as error:
        raise ValueError(error) from None
    values = dict(described["values"])
    values |= {name.removeprefix(_VALUE): tensor for name, tensor in tensors.items() if name.startswith(_VALUE)}
    meaning = dict(described["meaning"])
    if "classes" in meaning:
        meaning["classes"] = [str(name) for name in meaning["classes"]]
        named, made = len(meaning["classes"]), described["options"].get("num_classes", len(meaning["classes"]))
        if named != made:
            raise ValueError(f"it names {named} classes for a network of {made}")
    return Saved(
        recipe=load_recipe(described["recipe"]),
        preprocessing=preprocessing,
        meaning=meaning,
        options=dict(described["options"]),
        objects=dict(described.get("objects", {})),  # earlier files lack these two
        tile=described.get("tile"),
        first_weights=dict(described.get("first_weights", {})),
        members=tensors[MEMBERS].numpy().tobytes() if MEMBERS in tensors else None,
        state={name: tensor for name, tensor in tensors.items() if not name.startswith((_VALUE, MEMBERS))},
        values=values,
        metrics={str(k): float(v) for k, v in described["metrics"].items()},
    )


def _described_parts(text: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Saved:
    """A saved pipeline; its parts have none themselves."""
    own = {key: value for key, value in text.items() if key != "parts"}
    parts: dict[str, Saved] = {}
    for name, part in dict(text["parts"]).items():
        if "parts" in part:
            raise ValueError(f"its part {name!r} is made of parts itself")
        before = f"{_PART}{name}/"
        parts[name] = _described(part, {k.removeprefix(before): v for k, v in tensors.items() if k.startswith(before)})
    found = _described(own, {})
    found.parts = parts
    return found


def _of_version_1(text: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an earlier file, whose networks all had classes, images and the same few values."""
    options = {"num_classes": len(text["classes"]), "in_channels": text["preprocessing"]["channels"]}
    values = {name: text.get(name) for name in ("temperature", "score_threshold")}
    values["multi_label"] = text["recipe"]["data"].get("multi_label", False)
    return {**text, "meaning": {"classes": text["classes"]}, "options": options, "values": values}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises InputError if it is not one."""
    if not path.is_file():
        raise InputError(f"no file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error})") from None


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load weights that must fit in every name and shape. Raises InputError with the first that does not."""
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(CRITERION)}
    for key in [*own, *state]:
        if key.startswith(CRITERION):
            continue
        if key not in state:
            raise InputError(
                f"the checkpoint lacks {key} of {name}: it comes from another architecture or other options"
            )
        if key not in own:
            raise InputError(
                f"the checkpoint has {key}, {name} does not: it comes from another architecture or other options"
            )
        if own[key].shape != state[key].shape:
            raise InputError(
                f"{key} is {tuple(state[key].shape)} in the checkpoint and {tuple(own[key].shape)} in {name}: "
                "it comes from other classes, channels or options"
            )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


class HoldsCodeError(InputError):
    """A file that is no damaged checkpoint, but one that would run code."""


def _needs_code(error: str) -> bool:
    """Whether a pickle was refused for a global that is not among those of tensors, or an instruction that calls one.

    A byte that is no instruction at all is damage.
    """
    operand = re.search(r"nsupported operand (\d+)", error)
    known = {one.code for one in pickletools.opcodes}
    return "nsupported" in error and (operand is None or chr(int(operand[1])) in known)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training's state. Raises InputError if the file is damaged or holds anything but plain values and tensors."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _needs_code(str(error)):
            raise InputError(f"{path} is not a readable checkpoint: its values are damaged") from None
        raise HoldsCodeError(f"{path} holds objects that only code can rebuild; it was not loaded") from None
    except Exception as error:  # a damaged pickle can raise nearly any
        first = str(error).strip().partition("\n")[0].partition(". ")[0]  # what follows is advice of the reader's own
        reason = "it is empty" if path.is_file() and not path.stat().st_size else first
        raise InputError(f"{path} is not a readable checkpoint: {reason or type(error).__name__}") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path} is not a checkpoint of a training")
    return checkpoint
