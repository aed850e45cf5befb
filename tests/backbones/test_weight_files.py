"""Files of weights as people save them, made of torchvision's state dicts: each fills our network as theirs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

import opsin
from opsin.backbones.weight_files import read_weights
from opsin.errors import InputError

State = dict[str, Tensor]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    model = models.resnet18(num_classes=10)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.1 + ("var" in name))
    return model.eval()


def before(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def worse(state: Mapping[str, Tensor]) -> State:
    return {key: tensor + 1 for key, tensor in state.items()}


TRAINED = {
    "epoch": 3,
    "best_acc1": np.float64(81.5),
    "args": argparse.Namespace(lr=0.1, out=Path("x")),
    "optimizer": {},
}
FORMS: dict[str, Callable[[State], Any]] = {
    "plain.pth": lambda s: s,
    "parallel.th": lambda s: {"state_dict": before("module.", s), **TRAINED},
    "compiled.pt": lambda s: {"model": before("_orig_mod.", s)},
    "both.pt": lambda s: {"model_state_dict": before("module._orig_mod.", s)},
    "lightning.ckpt": lambda s: {
        "state_dict": {**before("model.", s), "metric.total": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {},
    },
    "timm.pth": lambda s: {"arch": "resnet18", "state_dict": worse(s), "state_dict_ema": s, **TRAINED},
    "ema.pt": lambda s: {"ema": {"module": s, "decay": 0.99}, "model": worse(s)},
    "net.pt": lambda s: {"net": before("backbone.", s), "acc": 90},
    "params.pth": lambda s: {"params": before("encoder.", s)},
    "renamed.pth": lambda s: {f"part{n}.{key.rpartition('.')[2]}": tensor for n, (key, tensor) in enumerate(s.items())},
    "half.pt": lambda s: {key: tensor.double() for key, tensor in s.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_fills_the_network(form: str, theirs: nn.Module, tmp_path: Path) -> None:
    torch.save(FORMS[form](theirs.state_dict()), tmp_path / form)
    model, said = opsin.create_model("resnet18", num_classes=10), list[str]()
    fitted = opsin.load_weights(model, tmp_path / form, say=said.append)
    assert (len(fitted.kept), fitted.fresh) == (102, ())
    assert fitted.left == (("metric.total",) if form == "lightning.ckpt" else ())
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(IMAGES), theirs(IMAGES), rtol=1e-4, atol=1e-5)
    assert said == [fitted.describe()] and said[0].startswith(f"102 of 102 tensors are from {tmp_path / form}")
    assert ("moving average" in said[0]) == (form in ("timm.pth", "ema.pt"))


def test_a_file_is_first_weights_by_its_path(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save({"state_dict": before("module.", theirs.state_dict())}, tmp_path / "net.th")
    said: list[str] = []
    model = opsin.create_model("resnet18", weights=tmp_path / "net.th", num_classes=4, say=said.append)
    assert torch.equal(model.state_dict()["stem.0.weight"], theirs.state_dict()["conv1.weight"])
    assert said == [
        f"resnet18 keeps 100 of 102 tensors of {tmp_path / 'net.th'}, which is for 10 classes; "
        "fresh: head.2.weight, head.2.bias"
    ]
    with pytest.raises(InputError, match=r"no file of weights at none\.pth"):
        opsin.create_model("resnet18", weights="none.pth")


def test_a_file_without_its_last_layer(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save({k: t for k, t in theirs.state_dict().items() if not k.startswith("fc.")}, tmp_path / "body.pth")
    fitted = opsin.load_weights(opsin.create_model("resnet18"), tmp_path / "body.pth", say=lambda line: None)
    assert (len(fitted.kept), fitted.fresh) == (100, ("head.2.weight", "head.2.bias"))


def test_a_module_of_anybodys_is_filled(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": theirs.state_dict()}, tmp_path / "net.pt")
    model = models.resnet18(num_classes=3)
    fitted = opsin.load_weights(model, tmp_path / "net.pt", say=lambda line: None)
    assert fitted.fresh == ("fc.weight", "fc.bias")
    assert torch.equal(model.layer4[1].bn2.running_var, theirs.layer4[1].bn2.running_var)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="does not fit ResNet"):
        opsin.load_weights(models.resnet34(), tmp_path / "net.pt")


def test_a_deeper_network_is_not_cut(tmp_path: Path) -> None:
    """resnet34 has every tensor of resnet18, by name and by shape, and more between them."""
    torch.save(models.resnet34().state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net\.pth does not fit resnet18: .* by name and in their order"):
        opsin.load_weights(opsin.create_model("resnet18"), tmp_path / "net.pth")


def test_a_sorted_file_is_not_walked(theirs: nn.Module, tmp_path: Path) -> None:
    """A norm's bias has the shape of its weight, and in the order of names comes before it."""
    state = dict(theirs.state_dict())
    order = {key.rpartition(".")[0]: n for n, key in enumerate(state)}
    renamed = {f"n{order[k.rpartition('.')[0]]:03d}.{k.rpartition('.')[2]}": t for k, t in state.items()}
    torch.save(dict(sorted(renamed.items())), tmp_path / "net.pth")
    with pytest.raises(InputError, match="its tensors have other names"):
        opsin.load_weights(opsin.create_model("resnet18", num_classes=10), tmp_path / "net.pth")


