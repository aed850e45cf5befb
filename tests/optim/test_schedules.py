"""Schedules: against values worked by hand and torch's schedulers, and exact when resumed."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from opsin.errors import InputError
from opsin.optim import Schedule, create_schedule


def sgd(*rates: float) -> SGD:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (1.0,)])


def rates(name: str, steps: int, per_epoch: int = 1, **options) -> list[float]:
    """The rate of each optimizer step, and the one that stands after the last."""
    optimizer = sgd()
    schedule = create_schedule(optimizer, name, steps=steps, steps_per_epoch=per_epoch, **options)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def torch_rates(make, steps: int) -> list[float]:
    optimizer = sgd()
    scheduler = make(optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_by_hand() -> None:
    half = math.sqrt(0.5)
    assert rates("constant", 3) == [1, 1, 1, 1]
    assert rates("step", 6, 2, milestones=[1, 2]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert rates("cosine", 4) == pytest.approx([1, 0.5 + half / 2, 0.5, 0.5 - half / 2, 0])
    assert rates("cosine", 2, min_factor=0.2) == pytest.approx([1, 0.6, 0.2])
    assert rates("poly", 4, power=2) == pytest.approx([1, 9 / 16, 4 / 16, 1 / 16, 0])
    # tau = 4 steps: a = k / 4, (1 - a) * 1 + a * 0.2, then constant.
    line = [1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2]
    assert rates("linear", 6, 2, tau_epochs=2, final_factor=0.2) == pytest.approx(line)


def test_inverse_sqrt_is_the_transformers() -> None:
    features, warmup = 512, 40
    found = rates("inverse_sqrt", 200, peak_step=warmup)
    expected = [features**-0.5 * min(s**-0.5, s * warmup**-1.5) for s in range(1, 202)]
    assert [rate * (features * warmup) ** -0.5 for rate in found] == pytest.approx(expected)
    assert max(found) == found[warmup - 1] == 1
    with pytest.raises(InputError, match="peak_step must be a whole number of at least 1, got 0"):
        rates("inverse_sqrt", 3, peak_step=0)


def test_warmup_by_hand() -> None:
    # Two steps from 0.5: 0.5, 0.75, then the curve; the cosine falls over the four steps that remain.
    half = math.sqrt(0.5)
    expected = [0.5, 0.75, 1, 0.5 + half / 2, 0.5, 0.5 - half / 2, 0]
    assert rates("cosine", 6, 4, warmup_epochs=0.5, warmup_factor=0.5) == pytest.approx(expected)
    # Milestones count from the start of the training, whatever the warm-up.
    expected = [0.5, 0.75, 1, 0.1, 0.1]
    assert rates("step", 4, 1, milestones=[3], warmup_epochs=2, warmup_factor=0.5) == pytest.approx(expected)
    assert rates("step", 2, 1, milestones=[1], warmup_epochs=2, warmup_factor=0.5) == pytest.approx([0.5, 0.075, 0.1])


@pytest.mark.parametrize("name", ["constant", "cosine", "poly", "linear", "plateau"])
def test_a_warmup_longer_than_the_training_is_cut(name: str) -> None:
    assert rates(name, 2, 1, warmup_epochs=4, warmup_factor=0.5) == pytest.approx([0.5, 0.625, 0.75])


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("step", {"milestones": [3, 7.5], "gamma": 0.3}, lambda o: lr_scheduler.MultiStepLR(o, [12, 30], 0.3)),
        ("cosine", {"min_factor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, 40, 0.1)),
        ("poly", {"power": 0.9}, lambda o: lr_scheduler.PolynomialLR(o, 40, 0.9)),
        ("linear", {"tau_epochs": 5}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.01, 20)),
        (
            "cosine",
            {"warmup_epochs": 2, "warmup_factor": 0.05},
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.LinearLR(o, 0.05, 1.0, 8), lr_scheduler.CosineAnnealingLR(o, 32)], [8]
            ),
        ),
    ],
    ids=["step", "cosine", "poly", "linear", "warmup"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own
def test_equal_to_torch(name: str, options: dict, reference) -> None:
    assert rates(name, 40, 4, **options) == pytest.approx(torch_rates(reference, 40), abs=1e-7)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_equals_torch(mode: str) -> None:
    generator = random.Random(0)
    values = [generator.uniform(0.5, 1.0) for _ in range(60)] + [float("nan")] * 5
    optimizer, other = sgd(1.0, 0.01), sgd(1.0, 0.01)
    options = {"factor": 0.5, "patience": 2, "threshold": 0.01, "mode": mode}
    schedule = create_schedule(optimizer, "plateau", steps=1000, steps_per_epoch=10, min_lr=0.002, **options)
    reference = lr_scheduler.ReduceLROnPlateau(other, min_lr=0.002, **options)
    for value in values:
        schedule.step()
        schedule.observe(value)
        reference.step(value)
        for ours, theirs in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert ours["lr"] == pytest.approx(theirs["lr"], abs=1e-7)


def test_plateau_by_hand() -> None:
    optimizer = sgd()
    schedule = create_schedule(
        optimizer, "plateau", steps=100, steps_per_epoch=1, mode="max", patience=1, warmup_epochs=1, warmup_factor=0.5
    )
    for _ in range(3):
        schedule.observe(0.0)  # the warm-up is not evaluated
    schedule.step()
    found = []
    for value in (-2.0, -2.0, -2.0, -1.0, -1.5, -1.0):  # best, bad, bad -> x 0.1, best, bad, bad (not better) -> x 0.1
        schedule.observe(value)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01])


def test_every_group_keeps_its_own_rate() -> None:
    optimizer = sgd(1.0, 0.1)
    schedule = create_schedule(optimizer, "step", steps=2, steps_per_epoch=1, milestones=[1])
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.01])


def make(name: str) -> tuple[SGD, Schedule]:
    options = {"step": {"milestones": [2, 5]}, "plateau": {"patience": 1, "factor": 0.5}}.get(name, {})
    optimizer = sgd(1.0, 0.3)
    return optimizer, create_schedule(optimizer, name, steps=40, steps_per_epoch=4, warmup_epochs=1, **options)


def drive(optimizer: SGD, schedule: Schedule, steps: range) -> list[float]:
    found = []
    for step in steps:
        schedule.step()
        if step % 4 == 3:
            schedule.observe(abs(math.sin(step)))
        found += [group["lr"] for group in optimizer.param_groups]
    return found


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "poly", "linear", "inverse_sqrt", "plateau"])
@pytest.mark.parametrize("order", ["schedule first", "optimizer first"])
def test_resumed_equals_uninterrupted(name: str, order: str) -> None:
    whole = drive(*make(name), range(40))
    optimizer, schedule = make(name)
    begun = drive(optimizer, schedule, range(17))
    saved = json.loads(json.dumps(schedule.state_dict()))  # plain values
    weights = optimizer.state_dict()
    optimizer, schedule = make(name)
    if order == "optimizer first":
        optimizer.load_state_dict(weights)
    schedule.load_state_dict(saved)
    if order == "schedule first":
        optimizer.load_state_dict(weights)
    assert begun + drive(optimizer, schedule, range(17, 40)) == whole  # to the bit


def test_a_schedule_made_on_a_resumed_optimizer_knows_the_initial_rate() -> None:
    optimizer, schedule = make("cosine")
    drive(optimizer, schedule, range(17))
    other = sgd(1.0, 0.3)
    other.load_state_dict(optimizer.state_dict())
    fresh = create_schedule(other, "cosine", steps=40, steps_per_epoch=4, warmup_epochs=1)
    fresh.load_state_dict(schedule.state_dict())
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "unknown schedule 'cosin'; did you mean cosine"),
        ("cosine", {"min_facto": 0.1}, "unknown option of schedule cosine 'min_facto'; did you mean min_factor"),
        ("cosine", {"clock": 1}, "unknown option of schedule cosine 'clock'"),
        ("step", {}, "schedule step needs milestones; set schedule.milestones"),
        ("step", {"milestones": [60, 30]}, r"rising list of epochs, such as \[30, 60\], got \[60, 30\]"),
        ("step", {"milestones": 30}, "rising list of epochs"),
        ("step", {"milestones": [-1]}, "milestone must be a number of at least 0, got -1"),
        ("step", {"milestones": [1], "gamma": 10}, "gamma must be a number from 0 to 1, got 10"),
        ("cosine", {"warmup_epochs": -1}, "warmup_epochs must be a number of at least 0"),
        ("poly", {"power": "half"}, "power must be a number of at least 0, got 'half'"),
        ("linear", {"tau_epochs": float("nan")}, "tau_epochs must be a number"),
        ("plateau", {"mode": "maximum"}, "unknown mode of plateau 'maximum'"),
        ("plateau", {"patience": True}, "patience must be a number"),
        ("constant", {"steps": 0}, "steps must be a number of at least 1, got 0"),
        ("constant", {"steps": float("inf")}, "steps must be a number of at least 1, got inf"),
    ],
)
def test_wrong_calls_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_schedule(sgd(), name, **{"steps": 10, "steps_per_epoch": 1, **options})


def test_a_foreign_state_is_refused() -> None:
    _, plateau = make("plateau")
    _, cosine = make("cosine")
    with pytest.raises(InputError, match="resume with the schedule that the run was started with"):
        cosine.load_state_dict(plateau.state_dict())
