from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from opsin import cli, registry
from opsin.backbones import googlenet
from opsin.backbones.backbone import Backbone
from opsin.backbones.fitting import copy_in_order
from opsin.backbones.googlenet import AtLeast, Branches
from opsin.classify.evaluate import ClassifyEvaluator
from opsin.classify.predict import ClassifyPredictor
from opsin.engine.checkpoint import Facts, read_model, read_tensors
from opsin.engine.predict import load
from opsin.engine.recipe import load_recipe
from opsin.engine.train import train
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def torchvision_googlenet(**options: Any) -> nn.Module:
    return torchvision.models.googlenet(init_weights=False, **options)


class AllLogits(nn.Module):
    """Those of the auxiliary heads and the main ones of a network, ours or torchvision's, one below the other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.network, Backbone):
            outputs = self.network(images)
            return torch.cat([outputs["aux1"], outputs["aux2"], outputs["logits"]])
        self.network.training = True  # its own flag alone, which shows the heads; its layers stay in evaluation
        outputs = self.network(images)
        return torch.cat([outputs.aux_logits1, outputs.aux_logits2, outputs.logits])


def test_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    ours = partial(googlenet.googlenet_bn, aux_heads=False)
    assert_equal(ours, partial(torchvision_googlenet, aux_logits=False), [(64, 64), (75, 97)])


def test_auxiliary_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    sizes = [(64, 64), (224, 224)]
    assert_equal(
        lambda: AllLogits(googlenet.googlenet_bn(aux_heads=True)), lambda: AllLogits(torchvision_googlenet()), sizes
    )


def test_weights_expect_what_torchvision_makes_of_its_own_preprocessing() -> None:
    preprocessing = registry.find_model("googlenet_bn").weights["imagenet1k"].preprocessing
    mean, std = (torch.tensor(preprocessing[key])[:, None, None] for key in ("mean", "std"))
    image = torch.rand(1, 3, 4, 4)
    usual = normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.device("meta"):
        theirs = torchvision_googlenet(transform_input=True)
    seen = theirs._transform_input(usual)  # type: ignore[operator]
    torch.testing.assert_close(seen, (image - mean) / std, rtol=1e-5, atol=1e-6)


def test_the_papers_network_is_its_table() -> None:
    torch.manual_seed(0)
    model = googlenet.googlenet(num_classes=7, aux_heads=True).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        outputs, expected = model(images), _plainly(model, images)
    for name, logits in expected.items():
        torch.testing.assert_close(outputs[name], logits, rtol=1e-4, atol=1e-5)


def _plainly(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The network of table 1 and section 5 as Caffe computes it, from the tensors in the order of the network."""
    tensors = iter(model.state_dict().values())

    def conv(x: Tensor, stride: int = 1) -> Tensor:
        kernel, bias = next(tensors), next(tensors)
        return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2).clamp(min=0)

    def pool(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1), value=-torch.inf)  # Caffe rounds up: 112 pixels make 56
        return F.max_pool2d(padded, 3, 2)

    def lrn(x: Tensor) -> Tensor:
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        near = torch.stack([squares[:, i : i + x.shape[1]] for i in range(5)]).sum(0)
        return x / (1 + 1e-4 / 5 * near) ** 0.75

    def module(x: Tensor) -> Tensor:
        parts = [conv(x), conv(conv(x)), conv(conv(x)), conv(F.max_pool2d(x, 3, 1, 1))]
        return torch.cat(parts, dim=1)

    def linear(x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), next(tensors), next(tensors))

    def auxiliary(x: Tensor) -> Tensor:
        windows = x.unfold(2, 5, 3).unfold(3, 5, 3).mean((-2, -1))
        return linear(linear(conv(windows)).clamp(min=0))

    x = pool(lrn(conv(conv(lrn(pool(conv(x, 2)))))))
    x = pool(module(module(x)))
    x = after_4a = module(x)
    x = after_4d = module(module(module(x)))
    x = module(module(pool(module(x))))
    outputs = {"aux1": auxiliary(after_4a), "aux2": auxiliary(after_4d), "logits": linear(x.mean((2, 3)))}
    assert next(tensors, None) is None
    return outputs


