"""Ablations and races: what is trained, what is reused, and what is said of a difference."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

import opsin
from opsin import registry
from opsin.cli.command import create_app
from opsin.engine import ablation, trainings
from opsin.engine.budget import Pace, read_seconds
from opsin.engine.callbacks import StoppedError
from opsin.engine.recipe import load_recipe
from opsin.engine.trainings import Trained, Wanted, run_all
from opsin.errors import InputError, JobError

pytestmark = pytest.mark.rendered

ROOMS = Path(__file__).parents[1] / "rooms"
SHORT = {"train.epochs": 1, "data.limit": 40}


def quiet(line: str) -> None:
    pass


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], float]], list[Wanted]]:
    """Trainings that train nothing: their value is a function of the recipe."""

    def install(score: Callable[[Any], float]) -> list[Wanted]:
        asked: list[Wanted] = []

        def train(wanted: Wanted, folder: Path, say: Any, watching: Any = ()) -> Trained:
            asked.append(wanted)
            value = score(wanted.load())
            rows = [{"epoch": epoch, "val_accuracy": value * epoch / 3, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
            return Trained(wanted.name, folder, value, {wanted.metric: value}, rows, 2.0)

        monkeypatch.setattr(trainings, "train_one", train)
        return asked

    return install


LUCK = {0: 0.0, 1: 0.05, 2: -0.04, 3: 0.02}  # of a seed, on every side


def score(recipe: Any) -> float:
    value = 0.8 + LUCK[recipe.train.seed]
    if recipe.augment is None:
        value -= 0.1 + 0.001 * recipe.train.seed
    if recipe.optim.lr == 0.5:
        value += [0.02, -0.02, 0.001, 0][recipe.train.seed]
    return value


def test_a_difference_is_paired_by_seed_and_noise_is_none(tmp_path: Path, pretend: Any) -> None:
    asked = pretend(score)
    switches = ["augment=null", "optim.lr=0.5; train.epochs=3"]
    found = opsin.ablate("lenet5_digits", switches, SHORT, seeds=3, out=tmp_path / "a", say=quiet)
    assert [one.name for one in found.sides] == ["lenet5_digits", *switches] and len(asked) == 9
    assert {one.load().train.seed for one in asked} == {0, 1, 2}
    assert asked[2].load().train.epochs == 3 and asked[0].load().train.epochs == 1
    plain, without, faster = found.sides
    assert [found.verdict(without), found.verdict(faster)] == ["worse", "no difference beyond the noise"]
    theirs = stats.ttest_rel(without.values, plain.values).confidence_interval(0.95)
    difference = found.difference(without)
    assert difference is not None and (difference.low, difference.high) == pytest.approx((theirs.low, theirs.high))
    assert found.summary() == "beyond the noise: augment=null; 1 of 2 within it"
    table = "\n".join(found.lines())
    assert "-10.10 ± 0.25" in table and "no difference beyond the noise" in table
    written = json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert written == found.to_dict() and written["sides"][1]["verdict"] == "worse"
    page = (tmp_path / "a" / "report.html").read_text()
    for text in ("What differs", "Validation accuracy", "augment=null", "about 0.1 would seem to make one by chance"):
        assert text in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_where_less_is_better_a_lower_mean_is(tmp_path: Path, pretend: Any) -> None:
    pretend(score)
    options: dict[str, Any] = {"metric": "val_nll", "out": tmp_path / "a", "say": quiet}
    found = opsin.ablate("lenet5_digits", ["augment=null"], SHORT, **options)
    assert (found.metric, found.mode) == ("nll", "min") and found.verdict(found.sides[1]) == "better"


def test_one_seed_says_nothing_of_noise(tmp_path: Path, pretend: Any) -> None:
    pretend(score)
    found = opsin.ablate("lenet5_digits", ["augment=null"], SHORT, seeds=1, out=tmp_path / "a", say=quiet)
    assert found.verdict(found.sides[1]) == "one seed: nothing is known of the noise"
    assert found.summary() == "nothing is known of the noise: it takes two seeds of each side, better three"


def test_a_training_is_done_once_and_what_changes_it_makes_another(tmp_path: Path) -> None:
    base = {"recipe": yaml.safe_load(Path(opsin.engine.recipe.list_recipes()["lenet5_digits"]).read_text())}
    keys = {
        Wanted("a", base["recipe"], {**SHORT, **more}, "accuracy", "max").key("d")
        for more in ({}, {"train.workers": 2}, {"train.logger": []}, {"train.save_every_steps": 5})
    }
    assert len(keys) == 1
    keys |= {Wanted("a", base["recipe"], {**SHORT, "train.seed": 1}, "accuracy", "max").key("d")}
    keys |= {Wanted("a", base["recipe"], SHORT, "accuracy", "max", "test").key("d")}
    keys |= {Wanted("a", base["recipe"], SHORT, "accuracy", "max").key("other data")}
    assert len(keys) == 4


def test_it_trains_resumes_and_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = trainings.train_one

    def stopped(wanted: Wanted, folder: Path, say: Any, watching: Any = ()) -> Trained:
        if wanted.name == "optim.lr=0.1, seed 0":
            raise StoppedError("stopped")
        return done(wanted, folder, say)

    with monkeypatch.context() as patch:
        patch.setattr(trainings, "train_one", stopped)
        with pytest.raises(StoppedError, match=r"opsin ablate --resume .*a$"):
            opsin.ablate("lenet5_digits", ["optim.lr=0.1"], SHORT, seeds=1, out=tmp_path / "a", say=quiet)
    said: list[str] = []
    found = opsin.ablate(resume=tmp_path / "a", switches=["augment=null"], say=said.append)
    assert [one.cached for side in found.sides for one in side.trainings] == [True, False, False]
    assert [one.name for one in found.sides] == ["lenet5_digits", "optim.lr=0.1", "augment=null"]
    one = found.sides[0].trainings[0]
    for side in found.sides:
        (one,) = side.trainings
        last = (one.path / "metrics.csv").read_text().splitlines()
        assert one.value == one.metrics["accuracy"] and last[0].startswith("epoch,step,lr,train_loss")
        saved = yaml.safe_load((one.path / "recipe.yaml").read_text())
        assert (saved["augment"] is None) == (side.name == "augment=null") and saved["train"]["epochs"] == 1
    log = (one.path / "train.log").read_text()
    assert "metric" in log and " test\n" not in log  # val alone decides
    same = yaml.safe_load((one.path / "recipe.yaml").read_text())
    wanted = [Wanted("x", same, {}, "accuracy", "max"), Wanted("y", same, {}, "accuracy", "max", bits=16)]
    plain, rounded = run_all(wanted, tmp_path / "a" / "trainings", say=quiet)
    assert plain.cached and plain.value == one.value  # the same recipe, whatever it is called
    assert rounded.cached and rounded.metrics["nll"] == pytest.approx(one.metrics["nll"], abs=0.01)  # not trained again
    assert json.loads((one.path / "bits16_val.json").read_text()) == rounded.metrics


def test_a_task_of_another_package_is_ablated(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "t.rows", np.c_[rows, rows @ [1, 2, 3] + 0.5], delimiter=",")
    paths = os.pathsep.join(filter(None, (str(ROOMS), os.environ.get("PYTHONPATH"))))
    command = "--import rows ablate rows --data t.rows --set model.name=line --set optim.lr=0.1 --epochs 3 --seeds 2"
    done = subprocess.run(
        [sys.executable, "-m", "opsin.cli", *command.split(), "--switch", "optim.lr=0.00001", "--out", "a", "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    slow = found["sides"][1]
    assert found["better"] == "lower" and slow["verdict"] == "worse" and slow["difference"]["low"] > 0
    assert (tmp_path / "a" / "report.html").exists()


def test_a_race_has_a_leader_only_beyond_the_noise(tmp_path: Path, pretend: Any) -> None:
    def value(recipe: Any) -> float:
        ahead = {"lenet5": 0.0, "resnet20": 0.1, "shufflenet_v2_x0_5": 0.1}.get(recipe.model.name, 0.1)
        return 0.7 + ahead + LUCK[recipe.train.seed] + 0.001 * recipe.train.seed * ahead

    pretend(value)
    data = {"data.size": 32}
    found = opsin.race(["lenet5_digits", "resnet20_digits"], data, out=tmp_path / "r", say=quiet)
    assert found.reference.name == "resnet20_digits"
    assert found.summary() == "resnet20_digits is ahead: lenet5_digits is behind by 10.01 ± 0.02"
    with pytest.raises(InputError, match="go on with: opsin race --resume"):
        opsin.ablate(resume=tmp_path / "r", say=quiet)
    again = opsin.race(["resnet20_digits", "shufflenet_v2_digits"], data, out=tmp_path / "s", say=quiet)
    assert again.summary().endswith("is not behind beyond the noise")


def test_a_failed_side_is_said_and_the_others_go_on(tmp_path: Path, pretend: Any) -> None:
    def value(recipe: Any) -> float:
        return score(recipe)

    pretend(value)
    train = trainings.train_one

    def failing(wanted: Wanted, folder: Path, say: Any, watching: Any = ()) -> Trained:
        if "lr" in wanted.name:
            return Trained(wanted.name, folder, None, error="the loss is not finite")
        return train(wanted, folder, say)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings, "train_one", failing)
        found = opsin.ablate("lenet5_digits", ["optim.lr=9", "augment=null"], SHORT, out=tmp_path / "a", say=quiet)
        assert found.verdict(found.sides[1]) == "failed: the loss is not finite"
        assert found.verdict(found.sides[2]) == "worse"
        patch.setattr(trainings, "train_one", lambda w, f, s: Trained(w.name, f, None, error="no memory"))
        with pytest.raises(JobError, match="no training of lenet5_digits ended well: no memory"):
            opsin.ablate("lenet5_digits", ["augment=null"], SHORT, out=tmp_path / "b", say=quiet)


def test_at_once_it_is_as_one_after_the_other(tmp_path: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend(score)
    pools: list[tuple[int, int]] = []

    @contextmanager
    def threads(parallel: int, cores: int) -> Iterator[ThreadPoolExecutor]:  # in the place of processes
        pools.append((parallel, cores))
        with ThreadPoolExecutor(parallel) as pool:
            yield pool

    monkeypatch.setattr(trainings, "_pool", threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    serial = opsin.ablate("lenet5_digits", ["augment=null"], SHORT, out=tmp_path / "a", say=quiet)
    at_once = opsin.ablate("lenet5_digits", ["augment=null"], SHORT, parallel=3, out=tmp_path / "b", say=quiet)
    assert [side.values for side in serial.sides] == [side.values for side in at_once.sides]
    assert len(asked) == 12 and pools == [(3, 2)]


WRONG: list[tuple[list[str], Mapping[str, Any], str]] = [
    ([], {}, "nothing to compare lenet5_digits with; give a switch"),
    (["data.source=mnist"], {}, "both sides must see the same images"),
    (["train.monitor=val_loss"], {}, "both sides must see the same images and be measured alike"),
    (["augment"], {}, "--set takes key=value"),
    (["augment=digits"], {}, "--switch augment=digits changes nothing: the recipe has that already"),
    (["augment=null", " augment=null"], {}, "augment=null is given twice"),
    (["model.residua=false"], {}, "unknown option of lenet5 'residua'"),
    (["mixing.mixup=0.2"], {"metric": "val_loss"}, "changes what the loss measures"),
    (["augment=null"], {"metric": "val_acc"}, "unknown train.monitor 'val_acc'; did you mean val_accuracy"),
    (["augment=null"], {"split": "train"}, "unknown split to compare on 'train'"),
    (["augment=null"], {"level": 95}, "the level of confidence is 95"),
    (["augment=null"], {"budget": "soon"}, "a budget of 'soon' is no time; write 20m, 90s or 1h30m"),
]


@pytest.mark.parametrize(("switches", "options", "message"), WRONG)
def test_what_cannot_be_compared_is_refused(
    switches: list[str], options: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        opsin.ablate("lenet5_digits", switches, SHORT, out=tmp_path / "a", say=quiet, **options)
    assert not (tmp_path / "a").exists()


def test_a_race_is_within_one_task_on_the_same_images(tmp_path: Path) -> None:
    for recipes, message in (
        (["lenet5_digits"], "name another recipe"),
        (["lenet5_digits", "lenet5_digits"], "lenet5_digits is given twice"),
        (["lenet5_digits", "ssd_scenes"], "lenet5_digits is of classify and ssd_scenes of detect"),
        (["resnet20_digits", "resnet20_fashion"], "set one for all: --set data.source=digits"),
        ([], "say which recipes to race"),
    ):
        with pytest.raises(InputError, match=message):
            opsin.race(recipes, out=tmp_path / "r", say=quiet)


def test_a_budget_is_epochs_and_a_part_of_one() -> None:
    assert [read_seconds(one) for one in ("20m", "90s", "1h30m", "1.5h", 7)] == [1200, 90, 5400, 5400, 7]
    pace = Pace(step=0.1, validation=2.0, steps_per_epoch=80)  # ten seconds an epoch
    assert pace.epochs_in(30) == 3 and pace.epochs_in(36) == pytest.approx(3.5)  # 4 s of steps, and a validation
    assert pace.epochs_in(31) == 3  # no time for a validation
    assert pace.keys(3.5) == {"train.epochs": 4, "train.max_steps": 280}
    assert pace.keys(3) == {"train.epochs": 3, "train.max_steps": 240}
    with pytest.raises(InputError, match="the budget is too small"):
        pace.keys(pace.epochs_in(1))


def test_all_sides_of_an_ablation_have_what_the_slowest_can(
    tmp_path: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pace(recipe: Any, overrides: Mapping[str, Any]) -> Pace:
        return Pace(1.0, 0.0, 10) if overrides.get("augment", "") is None else Pace(0.5, 0.0, 10)

    monkeypatch.setattr(ablation, "measure_pace", pace)
    asked = pretend(score)
    out = tmp_path / "a"
    opsin.ablate("lenet5_digits", ["augment=null"], budget="60s", seeds=1, out=out, say=quiet)
    assert [one.load().train.epochs for one in asked] == [6, 6]  # 60 s of the slower one
    own = load_recipe("lenet5_digits")
    assert own.schedule.warmup_epochs == 2 and own.train.epochs > 6  # of which the warm-up is as large a part
    assert asked[0].load().schedule.warmup_epochs == pytest.approx(2 * 6 / own.train.epochs, abs=1e-4)
    monkeypatch.setattr(ablation, "measure_pace", lambda *_: Pace(9.0, 0.0, 20))
    opsin.ablate(resume=out, switches=["train.batch_size=16"], say=quiet)
    later = asked[-1].load().train
    assert (later.epochs, later.max_steps) == (6, 120)  # a later switch gets the same epochs, of its own steps
    monkeypatch.setattr(ablation, "measure_pace", pace)
    opsin.race(["lenet5_digits", "resnet20_digits"], {"data.size": 32}, budget="60s", out=tmp_path / "r", say=quiet)
    assert [one.load().train.max_steps for one in asked[-2:]] == [120, 120]


def test_a_pace_is_measured(tmp_path: Path) -> None:
    pace = ablation.measure_pace(
        opsin.engine.recipe.read_recipe("lenet5_digits"), {"data.limit": 64, "train.batch_size": 16}
    )
    assert pace.steps_per_epoch == 4 and 0 < pace.step < 5 and 0 < pace.validation < 60


PAGE = Path(__file__).parents[2] / "docs" / "ablations.md"
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "ablations.py"
_LISTED = runpy.run_path(str(BENCHMARK))["ABLATIONS"]


def test_the_page_has_the_commands_of_the_benchmark() -> None:
    written = [
        line for line in PAGE.read_text().splitlines() if line.startswith("opsin ablate") and "--resume" not in line
    ]
    assert written[1:] == [f"opsin ablate {arguments} --budget 3m" for _, arguments in _LISTED.values()]


@pytest.mark.parametrize("name", _LISTED)
def test_each_side_of_each_command_can_be_built(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[ablation.Settings] = []

    def keep(folder: Path, settings: ablation.Settings, parallel: int, say: Any) -> Any:
        held.append(settings)

    monkeypatch.setattr(ablation, "_run", keep)
    words = ["ablate", *shlex.split(_LISTED[name][1]), "--budget", "3m", "--out", str(tmp_path / name)]
    create_app()(words, standalone_mode=False)
    (settings,) = held
    sides = settings.sides()
    assert len(sides) > 1 and settings.budget == 180
    for side in sides:
        model = load_recipe(side.recipe, side.overrides).model
        with torch.device("meta"):
            registry.create_model(model.name, **model.options)
