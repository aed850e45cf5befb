"""What every registered segmenter must keep, whatever its family."""

from __future__ import annotations

import copy
import functools
import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from opsin import registry
from opsin.backbones.backbone import training_options
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.segment.segmenter import Outputs, Segmenter

NAMES = registry.list_models(task="segment")
CLASSES, CHANNELS = 3, 2
_VGG: dict[str, Any] = {"backbone": "vgg11", "hidden_features": 8, "backbone_options": {"hidden_features": 8}}
_NARROW: dict[str, Any] = {"backbone": "mobilenet_v3_small", "channels": 8}
# Each structure that there is, small.
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "unet_bilinear": {"width": 4},
    "unet_resnet34": {"backbone": "mobilenet_v3_small", "channels": (16, 8, 8, 8, 8)},
    "unet_valid": {"width": 4},
    "fcn32s": {"backbone": "mobilenet_v3_small"},
    "fcn16s": {"backbone": "mobilenet_v3_small", "upsampling": "learned"},
    "fcn8s": {**_VGG, "upsampling": "all_learned", "at_once": True},
    "deeplabv1": _VGG,
    "deeplabv2_resnet101": {"backbone": "mobilenet_v3_small"},
    "deeplabv3": {**_NARROW, "aux_heads": True},
    "deeplabv3plus": {**_NARROW, "separable": True},
    "semantic_fpn": {**_NARROW, "head_channels": 64},
}


def build_on_meta(name: str, **options: Any) -> Segmenter:
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    assert isinstance(model, Segmenter)
    return model.eval()


@functools.cache
def on_meta(name: str) -> Segmenter:
    return build_on_meta(name, **training_options(registry.find_model(name).options))


@functools.cache
def small(name: str) -> Segmenter:
    return build_small(name).eval()


def build_small(name: str, **options: Any) -> Segmenter:
    torch.manual_seed(0)
    model = registry.create_model(name, **{"num_classes": CLASSES, "in_channels": CHANNELS, **SMALL[name], **options})
    assert isinstance(model, Segmenter)
    for parameter in model.parameters():  # scores of FCN start at zero, which stops every gradient
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def size_of(model: Segmenter, height: int = 96, width: int = 112) -> tuple[int, int]:
    fitting = getattr(model, "next_size", lambda size: size)
    return fitting((height, width))


def make_images(model: Segmenter, batch: int = 2) -> Tensor:
    return torch.randn(batch, model.in_channels, *size_of(model), generator=torch.Generator().manual_seed(1))


@functools.cache
def outputs_of(name: str) -> Outputs:
    """What a small network in eval gives for two images; not to be changed."""
    with torch.no_grad():
        return small(name)(make_images(small(name)))


def labels_for(model: Segmenter, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-1, model.num_classes, (batch, *size_of(model)), generator=generator)


def test_every_family_has_a_small_network() -> None:
    assert {registry.find_model(n).family for n in SMALL} == {registry.find_model(n).family for n in NAMES}
    kinds = {registry.find_model(n).network for n in NAMES}
    assert {registry.find_model(n).network for n in SMALL} == kinds


@pytest.mark.parametrize("name", NAMES)
def test_published_facts(name: str) -> None:
    entry = registry.find_model(name)
    published = entry.published
    assert type(on_meta(name)) is entry.network
    assert count_parameters(on_meta(name)) == published.params
    if published.macs is not None and (not name.endswith("resnet101") or "OPSIN_SOAK" in os.environ):
        assert count_macs(on_meta(name), published.input) == pytest.approx(published.macs, rel=0.005)
    assert published.paper and published.idea and published.source
    assert all(0 < value <= 100 for value in published.metrics.values())
    # An input of the stated size is taken, and what comes out is as large as the network says.
    images = torch.empty(1, *published.input, device="meta")
    logits = on_meta(name)(images)["logits"]
    assert logits.shape == (1, on_meta(name).num_classes, *on_meta(name).output_size(published.input[1:]))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("resnet101")])  # which are deeper alone
