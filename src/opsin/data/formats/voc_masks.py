"""Pascal VOC's masks: SegmentationClass beside JPEGImages, splits in ImageSets/Segmentation. Everingham et al. 2010.

255 is the border that VOC leaves out. Classes are those of a table, see `opsin.data.class_tables`; else VOC's own,
where images are called as VOC's are; else numbers.
"""

from __future__ import annotations

import re
from pathlib import Path

from opsin.data.class_tables import ClassTable, read_class_table
from opsin.data.drawing import voc_palette
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.mask_source import build_masks, find_lists, read_names
from opsin.data.formats.voc import is_voc
from opsin.data.formats.write_masks import write_voc_masks
from opsin.data.mask_coding import Setting
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_OWN = re.compile(r"\d{4}_\d{6}")  # names of VOC's images
_IMAGES = ("JPEGImages", "images", "Images")


def open_voc_masks(path: Path, ignore: int | None = None, names: str | list[str] | None = None) -> Source:
    """A folder with SegmentationClass and JPEGImages. ignore, names: as of folders of masks.

    Of ImageSets/Segmentation, the lists train, val and test are read; trainval, less val, stands in for train where
    that is missing. Without lists, it is all one split. Images without a mask are left out, with a warning.
    """
    masks = {file.stem: file for file in find_files(_folder(path), IMAGE_SUFFIXES, below=False)}
    images = {
        file.stem: file
        for name in reversed(_IMAGES)
        if (path / name).is_dir()
        for file in find_files(path / name, IMAGE_SUFFIXES, below=False)
    }
    problems: list[Problem] = []
    parts: dict[str, list[tuple[str, str]]] = {}
    lists = find_lists(path, ("ImageSets/Segmentation",))
    listed = {split: (str(file), known) for split, (file, known) in lists.items()}
    for split, (where, known) in (listed or {"all": (str(path), sorted(masks))}).items():
        stems = [Path(name).name.removesuffix(".jpg").removesuffix(".png") for name in known]
        parts[split] = [(str(images[one]), str(masks[one])) for one in stems if one in images and one in masks]
        for kind, there in (("mask", masks), ("image", images)):
            if missing := [one for one in stems if one not in there]:
                severity = "note" if split == "test" and len(missing) == len(stems) else "warning"
                reason = f"{len(missing)} names have no {kind} and are left out, {missing[0]} the first"
                problems.append(Problem(f"missing_{kind}", where, reason, severity))
    parts = {split: pairs for split, pairs in parts.items() if pairs}
    if not parts:
        raise InputError(f"{path}: no mask of {_folder(path).name} is of an image in JPEGImages; expected equal names")
    table = read_class_table([path, path / "ImageSets/Segmentation"])
    first = Path(next(iter(parts.values()))[0][0]).stem
    if table is None and names is None and _OWN.fullmatch(first):
        colours = [(r, g, b) for r, g, b in voc_palette(len(VOC_CLASSES)).tolist()]
        table = ClassTable(VOC_CLASSES, colours, "Pascal VOC", range(len(VOC_CLASSES)))
    return build_masks(path.name, "Pascal VOC masks", parts, Setting(table, read_names(names), ignore), problems)


def _folder(path: Path) -> Path:
    """SegmentationClass, or what is called so with an ending, as SegmentationClassAug."""
    named = [name for name in list_folder(path)[1] if name.lower().startswith("segmentationclass")]
    named.sort(key=lambda name: (name.lower() != "segmentationclass", name))
    holding = [name for name in named if any(Path(one).suffix.lower() == ".png" for one in first_files(path / name))]
    return path / (holding or named or ["SegmentationClass"])[0]


def _claims(path: Path) -> Claim:
    if not path.is_dir() or not any(Path(one).suffix.lower() == ".png" for one in first_files(_folder(path))):
        return 0
    return 1 if is_voc(path) else 2


FORMAT = Format(
    "Pascal VOC masks",
    "a class of each pixel",
    "Pascal VOC (SegmentationClass/*.png)",
    _claims,
    open_voc_masks,
    options=("ignore", "names"),
    written="voc",
    write=write_voc_masks,
)
