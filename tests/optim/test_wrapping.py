"""Lookahead, gradient centralisation and Ranger: by hand, against plain versions, and exact when resumed."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader

from opsin.errors import InputError
from opsin.optim import (
    FilterClipping,
    GradientCentralization,
    Lookahead,
    create_optimizer,
    create_schedule,
    list_optimizers,
    list_schedules,
)

COMPOSED: dict[str, dict[str, Any]] = {
    "adam, lookahead": {"name": "adam", "lookahead": {"k": 2, "alpha": 0.8}},
    "adagrad, lookahead": {"name": "adagrad", "lookahead": True},
    "plain sgd, lookahead": {"name": "sgd", "momentum": 0.0, "lookahead": True},
    "nesterov, centralised": {"name": "nesterov", "gradient_centralization": True},
    "heavy ball, within a radius": {"name": "heavy_ball", "filter_rms": 0.3},
    "adamw, both, two groups": {
        "name": "adamw",
        "lookahead": True,
        "gradient_centralization": True,
        "decay_norm_and_bias": False,
    },
}
CASES = {name: {"name": name} for name in list_optimizers()} | COMPOSED


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).eval()


def descend(model: nn.Module, optimizer: Optimizer, steps: range, schedule: Any = None) -> None:
    for step in steps:
        images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(images) - 1).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
            schedule.observe(1.0)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_lookahead_by_hand() -> None:
    # Rate 1 and gradient 1: the fast weight falls by one a step from 10. k = 2, alpha = 1/2:
    # 9, 8 -> slow 10 + (8 - 10) / 2 = 9; 8, 7 -> slow 8; 7.
    p = parameter(10.0)
    optimizer = Lookahead(SGD([p], lr=1.0), k=2, alpha=0.5)
    found = []
    for _ in range(5):
        p.grad = torch.ones(1)
        optimizer.step()
        found.append(p.item())
    assert found == [9, 9, 8, 8, 7]


def test_lookahead_of_alpha_one_is_the_optimizer_alone() -> None:
    alone, ahead = net(), net()
    descend(alone, Adam(alone.parameters(), lr=0.1), range(7))
    descend(ahead, Lookahead(Adam(ahead.parameters(), lr=0.1), k=3, alpha=1.0), range(7))
    assert torch.equal(weights(alone), weights(ahead))


def test_lookahead_keeps_the_state_of_the_optimizer_inside() -> None:
    # Algorithm 1 in plain words, around Adam, whose moments run on over the synchronisations.
    model, plain = net(), net()
    optimizer = create_optimizer(model, "adam", lr=0.1, lookahead={"k": 3, "alpha": 0.25})
    descend(model, optimizer, range(10))
    inner = Adam(plain.parameters(), lr=0.1)
    slow = weights(plain)
    for step in range(10):
        descend(plain, inner, range(step, step + 1))
        if step % 3 == 2:
            slow = slow + 0.25 * (weights(plain) - slow)
            nn.utils.vector_to_parameters(slow.clone(), plain.parameters())
    assert torch.allclose(weights(model), weights(plain), atol=1e-6)


def test_a_parameter_that_learns_later_joins_in() -> None:
    first, second = parameter(1.0), parameter(1.0)
    optimizer = Lookahead(Adam([first, second], lr=0.1), k=2)
    for step in range(5):
        first.grad = torch.ones(1)
        second.grad = torch.ones(1) if step >= 2 else None
        optimizer.step()
    assert first.item() < second.item() < 1.0
    assert optimizer.state[second]["step"] == 3


def test_centralisation_by_hand() -> None:
    linear, bias, depthwise = parameter(0.0, 0.0, 0.0, 0.0), parameter(0.0, 0.0), parameter(0.0, 0.0)
    linear.data, depthwise.data = linear.data.view(2, 2), depthwise.data.view(2, 1, 1, 1)
    linear.grad, bias.grad, depthwise.grad = (
        torch.tensor([[1.0, 3.0], [5.0, 5.0]]),
        torch.ones(2),
        torch.ones(2, 1, 1, 1),
    )
    GradientCentralization(SGD([linear, bias, depthwise], lr=1.0)).step()
    assert linear.tolist() == [[1.0, -1.0], [0.0, 0.0]]
    assert bias.tolist() == [-1.0, -1.0] and depthwise.flatten().tolist() == [-1.0, -1.0]  # left alone


def test_centralised_weights_keep_their_sums() -> None:
    # Theorem 4.2 of the paper: e.w of every output channel stays what it was, whatever the gradients.
    model = net()
    before = [p.detach().flatten(1).sum(1) for p in model.parameters() if p.ndim > 1]
    descend(model, create_optimizer(model, "sgd", lr=0.1, gradient_centralization=True), range(5))
    after = [p.detach().flatten(1).sum(1) for p in model.parameters() if p.ndim > 1]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))
    descend(model, create_optimizer(model, "sgd", lr=0.1), range(5))
    after = [p.detach().flatten(1).sum(1) for p in model.parameters() if p.ndim > 1]
    assert not torch.allclose(before[0], after[0], atol=1e-3)


def test_filters_are_brought_back_to_the_radius() -> None:
    filters = nn.Parameter(torch.tensor([[3.0, 4.0], [0.03, -0.04], [0.0, 0.0]]).view(3, 2, 1, 1))
    linear = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    for one in (filters, linear):
        one.grad = torch.zeros_like(one)
    FilterClipping(SGD([filters, linear], lr=1.0), 0.1).step()
    length = 0.1 * math.sqrt(2)  # of two weights whose root mean square is 0.1
    expected = torch.tensor([[0.6 * length, 0.8 * length], [0.03, -0.04], [0.0, 0.0]])
    torch.testing.assert_close(
        filters.detach().flatten(1), expected
    )  # the second is short enough, the third stays zero
    assert linear.tolist() == [[3.0, 4.0]]
    model = net()
    descend(model, create_optimizer(model, "sgd", lr=0.5, filter_rms=0.2), range(3))
    largest = model[0].weight.detach().square().mean(dim=(1, 2, 3)).sqrt().max()  # type: ignore[operator, union-attr]
    assert float(largest) == pytest.approx(0.2)
    for wrong in (0, -1.0, "small"):
        with pytest.raises(InputError, match="filter_rms must be"):
            create_optimizer(model, "sgd", lr=0.1, filter_rms=wrong)  # type: ignore[arg-type]


def test_ranger_is_its_authors() -> None:
    """RAdam (Liu et al. 2019, algorithm 2) with its decay apart, on centralised gradients, and Lookahead around it."""
    model, rate, decay, (b1, b2), eps = net(), 0.1, 0.05, (0.95, 0.999), 1e-5
    plain = copy.deepcopy(model)
    descend(model, create_optimizer(model, "ranger", lr=rate, weight_decay=decay), range(14))
    parameters = list(plain.parameters())
    slow = [p.detach().clone() for p in parameters]
    m, v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    longest = 2 / (1 - b2) - 1
    for t in range(1, 15):
        descend(plain, SGD(parameters, lr=0.0), range(t - 1, t))  # gradients only
        for i, p in enumerate(parameters):
            assert p.grad is not None
            gradient = p.grad
            if p.ndim > 1:
                gradient = gradient - gradient.flatten(1).mean(1).view(-1, *[1] * (p.ndim - 1))
            m[i] = b1 * m[i] + (1 - b1) * gradient
            v[i] = b2 * v[i] + (1 - b2) * gradient**2
            length = longest - 2 * t * b2**t / (1 - b2**t)
            step = m[i] / (1 - b1**t)
            if length > 5:
                rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                step = step * math.sqrt(rectified) * math.sqrt(1 - b2**t) / (v[i].sqrt() + eps)
            p.data = p.data * (1 - rate * decay) - rate * step
            if t % 6 == 0:
                slow[i] = slow[i] + 0.5 * (p.data - slow[i])
                p.data = slow[i].clone()
    assert torch.allclose(weights(model), weights(plain), atol=1e-5)
    assert (weights(model) - weights(net())).abs().max() > 0.05


def test_what_a_name_puts_around_can_be_changed() -> None:
    model = net()
    ranger = create_optimizer(model, "ranger", lr=0.1, lookahead={"k": 3})
    assert isinstance(ranger, Lookahead) and isinstance(ranger.optimizer, GradientCentralization)
    assert ranger.param_groups[0]["lookahead_k"] == 3 and ranger.param_groups[0]["lookahead_alpha"] == 0.5
    radam = create_optimizer(model, "ranger", lr=0.1, lookahead=False, gradient_centralization=False)
    assert type(radam) is torch.optim.RAdam


@pytest.mark.parametrize("schedule_name", ["cosine", "plateau"])
@pytest.mark.parametrize("case", CASES)
def test_save_load_and_step_equals_uninterrupted(case: str, schedule_name: str) -> None:
    check_resume(CASES[case], schedule_name)


@pytest.mark.parametrize("schedule_name", list_schedules())
def test_every_schedule_resumes_with_an_optimizer(schedule_name: str) -> None:
    check_resume(CASES["ranger"], schedule_name)


def check_resume(options: dict[str, Any], schedule_name: str) -> None:
    more = {"step": {"milestones": [1.5]}, "plateau": {"patience": 1, "factor": 0.5}}.get(schedule_name, {})

    def start() -> tuple[nn.Module, Optimizer, Any]:
        model = net()
        optimizer = create_optimizer(model, lr=0.01, weight_decay=0.1, **options)
        schedule = create_schedule(optimizer, schedule_name, steps=20, steps_per_epoch=5, warmup_epochs=1, **more)
        return model, optimizer, schedule

    whole, optimizer, schedule = start()
    descend(whole, optimizer, range(20), schedule)
    begun, optimizer, schedule = start()
    descend(begun, optimizer, range(8), schedule)
    file = io.BytesIO()
    torch.save([begun.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, optimizer, schedule = start()
    for part, state in zip((resumed, optimizer, schedule), saved, strict=True):
        part.load_state_dict(state)
    descend(resumed, optimizer, range(8, 20), schedule)
    assert torch.equal(weights(resumed), weights(whole))  # to the bit


def test_a_checkpoint_of_the_optimizer_inside_is_taken_up() -> None:
    model = net()
    inner = Adam(model.parameters(), lr=0.1)
    descend(model, inner, range(3))
    ahead = Lookahead(Adam(model.parameters(), lr=0.1))
    ahead.load_state_dict(inner.state_dict())
    descend(model, ahead, range(3, 9))
    assert ahead.param_groups[0]["lookahead_step"] == 6


def test_copies_go_their_own_way() -> None:
    model = net()
    optimizer = create_optimizer(model, "ranger", lr=0.01)
    descend(model, optimizer, range(3))
    for twin, other in (copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))):
        before = weights(model)
        descend(twin, other, range(3, 8))
        assert torch.equal(weights(model), before)
        again, same = copy.deepcopy((model, optimizer))
        descend(again, same, range(3, 8))
        assert torch.equal(weights(twin), weights(again))


def test_groups_can_be_added() -> None:
    first, second = parameter(1.0), parameter(1.0)
    optimizer = Lookahead(SGD([first], lr=1.0), k=2)
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    for _ in range(2):
        first.grad = second.grad = torch.ones(1)
        optimizer.step()
    assert (first.item(), second.item()) == (0.0, 0.5)


class Learner(LightningModule):
    """Lightning's own loop: its closures make the gradients, inside of `step`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model, self.name = net(), name

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return (self.model(batch) - 1).square().mean()

    def configure_optimizers(self) -> Optimizer:
        return create_optimizer(self.model, self.name, lr=0.05)


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_saves_and_resumes(tmp_path) -> None:
    images: Any = torch.randn(36, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batches = DataLoader(images, batch_size=4)
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    whole = Learner("ranger")
    Trainer(max_epochs=2, **quiet).fit(whole, batches)
    begun, resumed = Learner("ranger"), Learner("ranger")
    trainer = Trainer(max_epochs=1, **quiet)
    trainer.fit(begun, batches)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    Trainer(max_epochs=2, **quiet).fit(resumed, batches, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(begun), weights(whole))
