"""Published weights: the data of every file, and the way from a file of the published format to an answer."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import opsin
from opsin import registry
from opsin.backbones import copy_in_order
from opsin.backbones.weights import read_state
from opsin.data import Preprocessing, class_names
from opsin.downloading import place
from opsin.errors import InputError

WEIGHTS = [(n, w) for n in registry.list_models() for w in registry.find_model(n).weights]


# The data of every file


@cache
def torchvisions() -> dict[str, Any]:
    """torchvision's weights of classifiers, detectors and segmenters, by URL."""
    found: dict[str, Any] = {}
    for module in (torchvision.models, torchvision.models.detection, torchvision.models.segmentation):
        for name in torchvision.models.list_models(module):
            for member in torchvision.models.get_model_weights(name):  # type: ignore[attr-defined]
                found.setdefault(member.url, member)
    return found


def torchvisions_of(task: str) -> list[tuple[str, str]]:
    """Our entries of a task whose file is one of torchvision's."""
    ours = [pair for pair in WEIGHTS if registry.find_model(pair[0]).task == task]
    return [pair for pair in ours if registry.find_weights(*pair).url in torchvisions()]


@cache
def timms() -> dict[str, Any]:
    """timm's configurations of published files, by URL."""
    timm = pytest.importorskip("timm")
    configs = [timm.get_pretrained_cfg(name) for name in timm.list_pretrained()]
    return {config.url: config for config in configs if config is not None and config.url}


@pytest.mark.parametrize(("name", "weights"), WEIGHTS)
def test_what_is_stated_of_a_file(name: str, weights: str) -> None:
    stated = registry.find_weights(name, weights)
    assert stated.url.startswith("https://")
    found = re.search(r"-([0-9a-f]{8,64})\.(pth|safetensors|pth\.tar)$", stated.url)
    assert found is not None and found[1] == stated.sha256[: len(found[1])]
    assert re.match(r"(BSD-3-Clause|Apache-2\.0|MIT|CC-BY)", stated.licence) and stated.source
    preprocessing = Preprocessing.from_dict(stated.preprocessing)
    assert preprocessing.channels == registry.find_model(name).published.input[0]
    assert stated.metrics and all(0 < value < 100 for value in stated.metrics.values())
    metrics = {"classify": "top-[15]|accuracy", "detect": "AP|mAP", "segment": "mIoU|pixel accuracy"}
    metric = metrics[registry.find_model(name).task]
    assert all(re.fullmatch(rf"[\w -]+ ({metric})", key) for key in stated.metrics)
    assert re.fullmatch(r"[a-z0-9_]+", weights)


def test_every_file_has_its_own_name() -> None:
    urls = {registry.find_weights(*pair).url for pair in WEIGHTS}
    assert len({url.rpartition("/")[2] for url in urls}) == len(urls)


@pytest.mark.parametrize(("name", "weights"), torchvisions_of("classify"))
def test_torchvisions_files_are_as_torchvision_says(name: str, weights: str) -> None:
    stated = registry.find_weights(name, weights)
    theirs = torchvisions()[stated.url]
    metrics = theirs.meta["_metrics"]["ImageNet-1K"]
    assert stated.metrics == {"imagenet1k top-1": metrics["acc@1"], "imagenet1k top-5": metrics["acc@5"]}
    assert stated.num_classes == len(theirs.meta["categories"])
    preset = theirs.transforms()
    preprocessing = Preprocessing.from_dict(stated.preprocessing)
    assert list(preprocessing.size) == preset.crop_size * 2 and preprocessing.fit == "crop"
    assert round(preprocessing.size[0] / preprocessing.crop_ratio) == preset.resize_size[0]
    assert preprocessing.interpolation == preset.interpolation.value
    if preprocessing.mean != (0.5, 0.5, 0.5):  # nets from TensorFlow undo the preset's and then do this
        assert (list(preprocessing.mean), list(preprocessing.std)) == (preset.mean, preset.std)
    if "Inception" not in type(theirs).__name__ and "GoogLeNet" not in type(theirs).__name__:  # auxiliary heads
        assert theirs.meta["num_params"] == registry.find_model(name).published.params


