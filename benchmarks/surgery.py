"""What surgery on VGG-16, VGG-16 with batch norm and ResNet-50 saves, and how far the outputs move.

    python benchmarks/surgery.py [--images 2] [--rois 64] [--repeats 5] [--vgg16 FILE] [--threads N] [--json]

Counts are exact, for one image of 224x224. The difference of outputs is the largest, over the largest output. Times
are medians of forward passes that take turns. fc6 is cut to 1024 singular values and fc7 to 256, as in Fast R-CNN
(arXiv:1504.08083, section 4.4); their time is that of the classifier alone on --rois regions. Nothing is downloaded:
weights are random, whose singular values fall off slowly, unless --vgg16 names a state dict of torchvision's vgg16; the
difference after cutting says something only then. Batch norms get the statistics of a network that has been used.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones import copy_in_order
from opsin.nn.counting import count_macs, count_parameters
from opsin.nn.surgery import Surgery, decompose_linear, fold_batch_norm, linear_to_conv
from opsin.registry import create_model

SIZE = (3, 224, 224)
WIDE = (3, 384, 384)  # 36 windows of 224, 32 pixels apart
FAST_RCNN = {"head.3": 1024, "head.6": 256}  # fc6 and fc7


def live_in(model: nn.Module) -> nn.Module:
    """The model in eval, its batch norms with random statistics and scales."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_var, norm.weight):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
            for tensor in (norm.running_mean, norm.bias):
                nn.init.normal_(tensor, std=0.2)  # type: ignore[arg-type]
    return model.eval()


@torch.inference_mode()
def compare(before: nn.Module, after: nn.Module, x: Tensor, repeats: int) -> dict[str, float]:
    """Difference of the outputs, and the times of both, in turns."""
    expected, got = before(x), after(x)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for model, measured in zip((before, after), times, strict=True):
            start = time.perf_counter()
            model(x)
            measured.append(time.perf_counter() - start)
    old, new = (1000 * statistics.median(measured) for measured in times)
    difference = float((got - expected).abs().max() / expected.abs().max())
    return {"difference": difference, "milliseconds_before": old, "milliseconds_after": new, "speed_up": old / new}


def counts(surgery: Surgery[Any]) -> dict[str, float]:
    return {
        "params_before": surgery.params_before,
        "params_after": surgery.params_after,
        "macs_before": surgery.macs_before,
        "macs_after": surgery.macs_after,
        "norm_macs_saved": surgery.norm_macs,
        "layers": len(surgery.changed),
    }


def slide(model: nn.Module, images: Tensor, repeats: int) -> dict[str, float]:
    """VGG-16 as convolutions: the same at 224, and at 384 one pass for every window."""
    surgery = linear_to_conv(model, SIZE, average=False)
    twin = nn.Sequential(surgery.model, nn.Flatten())
    with torch.inference_mode():
        windows = surgery.model(torch.zeros(1, *WIDE)).shape[2:].numel()
    dense, crops = count_macs(surgery.model, WIDE), windows * count_macs(model, SIZE)
    result = counts(surgery) | compare(model, twin, images, repeats)
    return result | {"windows": windows, "macs_of_crops": crops, "macs_dense": dense, "macs_ratio": crops / dense}


def cut(model: Any, images: Tensor, rois: int, repeats: int) -> dict[str, float]:
    """VGG-16 with fc6 and fc7 as two thin layers each."""
    thin = copy.deepcopy(model)
    result: dict[str, float] = {}
    for name, rank in FAST_RCNN.items():
        start = time.perf_counter()
        surgery = decompose_linear(model.get_submodule(name), rank=rank)
        result |= {f"{name}_kept_energy": surgery.kept_energy, f"{name}_seconds": time.perf_counter() - start}
        thin.set_submodule(name, surgery.model)
    classifiers = nn.Sequential(*model.head[2:]), nn.Sequential(*thin.head[2:])
    head = compare(*classifiers, torch.randn(rois, 512, 7, 7).relu(), repeats)
    with torch.inference_mode():
        expected, got = model(images), thin(images)
    return {
        "params_before": count_parameters(model),
        "params_after": count_parameters(thin),
        "macs_before": count_macs(model, SIZE),
        "macs_after": count_macs(thin, SIZE),
        "classifier_macs_before": count_macs(classifiers[0], (512, 7, 7)),
        "classifier_macs_after": count_macs(classifiers[1], (512, 7, 7)),
        **result,
        **head,
        "difference": float((got - expected).abs().max() / expected.abs().max()),
    }


def measure(images: int, rois: int, repeats: int, weights: str | None) -> dict[str, dict[str, float]]:
    """Every operation on its network."""
    torch.manual_seed(0)
    x = torch.randn(images, *SIZE)
    results = {}
    for name in ("resnet50", "vgg16_bn"):
        model = live_in(create_model(name))
        surgery = fold_batch_norm(model, SIZE)
        results[f"fold {name}"] = counts(surgery) | compare(model, surgery.model, x, repeats)
        del model, surgery
    model = create_model("vgg16").eval()
    if weights is not None:
        copy_in_order(model, torch.load(weights, weights_only=True, map_location="cpu"))
    results["linear to convolution vgg16"] = slide(model, x, repeats)
    results["svd vgg16 fc6 1024, fc7 256"] = cut(model, x, rois, repeats)
    return results


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rois", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vgg16", help="a state dict of torchvision's vgg16")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    results = measure(options.images, options.rois, options.repeats, options.vgg16)
    if options.json:
        setting = {"threads": torch.get_num_threads(), "torch": torch.__version__, "weights": options.vgg16 or "random"}
        print(json.dumps(results | {"setting": setting}, indent=1))
        return
    for name, result in results.items():
        print(name)
        for key, value in result.items():
            print(f"  {key:24} {value:,}" if isinstance(value, int) else f"  {key:24} {value:.3g}")


if __name__ == "__main__":
    main()
