"""What `opsin explain` finds out, as plain data; `Explanation.to_dict()` is its JSON.

docs/counting.md defines the counts.
Counts are for one image, or one other input, in eval unless a name says otherwise, sizes in elements, memory in bytes,
receptive fields in pixels of the input, accuracies in percent, times in milliseconds. A pair is (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

FORMAT = 1  # of the JSON; rises when a field changes its meaning or goes away, not when one is added


@dataclass(frozen=True)
class Identity:
    """What the network is.

    name: of the model. kind: "model", "recipe" or "run", and source: the name or path that was asked for. family: the
    file of its code. place: what its idea works on, after Khan et al. 2020 (arXiv:1901.06032), the first the foremost.
    paper, paper_url, year, idea: of the publication; url "" where the citation is not an arXiv id.
    input: (C, H, W) that everything here is counted for; where `images` is false, the shape of one of the network's own
    examples, which are no images. options: the builder's that were set, num_classes included.
    """

    name: str
    kind: str
    source: str
    task: str
    family: str
    place: tuple[str, ...]
    paper: str
    paper_url: str
    year: int
    idea: str
    input: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    images: bool = True

    @property
    def noun(self) -> str:
        """What one input is called."""
        return "image" if self.images else "input"


@dataclass(frozen=True)
class Result:
    """One accuracy or other score, and where it comes from.

    metric: "imagenet1k top-1", "digits accuracy". value: in percent. origin: "published" (the paper or port), "weights"
    (a published file of weights), "recipe" (measured by the shipped recipe that source names), "run" (measured here).
    """

    metric: str
    value: float
    origin: str
    source: str


@dataclass(frozen=True)
class Field:
    """What one unit of a map can see of the input.

    size, jump: pixels seen, and pixels between the fields of neighbouring units, as pairs, as if the image went on
    for ever; jump None where neighbours do not exist or are not evenly apart. start: first pixel row and column of unit
    (0, 0), below zero in the padding. centre: of unit (0, 0), continuous: pixel i spans [i, i + 1).
    whole: the unit also sees all of the image, through a global pooling, a dense layer, attention or a gate
    (squeeze and excitation); size is then that of the sliding part alone, or of the image where there is none.
    exact: False where a reshape hid the rows and columns and size is only an upper bound.
    """

    size: tuple[int, int]
    jump: tuple[float, float] | None
    start: tuple[int, int]
    centre: tuple[float, float]
    whole: bool = False
    exact: bool = True


@dataclass(frozen=True)
class Layer:
    """One call of a layer, in the order of completion; a module that computes beside its children has a row too.

    index: of the row. name, type: of the module, "" for the network itself. inputs: indices of the rows whose outputs
    it reads, -1 for the image; above its own where a child reads what its parent has computed. output_shape: of its
    first tensor, without the batch; () for a module that holds parameters but did not run. params: learnable numbers,
    shared ones with the first call. connections: of units, biases included, as LeNet's paper counts. macs:
    multiply-adds of products. flops: all floating-point operations. activations: outputs of products, as RegNet's
    paper counts. elements: of all that its operators write. bytes_read, bytes_written: by its operators, weights
    included.
    intensity: FLOPs per byte. share: of the network's totals, from 0 to 1, keyed "params", "macs", "flops",
    "activations", "bytes". operators: ATen operators it ran, with their counts. uncounted: those without a rule.
    field: of its output, None where it does not depend on the image. kernel_size, stride, dilation, groups:
    of its convolution or pooling, None where it has none. in_channels, out_channels: of its product. input_shape: of
    the first tensor that its product or pooling reads, without the batch; () where it has none.
    """

    index: int
    name: str
    type: str
    inputs: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    connections: int
    macs: int
    flops: int
    activations: int
    elements: int
    bytes_read: int
    bytes_written: int
    intensity: float
    share: Mapping[str, float]
    operators: Mapping[str, int]
    uncounted: tuple[str, ...] = ()
    field: Field | None = None
    kernel_size: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    dilation: tuple[int, ...] | None = None
    groups: int | None = None
    in_channels: int | None = None
    out_channels: int | None = None
    input_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Uncounted:
    """An operator without a rule: its FLOPs (and MACs) are missing from the counts, its bytes are not."""

    operator: str
    calls: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """Sums over the layers. coverage: percent of the ATen operator calls whose FLOPs are counted, views included.

    buffers: numbers that are saved but not learned, such as running means. macs_by_flop_counter: half of what
    `torch.utils.flop_counter` counts for the same run, for comparison. counted_on: what a second stage had before it,
    such as "1,000 proposals"; memory is that of the first.
    """

    params: int
    buffers: int
    connections: int
    macs: int
    flops: int
    activations: int
    elements: int
    bytes: int
    intensity: float
    operators: int
    coverage: float
    macs_by_flop_counter: int
    counted_on: str = ""


@dataclass(frozen=True)
class Stage:
    """The stem, one stage, or the head. share: as of a layer. stride: declared; field: found by following the graph.

    layers: (first, last + 1) indices of its rows.
    """

    name: str
    output_shape: tuple[int, ...]
    channels: int
    stride: int | None
    params: int
    macs: int
    flops: int
    activations: int
    share: Mapping[str, float]
    layers: tuple[int, int]
    field: Field | None


@dataclass(frozen=True)
class Memory:
    """Bytes that live at once, at `batch` images in float32: estimated by following every allocation without data.

    weights, buffers: of the network. gradients: of the learnable ones. optimizer_state: of `optimizer`.
    saved_activations: what the forward pass keeps for the backward pass. train_peak: the most in forward, backward and
    optimizer step; infer_peak: in a forward pass without gradients; both with weights and input.
    measured_train_peak, measured_infer_peak: what the allocator of `device` handed out in a real run; None if not run.
    timeline_train, timeline_infer: at most 400 (operator call, bytes alive) pairs each, peaks kept, for a drawing.
    """

    batch: int
    optimizer: str
    weights: int
    buffers: int
    gradients: int
    optimizer_state: int
    saved_activations: int
    train_peak: int
    infer_peak: int
    measured_train_peak: int | None = None
    measured_infer_peak: int | None = None
    device: str = ""
    timeline_train: tuple[tuple[int, int], ...] = ()
    timeline_infer: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass in eval: median, and the fastest and slowest of `runs` after warm-up."""

    batch: int
    median: float
    fastest: float
    slowest: float
    runs: int
    device: str
    threads: int