@pytest.mark.parametrize(("name", "weights"), torchvisions_of("segment"))
def test_torchvisions_segmenters_are_as_torchvision_says(name: str, weights: str) -> None:
    stated = registry.find_weights(name, weights)
    theirs = torchvisions()[stated.url]
    metrics = theirs.meta["_metrics"]["COCO-val2017-VOC-labels"]
    assert list(stated.metrics.values()) == [metrics["miou"], metrics["pixel_acc"]]
    assert registry.find_model(name).published.params == theirs.meta["num_params"]
    assert list(class_names(stated.classes, stated.num_classes)) == theirs.meta["categories"]
    preset, preprocessing = theirs.transforms(), Preprocessing.from_dict(stated.preprocessing)
    assert (list(preprocessing.mean), list(preprocessing.std)) == (preset.mean, preset.std)
    assert list(preprocessing.size) == preset.resize_size * 2


@pytest.mark.parametrize(("name", "weights"), torchvisions_of("detect"))
def test_torchvisions_detectors_are_as_torchvision_says(name: str, weights: str) -> None:
    stated = registry.find_weights(name, weights)
    theirs = torchvisions()[stated.url]
    metrics = theirs.meta["_metrics"]["COCO-val2017"]
    masks = {"coco val2017 mask AP": metrics["mask_map"]} if "mask_map" in metrics else {}
    assert stated.metrics == {"coco val2017 AP": metrics["box_map"], **masks}
    published = registry.find_model(name).published
    assert published.metrics == stated.metrics
    assert published.params == theirs.meta["num_params"]
    # torchvision's list begins with the background, which only RetinaNet's head keeps a place for.
    assert stated.num_classes == len(theirs.meta["categories"]) - (not name.startswith("retinanet"))
    names = class_names(stated.classes, stated.num_classes)
    assert list(names) == theirs.meta["categories"][-stated.num_classes :]


def test_names_of_cocos_classes() -> None:
    eighty, ninety = class_names("coco", 80), class_names("coco", 90)
    assert len(set(eighty)) == 80 and not {"N/A", "__background__"} & set(eighty)
    # COCO numbers its categories from 1 to 90; the 80 that have images are counted from 0 without gaps.
    for number, label, name in ((1, 0, "person"), (18, 16, "dog"), (44, 39, "bottle"), (90, 79, "toothbrush")):
        assert ninety[number - 1] == eighty[label] == name
    with pytest.raises(InputError, match="80, 90, 91, got 20"):
        class_names("coco", 20)
    with pytest.raises(InputError, match="did you mean coco"):
        class_names("cocoa", 80)


def test_timms_files_are_as_timm_says() -> None:
    compared = 0
    for name, weights in WEIGHTS:
        stated = registry.find_weights(name, weights)
        if stated.url in torchvisions() or (theirs := timms().get(stated.url)) is None:
            continue
        preprocessing = Preprocessing.from_dict(stated.preprocessing)
        size = (preprocessing.channels, *preprocessing.size)
        assert stated.licence.lower().startswith((theirs.license or "apache-2.0").lower()), name
        assert (preprocessing.mean, preprocessing.std) == (theirs.mean, theirs.std), name
        assert preprocessing.interpolation == theirs.interpolation, name
        assert size in (theirs.input_size, theirs.test_input_size), name
        crop = theirs.crop_pct if size == theirs.input_size else theirs.test_crop_pct or theirs.crop_pct
        resized = round(preprocessing.size[0] / preprocessing.crop_ratio)
        assert abs(resized - math.floor(preprocessing.size[0] / crop)) <= 1, name
        assert stated.num_classes == theirs.num_classes, name
        compared += 1
    assert compared > 10


# From a file in the published format


