"""Augmentation and mixing: torchvision's under the same seed, ours by their papers' formulas."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from opsin.data import Augmentation, Preprocessing, create_augmentation, create_mixing, describe_augmentation
from opsin.data.transforms.augmentation import _KNOWN, PRESETS
from opsin.data.transforms.colour import PCALighting
from opsin.data.transforms.geometry import ScaleJitterCrop
from opsin.data.transforms.sample import Sample
from opsin.errors import InputError

RANDOM = np.random.RandomState(0)
COLOUR = Preprocessing(size=(24, 32), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
GREY = Preprocessing(size=(28, 28), channels=1, mean=(0.5,), std=(0.2,))
IMAGE = torch.from_numpy(RANDOM.randint(0, 256, (3, 40, 60), dtype=np.uint8))
NEEDED = {
    "random_affine": {"degrees": 10},
    "random_posterize": {"bits": 4},
    "random_rotation": {"degrees": 10},
    "random_solarize": {"threshold": 128},
    "gaussian_blur": {"kernel_size": 3},
    "random_adjust_sharpness": {"sharpness_factor": 2},
    "scale_jitter_crop": {"min": 40, "max": 60},
    "jpeg": {"quality": 50},
}
RESIZING = {
    "random_resize": {"min_size": 40, "max_size": 50},
    "random_shortest_size": {"min_size": [40, 50]},
    "scale_jitter": {"target_size": [80, 100], "scale_range": [1.0, 1.2]},
}
RESIZED = {name: ["random_crop"] for name in ("random_resize", "random_shortest_size")}
NEEDED |= {name: RESIZING[name] for name in RESIZED}


def changed(augmentation: Augmentation, image: Tensor = IMAGE) -> Tensor:
    """An image alone, with its partners, and a label that goes along."""
    sample: Sample = {"image": image} if augmentation.partners else {"image": image, "label": 7}
    result = augmentation(sample, [sample] * augmentation.partners)
    assert result.keys() == sample.keys() and result.get("label", 7) == 7
    return result["image"]


def test_an_image_alone_gives_an_image() -> None:
    augmentation = create_augmentation("light", COLOUR)
    assert augmentation is not None
    torch.manual_seed(0)
    image = augmentation(IMAGE)
    torch.manual_seed(0)
    assert torch.equal(image, changed(augmentation))


def test_a_sample_with_nothing_to_move_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of a label's sample sees a plain tensor, as torchvision's transforms of images do."""
    augmentations = [create_augmentation([{name: NEEDED.get(name)}, *RESIZED.get(name, ())], COLOUR) for name in _KNOWN]
    without = SimpleNamespace(BoundingBoxes=tv_tensors.BoundingBoxes, Mask=tv_tensors.Mask)
    monkeypatch.setattr("opsin.data.transforms.geometry.tv_tensors", without)
    for augmentation in augmentations:
        assert augmentation is not None and type(changed(augmentation)) is Tensor


@pytest.mark.parametrize("name", ["mosaic", "mixup"])
def test_labels_of_whole_images_are_not_mixed_by_steps(name: str) -> None:
    augmentation = create_augmentation([name], COLOUR)
    assert augmentation is not None
    sample: Sample = {"image": IMAGE, "label": 7}
    with pytest.raises(InputError, match=f"augmentation {name} mixes images, and label of a whole image cannot"):
        augmentation(sample, [sample] * 3)
    with pytest.raises(InputError, match=r"mixes up to \d other samples, and got 0"):
        augmentation(IMAGE)


def test_what_two_systems_called_alike() -> None:
    """torchvision's ScaleJitter is told by its target; zooming out and distorting are one step for every truth."""
    spec = [{"scale_jitter": {"target_size": [80, 100], "scale_range": [1.0, 1.2]}}, "random_crop"]
    steps = v2.Compose([v2.ScaleJitter((80, 100), (1.0, 1.2)), v2.RandomCrop((24, 32))])
    augmentation = create_augmentation(spec, COLOUR)
    assert augmentation is not None
    for seed in range(5):
        torch.manual_seed(seed)
        image = changed(augmentation)
        torch.manual_seed(seed)
        assert torch.equal(image, steps(COLOUR.prepare(IMAGE)))
    for one, other in (("random_zoom_out", "expand"), ("random_photometric_distort", "photometric_distort")):
        images = []
        for name in (one, other):
            augmentation = create_augmentation([name], COLOUR)
            assert augmentation is not None
            torch.manual_seed(3)
            images.append(changed(augmentation))
        assert torch.equal(*images)