def test_options_of_every_segmenter(name: str) -> None:
    entry = registry.find_model(name)
    assert all(option.default is not option.empty for option in entry.options.values())
    defaults = {key: option.default for key, option in entry.options.items()}
    same = build_on_meta(name, **defaults | training_options(entry.options)).state_dict()
    assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in on_meta(name).state_dict().items()}
    assert {"num_classes", "in_channels", "overlapping"} <= entry.options.keys()

    model = build_on_meta(name, num_classes=7, in_channels=2)
    size = size_of(model, 200, 230)
    outputs = model(torch.empty(2, 2, *size, device="meta"))
    assert all(value.shape == (2, 7, *model.output_size(size)) for value in outputs.values())
    for option in ("num_classes", "in_channels"):
        with pytest.raises(InputError, match=f"{option} must be"):
            build_on_meta(name, **{option: 0})
    with pytest.raises(InputError, match="did you mean num_classes"):
        build_on_meta(name, num_clases=7)
    with pytest.raises(InputError, match="num_classes=2"):
        build_on_meta(name, num_classes=1, overlapping=False)


@pytest.mark.parametrize("name", SMALL)
def test_sizes_work_or_are_refused(name: str) -> None:
    model = small(name)
    for size in ((97, 131), (64, 65), (33, 40)):
        images = torch.zeros(1, CHANNELS, *size)
        with torch.no_grad():
            if name == "unet_valid":
                with pytest.raises(InputError, match=r"16k \+ 12.*the next size is 188x188"):
                    model(images)
            else:
                assert all(value.shape[-2:] == size for value in model(images).values())
    images = make_images(model)
    with pytest.raises(InputError, match=f"in_channels={CHANNELS + 1}"):
        model(torch.cat([images, images[:, :1]], dim=1))
    with pytest.raises(InputError, match=r"\(B, C, H, W\)"):
        model(images[0])
    with pytest.raises(InputError, match="uint8"):
        model(images.byte())


