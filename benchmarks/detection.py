"""Detectors against an independent implementation of each with the same weights, side by side.

    python benchmarks/detection.py [NAME ...] [--only PART ...] [--turns 5] [--size 320] [--threads 1] [--json]

SSD300-VGG16, RetinaNet-R50-FPN and Faster R-CNN-R50-FPN against torchvision's, YOLOv3 against Lightning Bolts'
(Apache-2.0), which reads a Darknet cfg and is left out unless it is there:
pip install --no-deps lightning-bolts==0.7.0

inference: from an image to its instances, at the same thresholds. decode: of our outputs, suppression included, as a
share of our forward pass. train: a step of SGD on a batch with 10 boxes in each image. loss: assignment, loss and its
gradient of given outputs, 8 images with 50 boxes each. Weights are random; for inference the biases of the classes
are such that 1,000 scores of the image pass the threshold (--passing). Faster R-CNN's second stage sees 1,000
proposals in either, and runs in our decoding, so neither the share of that nor the loss of given outputs is measured.
The two take turns in one process; a ratio is that of the shortest times, which are the processor's where there is one
thread, so that other work counts little. difference: of the scores found, or of the sums of the losses, relative;
YOLOv3's two losses are not quite the same function, and Faster R-CNN's are of anchors and regions drawn at random.
Targets: at most 1.0 times their time; decode at most 5 %.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torchvision.models.detection as reference
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

from opsin import create_model
from opsin.backbones import copy_in_order
from opsin.detect.detector import Detector, Outputs
from opsin.detect.regions import Regions
from opsin.detect.rpn import take_proposals
from opsin.detect.yolov3 import ANCHORS
from opsin.registry import find_model
from opsin.structures import Instances

PARTS = ("inference", "train", "loss")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Truths = Sequence[Instances]
Losses = Iterable[Tensor]


class Side(NamedTuple):
    """One implementation.

    find: images (1, 3, H, W) in [0, 1] -> the scores of the instances, falling. learn: images and truths -> losses.
    evaluate: our network's outputs and truths -> losses; None where a second stage runs in the loss. layers: those that
    predict classes.
    """

    model: nn.Module
    find: Callable[[Tensor], Tensor]
    learn: Callable[[Tensor, Truths], Losses]
    evaluate: Callable[[Outputs, Truths], Losses] | None
    layers: Sequence[nn.Conv2d]


class Pair(NamedTuple):
    """A network twice, with the same weights.

    rises: our outputs -> what each score needs to reach the threshold. lift: gives that to the bias of a layer.
    propose: of each side, of two stages: images -> the proposals of the first (P, 4) that its second stage sees.
    """

    ours: Side
    theirs: Side
    rises: Callable[[Outputs], Tensor]
    lift: Callable[[Tensor, float], object]
    propose: Sequence[Callable[[Tensor], Tensor]] = ()


# The networks


def ssd300(size: int) -> Pair:
    entry = find_model("ssd300_vgg16_torchvision")
    ours: Any = entry.builder()
    theirs: Any = reference.ssd300_vgg16(weights=None, weights_backbone=None, **FORM)
    copy_in_order(ours, entry.weights["coco"].arrange(theirs.state_dict()))  # type: ignore[misc]
    threshold = ours.selection.score_threshold

    def evaluate(outputs: Outputs, truths: Truths) -> Losses:
        labelled, anchors = named(truths, 1), outputs["anchors"]
        matched = [theirs.proposal_matcher(box_iou(one["boxes"], anchors)) for one in labelled]
        return theirs.compute_loss(labelled, head_outputs(outputs), [anchors] * len(truths), matched).values()

    return Pair(
        our_side(ours, ours.class_heads),
        torchvision_side(theirs, 1, evaluate, theirs.head.classification_head.module_list),
        lambda outputs: background_rises(outputs["logits"], threshold),
        lambda bias, rise: bias.view(-1, 91)[:, 0].sub_(rise),
    )


def retinanet(size: int) -> Pair:
    ours: Any = create_model("retinanet_resnet50_fpn", frozen_norm=False)
    theirs: Any = reference.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=size, max_size=size, **FORM
    )
    settle(theirs.backbone, size)
    copy_in_order(ours, theirs.state_dict())

    def evaluate(outputs: Outputs, truths: Truths) -> Losses:
        anchors = [outputs["anchors"]] * len(truths)
        return theirs.compute_loss(named(truths, 0), head_outputs(outputs), anchors).values()

    return Pair(
        our_side(ours, [ours.class_head.predict]),
        torchvision_side(theirs, 0, evaluate, [theirs.head.classification_head.cls_logits]),
        lambda outputs: logit(ours.selection.score_threshold) - outputs["logits"],
        lambda bias, rise: bias.add_(rise),
    )


def faster_rcnn(size: int) -> Pair:
    ours: Any = create_model("faster_rcnn_resnet50_fpn", frozen_norm=False)
    theirs: Any = reference.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=size, max_size=size, **FORM
    )
    settle(theirs.backbone, size)
    first, second = theirs.rpn.head, theirs.roi_heads.box_predictor

    def propose(outputs: Outputs) -> list[Tensor]:
        return take_proposals(outputs, ours.test_proposals, ours.test_candidates)

    def classify(outputs: Outputs) -> tuple[Tensor, Tensor]:
        return ours.roi([outputs[f"map{place}"] for place in range(4)], Regions.gather(propose(outputs)))

    def their_proposals(images: Tensor) -> Tensor:
        listed, _ = theirs.transform(list(images))
        return theirs.rpn(listed, theirs.backbone(listed.tensors))[0][0]

    with torch.no_grad():  # random layers give all proposals one score, and boxes far outside of the one
        image = (make_images(1, size) - MEANS) / STDS
        levels = first(list(theirs.backbone(image).values()))
        shrink((first.cls_logits, first.bbox_pred), [finest for finest, *_ in levels])
        copy_in_order(ours, theirs.state_dict())
        shrink((second.cls_score, second.bbox_pred), classify(ours.eval()(image)))
        copy_in_order(ours, theirs.state_dict())

    return Pair(
        our_side(ours, [ours.roi.predictor.logits])._replace(evaluate=None),
        torchvision_side(theirs, 1, None, [second.cls_score]),
        lambda outputs: background_rises(classify(outputs)[0], ours.selection.score_threshold),
        lambda bias, rise: bias[0].sub_(rise),
        (lambda images: propose(ours((images - MEANS) / STDS))[0], their_proposals),
    )


def yolov3(size: int) -> Pair:
    ours: Any = create_model("yolov3")
    theirs = bolts_network(darknet_cfg(ours.num_classes))
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-5  # ours and Darknet's, nearly; theirs is 1e-3
    settle(theirs, size)
    heads = [layer for layer in theirs.layers if hasattr(layer, "calculate_losses")]
    last = [theirs.layers[place - 1].conv for place, layer in enumerate(theirs.layers) if layer in heads]
    copy_in_order(nn.ModuleList(ours.darknet_order()), theirs.state_dict())
    chosen = ours.selection

    def find(images: Tensor) -> Tensor:
        found = torch.cat(theirs((images - MEANS) / STDS)[0], dim=1)[0]
        scores = found[:, 5:] * found[:, 4:5]
        places, labels = (scores > chosen.score_threshold).nonzero(as_tuple=True)
        scores, best = scores[places, labels].sort(descending=True)
        scores, best = scores[: chosen.candidates], best[: chosen.candidates]
        kept = batched_nms(found[places[best], :4], scores, labels[best], chosen.iou_threshold)
        return scores[kept[: chosen.limit]]

    def evaluate(outputs: Outputs, truths: Truths) -> Losses:
        side, losses = torch.tensor([size, size]), []
        for head, maps in zip(heads, reversed(outputs.values()), strict=True):
            losses.append(head.calculate_losses(head(maps, side)[1], named(truths, 0), side)[0])
        return torch.stack(losses).sum(dim=0)

    def rises(outputs: Outputs) -> Tensor:
        needed = []
        for level in ours.levels(outputs):
            share = chosen.score_threshold / level.rows[:, :, 5:].sigmoid()  # of objectness
            needed.append((share.logit() - level.rows[:, :, 4:5]).nan_to_num(math.inf).flatten())
        return torch.cat(needed)

    return Pair(
        our_side(ours, [head[-1] for head in ours.heads]),
        Side(
            theirs,
            find,
            lambda images, truths: torch.stack(theirs((images - MEANS) / STDS, named(truths, 0))[1]).sum(dim=0),
            evaluate,
            last,
        ),
        rises,
        lambda bias, rise: bias.view(3, -1)[:, 4].add_(rise),
    )


NETWORKS = {"ssd300": ssd300, "retinanet": retinanet, "yolov3": yolov3, "faster_rcnn": faster_rcnn}
FORM: dict[str, Any] = {"image_mean": MEAN, "image_std": STD, "_skip_resize": True}
MEANS, STDS = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))


def our_side(model: Detector, layers: Iterable[nn.Module]) -> Side:
    def find(images: Tensor) -> Tensor:
        return model.decode(model((images - MEANS) / STDS))[0].scores  # type: ignore[return-value]

    def learn(images: Tensor, truths: Truths) -> Losses:
        return model.loss(model((images - MEANS) / STDS), truths).values()

    return Side(model, find, learn, lambda outputs, truths: model.loss(outputs, truths).values(), list(layers))  # type: ignore[arg-type]


def torchvision_side(
    model: nn.Module, first: int, evaluate: Callable[[Outputs, Truths], Losses] | None, layers: Iterable[nn.Module]
) -> Side:
    """first: the number of its first class."""
    return Side(
        model,
        lambda images: model(list(images))[0]["scores"],
        lambda images, truths: model(list(images), named(truths, first)).values(),
        evaluate,
        list(layers),  # type: ignore[arg-type]
    )


def named(truths: Truths, first: int) -> list[dict[str, Tensor]]:
    return [{"boxes": one.boxes, "labels": one.labels + first} for one in truths]  # type: ignore[operator]


def head_outputs(outputs: Outputs) -> dict[str, Tensor]:
    return {"cls_logits": outputs["logits"], "bbox_regression": outputs["offsets"]}


def background_rises(logits: Tensor, threshold: float) -> Tensor:
    """What must be taken from the logit of the background, the first, for each class to have that probability."""
    terms = logits.double().exp()
    classes = terms[..., 1:]
    most = classes / threshold - classes.sum(dim=-1, keepdim=True)
    return (terms[..., :1] / most).log().nan_to_num(math.inf)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


# YOLOv3 of Lightning Bolts


def bolts_network(cfg: str) -> Any:
    """The network of a Darknet cfg."""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(cfg)
        file.flush()
        return bolts_module().DarknetNetwork(file.name)


@cache
def bolts_module() -> Any:
    """The module of its network. Its packages import what Lightning 2 has no more; the network needs none of that."""
    spec = find_spec("pl_bolts")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pip install --no-deps lightning-bolts==0.7.0")
    root = Path(spec.submodule_search_locations[0])
    warnings.filterwarnings("ignore", "`torch.jit|Using a non-tuple")  # it is of torch 2.0
    for name in ("pl_bolts", "pl_bolts.utils", "pl_bolts.models", "pl_bolts.models.detection"):
        module = sys.modules[name] = ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    vars(sys.modules["pl_bolts.utils"]).update(_TORCHVISION_AVAILABLE=True, _TORCH_MESHGRID_REQUIRES_INDEXING=True)
    return importlib.import_module("pl_bolts.models.detection.yolo.darknet_network")


def darknet_cfg(num_classes: int) -> str:
    """YOLOv3 as Darknet describes it. arXiv:1804.02767, table 1 and section 2.3."""

    def convolution(filters: int, size: int, stride: int = 1) -> str:
        form = f"filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=leaky\n"
        return "[convolutional]\nbatch_normalize=1\n" + form

    text = "[net]\nwidth=416\nheight=416\nchannels=3\n" + convolution(32, 3)
    for width, repeats in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        block = convolution(width // 2, 1) + convolution(width, 3) + "[shortcut]\nfrom=-3\nactivation=linear\n"
        text += convolution(width, 3, 2) + repeats * block
    anchors = ",".join(f"{w},{h}" for w, h in ANCHORS)
    for level, width, finer in ((2, 512, None), (1, 256, 61), (0, 128, 36)):
        if finer:
            text += f"[route]\nlayers=-4\n{convolution(width, 1)}[upsample]\nstride=2\n[route]\nlayers=-1,{finer}\n"
        text += 3 * (convolution(width, 1) + convolution(2 * width, 3))
        text += f"[convolutional]\nfilters={3 * (5 + num_classes)}\nsize=1\nstride=1\npad=1\nactivation=linear\n"
        mask = ",".join(str(3 * level + place) for place in range(3))
        text += f"[yolo]\nmask={mask}\nanchors={anchors}\nclasses={num_classes}\nnum=9\nignore_thresh=0.5\n"
    return text


# Weights, images, truths


@torch.no_grad()
def settle(model: nn.Module, size: int) -> None:
    """Statistics of batch norms from an image: with those of a new network, activations would grow past all bounds."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = None  # the mean of all that was seen
    model.train()((make_images(1, size) - MEANS) / STDS)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def shrink(layers: Iterable[nn.Module], outputs: Iterable[Tensor]) -> None:
    """Scale two layers so that the scores and the offsets they gave would spread by 1 and 1/4."""
    for layer, output, spread in zip(layers, outputs, (1.0, 0.25), strict=True):
        layer.weight *= spread / output.std()  # type: ignore[operator]


