"""A training of the user's own parts: what it gives is what a plain loop gives, and what does not fit is said first."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import opsin
from opsin.data.loading import derive_seed
from opsin.engine import own_metrics, own_parts
from opsin.engine.checkpoint import read_checkpoint, read_model
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.structures import Instances

QUIET: dict[str, Any] = {"train.tensorboard": False, "schedule.name": "constant", "train.keep": "last"}


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.last = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.body(images))


class Squares(Dataset):
    """Sixty grey images of 8x8 of one of three brightnesses, by rows."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        random = np.random.RandomState(i)
        image = random.randint(0, 60, (8, 8)).astype(np.uint8)
        image[i % 3 * 3 :][:2] += 150
        return image, i % 3


class Unread(Squares):
    """Data that must not be read yet."""

    def __getitem__(self, i: int) -> Any:
        raise AssertionError("the data is read before the parts are checked")


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def train(out: Path, model: Any = None, **given: Any) -> opsin.Run:
    settings = {**QUIET, **given.pop("overrides", {})}
    model = model if model is not None else net()
    known = {"data": Squares(), "epochs": 2, "batch_size": 8, "size": 8, "lr": 0.05, **given}
    return opsin.train(model=model, overrides=settings, out=out, say=lambda line: None, **known)


def states(run: opsin.Run) -> dict[str, Tensor]:
    return read_checkpoint(run.path / "last.ckpt")["state_dict"]


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


def test_a_training_equals_a_plain_loop(tmp_path: Path) -> None:
    data = Squares()
    trained = train(tmp_path / "run", data={"train": data, "val": data}, optimizer="sgd", overrides={"augment": None})
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images = torch.stack([torch.from_numpy(data[i][0])[None] for i in range(60)])
    labels = torch.tensor([data[i][1] for i in range(60)])
    for epoch in range(2):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(derive_seed(0, epoch, 0xFFFF_FFFF)))
        for batch in order[:56].split(8):
            loss = F.cross_entropy(model((images[batch] / 255 - 0.5) / 0.5), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    own = {f"model.network.{key}": value for key, value in model.state_dict().items()}
    for key, value in states(trained).items():
        torch.testing.assert_close(value, own[key], rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_the_usual_one_trains_the_same(tmp_path: Path) -> None:
    usual = train(tmp_path / "usual")
    for name, loss in {
        "function": lambda logits, targets: F.cross_entropy(logits, targets),
        "module": nn.CrossEntropyLoss(),
        "terms": lambda logits, targets: {"whole": F.cross_entropy(logits, targets)},
        "path": "torch.nn.CrossEntropyLoss",
    }.items():
        run = train(tmp_path / name, loss=loss)
        for key, value in states(usual).items():
            torch.testing.assert_close(states(run)[key], value, rtol=1e-5, atol=1e-6)
    two = train(
        tmp_path / "two", loss=lambda logits, targets: {"a": F.cross_entropy(logits, targets), "b": logits.mean()}
    )
    assert two.history[0].keys() >= {"train_loss", "train_a", "train_b"}


def test_a_loss_of_a_registered_network(tmp_path: Path) -> None:
    def own(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    given: dict[str, Any] = {"data": Squares(), "epochs": 1, "size": 32, "seed": 3, "overrides": QUIET}
    given["say"] = lambda line: None
    usual = opsin.train("lenet5", **given, out=tmp_path / "usual")
    run = opsin.train("lenet5", **given, loss=own, out=tmp_path / "own")
    assert_same(states(usual), states(run))
    assert ".own>" in run_text(run) and opsin.load(run.path).classes == ["0", "1", "2"]  # it needs no loss


def run_text(run: opsin.Run) -> str:
    return (run.path / "recipe.yaml").read_text("utf-8")


def test_the_loss_a_network_has_itself(tmp_path: Path) -> None:
    class Halved(Net):
        def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(outputs, targets) / 2}

    torch.manual_seed(0)
    half, whole = train(tmp_path / "half", Halved(), epochs=1), train(tmp_path / "whole", epochs=1)
    assert half.history[0]["train_loss"] < 0.7 * whole.history[0]["train_loss"]


@pytest.mark.parametrize(
    "optimizer", ["NAdam", "torch.optim.NAdam", torch.optim.NAdam, functools.partial(torch.optim.NAdam, eps=1e-8)]
)
def test_an_optimizer_of_torch_by_name_path_and_class(optimizer: Any, tmp_path: Path) -> None:
    run = train(tmp_path / "run", optimizer=optimizer, lr=1e-3, epochs=1)
    ours = train(tmp_path / "ours", optimizer="nadam", lr=1e-3, epochs=1)  # torch's defaults too
    assert_same(states(run), states(ours))


def test_optimizers_that_are_none_are_refused() -> None:
    for name, message in {
        "NAdm": "unknown optimizer 'NAdm'; did you mean nadam",
        "torch.nn.Linear": "is no optimizer",
        "Optimizer": "is no optimizer",
        "torch.hub.load": "a path into a module that was not named",
        "torch.nn.functional.torch.hub.load": "torch is not a part of torch.nn",
        "torch.optim._functional": "is private",
    }.items():
        with pytest.raises(InputError, match=message):
            opsin.optim.create_optimizer(nn.Linear(2, 2), name, lr=0.1)
    with pytest.raises(InputError, match=r"Rprop has no weight decay; set optim\.weight_decay=0"):
        opsin.optim.create_optimizer(nn.Linear(2, 2), "Rprop", lr=0.1, weight_decay=0.1)
    assert opsin.optim.create_optimizer(nn.Linear(2, 2), "Rprop", lr=0.1).param_groups[0]["lr"] == 0.1


class Seen(Callback):
    """Counts steps, keeps its count over a resume, and stops the training once, as a failure would."""

    def __init__(self, fail_at: int = -1) -> None:
        self.steps, self.fail_at, self.epochs = 0, fail_at, []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps += 1
        if self.steps == self.fail_at:
            raise RuntimeError("power cut")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(float(trainer.callback_metrics["val_brightest"]))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]


def brightest(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(dim=1) == labels)[labels == 2].float().mean())