@pytest.mark.parametrize("name", sorted(set(_KNOWN) - {"random_resize", "random_shortest_size"}))
def test_every_name_works(name: str) -> None:
    for preprocessing in (COLOUR, GREY):
        if preprocessing is GREY and name == "pca_lighting":
            continue
        augmentation = create_augmentation([{name: NEEDED.get(name)}], preprocessing)
        assert augmentation is not None
        for seed in range(3):
            torch.manual_seed(seed)
            image = changed(augmentation)
            assert image.dtype == torch.uint8 and image.shape == (preprocessing.channels, *preprocessing.size)


@pytest.mark.parametrize("name", RESIZING)
def test_resizing_ends_with_a_crop(name: str) -> None:
    augmentation = create_augmentation([{name: RESIZING[name]}, "random_crop"], COLOUR)
    assert augmentation is not None and changed(augmentation).shape == (3, 24, 32)
    with pytest.raises(InputError, match=r"turns images of shape \(3, 24, 32\) into .*; end it with random_crop"):
        create_augmentation([{name: RESIZING[name]}], COLOUR)


def test_steps_are_torchvisions_after_prepare() -> None:
    spec = [
        {"random_crop": {"padding": 4}},
        "random_horizontal_flip",
        {"random_affine": {"degrees": 9, "interpolation": "bilinear"}},
        {"random_erasing": {"p": 0.5}},
    ]
    steps = [
        v2.RandomCrop((24, 32), padding=4),
        v2.RandomHorizontalFlip(),
        v2.RandomAffine([-9, 9], interpolation=InterpolationMode.BILINEAR),
        v2.RandomErasing(0.5),
    ]
    augmentation = create_augmentation(spec, COLOUR)
    assert augmentation is not None
    for seed in range(20):
        torch.manual_seed(seed)
        image = changed(augmentation)
        torch.manual_seed(seed)
        assert torch.equal(image, v2.Compose(steps)(COLOUR.prepare(IMAGE)))


def test_random_resized_crop_takes_the_place_of_prepare() -> None:
    augmentation = create_augmentation("imagenet", COLOUR)
    assert augmentation is not None
    expected = v2.Compose([v2.RandomResizedCrop((24, 32), antialias=True), v2.RandomHorizontalFlip()])
    for seed in range(10):
        torch.manual_seed(seed)
        image = changed(augmentation)
        torch.manual_seed(seed)
        assert torch.equal(image, expected(IMAGE))
    assert changed(augmentation, IMAGE[:1]).shape == (3, 24, 32)  # a grey image among coloured ones


def test_presets() -> None:
    assert create_augmentation("none", COLOUR) is None
    assert create_augmentation(None, COLOUR) is None
    assert create_augmentation([], COLOUR) is None
    for name in set(PRESETS) - {"none"}:
        for preprocessing in (COLOUR, GREY):
            augmentation = create_augmentation(name, preprocessing)
            assert augmentation is not None and changed(augmentation).shape[1:] == preprocessing.size
        assert len(describe_augmentation(name)) == len(PRESETS[name])
    with pytest.raises(InputError, match="unknown augmentation preset 'imagnet'; did you mean imagenet"):
        create_augmentation("imagnet", COLOUR)


