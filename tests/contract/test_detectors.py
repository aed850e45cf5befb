"""What every registered detector must keep, whatever its family.

Everything that needs no numbers runs on the meta device, for every name. The rest runs on one network of each
structure, made small by its own options.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace
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

# Their loss draws a sample of regions, so that it does not reach every place; theirs are the contracts of regions.
_BY_REGIONS = {"rcnn", "spp_net", "fast_rcnn", "faster_rcnn", "rpn"}
NAMES = registry.list_models(task="detect")
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
    # Its scores are of two classes whatever those of the data, and near 0.5 in a fresh network.
    "ctpn": {**_MOBILE, "hidden": 8, "features": 16, "text_threshold": 0.3},
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
# Of those that look at regions: each structure that a published network has.
_RPN: dict[str, Any] = {"channels": 16, "candidates": 60}
_TWO: dict[str, Any] = {**_MOBILE, **_RPN, "hidden": 8, "test_candidates": 40, "test_proposals": 50, "sampled": 32}
_ONE_MAP: dict[str, Any] = {"strides": (16,), "neck": None, "extra_levels": 0, "channels": None}
_REGIONS: dict[str, Any] = {"proposals": "sliding_windows", "proposal_options": {"limit": 40}}
BY_REGIONS: dict[str, dict[str, Any]] = {
    "rcnn": {**_REGIONS, "backbone": "lenet5", "side": 32, "context": 4, "windows": 32},
    "spp_net": {**_REGIONS, "backbone": "lenet5", "levels": (2, 1), "hidden_features": 8, "scales": (128, 160)},
    "fast_rcnn": {**_REGIONS, **_MOBILE, "hidden": 8},
    "rpn": {**_MOBILE, **_RPN},
    "faster_rcnn": {**_TWO},
    "faster_rcnn_zf": {**_TWO, **_ONE_MAP, "roi_size": 3, "anchor_scales": (1.0, 2.0, 4.0)},
    "mask_rcnn_resnet50_fpn": {**_TWO, "all_levels": True},
}
OWN = {**SMALL, **BY_REGIONS}
WALKED = NAMES if "OPSIN_SOAK" in os.environ else sorted(OWN)  # by what needs no numbers
CLASSES, CHANNELS = 3, 2
SHARED = {"anchors", "levels", "size"}  # outputs that the images of a batch have in common
ROWS = {"rcnn", "spp_net", "fast_rcnn"}  # families whose proposals lie in one row, those of all images
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
    model = registry.create_model(name, num_classes=CLASSES, in_channels=CHANNELS, **OWN[name])
    assert isinstance(model, Detector)
    return model.eval()


def side(model: Detector) -> int:
    """Of the images for a small network."""
    return model.fixed_size or 128


def make_images(model: Detector, batch: int = 2) -> Tensor:
    size = side(model)
    return torch.randn(batch, model.in_channels, size, size, generator=torch.Generator().manual_seed(1))


@functools.cache
def outputs_of(name: str) -> Outputs:
    """What a small network in eval gives for two images; not to be changed."""
    with torch.no_grad():
        return small(name)(make_images(small(name)))


def meta_images(model: Detector, height: int = 320, width: int = 384) -> Tensor:
    size = (height, width) if model.fixed_size is None else (model.fixed_size, model.fixed_size)
    return torch.empty(2, model.in_channels, *size, device="meta")


def shared(name: str) -> set[str]:
    """Outputs that are not one for each image."""
    return SHARED | ({"proposals", "rows"} if registry.find_model(name).family in ROWS else set())


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [tensor for one in (found.values() if isinstance(found, dict) else found) for tensor in tensors(one)]


def truth(*boxes: tuple[float, ...]) -> Instances:
    """x1, y1, x2, y2, label of each."""
    rows = torch.tensor(boxes, dtype=torch.float32)
    return Instances(rows[:, :4], rows[:, 4].long())


def targets(model: Detector) -> list[Instances]:
    """Two images with objects of every size and class."""
    s = side(model) / 64
    return [
        truth((4 * s, 4 * s, 16 * s, 14 * s, 0), (20 * s, 8 * s, 60 * s, 60 * s, 1), (0, 0, 64 * s, 64 * s, 2)),
        truth((33 * s, 35 * s, 39 * s, 40 * s, 2), (2 * s, 30 * s, 30 * s, 62 * s, 0)),
    ]


def masked(name: str, one: Instances) -> Instances:
    """With the whole of each box as its mask, where a network learns those."""
    if "mask" not in name:
        return one
    place = torch.arange(side(small(name))) + 0.5
    x1, y1, x2, y2 = one.boxes.T[..., None, None]
    inside = (place > x1) & (place < x2) & (place[:, None] > y1) & (place[:, None] < y2)
    return replace(one, masks=inside)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_every_family_has_a_small_network() -> None:
    assert {registry.find_model(n).family for n in OWN} == {registry.find_model(n).family for n in NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if registry.find_model(name).facts is not None])
def test_published_facts(name: str) -> None:
    published = registry.find_model(name).published
    assert count_parameters(on_meta(name)) == published.params
    if published.macs is not None and name in WALKED:
        assert count_macs(on_meta(name), published.input) == pytest.approx(published.macs, rel=0.005)
    assert published.paper and published.idea and published.source
    assert 1980 < published.year < 2100
    assert all(0 < value <= 100 for value in published.metrics.values())


@pytest.mark.parametrize("name", WALKED)
def test_other_classes_and_channels(name: str) -> None:
    entry = registry.find_model(name)
    assert all(option.default is not option.empty for option in entry.options.values())
    defaults = {key: option.default for key, option in entry.options.items()}
    if entry.family != "faster_rcnn" or name == "faster_rcnn":  # its published forms set others than they state
        same = build_on_meta(name, **defaults).state_dict()
        assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in on_meta(name).state_dict().items()}

    model = build_on_meta(name, num_classes=7, in_channels=2)
    assert (model.num_classes, model.in_channels) == (7, 2)
    assert all(key in shared(name) or len(value) == 2 for key, value in model(meta_images(model)).items())
    for option in ("num_classes", "in_channels"):
        with pytest.raises(InputError, match=f"{option} must be"):
            build_on_meta(name, **{option: 0})
    with pytest.raises(InputError, match="did you mean num_classes"):
        build_on_meta(name, num_clases=7)


@pytest.mark.parametrize("name", WALKED)
def test_sizes_work_or_are_refused(name: str) -> None:
    model = on_meta(name)
    fixed, step, images = model.fixed_size, model.divisor, meta_images(model)
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
        outputs = model.train()(meta_images(model))
        found = [value for value in [*outputs.values(), *tensors(model.second_stage(outputs))] if value.requires_grad]
        torch.stack([value.sum() for value in found]).sum().backward()
        unused = [n for n, p in model.named_parameters() if p.grad is None]
        if name == "spp_net":  # its convolutions are those of a classification network, as they came
            unused = [n for n in unused if not n.startswith(("network.stem", "network.stages"))]
        assert unused == []
    finally:
        model.eval().zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_of_the_class_that_its_registration_says(name: str) -> None:
    assert type(on_meta(name)) is registry.find_model(name).network


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
    outputs = model(make_images(model))
    parts = [torch.randn(v.shape, generator=generator) * v for key, v in outputs.items() if key not in SHARED]
    torch.cat([part.flatten() for part in parts]).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", OWN)
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
        whole = expected[key]
        if key in SHARED:
            torch.testing.assert_close(value, whole)
        elif key not in shared(name):
            torch.testing.assert_close(value, whole[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OWN)
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
        for batch in ([masked(name, one)] * 2, [masked(name, one), EMPTY]):
            losses = model.loss(outputs, batch)
            assert losses and all(value.ndim == 0 and value.isfinite() for value in losses.values())
            assert all(value >= 0 for value in losses.values())
        assert torch.equal(one.boxes, given)
    assert all(torch.equal(value, outputs_of(name)[key]) for key, value in outputs.items())
    with pytest.raises(InputError, match=f"label {CLASSES}.*num_classes={CLASSES + 1}"):
        model.loss(outputs, [masked(name, truth((10, 10, 40, 50, CLASSES))), EMPTY])


@pytest.mark.parametrize("name", OWN)
def test_nothing_within_a_region_to_ignore_is_wrong(name: str) -> None:
    """With all of an image to be ignored, its loss is not above that of the empty image, and no place answers."""
    model, outputs, size = small(name), outputs_of(name), float(side(small(name)))
    region = masked(name, truth((-8 * size, -8 * size, 9 * size, 9 * size, -1)))
    assert total(model.loss(outputs, [region, region])) <= total(model.loss(outputs, [EMPTY, EMPTY]))
    assert all(not (one.matched >= 0).any() for one in model.assign(outputs, [region, EMPTY]))


@pytest.mark.parametrize("name", SMALL)
def test_assignments_are_of_the_predicted_places(name: str) -> None:
    model, outputs = small(name), outputs_of(name)
    boxes, scores = model.predictions(outputs)
    classes = 1 if model.class_agnostic else CLASSES
    assert boxes.shape == (2, boxes.shape[1], 4) and scores.shape == (2, boxes.shape[1], classes)
    assert boxes.isfinite().all() and scores.min() >= 0 and scores.max() <= 1
    ignoring = truth((10, 10, 40, 50, 1), (60, 60, 62, 64, -1), (70, 64, 120, 110, 0))
    for one, wanted in zip(model.assign(outputs, [ignoring, EMPTY]), ({0, 2}, set()), strict=True):
        assert one.boxes.shape == boxes.shape[1:] and one.matched.shape == boxes.shape[1:2]
        assert one.matched.dtype == torch.int64 and one.matched.min() >= -2
        assert set(one.matched[one.matched >= 0].tolist()) == wanted


@pytest.mark.parametrize("name", OWN)
def test_decode(name: str) -> None:
    model, outputs = small(name), {key: value.clone() for key, value in outputs_of(name).items()}
    for key in outputs.keys() - SHARED if name in SMALL else ():
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


@pytest.mark.parametrize("name", OWN)
def test_state_dict_round_trip(name: str) -> None:
    model, images = small(name), make_images(small(name))
    twin = registry.create_model(name, num_classes=CLASSES, in_channels=CHANNELS, **OWN[name]).eval()
    assert twin.load_state_dict(model.state_dict()) == ([], [])
    with torch.no_grad():
        outputs = twin(images)
    assert all(torch.equal(value, outputs[key]) for key, value in outputs_of(name).items())
    assert twin.initialize_from(model.state_dict()) == []  # type: ignore[operator]


@pytest.mark.parametrize("name", ["rfbnet", "ctpn", "yolov1", "yolov2", "yolov4"])  # others in their own tests
def test_exports_with_any_batch(name: str) -> None:
    model, images = small(name), make_images(small(name), batch=3)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: Dim("batch", max=64)},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-4)


# Regions


def with_proposals(name: str, boxes: Tensor | None) -> Outputs:
    """What a small network gives for two images, with other proposals in each: (P, 4), or None for its own."""
    model, outputs = small(name), dict(outputs_of(name))
    if boxes is None:
        return outputs
    if registry.find_model(name).family in ROWS:
        with torch.no_grad():
            return model(make_images(model), [boxes, boxes])
    count = outputs["proposals"].shape[1] - len(boxes)
    lacking = torch.cat([torch.zeros(len(boxes)), torch.full((count,), -torch.inf)]).expand(2, -1)
    filled = torch.cat([boxes, torch.zeros(count, 4)]).expand(2, -1, -1)
    return {**outputs, "proposals": filled, "proposal_scores": lacking}


@pytest.mark.parametrize("name", BY_REGIONS)
@pytest.mark.parametrize("proposed", ["own", "far", "tiny", "outside", "none"])
def test_any_proposals_can_be_learned_from_and_evaluated(name: str, proposed: str) -> None:
    """Images without objects, with boxes of a pixel, with proposals that are all background, with none at all."""
    model, size = small(name), float(side(small(name)))
    boxes = {
        "own": None,
        "far": torch.tensor([[100.0, 100, 120, 125], [90, 100, 128, 128]]),
        "tiny": torch.tensor([[9.0, 9, 10, 10], [127, 127, 128, 128]]),
        "outside": torch.tensor([[-40.0, -30, 20, 20], [100, 100, 200, 140]]),
        "none": torch.zeros(0, 4),
    }[proposed]
    outputs = with_proposals(name, boxes)
    for one in (EMPTY, truth((9, 9, 10, 10, 0)), truth((4, 4, 40, 50, 1), (127, 127, 128, 128, 2))):
        for batch in ([masked(name, one)] * 2, [masked(name, one), EMPTY]):
            losses = model.loss(outputs, batch)
            assert losses and all(value.ndim == 0 and value.isfinite() and value >= 0 for value in losses.values())
            if any(value.requires_grad for value in losses.values()):
                total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)
    found, (places, scores) = model.decode(outputs, score_threshold=0.0), model.predictions(outputs)
    assert len(found) == len(places) == len(scores) == 2
    assert places.isfinite().all() and scores.min(dim=-1).values.ge(0).all() and scores.le(1).all()
    assert proposed != "none" or not any(map(len, found))
    for one in found:
        assert one.scores is not None and one.scores.isfinite().all()
        assert ((one.boxes >= 0) & (one.boxes <= size)).all()


@pytest.mark.parametrize("name", BY_REGIONS)
def test_a_batch_of_regions_is_its_images(name: str) -> None:
    model, images = small(name), make_images(small(name))
    given = [torch.tensor([[4.0, 4, 60, 70], [30, 20, 90, 128]]), torch.tensor([[0.0, 0, 128, 128]])]
    options = [{"proposals": given}, {"proposals": given[:1]}, {"proposals": given[1:]}]
    if registry.find_model(name).family not in ROWS:
        options = [{}, {}, {}]
    with torch.no_grad():
        together = model.decode(model(images, **options[0]), score_threshold=0.0)
        alone = [model.decode(model(images[k : k + 1], **options[k + 1]), score_threshold=0.0)[0] for k in (0, 1)]
    assert any(map(len, together))
    for one, other in zip(together, alone, strict=True):
        assert one.scores is not None and other.scores is not None
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-4)
        assert one.boxes.shape == other.boxes.shape


@pytest.mark.parametrize("name", BY_REGIONS)
def test_the_loss_reaches_every_trained_part(name: str) -> None:
    model = small(name)
    losses = model.loss(model(make_images(model)), [masked(name, one) for one in targets(model)])
    total(losses).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None]
    if name == "spp_net":  # its convolutions are those of a classification network, as they came
        assert still and all(n.startswith(("network.stem", "network.stages")) for n in still)
    else:
        assert still == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(
        any(p.grad is not None and p.grad.any() for p in child.parameters())
        for child in model.children()
        if any(True for _ in child.parameters())
    )
    model.zero_grad(set_to_none=True)
