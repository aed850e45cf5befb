"""What every registered classification network must keep, whatever its family.

Published parameters are those of every name. What else needs no numbers runs on the meta device; the rest on networks
made small by their own options. Both for one network of each family and kind of block, and in the soak for one of each
structure.
"""

from __future__ import annotations

import copy
import functools
import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from opsin import registry
from opsin.backbones import Backbone
from opsin.backbones.backbone import logits_of, training_options
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters

NAMES = registry.list_models(task="classify")
PUBLISHED = [name for name in NAMES if registry.find_model(name).facts is not None]
SMALL: dict[str, dict[str, Any]] = {
    "lenet5_1998": {},
    "lenet5": {},
    "alexnet_2012": {"hidden_features": 16},
    "alexnet": {"hidden_features": 16},
    "vgg11_lrn": {"hidden_features": 16, "pooled_size": 1},
    "vgg16_c_bn": {"hidden_features": 16, "pooled_size": 1},
    "resnet18": {},
    "resnet50": {},
    "resnet50_v1": {},
    "resnet20": {},
    "preact_resnet18": {},
    "wrn16_8": {"widening": 1},
    "resnext29_32x4d": {},
    "wide_resnet50_2": {"width_per_group": 16},
    "se_resnet18": {},
    "cbam_resnet18": {},
    "cbam_resnet18_paper": {},
    "pyramidnet110_a48": {"alpha": 4},
    "googlenet": {},
    "googlenet_bn": {},
    "inception_v2": {},
    "bn_inception": {},
    "inception_v3": {},
    "inception_v4": {"depths": (1, 1, 1)},
    "inception_resnet_v1_512": {"depths": (1, 1, 1)},
    "xception": {"depth": 1},
    "shufflenet_v2_x0_5": {},
    "densenet121": {"depths": (2, 2, 2), "growth": 8, "recompute": True},
    "densenet40_k12": {"depths": (2, 2, 2)},
    "mobilenet_v2": {"width": 0.35},
    "mobilenet_v3_small": {"width": 0.5},
    "tf_mobilenet_v3_large_minimalistic": {"width": 0.35},
    "regnetx_200mf": {},
    "regnety_200mf": {},
    "darknet19": {},
    "darknet53": {},
    "cspresnext50": {},
    "cspdensenet121": {"growth": 8},
    "shufflenet_v1_g3_x0_5": {},
    "shufflenet_v1_g8_x0_5_megvii": {},
    "nin": {},
    "nin_cifar10": {},
    "zfnet": {"hidden_features": 16},
    "zfnet_spp": {"hidden_features": 16},
    "highway_a": {},
    "highway10_16": {},
    "mobilenet_v1_x0_25": {},
    "efficientnet_b0": {"width": 0.25},
    "tf_efficientnet_b0": {"width": 0.25, "depth": 0.5},
}


def structure(name: str) -> str:
    """What the code of a network follows: its class, and the kinds of its options, but not how deep and wide it is."""

    def kind(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float | tuple | list):
            return repr(value)
        return str(value != 0) if isinstance(value, int | float) else str(sorted({kind(one) for one in value}))

    entry = registry.find_model(name)
    return f"{entry.network} {[(key, kind(option.default)) for key, option in entry.options.items()]}"


def smallest_of_each_structure() -> list[str]:
    """One network of each structure, of the fewest published parameters, and those of `SMALL`."""
    found: dict[str, str] = {}
    for name in sorted(NAMES, key=lambda name: getattr(registry.find_model(name).facts, "params", 0)):
        found.setdefault(structure(name), name)
    return sorted({*found.values(), *SMALL})


WALKED = smallest_of_each_structure() if "OPSIN_SOAK" in os.environ else sorted(SMALL)
COUNTED = NAMES if "OPSIN_SOAK" in os.environ else WALKED  # whose multiply-adds are held against the published ones


# Each operation that some network has and others have not: gates, shuffles, joins, pools of several sizes, padding.
EXPORTED = (
    *("lenet5_1998", "alexnet_2012", "googlenet", "inception_v3", "resnet20", "cbam_resnet18", "pyramidnet110_a48"),
    *("densenet121", "highway_a", "zfnet_spp", "cspresnext50", "shufflenet_v2_x0_5", "tf_efficientnet_b0"),
)


@functools.cache
def on_meta(name: str) -> Backbone:
    return build_on_meta(name)


def build_on_meta(name: str, **options: Any) -> Backbone:
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    assert isinstance(model, Backbone)
    return model.eval()


@functools.cache
def small(name: str) -> Backbone:
    torch.manual_seed(0)
    model = registry.create_model(name, num_classes=5, in_channels=2, **SMALL[name])
    assert isinstance(model, Backbone)
    return model.eval()


def make_images(model: Backbone, batch: int = 2) -> Tensor:
    size = model.fixed_size or max(model.min_size, 64)
    return torch.randn(batch, model.in_channels, size, size, generator=torch.Generator().manual_seed(1))