class Augmented(Squares):
    def __getitem__(self, i: int) -> Any:
        image = torch.from_numpy(super().__getitem__(i)[0])[None]
        return (image + torch.randint(0, 20, image.shape)).to(torch.uint8), i % 3


def test_own_parts_are_killed_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    given: dict[str, Any] = {"loss": nn.CrossEntropyLoss(label_smoothing=0.1), "metrics": {"brightest": brightest}}
    given |= {"data": Augmented(), "optimizer": torch.optim.RAdam, "overrides": {"train.save_every_steps": 2}}
    seen = Seen()
    whole = train(tmp_path / "whole", **given, callbacks=[seen])
    assert seen.steps == 10 and seen.epochs == [
        row["val_brightest"] for row in whole.history
    ]  # 42 images of 60 to train on
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "run", **given, callbacks=[Seen(fail_at=8)])
    del given["overrides"]
    quiet: dict[str, Any] = {"say": lambda line: None}
    with pytest.raises(
        InputError,
        match=r"/run was trained with objects, .* in Python: model=\.\.\. \(Net\), data=\.\.\. \(Augmented\), "
        r"loss=\.\.\. \(CrossEntropyLoss\), metrics=\{\.\.\.\} \(brightest\), callbacks=\[\.\.\.\] \(Seen\)$",
    ):
        opsin.train(resume=tmp_path / "run", **quiet)
    with pytest.raises(InputError, match=r"in Python: callbacks=\[\.\.\.\] \(Seen\)$"):
        opsin.train(resume=tmp_path / "run", model=net(5), **given, **quiet)
    again = Seen()
    run = opsin.train(resume=tmp_path / "run", model=net(5), **given, callbacks=[again], **quiet)
    assert_same(states(run), states(whole))
    assert again.steps == 10 and [row["val_brightest"] for row in run.history] == seen.epochs
    assert run.metrics == whole.metrics