@pytest.fixture
def reference() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18().eval()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a file where the download would put it, and enter it as the weights "imagenet1k" of a model."""
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPSIN_OFFLINE", "1")

    def enter(name: str, state: Any, suffix: str = ".pth", **facts: Any) -> Path:
        temporary = tmp_path / f"file{suffix}"
        if suffix == ".safetensors":
            save_file(state, temporary)
        else:
            torch.save(state, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        entry = registry.find_model(name)
        model = next(iter(entry.weights.values()), registry.find_weights("resnet18", "imagenet1k"))
        url = f"https://opsin.invalid/{name}-{digest[:8]}{suffix}"
        stated = replace(model, url=url, sha256=digest[:8], **facts)
        monkeypatch.setitem(registry._models, name, replace(entry, weights={"imagenet1k": stated}))
        path = place(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        return temporary.replace(path)

    return enter


def photo(height: int = 260, width: int = 300) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_published_file_gives_the_publishers_answers(
    reference: nn.Module, publish: Callable[..., Path], suffix: str
) -> None:
    state = reference.state_dict()
    if suffix == ".pth":
        publish("resnet18", state)
    else:  # which is sorted by name
        publish("resnet18", state, suffix, arrange=lambda given: {key: given[key] for key in state})
    said: list[str] = []
    model = registry.create_model("resnet18", weights="imagenet1k", say=said.append).eval()
    preprocessing = Preprocessing.from_dict(model.preprocessing)  # type: ignore[arg-type]
    images = preprocessing.normalize(preprocessing.prepare(photo())[None])
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), rtol=1e-5, atol=1e-5)
        # Our images are rounded to bytes after resizing, which torchvision's preset does on bytes too.
        torch.testing.assert_close(images[0], preset(photo()), rtol=0, atol=0.02)
    assert said == []


def test_a_state_dict_beside_the_rest_of_a_training_is_found(
    reference: nn.Module, publish: Callable[..., Path], tmp_path: Path
) -> None:
    publish("resnet18", {"state_dict": reference.state_dict(), "epoch": 3})
    registry.create_model("resnet18", weights="imagenet1k")
    torch.save({"epoch": 3}, tmp_path / "no.pth")
    with pytest.raises(InputError, match=r"no\.pth holds no state dict"):
        read_state(tmp_path / "no.pth")


def test_other_classes_and_channels_keep_what_fits_and_say_so(
    reference: nn.Module, publish: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = publish("resnet18", reference.state_dict())
    torch.manual_seed(1)
    model = registry.create_model("resnet18", weights="imagenet1k", num_classes=7, in_channels=1)
    line = (
        f"resnet18 keeps 99 of 102 tensors of {path.name}, which is for 1000 classes and 3 input channels; "
        "fresh: stem.0.weight, head.2.weight, head.2.bias\n"
    )
    assert capsys.readouterr().err == line
    torch.manual_seed(1)
    fresh = registry.create_model("resnet18", num_classes=7, in_channels=1).state_dict()
    theirs = list(reference.state_dict().values())
    for place_, (key, tensor) in enumerate(model.state_dict().items()):
        expected = fresh[key] if key in ("stem.0.weight", "head.2.weight", "head.2.bias") else theirs[place_]
        assert torch.equal(tensor, expected), key
    assert model.preprocessing is None  # the file's mean and std are of three channels
    registry.create_model("resnet18", weights="imagenet1k", num_classes=7)
    assert "which is for 1000 classes; fresh: head.2.weight, head.2.bias\n" in capsys.readouterr().err


def test_options_that_change_the_network_are_refused(reference: nn.Module, publish: Callable[..., Path]) -> None:
    publish("resnet18", reference.state_dict())
    registry.create_model("resnet18", weights="imagenet1k", zero_init_residual=True)  # changes first numbers alone
    with pytest.raises(
        InputError,
        match=r"weights 'imagenet1k' of resnet18 do not fit shortcut='C': stages\.0\.0\.shortcut\.0\.weight is "
        r"missing in the file and \(64, 64, 1, 1\) in the model; leave that option out",
    ):
        registry.create_model("resnet18", weights="imagenet1k", shortcut="C")
    with pytest.raises(InputError, match=r"residual=False: stages\.1\.0\.shortcut.* and missing in the model"):
        registry.create_model("resnet18", weights="imagenet1k", residual=False, num_classes=3)


def test_weights_of_another_network_are_refused(publish: Callable[..., Path]) -> None:
    path = publish("resnet18", torchvision.models.resnet34().state_dict())
    with pytest.raises(InputError, match=rf"{path.name}: weights do not fit ResNet: tensor 25 is layer1\.2\.conv1"):
        registry.create_model("resnet18", weights="imagenet1k")


def test_auxiliary_heads_may_be_left_in_the_file(publish: Callable[..., Path]) -> None:
    with torch.device("meta"):
        full = registry.create_model("googlenet_bn", aux_heads=True).to_empty(device="cpu")
    for tensor in full.state_dict().values():
        tensor.zero_()
    publish("googlenet_bn", full.state_dict())
    headed = registry.create_model("googlenet_bn", weights="imagenet1k", aux_heads=True)
    assert not any(p.any() for p in headed.parameters()) and set(headed.state_dict()) == set(full.state_dict())
    model = registry.create_model("googlenet_bn", weights="imagenet1k")
    assert not any(p.any() for p in model.parameters()) and not any("aux" in k for k in model.state_dict())


def test_their_order_may_be_rearranged(reference: nn.Module, publish: Callable[..., Path]) -> None:
    state = reference.state_dict()
    backwards = dict(reversed(list(state.items())))
    publish("resnet18", backwards, arrange=lambda state: dict(reversed(list(state.items()))))
    model = registry.create_model("resnet18", weights="imagenet1k")
    assert torch.equal(model.state_dict()["head.2.bias"], state["fc.bias"])


def test_a_file_that_holds_code_is_not_run(publish: Callable[..., Path], tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harmed",)

    publish("resnet18", {"fc.bias": Harm()})
    with pytest.raises(InputError, match="holds objects that only code can rebuild; it was not loaded"):
        registry.create_model("resnet18", weights="imagenet1k")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InputError, match=rf"net{suffix} .*delete it to have it again|holds objects"):
        read_state(path)


def test_unknown_and_missing_weights() -> None:
    with pytest.raises(InputError, match="unknown weights of resnet50 'imagenet'; did you mean imagenet1k"):
        registry.create_model("resnet50", weights="imagenet")
    with pytest.raises(InputError, match="no published weights of vgg16_c are known; others have: vgg16"):
        registry.create_model("vgg16_c", weights="imagenet1k")


def test_offline_names_the_file_and_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"offline, and resnet18-f37072fd\.pth is not there: download https://download"
    ):
        registry.create_model("resnet18", weights="imagenet1k", offline=True)


# The three verbs


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A few of ImageNet's folders with images in them."""
    from opsin.data import to_pillow

    for place_, number in enumerate(["n01440764", "n02012849", "n03710721"]):
        folder = tmp_path / "images" / number
        folder.mkdir(parents=True)
        for copy in range(2):
            to_pillow(photo(70 + place_, 64 + copy)).save(folder / f"{copy}.png")
    return tmp_path / "images"


