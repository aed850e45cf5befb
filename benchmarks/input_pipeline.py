"""Images a second from JPEG files to a training batch: ours against torchvision's ImageFolder and a plain DataLoader.

Both sides decode the same files, crop and resize at random to 224x224, flip, and give normalised float batches on the
CPU, with the same number of workers. They take turns in one process, so that a busy machine hurts both alike; the ratio
(ours / theirs) is the median over the turns. The built-in photographs at 500x375 make the files.

    python benchmarks/input_pipeline.py --workers 0
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from opsin import data
from opsin.data import Preprocessing, create_augmentation, create_loader, images
from opsin.data.sample_files import read_photograph

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def make_files(root: Path, count: int, width: int, height: int) -> None:
    """`count` JPEG files of different parts of photographs, in one class folder a photograph."""
    random = np.random.RandomState(0)
    for i in range(count):
        name = PHOTOGRAPHS[i % len(PHOTOGRAPHS)]
        photograph = Image.fromarray(read_photograph(name))
        left, top = (int(random.randint(0, side // 4)) for side in photograph.size)
        part = photograph.crop((left, top, photograph.width - left // 2, photograph.height - top // 2))
        path = root / name / f"{i:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        part.resize((width, height), Image.Resampling.LANCZOS).save(path, quality=90)


def ours(root: Path, batch_size: int, workers: int) -> Callable[[], Iterator[Tensor]]:
    preprocessing = Preprocessing(size=(224, 224), channels=3, mean=MEAN, std=STD)
    augmentation = create_augmentation("imagenet", preprocessing)
    split = data.open(root).splits["all"]
    loader = create_loader(
        split, preprocessing, batch_size=batch_size, training=True, augmentation=augmentation, workers=workers
    )
    return lambda: (preprocessing.normalize(batch["image"]) for batch in loader)


def theirs(root: Path, batch_size: int, workers: int) -> Callable[[], Iterator[Tensor]]:
    steps = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(root), steps)
    loader: DataLoader = DataLoader(
        dataset, batch_size, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    return lambda: (batch for batch, _ in loader)


def rate(epoch: Callable[[], Iterator[Tensor]]) -> float:
    """Images a second over one epoch."""
    start, count = time.perf_counter(), 0
    for batch in epoch():
        count += len(batch)
    return count / (time.perf_counter() - start)


def decoding(root: Path, repeats: int) -> dict[str, float]:
    """Milliseconds for one file and one core: how we decode, how Pillow does, and how Pillow does at a reduced scale.

    The draft mode lets libjpeg leave out frequencies, so it decodes to 1/2, 1/4 or 1/8 of the size. It changes pixels.
    """
    files = [path.read_bytes() for path in sorted(root.rglob("*.jpg"))[:32]]

    def pillow(encoded: bytes, draft: tuple[int, int] | None = None) -> None:
        image = Image.open(io.BytesIO(encoded))
        image.draft("RGB", draft) if draft else None
        np.array(image)

    ways: dict[str, Callable[[bytes], Any]] = {
        "ours": lambda encoded: images.decode(encoded, "file"),
        "pillow": pillow,
        "pillow, half scale": lambda encoded: pillow(encoded, _half(encoded)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            for encoded in files:
                way(encoded)
            times[name].append(1000 * (time.perf_counter() - start) / len(files))
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def _half(encoded: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(encoded))
    return image.width // 2, image.height // 2


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_files(root, arguments.files, *arguments.size)
        sides = {side.__name__: side(root, arguments.batch_size, arguments.workers) for side in (ours, theirs)}
        for epoch in sides.values():
            rate(epoch)  # workers start, files get into the cache
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.repeats):
            for name, epoch in sides.items():
                rates[name].append(rate(epoch))
        decoded = decoding(root, arguments.repeats)
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    ours_rate = statistics.median(rates["ours"])
    saved = decoded["ours"] - decoded["pillow, half scale"]
    return {
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "decode_ms": decoded,
        "decode_share": round(decoded["ours"] * ours_rate / 1000 / max(1, arguments.workers), 3),
        "half_scale_saves_ms": round(saved, 3),
        "settings": {**vars(arguments), "torch": torch.__version__, "torchvision": torchvision.__version__},
        "machine": {
            "processor": platform.machine(),
            "cores": torch.get_num_threads(),
            "python": platform.python_version(),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=256, help="JPEG files to make (default 256)")
    parser.add_argument("--size", type=int, nargs=2, default=[500, 375], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="loading processes of each side; 0 loads in this one")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each side, taken in turns (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    speed, (low, high), turns = result["images_per_second"], result["ratio_range"], arguments.repeats
    print(f"ours {speed['ours']:.0f} images/s, ImageFolder {speed['theirs']:.0f} images/s, {arguments.workers} workers")
    print(
        f"ratio {result['ratio']:.2f} (ours / theirs, {low:.2f} to {high:.2f} in {turns} turns; the aim is 1.0 or more)"
    )
    for name, took in result["decode_ms"].items():
        print(f"  decoding one file, {name}: {took:.2f} ms")
    gain = result["half_scale_saves_ms"]
    print(f"Decoding is {100 * result['decode_share']:.0f} % of our time. What would make it faster:")
    print("  as many workers as cores; files stored at about the size that training needs;")
    told = f"saves {gain:.2f} ms a file" if gain > 0.02 else "gains nothing at this size, much for large photographs"
    print(f"  decoding at half scale, which changes pixels: {told}.")


if __name__ == "__main__":
    main()