def test_metrics_of_ones_own_stand_beside_the_others(tmp_path: Path) -> None:
    def error(scores: Tensor, labels: Tensor) -> Tensor:
        assert scores.shape == (len(labels), 3) and torch.allclose(scores.sum(dim=1), torch.ones(len(labels)))
        return (scores.argmax(dim=1) != labels).float().mean()

    error.higher_is_better = False  # type: ignore[attr-defined]
    accuracy = MulticlassAccuracy(3, average="micro")
    model = net()
    run = train(
        tmp_path / "run",
        model,
        metrics={"error": error, "torchs": accuracy},
        overrides={"train.monitor": "val_error", "train.keep": "best"},
        epochs=3,
    )
    for row in run.history:
        assert (
            row["val_error"] == pytest.approx(1 - row["val_accuracy"], abs=1e-6)
            and row["val_torchs"] == row["val_accuracy"]
        )
    assert run.metrics["error"] == pytest.approx(1 - run.metrics["accuracy"], abs=1e-6)
    assert run.report is not None and "<td>error</td>" in run.report.read_text("utf-8")
    found = opsin.evaluate(run.path, Squares(), model=net(1), metrics={"error": error})
    assert found["error"] == pytest.approx(1 - found["accuracy"], abs=1e-6) and "torchs" not in found
    assert_same(read_model_state(run, model), model.state_dict())  # the network itself keeps what the run keeps


def read_model_state(run: opsin.Run, model: nn.Module) -> dict[str, Tensor]:
    fresh = net(9)
    opsin.load(run.path, model=fresh)
    return fresh.state_dict()


def test_a_run_is_reopened_with_its_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "run", classes=["low", "middle", "high"], epochs=1)
    with pytest.raises(InputError, match=r"model\.name was the object .*Net, .* in Python: model="):
        opsin.load(run.path)
    fresh = net(7)
    loaded = opsin.load(run.path, model=fresh)
    assert loaded.predict(Squares()[4][0]).label in ("low", "middle", "high") and "Net on" in repr(loaded)
    with pytest.raises(InputError, match=r"data\.source was the object .*Squares, .*: data="):
        opsin.evaluate(run.path, model=net())
    found = opsin.evaluate(loaded, Squares())  # numbers are those of the model's classes
    assert found == opsin.evaluate(run.path, Squares(), model=net(3))
    with pytest.raises(InputError, match=r"last\.weight is \(3, 16\) in the checkpoint and \(5, 16\)"):
        opsin.load(run.path, model=Net(5))
    named = opsin.train(
        "lenet5", {**QUIET, "train.max_steps": 1}, data=Squares(), out=tmp_path / "named", say=lambda _: None
    )
    with pytest.raises(InputError, match="was trained by the name lenet5: leave model= out"):
        opsin.load(named.path, model=net())


def test_lazy_layers_get_their_shapes(tmp_path: Path) -> None:
    def lazy() -> nn.Module:
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))

    run = train(tmp_path / "run", lazy(), epochs=1)
    assert opsin.load(run.path, model=lazy()).predict(Squares()[0][0]).label in ("0", "1", "2")


def test_a_backbone_is_taken_as_it_is(tmp_path: Path) -> None:
    backbone = opsin.create_model("resnet20", num_classes=3, in_channels=1)
    run = train(tmp_path / "run", backbone, size=16, overrides={"train.max_steps": 2})
    assert not [key for key in read_model(run.path).state if key.startswith("network.")]
    fresh = opsin.create_model("resnet20", num_classes=3, in_channels=1)
    assert opsin.load(run.path, model=fresh).model is fresh
    wrong = opsin.create_model("resnet20", num_classes=7, in_channels=1)
    with pytest.raises(InputError, match=r"gives 7 logits an image, and there are 3 classes"):
        train(tmp_path / "wrong", wrong, size=16, classes=["a", "b", "c"], data=Unread())
    with pytest.raises(InputError, match=r"built for 7 classes, and the data has 3; call reset_head\(3\)"):
        train(tmp_path / "wrong", wrong, size=16)


class Holds(Callback):
    """Keeps something from the start, or from the first epoch on."""

    def __init__(self, held: Any = None, later: Any = None) -> None:
        self.held, self.later = held, later

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.held = self.later

    def state_dict(self) -> dict[str, Any]:
        return {"held": self.held}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.held = state_dict["held"]


