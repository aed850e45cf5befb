"""Regions that may hold an object, whatever its class: what detectors of regions look at where they have no RPN.

Selective Search: Uijlings, van de Sande, Gevers and Smeulders 2013, IJCV 104(2). Segments of the image are merged,
the most alike first, until it is one; the box around each segment on the way is a proposal. The merging is done in
several colour spaces and by several measures of likeness. It is OpenCV's, of the extra `detect`. Sliding windows are
the way before it: every place, some sizes, some shapes.

A proposer takes an image, uint8 (C, H, W), and gives boxes (P, 4), xyxy in its pixels, the best first.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from opsin import errors
from opsin.checks import check_count, check_number
from opsin.data.fingerprint import fingerprint
from opsin.data.source import Progress, Split, map_threads
from opsin.downloading import home
from opsin.errors import InputError, unknown
from opsin.files import atomic, write_failure
from opsin.ops import pairwise_iou
from opsin.structures import Instances

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from opsin.engine.report import Figure

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # IoU, as in COCO's average recall
COUNTS = (1, 3, 10, 30, 100, 300, 1000, 2000)
LIMIT = 2000  # proposals of an image, as in R-CNN and Fast R-CNN
_IMAGES = 16  # of one file of the cache: as much as a kill can cost, some seconds each


class Proposer(Protocol):
    """A method with its settings. Equal settings give equal boxes for an image, always."""

    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SelectiveSearch:
    """OpenCV's Selective Search. The paper's fast mode has 8 strategies, its quality mode 80; see section 5.

    limit: boxes at most. width: wider images are shrunk to it, 500 pixels in the published code of R-CNN; the time
    goes with their area. base_k: how readily pixels become one segment at the start; smaller segments with less.
    """

    mode: Literal["fast", "quality"] = "fast"
    limit: int = LIMIT
    width: int | None = 500
    base_k: int = 150

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        check_count("base_k", self.base_k)
        if self.width is not None:
            check_count("width", self.width)
        _import_opencv()

    def __call__(self, image: Tensor) -> Tensor:
        cv2 = _import_opencv()
        height, width = image.shape[-2:]
        pixels = np.ascontiguousarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy()[..., ::-1])  # BGR
        if self.width is not None and width > self.width:
            size = self.width, max(1, round(height * self.width / width))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(pixels)
        getattr(search, f"switchToSelectiveSearch{self.mode.capitalize()}")(self.base_k)
        found = np.asarray(search.process(), dtype=np.float32).reshape(-1, 4)  # x, y, width, height
        boxes = torch.from_numpy(np.unique(found, axis=0))
        boxes[:, 2:] += boxes[:, :2]
        scale = boxes.new_tensor([width / pixels.shape[1], height / pixels.shape[0]])
        return _ranked(boxes * scale.repeat(2), self.limit)


@dataclass(frozen=True)
class SlidingWindows:
    """Windows of every place, of sides from that of the whole image down, each 0.7 times the one before.

    limit: windows at most. smallest: side of the smallest, as a part of the image's, the root of its area. ratios:
    height / width. step: from one window to the next, as a part of its side.
    """

    limit: int = LIMIT
    smallest: float = 0.1
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    step: float = 0.25

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        for name, value in (("smallest", self.smallest), ("step", self.step)):
            if check_number(name, value, above=True) > 1:
                raise InputError(f"{name} is a part of a side, above 0 and at most 1, got {value}")
        if not self.ratios or min(self.ratios) <= 0:
            raise InputError(f"ratios must be numbers above 0, got {list(self.ratios)}")

    def __call__(self, image: Tensor) -> Tensor:
        return self.lay_out(image.shape[-2], image.shape[-1])

    def lay_out(self, height: int, width: int) -> Tensor:
        """The windows of an image of this size, whatever it shows."""
        whole = math.sqrt(height * width)
        octaves = round(-2 * math.log2(self.smallest))
        found = []
        for side in (whole * 2 ** (-half / 2) for half in range(octaves + 1)):
            for ratio in self.ratios:
                w, h = min(width, side / math.sqrt(ratio)), min(height, side * math.sqrt(ratio))
                x, y = self._places(width, w), self._places(height, h)
                corners = torch.cartesian_prod(x, y)
                found.append(torch.cat([corners, corners + torch.tensor([w, h])], dim=1))
        return _ranked(torch.cat(found).unique(dim=0), self.limit)

    def _places(self, length: float, side: float) -> Tensor:
        """Where windows of a side begin along a length: evenly, from border to border."""
        free = length - side
        return torch.linspace(0, free, math.ceil(free / (self.step * side)) + 1)


METHODS: dict[str, Callable[..., Proposer]] = {
    "selective_search_fast": partial(SelectiveSearch, "fast"),
    "selective_search_quality": partial(SelectiveSearch, "quality"),
    "sliding_windows": SlidingWindows,
}


def create_proposer(name: str, **options: Any) -> Proposer:
    """A method by name: selective_search_fast, selective_search_quality or sliding_windows.

    Raises InputError for an unknown name or option, and where Selective Search is wanted and OpenCV is missing.
    """
    if name not in METHODS:
        raise unknown("proposals", name, METHODS)
    try:
        return METHODS[name](**options)
    except TypeError as error:
        raise InputError(f"proposals {name} cannot be made with {options}: {error}") from None


def _ranked(boxes: Tensor, limit: int) -> Tensor:
    """Boxes that are all different, in an order that is given, best first.

    Section 3.3 of the paper: those of late mergers first, their place times a random number, so that small ones are not
    all last. OpenCV's is another at every call and does not tell the mergers; here area takes their place, and the
    random numbers are the same for every image.
    """
    place = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argsort(descending=True, stable=True).argsort()
    chance = torch.rand(len(boxes), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return boxes[((place + 1) * chance).argsort(stable=True)[:limit]]


def _import_opencv() -> Any:
    try:
        import cv2
    except ImportError:
        cv2 = None
    if not hasattr(getattr(cv2, "ximgproc", None), "segmentation"):
        raise InputError(
            "Selective Search needs OpenCV with its contributed modules: pip install 'opsin[detect]'"
            + (" (the opencv-python that is installed lacks them: uninstall it first)" if cv2 is not None else "")
        )
    return cv2


# The cache


def find_proposals(
    split: Split,
    proposer: Proposer,
    *,
    folder: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = errors.say,
) -> list[Tensor]:
    """The proposals of every image of a split, (P, 4) float32 in its pixels, made once and then read from disk.

    folder: of the cache; by default one in OPSIN_HOME/proposals that is named after the method, its settings and the
    images' fingerprint. What a killed call has finished is not made again. workers: threads, one a core if None;
    OpenCV lets go of Python's lock. progress: called with (done, total); on a terminal it is shown if None.
    Raises InputError for a folder whose proposals are of other images or another method, and an unreadable image.
    """
    about = _describe(split, proposer)
    folder = folder or _folder_for(about)
    _claim(folder, about)
    starts = range(0, len(split), _IMAGES)
    parts = [_read_part(_part(folder, start), min(_IMAGES, len(split) - start)) for start in starts]
    missing = sum(min(_IMAGES, len(split) - start) for start, part in zip(starts, parts, strict=True) if part is None)
    if missing:
        say(f"making proposals of {missing:,} images, once; they are kept in {folder}")
    show = progress or _show
    done = len(split) - missing
    found: list[Tensor] = []
    for start, part in zip(starts, parts, strict=True):
        if part is None:
            indices = range(start, min(start + _IMAGES, len(split)))
            part = map_threads(lambda index: proposer(split.read(index)), indices, workers)
            _write_part(_part(folder, start), part)
            done += len(part)
            show(done, len(split))
        found += part
    return found


def cache_folder(split: Split, proposer: Proposer) -> Path:
    """Where `find_proposals` keeps the proposals of a split unless a folder is given; nothing need be there yet."""
    return _folder_for(_describe(split, proposer))


def _folder_for(about: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return home() / "proposals" / f"{about['method'].lower()}-{digest}"


def _describe(split: Split, proposer: Proposer) -> dict[str, Any]:
    settings = asdict(proposer)  # type: ignore[call-overload]
    # "pictures" names the caches that users have.
    return {"method": type(proposer).__name__, "settings": settings, "pictures": len(split), "data": fingerprint(split)}


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what a cache is about, or hold it against what was written."""
    file = folder / "about.json"
    wanted = json.loads(json.dumps(about))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
            return
        stated = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise write_failure(folder, error) from error
    except ValueError:
        raise InputError(f"{file} is damaged; remove the folder, and the proposals are made anew") from None
    for key, what in (("data", "other images"), ("method", "another method"), ("settings", "other settings")):
        if stated.get(key) != wanted[key]:
            raise InputError(
                f"the proposals in {folder} are of {what} ({key} {stated.get(key)}, not {wanted[key]}); remove the "
                "folder or choose another"
            )


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start // _IMAGES:06d}.safetensors"


