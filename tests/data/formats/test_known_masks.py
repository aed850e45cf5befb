"""Pascal VOC's and Cityscapes' masks, made here in their layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin.data.drawing import voc_palette
from opsin.data.formats.cityscapes import CLASSES
from opsin.data.open_source import open_source, recognize_task
from opsin.errors import InputError

SIZE = (6, 10)


def save(path: Path, values: np.ndarray | None = None, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    saved = Image.fromarray(pixels if values is None else values)
    if palette:
        saved.putpalette(voc_palette().ravel().tolist())
    saved.save(path)


def voc(folder: Path, prefix: str = "2007_00000") -> dict[str, np.ndarray]:
    maps = {}
    for n in range(5):
        values = np.full(SIZE, n, np.uint8)
        values[0, :4] = [0, 15, 20, 255]
        name = f"{prefix}{n}"
        save(folder / "JPEGImages" / f"{name}.jpg")
        if n < 4:
            save(folder / "SegmentationClass" / f"{name}.png", values, palette=True)
        maps[name] = values
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, numbers in {"trainval": range(4), "val": (2, 3), "test": (4,)}.items():
        (lists / f"{split}.txt").write_text("".join(f"{prefix}{n}\n" for n in numbers))
    return maps


def test_voc(tmp_path: Path) -> None:
    maps = voc(tmp_path)
    assert recognize_task(tmp_path) == "segment"
    source = open_source(tmp_path, "segment")
    names = {key: [Path(split.name(i)).stem for i in range(len(split))] for key, split in source.splits.items()}
    assert names == {"train": ["2007_000000", "2007_000001"], "val": ["2007_000002", "2007_000003"]}
    for key, split in source.splits.items():
        for i, name in enumerate(names[key]):
            assert np.array_equal(split.kind.read(i, SIZE)["class_map"], maps[name])
    assert source.classes[15] == "person" and len(source.classes) == 21
    assert source.meaning["colours"][15] == [192, 128, 128]  # the development kit's
    (problem,) = source.problems
    assert problem.severity == "note" and "1 names have no mask and are left out, 2007_000004" in problem.reason
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/2007_000000.xml").write_text("<annotation><filename>x</filename></annotation>")
    assert recognize_task(tmp_path) == "detect"
    assert open_source(tmp_path, "segment").format == "Pascal VOC masks"


def test_voc_of_ones_own(tmp_path: Path) -> None:
    voc(tmp_path, "street")
    assert open_source(tmp_path, "segment").classes == [f"class {k}" for k in range(21)]
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\n" + "".join(f"c{k}\n" for k in range(1, 21)))
    assert open_source(tmp_path, "segment").classes[:2] == ["_background_", "c1"]
    with pytest.raises(InputError, match="no mask of SegmentationClass is of an image in JPEGImages"):
        for file in (tmp_path / "SegmentationClass").iterdir():
            file.rename(file.with_stem(f"{file.stem}_x"))
        open_source(tmp_path, "segment")


@pytest.mark.parametrize("trained", [False, True], ids=["labels", "train ids"])
def test_cityscapes(tmp_path: Path, trained: bool) -> None:
    labels = np.arange(60, dtype=np.uint8).reshape(SIZE) % 34
    end = "labelTrainIds" if trained else "labelIds"
    by_label = {label: k for k, (_, label, _) in enumerate(CLASSES)}
    expected = np.vectorize(lambda label: by_label.get(label, 255))(labels).astype(np.uint8)
    for split in ("train", "val", "test"):
        save(tmp_path / f"leftImg8bit/{split}/ulm/ulm_000_{split}_leftImg8bit.png")
        values = expected if trained else labels
        values = np.full(SIZE, 255 if trained else 0, np.uint8) if split == "test" else values
        save(tmp_path / f"gtFine/{split}/ulm/ulm_000_{split}_gtFine_{end}.png", values)
        save(tmp_path / f"gtFine/{split}/ulm/ulm_000_{split}_gtFine_color.png")
    assert recognize_task(tmp_path) == "segment"
    source = open_source(tmp_path, "segment")
    assert list(source.splits) == ["train", "val"] and len(source.classes) == 19
    for split in source.splits.values():
        assert np.array_equal(split.kind.read(0, SIZE)["class_map"], expected)
    assert ["benchmark keeps them" in one.reason for one in source.problems] == [True]
    if trained:  # of val alone there are labels only: they are read everywhere
        for split in ("train", "val"):
            save(tmp_path / f"gtFine/{split}/ulm/ulm_000_{split}_gtFine_labelIds.png", labels)
        (tmp_path / "gtFine/val/ulm/ulm_000_val_gtFine_labelTrainIds.png").unlink()
        for split in open_source(tmp_path, "segment").splits.values():
            assert np.array_equal(split.kind.read(0, SIZE)["class_map"], expected)
    with pytest.raises(InputError, match="in Cityscapes what is none of the 19 classes is left out, but ignore is 3"):
        open_source(tmp_path, "segment", ignore=3)
