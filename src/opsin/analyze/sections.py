"""The sections of an explanation's page: what the report has no kind for, and how each is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from opsin.analyze import plots, visualize
from opsin.analyze.dead_units import LayerActivity
from opsin.analyze.effective_field import EffectiveField, effective_fields
from opsin.analyze.explain_schema import Advice, Explanation, Layer, Memory, Result, Stage
from opsin.analyze.gradcam import NoEvidenceError
from opsin.analyze.visualize import Subject, Tile, TileGroup
from opsin.engine import charts
from opsin.engine.report import Code, Figure, Section, Table, Text

ORIGINS = {"published": "published", "weights": "published weights", "recipe": "our recipe", "run": "this run"}
_MOST_ROWS = 60  # of dead units' layers
_FIELD_WORK = 40e9  # multiply-adds of all forward passes for effective fields: some ten seconds on two cores


@dataclass
class Facts:
    """Names and values, one of them perhaps a link."""

    title: str
    rows: Sequence[tuple[str, str, str]]

    def view(self) -> dict[str, Any]:
        return {"rows": self.rows}


@dataclass
class Advices:
    """What the literature says against what is there, one card each."""

    title: str
    advice: Sequence[Advice]

    def view(self) -> dict[str, Any]:
        return {"advice": [vars(a) | {"concerned": _several(a.layers, 6)} for a in self.advice]}


@dataclass
class Fields:
    """The receptive field of each stage over an image. size: (height, width) of the input."""

    title: str
    note: str
    image: str
    size: tuple[int, int]
    frame: tuple[float, float, float, float]
    stages: list[dict[str, Any]]

    def view(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("note", "image", "size", "frame", "stages")}


@dataclass
class Tiles:
    """Small images in groups."""

    title: str
    note: str
    groups: list[TileGroup] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        groups = [vars(g) | {"tiles": [_tile(t) for t in g.tiles]} for g in self.groups]
        return {"note": self.note, "groups": groups}


@dataclass
class LayerTree:
    """Every layer, collapsed by stage."""

    title: str
    explanation: Explanation

    def view(self) -> dict[str, Any]:
        layers, stages = self.explanation.layers, self.explanation.stages
        if not stages:
            groups = [("network", "", 1.0, 1.0, layers)]
        else:
            groups = [
                (s.name, dims(s.output_shape), s.share["params"], s.share["macs"], layers[s.layers[0] : s.layers[1]])
                for s in stages
            ]
            placed = {layer.index for *_, rows in groups for layer in rows}
            rest = tuple(layer for layer in layers if layer.index not in placed)
            if rest:
                groups.append(("beside the stages", "", *_shares(rest), rest))
        views = [
            {
                "name": name,
                "shape": shape,
                "params": 100 * params,
                "macs": 100 * macs,
                "rows": [_layer_cells(layer, name) for layer in rows],
                "open": len(layers) <= 40,
            }
            for name, shape, params, macs, rows in groups
        ]
        totals, identity = self.explanation.totals, self.explanation.identity
        note = (
            f"{len(layers):,} calls of layers, for one {identity.noun} of {dims(identity.input)}"
            f"{f' with {totals.counted_on}' if totals.counted_on else ''}. "
            f"In total {totals.params:,} parameters, {totals.connections:,} connections, {totals.macs:,} MACs "
            f"(multiply-adds of products), {totals.flops:,} FLOPs (all floating-point operations) and "
            f"{amount(totals.bytes)} moved. Bars are shares of these. A click on a heading sorts."
        )
        return {"note": note, "groups": views}


def facts(explanation: Explanation) -> Facts:
    """What the network is."""
    identity = explanation.identity
    rows = [
        ("what", {"model": "a network", "recipe": "a recipe", "run": "a training"}[identity.kind], ""),
        ("network", identity.name, ""),
        ("paper", f"{identity.paper} ({identity.year})" if identity.paper else "", identity.paper_url),
        ("idea", identity.idea, ""),
        ("its place", ", ".join(identity.place), ""),
        ("family", f"opsin.backbones.{identity.family}" if identity.family else "", ""),
        ("input", dims(identity.input) + " (channels, height, width)" * identity.images, ""),
        ("options", ", ".join(f"{k}={v}" for k, v in identity.options.items()), ""),
    ]
    return Facts("What it is", [row for row in rows if row[1]])


def results_table(results: Sequence[Result]) -> Table:
    """Published and measured results beside each other."""
    metrics = list(dict.fromkeys(r.metric for r in results))
    origins = [o for o in ORIGINS if any(r.origin == o for r in results)]
    rows = [
        [m, *(percent(next((r.value for r in results if (r.metric, r.origin) == (m, o)), None)) for o in origins)]
        for m in metrics
    ]
    sources = dict.fromkeys(f"{ORIGINS[r.origin]}: {r.source}" for r in results if r.source)
    return Table("Results", ["result", *(ORIGINS[o] for o in origins)], rows, "; ".join(sources))


def stage_table(stages: Sequence[Stage]) -> Table:
    """What each stage costs and sees."""
    rows = [
        [
            s.name,
            dims(s.output_shape),
            s.stride,
            s.params,
            s.share["params"],
            s.macs,
            s.share["macs"],
            s.share["activations"],
            sees(s.field),
        ]
        for s in stages
    ]
    columns = ["stage", "output", "stride", "parameters", "of all", "MACs", "of all", "activations", "sees"]
    return Table("Stages", columns, rows, bars=("of all", "activations"))


def fields_section(explanation: Explanation, subject: Subject) -> Fields | Text:
    """What a unit in the middle of each stage sees: all it can, and what counts for it."""
    identity = explanation.identity
    stages = [s for s in explanation.stages if s.name != "head" and len(s.output_shape) == 3 and s.field is not None]
    if not stages:
        return Text("Receptive field", "No stage gives maps with places, so no field can be drawn.")
    count = max(1, min(len(subject.images), int(_FIELD_WORK / max(1, explanation.totals.macs))))
    images = _images(explanation, subject, count)
    names = visualize.called_names(subject.model, explanation.identity.input, [s.name for s in stages])
    fields = effective_fields(subject.model, images, names)
    height, width = images.shape[2:]
    boxes = [_full_box(stage, one) for stage, one in zip(stages, fields, strict=True)]
    edge = max(height, width) / 12  # of paper around the image: a field that reaches further is cut there
    views = [_field_view(*three, (height, width), edge) for three in zip(stages, fields, boxes, strict=True)]
    frame = (-1.2 * edge, -1.2 * edge, width + 2.4 * edge, height + 2.4 * edge)
    weights = "trained" if subject.trained else "fresh, random"
    what = f"{count} image{'s' * (count > 1)}" if identity.input[0] in (1, 3) else "noise"
    note = (
        "One unit in the middle of each stage. The frame is all it can see, by the layers' kernels and strides, "
        "cut where it reaches far beyond the image; "
        "the light is what counts for it: the size of the gradient at each pixel (Luo et al. 2016), "
        f"averaged over {what}, with {weights} weights. The dashed square has as many pixels as count more than "
        "4.55 % of the strongest one."
    )
    image = plots.image_uri(subject.images[0].image, 320)
    return Fields("Receptive field", note, image, (height, width), frame, views)


def seen_sections(
    explanation: Explanation, subject: Subject, layers: Sequence[str] | None, units: Sequence[int] | None
) -> list[Section]:
    """What a trained network sees in images."""
    stages = {s.name: s.field for s in explanation.stages if s.name not in ("stem", "head")}
    rows = {layer.name: layer.field for layer in explanation.layers}
    names = list(layers or ())
    if layers is None:
        names = visualize.called_names(subject.model, explanation.identity.input, list(stages))
        names = names or _last_of_sizes(explanation.layers)
    fields = {name: stages.get(name, rows.get(name)) for name in names}
    first = subject.images[0].name
    where = f"{len(subject.scanned()):,} images of its {subject.split_name} split" if subject.split else "the images"
    sections: list[Section] = [
        _class_evidence(subject),
        Tiles("Feature maps", f"Of {first}, by layer; the number is the unit's. Each map over its own range.",
              visualize.show_feature_maps(subject, names)),
        Tiles("What excites units", _EXCITEMENT.format(where=where),
              visualize.show_excitements(subject, fields, units)),
        dead_table(visualize.show_dead_units(subject), where),
    ]  # fmt: skip
    if subject.missing:
        sections.insert(0, Text("Its data", f"The run's own data cannot be opened: {subject.missing}"))
    return sections


def _class_evidence(subject: Subject) -> Tiles:
    """What speaks for the class of each image; of a network that is no classifier, why there is nothing to show."""
    try:
        return Tiles("Class evidence", _EVIDENCE, [TileGroup("", visualize.show_evidence(subject), size=15.0)])
    except NoEvidenceError as error:
        return Tiles("Class evidence", f"Not shown: {error}.", [])


def _last_of_sizes(layers: Sequence[Layer]) -> list[str]:
    """Of a network without stages the last layer of each size of its maps, as its stages would end; five at most."""
    inner = [one for one in layers if one.name and len(one.output_shape) == 3]  # the network itself has no name
    last = {tuple(one.output_shape[1:]): one.name for one in inner}
    return [name for size, name in last.items() if math.prod(size) > 1][-5:]


_EVIDENCE = (
    "Where an image speaks for the class: Grad-CAM (Selvaraju et al. 2016) of the last layer whose maps have places. "
    "Yellow is the strongest, within each image. A wrong answer also shows what speaks for the right class."
)


_EXCITEMENT = (
    "For the busiest units of each layer the places that excite them most, in {where}: left what is there, cut to what "
    "the unit can see; right what in it does it, by ZFNet's deconvolution (Zeiler and Fergus 2013): grey is nothing."
)


def dead_table(activity: Sequence[LayerActivity], where: str) -> Table | Text:
    """Units that never do anything, by layer."""
    if not activity:
        return Text("Dead units", "The network has no activation functions, so none of its units can be dead.")
    dead, units = sum(len(a.dead) for a in activity), sum(a.units for a in activity)
    note = (
        f"{dead:,} of {units:,} units, {100 * dead / units:.1f} %, give the same whatever they are shown, in {where}."
    )
    shown = sorted((a for a in activity if a.dead), key=lambda a: -a.share)[:_MOST_ROWS]
    if not shown:
        return Text("Dead units", note)
    order = {a.name: place for place, a in enumerate(activity)}
    rows = [
        [a.name, a.units, len(a.dead), a.share, sum(a.active) / a.units, _several([str(u) for u in a.dead], 12)]
        for a in sorted(shown, key=lambda a: order[a.name])
    ]
    if (more := sum(1 for a in activity if a.dead) - len(shown)) > 0:
        note += f" {more} more layers have some, fewer than these."
    columns = ["activation", "units", "dead", "share", "active", "which"]
    note += " Active: the share of places where a unit is above zero, on average."
    return Table("Dead units", columns, rows, note, bars=("share", "active"))


def memory_sections(memory: Memory) -> list[Section]:
    """Bytes to train and to infer, estimated and measured."""
    rows = [
        ["weights", amount(memory.weights), None],
        ["buffers", amount(memory.buffers), None],
        ["gradients", amount(memory.gradients), None],
        [f"state of {memory.optimizer}", amount(memory.optimizer_state), None],
        ["activations kept for the backward pass", amount(memory.saved_activations), None],
        ["most at once, to train", amount(memory.train_peak), amount(memory.measured_train_peak)],
        ["most at once, to infer", amount(memory.infer_peak), amount(memory.measured_infer_peak)],
    ]
    note = f"At a batch of {memory.batch}, in float32. Estimated by following every allocation without data."
    columns = ["what", "estimated", f"measured, {memory.device}"]
    if not memory.device:
        rows, columns = [row[:2] for row in rows], columns[:2]
    sections: list[Section] = [Table("Memory", columns, rows, note)]
    lines = {name: line for name, line in (("train", memory.timeline_train), ("infer", memory.timeline_infer)) if line}
    if lines:
        caption = "Bytes alive along a forward pass, and along forward, backward and step of a training."
        sections.append(Figure("Memory over a step", plots.memory(lines), caption, wide=True))
    return sections


def uncounted_table(explanation: Explanation) -> Table:
    """Operators without a rule."""
    rows = [[u.operator, u.calls, _several(u.layers, 4)] for u in explanation.uncounted]
    note = f"Their FLOPs are missing from the counts, their bytes are not: {explanation.totals.coverage:.4g} % counted."
    return Table("Not counted", ["operator", "calls", "in"], rows, note)


def training_sections(explanation: Explanation) -> list[Section]:
    """How a recipe or a run trains."""
    training = explanation.training
    if training is None:
        return []
    rows = [
        ("data", training.data, ""),
        ("epochs", str(training.epochs), ""),
        ("batch", str(training.batch_size), ""),
        (
            "optimizer",
            f"{training.optimizer}, learning rate {training.lr:g}, weight decay {training.weight_decay:g}",
            "",
        ),
        ("schedule", f"{training.schedule}, {training.warmup_epochs:g} epochs of warm-up", ""),
        ("loss", training.loss or "the network's own", ""),
    ]
    epochs, rates = zip(*training.rates, strict=True) if training.rates else ((), ())
    sections: list[Section] = [Facts("Training", rows)]
    if len(epochs) > 1:
        sections.append(Figure("Learning rate", charts.lines({"learning rate": (epochs, rates)})))
    return [*sections, Code("Recipe", training.recipe)]


def amount(count: int | None) -> str | None:
    """Bytes in three digits, decimal units; None stays None."""
    if count is None:
        return None
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 999.5 * scale else f"{count / scale:.0f} {unit}"
    return f"{count} B"


def sees(seen: Any) -> str | None:
    """A field in words: 7 x 7, and whether the whole image comes in by a global layer."""
    if seen is None:
        return None
    size = f"{'' if seen.exact else 'at most '}{seen.size[0]} x {seen.size[1]}"
    return f"{size} + all" if seen.whole else size


def _images(explanation: Explanation, subject: Subject, count: int) -> Tensor:
    """Input for gradients: the subject's images, or noise for a network of neither one nor three channels."""
    shape = explanation.identity.input
    if shape[0] == subject.preprocessing.channels:
        return subject.normalized(subject.images[:count])
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def _full_box(stage: Stage, found: EffectiveField) -> tuple[float, float, float, float]:
    assert stage.field is not None
    jump = stage.field.jump or (0.0, 0.0)
    top, left = (s + place * j for s, place, j in zip(stage.field.start, (found.row, found.column), jump, strict=True))
    return left, top, left + stage.field.size[1], top + stage.field.size[0]


