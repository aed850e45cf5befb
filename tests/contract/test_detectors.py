"""What every registered detector must keep, whatever its family.

Everything that needs no numbers runs on the meta device, for every name. The rest runs on one network of each
structure, made small by its own options.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from opsin import registry
from opsin.detect.detector import Detector, Outputs
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.structures import Instances

# These take proposals, or make and sample them: their own tests hold what of this they keep.
_BY_REGIONS = {"rcnn", "spp_net", "fast_rcnn", "faster_rcnn", "rpn"}
NAMES = [n for n in registry.list_models(task="detect") if registry.find_model(n).family not in _BY_REGIONS]
# A size alone makes these from others that are walked.
WALKED = [name for name in NAMES if not re.search(r"efficientdet_d[2-7]|m2det(512|800)|_spp$", name)]
_MOBILE: dict[str, Any] = {"backbone": "mobilenet_v3_small", "backbone_options": {"width": 0.35}}
_YOLO: dict[str, Any] = {**_MOBILE, "width": 0.0625}
SMALL: dict[str, dict[str, Any]] = {
    "ssd": {**_MOBILE, "extra_channels": (16,)},
    "rfbnet": {"backbone": "mobilenet_v3_small", "extra_channels": (16,)},
    "retinanet": {**_MOBILE, "channels": 16, "head_repeats": 1},
    "efficientdet": {**_MOBILE, "channels": 16, "neck_repeats": 1, "head_repeats": 1},
    "m2det": {
        **{"backbone": "resnet18", "planes": 8, "levels": 2, "neck_options": {"base_channels": (16, 16)}},
        **{"shrink_last": False, "fractions": (0.2, 0.4, 0.6, 0.8)},
    },
    "yolov1": {"size": 128},
    "yolov1_darknet": {"size": 128},
    "yolov1_tiny": {"size": 128},
    "yolov2": _YOLO,
    "yolov3": _YOLO,
    "yolov3_tiny": {},
    "yolov3_asff": _YOLO,
    "yolov4": _YOLO,
    "yolov4_tiny": {},
}
CLASSES, CHANNELS = 3, 2
SHARED = {"anchors", "levels", "size"}  # outputs that the pictures of a batch have in common
EMPTY = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


@functools.cache
def on_meta(name: str) -> Detector:
    return build_on_meta(name)


def build_on_meta(name: str, **options: Any) -> Detector:
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    assert isinstance(model, Detector)
    return model.eval()


@functools.cache
def small(name: str) -> Detector:
    torch.manual_seed(0)
    model = registry.create_model(name, num_classes=CLASSES, in_channels=CHANNELS, **SMALL[name])
    assert isinstance(model, Detector)
    return model.eval()


def side(model: Detector) -> int:
    """Of the pictures for a small network."""
    return model.fixed_size or 128


def pictures(model: Detector, batch: int = 2) -> Tensor:
    size = side(model)
    return torch.randn(batch, model.in_channels, size, size, generator=torch.Generator().manual_seed(1))


@functools.cache
def outputs_of(name: str) -> Outputs:
    """What a small network in eval gives for two pictures; not to be changed."""
    with torch.no_grad():
        return small(name)(pictures(small(name)))


def meta_pictures(model: Detector, height: int = 320, width: int = 384) -> Tensor:
    size = (height, width) if model.fixed_size is None else (model.fixed_size, model.fixed_size)
    return torch.empty(2, model.in_channels, *size, device="meta")


def truth(*boxes: tuple[float, ...]) -> Instances:
    """x1, y1, x2, y2, label of each."""
    rows = torch.tensor(boxes, dtype=torch.float32)
    return Instances(rows[:, :4], rows[:, 4].long())


def targets(model: Detector) -> list[Instances]:
    """Two pictures with objects of every size and class."""
    s = side(model) / 64
    return [
        truth((4 * s, 4 * s, 16 * s, 14 * s, 0), (20 * s, 8 * s, 60 * s, 60 * s, 1), (0, 0, 64 * s, 64 * s, 2)),
        truth((33 * s, 35 * s, 39 * s, 40 * s, 2), (2 * s, 30 * s, 30 * s, 62 * s, 0)),
    ]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_every_family_has_a_small_network() -> None:
    assert {registry.find_model(n).family for n in SMALL} == {registry.find_model(n).family for n in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_published_facts(name: str) -> None:
    published = registry.find_model(name).published
    assert count_parameters(on_meta(name)) == published.params
    if published.macs is not None:
        assert count_macs(on_meta(name), published.input) == pytest.approx(published.macs, rel=0.005)
    assert published.paper and published.idea and published.source
    assert 1980 < published.year < 2100
    assert all(0 < value <= 100 for value in published.metrics.values())


@pytest.mark.parametrize("name", WALKED)
def test_other_classes_and_channels(name: str) -> None:
    entry = registry.find_model(name)
    assert all(option.default is not option.empty for option in entry.options.values())
    defaults = {key: option.default for key, option in entry.options.items()}
    same = build_on_meta(name, **defaults).state_dict()
    assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in on_meta(name).state_dict().items()}

    model = build_on_meta(name, num_classes=7, in_channels=2)
    assert (model.num_classes, model.in_channels) == (7, 2)
    assert all(key in SHARED or len(value) == 2 for key, value in model(meta_pictures(model)).items())
    for option in ("num_classes", "in_channels"):
        with pytest.raises(InputError, match=f"{option} must be"):
            build_on_meta(name, **{option: 0})
    with pytest.raises(InputError, match="did you mean num_classes"):
        build_on_meta(name, num_clases=7)


@pytest.mark.parametrize("name", WALKED)
def test_sizes_work_or_are_refused(name: str) -> None:
    model = on_meta(name)
    fixed, step, images = model.fixed_size, model.divisor, meta_pictures(model)
    assert model(images)
    wider = torch.cat([images, images[..., :1]], dim=3)
    if fixed is not None:
        with pytest.raises(InputError, match=rf"{fixed}x{fixed} only, got {fixed}x{fixed + 1}.*data\.size={fixed}"):
            model(wider)
    elif step > 1:
        with pytest.raises(InputError, match=rf"multiples of {step}, got 320x385.*data\.size="):
            model(wider)
    else:
        assert model(wider)
    with pytest.raises(InputError, match=f"in_channels={model.in_channels + 1}"):
        model(torch.cat([images, images[:, :1]], dim=1))
    with pytest.raises(InputError, match=r"\(B, C, H, W\)"):
        model(images[0])
    with pytest.raises(InputError, match="uint8"):
        model(images.byte())


@pytest.mark.parametrize("name", WALKED)
def test_every_parameter_is_used(name: str) -> None:
    model = on_meta(name)
    try:
        outputs = model.train()(meta_pictures(model))
        torch.stack([value.sum() for value in outputs.values() if value.requires_grad]).sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
    finally:
        model.eval().zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_reaches_every_output(name: str) -> None:
    model = small(name)
    outputs = {key: value.clone().requires_grad_(key not in SHARED) for key, value in outputs_of(name).items()}
    losses = model.loss(outputs, targets(model))
    assert losses and all(value.ndim == 0 and value.isfinite() for value in losses.values())
    total(losses).backward()
    for key in outputs.keys() - SHARED:
        grad = outputs[key].grad
        assert grad is not None and grad.isfinite().all() and grad.any(), key


@pytest.mark.parametrize("name", SMALL)
def test_the_outputs_reach_every_parameter(name: str) -> None:
    # In eval: with the statistics of the batch, a bias before a batch norm has no effect.
    model, generator = small(name), torch.Generator().manual_seed(3)
    outputs = model(pictures(model))
    parts = [torch.randn(v.shape, generator=generator) * v for key, v in outputs.items() if key not in SHARED]
    torch.cat([part.flatten() for part in parts]).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_pure(name: str) -> None:
    model, images, expected = small(name), pictures(small(name)), outputs_of(name)
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
        whole = expected[key]
        torch.testing.assert_close(value, whole if key in SHARED else whole[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_loss_is_finite_and_changes_nothing(name: str) -> None:
    model, outputs = small(name), {key: value.clone() for key, value in outputs_of(name).items()}
    size = float(side(model))
    for one in (
        EMPTY,
        Instances(torch.zeros(0, 4)),
        truth((0, 0, size, size, -1), (3, 3, 20, 20, -1)),
        truth((10, 10, 40, 50, 1)),
        truth((10, 10, 40, 50, 1), (8, 8, 60, 60, -1), (10, 10, 40, 50, 0)),
        truth((9, 9, 9, 30, 0), (30, 40, 20, 20, 1), (-50, -50, -5, -5, 2), (0, 0, 9 * size, 9 * size, 2)),
        truth(*[(4 + k % 7, 5 + k % 5, 40 + k, 44 + k % 20, k % CLASSES) for k in range(200)]),
    ):
        given = one.boxes.clone()
        for batch in ([one, one], [one, EMPTY]):
            losses = model.loss(outputs, batch)
            assert losses and all(value.ndim == 0 and value.isfinite() for value in losses.values())
            assert all(value >= 0 for value in losses.values())
        assert torch.equal(one.boxes, given)
    assert all(torch.equal(value, outputs_of(name)[key]) for key, value in outputs.items())
    with pytest.raises(InputError, match=f"label {CLASSES}.*num_classes={CLASSES + 1}"):
        model.loss(outputs, [truth((10, 10, 40, 50, CLASSES)), EMPTY])


@pytest.mark.parametrize("name", SMALL)
def test_nothing_within_a_region_to_ignore_is_wrong(name: str) -> None:
    """With all of a picture to be ignored, its loss is not above that of the empty picture, and no place answers."""
    model, outputs, size = small(name), outputs_of(name), float(side(small(name)))
    region = truth((-size, -size, 2 * size, 2 * size, -1))
    assert total(model.loss(outputs, [region, region])) <= total(model.loss(outputs, [EMPTY, EMPTY]))
    assert all(not (one.matched >= 0).any() for one in model.assign(outputs, [region, EMPTY]))


@pytest.mark.parametrize("name", SMALL)
def test_assignments_are_of_the_predicted_places(name: str) -> None:
    model, outputs = small(name), outputs_of(name)
    boxes, scores = model.predictions(outputs)
    assert boxes.shape == (2, boxes.shape[1], 4) and scores.shape == (2, boxes.shape[1], CLASSES)
    assert boxes.isfinite().all() and scores.min() >= 0 and scores.max() <= 1
    ignoring = truth((10, 10, 40, 50, 1), (60, 60, 62, 64, -1), (70, 64, 120, 110, 0))
    for one, wanted in zip(model.assign(outputs, [ignoring, EMPTY]), ({0, 2}, set()), strict=True):
        assert one.boxes.shape == boxes.shape[1:] and one.matched.shape == boxes.shape[1:2]
        assert one.matched.dtype == torch.int64 and one.matched.min() >= -2
        assert set(one.matched[one.matched >= 0].tolist()) == wanted


@pytest.mark.parametrize("name", SMALL)
def test_decode(name: str) -> None:
    model, outputs = small(name), {key: value.clone() for key, value in outputs_of(name).items()}
    for key in outputs.keys() - SHARED:
        outputs[key] = outputs[key] + 3 * torch.randn(outputs[key].shape, generator=torch.Generator().manual_seed(2))
    given, size = {key: value.clone() for key, value in outputs.items()}, side(model)
    asked: list[dict[str, Any]] = [
        {"limit": 7},
        {"suppression": "linear", "limit": 5},
        {"iou_threshold": 0.9, "score_threshold": 0.2},
    ]
    for options in asked:
        found = model.decode(outputs, **{"score_threshold": 0.0, **options})
        assert len(found) == 2 and any(map(len, found))
        for one in found:
            assert one.scores is not None and one.labels is not None
            assert len(one) <= options.get("limit", model.selection.limit)
            assert torch.equal(one.scores, one.scores.sort(descending=True).values)
            assert (one.scores > options.get("score_threshold", 0.0)).all() and (one.scores <= 1).all()
            assert ((one.boxes >= 0) & (one.boxes <= size)).all()
            assert one.labels.dtype == torch.int64 and set(one.labels.tolist()) <= set(range(CLASSES))
    for one in model.decode(outputs, score_threshold=1.0):
        assert one.boxes.shape == (0, 4) and one.labels is not None and one.labels.dtype == torch.int64
    assert all(torch.equal(value, given[key]) for key, value in outputs.items())
    with pytest.raises(TypeError):
        model.decode(outputs, scores_threshold=0.5)


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip(name: str) -> None:
    model, images = small(name), pictures(small(name))
    twin = registry.create_model(name, num_classes=CLASSES, in_channels=CHANNELS, **SMALL[name]).eval()
    assert twin.load_state_dict(model.state_dict()) == ([], [])
    with torch.no_grad():
        outputs = twin(images)
    assert all(torch.equal(value, outputs[key]) for key, value in outputs_of(name).items())
    assert twin.initialize_from(model.state_dict()) == []  # type: ignore[operator]


@pytest.mark.parametrize("name", {registry.find_model(name).family: name for name in SMALL}.values())
def test_exports_with_any_batch(name: str) -> None:
    model, images = small(name), pictures(small(name), batch=3)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: Dim("batch", max=64)},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-4)
