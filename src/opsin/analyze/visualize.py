"""A network looked at with images before it: which ones, and what is shown of what it sees in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from opsin import data, registry
from opsin.analyze import plots
from opsin.analyze.dead_units import LayerActivity, find_dead_units
from opsin.analyze.deconvolution import Excitation, as_image, check_unit, project, strongest
from opsin.analyze.explain_schema import Explanation, Field
from opsin.analyze.feature_maps import as_grey, feature_maps, most_active
from opsin.analyze.gradcam import class_logits, grad_cam
from opsin.data import Preprocessing, Split
from opsin.data.images import UnreadableImage
from opsin.data.sample_files import read_photograph
from opsin.data.source import map_threads
from opsin.engine.checkpoint import read_model
from opsin.engine.membership import divide_as_trained
from opsin.engine.predict import find_images, load_image
from opsin.engine.recipe import Recipe
from opsin.engine.recipe_data import open_own
from opsin.errors import InputError, say
from opsin.nn.counting import meta_twin

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")  # coloured ones of those that come with opsin
_MOST_SCANNED = 1000  # images of a split that are searched for excitements and dead units
_BATCH = 32


@dataclass
class Image:
    """An image as the network gets it. image: uint8 (C, h, w). label: its class, where that is known."""

    name: str
    image: Tensor
    label: int | None = None


@dataclass
class Subject:
    """A network and what it is shown. trained: whether its weights are. split: of the run's data, None without."""

    model: nn.Module
    preprocessing: Preprocessing
    trained: bool
    images: list[Image]
    classes: list[str] = field(default_factory=list)
    split: Split | None = None
    split_name: str = ""
    missing: str = ""  # why there is no split, where there should be one

    def normalized(self, images: Sequence[Image]) -> Tensor:
        """The network's input for images: (B, C, h, w)."""
        return self.preprocessing.normalize(torch.stack([p.image for p in images]))

    def batches(self) -> Iterator[Tensor]:
        """The split, at most 1,000 images spread evenly over it, or the given images where there is none."""
        if self.split is None:
            yield self.normalized(self.images)
            return
        for batch in data.create_loader(self.scanned(), self.preprocessing, batch_size=_BATCH):
            yield self.preprocessing.normalize(batch["image"])

    def scanned(self) -> Split:
        """The part of the split that `batches` gives."""
        assert self.split is not None
        return _spread(self.split, _MOST_SCANNED)


def open_subject(explanation: Explanation, images: Sequence[str | Path] = (), count: int = 6) -> Subject:
    """The network of an explanation with images before it: given ones, or some of a run's validation data.

    Raises InputError for an image that cannot be read, and for images before a network without trained weights.
    """
    identity = explanation.identity
    if identity.kind != "run" and ":" not in identity.source:  # resnet50:imagenet1k has published weights
        if images:
            raise InputError(
                f"{identity.source} has no trained weights, so nothing it finds in images means anything; "
                f"train it and explain the run: opsin explain runs/{identity.name} --images ..."
            )
        return _untrained(explanation)
    saved = read_model(identity.source)
    preprocessing = saved.preprocessing
    if preprocessing is None:
        raise InputError(f"{identity.source} takes no images, so there is nothing to see in them")
    subject = Subject(saved.build(), preprocessing, True, [], saved.classes)
    if saved.recipe.data.source:
        try:
            subject.split_name, split = _open_split(saved.recipe, saved.members)
            subject.split = _readable(split)
        except InputError as error:
            subject.missing = str(error)
    if images:
        prepare = preprocessing.prepare
        subject.images = [Image(path.name, prepare(load_image(path))) for path in find_images(list(images))]
    elif subject.split is not None:
        subject.images = _examples(_spread(subject.split, count), subject.preprocessing)
    else:
        subject.images = photographs(preprocessing)
    return subject


def photographs(preprocessing: Preprocessing) -> list[Image]:
    """The built-in photographs, prepared. Their classes are unknown."""
    images = []
    for name in PHOTOGRAPHS:
        image = torch.from_numpy(read_photograph(name)).permute(2, 0, 1)
        images.append(Image(name, preprocessing.prepare(image)))
    return images


