"""What the literature says against something in a network: each rule measures, and speaks only above its limit.

ShuffleNetV2's guidelines: Ma et al. 2018, arXiv:1807.11164, section 2. Inception's principles: Szegedy et al. 2015,
arXiv:1512.00567, section 2. Advice is not a verdict: a network may have good reasons, and the page on it says which.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

from torch import nn

from opsin.analyze.explain_schema import Advice, Layer
from opsin.analyze.profile import Profile

_SHUFFLENET = "Ma et al. 2018 (ShuffleNetV2), arXiv:1807.11164, section 2"
_INCEPTION = "Szegedy et al. 2015 (Inception v3), arXiv:1512.00567, section 2"

# Our limits: above what ResNet-18 and VGG-16 have, below what the papers name as examples.
EXCESS = 1.1  # traffic of 1x1 convolutions over the least possible for their work (G1)
WORK = 0.1  # share of the multiply-adds (G1) or of the products' traffic (G2) that must be concerned
BRANCHES = 3  # layers side by side on one map (G3)
ELEMENTWISE = 2 / 3  # share of the maps' traffic (G4)
SHRINK = 4.0  # from one stage to the next, in numbers; halving both sides and doubling the maps is 2
STAGE = 0.7  # share of the multiply-adds in one stage
HEAD = 0.5  # share of the parameters


def advise(model: nn.Module, found: Profile) -> tuple[Advice, ...]:
    """All advice on a network of which a profile was taken, in a fixed order of rules."""
    return tuple(advice for rule in RULES if (advice := rule(model, found)) is not None)


def unequal_widths(model: nn.Module, found: Profile) -> Advice | None:
    """G1: at the same work a 1x1 convolution moves least where its inputs are as many as its outputs."""
    moved = least = work = 0.0
    worst: list[tuple[float, Layer]] = []
    for layer in found.layers:
        ends = _ends(layer)
        if layer.groups != 1 or layer.kernel_size != (1, 1) or ends is None or layer.output_shape[-2:] == (1, 1):
            continue
        inputs, outputs, places = ends
        moved += places * (inputs + outputs) + inputs * outputs
        least += 2 * places * math.sqrt(inputs * outputs) + inputs * outputs
        work += layer.share["macs"]
        worst.append((max(inputs, outputs) / min(inputs, outputs), layer))
    if not worst or moved <= EXCESS * least or work < WORK:
        return None
    ratio = max(r for r, _ in worst)
    wide = [layer for r, layer in worst if r >= 2]
    return Advice(
        rule="unequal_widths",
        title="1x1 convolutions between unequal widths (G1)",
        finding=f"{len(wide)} of {len(worst)} 1x1 convolutions widen or narrow twofold or more, at most "
        f"1:{ratio:.3g}; together they move {moved / least:.2f} times the least possible for their multiply-adds",
        reason="memory traffic h w (c1 + c2) + c1 c2 at constant h w c1 c2 is least for c1 = c2",
        remedy="keep widths equal along a branch; ShuffleNetV2 splits channels instead of squeezing them",
        source=f"{_SHUFFLENET}, G1",
        layers=_worst(worst),
        numbers={"traffic_over_least": moved / least, "largest_ratio": ratio, "share_of_macs": work},
        limits={"traffic_over_least": EXCESS, "share_of_macs": WORK},
    )


def many_groups(model: nn.Module, found: Profile) -> Advice | None:
    """G2: grouped convolutions move more for the same work. Depthwise ones count with the element-wise operators."""
    grouped = [layer for layer in found.layers if (layer.groups or 1) > 1 and not _depthwise(layer)]
    work = sum(layer.share["macs"] for layer in grouped)
    traffic = sum(layer.share["bytes"] for layer in grouped)
    traffic /= max(sum(layer.share["bytes"] for layer in found.layers if layer.activations), 1e-9)
    if traffic < WORK:
        return None
    most = max(layer.groups or 1 for layer in grouped)
    moved, least = 0.0, 0.0
    for layer in grouped:
        ends = _ends(layer)
        if ends is None:
            continue
        inputs, outputs, places = ends
        groups = layer.groups or 1
        weights = layer.macs / places
        moved += places * (inputs + outputs) + weights
        least += places * (inputs + outputs) / math.sqrt(groups) + weights  # dense, of the same multiply-adds
    return Advice(
        rule="many_groups",
        title="Grouped convolutions (G2)",
        finding=f"{len(grouped)} convolutions have up to {most} groups, {100 * work:.0f} % of the multiply-adds and "
        f"{100 * traffic:.0f} % of the traffic of products; they move {moved / least:.2f} times what dense ones of the "
        "same multiply-adds would",
        reason="more groups at the same work mean wider maps, and so more memory traffic for each multiply-add",
        remedy="choose the number of groups by measured speed on the target, not by multiply-adds",
        source=f"{_SHUFFLENET}, G2",
        layers=_worst([(float(layer.groups or 1), layer) for layer in grouped]),
        numbers={
            "share_of_macs": work,
            "share_of_traffic": traffic,
            "most_groups": float(most),
            "traffic_over_dense": moved / least,
        },
        limits={"share_of_traffic": WORK},
    )


def fragmentation(model: nn.Module, found: Profile) -> Advice | None:
    """G3: many small operators side by side keep a parallel device waiting."""
    readers: dict[int, list[Layer]] = {}
    for layer in found.layers:
        if (layer.activations or "Pool" in layer.type) and layer.output_shape[-2:] != (1, 1):
            for source in layer.inputs:
                readers.setdefault(source, []).append(layer)
    wide = {source: layers for source, layers in readers.items() if len(layers) >= BRANCHES}
    if not wide:
        return None
    most = max(wide.values(), key=len)
    calls = sum(layer.activations > 0 for layer in found.layers)
    return Advice(
        rule="fragmentation",
        title="Many branches (G3)",
        finding=f"{len(wide)} maps are read by {BRANCHES} or more convolutions or poolings side by side, at most "
        f"{len(most)}; there are {calls} convolutions and products in all",
        reason="small operators in parallel fill a GPU badly and cost a start and a synchronisation each",
        remedy="prefer few large operators; measure the latency beside the multiply-adds",
        source=f"{_SHUFFLENET}, G3",
        layers=tuple(layer.name for layer in most),
        numbers={"most_branches": float(len(most)), "places": float(len(wide)), "products": float(calls)},
        limits={"most_branches": float(BRANCHES)},
    )


def elementwise(model: nn.Module, found: Profile) -> Advice | None:
    """G4: activations, additions, gates, copies and depthwise convolutions do little and move much.

    Batch norms are left out, because they fold into the convolutions; so are weights, because they do not grow with
    the image.
    """
    moved = Counter[bool]()
    slow: list[tuple[float, Layer]] = []
    for layer in found.layers:
        if "BatchNorm" in layer.type:
            continue
        traffic = layer.bytes_read + layer.bytes_written - (4 * layer.params if layer.activations else 0)
        small = _depthwise(layer) or not (layer.activations or "Pool" in layer.type)
        moved[small] += max(traffic, 0)
        if small:
            slow.append((float(traffic), layer))
    share = moved[True] / max(moved[True] + moved[False], 1)
    if share <= ELEMENTWISE:
        return None
    flops = sum(layer.share["flops"] for _, layer in slow)
    return Advice(
        rule="elementwise",
        title="Element-wise operators move most of the data (G4)",
        finding=f"{100 * share:.0f} % of the traffic of maps is by activations, additions, gates, copies and depthwise "
        f"convolutions, which are {100 * flops:.0f} % of the FLOPs",
        reason="they have few FLOPs but high memory traffic, so they take more time than FLOPs say",
        remedy="fold batch norms, fuse activations (opsin.optimize), and leave out what accuracy does not need",
        source=f"{_SHUFFLENET}, G4",
        layers=_worst(slow),
        numbers={"share_of_traffic": share, "share_of_flops": flops},
        limits={"share_of_traffic": ELEMENTWISE},
    )


def representational_bottleneck(model: nn.Module, found: Profile) -> Advice | None:
    """Principle 1: what passes from stage to stage should shrink gently, above all early."""
    stages = [s for s in found.stages if len(s.output_shape) == 3 and math.prod(s.output_shape[1:]) > 1]
    stages = [s for s in stages if s.name != "head"]
    sizes = [math.prod(s.output_shape) for s in stages]
    steps = [(a / b, i + 1) for i, (a, b) in enumerate(itertools.pairwise(sizes)) if b]
    if not steps or max(steps)[0] <= SHRINK:
        return None
    shrink, place = max(steps)
    return Advice(
        rule="representational_bottleneck",
        title="A representational bottleneck",
        finding=f"{stages[place].name} passes on {sizes[place]:,} numbers of the {sizes[place - 1]:,} that it gets, "
        f"{shrink:.3g} times fewer",
        reason="what an extreme compression loses no later layer can bring back; halving a map while doubling its "
        "channels only halves the representation",
        remedy="widen before or while the map shrinks: a strided convolution and a pooling side by side (section 5)",
        source=f"{_INCEPTION}, principle 1",
        layers=(stages[place].name,),
        numbers={"shrinks": shrink, "before": float(sizes[place - 1]), "after": float(sizes[place])},
        limits={"shrinks": SHRINK},
    )


def unbalanced_stages(model: nn.Module, found: Profile) -> Advice | None:
    """Principle 4: the work should be spread over depth and width, not lie in one stage."""
    stages = [s for s in found.stages if s.name.startswith("stages.")]
    if len(stages) < 3:
        return None
    most = max(stages, key=lambda s: s.share["macs"])
    if most.share["macs"] <= STAGE:
        return None
    return Advice(
        rule="unbalanced_stages",
        title="One stage does most of the work",
        finding=f"{most.name} has {100 * most.share['macs']:.0f} % of the multiply-adds, of {len(stages)} stages",
        reason="width and depth should grow together, and the work be spread over the network",
        remedy="move blocks to other stages, or widen those that are narrow",
        source=f"{_INCEPTION}, principle 4",
        layers=(most.name,),
        numbers={"share_of_macs": most.share["macs"], "stages": float(len(stages))},
        limits={"share_of_macs": STAGE},
    )


def bias_before_norm(model: nn.Module, found: Profile) -> Advice | None:
    """A bias whose sum goes into a batch norm is subtracted again with the mean."""
    modules = dict(model.named_modules())
    useless = []
    for layer in found.layers:
        if "BatchNorm" not in layer.type or len(layer.inputs) != 1 or layer.inputs[0] < 0:
            continue
        before = found.layers[layer.inputs[0]]
        bias = getattr(modules.get(before.name), "bias", None)
        if before.activations and bias is not None:
            useless.append((float(bias.numel()), before))
    if not useless:
        return None
    params = sum(n for n, _ in useless)
    return Advice(
        rule="bias_before_norm",
        title="Biases before batch norms",
        finding=f"{len(useless)} layers have a bias that a batch norm takes away again: {params:,.0f} parameters",
        reason="the batch norm subtracts the mean, so the bias has no effect and no gradient in training",
        remedy="build them with bias=False; the batch norm has a shift of its own",
        source="Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.2",
        layers=_worst(useless),
        numbers={"layers": float(len(useless)), "params": params},
        limits={"layers": 0.0},
    )


def wide_dilation(model: nn.Module, found: Profile) -> Advice | None:
    """A tap that is further from the middle than the map is wide reads padding only."""
    wide = []
    for layer in found.layers:
        shape = layer.input_shape
        if layer.dilation is None or layer.kernel_size is None or len(shape) < 3:
            continue
        sides = zip(layer.kernel_size, layer.dilation, shape[-len(layer.kernel_size) :], strict=True)
        excess = max((d / n for k, d, n in sides if k > 1 and d > 1), default=0.0)
        if excess >= 1:
            wide.append((excess, layer))
    if not wide:
        return None
    return Advice(
        rule="wide_dilation",
        title="A dilation wider than its map",
        finding=f"{len(wide)} layers have a dilation of up to {max(wide, key=lambda w: w[0])[0]:.3g} times the side of "
        "their map",
        reason="all taps but the middle one read padding, so that a 3x3 convolution is a 1x1 one that costs nine times",
        remedy="use a smaller dilation, larger images, or the mean of the whole map as ASPP does",
        source="Chen et al. 2017 (DeepLab v3), arXiv:1706.05587, section 3.3",
        layers=_worst(wide),
        numbers={"dilation_over_side": max(w for w, _ in wide), "layers": float(len(wide))},
        limits={"dilation_over_side": 1.0},
    )


def heavy_head(model: nn.Module, found: Profile) -> Advice | None:
    """A head that holds most parameters: dense layers on a map."""
    head = next((s for s in found.stages if s.name == "head"), None)
    if head is None or head.share["params"] <= HEAD:
        return None
    inside = found.layers[head.layers[0] : head.layers[1]]
    most = max(inside, key=lambda layer: layer.params)
    return Advice(
        rule="heavy_head",
        title="The head holds most parameters",
        finding=f"{100 * head.share['params']:.0f} % of the parameters are in the head, which does "
        f"{100 * head.share['macs']:.1f} % of the multiply-adds; {most.name} alone has {most.params:,}",
        reason="dense layers on a map overfit and fill memory for little work",
        remedy="average the map before one dense layer (global average pooling), or narrow what enters it",
        source="Lin, Chen and Yan 2013 (Network in Network), arXiv:1312.4400, section 3.2",
        layers=(most.name,),
        numbers={"share_of_params": head.share["params"], "share_of_macs": head.share["macs"]},
        limits={"share_of_params": HEAD},
    )


RULES: Sequence[Callable[[nn.Module, Profile], Advice | None]] = (
    unequal_widths, many_groups, fragmentation, elementwise, representational_bottleneck, unbalanced_stages,
    bias_before_norm, wide_dilation, heavy_head,
)  # fmt: skip


def _ends(layer: Layer) -> tuple[int, int, int] | None:
    """(channels in, channels out, places of the output) of a convolution over a map."""
    if layer.in_channels is None or layer.out_channels is None or len(layer.output_shape) < 3:
        return None
    return layer.in_channels, layer.out_channels, math.prod(layer.output_shape[1:])


def _depthwise(layer: Layer) -> bool:
    return (layer.groups or 1) > 1 and layer.groups == layer.in_channels


def _worst(found: Sequence[tuple[float, Layer]], count: int = 5) -> tuple[str, ...]:
    return tuple(layer.name for _, layer in sorted(found, key=lambda pair: -pair[0])[:count])
