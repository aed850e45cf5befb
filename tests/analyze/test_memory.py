from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from opsin import registry
from opsin.analyze.memory import estimate_memory, measure_latency, measure_memory, with_measurement
from opsin.errors import InputError


def test_parts_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 50), nn.ReLU(), nn.Linear(50, 3))
    found = estimate_memory(model, (3, 2, 2), batch=8, optimizer="adamw")
    params = 4 * (12 * 50 + 50 + 50 * 3 + 3)
    assert (found.weights, found.gradients, found.optimizer_state, found.buffers) == (params, params, 2 * params, 0)
    # The linear layers keep what they read; the second's input is the ReLU's own output. And the loss is one number.
    assert found.saved_activations == 4 * 8 * 50 + 4 * 8 * 50 + 4 or found.saved_activations == 4 * 8 * 50 + 4
    assert found.train_peak >= 4 * params + found.saved_activations
    assert found.infer_peak >= params + 4 * 8 * (12 + 50)
    assert estimate_memory(model, (3, 2, 2), 8, "plain_sgd").optimizer_state == 0


def test_saved_activations_are_what_autograd_keeps() -> None:
    with torch.device("meta"):
        model = registry.create_model("resnet18").train()
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    images = torch.empty(4, 3, 64, 64, device="meta")
    own.add(images.untyped_storage()._cdata)
    with saved_tensors_hooks(keep, lambda t: t):
        outputs = model(images)
    assert outputs.grad_fn is not None
    found = estimate_memory(model, (3, 64, 64), 4)
    assert found.saved_activations == pytest.approx(sum(kept.values()), rel=0.02)


@pytest.mark.parametrize(("name", "size", "batch"), [("resnet18", 64, 2), ("mobilenet_v2", 96, 2)])
def test_estimates_agree_with_the_allocator(name: str, size: int, batch: int) -> None:
    torch.manual_seed(0)
    model = registry.create_model(name, num_classes=10)
    found = with_measurement(estimate_memory(model, (3, size, size), batch), model, (3, size, size))
    assert found.measured_train_peak is not None and found.measured_infer_peak is not None
    if found.device == "cpu":  # a GPU's kernels have workspaces of their own choice
        assert found.train_peak == pytest.approx(found.measured_train_peak, rel=0.05)
        assert found.infer_peak == pytest.approx(found.measured_infer_peak, rel=0.25)  # reordered weights of mkldnn


def test_densenet_with_recomputation_keeps_memory_that_grows_linearly() -> None:
    with torch.device("meta"):
        plain, frugal = (registry.create_model("densenet121", recompute=again) for again in (False, True))
    kept, less = (estimate_memory(model, (3, 224, 224), 8) for model in (plain, frugal))
    assert less.saved_activations < 0.5 * kept.saved_activations
    assert less.train_peak < 0.6 * kept.train_peak
    assert (less.weights, less.infer_peak) == (kept.weights, kept.infer_peak)


def test_measuring_writes_nothing_and_leaves_the_model(capfd: pytest.CaptureFixture[str]) -> None:
    model = registry.create_model("lenet5").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train, infer, _ = measure_memory(model, (1, 32, 32), 4)
    assert 0 < infer < train
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_one_image_of_one_place_and_latency() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert estimate_memory(model, (1, 4, 4), 1).train_peak > 0
    took = measure_latency(model, (1, 4, 4), runs=5)
    assert took.runs == 5 and took.batch == 1 and 0 < took.fastest <= took.median <= took.slowest


def test_timelines_are_short_and_reach_the_peak() -> None:
    with torch.device("meta"):
        found = estimate_memory(registry.create_model("resnet50"), (3, 64, 64), 2)
    for line, peak in ((found.timeline_train, found.train_peak), (found.timeline_infer, found.infer_peak)):
        assert 1 < len(line) <= 400 and max(amount for _, amount in line) == pytest.approx(peak, rel=0.05)
        assert [step for step, _ in line] == sorted(step for step, _ in line)


def test_wrong_calls() -> None:
    with pytest.raises(InputError, match="batch must be"):
        estimate_memory(nn.Flatten(), (1, 4, 4), 0)
    with pytest.raises(InputError, match="did you mean adamw"):
        estimate_memory(nn.Flatten(), (1, 4, 4), 1, "adam")
