"""Moves of border points: within their radius, the same for all that has a place, and nothing from outside."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from opsin.data import Preprocessing, create_augmentation
from opsin.data.transforms.moving_points import MovingLeastSquares, displace, reach
from opsin.errors import InputError
from opsin.ops.moving_least_squares import border_points


def test_no_moves_change_nothing() -> None:
    image = torch.rand(1, 32, 100)
    torch.testing.assert_close(MovingLeastSquares(radius=0)(image), image, atol=1e-5, rtol=0)
    assert displace(torch.zeros(2, 8, 2), (32, 100), 10).abs().max() < 1e-5


def test_a_border_point_is_read_where_it_was() -> None:
    """At the place to which a point was moved the image is read at the point itself."""
    moves = 2 * torch.rand(1, 8, 2, generator=torch.Generator().manual_seed(0)) - 1
    field = displace(moves, (64, 200), 6)[0] * torch.tensor([200, 64]) / 2
    fiducials = border_points(3, 64, 200)
    moved = fiducials + moves[0] * reach(3, (64, 200), 6)
    assert torch.equal(reach(3, (64, 200), 6), torch.tensor([12.0, 12.0]))  # twice as high, twice as far
    inside = [k for k in range(8) if 2 < moved[k, 0] < 198 and 2 < moved[k, 1] < 62]
    assert len(inside) >= 2
    for k in inside:
        x, y = moved[k].long().tolist()
        read = torch.tensor([x + 0.5, y + 0.5]) + field[y, x]
        assert (read - fiducials[k]).norm() < 2.5  # a pixel beside it, at most


def test_patches_of_a_narrow_image_do_not_fold() -> None:
    across, down = reach(3, (32, 24), 10).tolist()
    assert across == pytest.approx(0.45 * 8) and down == 10


def test_the_border_is_repeated_or_filled() -> None:
    torch.manual_seed(0)
    image = torch.full((1, 32, 100), 7.0)
    for seed in range(5):
        torch.manual_seed(seed)
        torch.testing.assert_close(MovingLeastSquares()(image), image, atol=1e-3, rtol=0)
    values = [float(MovingLeastSquares(fill=-1.0)(image).min()) for _ in range(5)]
    assert min(values) == -1
    assert v2.functional.get_size(MovingLeastSquares()(image)) == [32, 100]


def test_as_a_step_of_a_recipe() -> None:
    grey = Preprocessing(size=(32, 100), channels=1, mean=(0.5,), std=(0.5,))
    augmentation = create_augmentation([{"moving_least_squares": {"patches": 2, "radius": 5, "kind": "rigid"}}], grey)
    assert augmentation is not None
    image = torch.randint(0, 256, (1, 40, 90), dtype=torch.uint8)
    torch.manual_seed(0)
    one = augmentation(image)
    torch.manual_seed(0)
    assert (
        one.shape == (1, 32, 100)
        and torch.equal(one, augmentation(image))
        and not torch.equal(one, augmentation(image))
    )
    for options, message in (
        ({"patches": 0}, "patches is 0; expected 1 or more"),
        ({"radius": 16}, "radius is 16; expected less than 16, half the height"),
        ({"kind": "affine"}, "expected similarity or rigid"),
    ):
        with pytest.raises(InputError, match=message):
            create_augmentation([{"moving_least_squares": options}], grey)