def _field_view(
    stage: Stage, found: EffectiveField, box: tuple[float, ...], size: tuple[int, int], edge: float
) -> dict[str, Any]:
    assert stage.field is not None
    x1, y1, x2, y2 = box
    middle, half = ((x1 + x2) / 2, (y1 + y2) / 2), found.side / 2
    x1, y1 = max(x1, -edge), max(y1, -edge)
    x2, y2 = min(x2, size[1] + edge), min(y2, size[0] + edge)
    jump = f", jump {stage.field.jump[0]:g}" if stage.field.jump else ""
    counts = f"counts {found.side:.0f} x {found.side:.0f}, {_share(found.side, stage.field.size)} of its side"
    return {
        "name": stage.name,
        "shade": plots.spotlight(found.strength),
        "box": (x1, y1, x2 - x1, y2 - y1),
        "square": (middle[0] - half, middle[1] - half, 2 * half),
        "first": f"sees {sees(stage.field)}{jump}",
        "rest": counts if found.side else "no gradient arrives",
    }


def _share(side: float, size: tuple[int, int]) -> str:
    return f"{100 * side / (size[0] * size[1]) ** 0.5:.0f} %"


def _layer_cells(layer: Layer, stage: str) -> dict[str, Any]:
    name = layer.name.removeprefix(f"{stage}.") or "(network)"
    return {
        "name": "(itself)" if layer.name == stage else name,
        "type": layer.type + _geometry(layer),
        "shape": dims(layer.output_shape),
        "numbers": [
            (f"{layer.params:,}", _bar(layer.share["params"])),
            (f"{layer.macs:,}", _bar(layer.share["macs"])),
            (f"{layer.flops:,}", ""),
            (f"{layer.activations:,}", ""),
            (amount(layer.bytes_read + layer.bytes_written), _bar(layer.share["bytes"])),
            (f"{layer.intensity:.3g}", ""),
        ],
        "sees": sees(layer.field) or "-",
    }


