"""Weights on disk: a file that describes itself, and a training's state; neither can run code when it is loaded."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from opsin import __version__, registry
from opsin.data import Preprocessing, class_names
from opsin.engine.recipe import Recipe, load_recipe
from opsin.errors import InputError
from opsin.files import atomic

_CRITERION = "criterion."


@dataclass
class Saved:
    """What a model.safetensors or a published file holds: weights, and all that is needed to use them."""

    state: dict[str, Tensor]
    recipe: Recipe
    preprocessing: Preprocessing
    classes: list[str]
    temperature: float
    metrics: dict[str, float]
    score_threshold: float | None = None  # of a detector, fitted after its training

    def build(self) -> nn.Module:
        """The network with its weights, in eval mode. Raises InputError if the weights are another architecture's."""
        model = registry.create_model(
            self.recipe.model.name,
            num_classes=len(self.classes),
            in_channels=self.preprocessing.channels,
            **self.recipe.model.options,
        )
        load_exactly(model, self.state, self.recipe.model.name)
        model.temperature = self.temperature  # type: ignore[assignment]
        model.multi_label = self.recipe.data.multi_label  # type: ignore[assignment]
        if self.score_threshold is not None:
            model.score_threshold = self.score_threshold  # type: ignore[assignment]
        return model.eval()


def save_model(
    path: Path,
    model: nn.Module,
    *,
    recipe: Recipe,
    preprocessing: Preprocessing,
    classes: list[str],
    metrics: Mapping[str, float],
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model.safetensors: the weights (`state`, else the model's own), without the criterion's parameters."""
    described = {
        "opsin": __version__,
        "recipe": recipe.model_dump(mode="json"),
        "preprocessing": preprocessing.to_dict(),
        "classes": classes,
        "temperature": float(getattr(model, "temperature", 1.0)),
        "metrics": dict(metrics),
        "score_threshold": getattr(model, "score_threshold", None),
    }
    state = model.state_dict() if state is None else state
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items() if not k.startswith(_CRITERION)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", "opsin": json.dumps(described)})


def read_model(path: str | Path) -> Saved:
    """Read a model.safetensors, or that of a run folder, or published weights by name, such as resnet50:imagenet1k.

    Raises InputError for anything else, whatever it contains.
    """
    path, (name, colon, weights) = Path(path), str(path).partition(":")
    if not path.exists() and registry.is_model(name):
        if not colon:
            known = registry.find_model(name).weights
            hint = f"; with published weights: {', '.join(f'{name}:{w}' for w in known)}" if known else ""
            raise InputError(f"{name} is a model without weights, not a run{hint}")
        return _published(name, weights)
    if path.is_dir():
        if not (path / "model.safetensors").exists():
            state = "its training has not saved a model yet" if (path / "recipe.yaml").exists() else "it is not a run"
            raise InputError(f"no model.safetensors in {path}: {state}")
        path = path / "model.safetensors"
    state, metadata = read_tensors(path)
    try:
        described = json.loads(metadata["opsin"])
        return Saved(
            state=state,
            recipe=load_recipe(described["recipe"]),
            preprocessing=Preprocessing.from_dict(described["preprocessing"]),
            classes=[str(name) for name in described["classes"]],
            temperature=float(described["temperature"]),
            metrics={str(k): float(v) for k, v in described["metrics"].items()},
            score_threshold=None if described.get("score_threshold") is None else float(described["score_threshold"]),
        )
    except KeyError as error:
        raise InputError(f"{path} does not describe a model of opsin: it lacks {error.args[0]!r}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} has a damaged description: {error}") from None


def _published(name: str, weights: str) -> Saved:
    """A model with published weights, fetched unless they are there, as if it had been trained here."""
    published = registry.find_weights(name, weights)
    preprocessing = Preprocessing.from_dict(published.preprocessing)
    model = registry.create_model(
        name, weights=weights, num_classes=published.num_classes, in_channels=preprocessing.channels
    )
    return Saved(
        state=model.state_dict(),
        recipe=load_recipe(
            {
                "task": registry.find_model(name).task,
                "model": {"name": name, "weights": weights},
                "data": {"source": ""},
            }
        ),
        preprocessing=preprocessing,
        classes=list(class_names(published.classes, published.num_classes)),
        temperature=1.0,
        metrics={},
    )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises InputError if it is not one."""
    if not path.is_file():
        raise InputError(f"no file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); opsin loads no pickles: "
            "convert the weights with safetensors.torch.save_file"
        ) from None


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load weights that must fit in every name and shape. Raises InputError with the first that does not."""
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(_CRITERION)}
    for key in [*own, *state]:
        if key.startswith(_CRITERION):
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


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically and read without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training's state. Raises InputError if the file is damaged or holds anything but plain values and tensors."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds objects that only code can rebuild; it was not loaded") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a readable checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path} is not a checkpoint of a training")
    return checkpoint