@dataclass(frozen=True)
class Advice:
    """What the literature says against something that is there.

    rule: a short stable name ("unequal_widths"). title: one line. finding: what is there, with its numbers. reason: why
    it matters. remedy: what to do. source: paper and section. layers: names concerned, the worst first.
    numbers: what was measured, by name; limits: what triggers the rule, by name.
    """

    rule: str
    title: str
    finding: str
    reason: str
    remedy: str
    source: str
    layers: tuple[str, ...]
    numbers: Mapping[str, float]
    limits: Mapping[str, float]


@dataclass(frozen=True)
class Training:
    """How a recipe trains. rates: (epoch, learning rate) along the schedule. recipe: all keys, as YAML.

    data: the source's name. loss: None is the model's own.
    """

    data: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    loss: str | None
    schedule: str
    warmup_epochs: float
    rates: tuple[tuple[float, float], ...]
    recipe: str


@dataclass(frozen=True)
class Explanation:
    """Everything about one network. stages is empty for a network that is not a `Backbone`; training is None for a bare
    model; latency is None unless measured."""

    identity: Identity
    results: tuple[Result, ...]
    totals: Totals
    stages: tuple[Stage, ...]
    layers: tuple[Layer, ...]
    uncounted: tuple[Uncounted, ...]
    memory: Memory
    advice: tuple[Advice, ...]
    training: Training | None = None
    latency: Latency | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON: the fields by their names, after "format"."""
        values = {"format": FORMAT, **_plain(self)}
        values["totals"]["judged"] = self.totals.counted_on  # the earlier key, for a release
        return values


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
