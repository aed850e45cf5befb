"""The images that come with the installation are the originals, pixel for pixel, and each has its licence noted."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.data import sample_files
from opsin.data.formats import digit_scenes


def test_the_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    images, ours = sample_files.read_digits()
    assert images.dtype == np.uint8 and ours.dtype == np.int64
    np.testing.assert_array_equal(images.reshape(-1, 64), pixels)
    np.testing.assert_array_equal(ours, labels)


@pytest.mark.parametrize("name", sorted(sample_files.PHOTOGRAPHS))
def test_a_photograph_is_scikit_images(name: str) -> None:
    originals = pytest.importorskip("skimage.data")
    image, original = sample_files.read_photograph(name), getattr(originals, name)()
    assert image.dtype == original.dtype and image.strides == original.strides
    np.testing.assert_array_equal(image, original)


def test_every_file_is_used_and_noted() -> None:
    files = {path.name for path in sample_files.SAMPLES.iterdir()}
    photographs = {path.name for path in sample_files.PHOTOGRAPHS.values()}
    assert files == {*photographs, "digits.npz", "words.txt.gz", "NOTICE.md"}
    notice = (sample_files.SAMPLES / "NOTICE.md").read_text("utf-8")
    assert not [name for name in files - {"NOTICE.md"} if f"`{name}`" not in notice]
    used = {name for names in digit_scenes._PHOTOGRAPHS.values() for name in names}
    assert used == set(sample_files.PHOTOGRAPHS)