@pytest.mark.parametrize(
    ("name", "with_heads", "without"),
    [("googlenet", 13_378_280, 6_998_552), ("googlenet_bn", 13_004_888, 6_624_904)],
)
def test_counts_with_and_without_auxiliary_heads(name: str, with_heads: int, without: int) -> None:
    with torch.device("meta"):
        model = registry.create_model(name, aux_heads=True)
        plain = registry.create_model(name)
    assert (count_parameters(model), count_parameters(plain)) == (with_heads, without)
    added = count_macs(model, (3, 224, 224)) - count_macs(plain, (3, 224, 224))
    assert added == sum(width * 128 * 16 + 2048 * 1024 + 1024 * 1000 for width in (512, 528))


def test_reductions_pay_for_the_large_kernels() -> None:
    with torch.device("meta"):
        naive, same = googlenet.googlenet_naive(), googlenet.googlenet(reduction=False, aux_heads=False)
    assert {k: v.shape for k, v in naive.state_dict().items()} == {k: v.shape for k, v in same.state_dict().items()}
    assert naive.channels == (832, 3344, 4944)  # 192 + every module's widths: nothing is ever thrown away
    first = naive.stages[0][1]  # type: ignore[index]
    assert isinstance(first, Branches)
    assert [getattr(branch, "out_channels", None) for branch in first] == [64, 128, 32, None]
    assert count_parameters(first) == 192 * (64 + 9 * 128 + 25 * 32) + 64 + 128 + 32


def test_norm_switch() -> None:
    def layers(model: nn.Module, kind: type[nn.Module]) -> int:
        return sum(isinstance(module, kind) for module in model.modules())

    with torch.device("meta"):
        lrn, none, bn = (googlenet.googlenet(norm=norm, aux_heads=True) for norm in ("lrn", None, "bn"))
    assert [layers(model, nn.LocalResponseNorm) for model in (lrn, none, bn)] == [2, 0, 0]
    assert [layers(model, nn.BatchNorm2d) for model in (lrn, none, bn)] == [0, 0, 59]
    assert count_parameters(lrn) == count_parameters(none)
    with pytest.raises(InputError, match="unknown norm 'batch'"):
        googlenet.googlenet(norm="batch")  # type: ignore[arg-type]


def test_weight_of_the_auxiliary_losses() -> None:
    model = googlenet.googlenet_bn(num_classes=3, aux_weight=0.5, aux_heads=True).eval()
    targets = torch.tensor([0, 2])
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, 32, 32))
    losses = model.loss(outputs, targets)
    for name in ("aux1", "aux2"):
        torch.testing.assert_close(losses[name], 0.5 * F.cross_entropy(outputs[name], targets))
    assert googlenet.googlenet_bn(num_classes=3, aux_heads=True).aux_weight == 0.3


def test_evaluation_takes_the_main_logits() -> None:
    batch: Any = {"label": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "index": torch.tensor([1, 0])}
    recipe = load_recipe({"model": {"name": "googlenet_bn"}, "data": {"source": "digits"}})
    model = googlenet.googlenet_bn(num_classes=2)
    model.multi_label = True
    evaluator = ClassifyEvaluator(ClassifyPredictor(model, Facts(recipe, None, {"classes": ["a", "b"]})))
    logits = torch.tensor([[2.0, -1.0], [-3.0, 0.5]])
    evaluator.update({"logits": logits, "aux1": -logits}, batch)
    collected, labels = evaluator.gathered()
    assert torch.equal(collected, logits.flip(0)) and torch.equal(labels, batch["label"].flip(0))
    assert evaluator.brief()["accuracy"] == 1