def test_published_weights_are_used_by_name(reference: nn.Module, publish: Callable[..., Path], images: Path) -> None:
    publish("resnet18", reference.state_dict())
    predictor = opsin.load("resnet18:imagenet1k", device="cpu")
    assert predictor.classes[0] == "tench" and len(predictor.classes) == 1000
    one = images / "n01440764" / "0.png"
    answer = predictor.predict(one, top=3)
    with torch.no_grad():
        batch = predictor.preprocessing.normalize(predictor.preprocessing.prepare(opsin_image(one))[None])
        scores = reference(batch).softmax(dim=1)[0]
    assert answer["label"] == predictor.classes[int(scores.argmax())]
    assert answer["score"] == pytest.approx(float(scores.max()), rel=1e-4)
    metrics = opsin.evaluate("resnet18:imagenet1k", data=images, device="cpu")
    assert 0 <= metrics["accuracy"] <= metrics["top5_accuracy"] <= 1
    with pytest.raises(InputError, match="published weights come without data; say on which to evaluate, with --data"):
        opsin.evaluate("resnet18:imagenet1k")
    with pytest.raises(InputError, match=r"resnet18 is a model without weights, not a run; .*: resnet18:imagenet1k"):
        opsin.load("resnet18")
    with pytest.raises(InputError, match="unknown weights of resnet18 'imagenet22k'"):
        opsin.load("resnet18:imagenet22k")


def opsin_image(path: Path) -> Tensor:
    from opsin.data import read_image

    return read_image(path)


def test_a_training_starts_from_them_and_needs_them_no_more(
    reference: nn.Module, publish: Callable[..., Path], images: Path, tmp_path: Path
) -> None:
    path = publish("resnet18", reference.state_dict())
    recipe = {
        "model": {"name": "resnet18", "weights": "imagenet1k"},
        "data": {"source": str(images), "size": 64, "val_fraction": 0, "test_fraction": 0},
        "optim": {"lr": 1e-9},
        "train": {"epochs": 1, "batch_size": 6, "tensorboard": False, "accelerator": "cpu"},
    }
    said: list[str] = []
    run = opsin.train(recipe, out=tmp_path / "run", say=said.append)
    assert any("keeps 100 of 102 tensors" in line and "1000 classes; fresh: head.2" in line for line in said)
    assert any(
        line.startswith("first weights: imagenet1k of torchvision, IMAGENET1K_V1 (BSD-3-Clause") for line in said
    )
    path.unlink()
    predictor = opsin.load(run.path, device="cpu")
    stated = registry.find_weights("resnet18", "imagenet1k").preprocessing
    assert predictor.preprocessing == Preprocessing.from_dict({**stated, "size": [64, 64]})
    trained = predictor.model.state_dict()["stem.0.weight"]
    torch.testing.assert_close(trained, reference.state_dict()["conv1.weight"], rtol=0, atol=1e-6)
    more = opsin.train(resume=run.path, overrides={"train.epochs": 2}, say=said.append)
    assert more.epochs == 2
    with pytest.raises(InputError, match="offline, and resnet18-"):
        opsin.train(recipe, out=tmp_path / "again", say=said.append)
    assert not (tmp_path / "again").exists()


