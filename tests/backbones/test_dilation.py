"""Networks held at an output stride: the same weights, the same numbers at the places that the strided network has.

Every family is walked, in double precision, with random statistics of batch norm, on an image of odd sides. Gates that
look at whole maps (squeeze-excitation, CBAM) are held at what they were in the strided network, where that is compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from opsin import registry
from opsin.analyze.profile import run_on_meta
from opsin.backbones import Backbone, copy_in_order, weights
from opsin.backbones.cspnet import CSPDenseNet, CSPNet, Plan, Stage
from opsin.backbones.darknet import Darknet19, Darknet53, DarknetResNet
from opsin.backbones.preact_resnet import PreActResNet
from opsin.backbones.pyramidnet import PyramidNet
from opsin.backbones.resnet import ResNet
from opsin.detect.spp_net import first_centre
from opsin.errors import InputError
from opsin.nn.attention import CBAM, squeeze_excitation
from opsin.nn.counting import count_macs
from opsin.registry import create_model

from .conftest import build_empty, randomize

SHALLOW = (1, 2, 1, 2)
THIN: dict[str, Any] = {"widths": (8, 16, 24, 32)}
# Of each family one of every structure: a registered network made small, or its class with a smaller plan.
_RESNETS: dict[str, Callable[..., Any]] = {
    "resnet": partial(ResNet, SHALLOW, "v1.5", **THIN),
    "resnet v1": partial(ResNet, SHALLOW, "v1", **THIN),
    "resnet A": partial(ResNet, SHALLOW, None, **THIN, shortcut="A"),
    "senet": partial(ResNet, SHALLOW, "v1", **THIN, stem="caffe", attention=squeeze_excitation),
    "senet 154": partial(ResNet, SHALLOW, "senet154", **THIN, stem="deep", groups=2, attention=squeeze_excitation),
    "cbam_resnet": partial(ResNet, SHALLOW, None, **THIN, attention=CBAM),
    "resnext": partial(ResNet, SHALLOW, "v1.5", **THIN, groups=4, width_per_group=16),
    "wide_resnet": partial(ResNet, SHALLOW, "v1.5", **THIN, width_per_group=128),
    "preact_resnet": partial(PreActResNet, SHALLOW, **THIN, stem_width=8),
    "pyramidnet": partial(PyramidNet, SHALLOW, True, alpha=7),
    "darknet 53": partial(Darknet53, (1, 1, 1, 1, 1)),
    "darknet resnet": partial(DarknetResNet, SHALLOW, 8, 4),
}
_BLOCKS: dict[str, Any] = {
    "depths": (1, 2, 1),
    "widths": (16, 16, 16),
    "bottleneck_ratios": (1, 1, 1),
    "group_widths": (4, 4, 4),
}
_STAGES = tuple(Stage(2, 8, 16, 16, entry=8 if place == 0 else None) for place in range(4))
CASES: dict[str, Callable[..., Any]] = _RESNETS | {
    "darknet 19": partial(Darknet19, ((8,), (16, 8, 16), (16,), (16,), (16, 8, 16))),
    "cspnet": partial(CSPNet, Plan(_STAGES, "bottleneck", groups=4, pool="2x2")),
    "cspnet dense": partial(CSPDenseNet, (2, 2, 2, 2), (16, 24, 32, 40), growth=8),
    "regnet": partial(create_model, "anynetx", **_BLOCKS, strides=(2, 2, 2), stem="resnet", se=True),
    "regnet of 4": partial(create_model, "anynetx", **_BLOCKS, strides=(2, 4, 2)),  # half of a stride of 4 is lost at 8
    "alexnet": partial(create_model, "alexnet_2012", hidden_features=8),
    "zfnet": partial(create_model, "zfnet", hidden_features=8),
    "vgg": partial(create_model, "vgg11_lrn", hidden_features=8, pooled_size=2),
    "nin": partial(create_model, "nin"),
    "googlenet": partial(create_model, "googlenet", aux_heads=False),
    "googlenet bn": partial(create_model, "googlenet_bn"),
    "bn_inception tf": partial(create_model, "inception_v2"),
    "bn_inception caffe": partial(create_model, "bn_inception"),
    "inception_v3": partial(create_model, "inception_v3"),
    "inception_v4": partial(create_model, "inception_v4", depths=(1, 1, 1)),
    "inception_resnet": partial(create_model, "inception_resnet_v1", depths=(1, 1, 1)),
    "xception": partial(create_model, "xception", depth=1),
    "densenet": partial(create_model, "densenet121", depths=(2, 2, 2, 2), growth=8),
    "shufflenet_v1": partial(create_model, "shufflenet_v1_g3_x0_25"),
    "shufflenet_v1 megvii": partial(create_model, "shufflenet_v1_g8_x0_5_megvii"),
    "shufflenet_v2": partial(create_model, "shufflenet_v2_x0_5", residual=True, se=True),
    "mobilenet_v1": partial(create_model, "mobilenet_v1_x0_25"),
    "mobilenet_v2": partial(create_model, "mobilenet_v2", width=0.2),
    "mobilenet_v2 tf": partial(create_model, "mobilenet_v2", width=0.2, padding="tf"),
    "mobilenet_v3": partial(create_model, "mobilenet_v3_small", width=0.5),
    "mobilenet_v3 tf": partial(create_model, "tf_mobilenet_v3_large", width=0.35),
    "efficientnet": partial(create_model, "efficientnet_b0", width=0.25, depth=0.5),
    "efficientnet tf": partial(create_model, "tf_efficientnet_b0", width=0.25, depth=0.5),
}
# Whose structure another one has as well: walked by make soak.
ALIKE = {
    *("resnet v1", "resnext", "wide_resnet", "darknet resnet", "regnet", "googlenet", "bn_inception caffe"),
    *("inception_v4", "shufflenet_v1 megvii", "mobilenet_v2 tf", "mobilenet_v3", "efficientnet"),
}
WALKED = [case for case in CASES if case not in ALIKE or "OPSIN_SOAK" in os.environ]
HALVED = ("resnet", "resnet v1", "darknet 53", "densenet", "regnet of 4", "googlenet bn", "mobilenet_v3 tf")  # at 16
FINE = {"lenet": "lenet5", "highway": "highway_a"}  # no map of these families is coarser than 8


def build(case: str, output_stride: int | None = None) -> Backbone:
    """A network of three classes for images of two channels, in double precision, without initialised weights."""
    options: dict[str, Any] = {"num_classes": 3, "in_channels": 2, "output_stride": output_stride}
    model = build_empty(lambda: CASES[case](**options))
    assert isinstance(model, Backbone)
    return model.double()


def image(model: Backbone, more: int = 0) -> Tensor:
    """One of odd height and even width, that is no multiple of any stride."""
    side = max(model.min_size, 64) // 2 * 2
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 2, side + 5 + more, side + 14 + more, dtype=torch.float64, generator=generator)


class Gates:
    """What the gates of a network take of whole maps, in the order of their calls."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    @contextmanager
    def recorded(self, model: nn.Module) -> Iterator[None]:
        yield from self._hooked(model, lambda x: self.seen.append(x))

    @contextmanager
    def held(self, model: nn.Module) -> Iterator[None]:
        """Put what was recorded in the place of what another network finds there."""
        left = iter(self.seen)
        yield from self._hooked(model, lambda _: next(left))
        assert next(left, None) is None

    def _hooked(self, model: nn.Module, see: Callable[[Any], Tensor | None]) -> Iterator[None]:
        handles = []
        for module in model.modules():
            if isinstance(module, SqueezeExcitation):
                handles.append(module.avgpool.register_forward_hook(lambda m, inputs, mean: see(mean)))
            elif isinstance(module, CBAM):
                handles.append(module.channels.register_forward_pre_hook(lambda m, inputs: see(inputs[0])))
        yield
        for handle in handles:
            handle.remove()


