"""The jitter in one pass against torchvision's four: the same draws, the same images, hue by its own formula."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from opsin.data import Preprocessing, create_augmentation
from opsin.data.transforms.colour import FusedColorJitter, PCALighting, colour_map, jitter_colours, rotation

ALL: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}


def middling(seed: int, *shape: int) -> Tensor:
    """Colours from which no jitter of 0.4 leaves [0, 255] on its way."""
    return torch.from_numpy(np.random.RandomState(seed).randint(70, 125, shape or (3, 48, 64), dtype=np.uint8))


def both(options: dict[str, Any], image: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The same draws, by us and by torchvision."""
    outputs = []
    for kind in (FusedColorJitter, v2.ColorJitter):
        torch.manual_seed(seed)
        outputs.append(kind(**options)(image))
    assert outputs[0].dtype == image.dtype and outputs[0].shape == image.shape
    return outputs[0], outputs[1]


def levels(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_within_two_levels_of_torchvision() -> None:
    for seed in range(150):
        assert levels(*both(ALL, middling(seed), seed)) <= 2


def test_in_every_order_at_the_ends_of_the_ranges() -> None:
    jitter = FusedColorJitter(**ALL)
    reference = v2.ColorJitter(**ALL)
    image = middling(0)
    for order in itertools.permutations(range(3)):
        for b, c, s in itertools.product((0.6, 1.0, 1.4), repeat=3):
            factors = {"brightness_factor": b, "contrast_factor": c, "saturation_factor": s, "hue_factor": None}
            params = {"fn_idx": torch.tensor([*order, 3]), **factors}
            assert levels(jitter.transform(image, params), reference.transform(image, params)) <= 2


@pytest.mark.parametrize("name", ALL)
def test_one_step_alone_is_torchvisions_even_where_it_saturates(name: str) -> None:
    image = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, 64, 64), dtype=np.uint8))
    for seed in range(20):
        ours, theirs = both({name: (0.0, 2.0)}, image, seed)
        assert levels(ours, theirs) <= (0 if name == "brightness" else 1)


def test_photographs_differ_little_although_they_saturate() -> None:
    photograph = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1)[:, 100:300, 100:400]
    differences = []
    for seed in range(11):
        ours, theirs = both(ALL, photograph, seed)
        differences.append(float((ours.float() - theirs.float()).abs().mean()))
    assert np.median(differences) < 0.5 and max(differences) < 6


def test_float_images_are_torchvisions_where_nothing_saturates() -> None:
    for seed in range(20):
        ours, theirs = both(ALL, middling(seed).double() / 255, seed)
        assert torch.allclose(ours, theirs, atol=2e-3)  # a mean of grey weights that sum to 0.9999
        ours, theirs = both(ALL, middling(seed).float() / 255, seed)
        assert torch.allclose(ours, theirs, atol=2e-3) and bool(((ours >= 0) & (ours <= 1)).all())


def test_hue_is_a_rotation_about_grey() -> None:
    for turns in (-0.5, -0.2, 0.0, 0.1, 1 / 3):
        matrix = np.array(rotation(turns))
        assert np.allclose(matrix @ matrix.T, np.eye(3)) and math.isclose(np.linalg.det(matrix), 1)
        assert np.allclose(matrix @ np.ones(3), np.ones(3))  # grey stays, and so does R + G + B
        assert math.isclose(np.trace(matrix), 1 + 2 * math.cos(2 * math.pi * turns), abs_tol=1e-12)
    assert np.allclose(np.array(rotation(0.1)) @ rotation(0.2), rotation(0.3))
    assert np.allclose(rotation(1 / 3), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # red to green to blue


def test_hue_of_a_third_of_a_turn_is_torchvisions() -> None:
    image = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, 32, 32), dtype=np.uint8))
    for turns in (-1 / 3, 1 / 3):
        assert levels(*both({"hue": (turns, turns)}, image, 0)) <= 1
    grey = image[:1].expand(3, -1, -1)
    assert torch.equal(FusedColorJitter(hue=0.5)(grey), grey)