class Silent(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]


def one(logits: Tensor) -> Tensor:
    return logits.mean()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": Net}, r"model is the class Net; give Net\(\.\.\.\)"),
        ({"model": 3}, "model is 3; expected an nn.Module"),
        ({"model": Silent()}, "Silent has no parameter: there is nothing to train"),
        (
            {"model": nn.Sequential(nn.Conv2d(1, 2, 3))},
            r"gives \(2, 2, 6, 6\) for a batch of 2 images; expected logits",
        ),
        ({"model": Net(4), "classes": ["a", "b", "c"]}, "Net gives 4 logits an image, and there are 3 classes"),
        ({"model": nn.Linear(9, 3)}, r"Linear fails on images of shape \(2, 3, 8, 8\): RuntimeError: .*mat1 and mat2"),
        ({"size": None}, "Net states no size of its input; give size=32"),
        ({"loss": 3}, "loss is 3; expected a callable"),
        ({"loss": one}, r"the loss one is called with two values, and the loss one takes \(logits"),
        ({"loss": "cross_entropi"}, "unknown loss 'cross_entropi'; did you mean"),
        ({"loss": "torch.nn.functional.cros"}, "unknown name in torch.nn.functional 'cros'"),
        ({"metrics": {"mine": 3}}, "the metric mine is 3; expected a function"),
        ({"metrics": {"mine": one}}, "the metric mine is called with two values"),
        ({"metrics": {"mine": MulticlassAccuracy}}, r"the metric mine is the class MulticlassAccuracy; give"),
        ({"metrics": {"a b": one}}, "metrics has the name 'a b'"),
        ({"metrics": [one]}, "metrics is list; expected a mapping"),
        ({"callbacks": [print]}, "a callback is builtin_function_or_method, no subclass of lightning.pytorch.Callback"),
        ({"callbacks": [Seen]}, r"the callback Seen is a class; give Seen\(\.\.\.\)"),
        (
            {"callbacks": [Holds({3: [Path("a")]})]},
            r"callback Holds keeps a pathlib.*Path at state_dict\(\)\['held'\]\[3\]\[0\]",
        ),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)}, "give its class, opsin makes it"),
        ({"optimizer": nn.Linear}, "optimizer is type; expected a class of torch.optim"),
        ({"batchsize": 3}, "unknown keyword of opsin.train 'batchsize'; did you mean batch_size"),
        ({"classes": ["a"], "data": "digits"}, "classes names those of a data set given as an object"),
        ({"overrides": {"train.monitor": "val_mine"}}, "unknown train.monitor 'val_mine'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_said_before_the_data_is_read(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", **{"data": Unread(), **given})
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": Net(5)}, "Net gives 5 logits an image, and there are 3 classes; build it for 3"),
        ({"loss": lambda a, b: F.cross_entropy(a, b, reduction="none")}, r"is \(2,\); expected one number"),
        ({"loss": lambda a, b: F.cross_entropy(a.detach(), b)}, "has no gradient; do not detach"),
        (
            {"loss": lambda a, b: F.mse_loss(a, b)},
            r"the loss fails on logits \(2, 3\) and targets \(2,\) of torch.int64",
        ),
        ({"metrics": {"accuracy": lambda a, b: 1.0}}, "the metric accuracy has the name of one of the task's own"),
        (
            {"metrics": {"mine": lambda a, b: a}},
            r"the metric mine gives a tensor of shape \(\d+, 3\); expected one number",
        ),
        ({"metrics": {"mine": lambda a, b: 1 / 0}}, "the metric mine fails: ZeroDivisionError"),
    ],
    ids=["classes", "shape", "gradient", "targets", "name", "tensor", "failing"],
)
def test_what_only_the_data_can_say(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", **given)


MODULE = """
import torch
from lightning.pytorch import Callback
from os import system

def loss(logits, targets, scale=1.0):
    return scale * torch.nn.functional.cross_entropy(logits, targets)

class Optimizer(torch.optim.SGD):
    pass

class Started(Callback):
    count = 0
    def on_train_start(self, trainer, pl_module):
        Started.count += 1

def ones(scores, labels):
    return 1.0
"""


def test_paths_in_a_recipe_resolve_in_modules_that_were_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_paths_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = {"loss.name": "own_paths_of_a_test.loss", "loss.scale": 2.0, "optim.name": "own_paths_of_a_test.Optimizer"}
    paths |= {"train.callbacks": ["own_paths_of_a_test.Started"], "metrics.ones": "own_paths_of_a_test.ones"}
    for key in ("loss.name", "optim.name", "train.callbacks"):
        with pytest.raises(InputError, match="a path into a module that was not named; name its module with --import"):
            opsin.train("lenet5_digits", {**QUIET, key: paths[key]}, out=tmp_path / "no", say=lambda line: None)
    assert "own_paths_of_a_test" not in sys.modules
    monkeypatch.setattr(opsin.rooms, "_imported", [])
    monkeypatch.setenv("OPSIN_IMPORT", "")  # so that it is as it was behind the test
    opsin.rooms.import_packages(["own_paths_of_a_test"])
    short = {"train.max_steps": 2, "data.limit": 40}
    run = opsin.train("lenet5_digits", {**QUIET, **paths, **short}, out=tmp_path / "run", say=lambda line: None)
    assert run.history[-1]["val_ones"] == 1.0 and sys.modules["own_paths_of_a_test"].Started.count == 1
    assert load_recipe(str(run.path / "recipe.yaml")).imports == ["own_paths_of_a_test"]
    assert opsin.evaluate(run.path)["ones"] == 1.0


def test_a_path_that_the_call_gives_names_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_named_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(opsin.rooms, "_imported", [])
    monkeypatch.setenv("OPSIN_IMPORT", "")
    run = train(tmp_path / "run", loss="own_named_of_a_test.loss", epochs=1)
    assert "name: own_named_of_a_test.loss" in run_text(run)
    with pytest.raises(InputError, match=r"own_named_of_a_test.*is not a part|no_such|unknown name"):
        train(tmp_path / "no", loss="own_named_of_a_test.no_such", data=Unread())


class Centre(nn.Module):
    """Says of every image one box, with the three verbs."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"boxes": self.boxes(images.mean(dim=(2, 3))).sigmoid() * images.shape[-1]}

    def loss(self, outputs: dict[str, Tensor], targets: list[Instances]) -> dict[str, Tensor]:
        wanted = torch.stack([one.boxes[0] for one in targets])
        return {"box": F.l1_loss(outputs["boxes"], wanted)}

    def decode(self, outputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        found = outputs["boxes"]
        low, high = torch.minimum(found[:, :2], found[:, 2:]), torch.maximum(found[:, :2], found[:, 2:])
        return [
            {"boxes": box[None], "labels": torch.tensor([0]), "scores": torch.tensor([0.9])}
            for box in torch.cat([low, high + 1], dim=1)
        ]


class Boxed(Dataset):
    classes = ("square",)

    def __len__(self) -> int:
        return 30

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        image[:, 8:20, 6:22] = 200
        return image, {"boxes": torch.tensor([[6.0, 8.0, 22.0, 20.0]]), "labels": torch.tensor([0])}


def test_a_detector_with_the_three_verbs(tmp_path: Path) -> None:
    def mean_iou(found: list[dict[str, Tensor]], truth: list[dict[str, Tensor]]) -> float:
        pairs = zip(found, truth, strict=True)
        return float(torch.stack([opsin.ops.pairwise_iou(a["boxes"], b["boxes"])[0, 0] for a, b in pairs]).mean())

    torch.manual_seed(0)
    given: dict[str, Any] = {"data": Boxed(), "task": "detect", "size": 32, "batch_size": 7, "epochs": 30}
    run = train(tmp_path / "run", Centre(), **given, lr=0.03, metrics={"mean_iou": mean_iou}, optimizer="adamw")
    assert run.metrics["mean_iou"] > 0.7 and run.metrics["map_50"] == 1.0
    assert run.metrics["mean_iou"] > run.history[0]["val_mean_iou"]
    answer = opsin.load(run.path, model=Centre()).predict(Boxed()[0][0])
    assert [one["label"] for one in answer["instances"]] == ["square"]
    with pytest.raises(InputError, match="Net has no method loss and decode; a detector has"):
        train(tmp_path / "no", Net(), **given)
    with pytest.raises(InputError, match="Centre has a decode of its own; say its task"):
        train(tmp_path / "no", Centre(), data=Unread())


def test_a_model_by_its_name_with_data_is_what_the_command_does(tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"say": lambda line: None}
    settings = {**QUIET, "train.max_steps": 1, "data.limit": 40}
    by_name = opsin.train("lenet5", settings, data="digits", out=tmp_path / "a", **quiet)
    by_keyword = opsin.train(overrides=settings, model="lenet5", data="digits", out=tmp_path / "b", **quiet)
    by_mapping = opsin.train(
        {"task": "classify", "model": {"name": "lenet5"}, "data": {"source": "digits"}},
        settings,
        out=tmp_path / "c",
        **quiet,
    )
    assert run_text(by_name) == run_text(by_keyword) == run_text(by_mapping)
    with pytest.raises(InputError, match="lenet5 is a model; say what to train it on"):
        opsin.train("lenet5")
    with pytest.raises(InputError, match="nothing to train"):
        opsin.train()


def test_a_recipe_with_another_optimizer_keeps_the_rest(tmp_path: Path) -> None:
    settings = {**QUIET, "train.max_steps": 1, "data.limit": 40}
    run = opsin.train(
        "lenet5_digits", settings, optimizer=torch.optim.NAdam, lr=1e-3, out=tmp_path / "run", say=lambda line: None
    )
    recipe, shipped = load_recipe(str(run.path / "recipe.yaml")), load_recipe("lenet5_digits")
    assert recipe.optim.name == "torch.optim.NAdam" and recipe.optim.lr == 1e-3 and not recipe.optim.options
    assert recipe.optim.weight_decay == shipped.optim.weight_decay and recipe.augment == shipped.augment


def test_torch_data_as_data_of_an_evaluation(tmp_path: Path) -> None:
    settings = {**QUIET, "train.max_steps": 5}
    run = opsin.train("lenet5_digits", settings, out=tmp_path / "run", say=lambda line: None)
    source = opsin.data.open("digits").splits["test"]
    images = torch.stack([source.read(i) for i in range(len(source))])
    labels = torch.from_numpy(source.kind.labels)
    assert opsin.evaluate(run.path, TensorDataset(images, labels)) == opsin.evaluate(run.path, "digits", "test")


@pytest.mark.parametrize(("higher", "best"), [(True, 1), (False, 3)])
def test_a_metric_says_which_way_is_up(higher: bool, best: int, tmp_path: Path) -> None:
    calls = []

    def falling(scores: Tensor, labels: Tensor) -> float:
        calls.append(None)
        return 1.0 - 0.1 * len(calls)

    falling.higher_is_better = higher  # type: ignore[attr-defined]
    settings = {"train.monitor": "val_falling", "train.keep": "best"}
    run = train(tmp_path / "run", metrics={"falling": falling}, overrides=settings, epochs=3)
    assert read_checkpoint(run.path / "best.ckpt")["epoch"] + 1 == best


def test_metrics_by_name_and_functions_are_all_collected() -> None:
    lent: dict[str, Any] = {}
    parts: Any = SimpleNamespace(lend=lambda key, value: lent.setdefault(key, value) and key)
    given = {"one": "torch.nn.functional.l1_loss", "two": F.mse_loss, "three": "torch.nn.functional.l1_loss"}
    found = own_parts.collect_metrics(parts, given)
    assert found == {**given, "two": "metrics.two"} and lent == {"metrics.two": F.mse_loss}


def test_a_metric_that_is_not_there_takes_no_other_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    recipe: Any = SimpleNamespace(metrics={"gone": "no_such_module.metric", "error": "torch.nn.functional.l1_loss"})
    assert own_metrics.find_metrics(recipe) == {"error": F.l1_loss}
    assert "without gone: " in "".join(capfd.readouterr())
    with pytest.raises(InputError, match="no_such_module"):
        own_metrics.find_metrics(recipe, needed=True)
