"""Annotated data that is no set of class folders, found by what lies in it: files of annotations, maps, their names.

An annotated data set has folders too, `images` and `labels`, which are no classes. What is asked: do folders bear the
names of parts of a layout; do files of annotations lie beside or above the images, with their names and with what
annotations hold; do images of one folder pair with those of another, and are these maps. Names cost nothing: of
contents a few heads are read, and only where names leave a doubt.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from opsin.data.formats.tree import SPLIT_NAMES, Tree
from opsin.data.formats.values import read_head
from opsin.data.images import UnreadableImage, decode, read_header
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES

_ANNOTATED = frozenset((".txt", ".json", ".xml", ".csv", ".tsv", ".mat", ".npy", ".pts", ".jsonl", ".ndjson", ".yaml"))
_ALWAYS = frozenset((".xml", ".mat", ".npy", ".pts", ".flo", ".pfm"))  # beside an image, whatever they hold
_SPLIT = "|".join([*SPLIT_NAMES, "tr", "te"])
_IMAGE = "images?|imgs?|img1|jpegimages|jpe?gs?|pngs?|pics?|pictures?|photos?|frames?|rgb|colou?r|raw|data|inputs?|left"
_TRUTH = (
    "masks?|labels?|labeltxt|annots?|annotations?|ann|annos?|gt|gts|ground_?truths?|targets?|seg|segs|segmentations?|"
    "segmentation_?(?:class|object|maps?|masks?)\\w*|segmaps?|labelmaps?|labelids|gt(?:fine|coarse)|trimaps?|xmls?|"
    "jsons?|txts?|csvs?|boxes|box|bboxes|bounding_?boxes|keypoints|landmarks|points|instances|panoptic|depths?|"
    "disp(?:arity)?|flow|edges|contours|mat|meta|metadata|calib|velodyne|tracks?|dets?|transcripts?"
)
_NUMBER = r"(?:[_\-. ]?\d{1,2}|[_\-. ]?(?:full|hd|v\d))"
_AROUND = rf"(?:(?:{_SPLIT})[_\-. ]?)?(?:%s){_NUMBER}?(?:[_\-. ]?(?:{_SPLIT}))?{_NUMBER}?"
_IMAGE_PART = re.compile(_AROUND % _IMAGE, re.IGNORECASE)
_TRUTH_PART = re.compile(_AROUND % _TRUTH, re.IGNORECASE)
_SPLIT_PART = re.compile(
    rf"(?:{_SPLIT})[_\-. ]?(?:(?:{_IMAGE}){_NUMBER}?|\d|[AB])|(?:{_IMAGE})[_\-. ]?(?:{_SPLIT})", re.I
)
_TAIL = re.compile(  # what names of maps have that those of their images do not
    r"[_\-. ]*(?:leftimg8bit|gt(?:fine|coarse)?(?:_?(?:labelids|instanceids|color|polygons|labeltrainids))?|"
    r"masks?|labels?|labelids|l|seg|segmentation|annot|annotation|ground_?truth|gt|color|instance|sat|img|image|rgb)$",
    re.IGNORECASE,
)
_MOST_VALUES = 64  # of a map; photographs have more
_MASK_ENDS = tuple(sign + word for sign in "_-" for word in ("mask", "label", "gt", "seg", "labelids", "annotation"))
_TEXT_FILE = re.compile(
    r"(?:read_?me|licen[cs]e|classes|names|notes?|info|about|citation|changelog|requirements)", re.I
)
_KEYS = re.compile(
    rb'"(?:bbox|boxes?|box2d|bounding_?[bB]ox(?:es)?|xmin|polygons?|poly2d|points|vertices|shapes|regions|objects|keypoints|'
    rb'landmarks|segmentation|segments_info|annotations?|geometry|tags|frames|asset|labels|transform_matrix)"\s*:'
)
_COLUMNS = re.compile(
    r"\b(?:x_?min|x1|bbox\w*|left|top|x_?max|lefteye_x|keypoints?|polygon|geometry|\w+_x|x_1)\b", re.I
)

# Layouts by name: what they hold, and what their folders or files are called, all of it, as in relative paths.
_NAMED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Cityscapes", "class maps", (r"(^|/)leftimg8bit", r"(^|/)gt(fine|coarse)")),
    ("Mapillary Vistas", "class maps", (r"(^|/)config_v\d|(^|/)v[12]\.\d/(labels|panoptic|instances)",)),
    ("CamVid", "class maps", (r"(^|/)(train|val|test)annot(/|$)|labeledapproved|(^|/)label_colors\.txt$",)),
    ("MOTChallenge", "tracks", (r"(^|/)seqinfo\.ini$|(^|/)gt/gt\.txt$",)),
    (
        "CelebA",
        "attributes and points",
        (r"list_attr_celeba|identity_celeba|list_landmarks\w*celeba|list_bbox_celeba",),
    ),
    ("DeepFashion", "attributes and boxes", (r"list_(bbox|attr|category|eval_partition|landmarks)\w*\.txt$",)),
    ("VoTT", "boxes", (r"-asset\.json$|\.vott$|vott[\w-]*\.json$",)),
    ("VGG Image Annotator", "regions", (r"via_(region_data|project)[\w-]*\.(json|csv)$",)),
    ("Labelbox", "annotations", (r"\.ndjson$|(^|/)labelbox[\w-]*\.json$",)),
    ("Supervisely", "boxes and masks", (r"(^|/)meta\.json$", r"(^|/)ann(/|$)")),
    ("COCO panoptic", "segments", (r"(^|/)panoptic_\w+(\.json)?$",)),
    ("COCO keypoints", "points", (r"(^|/)person_keypoints_\w+\.json$",)),
    ("COCO captions", "texts", (r"(^|/)captions_\w+\.json$",)),
    ("ADE20K", "class maps", (r"(^|/)(objectinfo150|scenecategories)\.txt$|index_ade20k",)),
    ("VisDrone", "boxes", (r"visdrone|(^|/)sequences(/|$)",)),
    ("BDD100K", "boxes and class maps", (r"bdd100k|(^|/)bdd\w*label\w*\.json$",)),
    ("UA-DETRAC", "tracks", (r"detrac|insight-mvt",)),
    ("Pascal Context or VOC segmentation", "class maps", (r"(^|/)segmentationclass",)),
    ("DAVIS or YouTube-VOS", "masks of videos", (r"(^|/)jpegimages/", r"(^|/)annotations/.+")),
    ("points of 300-W's kind", "points", (r"\.pts$",)),
    ("SVHN", "boxes", (r"(^|/)digitstruct\.mat$",)),
    ("CUB-200", "boxes and attributes", (r"(^|/)image_class_labels\.txt$",)),
    ("FGVC-Aircraft", "boxes and lists", (r"(^|/)images_(box|variant\w*|family\w*|manufacturer\w*)\.txt$",)),
    (
        "Stanford Cars or another set in MATLAB's files",
        "annotations",
        (r"(^|/)[\w-]*(annos?|labels|setid|joints|gt)\w*\.mat$",),
    ),
    ("Market-1501", "identities", (r"(^|/)bounding_box_(train|test)(/|$)",)),
    ("nuScenes", "boxes in space", (r"(^|/)v1\.0-\w+", r"(^|/)(samples|sweeps)")),
    ("KITTI tracking", "tracks", (r"(^|/)label_02(/|$)",)),
    ("KITTI", "boxes", (r"(^|/)image_2(/|$)", r"(^|/)(label_2|calib|velodyne)(/|$)")),
    ("Blender or NeRF scenes", "cameras", (r"(^|/)transforms(_\w+)?\.json$",)),
    ("COLMAP", "cameras", (r"(^|/)(cameras|points3d)\.(bin|txt)$",)),
    ("MVTec AD", "masks of defects", (r"(^|/)ground_truth(/|$)", r"(^|/)(train/)?good(/|$)")),
    ("CULane or TuSimple", "lanes", (r"\.lines\.txt$|(^|/)label_data_\d+\.json$",)),
    ("CycleGAN's pairs of domains", "two domains", (r"(^|/)traina(/|$)", r"(^|/)trainb(/|$)")),
    ("Tiny ImageNet", "lists", (r"(^|/)val_annotations\.txt$",)),
    ("LMDB", "encoded samples", (r"(^|/)data\.mdb$",)),
)


@dataclass(frozen=True)
class Likeness:
    """What data looks like. name: of the layout, or what it is made of. evidence: what in it says so."""

    name: str
    evidence: str


def recognize(whole: Tree, tree: Tree, root: Path | None, prefix: str = "") -> Likeness | None:
    """What annotated data the files look like; None for class folders, as far as can be seen.

    tree: below the folders that only wrap others, which `prefix` leads to. root: what relative paths of `whole` count
    from; None where nothing can be read there.
    """
    if not whole.files:
        return None
    looked = _Looked(whole, tree, root, prefix)
    found = None
    if tree.images:
        found = looked.parts() or looked.beside() or looked.without_images() or looked.above() or looked.maps()
    if found is None and not looked.always:
        return None
    name = looked.named()
    if found is None:
        return None if name is None else Likeness(*name)
    return found if name is None else Likeness(name[0], found.evidence)


class _Looked:
    """One look at a tree: each method is one question, and answers with a likeness or None."""

    def __init__(self, whole: Tree, tree: Tree, root: Path | None, prefix: str) -> None:
        self.whole, self.tree, self.root, self.prefix = whole, tree, root, prefix
        splits = [top for top in tree.tops() if top.lower() in SPLIT_NAMES]
        others = [top for top in tree.tops() if top not in splits]
        inside = {name.split("/")[1] for name in tree.folders if name.count("/") == 1 and name.split("/")[0] in splits}
        self.classes = sorted({*inside, *others} if splits and len(splits) < 4 else tree.tops())
        images = set(whole.images)
        self.others = [file for file in whole.files if file not in images]

    @cached_property
    def full(self) -> set[str]:
        """The tops that hold images, at any depth."""
        return {image.partition("/")[0] for image in self.tree.images if "/" in image}

    @cached_property
    def annotations(self) -> list[str]:
        """The files that may be annotations, by their endings."""
        kept = [file for file in self.others if PurePosixPath(file).suffix.lower() in _ANNOTATED | _ALWAYS]
        return [file for file in kept if not _TEXT_FILE.search(PurePosixPath(file).name)]

    @cached_property
    def always(self) -> bool:
        """Whether a layout's name is enough: there is more than class folders with images in them."""
        return bool(self.annotations) or any(file.endswith((".ini", ".mdb")) for file in self.others)

    def named(self) -> tuple[str, str] | None:
        """The layout that some of its names are those of, and what says so."""
        samples: dict[tuple[str, str], list[str]] = defaultdict(list)
        for file in self.others:
            path = PurePosixPath(file.lower())
            if len(some := samples[str(path.parent), path.suffix]) < 3:
                some.append(str(path))
        names = [
            *(folder.lower() for folder in self.whole.folders[:5000]),
            *(f for some in samples.values() for f in some),
        ]
        for name, what, patterns in _NAMED:
            hits = [next((one for one in names if re.search(pattern, one)), None) for pattern in patterns]
            if all(hit is not None for hit in hits):
                return name, f"{what}, as {hits[-1]} says"
        return None

    def parts(self) -> Likeness | None:
        """All folders that would be classes are called as parts of a layout: images and their truth, or splits."""
        names = self.classes
        truths = [name for name in names if _TRUTH_PART.fullmatch(name)]
        kinds = [name for name in names if _IMAGE_PART.fullmatch(name) or _SPLIT_PART.fullmatch(name)]
        rest = set(names) - {*truths, *kinds}
        if not rest and len(names) > 1 and kinds and (truths or all(map(_SPLIT_PART.fullmatch, kinds))):
            name = "images with annotations" if truths else "images of splits, without classes"
            return Likeness(name, f"its folders are {_listed(names)}")
        if not rest and len(names) == 1 and self.annotations:
            return Likeness("images with annotations", f"{names[0]}/ beside {PurePosixPath(self.annotations[0]).name}")
        inside: dict[str, set[str]] = defaultdict(set)
        for folder in self.tree.folders:
            top, _, below = folder.partition("/")
            if below:
                inside[top].update(part for part in below.split("/"))
        split = [
            top for top, below in inside.items() if any(map(_TRUTH_PART.fullmatch, below)) and _has_image_part(below)
        ]
        if split and 2 * len(split) >= len(self.tree.tops()):
            return Likeness("images with annotations", f"{split[0]}/ holds {_listed(sorted(inside[split[0]]))}")
        named = [top for top in self.tree.tops() if (rest_of := _unaffixed(top)) != top.lower() and rest_of]
        pairs = [top for top in named if _unaffixed(top) in {other.lower() for other in self.tree.tops()}]
        if pairs and len(self.tree.tops()) <= 2 * len(pairs) + 1:
            return Likeness("images with annotations", f"{pairs[0]}/ beside {_unaffixed(pairs[0])}/")
        return None

    def beside(self) -> Likeness | None:
        """Files of annotations have the names of images, or of the folders of a video's images."""
        if not self.annotations:
            return None
        keys = {_stem(image) for image in self.whole.images}
        keys |= {image.rpartition("/")[2] for image in self.whole.images}
        above = {image.rpartition("/")[0].rpartition("/")[2] for image in self.whole.images} - {""}
        paired: dict[str, list[str]] = defaultdict(list)
        for file in self.annotations:
            stem = _stem(file)
            if stem in keys or _TAIL.sub("", stem) in keys or (stem in above and "/" in file):
                paired[PurePosixPath(file).suffix.lower()].append(file)
        for suffix, files in paired.items():
            few = len(files) * 10 < len(self.whole.images) and _stem(files[0]) not in above
            if not few and (suffix in _ALWAYS or any(self._holds_truth(file) for file in files[:5])):
                evidence = f"{len(files)} {suffix} files with the names of images, {files[0]} the first"
                return Likeness("images with annotations", evidence)
        return None

    def without_images(self) -> Likeness | None:
        """A folder that would be a class has files of annotations and no image."""
        for top in self.tree.tops():
            if top in self.full or top.lower() in SPLIT_NAMES:
                continue
            start = f"{self.prefix}{top}/"
            if files := [file for file in self.annotations if file.startswith(start)]:
                return Likeness(
                    "images with annotations", f"{top}/ holds no images, but {len(files)} files as {files[0]}"
                )
        return None

    def above(self) -> Likeness | None:
        """A file above the images, or in a folder without any, says what annotations say."""
        homes = {"", *(self.prefix + top for top in self.tree.tops() if top not in self.full)}
        files = [
            file for file in self.annotations if str(PurePosixPath(file).parent).strip(".") in homes or "/" not in file
        ]
        for file in files[:10]:
            suffix = PurePosixPath(file).suffix.lower()
            head = b"" if self.root is None else read_head(self.root / file, 1 << 16)
            if suffix in (".json", ".jsonl") and _KEYS.search(head):
                return Likeness("images with annotations", f"{file} holds annotations")
            text = head.decode("utf-8", "replace")
            first = text.split("\n", 1)[0]
            if suffix in (".csv", ".tsv") and _COLUMNS.search(first) and re.search(r"\d", text):
                return Likeness("images with a table of annotations", f"{file} has the columns {first.strip()[:60]!r}")
            if suffix == ".xml" and b"<" in head and re.search(rb"<(?:image|object|box|annotation|track)", head):
                return Likeness("images with annotations", f"{file} holds annotations")
            if suffix in (".txt", ".csv", ".tsv") and self._unclassed and self._names_images(text):
                return Likeness("images with a table of labels", f"{file} lists images")
        return None

    @cached_property
    def _unclassed(self) -> bool:
        """Whether no folder with images says a class: there is but one, or they are called images."""
        full = [top for top in self.tree.tops() if top in self.full]
        word = re.compile(rf"(?:^|[^a-z])(?:{_IMAGE}|{_SPLIT})(?:$|[^a-z])", re.IGNORECASE)
        return len(full) <= 1 or all(word.search(top) for top in full)

    def _names_images(self, text: str) -> bool:
        """Whether most of the first lines begin with an image's name, and say more."""
        stems = {_stem(image) for image in self.whole.images}
        lines = [re.split(r"[\s,;|]+", line.strip()) for line in text.splitlines()[1:21] if line.strip()]
        hits = [
            line for line in lines if len(line) > 1 and any("/" not in one and _stem(one) in stems for one in line[:3])
        ]
        return len(hits) * 2 > len(lines)

    def maps(self) -> Likeness | None:
        """The images of a folder pair with those of another, are as large, and hold few values: maps."""
        tops = [top for top in self.tree.tops() if top in self.full]
        if self.root is None or not 2 <= len(tops) <= 8:
            return self._within()
        by_top: dict[str, dict[str, str]] = {top: {} for top in tops}
        for image in self.tree.images:
            top, _, inside = image.partition("/")
            if top in by_top:
                by_top[top][_TAIL.sub("", _stem(inside))] = image
        for truth in tops:
            for top in tops:
                both = sorted(by_top[truth].keys() & by_top[top].keys())
                if (
                    top != truth
                    and len(both) * 10 >= 9 * len(by_top[truth])
                    and self._are_maps(
                        [(by_top[top][key], by_top[truth][key]) for key in both[:: max(1, len(both) // 3)][:3]]
                    )
                ):
                    return Likeness("images with masks", f"the images of {truth}/ are maps of those of {top}/")
        return self._within()

    def _within(self) -> Likeness | None:
        """Images and their masks lie in one folder, recognised by the ends of their names."""
        stems = {image.rpartition(".")[0] for image in self.tree.images}
        masks = [
            one for one in stems if re.search(r"[_\-](?:mask|label|gt|seg|labelids|annotation)$", one, re.IGNORECASE)
        ]
        bare = {_TAIL.sub("", one) for one in stems.difference(masks)} if masks else set()
        paired = [one for one in masks if _TAIL.sub("", one) in bare]
        if paired and 3 * len(paired) >= len(stems):
            return Likeness("images with masks", f"{len(paired)} images as {min(paired)} beside those that they are of")
        return None

    def _are_maps(self, pairs: Sequence[tuple[str, str]]) -> bool:
        assert self.root is not None
        for image, truth in pairs:
            files = [self.root / f"{self.prefix}{one}" for one in (image, truth)]
            try:
                sizes = [read_header(file, str(file)) for file in files]
                if (sizes[0].height, sizes[0].width) != (sizes[1].height, sizes[1].width) or sizes[1].height < 8:
                    return False
                values = [decode(read_regular(file), str(file)) for file in files]
            except (UnreadableImage, OSError):
                return False
            counts = [_count_colours(one.numpy()) for one in values]
            if counts[1] > _MOST_VALUES or counts[0] < 2 * counts[1]:
                return False
        return bool(pairs)

    def _holds_truth(self, file: str) -> bool:
        """Whether a file beside an image holds what annotations hold: numbers, or JSON with their keys."""
        if self.root is None:
            return False
        head = read_head(self.root / file, 1 << 14)
        if file.lower().endswith((".json", ".jsonl", ".ndjson", ".yaml")):
            return _KEYS.search(head) is not None
        lines = head.decode("utf-8", "replace").splitlines()[:20]
        tokens = [re.split(r"[\s,;]+", line.strip()) for line in lines if line.strip()]
        numeric = [
            line for line in tokens if sum(map(_is_number, line)) >= 2 and 2 * sum(map(_is_number, line)) >= len(line)
        ]
        return bool(tokens) and 2 * len(numeric) >= len(tokens)


def _count_colours(image: np.ndarray) -> int:
    """How many values an image (C, H, W) has, of the pixels of a grid of about 100 x 100."""
    step = max(1, max(image.shape[1:]) // 100)
    pixels = image[:, ::step, ::step].reshape(len(image), -1).astype(np.int64)
    return len(np.unique(sum(row << (8 * k) for k, row in enumerate(pixels))))


def _has_image_part(names: Collection[str]) -> bool:
    return any(_IMAGE_PART.fullmatch(name) for name in names)


def _unaffixed(name: str) -> str:
    """The name of a folder less the word for its truth: `train` of `train_masks` and `trainannot`."""
    bare = re.sub(rf"(?:^(?:{_TRUTH})[_\-. ]|[_\-. ](?:{_TRUTH})$)", "", name.lower())
    together = re.fullmatch(rf"({_SPLIT})(?:{_TRUTH})", bare)
    return together[1] if together else bare


def _stem(path: str) -> str:
    """The name of a file without its ending, and without that of the image before it: 1.jpg.json is 1."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    inner, _, ending = stem.rpartition(".")
    return inner if inner and f".{ending.lower()}" in IMAGE_SUFFIXES else stem


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", text, re.IGNORECASE) is not None


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