@pytest.mark.parametrize("name", SMALL)
def test_an_image_of_one_pixel(name: str) -> None:
    """It gets its answer or a refusal in words."""
    model, image = small(name), torch.zeros(1, CHANNELS, 1, 1)
    with torch.no_grad():
        try:
            assert model(image)["logits"].shape == (1, CLASSES, 1, 1)
        except InputError as error:
            assert "1x1" in str(error)


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_reaches_every_parameter(name: str) -> None:
    model = small(name)
    losses = model.loss(model(make_images(model)), {"labels": labels_for(model)})
    assert set(losses) == ({"main", *model.aux_weights} if model.aux_weights else {"loss"})
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", SMALL)
def test_pixels_to_ignore_and_of_no_weight_count_for_nothing(name: str) -> None:
    model, outputs, labels = small(name), outputs_of(name), labels_for(small(name))
    nothing = model.loss(outputs, {"labels": torch.full_like(labels, -1)})
    assert all(value == 0 for value in nothing.values())
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3))
    weights[:, :100] = 0
    hidden = labels.clone()
    hidden[:, :100] = -1
    one, other = (model.loss(outputs, {"labels": given, "weights": weights}) for given in (labels, hidden))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_pure(name: str) -> None:
    model, images, expected = small(name), make_images(small(name)), outputs_of(name)
    given, state = images.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    try:
        model.train()
        for layer in model.modules():  # layers may differ in training, as batch norm and dropout do; networks may not
            layer.training = any(True for _ in layer.children())
        with torch.no_grad():
            outputs = model(images)
    finally:
        model.eval()
    assert list(outputs) == list(expected)
    for key, value in outputs.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
    assert torch.equal(images, given)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        alone = model(images[1:])
    for key, value in alone.items():
        torch.testing.assert_close(value, expected[key][1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_of_one_is_trained_on(name: str) -> None:
    model = copy.deepcopy(small(name)).train()
    losses = model.loss(model(make_images(model, 1)), {"labels": labels_for(model, 1)})
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()


@pytest.mark.parametrize("name", SMALL)
def test_decode_gives_probabilities(name: str) -> None:
    model, outputs = small(name), outputs_of(name)
    found = model.decode(outputs)
    assert found.shape == outputs["logits"].shape
    torch.testing.assert_close(found.sum(dim=1), torch.ones(found[:, 0].shape))
    assert torch.equal(found.argmax(dim=1), outputs["logits"].argmax(dim=1))


@pytest.mark.parametrize(("name", "classes"), [*((name, CLASSES) for name in SMALL), ("unet", 1), ("deeplabv3", 1)])
def test_classes_that_overlap(name: str, classes: int) -> None:
    model = build_small(name, num_classes=classes, overlapping=True).eval()
    outputs = model(make_images(model))
    found = model.decode(outputs)
    torch.testing.assert_close(found, 1 / (1 + torch.exp(-outputs["logits"])))
    labels = torch.rand(2, classes, *size_of(model), generator=torch.Generator().manual_seed(4)) > 0.5
    losses = model.loss(outputs, {"labels": labels})
    assert all(value > 0 for value in losses.values())
    assert build_small(name, num_classes=1).overlapping and not small(name).overlapping


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip(name: str) -> None:
    model, images = small(name), make_images(small(name))
    twin = build_small(name).eval()
    nn.init.normal_(next(twin.parameters()))
    assert twin.load_state_dict(model.state_dict()) == ([], [])
    with torch.no_grad():
        outputs = twin(images)
    assert all(torch.equal(value, outputs[key]) for key, value in outputs_of(name).items())
    assert twin.initialize_from(model.state_dict()) == []


@pytest.mark.parametrize("name", SMALL)
def test_reset_head_changes_what_makes_logits_only(name: str) -> None:
    model = build_small(name).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = model.class_rows()
    assert rows and all(len(before[key]) == CLASSES for key in rows)
    model.reset_head(5)
    after = model.state_dict()
    assert list(after) == list(before) and model.num_classes == 5
    changed = {key for key in after if after[key].shape != before[key].shape}
    assert changed - {key for key in changed if key.startswith(("ups.", "last."))} == set(rows)
    assert all(torch.equal(after[key], before[key]) for key in after.keys() - changed)
    with torch.no_grad():
        assert all(value.shape[1] == 5 for value in model(make_images(model)).values())
    with pytest.raises(InputError, match="num_classes must be"):
        model.reset_head(0)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_learned_is_below_what_makes_logits(name: str) -> None:
    model = small(name)
    held = {id(p) for part in model.learned_parts() for p in part.parameters()}
    assert held and held <= {id(p) for p in model.parameters()}
    assert not held & {id(model.get_parameter(key)) for key in model.class_rows()}


@pytest.mark.parametrize("name", [name for name, options in SMALL.items() if "backbone" in options])
def test_the_encoder_is_filled_from_a_classification_network(name: str) -> None:
    model = build_small(name)
    network = registry.create_model(SMALL[name]["backbone"], in_channels=CHANNELS)
    fresh = model.initialize_from(network.state_dict())
    assert not any(key.startswith("backbone.") for key in fresh) and len(fresh) < len(model.state_dict())
    own, theirs = model.state_dict(), network.state_dict()
    filled = [key for key in own if key not in fresh and key.startswith("backbone.backbone.")]
    assert filled and all(torch.equal(own[key], theirs[key.removeprefix("backbone.backbone.")]) for key in filled)


@pytest.mark.parametrize("name", [n for n in SMALL if "aux_heads" in registry.find_model(n).options])
def test_dropping_auxiliary_heads_leaves_the_logits(name: str) -> None:
    model, images = copy.deepcopy(small(name)), make_images(small(name))
    assert set(outputs_of(name)) == {"logits", *model.aux_weights}
    plain = build_small(name, aux_heads=False)
    model.drop_aux_heads()
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        outputs = model(images)
    assert list(outputs) == ["logits"] and torch.equal(outputs["logits"], outputs_of(name)["logits"])
    assert set(model.class_rows()) == {"predict.weight", "predict.bias"}
    assert list(model.loss(outputs, {"labels": labels_for(model)})) == ["loss"]


# Those that segment/test_segment_export.py does not write to files: to trace a network takes seconds.
@pytest.mark.parametrize("name", ["fcn8s", "deeplabv1", "deeplabv2_resnet101", "deeplabv3", "semantic_fpn"])
def test_exports_with_any_batch_and_size(name: str) -> None:
    model = copy.deepcopy(small(name))
    model.drop_aux_heads()
    images = make_images(model, batch=3)
    sizes: dict[int, Any] = {2: Dim("height", min=40, max=2000), 3: Dim("width", min=40, max=2000)}
    if name == "unet_valid":  # which sizes it takes, torch finds by itself
        sizes = {2: Dim.AUTO, 3: Dim.AUTO}
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: Dim("batch", max=64), **sizes},))
    odd = name != "unet_valid"
    taller = torch.randn(3, CHANNELS, images.shape[2] + 16, images.shape[3] + 32 + odd)
    for given in (images, taller):
        with torch.no_grad():
            torch.testing.assert_close(program.module()(given)["logits"], model(given)["logits"], rtol=1e-4, atol=1e-4)