def test_preprocessing_follows_the_weights_and_the_recipe_overrides_it() -> None:
    from opsin.engine.recipe import load_recipe
    from opsin.engine.recipe_data import create_preprocessing

    def made(weights: str | None, found: int | None = None, **data: Any) -> Preprocessing:
        recipe = load_recipe({"model": {"name": "resnet50", "weights": weights}, "data": {"source": "x", **data}})
        return create_preprocessing(recipe, found)

    v2 = Preprocessing.from_dict(registry.find_weights("resnet50", "imagenet1k_v2").preprocessing)
    assert made("imagenet1k_v2") == v2 and v2.crop_ratio == 224 / 232
    assert made("imagenet1k_v2", size=160, fit="pad") == replace(v2, size=(160, 160), fit="pad")
    assert made("imagenet1k_v2", 1) == v2  # grey images are made colour ones
    grey = made("imagenet1k_v2", channels=1)
    assert grey == replace(v2, channels=1, mean=(0.5,), std=(0.5,))
    plain = made(None, 3)
    assert (plain.fit, plain.crop_ratio, plain.interpolation) == ("squash", 0.875, "bilinear")
    with pytest.raises(InputError, match=r"model\.weights and train\.init both"):
        load_recipe(
            {
                "model": {"name": "resnet50", "weights": "imagenet1k"},
                "data": {"source": "x"},
                "train": {"init": "runs/x"},
            }
        )
    with pytest.raises(InputError, match="unknown weights of resnet50 'x'"):
        made("x")


def test_the_command_line_lists_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from opsin.cli import main

    monkeypatch.setattr("sys.argv", ["opsin", "models", "resnet5*", "--json"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    listed = {model["name"]: model["weights"] for model in json.loads(capsys.readouterr().out)}
    stated = listed["resnet50"]["imagenet1k_v2"]
    assert stated["url"] == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert stated["sha256"] == "11ad3fa6" and stated["licence"].startswith("BSD-3-Clause")
    assert stated["metrics"] == {"imagenet1k top-1": 80.858, "imagenet1k top-5": 95.434}
    assert listed["resnet50_v1"] == {}


# Copying in order


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


def test_names_may_differ_and_counters_may_lack() -> None:
    model, reference = network(), network()
    reference[1].running_mean.fill_(3.0)  # type: ignore[union-attr]
    state = {f"tensor_{i}": v for i, (k, v) in enumerate(reference.state_dict().items()) if "batches" not in k}
    copy_in_order(model, state)
    for ours, theirs in zip(model.state_dict().values(), reference.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_first_tensor_that_does_not_fit_is_named_and_nothing_is_copied() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        InputError, match=r"tensor 0 is 0.weight \(5, 1, 3, 3\) in the file, 0.weight \(4, 1, 3, 3\) in"
    ):
        copy_in_order(model, network(5).state_dict())
    shorter = dict(list(network().state_dict().items())[:-1])
    with pytest.raises(InputError, match=r"tensor 7 is missing in the file, 3.bias \(2,\) in the model"):
        copy_in_order(model, shorter)
    with pytest.raises(InputError, match=r"tensor 8 is more .* in the file, missing in the model"):
        copy_in_order(model, network().state_dict() | {"more": torch.zeros(1)})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_criterion_keeps_its_tensors() -> None:
    model = network()
    model.criterion = nn.CrossEntropyLoss(weight=torch.ones(2))
    copy_in_order(model, network().state_dict())
    assert model.criterion.weight.tolist() == [1, 1]  # type: ignore[operator, union-attr]