def _read_part(file: Path, count: int) -> list[Tensor] | None:
    """The proposals of a file's images; None where there is none, or it is damaged, so that it is made again."""
    try:
        tensors = load_file(file)
        counts = tensors["counts"].tolist()
        return list(tensors["boxes"].split(counts)) if len(counts) == count else None
    except (FileNotFoundError, SafetensorError, KeyError, RuntimeError):
        return None


def _write_part(file: Path, boxes: Sequence[Tensor]) -> None:
    with atomic(file) as temporary:
        save_file({"boxes": torch.cat(list(boxes)), "counts": torch.tensor([len(one) for one in boxes])}, temporary)


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rproposals {done:,}/{total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


# Recall


class Recall(NamedTuple):
    """The share of objects that some of the first `counts` proposals of their image overlap by `thresholds` or more.

    values: (counts, thresholds), nan without objects. objects: how many there are. mean: proposals of an image.
    """

    counts: tuple[int, ...]
    thresholds: tuple[float, ...]
    values: Tensor
    objects: int
    mean: float

    @property
    def average(self) -> Tensor:
        """The mean over the thresholds, of each count: average recall. Hosang et al. 2015, arXiv:1502.05082, sec. 5."""
        return self.values.mean(dim=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        recall = {f"{t:g}": column for t, column in zip(self.thresholds, self.values.T.tolist(), strict=True)}
        own = {"proposals": list(self.counts), "recall": recall, "average_recall": self.average.tolist()}
        return {**own, "objects": self.objects, "mean_proposals": self.mean}


def proposal_recall(
    truth: Sequence[Instances],
    proposals: Sequence[Tensor],
    counts: Sequence[int] = COUNTS,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Recall:
    """How many objects the proposals of their images could find. Regions to ignore are no objects."""
    best = []
    for objects, boxes in zip(truth, proposals, strict=True):
        kept = objects.boxes if objects.labels is None else objects.boxes[objects.labels >= 0]
        overlaps = pairwise_iou(kept, boxes.to(kept))
        columns = [overlaps[:, :count].amax(dim=1) if len(boxes) else overlaps.new_zeros(len(kept)) for count in counts]
        best.append(torch.stack(columns, dim=1))
    every = torch.cat(best) if best else torch.zeros(0, len(counts))
    levels = torch.tensor(tuple(thresholds), dtype=every.dtype)
    values = (every[:, :, None] >= levels).float().mean(dim=0)
    mean = sum(map(len, proposals)) / max(1, len(proposals))
    return Recall(tuple(counts), tuple(thresholds), values, len(every), mean)


def recall_figure(recalls: Mapping[str, Recall]) -> Figure:
    """Recall against the number of proposals at an IoU of 0.5 (solid) and on average (dashed). recalls: of methods."""
    from opsin.engine import charts  # here, since networks import this file: drawing takes long to import
    from opsin.engine.report import Figure

    objects = next((recall.objects for recall in recalls.values()), 0)
    caption = (
        f"Of {objects:,} objects those that a proposal overlaps by an IoU of 0.5 or more; dashed, the mean over IoUs "
        "of 0.5 to 0.95. What no proposal overlaps cannot be found."
    )
    return Figure("Recall of the proposals", charts.svg(partial(paint_recall, recalls)), caption)


def paint_recall(recalls: Mapping[str, Recall], canvas: Canvas) -> None:
    """The drawing of `recall_figure`, on a canvas of `opsin.engine.charts`."""
    from opsin.engine import charts

    axes = canvas.add_subplot()
    for color, (name, recall) in zip(charts.LINES * len(recalls), recalls.items(), strict=False):
        nearest = int(np.abs(np.array(recall.thresholds) - 0.5).argmin())
        axes.plot(recall.counts, recall.values[:, nearest].tolist(), color=color, label=name)
        axes.plot(recall.counts, recall.average.tolist(), color=color, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(ylim=(0, 1.02), xlabel="proposals of an image", ylabel="recall at IoU 0.5; dashed, mean of 0.5 to 0.95")
    canvas.legend(loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.4)