def test_creation_leaves_random_numbers_and_spec_alone() -> None:
    spec = [{"random_crop": {"padding": 4}}]
    state = torch.get_rng_state()
    create_augmentation(spec, COLOUR)
    assert torch.equal(torch.get_rng_state(), state)
    assert spec == [{"random_crop": {"padding": 4}}]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ["random_horizontal_flop"],
            "unknown augmentation 'random_horizontal_flop'; did you mean random_horizontal_flip",
        ),
        ([{"random_crop": {"paddin": 4}}], "unknown option of random_crop 'paddin'; did you mean padding"),
        ([{"random_rotation": {"degrees": -5}}], "random_rotation cannot be made"),
        ([{"random_rotation": None}], "random_rotation cannot be made"),
        (
            [{"random_affine": {"degrees": 5, "interpolation": "cubic"}}],
            "unknown interpolation of random_affine 'cubic'",
        ),
        ([{"auto_augment": {"policy": "imagenett"}}], "did you mean imagenet"),
        (["random_horizontal_flip", "random_resized_crop"], "must come first"),
        ([{"random_crop": {"size": 20}}], "turns images of shape"),
        ([{"scale_jitter_crop": {"min": 16, "max": 64}}], "not below the size"),
        ([{"random_crop": {}, "jpeg": {}}], "a name or one"),
        (["mix_up"], "unknown augmentation"),
        ([{"random_horizontal_flip": {"p": 1.5}}], "p is a probability, from 0 to 1, got 1.5"),
        ([{"scale_jitter": {"target_size": [80, 100], "scale": [1, 2]}}], "unknown option of scale_jitter 'scale'"),
    ],
)
def test_wrong_specs(spec: list, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        create_augmentation(spec, COLOUR)
    assert "\n" not in str(caught.value)


def test_colour_shift_of_grey_images_is_refused() -> None:
    with pytest.raises(InputError, match="needs 3 channels"):
        create_augmentation(["pca_lighting"], GREY)


def test_description() -> None:
    spec = [
        {"random_crop": {"padding": 4}},
        "random_horizontal_flip",
        {"random_erasing": {"p": 0.1}},
        "trivial_augment_wide",
    ]
    assert describe_augmentation(spec) == [
        "random crop (padding 4)",
        "random horizontal flip (probability 0.5)",
        "random erasing (probability 0.1)",
        "trivial augment wide",
    ]
    assert describe_augmentation(None) == describe_augmentation("none") == []


def test_pca_lighting_is_the_papers_formula() -> None:
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    assert np.abs(vectors.T @ vectors - np.eye(3)).max() < 2e-4  # they are orthonormal
    torch.manual_seed(3)
    image = PCALighting()(IMAGE)
    torch.manual_seed(3)
    alpha = (torch.randn(3) * 0.1).numpy()
    shift = 255 * vectors @ (alpha * values)
    expected = np.clip(np.rint(IMAGE.numpy() + shift[:, None, None]), 0, 255)
    assert np.abs(image.numpy() - expected).max() <= 1
    assert torch.equal(PCALighting(std=0.0)(IMAGE), IMAGE)


def test_scale_jitter_crop_is_resize_then_crop() -> None:
    shorter = set()
    for seed in range(200):
        torch.manual_seed(seed)
        image = ScaleJitterCrop((24, 32), min=40, max=44)(IMAGE)
        torch.manual_seed(seed)
        side = int(torch.randint(40, 45, ()))
        shorter.add(side)
        whole = v2.functional.resize(IMAGE, [side], antialias=True)
        top, left = int(torch.randint(0, whole.shape[1] - 23, ())), int(torch.randint(0, whole.shape[2] - 31, ()))
        assert torch.equal(image, whole[:, top : top + 24, left : left + 32])
    assert shorter == {40, 41, 42, 43, 44}


# Mixing


def batch(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 3, 8, 8), torch.arange(6) % classes


def test_mixing_is_off_by_default() -> None:
    assert create_mixing(num_classes=3) is None
    with pytest.raises(InputError, match=r"mixing\.mixup is -1"):
        create_mixing(mixup=-1, num_classes=3)


def test_mixup_mixes_images_and_labels_by_one_share() -> None:
    mixing = create_mixing(mixup=0.4, num_classes=3)
    assert mixing is not None
    images, labels = batch(3)
    mixed, soft = mixing(images, labels)
    share = float(soft[0, 0])  # label 0 with its neighbour's label 2
    assert 0 < share < 1 and soft.shape == (6, 3)
    assert torch.allclose(soft.sum(1), torch.ones(6))
    assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-5)


def test_cutmix_mixes_labels_by_area() -> None:
    mixing = create_mixing(cutmix=1.0, num_classes=3)
    assert mixing is not None
    images, labels = batch(3)
    for _ in range(10):
        mixed, soft = mixing(images, labels)
        own = (mixed == images).all(dim=1)[0].float().mean()
        assert torch.allclose(soft[0, 0], own, atol=1e-6) and torch.allclose(soft.sum(1), torch.ones(6))


def test_both_take_turns_and_obey_the_global_generator() -> None:
    mixing = create_mixing(mixup=0.4, cutmix=1.0, num_classes=3)
    assert mixing is not None
    images, labels = batch(3)
    torch.manual_seed(0)
    first = [mixing(images, labels)[0] for _ in range(20)]
    torch.manual_seed(0)
    assert all(torch.equal(mixing(images, labels)[0], one) for one in first)
    patched = [bool((one == images).any()) for one in first]  # a cut leaves pixels as they were
    assert any(patched) and not all(patched)


def test_mixing_of_multi_label_rows() -> None:
    mixing = create_mixing(mixup=0.4, num_classes=3)
    assert mixing is not None
    images, rows = torch.randn(2, 1, 4, 4), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    soft = mixing(images, rows)[1]
    assert torch.allclose(soft[0] + soft[1], torch.ones(3)) and soft[0, 0] == soft[0, 1]