@cache
def strided(case: str) -> tuple[Backbone, list[Tensor], Gates]:
    """A network as it was published, with random weights, its maps of an image, and what its gates saw."""
    model, gates = build(case), Gates()
    randomize(model)
    with torch.no_grad(), gates.recorded(model):
        return model, model.features(image(model)), gates


def test_every_family_is_walked() -> None:
    walked = {case.split()[0] for case in CASES} | FINE.keys()
    assert walked == {registry.find_model(name).family for name in registry.list_models(task="classify")} - {"spp_net"}


@pytest.mark.parametrize(("case", "output_stride"), [*((case, 8) for case in WALKED), *((case, 16) for case in HALVED)])
def test_kept_places_hold_what_they_held(case: str, output_stride: int) -> None:
    plain, expected, gates = strided(case)
    model = build(case, output_stride)
    assert model.strides == tuple(min(stride, output_stride) for stride in plain.strides)
    assert (model.channels, model.min_size) == (plain.channels, plain.min_size)
    state = plain.state_dict()
    assert [(k, v.shape) for k, v in model.state_dict().items()] == [(k, v.shape) for k, v in state.items()]
    assert model.load_state_dict(state) == ([], [])
    with torch.no_grad(), gates.held(model):
        maps = model.features(image(model))
    for fine, coarse, stride, own in zip(maps, expected, model.strides, plain.strides, strict=True):
        apart = own // stride
        assert 1 <= fine.shape[2] - apart * (coarse.shape[2] - 1) <= apart
        kept = fine[:, :, ::apart, ::apart]
        torch.testing.assert_close(kept, coarse, rtol=0, atol=1e-9 * float(coarse.abs().max()))
        assert coarse.std() > 1e-3 * coarse.abs().mean() > 0