def test_weights_of_a_network_with_heads_fit_one_without() -> None:
    full, plain = (googlenet.googlenet_bn(num_classes=3, aux_heads=given) for given in (True, None))
    assert plain.initialize_from(full.state_dict()) == []
    assert {name.split(".")[0] for name in full.initialize_from(plain.state_dict())} == {"aux_heads"}


def test_at_least() -> None:
    small, large = torch.randn(1, 2, 2, 9), torch.randn(1, 2, 7, 5)
    assert AtLeast(5)(small).shape == (1, 2, 5, 9)
    torch.testing.assert_close(AtLeast(5)(large), large)


def test_the_page_shows_what_its_example_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "networks" / "googlenet.md").read_text(encoding="utf-8")
    (code,), (printed,) = (re.findall(rf"^```{kind}\n(.*?)^```$", page, re.M | re.S) for kind in ("python", "text"))
    exec(compile(code, "googlenet.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_trains_and_is_used_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def opsin(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["opsin", *map(str, arguments)])
        monkeypatch.delenv("OPSIN_RUN_FOLDER", raising=False)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert not stop.value.code, err
        return out

    run, image = tmp_path / "run", tmp_path / "digit.png"
    settings = ["data.limit=24", "data.size=32", "train.batch_size=8", "train.tensorboard=false"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    opsin("train", "classify", "--model", "googlenet_bn", "--data", "digits", "--epochs", 1, "--out", run, *flags)
    columns, first = ((run / "metrics.csv").read_text().splitlines()[line].split(",") for line in (0, 1))
    row = dict(zip(columns, first, strict=True))
    terms = [float(row[f"train_{name}"]) for name in ("main", "aux1", "aux2")]
    assert float(row["train_loss"]) == pytest.approx(sum(terms), rel=1e-4)
    assert 0.1 < terms[1] / terms[0] < 0.9  # 0.3 times about as much
    assert 0 <= json.loads(opsin("eval", run, "--json"))["accuracy"] <= 1
    Image.new("L", (8, 8), 100).save(image)
    assert not load(run).model.aux_taps
    assert json.loads(opsin("predict", run, image, "--json"))[0]["label"] in [str(digit) for digit in range(10)]


def test_heads_are_of_the_training_and_old_files_keep_theirs(tmp_path: Path) -> None:
    settings = {"data.limit": 24, "data.size": 32, "train.batch_size": 8, "train.tensorboard": False, "train.epochs": 1}
    recipe = {"model": {"name": "googlenet_bn"}, "data": {"source": "digits"}}
    run = train(recipe, settings, out=tmp_path / "run", say=lambda line: None).path
    saved = read_model(run)
    assert saved.options["aux_heads"] is True and "aux_heads" not in saved.recipe.model.options
    # A file from when heads were built unasked says nothing of them.
    tensors, metadata = read_tensors(run / "model.safetensors")
    described = json.loads(metadata["opsin"])
    del described["options"]["aux_heads"]
    save_file(tensors, tmp_path / "old.safetensors", metadata={"format": "pt", "opsin": json.dumps(described)})
    image = torch.randint(0, 255, (1, 32, 32), dtype=torch.uint8)
    answers = [load(path, "cpu").predict(image) for path in (run, tmp_path / "old.safetensors")]
    assert dict(answers[0]) == dict(answers[1])
    alone = train(recipe, {**settings, "model.aux_heads": False}, out=tmp_path / "alone", say=lambda line: None)
    assert "train_aux1" not in alone.history[0] and not [k for k in read_model(alone.path).state if "aux" in k]


def test_torchvisions_file_names_the_network_that_it_is_of() -> None:
    state = torchvision_googlenet(num_classes=10).state_dict()
    with pytest.raises(InputError, match="torchvision's googlenet is googlenet_bn here"):
        copy_in_order(googlenet.googlenet(num_classes=10, aux_heads=True), state)
