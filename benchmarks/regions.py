"""From R-CNN to Faster R-CNN on trained runs: what each finds, where the time of an image goes, and what fills a disk.

    python benchmarks/regions.py --runs RUN [RUN ...] [--data DIR] [--images 24] [--svd FC6 FC7] [--no-ap] [--json]
    python benchmarks/regions.py --runs RUN [RUN ...] --draw FILE [--image 0]

The runs are of rcnn, spp_net, fast_rcnn or faster_rcnn, in any order, all with the same test images. A run of
fast_rcnn is measured a second time with fc6 and fc7 cut by truncated SVD; the ranks are, unless given, the paper's
share of the width, a quarter and a sixteenth. AP50 is of the whole test split. The times are medians over some of its
images, which the runs take in turns in one process; with one thread they are the processor's, so that other work
counts little.

proposals: Selective Search, sliding windows or the RPN behind its maps. features: what all regions share, preparing the
image and the convolutions of the whole of it; R-CNN has none. head: all that is done region by region, which in
R-CNN is the whole network. suppression: boxes moved, cut and suppressed. disk: of the proposals of the training and
validation images, and of the features that SVMs are fitted to.
Last, multiply-adds of VGG-16 in the four, counted on shapes alone, without weights.
--draw: an image with the proposals that fit its objects best, of each method, in place of the measures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

import opsin
from opsin import create_model, data
from opsin.data import Preprocessing, Split
from opsin.data.drawing import Mark, draw_marks, font, to_pil
from opsin.data.fingerprint import fingerprint
from opsin.detect.detector import Detector
from opsin.detect.drawing import MISSED, RIGHT, WRONG
from opsin.detect.fast_rcnn import FastRCNN, truncated_svd
from opsin.detect.faster_rcnn import FasterRCNN
from opsin.detect.predict import find_proposer
from opsin.detect.proposals import Proposer, SelectiveSearch, cache_folder, create_proposer
from opsin.detect.rcnn import RCNN
from opsin.detect.regions import Regions
from opsin.detect.rpn import take_proposals
from opsin.engine.recipe_data import split_data
from opsin.engine.stages import read_records
from opsin.nn.counting import count_macs
from opsin.ops import clip_boxes, pairwise_iou

PARTS = ("proposals", "features", "head", "suppression")
REGIONS = 2000  # of an image, in the arithmetic
_PANEL = 400  # pixels: the width of each drawn image


class Entry(NamedTuple):
    """A row of the table. change: what `opsin.evaluate` is to evaluate in the place of the run's own model."""

    name: str
    run: Path
    model: Detector
    preprocessing: Preprocessing
    proposer: Proposer | None
    splits: dict[str, Split]
    change: Callable[[Any], nn.Module]