def test_numbered_layers_of_a_sorted_file_are_counted(tmp_path: Path) -> None:
    """Sorted as texts, layer 10 comes before layer 2; both have the same shape."""

    def stack() -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(12)))

    theirs, model = stack(), nn.ModuleDict({"layers": stack()})
    save_file({f"block.{k}": t for k, t in theirs.state_dict().items()}, tmp_path / "net.safetensors")
    opsin.load_weights(model, tmp_path / "net.safetensors", say=lambda line: None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), theirs.parameters(), strict=True))
    save_file({f"{c}.weight": t for c, t in zip("lkjihgfedcba", theirs.parameters(), strict=True)},
              tmp_path / "letters.safetensors")  # fmt: skip
    with pytest.raises(InputError, match=r"letters\.safetensors does not fit ModuleDict"):
        opsin.load_weights(model, tmp_path / "letters.safetensors")


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harmed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a.weight": Harm()}}, "holds objects that only code can rebuild; it was not loaded"),
        ({"epoch": 3}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"a.weight": torch.full((2,), float("nan"))}, r"is damaged: a\.weight holds values that are not numbers"),
        ({"a.weight": torch.full((2,), float("inf"))}, r"is damaged: a\.weight holds infinite values"),
        ({"a.weight": torch.ones(2, dtype=torch.complex64)}, r"a\.weight is torch\.complex64"),
        ({"a.weight": torch.eye(2).to_sparse()}, r"a\.weight is .*sparse"),
        (b"PK\x03\x04 not really", "is not a readable file of weights|holds objects"),
        (b"", "is not a readable file of weights"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_weights_is_one_line(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=message) as caught:
        opsin.load_weights(opsin.create_model("lenet5"), path)
    assert "\n" not in str(caught.value) and "delete it" not in str(caught.value)
    assert "harmed" not in capsys.readouterr().out


def test_scalars_of_numpy_and_settings_beside_the_weights_are_read(tmp_path: Path) -> None:
    torch.save({"net": {"a.weight": torch.ones(2)}, **TRAINED, "step": np.int64(3)}, tmp_path / "net.pt")
    file = read_weights(tmp_path / "net.pt")
    assert (list(file.tensors), file.nest) == (["a.weight"], "net")


def test_a_detector_of_other_classes_keeps_the_rest(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 0.0625}
    theirs = opsin.create_model("yolov3", num_classes=7, **options)
    torch.save({"model": before("module.", theirs.state_dict())}, tmp_path / "net.pt")
    model = opsin.create_model("yolov3", num_classes=3, **options)
    fitted = opsin.load_weights(model, tmp_path / "net.pt", say=lambda line: None)
    assert 0 < len(fitted.fresh) <= 6 and len(fitted.kept) > 100
    assert all(torch.equal(model.state_dict()[key], theirs.state_dict()[key]) for key in fitted.kept)
