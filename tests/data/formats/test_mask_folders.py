"""Folders of images and masks in the layouts that people have, against maps that are written here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin.cli import command
from opsin.data.open_source import open_source, recognize_task
from opsin.data.source import check_trainable, verify
from opsin.errors import InputError

SIZE = (6, 8)  # height and width


def image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def classes(seed: int, count: int = 3) -> np.ndarray:
    """A map that holds every class."""
    found = np.random.default_rng(seed).integers(0, count, SIZE).astype(np.uint8)
    found[0, :count] = np.arange(count)
    return found


def mask(path: Path, values: np.ndarray, mode: str | None = None, palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = Image.fromarray(values)
    if palette is not None:
        saved = Image.fromarray(values).convert("P") if mode is None else saved
        saved.putpalette(palette)
    saved.save(path)


LAYOUTS = {
    "beside": ("images/{n}.jpg", "masks/{n}.png", False),
    "within splits": ("{split}/images/{n}.jpg", "{split}/masks/{n}.png", True),
    "around splits": ("images/{split}/{n}.jpg", "masks/{split}/{n}.png", True),
    "one word": ("{split}/image/{n}.png", "{split}/label/{n}.png", True),
    "camvid": ("{split}/{n}.png", "{split}annot/{n}.png", True),
    "carvana": ("{split}/{n}.jpg", "{split}_masks/{n}_mask.gif", True),
    "with a suffix": ("{split}_images/{n}.png", "{split}_labels/{n}_L.png", True),
    "in one folder": ("{n}_sat.jpg", "{n}_mask.png", False),
    "roboflow": ("{split}/{n}.jpg", "{split}/{n}_mask.png", True),
    "prefixes": ("imgs/img_{n}.png", "segmentations/seg_{n}.png", False),
    "wrapped": ("data/JPEGImages/{n}.jpg", "data/Annotations/{n}.png", False),
    "deeper": ("images/city_{k}/{n}.jpg", "gt/city_{k}/{n}.png", False),
    "tiff": ("training/input/{n}.tif", "training/target/{n}.tif", False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_pair_images_with_masks(tmp_path: Path, layout: str) -> None:
    images, masks, divided = LAYOUTS[layout]
    expected = {}
    for s, split in enumerate(("train", "val", "test") if divided else ("all",)):
        for n in range(3):
            names = {"split": split, "n": f"a{n + 10 * s}", "k": n}
            image(tmp_path / images.format(**names), n + 10 * s)
            mask(tmp_path / masks.format(**names), classes(n + 10 * s))
            expected.setdefault(split, {})[str(tmp_path / images.format(**names))] = classes(n + 10 * s)
    assert recognize_task(tmp_path) == "segment"
    source = open_source(tmp_path, "segment")
    keys = {"train": "train"} if layout == "tiff" else {}
    assert list(source.splits) == (list(expected) if not keys else ["train"])
    for key, split in source.splits.items():
        wanted = expected["all" if keys else key]
        assert sorted(split.name(i) for i in range(len(split))) == sorted(wanted)
        for i in range(len(split)):
            found = split.kind.read(i, SIZE)["class_map"]
            assert np.array_equal(found, wanted[split.name(i)])
    assert source.classes == ["class 0", "class 1", "class 2"]
    assert source.problems == []
    assert verify(source) == []
    check_trainable(source, 0, 0)


def _one(folder: Path, values: np.ndarray, **given: object) -> np.ndarray:
    """The map of a folder with a single mask, as it is read."""
    image(folder / "images/a.png")
    mask(folder / "masks/a.png", values, **given)  # type: ignore[arg-type]
    source = open_source(folder, "segment")
    return np.asarray(source.splits["all"].kind.read(0, SIZE)["class_map"])


def test_palettes_are_read_by_their_numbers_never_by_their_colours(tmp_path: Path) -> None:
    odd = [7, 7, 7, 200, 0, 0, 1, 1, 1]
    assert np.array_equal(_one(tmp_path, classes(1), mode="P", palette=odd), classes(1))


def test_255_says_that_nothing_is_known_and_another_value_when_it_is_set(tmp_path: Path) -> None:
    values = classes(1)
    values[2:4, 2:4] = 255
    found = _one(tmp_path, values)
    assert np.array_equal(found, values)
    assert (found == 255).sum() == 4
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png", np.where(values == 255, 1, values))
    source = open_source(tmp_path, "segment", ignore=2)
    assert source.classes == ["class 0", "class 1"]
    read = np.asarray(source.splits["all"].kind.read(0, SIZE)["class_map"])
    assert np.array_equal(read == 255, values == 2)


def test_numbers_from_one_with_0_ignored_count_from_0(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("wall\nfloor\n")
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png", classes(3))
    source = open_source(tmp_path, "segment", ignore=0)
    assert source.classes == ["wall", "floor"]
    read = np.asarray(source.splits["all"].kind.read(0, SIZE)["class_map"])
    assert np.array_equal(read, classes(3) - np.uint8(1))  # 0 - 1 is 255 of uint8


def test_0_and_255_alone_are_two_classes(tmp_path: Path) -> None:
    values = classes(5, 2) * np.uint8(255)
    assert np.array_equal(_one(tmp_path, values), values // 255)
    assert open_source(tmp_path, "segment").classes == ["background", "foreground"]
    assert open_source(tmp_path, "segment", names="membrane,interior").classes == ["membrane", "interior"]
    with pytest.raises(InputError, match="expected each class once"):
        open_source(tmp_path, "segment", names="cell,cell")


def test_greys_far_apart_are_the_levels_that_occur(tmp_path: Path) -> None:
    levels = np.array([0, 127, 255], np.uint8)
    assert np.array_equal(_one(tmp_path, levels[classes(4)]), classes(4))
    assert open_source(tmp_path, "segment").classes == ["grey 0", "grey 127", "grey 255"]
    assert open_source(tmp_path, "segment", ignore=255).classes == ["grey 0", "grey 127"]


def test_16_bits_hold_more_than_255_classes(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint16).reshape(SIZE) * 10
    (tmp_path / "classes.txt").write_text("\n".join(f"c{k}" for k in range(480)))
    found = _one(tmp_path, values)
    assert found.dtype == np.int16
    assert np.array_equal(found, values)


TABLES = {
    "class_dict.csv": "name,r,g,b\nsky,128,128,128\nroad,128,64,128\ncar,64,0,128\nVoid,0,0,0\n",
    "label_colors.txt": "128 128 128\tsky\n128 64 128\t\troad\n64 0 128\tcar\n0 0 0\tVoid\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\n"
    "sky:128,128,128::\nroad:128,64,128::\ncar:64,0,128::\nVoid:0,0,0::\n",
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("coloured", [True, False], ids=["colours", "numbers"])
def test_tables_name_colours_and_numbers(tmp_path: Path, table: str, coloured: bool) -> None:
    colours = np.array([[128, 128, 128], [128, 64, 128], [64, 0, 128], [0, 0, 0]], np.uint8)
    (tmp_path / table).write_text(TABLES[table])
    values = classes(6, 4)
    found = _one(tmp_path, colours[values] if coloured else values)
    assert np.array_equal(found, np.where(values == 3, 255, values))
    source = open_source(tmp_path, "segment")
    assert source.classes == ["sky", "road", "car"]
    assert source.meaning["colours"] == [[128, 128, 128], [128, 64, 128], [64, 0, 128]]
    with pytest.raises(InputError, match="calls 3 'Void', but ignore is 1"):
        open_source(tmp_path, "segment", ignore=1)


def test_roboflows_table_says_the_values(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    image(tmp_path / "train/a.jpg")
    mask(tmp_path / "train/a_mask.png", classes(2))
    assert open_source(tmp_path, "segment").classes == ["background", "cat", "dog"]


def _problems(tmp_path: Path, kind: str) -> list[str]:
    from opsin.data import inspect

    found = [one for one in inspect(tmp_path, "segment").problems if one.kind == kind]
    return [one.reason for one in found]


def _several(tmp_path: Path, values: np.ndarray, last: str = "masks/a3.png", size: tuple[int, int] = SIZE) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    for n in range(3):
        image(tmp_path / f"images/a{n}.png", n)
        mask(tmp_path / f"masks/a{n}.png", classes(n))
    image(tmp_path / "images/a3.png", 3, size)
    if last:
        mask(tmp_path / last, values)


def test_a_value_that_is_no_class_is_an_error_of_check_and_training(tmp_path: Path) -> None:
    values = classes(1)
    values[5, 5] = 77
    _several(tmp_path, values)
    (reason,) = _problems(tmp_path, "not_a_class")
    assert "2.1 % of its pixels have values that are no class: 77; expected 0 to 2, and 255" in reason
    source = open_source(tmp_path, "segment")
    with pytest.raises(InputError, match=r"a3\.png: 2.1 % of its pixels .* 77"):
        check_trainable(source)
    with pytest.raises(InputError, match=r"a3\.png: 2.1 % of its pixels .* 77"):
        source.splits["all"].kind.read(3, SIZE)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    _several(tmp_path, classes(1), size=(12, 8))
    assert _problems(tmp_path, "size_mismatch") == [
        f"its mask {tmp_path}/masks/a3.png: it is 8x6 pixels (width x height), the image 8x12"
    ]
    source = open_source(tmp_path, "segment")
    (bad,) = verify(source)
    assert bad.path.endswith("images/a3.png")
    assert len(source.without([bad]).splits["all"]) == 3
    with pytest.raises(InputError, match="it is 8x6 pixels"):
        source.splits["all"].kind.read(3, (12, 8))


def test_a_missing_mask_leaves_its_image_out_out_loud(tmp_path: Path) -> None:
    _several(tmp_path, classes(1), last="")
    mask(tmp_path / "masks/b.png", classes(1))
    source = open_source(tmp_path, "segment")
    assert len(source.splits["all"]) == 3
    reasons = [one.reason for one in source.problems]
    assert reasons == [
        "1 images have no mask and are left out, images/a3.png the first",
        "1 masks have no image and are left out, masks/b.png the first",
    ]


def test_a_damaged_mask_is_unreadable(tmp_path: Path) -> None:
    _several(tmp_path, classes(1))
    whole = (tmp_path / "masks/a3.png").read_bytes()
    (tmp_path / "masks/a3.png").write_bytes(whole[: len(whole) // 2])
    (reason,) = _problems(tmp_path, "unreadable")
    assert f"its mask {tmp_path}/masks/a3.png: damaged or truncated PNG" in reason
    source = open_source(tmp_path, "segment", skip_bad=True)
    assert len(source.splits["all"]) == 3


def test_jpeg_invents_values(tmp_path: Path) -> None:
    big = np.kron(classes(1), np.ones((29, 29), np.uint8)) * np.uint8(40)
    (tmp_path / "_classes.csv").write_text("0,a\n40,b\n80,c\n")
    image(tmp_path / "images/a.png", 0, big.shape)
    Image.fromarray(big).save(tmp_path / "images/b.jpg", quality=60)
    decoded = np.asarray(Image.open(tmp_path / "images/b.jpg"))
    (tmp_path / "images/b.jpg").unlink()
    mask(tmp_path / "masks/a.png", decoded)  # as a PNG again: the damage stays
    (reason,) = _problems(tmp_path, "lossy_mask")
    assert "saved as a JPEG, which invents values" in reason


def test_two_values_in_a_jpeg_are_read_with_a_warning(tmp_path: Path) -> None:
    big = np.kron(classes(5, 2), np.ones((16, 16), np.uint8)) * np.uint8(255)
    image(tmp_path / "images/a.png", 0, big.shape)
    (tmp_path / "masks").mkdir()
    Image.fromarray(big).save(tmp_path / "masks/a.jpg", quality=85)
    source = open_source(tmp_path, "segment")
    found = np.asarray(source.splits["all"].kind.read(0, None)["class_map"])
    assert np.array_equal(found, big // 255)
    assert _problems(tmp_path, "lossy_mask") == ["a mask in a lossy encoding; save it as PNG"]


def test_a_converted_palette_is_recognised_by_its_greys(tmp_path: Path) -> None:
    from opsin.data.drawing import voc_palette

    saved = Image.fromarray(classes(1))
    saved.putpalette(voc_palette(3).ravel().tolist())
    _several(tmp_path, np.asarray(saved.convert("RGB").convert("L")))
    (reason,) = _problems(tmp_path, "not_a_class")
    assert "38, 75; expected 0 to 2" in reason
    assert "the greys of a palette's colours" in reason


def test_a_palette_in_another_order_than_the_classes(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\na,0,0,0\nb,255,0,0\nc,0,255,0\n")
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png", classes(1), mode="P", palette=[0, 0, 0, 0, 255, 0, 255, 0, 0])
    (reason,) = _problems(tmp_path, "palette_order")
    assert "value 1 is 'b', but has the colour of 'c'" in reason


def test_nothing_labelled(tmp_path: Path) -> None:
    _several(tmp_path, np.full(SIZE, 255, np.uint8))
    (reason,) = _problems(tmp_path, "nothing_labelled")
    assert reason.startswith("no pixel of it is labelled")
    check_trainable(open_source(tmp_path, "segment"))
    for n in range(3):
        mask(tmp_path / f"masks/a{n}.png", np.full(SIZE, 255, np.uint8))
    with pytest.raises(
        InputError, match=r"no pixel of the all split has a class: all are ignored; is the setting ignore"
    ):
        check_trainable(open_source(tmp_path, "segment"))


def test_a_class_that_only_validation_shows_is_refused(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 3)):
        for n in range(2):
            image(tmp_path / f"{split}/images/{split}{n}.png", n + 7 * count)
            mask(tmp_path / f"{split}/masks/{split}{n}.png", classes(n, count))
    with pytest.raises(InputError, match="no training images of class 'class 2', which other splits hold"):
        check_trainable(open_source(tmp_path, "segment"))


def test_masks_of_one_pixel(tmp_path: Path) -> None:
    for n in range(2):
        image(tmp_path / f"images/{n}.png", n, (1, 1))
        mask(tmp_path / f"masks/{n}.png", np.array([[n]], np.uint8))
    source = open_source(tmp_path, "segment")
    assert source.splits["all"].kind.read(1, (1, 1))["class_map"].tolist() == [[1]]
    check_trainable(source, 0, 0)


def _two_masks(root: Path) -> None:
    image(root / "images/b.png")
    mask(root / "masks/b_mask.png", classes(1))
    mask(root / "masks/b_gt.png", classes(1))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_two_masks, "b_gt.png and masks/b_mask.png are masks of one image, images/b.png; keep one of them"),
        (lambda root: mask(root / "masks/a.tif", classes(1)), "are masks of one image; keep one of them"),
        (lambda root: (root / "classes.txt").write_text("a\na\n"), "must name each class once"),
        (lambda root: (root / "class_dict.csv").write_text("a,1,2,3\nb,1,2,3\n"), "one colour, .* to a and b"),
        (lambda root: (root / "class_dict.csv").write_text("a,1,2,300\n"), "line 1: the colour 1, 2, 300"),
        (lambda root: (root / "label_colors.txt").write_text("sky\n"), "line 1: expected red green blue name"),
    ],
    ids=["two masks", "two endings", "twice", "one colour", "colour", "words"],
)
def test_faults_of_the_folder_are_one_line(tmp_path: Path, write, message: str) -> None:  # type: ignore[no-untyped-def]
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png", classes(1))
    write(tmp_path)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path, "segment")


def test_colours_without_a_table_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    mask(tmp_path / "masks/a.png", np.eye(3, dtype=np.uint8)[classes(1)] * np.uint8(200))
    with pytest.raises(InputError, match=r"is a mask of colours, .*put a class_dict.csv of name,r,g,b beside"):
        open_source(tmp_path, "segment")


def test_photographs_are_no_masks(tmp_path: Path) -> None:
    for name in ("face", "face_mask"):
        for n in range(4):
            image(tmp_path / f"{name}/{n}.png", n + len(name), (40, 40))
    assert recognize_task(tmp_path) == "classify"


def test_classify_says_whose_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image(tmp_path / "cells/images/a.png")
    mask(tmp_path / "cells/masks/a.png", classes(1))
    with pytest.raises(InputError, match=r"looks like mask folders .a class of each pixel., for the task segment"):
        open_source(tmp_path / "cells", "classify")
    monkeypatch.setattr(sys, "argv", ["opsin", "data", str(tmp_path / "cells"), "--ignore", "1"])
    with pytest.raises(SystemExit):
        command.main()
    assert "a class of each pixel, 1 images, 2 classes" in capsys.readouterr().out


@pytest.mark.real_data
def test_camvid(data_dir: Path) -> None:
    home = data_dir / "camvid"
    source = open_source(home, "segment")
    assert source.format == "CamVid"
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert source.classes[:3] == ["sky", "building", "pole"]
    counts = source.splits["val"].kind.counts.sum(axis=0)
    files = (home / "valannot").iterdir()
    plain = np.sum([np.bincount(np.asarray(Image.open(file)).ravel(), minlength=12) for file in files], axis=0)
    assert counts.tolist() == plain.tolist()
    with pytest.raises(InputError, match="in CamVid 11 says that nothing is known, but ignore is 255; drop it"):
        open_source(home, "segment", ignore=255)


@pytest.mark.parametrize("place", ["masks/{c}/{n}.png", "masks/{n}_{c}.png", "gt/{n}-{c}.png"])
def test_a_mask_for_each_class(tmp_path: Path, place: str) -> None:
    cat, dog = np.zeros((2, *SIZE), np.uint8)
    cat[1:4, 1:5] = 255
    dog[2:6, 3:8] = 1
    for n in ("a_1", "a_2"):
        image(tmp_path / f"images/{n}.png", 3)
        mask(tmp_path / place.format(n=n, c="dog"), dog)
    mask(tmp_path / place.format(n="a_1", c="cat"), cat)
    image(tmp_path / "images/b.png", 4)
    assert recognize_task(tmp_path) == "segment"
    source = open_source(tmp_path, "segment")
    assert source.classes == ["background", "cat", "dog"]
    read = np.asarray(source.splits["all"].kind.read(0, SIZE)["class_map"])
    assert np.array_equal(read, np.where(dog > 0, 2, np.where(cat > 0, 1, 0)))
    assert [one.reason for one in source.problems] == ["1 images have no mask and are left out, images/b.png the first"]
    (reason,) = _problems(tmp_path, "overlap")
    assert reason.startswith("8.3 % of its pixels are in two masks; the later class is on top")  # 4 of 48
    source = open_source(tmp_path, "segment", overlapping=True, names="dog,cat")
    read = np.asarray(source.splits["all"].kind.read(0, SIZE)["class_map"])
    assert np.array_equal(read, np.stack([dog > 0, cat > 0]))
    assert source.splits["all"].kind.counts.tolist() == [[20, 12, 20], [20, 0, 28]]
    check_trainable(source, 0, 0)
    with pytest.raises(InputError, match="has masks of 'dog', which is none of the names cat, cow"):
        open_source(tmp_path, "segment", names="cat,cow")


def test_one_thing_to_find_is_one_layer(tmp_path: Path) -> None:
    values = classes(5, 2) * np.uint8(255)
    _one(tmp_path, values)
    source = open_source(tmp_path, "segment", overlapping=True)
    read = np.asarray(source.splits["all"].kind.read(0, SIZE)["class_map"])
    assert source.meaning == {"classes": ["foreground"], "overlapping": True}
    assert np.array_equal(read, values[None] > 0)
    assert source.splits["all"].kind.counts.tolist() == [[(values > 0).sum(), (values == 0).sum()]]
    check_trainable(source, 0, 0)


def test_lists_divide(tmp_path: Path) -> None:
    for n in range(6):
        image(tmp_path / f"images/{n}.png", n)
        mask(tmp_path / f"masks/{n}.png", classes(n))
    (tmp_path / "train.txt").write_text("images/0.png masks/0.png\n1.png\n2\n")
    (tmp_path / "test.txt").write_text("/somewhere/images/4.png\n9\n")
    source = open_source(tmp_path, "segment")
    names = {key: [Path(split.name(i)).stem for i in range(len(split))] for key, split in source.splits.items()}
    assert names == {"train": ["0", "1", "2"], "test": ["4"]}
    assert [one.reason for one in source.problems] == [
        "1 names are of no image with a mask, 9 the first",
        "2 images are on none of the lists and are left out, images/3.png the first",
    ]
