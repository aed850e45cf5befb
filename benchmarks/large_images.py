"""Average precision of a detector on large images, with tiles and without.

The images are scenes of the built-in test split, side by side: `--across 4` are 640x640 pixels of 16 scenes, with exact
truth. Tiles cut them where they will. `--enlarged 3` makes the first scene of each three times as large, so that some
objects are larger than a tile.

    python benchmarks/large_images.py runs/retinanet_scenes --images 20 --across 4
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import opsin
from opsin.data.drawing import save_image, to_pil
from opsin.data.formats.digit_scenes import SIDE, open_scenes
from opsin.engine.evaluate import evaluate_run


def write_images(folder: Path, count: int, across: int, enlarged: int) -> None:
    """Large images as PNG files, with a COCO json. enlarged: cells across that the first scene of each fills."""
    split = open_scenes(f"scenes:{5 * count * across * across}").splits["test"]
    images, annotations, place = [], [], 0
    for number in range(count):
        image = torch.zeros(3, across * SIDE, across * SIDE, dtype=torch.uint8)
        cells = [(0, 0, enlarged)] if enlarged else []
        cells += [(i, j, 1) for i in range(across) for j in range(across) if max(i, j) >= enlarged]
        for row, column, factor in cells:
            top, left, side = row * SIDE, column * SIDE, factor * SIDE
            scene = F.interpolate(split.read(place)[None].float(), (side, side), mode="bilinear")[0]
            image[:, top : top + side, left : left + side] = scene.round().clamp(0, 255).to(torch.uint8)
            one = split.kind.at(place)
            for (x1, y1, x2, y2), label in zip((factor * one.boxes).tolist(), one.labels.tolist(), strict=True):
                box = [x1 + left, y1 + top, x2 - x1, y2 - y1]
                facts = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label + 1}
                annotations.append({**facts, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            place += 1
        name = f"{number:04d}.png"
        save_image(to_pil(image), folder / name)
        images.append({"id": number + 1, "file_name": name, "height": image.shape[1], "width": image.shape[2]})
    categories = [{"id": k + 1, "name": str(k)} for k in range(10)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))


def main() -> None:
    """Print AP50, AP and seconds an image, with each tile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--across", type=int, default=4, help="scenes in a row and in a column")
    parser.add_argument("--enlarged", type=int, default=0, help="scenes across that the first one of each image fills")
    parser.add_argument("--tiles", nargs="+", default=["off", "auto"])
    arguments = parser.parse_args()
    opsin.load(arguments.run)  # what cannot be loaded is said before anything is drawn
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), arguments.images, arguments.across, arguments.enlarged)
        for tile in arguments.tiles:
            start = time.perf_counter()
            result = evaluate_run(arguments.run, folder, tile=tile)
            seconds = (time.perf_counter() - start) / arguments.images
            ap50, ap = (100 * result.metrics[name] for name in ("map_50", "map"))
            looked = "the whole image alone" if result.tiles is None else result.tiles.describe()
            print(f"tile {tile:>5}  AP50 {ap50:5.1f}  AP {ap:5.1f}  {seconds:6.3f} s an image  {looked}", flush=True)


if __name__ == "__main__":
    main()