@pytest.mark.parametrize("case", WALKED)
def test_strides_and_sizes_are_true(case: str) -> None:
    """As the contract has it: an image one stride larger gives maps one larger, and the smallest image works."""
    with torch.device("meta"):
        plain, model = (CASES[case](num_classes=3, in_channels=2, output_stride=stride).eval() for stride in (None, 8))
    last = max(plain.strides)
    sizes = [
        [x.shape[2:] for x in model.features(torch.empty(1, 2, 224 + n, 192 + n, device="meta"))] for n in (0, last)
    ]
    for before, after, stride in zip(*sizes, model.strides, strict=True):
        assert [b - a for a, b in zip(before, after, strict=True)] == [last // stride] * 2
    whole = [x.shape[2:] for x in plain.features(torch.empty(1, 2, 224, 192, device="meta"))]
    for size, coarse, stride, own in zip(sizes[0], whole, model.strides, plain.strides, strict=True):
        if coarse == (224 // own, 192 // own):  # what loses no border loses none now
            assert size == (224 // stride, 192 // stride)
    smallest = torch.empty(2, 2, model.min_size, model.min_size, device="meta")
    outputs = model(smallest)
    assert (outputs["logits"] if isinstance(outputs, dict) else outputs).shape == (2, 3)


def test_without_dilation_the_maps_are_others() -> None:
    plain, expected, _ = strided("resnet")
    model = build("resnet", 8)
    model.load_state_dict(plain.state_dict())
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1):
            layer.padding, layer.dilation = (1, 1), (1, 1)
    with torch.no_grad():
        last = model.features(image(model))[-1][:, :, ::4, ::4]
    assert (last - expected[-1]).abs().max() > 0.1 * expected[-1].abs().max()


@pytest.mark.parametrize(
    "case",
    [
        "resnet v1",
        "densenet",
        "bn_inception caffe",
        "vgg",
        "mobilenet_v3 tf",
    ],
)
def test_what_a_place_sees_stays_the_same(case: str) -> None:
    """Receptive fields and their centres, in every layer: only the steps from place to place are smaller."""
    plain, dilated = (run_on_meta(build(case, stride), (2, 257, 257)).fields for stride in (None, 8))
    compared = 0
    for name, before in plain.items():
        after = dilated[name]
        if name.startswith("stages.") and before is not None and after is not None and before.jump is not None:
            assert (after.size, after.start, after.centre) == (before.size, before.start, before.centre)
            assert after.jump == tuple(min(jump, 8) for jump in before.jump)
            compared += 1
    assert compared > 10


@pytest.mark.parametrize(("output_stride", "replaced"), [(8, [False, True, True]), (16, [False, False, True])])
def test_resnet50_is_torchvisions(output_stride: int, replaced: list[bool]) -> None:
    """replace_stride_with_dilation, which keeps the dilation of the layer that loses its stride too."""
    ours = build_empty(partial(create_model, "resnet50", output_stride=output_stride))
    theirs = build_empty(partial(torchvision.models.resnet50, replace_stride_with_dilation=replaced))
    randomize(theirs)
    copy_in_order(ours, theirs.state_dict())
    x = torch.randn(1, 3, 75, 90, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model: Any = create_model("googlenet_bn", num_classes=3, output_stride=8, aux_heads=True)
    outputs = model(torch.randn(2, 3, 64, 64))
    assert {k: v.shape for k, v in outputs.items()} == dict.fromkeys(("logits", "aux1", "aux2"), (2, 3))
    torch.stack(list(model.loss(outputs, torch.tensor([0, 2])).values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert model.stages[1][0].dilation == (1, 1) and model.stages[2][1][1][1][0].dilation == (4, 4)


@pytest.mark.parametrize("case", ["densenet", "efficientnet tf", "nin"])
def test_exports(case: str) -> None:
    model = build(case, 8)
    randomize(model)
    program = torch.export.export(model, (image(model),))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image(model)), model(image(model)))


def test_heads_with_windows_see_what_they_saw() -> None:
    """VGG's head pools, and its linear layers want 2x2 places: at stride 8 these are means of 2x2 places each."""
    plain, expected, _ = strided("vgg")
    model: Any = build("vgg", 8)
    pool = model.head[0]
    assert (pool.kernel_size, pool.dilation, pool.stride) == ((2, 2), (2, 2), (2, 2))
    x = torch.zeros(1, 1, 2 * expected[-1].shape[2], 2 * expected[-1].shape[3], dtype=torch.float64)
    x[:, :, ::2, ::2] = expected[-1][:, :1]
    head: Any = plain.head
    assert torch.equal(pool(x)[:, :, ::2, ::2], head[0](expected[-1][:, :1]))


def test_as_fine_as_it_is_it_stays() -> None:
    for name in FINE.values():
        assert repr(create_model(name, output_stride=8)) == repr(create_model(name))
    vgg = partial(create_model, "vgg11", hidden_features=8)
    assert repr(vgg(output_stride=16)) == repr(vgg(output_stride=32)) == repr(vgg()) != repr(vgg(output_stride=8))


@pytest.mark.parametrize("value", [0, 4, 12, 64, 8.0, True, "8"])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"output_stride must be one of 8, 16, 32, got .*; leave it out"):
        create_model("resnet18", output_stride=value)


def test_it_is_an_option_of_every_classification_network() -> None:
    for name in registry.list_models(task="classify"):
        option = registry.find_model(name).options["output_stride"]
        assert option.default is None and option.kind is option.KEYWORD_ONLY
    with pytest.raises(InputError, match="unknown option of retinanet 'output_stride'"):
        create_model("retinanet", output_stride=8)


def test_what_cannot_be_held_is_refused() -> None:
    three: Any = {"depths": (1,) * 3, "widths": (8,) * 3, "bottleneck_ratios": (1,) * 3, "group_widths": (8,) * 3}
    with pytest.raises(InputError, match=r"AnyNet cannot have output_stride=8: stages\.1.* from stride 6 to 18; take"):
        create_model("anynetx", **three, strides=(3, 3, 3), output_stride=8)
    with torch.device("meta"):
        fixed: Any = type("Fixed", (ResNet,), {"fixed_size": 64})
        with pytest.raises(InputError, match=r"Fixed cannot have output_stride=8: its head takes the maps of one size"):
            fixed((1, 1, 1, 1), output_stride=8)


def test_a_subclass_may_pass_it_on_or_take_it_itself() -> None:
    class Passing(ResNet):
        def __init__(self, **options: Any) -> None:
            super().__init__(SHALLOW, **THIN, **options)

    class Own(ResNet):
        def __init__(self, *, output_stride: int = 16) -> None:
            options: dict[str, Any] = {"output_stride": output_stride}
            super().__init__(SHALLOW, **THIN, **options)

    with torch.device("meta"):
        assert Passing(output_stride=8).strides == (4, 8, 8, 8)
        assert Own().strides == (4, 8, 16, 16) and Own(output_stride=8).strides == (4, 8, 8, 8)


def test_published_weights_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = create_model("shufflenet_v2_x0_5")
    randomize(plain)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(weights, "fetch", lambda *_, **__: tmp_path / "weights.pth")
    model: Any = create_model("shufflenet_v2_x0_5", weights="imagenet1k", output_stride=8)
    assert model.strides == (8, 8, 8) and model.preprocessing is not None
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


def test_detectors_take_it_for_their_backbones() -> None:
    with torch.device("meta"):
        fine: dict[str, Any] = {"backbone_options": {"output_stride": 16}}
        detector: Any = create_model("retinanet", backbone="resnet18", strides=(8, 16), **fine)
        extractor = detector.backbone
        assert extractor.strides == (8, 16) and extractor.channels == (128, 512)  # the last of stride 16: C5
        assert [x.shape[2:] for x in extractor(torch.empty(1, 3, 64, 96, device="meta"))] == [(8, 12), (4, 6)]
        assert detector(torch.empty(1, 3, 64, 96, device="meta"))
        with pytest.raises(InputError, match="ResNet has no stage of stride 32, only 4, 8, 16"):
            create_model("retinanet", backbone="resnet18", **fine)


@pytest.mark.parametrize("case", ["vgg", "zfnet", "nin", "resnet", "densenet", "googlenet", "efficientnet tf"])
def test_regions_are_pooled_around_the_same_centre(case: str) -> None:
    assert first_centre(build(case, 8)) == first_centre(build(case))


def test_the_work_grows_as_the_maps_do() -> None:
    with torch.device("meta"):
        macs = [count_macs(create_model("resnet50", output_stride=s), (3, 224, 224)) for s in (None, 16, 8)]
    assert macs[0] < macs[1] < macs[2]
    assert macs[2] / macs[0] == pytest.approx(4.9, abs=0.3)
