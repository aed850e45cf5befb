"""Weights of a model from a safetensors file of anybody's, held against the network that they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

import opsin
from opsin.backbones.weights import load_file
from opsin.errors import InputError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Every weight at random, norms' too, so that none can be taken for another."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.1 + ("var" in name))
    return model.eval()


def answers(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(IMAGES)


def fill(name: str, path: Path, **options: Any) -> tuple[torch.nn.Module, list[str], list[str]]:
    said: list[str] = []
    model = opsin.create_model(name, **options)
    return model, load_file(model, name, path, options, shown="hf:a/b", say=said.append), said


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "mobilenet_v2"])
def test_a_file_of_torchvision_answers_as_its_network(name: str, tmp_path: Path) -> None:
    theirs = randomize(models.get_model(name, weights=None))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")  # which sorts by name
    model, fresh, said = fill(name, tmp_path / "model.safetensors")
    assert (fresh, said) == ([], [])
    torch.testing.assert_close(answers(model), answers(theirs), rtol=1e-4, atol=1e-5)


def test_a_file_of_timm_answers_as_its_network(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    theirs = randomize(timm.create_model("efficientnet_b0"))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    model, fresh, _ = fill("efficientnet_b0", tmp_path / "model.safetensors")
    assert fresh == []
    torch.testing.assert_close(answers(model), answers(theirs), rtol=1e-4, atol=1e-5)


def test_a_file_of_our_own_names(tmp_path: Path) -> None:
    theirs = randomize(opsin.create_model("resnet20", num_classes=7))
    save_file(theirs.state_dict(), tmp_path / "own.safetensors")
    model, fresh, _ = fill("resnet20", tmp_path / "own.safetensors", num_classes=7)
    assert fresh == [] and torch.equal(answers(model), answers(theirs))


def test_other_classes_and_channels_start_fresh(tmp_path: Path) -> None:
    theirs = randomize(models.resnet18(num_classes=21))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    model, fresh, said = fill("resnet18", tmp_path / "model.safetensors", num_classes=5, in_channels=1)
    assert len(fresh) == 3 and all(model.state_dict()[name].shape[0] in (5, 64) for name in fresh)
    assert said == [
        "resnet18 keeps 99 of 102 tensors of hf:a/b, which is for 21 classes and 3 input channels; fresh: "
        + ", ".join(fresh)
    ]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_file(models.resnet34(weights=None).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"hf:a/b does not fit resnet18: .*sorted by name"):
        fill("resnet18", tmp_path / "model.safetensors")


def test_sorted_names_that_nobody_knows_are_never_walked(tmp_path: Path) -> None:
    """A norm's bias has the shape of its weight: in the order of names every shape fits, and every norm is wrong."""
    own = opsin.create_model("vgg11_bn")
    layers = [key.rpartition(".")[0] for key in own.state_dict()]
    numbered = {layer: f"n{place:03d}" for place, layer in enumerate(dict.fromkeys(layers))}
    state = {f"{numbered[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": t.clone() for k, t in own.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="its tensors have other names"):
        fill("vgg11_bn", tmp_path / "model.safetensors")