def _geometry(layer: Layer) -> str:
    """Kernel, stride, dilation and groups where they say something: 3x3/2, 32 groups."""
    if layer.kernel_size is None:
        return ""
    text = " " + "x".join(map(str, layer.kernel_size))
    if layer.stride and max(layer.stride) > 1:
        text += f"/{layer.stride[0]}"
    if layer.dilation and max(layer.dilation) > 1:
        text += f", dilation {layer.dilation[0]}"
    return text + (f", {layer.groups} groups" if (layer.groups or 1) > 1 else "")


def _bar(share: float) -> str:
    return f"{100 * share:.3g}" if share >= 0.0005 else ""


def _shares(layers: Sequence[Layer]) -> tuple[float, float]:
    return sum(layer.share["params"] for layer in layers), sum(layer.share["macs"] for layer in layers)


def _tile(tile: Tile) -> dict[str, Any]:
    first, _, rest = tile.caption.partition("\n")
    return {"sources": tile.sources, "first": first, "rest": rest, "wrong": tile.wrong}


def dims(shape: Sequence[int]) -> str:
    """A shape in words: 64 x 56 x 56."""
    return " x ".join(map(str, shape))


def percent(value: float | None) -> str | None:
    """An accuracy in words; None stays None."""
    return None if value is None else f"{value:.2f} %"


def _several(names: Sequence[str], most: int) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