def meta_images(model: Backbone, height: int, width: int | None = None, batch: int = 2) -> Tensor:
    return torch.empty(batch, model.in_channels, height, width or height, device="meta")


def logits(model: Backbone, images: Tensor) -> Tensor:
    return logits_of(model(images))


def test_every_family_has_a_small_network() -> None:
    assert {registry.find_model(n).family for n in SMALL} == {registry.find_model(n).family for n in NAMES}


def input_of(name: str) -> tuple[int, int, int]:
    """The published input, or the smallest of a network of which nothing is published."""
    facts, model = registry.find_model(name).facts, on_meta(name)
    side = model.fixed_size or model.min_size
    return (model.in_channels, side, side) if facts is None else facts.input


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    # Published MACs are those of use, without auxiliary heads; published parameters are with them.
    entry, model = registry.find_model(name), on_meta(name)
    published, trained = entry.published, training_options(entry.options)
    assert count_parameters(build_on_meta(name, **trained) if trained else model) == published.params
    if published.macs is not None and name in COUNTED:
        assert count_macs(model, published.input) == pytest.approx(published.macs, rel=0.005)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_facts_are_complete(name: str) -> None:
    published = registry.find_model(name).published
    assert published.paper and published.idea and published.source
    assert 1980 < published.year < 2100
    assert all(0 < value <= 100 for value in published.metrics.values())


@pytest.mark.parametrize("name", WALKED)
def test_the_network_is_of_the_class_that_its_registration_says(name: str) -> None:
    network = registry.find_model(name).network
    assert network is not None and isinstance(on_meta(name), network)


@pytest.mark.parametrize("name", WALKED)
def test_output_and_features_are_as_declared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (channels, height, width) = on_meta(name), input_of(name)
    assert model.in_channels == channels
    scores = model(meta_images(model, height, width))
    assert isinstance(scores, Tensor) and scores.shape == (2, model.num_classes)  # without being asked, a tensor
    monkeypatch.setattr(model, "_check", lambda images: None)  # to see past the one size that a fixed head allows
    last = model.strides[-1]
    maps, larger = (model.features(meta_images(model, height + more, width)) for more in (0, last))
    assert len(maps) == len(model.stages) == len(model.channels) == len(model.strides)
    for map_, grown, depth, stride in zip(maps, larger, model.channels, model.strides, strict=True):
        assert map_.shape[1] == depth
        assert grown.shape[2] - map_.shape[2] == last // stride
        assert map_.shape[2] <= -(-height // stride) and map_.shape[3] <= -(-width // stride)


@pytest.mark.parametrize("name", [name for name in WALKED if name not in SMALL])  # of those none is zero, see below
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = on_meta(name)
    size = input_of(name)[1]
    targets = torch.zeros(2, dtype=torch.int64, device="meta")
    try:
        outputs = model.train()(meta_images(model, size))
        torch.stack(list(model.loss(outputs, targets).values())).sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
    finally:
        model.eval().zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", WALKED)
def test_min_size_is_the_smallest_that_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_meta(name)
    assert logits(model, meta_images(model, model.min_size)).shape == (2, model.num_classes)
    if model.min_size > 1:
        small = meta_images(model, model.min_size - 1)
        with pytest.raises(InputError, match=rf"{model.min_size}x{model.min_size}.*data\.size={model.min_size}"):
            model(small)
        monkeypatch.setattr(model, "_check", lambda images: None)
        with pytest.raises(RuntimeError):
            model(small)


@pytest.mark.parametrize("name", WALKED)
def test_odd_sizes_work_or_are_refused(name: str) -> None:
    model = on_meta(name)
    images = meta_images(model, model.min_size + 37, model.min_size + 90)
    if model.fixed_size is None:
        assert logits(model, images).shape == (2, model.num_classes)
    else:
        with pytest.raises(InputError, match=f"{model.fixed_size}x{model.fixed_size} only"):
            model(images)


@pytest.mark.parametrize("name", WALKED)
def test_wrong_input_is_refused(name: str) -> None:
    model = on_meta(name)
    images = meta_images(model, model.fixed_size or 224)
    with pytest.raises(InputError, match=f"in_channels={model.in_channels + 1}"):
        model(torch.cat([images, images[:, :1]], dim=1))
    with pytest.raises(InputError, match=r"\(B, C, H, W\)"):
        model(images[0])
    with pytest.raises(InputError, match="uint8"):
        model(images.byte())


@pytest.mark.parametrize("name", WALKED)
def test_options_of_every_classifier(name: str) -> None:
    entry = registry.find_model(name)
    assert all(option.default is not option.empty for option in entry.options.values())
    defaults = {key: option.default for key, option in entry.options.items()}
    same = build_on_meta(name, **defaults).state_dict()
    assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in on_meta(name).state_dict().items()}

    other = build_on_meta(name, num_classes=7, in_channels=2)
    assert (other.num_classes, other.in_channels) == (7, 2)
    assert logits(other, meta_images(other, other.fixed_size or 224)).shape == (2, 7)
    for option in ("num_classes", "in_channels"):
        with pytest.raises(InputError, match=f"{option} must be"):
            build_on_meta(name, **{option: 0})
    with pytest.raises(InputError, match="did you mean num_classes"):
        build_on_meta(name, num_clases=7)