def test_the_matrix_by_hand() -> None:
    identity = np.eye(3, 4)
    assert np.allclose(colour_map([], [9.0, 9.0, 9.0]), identity)
    assert np.allclose(colour_map([("brightness", 0.5)], [9.0, 9.0, 9.0]), 0.5 * identity)
    assert np.allclose(
        np.array(colour_map([("saturation", 0.0)], [9.0, 9.0, 9.0]))[:, :3], [[0.2989, 0.587, 0.114]] * 3
    )
    # Brightness 2, then contrast 1/2 of an image whose mean colour has the grey 100, and by then 200: x + 100.
    grey = [100 / 0.9999] * 3
    expected = np.concatenate([np.eye(3), np.full((3, 1), 100.0)], axis=1)
    assert np.allclose(colour_map([("brightness", 2.0), ("contrast", 0.5)], grey), expected)
    # What is cut off after the first step, half a level on average, is doubled by the second.
    doubled = colour_map([("brightness", 1.0), ("brightness", 2.0)], grey, cut=0.5)
    assert np.allclose(doubled, np.concatenate([2 * np.eye(3), np.full((3, 1), -1.0)], axis=1))


def test_no_steps_and_no_pixels() -> None:
    image = middling(0)
    assert torch.equal(jitter_colours(image, []), image) and torch.equal(FusedColorJitter()(image), image)
    assert FusedColorJitter(0.4, 0.4)(image[:, :0]).shape == (3, 0, 64)
    assert FusedColorJitter(0.4, 0.4)(image[None][:0]).shape == (0, 3, 48, 64)


def test_shapes_and_kinds() -> None:
    jitter = FusedColorJitter(0.4, 0.4, 0.4, 0.1)
    batch = middling(0, 4, 3, 16, 16)
    torch.manual_seed(0)
    changed = jitter(batch)
    for one, other in zip(changed, batch, strict=True):  # each image has its own mean
        torch.manual_seed(0)
        assert levels(one, jitter(other)) <= 1
    strided = batch[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    torch.manual_seed(0)
    assert torch.equal(jitter(strided), changed[0])
    torch.manual_seed(0)
    image = jitter(tv_tensors.Image(batch[0]))
    assert isinstance(image, tv_tensors.Image) and torch.equal(image, changed[0])
    grey = middling(0, 1, 16, 16)
    assert torch.equal(*both({"brightness": 0.4, "contrast": 0.4, "hue": 0.1}, grey, 0))  # left to torchvision
    assert isinstance(jitter(Image.new("RGB", (8, 8))), Image.Image)
    before = batch[0].clone()
    jitter(batch[0])
    assert torch.equal(batch[0], before)


@pytest.mark.parametrize("transform", [FusedColorJitter(0.4, 0.4, 0.4, 0.1), PCALighting(0.5)])
def test_masks_boxes_and_points_are_left_alone(transform: v2.Transform) -> None:
    boxes: Any = tv_tensors.BoundingBoxes
    points: Any = tv_tensors.KeyPoints
    sample = {
        "image": tv_tensors.Image(middling(0)),
        "mask": tv_tensors.Mask(middling(1)),
        "boxes": boxes([[1.0, 2.0, 3.0, 4.0]], format="XYXY", canvas_size=(48, 64)),
        "points": points([[1.0, 2.0]], canvas_size=(48, 64)),
    }
    changed = transform(sample)
    assert all(torch.equal(changed[key], sample[key]) for key in ("mask", "boxes", "points"))
    assert isinstance(changed["image"], tv_tensors.Image) and not torch.equal(changed["image"], sample["image"])


def test_pca_lighting_of_float_images() -> None:
    image = middling(0)
    torch.manual_seed(0)
    levels_ = PCALighting()(image)
    torch.manual_seed(0)
    fractions = PCALighting()(image.float() / 255)
    assert (levels_ / 255 - fractions).abs().max() <= 0.5 / 255 + 1e-6


def test_a_recipe_names_it() -> None:
    preprocessing = Preprocessing(size=(24, 24), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = ["random_resized_crop", "random_horizontal_flip", {"fused_color_jitter": {"hue": [-0.1, 0.1], **ALL}}]
    augmentation = create_augmentation(spec, preprocessing)
    assert augmentation is not None
    plain = v2.Compose([v2.RandomResizedCrop(24), v2.RandomHorizontalFlip(), v2.ColorJitter(**ALL, hue=0.1)])
    torch.manual_seed(0)
    ours = augmentation(middling(0))
    torch.manual_seed(0)
    assert (ours.float() - plain(middling(0)).float()).abs().mean() < 12  # the same crop and factors, another hue