def open_run(run: Path, source: str | None, ranks: Sequence[int] | None) -> list[Entry]:
    """The run, and with thin layers as well where it is of Fast R-CNN."""
    loaded = opsin.load(run, device="cpu")
    recipe, model = loaded.recipe, loaded.model.eval()
    if not isinstance(model, (RCNN, FastRCNN, FasterRCNN)):
        raise SystemExit(f"{run} is of {recipe.model.name}, which does not look at regions")
    opened = data.open(source or str(recipe.data.source), recipe.task)
    splits = opened.splits if source else split_data(recipe, opened)
    entry = Entry(
        run.name, run, model, loaded.preprocessing, find_proposer(model), dict(splits), lambda whole: whole
    )  # a model that is "changed" leaves the run's own evaluation alone
    if not isinstance(model, FastRCNN) or isinstance(model.head.fc7, nn.Sequential):
        return [entry]
    fc6, fc7 = ranks or (model.head.out_features // 4, model.head.out_features // 16)
    cut = partial(truncated_svd, fc6=fc6, fc7=fc7)
    return [entry, entry._replace(name=f"{run.name}, SVD {fc6}/{fc7}", model=cut(model).eval(), change=cut)]


# Times


def clock() -> float:
    """Seconds: of the processor where there is one thread, so that other work counts little; else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@contextmanager
def stopwatch(modules: Iterable[nn.Module]) -> Iterator[list[float]]:
    """The seconds of every call of some modules, none of which is inside another."""
    laps: list[float] = []
    started: list[float] = []
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(lambda *_: started.append(clock())))
        handles.append(module.register_forward_hook(lambda *_: laps.append(clock() - started.pop())))
    try:
        yield laps
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def time_image(entry: Entry, image: Tensor) -> dict[str, float]:
    """Seconds of each part for an image, uint8 (C, H, W), and how many regions the head looked at."""
    model, preprocessing, began = entry.model, entry.preprocessing, clock()
    given: list[list[Tensor]] = []
    if entry.proposer is not None:
        boxes = preprocessing.place_boxes(entry.proposer(image), image.shape[-2:])
        given.append([clip_boxes(boxes, preprocessing.size)])
    proposed, began = clock() - began, clock()
    with stopwatch([model.rpn] if isinstance(model, FasterRCNN) else []) as laps:
        outputs = model(preprocessing.normalize(preprocessing.prepare(image)[None]), *given)
    proposals, features = proposed + sum(laps), clock() - began - sum(laps)
    began = clock()
    if isinstance(model, RCNN):
        scores, offsets = model.score_regions(outputs)
        head = clock() - began
        model.choose(outputs, scores, offsets, model.selection)
    else:
        with stopwatch(heads(model)) as laps:
            model.decode(outputs)
        head = sum(laps)
    suppression = clock() - began - head
    found = proposals_of(model, outputs) if isinstance(model, FasterRCNN) else outputs["proposals"]
    return {**dict(zip(PARTS, (proposals, features, head, suppression), strict=True)), "regions": len(found)}


def heads(model: Detector) -> list[nn.Module]:
    """What runs on regions."""
    if isinstance(model, FasterRCNN):
        return [model.roi]
    assert isinstance(model, FastRCNN)
    return [model.pooler, model.head, model.predictor]


def proposals_of(model: FasterRCNN, outputs: dict[str, Tensor]) -> Tensor:
    return take_proposals(outputs, model.test_proposals, model.test_candidates)[0]


def measure(entries: Sequence[Entry], images: Sequence[Tensor]) -> list[dict[str, float]]:
    """Of each entry the medians over the images, after one to warm up."""
    laps: list[list[dict[str, float]]] = [[] for _ in entries]
    for place, image in enumerate([images[0], *images]):
        for entry, own in zip(entries, laps, strict=True):
            found = time_image(entry, image)
            if place:
                own.append({**found, "seconds": sum(found[part] for part in PARTS)})
    return [{key: median(lap[key] for lap in own) for key in own[0]} for own in laps]


# Disk


def disk(entry: Entry) -> dict[str, int | None]:
    """Bytes that the training kept beside the model; None for proposals that are no longer there."""
    features = 0
    if isinstance(entry.model, RCNN):
        features = sum(record.bytes for record in read_records(entry.run) if record.name == "features")
    return {"features_bytes": features, "proposals_bytes": proposal_bytes(entry)}


def proposal_bytes(entry: Entry) -> int | None:
    if entry.proposer is None:
        return 0
    folders = [cache_folder(entry.splits[name], entry.proposer) for name in ("train", "val") if name in entry.splits]
    if not all(folder.is_dir() for folder in folders):
        return None
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


# Arithmetic


class Whole(nn.Module):
    """A detector with its head on so many regions, as in use."""

    def __init__(self, model: Detector, regions: int) -> None:
        super().__init__()
        self.model, self.regions = model, regions

    def forward(self, images: Tensor) -> object:
        outputs = self.model(images)
        if isinstance(self.model, FastRCNN):  # lays out 2,000 windows by itself
            return self.model.classify(outputs, Regions(outputs["proposals"], outputs["rows"]))
        assert isinstance(self.model, FasterRCNN)
        roi, maps = self.model.roi, outputs["map0"]
        return roi.predictor(roi.head([maps.new_empty(self.regions, maps.shape[1], roi.pooler.size, roi.pooler.size)]))


def vgg16_macs() -> dict[str, int]:
    """Multiply-adds of VGG-16 for an image of 600x1000: R-CNN's regions are 224x224 each, whatever the image."""
    with torch.device("meta"):
        rcnn: Any = create_model("rcnn_vgg16")
        fast: Any = create_model("fast_rcnn_vgg16")
        thin: Any = create_model("fast_rcnn_vgg16", truncated_svd=(1024, 256))
        faster: Any = create_model("faster_rcnn_vgg16")
    size = (3, 600, 1000)
    return {
        f"R-CNN, {REGIONS:,} regions": REGIONS * count_macs(rcnn.network, (3, rcnn.side, rcnn.side)),
        f"Fast R-CNN, {REGIONS:,} regions": count_macs(Whole(fast, REGIONS), size),
        f"Fast R-CNN, {REGIONS:,} regions, SVD 1024/256": count_macs(Whole(thin, REGIONS), size),
        f"Faster R-CNN, {faster.test_proposals} regions": count_macs(Whole(faster, faster.test_proposals), size),
    }


# Drawing


@torch.no_grad()
def draw_proposals(entries: Sequence[Entry], index: int) -> Image.Image:
    """The objects of a test image, and of each method the proposal that overlaps each object most.

    A box is green from an IoU of 0.5 on and orange below; objects are dashed. Selective Search is that of a run, where
    one has it; the RPN is drawn if there is a run of Faster R-CNN.
    """
    split = entries[0].splits["test"]
    image, truth = split.read(index), split.kind.instances[index]
    objects = truth.boxes if truth.labels is None else truth.boxes[truth.labels >= 0]
    known = [entry.proposer for entry in entries if isinstance(entry.proposer, SelectiveSearch)]
    search = known[0] if known else create_proposer("selective_search_fast")
    methods = {"Selective Search": search(image), "sliding windows": create_proposer("sliding_windows")(image)}
    for entry in entries:
        if isinstance(entry.model, FasterRCNN):
            methods["RPN"] = propose(entry, image)
    panels = [panel(image, objects, None, f"{len(objects)} objects")]
    for name, boxes in methods.items():
        panels.append(panel(image, objects, boxes, name))
    width, height = panels[0].size
    sheet = Image.new("RGB", (2 * width + 4, (len(panels) + 1) // 2 * (height + 4) - 4), (255, 255, 255))
    for place, drawn in enumerate(panels):
        sheet.paste(drawn, (place % 2 * (width + 4), place // 2 * (height + 4)))
    return sheet


def propose(entry: Entry, image: Tensor) -> Tensor:
    """The proposals of a run's RPN in pixels of the image, uint8 (C, H, W)."""
    model, preprocessing, size = entry.model, entry.preprocessing, image.shape[-2:]
    assert isinstance(model, FasterRCNN)
    outputs = model(preprocessing.normalize(preprocessing.prepare(image)[None]))
    return clip_boxes(preprocessing.return_boxes(proposals_of(model, outputs), size), size)


def panel(pixels: Tensor, objects: Tensor, boxes: Tensor | None, title: str) -> Image.Image:
    """The image over a line of words. boxes: of a method; without them the objects alone are drawn."""
    image = to_pil(pixels).convert("RGB")
    scale = _PANEL / image.width
    image = image.resize((_PANEL, round(image.height * scale)), Image.Resampling.LANCZOS)
    marks = [Mark((scale * box).tolist(), "", MISSED, dashed=boxes is not None) for box in objects]
    if boxes is not None:
        overlaps, best = pairwise_iou(objects, boxes).max(dim=1)
        pairs = zip(overlaps.tolist(), boxes[best] * scale, strict=True)
        marks = [Mark(box.tolist(), "", RIGHT if overlap >= 0.5 else WRONG) for overlap, box in pairs] + marks
        hits = int((overlaps >= 0.5).sum())
        title += f": {len(boxes):,} boxes, {hits} of {len(objects)} objects, mean IoU {float(overlaps.mean()):.2f}"
    drawn, _ = draw_marks(image, marks)
    sheet = Image.new("RGB", (drawn.width, drawn.height + 22), (255, 255, 255))
    sheet.paste(drawn, (0, 0))
    ImageDraw.Draw(sheet).text((2, drawn.height + 11), title, (16, 18, 22), font(12), anchor="lm")
    return sheet


# The table


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = ["run", "test AP50", "regions", *PARTS, "ms an image", "features on disk", "proposals on disk"]
    yield f"| {' | '.join(names)} |"
    yield "|---|" + (len(names) - 1) * "--:|"
    for row in rows:
        ap, regions = f"{100 * row['ap50']:.1f}" if "ap50" in row else "", f"{row['regions']:,.0f}"
        times = [f"{1000 * row[part]:,.1f}" for part in (*PARTS, "seconds")]
        sizes = [megabytes(row["features_bytes"]), megabytes(row["proposals_bytes"])]
        yield f"| {' | '.join([row['name'], ap, regions, *times, *sizes])} |"


def megabytes(size: int | None) -> str:
    return "not here" if size is None else f"{size / 1e6:,.1f} MB" if size else "none"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", type=Path, required=True, metavar="RUN", help="folders of trained runs")
    parser.add_argument("--data", help="where their data is, with its test split; else as their recipes say")
    parser.add_argument("--images", type=int, default=24, help="of the test split, to time")
    parser.add_argument("--svd", nargs=2, type=int, metavar=("FC6", "FC7"), help="ranks for fast_rcnn")
    parser.add_argument("--no-ap", action="store_true", help="times only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw proposals into this file; nothing is measured")
    parser.add_argument("--image", type=int, default=0, help="of the test split, to draw")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    entries = [entry for run in options.runs for entry in open_run(run, options.data, options.svd)]
    if options.draw:
        draw_proposals(entries, options.image).save(options.draw, quality=88)
        return
    if len({fingerprint(entry.splits["test"]) for entry in entries}) > 1:
        parser.error("the runs have different test images; give runs of the same data and split")
    split = entries[0].splits["test"]
    places = torch.linspace(0, len(split) - 1, min(options.images, len(split))).long().tolist()
    timed = measure(entries, [split.read(place) for place in places])
    rows: list[dict[str, Any]] = []
    for entry, times in zip(entries, timed, strict=True):
        row = {"name": entry.name, **times, **disk(entry)}
        if not options.no_ap:
            if sys.stderr.isatty():
                print(f"evaluating {entry.name}", file=sys.stderr)
            row["ap50"] = opsin.evaluate(entry.run, options.data, "test", device="cpu", change=entry.change)["map_50"]
        rows.append(row)
    macs = vgg16_macs()
    if options.json:
        told = {"threads": options.threads, "torch": torch.__version__, "images": len(places)}
        print(json.dumps({**told, "rows": rows, "vgg16_macs": macs}, indent=1))
        return
    print("\n".join(table(rows)))
    print("\n| VGG-16 | GMACs an image |\n|---|--:|")
    for name, count in macs.items():
        print(f"| {name} | {count / 1e9:,.0f} |")


if __name__ == "__main__":
    main()