@torch.no_grad()
def excite(pair: Pair, image: Tensor, passing: int) -> None:
    """Spread the logits, then let so many scores pass the threshold."""
    pair.ours.model.eval()
    layers = [*pair.ours.layers, *pair.theirs.layers]
    rises = pair.rises(pair.ours.model((image - MEANS) / STDS))
    spread = float(rises[rises.isfinite()].std())
    for layer in layers:
        layer.weight *= 2 / spread
    rises = pair.rises(pair.ours.model((image - MEANS) / STDS)).flatten()
    for layer in layers:
        pair.lift(layer.bias, float(rises.kthvalue(passing).values))  # type: ignore[arg-type]


def make_images(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def make_truths(count: int, boxes: int, size: int) -> list[Instances]:
    """Boxes of 10 to 110 pixels anywhere, of 80 classes."""
    generator = torch.Generator().manual_seed(2)
    truths = []
    for _ in range(count):
        sides = 10 + 100 * torch.rand(boxes, 2, generator=generator)
        corners = torch.rand(boxes, 2, generator=generator) * (size - sides)
        labels = torch.randint(1, 80, (boxes,), generator=generator)
        truths.append(Instances(torch.cat([corners, corners + sides], dim=1), labels))
    return truths


# Measures


def clock() -> float:
    """Seconds: of the processor where there is one thread, so that other work counts little; else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def in_turns(ways: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of each way, turn by turn, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if turn:
                times[name].append(clock() - start)
    return times


def measure_inference(pair: Pair, size: int, turns: int, passing: int) -> dict[str, Any]:
    image, model = make_images(1, size), pair.ours.model.eval()
    pair.theirs.model.eval()
    with torch.no_grad():
        excite(pair, image, passing)
        outputs = model((image - MEANS) / STDS)
        ours, theirs = pair.ours.find(image), pair.theirs.find(image)
        proposals = [propose(image).sort(dim=0).values for propose in pair.propose]  # ties in any order
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda: pair.ours.find(image),
            "theirs": lambda: pair.theirs.find(image),
            "forward": lambda: model((image - MEANS) / STDS),
            "decode": lambda: model.decode(outputs),  # type: ignore[operator]
        }
        times = in_turns(ways, turns)
    same = len(ours) == len(theirs)
    difference = float(((ours - theirs).abs() / theirs).max()) if same else math.inf
    found = {"times": times, "difference": difference, "instances": len(ours)}
    if not proposals:
        return {**found, "decode_share": min(times["decode"]) / min(times["forward"])}
    own, other = proposals
    if own.shape != other.shape or not torch.allclose(own, other, atol=0.1):
        raise RuntimeError(f"the two do not see the same proposals, {len(own)} and {len(other)} of them")
    return {**found, "proposals": len(own)}


def measure_training(pair: Pair, size: int, turns: int, batch: int) -> dict[str, Any]:
    images, truths = make_images(batch, size), make_truths(batch, 10, size)
    first: dict[str, float] = {}

    def step_of(name: str, side: Side) -> Callable[[], None]:
        optimizer = torch.optim.SGD(side.model.train().parameters(), lr=1e-6, momentum=0.9)

        def step() -> None:
            loss = torch.stack(list(side.learn(images, truths))).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            first.setdefault(name, float(loss.detach()))

        return step

    times = in_turns({"ours": step_of("ours", pair.ours), "theirs": step_of("theirs", pair.theirs)}, turns)
    return {"times": times, "difference": abs(first["ours"] / first["theirs"] - 1)}


def measure_loss(pair: Pair, size: int, turns: int) -> dict[str, Any]:
    truths, model = make_truths(8, 50, size), pair.ours.model.eval()
    with torch.no_grad():
        outputs = model(make_images(1, size))
    given = {name: repeated(value, 8) for name, value in outputs.items()}
    leaves = [value for value in given.values() if value.requires_grad]
    losses: dict[str, float] = {}

    def way_of(name: str, side: Side) -> Callable[[], None]:
        def way() -> None:
            loss = torch.stack(list(side.evaluate(given, truths))).sum()  # type: ignore[misc]
            torch.autograd.grad(loss, leaves)
            losses[name] = float(loss.detach())

        return way

    times = in_turns({"ours": way_of("ours", pair.ours), "theirs": way_of("theirs", pair.theirs)}, turns)
    return {"times": times, "difference": abs(losses["ours"] / losses["theirs"] - 1)}


def repeated(output: Tensor, count: int) -> Tensor:
    """A prediction of one image as that of several; what is none, anchors and sizes, as it is."""
    if output.shape[0] != 1 or output.ndim < 3:
        return output
    return output.repeat(count, *(1 for _ in output.shape[1:])).requires_grad_()


def measure(name: str, part: str, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    size = 300 if name == "ssd300" else options.size
    pair = NETWORKS[name](size)
    if part == "inference":
        found = measure_inference(pair, size, options.turns, options.passing)
    elif part == "train":
        found = measure_training(pair, size, options.turns, options.batch)
    else:
        found = measure_loss(pair, size, options.turns)
    shortest = {way: 1000 * min(values) for way, values in found.pop("times").items()}
    return {
        "network": name,
        "part": part,
        "size": size,
        "milliseconds": shortest,
        "ratio": shortest["ours"] / shortest["theirs"],
        **found,
    }


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=320, help="of the images, a multiple of 32; SSD300's is its own")
    parser.add_argument("--passing", type=int, default=1000, help="scores above the threshold")
    parser.add_argument("--batch", type=int, default=2, help="of the training step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NETWORKS):
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.names:
        for part in options.only:
            if (name, part) == ("faster_rcnn", "loss"):
                continue
            try:
                rows.append(measure(name, part, options))
            except ModuleNotFoundError as reason:
                print(f"without {name} {part}: {reason}", file=sys.stderr)
    if options.json:
        print(json.dumps({"threads": options.threads, "torch": torch.__version__, "rows": rows}, indent=1))
        return
    print(f"{'network':10} {'part':10} size     theirs       ours  ours/theirs  decode  difference")
    for row in rows:
        times = "".join(f"{row['milliseconds'][side]:8.1f} ms" for side in ("theirs", "ours"))
        share = f"{100 * row['decode_share']:5.1f} %" if "decode_share" in row else 7 * " "
        print(
            f"{row['network']:10} {row['part']:10} {row['size']:4}{times}  {row['ratio']:11.3f} {share}  "
            f"{row['difference']:10.1e}"
        )


if __name__ == "__main__":
    main()
