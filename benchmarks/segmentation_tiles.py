"""Peak memory of a segmenter on a large image in tiles, against that on a small one.

Each size runs in a process of its own, with random weights and a random image in memory. What counts is the peak of the
process less the image and its answer; it is to be at most 100 MB more for 4,096 x 4,096 pixels than for 1,024 x 1,024.

    python benchmarks/segmentation_tiles.py --model unet --width 16 --tile 512 --classes 11
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

import opsin
from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import load_recipe
from opsin.segment.predict import SegmentPredictor

ALLOWED = 100  # MB


def measure(side: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The peak of this process in MB, and what of it are the image and the answer."""
    torch.manual_seed(0)
    options = {} if arguments.width is None else {"width": arguments.width}
    model = opsin.create_model(arguments.model, num_classes=arguments.classes, in_channels=3, **options).eval()
    recipe = load_recipe({"task": "segment", "model": {"name": arguments.model}, "data": {"source": "none"}})
    size = (arguments.tile, arguments.tile)
    preprocessing = Preprocessing(size=size, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    names = [str(number) for number in range(arguments.classes)]
    predictor = SegmentPredictor(model, Facts(recipe, preprocessing, {"classes": names}))
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
    started = time.perf_counter()
    answer = predictor.predict(image, tile=arguments.tile, batch_size=2)
    seconds = time.perf_counter() - started
    own = (image.numel() + answer.class_map.nbytes) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"peak": peak, "own": own, "seconds": seconds, "tiles": answer["tiles"], "seams": answer["seams"]}


def main() -> None:
    """Print the peak for each size, and by how much they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="unet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--sides", type=int, nargs=2, default=[1024, 4096])
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)  # of the process that measures
    arguments = parser.parse_args()
    if arguments.side is not None:
        print(json.dumps(measure(arguments.side, arguments)))
        return
    beyond = []
    for side in arguments.sides:
        command = [sys.executable, __file__, *sys.argv[1:], "--side", str(side)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        beyond.append(found["peak"] - found["own"])
        print(
            f"{side} x {side}: peak {found['peak']:,.0f} MB, {beyond[-1]:,.0f} MB beyond image and answer; "
            f"{found['tiles']} tiles in {found['seconds']:.1f} s, which differ by at most {found['seams']:.1e}",
            flush=True,
        )
    difference = beyond[1] - beyond[0]
    print(f"difference {difference:,.0f} MB, allowed {ALLOWED}: {'yes' if difference <= ALLOWED else 'NO'}")
    sys.exit(difference > ALLOWED)


if __name__ == "__main__":
    main()