@pytest.mark.parametrize("name", WALKED)
def test_reset_head_changes_the_last_layer_only(name: str) -> None:
    model = build_on_meta(name)
    before = dict(model.state_dict(keep_vars=True))
    model.reset_head(model.num_classes + 3)
    after = dict(model.state_dict(keep_vars=True))
    outputs = model(meta_images(model, model.fixed_size or 224))
    made = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    assert [tuple(one.shape) for one in made] == [(2, model.num_classes)] * (1 + len(model.aux_taps))
    changed = [k for k in after if after[k] is not before.get(k)]
    assert before.keys() == after.keys() and len(made) <= len(changed) <= 2 * len(made)
    assert all(len(after[k]) == model.num_classes == len(before[k]) + 3 for k in changed)
    with pytest.raises(InputError, match="num_classes must be"):
        model.reset_head(0)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_its_examples(name: str) -> None:
    # In double precision: in single, kernels chosen by batch size differ by what deep nets then enlarge.
    model, images = copy.deepcopy(small(name)).double(), make_images(small(name)).double()
    with torch.no_grad():
        together, apart = logits(model, images), torch.cat([logits(model, image[None]) for image in images])
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", SMALL)
def test_no_gradient_is_zero(name: str) -> None:
    # In eval: with the statistics of the batch, a bias before a batch norm has no effect.
    model = small(name)
    targets = torch.tensor([1, 4])
    torch.stack(list(model.loss(model(make_images(model)), targets).values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip(name: str) -> None:
    model, images = small(name), make_images(small(name))
    twin = registry.create_model(name, num_classes=5, in_channels=2, **SMALL[name]).eval()
    assert twin.load_state_dict(model.state_dict()) == ([], [])
    with torch.no_grad():
        assert torch.equal(logits_of(twin(images)), logits(model, images))
    assert twin.initialize_from(model.state_dict()) == []  # type: ignore[operator]


@pytest.mark.parametrize("name", EXPORTED)
def test_exports(name: str) -> None:
    model, images = small(name), make_images(small(name), batch=3)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: Dim("batch", max=64)},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SMALL if "aux_heads" in registry.find_model(name).options])
def test_dropping_auxiliary_heads_leaves_the_logits(name: str) -> None:
    torch.manual_seed(0)
    model = registry.create_model(name, num_classes=5, in_channels=2, aux_heads=True).eval()
    assert isinstance(model, Backbone) and model.aux_taps
    targets, images = torch.tensor([1, 4]), make_images(model)
    with torch.no_grad():
        outputs = model(images)
        losses = model.loss(outputs, targets)
        assert list(outputs) == ["logits", *model.aux_taps] and list(losses) == ["main", *model.aux_taps]
        for aux in model.aux_taps:
            torch.testing.assert_close(losses[aux], model.aux_weight * model.criterion(outputs[aux], targets))
        assert torch.equal(model.decode(outputs)["scores"], model.decode(outputs["logits"])["scores"])
        plain = build_on_meta(name, num_classes=5, in_channels=2, aux_heads=False)
        model.drop_aux_heads()
        assert torch.equal(model(images), outputs["logits"])
        assert list(model.state_dict()) == list(plain.state_dict())
        torch.testing.assert_close(model.loss(model(images), targets)["loss"], losses["main"])
    model.reset_head(3)
    model.drop_aux_heads()  # again: nothing left to drop
    assert model(images).shape == (2, 3)


@pytest.mark.parametrize("name", SMALL)
def test_decode(name: str) -> None:
    model = small(name)
    logits = torch.tensor([[1.0, 3.0, 0.0, -1.0, 2.0]])
    answer = model.decode(logits)
    assert answer["labels"].tolist() == [1] and answer["labels"].dtype == torch.int64
    torch.testing.assert_close(answer["scores"].sum(dim=1), torch.ones(1))


def test_decode_of_many_labels_and_of_a_temperature() -> None:
    model = registry.create_model("lenet5")
    assert isinstance(model, Backbone)
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    model.temperature = 0.5
    torch.testing.assert_close(model.decode(logits)["scores"], torch.softmax(2 * logits, dim=1))
    model.multi_label = True
    answer = model.decode(logits)
    torch.testing.assert_close(answer["scores"], torch.sigmoid(2 * logits))
    assert answer["labels"].tolist() == [[True, True, False]]