def _untrained(explanation: Explanation) -> Subject:
    """The network with fresh weights, always the same ones."""
    channels, *size = explanation.identity.input
    shown = channels if channels in (1, 3) else 1
    preprocessing = Preprocessing(
        size=(size[0], size[1]), channels=shown, mean=(0.5,) * shown, std=(0.25,) * shown, fit="crop", crop_ratio=1.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = registry.create_model(explanation.identity.name, **explanation.identity.options)
    subject = Subject(model.eval(), preprocessing, False, photographs(preprocessing))
    if channels == shown:
        _settle_norms(model, subject.normalized(subject.images))
    return subject


@torch.no_grad()
def _settle_norms(model: nn.Module, images: Tensor) -> None:
    """Give fresh batch norms the statistics of some images, as training would: without, a thousand layers overflow."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.train()
    model(images)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


def _open_split(recipe: Recipe, members: bytes | None) -> tuple[str, Split]:
    """The data to look at: validation, or else test or training."""
    splits = divide_as_trained(recipe, open_own(recipe), members, say)
    name = next(name for name in ("val", "test", *splits) if name in splits and len(splits[name]))
    return name, splits[name]


def _readable(split: Split) -> Split:
    """The part of a split that the page takes, less what cannot be read, with a line. Raises InputError without any."""
    part = _spread(split, _MOST_SCANNED)

    def why_not(index: int) -> UnreadableImage | None:
        try:
            part.read(index)
        except UnreadableImage as error:
            return error
        return None

    damaged = [] if part.inputs.held else map_threads(why_not, range(len(part)))
    if first := next(filter(None, damaged), None):
        left = [index for index, error in enumerate(damaged) if error is None]
        if not left:
            raise InputError(f"none of its images can be read: {first}")
        more = f", and {len(part) - len(left) - 1} more" if len(part) - len(left) > 1 else ""
        say(f"left out, since it cannot be read: {first.path}: {first.reason}{more}")
        return part.subset(left)
    return part


def called_names(model: nn.Module, input_size: tuple[int, ...], stages: Sequence[str]) -> list[str]:
    """The stages' modules; where a stage is not run as a whole, since a side head leaves in its middle, its last layer.

    Stages that give no feature maps are left out.
    """
    called: list[str] = []
    twin, images = meta_twin(model, input_size)
    for name, module in twin.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: called.append(name) if _is_map(out) else None)
    twin(images)
    found = []
    for stage in stages:
        inside = [name for name in called if name.startswith(f"{stage}.")]
        found += [stage] if stage in called else inside[-1:]
    return found


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim in (2, 3, 4)


def _examples(split: Split, preprocessing: Preprocessing) -> list[Image]:
    images = []
    for index in range(len(split)):
        label = split.kind.presence[index]
        known = int(label) if split.kind.presence.ndim == 1 and label >= 0 else None
        images.append(Image(split.name(index), preprocessing.prepare(split.read(index)), known))
    return images


def _spread(split: Split, count: int) -> Split:
    """At most `count` images, of the classes in turn where each has one label."""
    if len(split) <= count:
        return split
    return split.subset(
        np.sort(data.stratified(split.kind.presence, count)) if count >= 100 else _one_a_class(split, count)
    )


def _one_a_class(split: Split, count: int) -> np.ndarray:
    if split.kind.presence.ndim == 2:
        return np.linspace(0, len(split) - 1, count).astype(int)
    first = [int(np.flatnonzero(split.kind.presence == k)[0]) for k in np.unique(split.kind.presence)]
    chosen = [first[i] for i in np.unique(np.linspace(0, len(first) - 1, min(count, len(first))).astype(int))]
    others = [i for i in range(len(split)) if i not in set(chosen)]
    return np.array((chosen + others)[:count])


# What is shown


@dataclass
class Tile:
    """Images that belong together, as data URIs, over a caption whose first line stands out."""

    sources: list[str]
    caption: str
    wrong: bool = False


@dataclass
class TileGroup:
    """Tiles under a heading. size: of a tile, in rem."""

    heading: str
    tiles: list[Tile]
    note: str = ""
    size: float = 4.0


def show_feature_maps(subject: Subject, layers: Sequence[str], count: int = 24) -> list[TileGroup]:
    """The `count` maps of each layer that the first image excites most."""
    image = subject.images[0]
    maps = feature_maps(subject.model, subject.normalized([image]), layers)
    groups = []
    for layer in layers:
        whole = maps[layer][0]
        if whole.shape[1:].numel() == 1:
            groups.append(_vector(layer, whole.flatten()))
            continue
        units = most_active(whole, count)
        tiles = [Tile([plots.image_uri(as_grey(whole[unit]), 64)], str(unit)) for unit in units]
        shape = " x ".join(map(str, whole.shape))
        silent = int((whole == 0).flatten(1).all(dim=1).sum())
        said = f"{shape}; shown are the {len(units)} strongest" + (f", {silent} are zero everywhere" if silent else "")
        groups.append(TileGroup(layer, tiles, said + "."))
    return groups


def _vector(layer: str, values: Tensor) -> TileGroup:
    """Units without places, as the pixels of one image."""
    columns = math.ceil(math.sqrt(len(values)))
    padded = torch.zeros(math.ceil(len(values) / columns) * columns, dtype=values.dtype)
    padded[: len(values)] = values.cpu()
    tile = Tile([plots.image_uri(as_grey(padded.view(-1, columns)), 64)], f"all {len(values)}")
    silent = int((values == 0).sum())
    said = f"{len(values)} units without places, in rows of {columns}" + (f"; {silent} are zero" if silent else "")
    return TileGroup(layer, [tile], said + ".", size=8.0)


def show_excitements(
    subject: Subject, fields: dict[str, Field | None], units: Sequence[int] | None = None, count: int = 6
) -> list[TileGroup]:
    """For units of each layer the nine images that excite them most, cut to the field, and what does it in each.

    units: None takes the `count` that the data excites most. fields: layer -> what a unit of it sees.
    """
    groups = []
    everything = strongest(subject.model, subject.batches(), list(fields))
    for layer, seen in fields.items():
        found = everything[layer]
        for unit in units or ():
            check_unit(layer, unit, len(found))
        ranked = sorted(range(len(found)), key=lambda u: -_mean(found[u]))
        chosen = list(units) if units is not None else [u for u in ranked if _mean(found[u]) > 0][:count]
        tiles = [_excitement(subject, layer, unit, found[unit], seen) for unit in chosen]
        groups.append(TileGroup(layer, tiles, "" if tiles else "Nothing excites any unit.", size=15.0))
    return groups


def show_evidence(subject: Subject) -> list[Tile]:
    """Grad-CAM of every image: for the most probable class, and for the true one where that is another.

    Raises NoEvidenceError for a network that gives an image no class.
    """
    images, model = subject.normalized(subject.images), cast("Any", subject.model)
    evidence = grad_cam(subject.model, images)
    with torch.no_grad():
        logits = class_logits(model(images))
        scores = model.decode(logits)["scores"]
    tiles = []
    for place, image in enumerate(subject.images):
        predicted = int(evidence.classes[place])
        wrong = image.label is not None and image.label != predicted
        asked = [predicted] + ([image.label] if wrong and image.label is not None else [])
        maps = [grad_cam(subject.model, images[place : place + 1], [k], layer=evidence.layer) for k in asked]
        heats = [plots.heat(image.image, m.enlarged(*image.image.shape[1:])[0]) for m in maps]
        caption = f"{subject.classes[predicted]}, {100 * float(scores[place, predicted]):.1f} %\n{image.name}"
        if wrong and image.label is not None:
            right = 100 * float(scores[place, image.label])
            caption += f"\nis {subject.classes[image.label]}, with {right:.1f} %"
        tiles.append(Tile([plots.image_uri(p) for p in (image.image, *heats)], caption, wrong))
    return tiles


def show_dead_units(subject: Subject) -> list[LayerActivity]:
    """The activity of every activation over the split."""
    return find_dead_units(subject.model, subject.batches())


def _mean(found: Sequence[Excitation]) -> float:
    return sum(max(0.0, e.activation) for e in found) / len(found)


def _excitement(subject: Subject, layer: str, unit: int, found: list[Excitation], seen: Field | None) -> Tile:
    found = [e for e in found if e.activation > 0]
    split = subject.scanned() if subject.split is not None else None
    images = [
        subject.preprocessing.prepare(split.read(e.index)) if split is not None else subject.images[e.index].image
        for e in found
    ]
    if not images:
        return Tile([], f"unit {unit}\nnothing excites it")
    batch = subject.preprocessing.normalize(torch.stack(images))
    places = torch.tensor([[e.row, e.column] for e in found])
    signal = project(subject.model, batch, layer, unit, places=places).signal
    boxes = [field_box(seen, e.row, e.column, images[0].shape[1:]) for e in found]
    patches = [image[:, y1:y2, x1:x2] for image, (x1, y1, x2, y2) in zip(images, boxes, strict=True)]
    causes = [as_image(one[:, y1:y2, x1:x2]) for one, (x1, y1, x2, y2) in zip(signal, boxes, strict=True)]
    return Tile([plots.mosaic(patches), plots.mosaic(causes)], f"unit {unit}\nup to {found[0].activation:.3g}")


def field_box(seen: Field | None, row: int, column: int, size: Any) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of what a unit sees, within an image of (height, width); all of it where that is not known."""
    height, width = size
    if seen is None or seen.jump is None or seen.whole:
        return 0, 0, width, height
    top, left = (round(s + place * j) for s, place, j in zip(seen.start, (row, column), seen.jump, strict=True))
    y1, x1 = min(max(0, top), height - 1), min(max(0, left), width - 1)
    return x1, y1, max(x1 + 1, min(width, left + seen.size[1])), max(y1 + 1, min(height, top + seen.size[0]))
