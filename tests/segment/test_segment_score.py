"""A folder of masks held against data: by name, by number and by colour; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import evaluate_predictions
from opsin.data import Source, Split
from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.inputs import ImageArray
from opsin.errors import InputError
from opsin.segment.metrics import Counts, confusion_matrix, evaluate
from opsin.segment.score import score

Array = np.ndarray
NAMES = ["road", "tree", "sky"]
COLOURS = np.array([[128, 64, 128], [0, 128, 0], [10, 20, 200]], np.uint8)


def save(values: Array, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Array, Array]:
    """A folder of data, its true maps and those that were found."""
    random, data = np.random.default_rng(0), tmp_path / "data"
    truth = random.integers(0, 3, (4, 10, 14)).astype(np.uint8)
    found = np.where(random.random(truth.shape) < 0.2, random.integers(0, 3, truth.shape), truth).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = 255
    for i in range(4):
        save(random.integers(0, 256, (10, 14, 3)).astype(np.uint8), data / f"images/{i}.png")
        save(truth[i], data / f"masks/{i}.png")
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(NAMES, COLOURS.tolist(), strict=True)]
    (data / "class_dict.csv").write_text("\n".join(["name,r,g,b", *rows]))
    return data, truth, found


def expected(truth: Array, found: Array, count: int = 3) -> dict[str, float]:
    matrices = [confusion_matrix(own, theirs, count) for own, theirs in zip(truth, found, strict=True)]
    return evaluate(NAMES[:count], [Counts.of(one) for one in matrices], np.sum(matrices, axis=0)).metrics


@pytest.mark.parametrize("names", ["{}.png", "{}_mask.png", "deep/{}.tif"])
def test_masks_of_numbers(scene: tuple[Path, Array, Array], tmp_path: Path, names: str) -> None:
    data, truth, found = scene
    for i in range(4):
        save(found[i], tmp_path / "found" / names.format(i))
    assert evaluate_predictions(tmp_path / "found", data) == pytest.approx(expected(truth, found))


def test_masks_of_colours_palettes_and_sixteen_bits(scene: tuple[Path, Array, Array], tmp_path: Path) -> None:
    data, truth, found = scene
    found[3, 0] = 255
    save(COLOURS[found[0]], tmp_path / "found/0.png")
    palette = Image.fromarray(found[1])
    palette.putpalette(COLOURS.ravel().tolist())
    palette.save(tmp_path / "found/1.png")
    save(found[2].astype(np.uint16), tmp_path / "found/2.png")
    save(np.where(found[3] == 255, 65535, found[3].astype(np.uint16)).astype(np.uint16), tmp_path / "found/3.png")
    assert evaluate_predictions(tmp_path / "found", data) == pytest.approx(expected(truth, found))


def test_masks_of_two_classes_may_be_0_and_255(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 2, (2, 3, 8, 9)).astype(np.uint8)
    found[1] = 0
    for i in range(3):
        save(random.integers(0, 256, (8, 9)).astype(np.uint8), tmp_path / f"data/images/{i}.png")
        save(255 * truth[i], tmp_path / f"data/masks/{i}.png")
        save(255 * found[i], tmp_path / f"found/{i}.png")
    assert evaluate_predictions(tmp_path / "found", tmp_path / "data") == pytest.approx(expected(truth, found, 2))
    assert "255 is taken as foreground" in capsys.readouterr().err


def test_borders_and_regions(scene: tuple[Path, Array, Array], tmp_path: Path) -> None:
    data, _, found = scene
    for i in range(4):
        save(found[i], tmp_path / f"found/{i}.png")
    metrics = evaluate_predictions(tmp_path / "found", data, borders=True, regions="tree")
    assert {"border_f1", "hausdorff_95", "adapted_rand_error", "variation_of_information"} <= metrics.keys()
    with pytest.raises(InputError, match="unknown class of regions 'tre'; did you mean tree"):
        evaluate_predictions(tmp_path / "found", data, regions="tre")


def test_what_is_refused(scene: tuple[Path, Array, Array], tmp_path: Path) -> None:
    data, _, found = scene
    folder = tmp_path / "found"
    folder.mkdir()
    with pytest.raises(InputError, match="holds no masks; expected a folder with a mask of each image"):
        evaluate_predictions(folder, data)
    for i in range(3):
        save(found[i], folder / f"{i}.png")
    with pytest.raises(InputError, match=r"has no mask for 1 of 4 images .* the first is .*3\.png"):
        evaluate_predictions(folder, data)
    save(found[3, 1:], folder / "3.png")
    with pytest.raises(InputError, match=r"3\.png is 14x9 pixels \(width x height\), the mask of .* 14x10"):
        evaluate_predictions(folder, data)
    save(found[3] + 1, folder / "3.png")
    with pytest.raises(InputError, match=r"3\.png: a map of found classes holds 3; expected 0 to 2"):
        evaluate_predictions(folder, data)
    save(COLOURS[found[3]] + 1, folder / "3.png")
    with pytest.raises(InputError, match=r"3\.png: the colour \(.*\) is that of no class"):
        evaluate_predictions(folder, data)
    save(found[3], folder / "3.png")
    save(found[3], folder / "deep/3.tif")
    with pytest.raises(InputError, match=r"name it once|has a mask already"):
        evaluate_predictions(folder, data)
    (folder / "deep/3.tif").unlink()
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3\.png cannot be read"):
        evaluate_predictions(folder, data)


@pytest.mark.parametrize("names", [("00-lung", "01-heart"), ("lung", "heart")])
def test_classes_that_overlap_have_a_folder_an_image(tmp_path: Path, names: tuple[str, str]) -> None:
    random = np.random.default_rng(0)
    truth, found = random.random((2, 3, 2, 8, 9)) < 0.4
    images = torch.from_numpy(random.integers(0, 256, (3, 1, 8, 9)).astype(np.uint8))
    split = Split(ImageArray(images, "scan"), ClassMaps(MapArray(truth), ["lung", "heart"], overlapping=True))
    source = Source("scans", "memory", {"all": split})
    for i in range(3):
        for k, name in enumerate(names):
            save(255 * found[i, k].astype(np.uint8), tmp_path / f"scan[{i}]/{name}.png")
    metrics = score(tmp_path, source, "all").metrics
    counts = [Counts.of_masks(own, theirs) for own, theirs in zip(truth, found, strict=True)]
    assert metrics == pytest.approx(evaluate(["lung", "heart"], counts, None).metrics)
    (tmp_path / f"scan[1]/{names[1]}.png").unlink()
    with pytest.raises(InputError, match=r"scan\[1\] has no mask of 'heart'"):
        score(tmp_path, source, "all")
    save(np.zeros((8, 9), np.uint8), tmp_path / "scan[1]/07.png")
    with pytest.raises(InputError, match=r"07\.png is the mask of no class"):
        score(tmp_path, source, "all")
