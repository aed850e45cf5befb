"""timm's networks are timm's own, with its maps and its weights, and nothing of it is imported before it is named."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import opsin
from opsin import registry
from opsin.backbones.extraction import create_extractor
from opsin.errors import InputError, JobError

timm = pytest.importorskip("timm")

# name -> the side of an image; small networks of their families
NETWORKS = {
    "test_convnext": 64,
    "test_efficientnet": 64,
    "tf_efficientnetv2_b0": 64,
    "regnetx_002": 64,
    "ghostnet_050": 64,
    "test_maxvit": 160,
    "test_vit": 160,
    "mobilenetv4_conv_small_035": 64,
    "test_resnet": 64,
}


def pair(name: str) -> tuple[Any, Any]:
    """Ours and timm's with the same random weights; two classes."""
    ours = opsin.create_model(f"timm:{name}", num_classes=2).eval()
    theirs = timm.create_model(name, num_classes=2).eval()
    theirs.load_state_dict({key.removeprefix("network."): t for key, t in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_timm_gives(name: str) -> None:
    ours, theirs = pair(name)
    images = torch.randn(1, 3, NETWORKS[name], NETWORKS[name])
    maker = timm.create_model(name, features_only=True).eval()
    fills = {key.removeprefix("model."): t for key, t in maker.state_dict().items()}
    own = {key.replace(".", "_", 1) if key not in fills else key: t for key, t in theirs.state_dict().items()}
    own |= theirs.state_dict()
    maker.load_state_dict({key: own[key.removeprefix("model.")] for key in maker.state_dict()})
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
        got, expected = ours.features(images), maker(images)
    places = [ours.channels.index(x.shape[1]) for x in expected] if name != "test_vit" else [3, 4, 5]
    if name != "test_vit":
        places = list(range(len(expected)))
        assert tuple(x.shape[1] for x in got) == ours.channels == tuple(maker.feature_info.channels())
        assert ours.strides == tuple(maker.feature_info.reduction())
    for place, map_ in zip(places, expected[-len(places) :], strict=True):
        torch.testing.assert_close(got[place], map_)


def test_an_extractor_holds_only_what_its_maps_need() -> None:
    for name in ("test_convnext", "mobilenetv4_conv_small_035", "regnetx_002"):
        extractor = create_extractor(f"timm:{name}", (4, 8), in_channels=1)
        whole = opsin.create_model(f"timm:{name}", in_channels=1)
        maps = extractor(torch.randn(2, 1, 64, 64))
        assert [x.shape[-1] for x in maps] == [16, 8]
        torch.stack([x.sum() for x in maps]).sum().backward()
        assert all(p.grad is not None for p in extractor.parameters()), name
        assert extractor.initialize_from(whole.state_dict()) == []  # the same names as in the whole
        assert len(extractor.state_dict()) < len(whole.state_dict())


def test_networks_of_one_size_and_without_a_pyramid_say_so() -> None:
    with torch.device("meta"):
        name = "timm:vit_tiny_patch16_224"
        model: Any = opsin.create_model(name)
        assert model.fixed_size == 224 and model.strides == (16,) * 12
        with pytest.raises(InputError, match=rf"{name} takes images of 224x224 only.*data\.size=224"):
            model(torch.zeros(1, 3, 64, 64))
        assert opsin.create_model(name, img_size=64).fixed_size == 64
        assert opsin.create_model(name, dynamic_img_size=True).fixed_size is None
        with pytest.raises(InputError, match=f"{name} has no stage of stride 8, only 16"):
            create_extractor(name)
        with pytest.raises(InputError, match="runs as a whole"):
            opsin.create_model("spp_net", backbone="timm:test_convnext")


def test_options_are_timms_and_checked() -> None:
    with torch.device("meta"):
        model: Any = opsin.create_model("timm:test_convnext", drop_path_rate=0.5)
        assert model.network.stages[3].blocks[-1].drop_path.drop_prob == 0.5
        held: Any = opsin.create_model("timm:test_resnet", output_stride=8)
        assert max(held.strides) == 8 and held.features(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8
        wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
            ("test_convnext", {"drop_pathrate": 0.5}, "did you mean drop_path_rate"),
            ("test_vit", {"output_stride": 8}, "no output_stride in timm"),
            ("test_resnet", {"output_stride": 7}, "output_stride must be one of 8, 16, 32"),
            ("ghostnet_050", {"output_stride": 8}, "cannot be built with output_stride=8"),
        )
        for name, options, message in wrong:
            with pytest.raises(InputError, match=message):
                opsin.create_model(f"timm:{name}", **options)


def test_the_head_changes() -> None:
    model: Any = opsin.create_model("timm:test_convnext", num_classes=5)
    assert list(model.class_rows()) == ["network.head.fc.weight", "network.head.fc.bias"]
    below = {p for part in model.learned_parts() for p in part.parameters()}
    assert {name for name, p in model.named_parameters() if p not in below} == set(model.class_rows())
    model.reset_head(7)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A cache of the hub with one file, for test_vit; every other is not there. Returns its tensors."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    state = timm.create_model("test_vit").state_dict()
    save_file(state, tmp_path / "written")
    digest = hashlib.sha256((tmp_path / "written").read_bytes()).hexdigest()
    (tmp_path / "written").rename(tmp_path / digest)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / digest)

    def download(repository: str, file: str, *, revision: str | None, local_files_only: bool) -> str:
        if repository != "timm/test_vit.r160_in1k" or file != "model.safetensors":
            raise LocalEntryNotFoundError("not there")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return state


def test_weights_come_from_the_hub_by_their_tag(hub: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for name, weights in (("timm:test_vit", "imagenet1k"), ("timm:test_vit.r160_in1k", None)):
        model: Any = opsin.create_model(name, weights=weights, offline=True)
        for key, tensor in hub.items():
            assert torch.equal(model.network.state_dict()[key], tensor), key
        assert model.preprocessing["size"] == [160, 160] and model.preprocessing["interpolation"] == "bicubic"
    said: list[str] = []
    fresh: Any = opsin.create_model("timm:test_vit", weights="r160_in1k", num_classes=3, say=said.append)
    assert "for 1000 classes; fresh: network.head.weight, network.head.bias" in said[-1]
    assert torch.equal(fresh.network.patch_embed.proj.weight, hub["patch_embed.proj.weight"])
    with pytest.raises(InputError, match="depth=3"):
        opsin.create_model("timm:test_vit", weights="r160_in1k", depth=3)
    with pytest.raises(InputError, match=r"offline, and model\.safetensors of timm/test_vit2"):
        opsin.create_model("timm:test_vit2", weights="imagenet1k", offline=True)
    (tmp_path / "model.safetensors").resolve().write_bytes(b"other")
    with pytest.raises(JobError, match="is damaged"):
        opsin.create_model("timm:test_vit", weights="r160_in1k", offline=True)


def test_a_run_of_published_weights_is_opened_by_name(hub: dict[str, torch.Tensor]) -> None:
    for name in ("timm:test_vit:imagenet1k", "timm:test_vit.r160_in1k"):
        model = opsin.load(name)
        assert len(model.classes) == 1000 and model.classes[0] == "tench"


def test_weights_say_what_timm_says() -> None:
    config = timm.get_pretrained_cfg("convnext_tiny.fb_in1k")
    weights = registry.find_weights("timm:convnext_tiny", "fb_in1k")
    assert weights.url == "https://huggingface.co/timm/convnext_tiny.fb_in1k/resolve/main/model.safetensors"
    assert weights.preprocessing["crop_ratio"] == config.crop_pct and weights.preprocessing["fit"] == "crop"
    assert weights.licence.startswith(config.license) and weights.classes == "imagenet1k"
    assert registry.find_weights("timm:convnext_tiny", "fb_in22k").classes == ""
    entry = registry.count(registry.find_model("timm:convnext_tiny"))
    assert entry.params == 28_589_128 and entry.to_dict()["paper"] is None and entry.family == "convnext"


def test_names_and_slips() -> None:
    assert registry.split_weights("timm:a.b") == ("timm:a", "b") == registry.split_weights("timm:a:b")
    assert registry.split_weights("resnet50:imagenet1k") == ("resnet50", "imagenet1k")
    assert registry.split_weights("timm:a") == ("timm:a", None) and registry.split_weights("a.b") == ("a.b", None)
    assert "timm:test_convnext" in registry.list_models("timm:*convnext*")
    assert registry.list_models("timm:*", task="detect") == []
    with pytest.raises(InputError, match="did you mean convnext_tiny"):
        registry.find_model("timm:convnext_tny")
    with pytest.raises(InputError, match="with the weights fb_in1k; give them"):
        registry.find_model("timm:convnext_tiny.fb_in1k")


def test_a_missing_timm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsin.schemes.find_spec", lambda name: None)
    for call in (registry.find_model, registry.is_model, registry.list_models, opsin.create_model, opsin.load):
        with pytest.raises(InputError, match=r"timm: needs the package timm: pip install 'opsin\[timm\]'"):
            call("timm:test_vit:imagenet1k" if call is opsin.load else "timm:test_vit")


def test_nothing_of_timm_is_imported_before_it_is_named() -> None:
    code = (
        "import sys, opsin; from opsin import registry; registry.list_models(); registry.elsewhere('convnext_tiny'); "
        "opsin.create_model('lenet5'); assert 'timm' not in sys.modules; registry.find_model('torchvision:swin_t'); "
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
