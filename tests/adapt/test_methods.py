"""Each method moves what it is to move, by losses that it is to have, on a batch of two domains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import opsin
from opsin.adapt.batches import DomainBatches
from opsin.adapt.features import last_layer, look
from opsin.adapt.methods import METHODS
from opsin.adapt.task import AdaptTask
from opsin.data import Source
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.engine.train import create_train_loader
from opsin.errors import InputError

from .tiny_domains import recipe, write_domain

TERMS = {
    "source_only": {"loss"},
    "dan": {"classification", "mmd"},
    "deep_coral": {"classification", "coral"},
    "dann": {"classification", "domain"},
    "cdan": {"classification", "domain"},
    "cdan_e": {"classification", "domain"},
    "l2_sp": {"classification", "penalty"},
    "erm": {"risk"},
    "irm": {"risk", "penalty"},
    "vrex": {"risk", "variance"},
    "group_dro": {"risk"},
    "domain_coral": {"risk", "coral"},
    "mixstyle": {"risk"},
    **{name: {"loss"} for name in ("linear_probe", "last_block", "gradual_unfreezing")},
    **{name: {"loss"} for name in ("self_training", "kernel_mean_matching", "density_ratio", "tradaboost")},
    "adda": {"domain", "inverted"},
    "mcd": {"one", "other", "discrepancy"},
}


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("domains")
    a, b = write_domain(folder / "a", images=8), write_domain(folder / "b", images=8)
    return a, b, write_domain(folder / "c", shifted=True, images=8)


@pytest.fixture(scope="module")
def opened(domains: tuple[Path, Path, Path]) -> tuple[Recipe, Source]:
    loaded = load_recipe(recipe(domains[0], domains[2], "dann", sources=[str(domains[1])]))
    return loaded, AdaptTask.open(loaded, lambda line: None)


def make(opened: tuple[Recipe, Source], method: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A task by a method, and a batch."""
    loaded, source = opened
    own = loaded.model_copy(deep=True)
    own.adapt.method = method  # type: ignore[attr-defined]
    monkeypatch.setattr(AdaptTask, "progress", 0.5)
    torch.manual_seed(0)
    task: Any = AdaptTask.build(own, create_preprocessing(own, 1), source)
    task.method.begin(task.model)
    return task, next(iter(create_train_loader(task, source.splits["train"])))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_its_losses_reach_the_network(
    opened: tuple[Recipe, Source], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, batch = make(opened, method, monkeypatch)
    names: set[str] = set()
    for update in task.updates():
        terms = update.losses(batch)
        names |= set(terms)
        task.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        moved = [p.grad for p in update.module.parameters() if p.grad is not None]
        assert moved and all(bool(torch.isfinite(one).all()) for one in moved)
        assert any(float(one.abs().sum()) > 0 for one in moved), update.name
    assert names == TERMS[method]


def test_the_ladder_trains_what_its_rung_says(opened: tuple[Recipe, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("linear_probe", "last_block"):
        task, batch = make(opened, method, monkeypatch)
        task.losses(batch)["loss"].backward()
        task.method.hold(task.model)
        moved = {id(p) for p in task.model.parameters() if p.grad is not None}
        last = {id(p) for p in last_layer(task.model).parameters()}
        assert moved == last if method == "linear_probe" else last < moved < {id(p) for p in task.model.parameters()}
    gradual, _ = make(opened, "gradual_unfreezing", monkeypatch)
    assert [gradual.method.unfrozen(6, share) for share in (0.0, 0.25, 0.5, 1.0)] == [1, 4, 6, 6]


def test_adda_leaves_the_last_layer_and_the_source_alone(
    opened: tuple[Recipe, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = make(opened, "adda", monkeypatch)
    discriminator, encoder = task.updates()
    last = {id(p) for p in last_layer(task.model).parameters()}
    assert not last & {id(p) for p in encoder.module.parameters()} and discriminator.name == "discriminator"
    assert not any(p.requires_grad for p in task.method.still[0].parameters())
    assert encoder.optim["lr"] == pytest.approx(0.1 * task.recipe.optim.lr)


def test_features_are_what_the_last_layer_is_given(
    opened: tuple[Recipe, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, batch = make(opened, "dann", monkeypatch)
    features, logits = look(task.model, *task.inputs(batch))
    layer = last_layer(task.model)
    assert isinstance(logits, torch.Tensor)
    torch.testing.assert_close(layer(features), logits)
    with pytest.raises(InputError, match="one of your own does not name"):
        last_layer(nn.Linear(2, 2))


def test_batches_are_half_and_half_and_the_same_for_an_epoch() -> None:
    domains = np.array([0] * 30 + [1] * 10 + [-1] * 20)
    labelled = domains >= 0
    order = DomainBatches(domains, labelled, 16, seed=1)
    first = order(0)
    assert len(first) == 5 and all(len(set(one.tolist())) == 16 for one in first)
    for batch in first:
        assert np.bincount(domains[batch] + 1).tolist() == [8, 4, 4]
        assert (domains[batch][1::2] == -1).all()  # so that two processes get four of each side
    assert all((one == other).all() for one, other in zip(first, order(0), strict=True))
    assert any((one != other).any() for one, other in zip(first, order(1), strict=True))
    alone = DomainBatches(domains, labelled, 16, seed=1, target=False)(0)
    assert all((one == other[0::2]).all() for one, other in zip(alone, first, strict=True))
    few = labelled.copy()
    few[-2:] = True
    taught = DomainBatches(domains, few, 18)(0)
    assert all(np.isin([58, 59], one).any() for one in taught)
    with pytest.raises(InputError, match="the target has 20 images to train on, fewer than the 25"):
        DomainBatches(np.array([0] * 60 + [-1] * 20), np.arange(80) < 60, 50)


def test_steps_and_weights_run(domains: tuple[Path, Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    values = recipe(domains[0], domains[2], "self_training", bridges=[str(domains[1])])
    values["train"] |= {"batch_size": 8, "max_steps": 1}
    opsin.train(values, out=tmp_path / "steps", say=said.append)
    assert [line for line in said if line.startswith("step 2 of 2")]
    assert (tmp_path / "steps/stages/self_training_2/result.safetensors").is_file()
    opsin.train(
        values | {"adapt": recipe(domains[0], domains[2], "density_ratio")["adapt"]},
        out=tmp_path / "w",
        say=said.append,
    )
    assert [line for line in said if line.startswith("density_ratio: the weights leave")]
