from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import opsin
from opsin.errors import InputError
from opsin.nn import inference


def trained(name: str, **options: Any) -> nn.Module:
    """A network with statistics of batch norm that are far from their first values."""
    torch.manual_seed(0)
    model = opsin.create_model(name, num_classes=5, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize("size", [32, 47])
def test_same_outputs_without_a_compiler(size: int) -> None:
    model = trained("resnet20")
    fast = opsin.optimize(model, (3, 32, 32), compile=False)
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-5)
    assert fast.steps == ("19 batch norms folded", "channels last")
    assert fast.difference < 1e-5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert fast(images).grad_fn is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler")
def test_same_outputs_compiled() -> None:
    model = trained("resnet20", residual=False)
    del model.stages[1:]  # type: ignore[union-attr]
    model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    fast = opsin.optimize(model, (3, 32, 32))
    assert fast.steps == ("7 batch norms folded", "compiled, weights frozen")
    for batch in (1, 3, 2):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-5)


def test_the_network_stays_as_it_is_and_lends_its_methods() -> None:
    model = trained("resnet20").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast = opsin.optimize(model, (3, 32, 32), compile=False)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    answer = fast.decode(fast(torch.randn(2, 3, 32, 32)))
    assert answer["scores"].shape == (2, 5) and fast.num_classes == 5
    assert not any(p.requires_grad for p in fast.parameters())


def test_it_is_not_for_training_and_checks_its_input() -> None:
    fast = opsin.optimize(trained("lenet5", in_channels=1), compile=False)
    with pytest.raises(InputError, match="train the one it was made from"):
        fast.train()
    with pytest.raises(InputError, match="1 input channels"):
        fast(torch.randn(1, 3, 32, 32))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = fast.nonsense


def test_auxiliary_heads_are_dropped() -> None:
    model = trained("googlenet_bn", aux_heads=True)
    fast = opsin.optimize(model, (3, 64, 64), compile=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)["logits"]
    torch.testing.assert_close(fast(images), expected, rtol=1e-4, atol=1e-4)
    assert fast.steps[0] == "auxiliary heads dropped"
    assert model(images).keys() > {"logits"}


def test_a_failing_compiler_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: nn.Module) -> object:
        def run(images: Tensor) -> Tensor:
            raise RuntimeError("no compiler\nmore")

        return run

    monkeypatch.setattr(torch, "compile", refuse)
    fast = opsin.optimize(trained("resnet20"), (3, 32, 32))
    assert fast.steps == ("19 batch norms folded", "not compiled: no compiler", "channels last")
    assert fast(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_other_outputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_TOLERANCE", -1.0)
    with pytest.raises(InputError, match="use the network as it is"):
        opsin.optimize(trained("resnet20"), (3, 32, 32), compile=False)
