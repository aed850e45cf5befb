"""What the pages assume that a reader has: small images, boxes, films, runs and published weights, all made up."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import opsin

CIFAR = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = {
    "photos": ("dark", "light"),
    "labelled": CIFAR,
    "IMAGENET": ("n01440764", "n01443537"),
    "other": ("cat", "dog"),
    **dict.fromkeys(("a", "b", "c", "checked"), ("dark", "light")),
}
BOXES = ("boxes", "cells", "bccd", "aerial")
XML = """<annotation><filename>{name}.jpg</filename><size><width>96</width><height>64</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax>
<ymax>{3}</ymax></bndbox></object>"""


def image(number: int, height: int = 64, width: int = 64) -> Image.Image:
    """Noise, another for every number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8))


def class_folders(folder: Path, classes: tuple[str, ...], count: int = 10) -> None:
    """Noise that is lighter from class to class, so that a loss can fall."""
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = np.asarray(image(100 * place + number)) // 2 + 127 * place // max(len(classes) - 1, 1)
            Image.fromarray(noise.astype(np.uint8)).save(folder / name / f"{number}.png")


def voc(folder: Path) -> None:
    """Pascal VOC, three classes, with the splits of ImageSets."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    splits = {"train": range(12), "val": range(12, 18), "test": range(18, 24)}
    for split, numbers in splits.items():
        names = [f"BloodImage_{number:05}" for number in numbers]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for number, name in zip(numbers, names, strict=True):
            image(number, 64, 96).save(folder / "JPEGImages" / f"{name}.jpg")
            places = [(5 + number, 5, 35 + number, 40), (50, 20, 90, 50)]
            labels = [("RBC", "WBC", "Platelets")[(number + k) % 3] for k in range(2)]
            objects = [OBJECT.format(*place, label=label) for place, label in zip(places, labels, strict=True)]
            (folder / "Annotations" / f"{name}.xml").write_text(XML.format(name=name, objects="".join(objects)))


def masks(folder: Path) -> None:
    """Images and masks of 0 and 255, and of three classes, with a table of their names."""
    for name, count in (("scans", 2), ("streets", 3)):
        for split, numbers in {"train": range(6), "val": range(6, 8), "test": range(8, 10)}.items():
            for number in numbers:
                for part in ("images", "masks"):
                    (folder / name / split / part).mkdir(parents=True, exist_ok=True)
                image(number).save(folder / name / split / "images" / f"{number}.png")
                drawn = np.kron(np.random.default_rng(number).integers(0, count, (8, 8)), np.ones((8, 8)))
                drawn[:8, : 8 * count] = np.repeat(np.arange(count), 8)
                values = (drawn * (255 if count == 2 else 1)).astype(np.uint8)
                Image.fromarray(values).save(folder / name / split / "masks" / f"{number}.png")
    (folder / "streets" / "classes.txt").write_text("road\nhouse\nsky\n")
    shutil.copytree(folder / "scans", folder / "isbi")
    shutil.copytree(folder / "streets" / "test" / "masks", folder / "masks")  # what somebody has predicted


def camvid(folder: Path) -> None:
    """Streets with masks of 11 classes, 11 where nothing is known, as SegNet's authors divided them."""
    for place, (split, count) in enumerate({"train": 6, "val": 2, "test": 2}.items()):
        for part in (split, f"{split}annot"):
            (folder / part).mkdir(parents=True)
        for number in range(count):
            image(100 * place + number, 60, 80).save(folder / split / f"{number}.png")
            values = np.arange(4800).reshape(60, 80) % 12
            Image.fromarray(values.astype(np.uint8)).save(folder / f"{split}annot" / f"{number}.png")


def people(folder: Path) -> None:
    """Folders by person of patterns with noise, apart in three splits, a list of pairs, and one more of Kim."""
    names = {"train": ("ann", "bob", "cy", "dan", "eve"), "val": ("fay", "gil", "hal", "ida", "jo")}
    names["test"] = ("kim", "lee", "mia", "noa", "ott")
    for place, (split, name) in enumerate((split, name) for split, some in names.items() for name in some):
        pattern = np.kron(np.random.default_rng(place).integers(0, 200, (4, 4)), np.ones((8, 8)))
        for number in range(5):
            path = folder / "people" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(10 * place + number).integers(0, 50, pattern.shape)
            Image.fromarray((pattern + noise).astype(np.uint8)).save(path)
    (folder / "people/test/kim/4.png").rename(folder / "door.png")
    rows = [f"people/test/{a}.png,people/test/{b}.png,{int(a[:3] == b[:3])}" for a, b in PAIRS]
    (folder / "pairs.csv").write_text("\n".join(["first,second,same", *rows]))


PAIRS = (("kim/0", "kim/1"), ("kim/0", "lee/0"), ("lee/1", "lee/2"), ("mia/0", "noa/3"))


def words(folder: Path) -> None:
    """Zips of crops with their texts, the crops of one as files, and texts of another tool for these."""
    (folder / "crops").mkdir()
    zips = {"words": range(24), "words_train": range(16), "words_test": range(16, 20), "receipts": range(20)}
    for name, numbers in zips.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            lines = []
            for number in numbers:
                content = io.BytesIO()
                image(number, 32, 96).save(content, "JPEG")
                archive.writestr(f"{number:04}.jpg", content.getvalue())
                lines.append(json.dumps({"file": f"{number:04}.jpg", "text": ("Rescue", "street", "5 km")[number % 3]}))
                if name == "words":
                    (folder / "crops" / f"{number:04}.jpg").write_bytes(content.getvalue())
            archive.writestr("labels.jsonl", "\n".join(lines))
    (folder / "words.txt").write_text("street\nRescue\n")
    (folder / "novel.txt").write_text("the street to rescue 5 km of it\n")
    (folder / "texts.csv").write_text("path,text\n" + "".join(f"{number:04}.jpg,street\n" for number in range(16, 20)))


def texts(folder: Path) -> None:
    """Pairs of texts in a table, and a text to go on with."""
    rows = [
        f"{word}\t{word[::-1]}\n" for word in ("rescue", "street", "exit", "stop", "harbour", "north", "old", "bus")
    ]
    (folder / "pairs.tsv").write_text("".join(rows * 4))
    (folder / "book.txt").write_text("the street to rescue, and the bus that went north to the old harbour.\n" * 40)


def pages(folder: Path) -> None:
    """Pages with a file of quads and their texts for each, as ICDAR writes them."""
    folder.mkdir()
    for number in range(8):
        image(number, 128, 96).save(folder / f"{number}.png")
        lines = [f"8,{top},88,{top},88,{top + 16},8,{top + 16},{text}" for top, text in ((10, "stop"), (60, "exit"))]
        (folder / f"{number}.txt").write_text("\n".join(lines))


def others_answers(folder: Path) -> None:
    """Files of answers that other tools have written, each with the truth that belongs to it."""
    (folder / "annotations").mkdir()
    images = [{"id": 1, "file_name": "a.jpg", "width": 96, "height": 64}]
    truth = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 20, 20], "area": 400, "iscrowd": 0}]
    coco = {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(coco))
    found = [{"image_id": 1, "category_id": 1, "bbox": [11, 20, 20, 20], "score": 0.9}]
    (folder / "results.json").write_text(json.dumps(found))
    (folder / "results").mkdir()
    for name in ("RBC", "WBC", "Platelets"):
        (folder / "results" / f"comp4_det_test_{name}.txt").write_text("BloodImage_00018 0.9 23 5 53 40\n")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / "yolo" / kind / split).mkdir(parents=True)
        image(3).save(folder / "yolo" / "images" / split / f"{split}.png")
        (folder / "yolo" / "labels" / split / f"{split}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (folder / "data.yaml").write_text("train: yolo/images/train\nval: yolo/images/val\nnames: [thing]\n")
    (folder / "runs" / "detect" / "predict").mkdir(parents=True)
    (folder / "runs" / "detect" / "predict" / "val.txt").write_text("0 0.5 0.5 0.4 0.3 0.8\n")
    rows = [f"{path.relative_to(folder / 'photos')},dark\n" for path in sorted((folder / "photos").rglob("*.png"))]
    (folder / "submission.csv").write_text("path,label\n" + "".join(rows))


def film(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(image(number)), format="rgb24")))
        container.mux(stream.encode())


def points(folder: Path) -> None:
    """A table of two points for two images each of twelve people."""
    rows = ["image,left_eye_x,left_eye_y,right_eye_x,right_eye_y"]
    (folder / "portraits").mkdir()
    for number in range(24):
        name = f"portraits/Ann_{'abcdefghijkl'[number // 2]}_{number % 2}.png"
        image(number, 48, 48).save(folder / name)
        rows.append(f"{name},{30 + number / 9:.1f},20,{12 + number / 9:.1f},21")
    (folder / "points.csv").write_text("\n".join(rows))


def shapes(folder: Path) -> None:
    """A volume as NIfTI and as npz, brightest in its middle, and a tetrahedron."""
    steps = np.linspace(-1, 1, 16)
    square = sum(one**2 for one in np.meshgrid(steps, steps, steps))
    values = (255 * np.exp(-3 * square)).astype(np.int16)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 16, 16, 16, 1, 1, 1, 1)
    struct.pack_into("<h", header, 70, 4)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    (folder / "brain.nii.gz").write_bytes(gzip.compress(bytes(header) + values.tobytes(order="F")))
    np.savez(folder / "ct.npz", values)
    faces = "f 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"
    (folder / "shape.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n{faces}")


def make_folder(folder: Path) -> None:
    """A reader's folder, without runs."""
    for name, classes in CLASSES.items():
        class_folders(folder / name, classes)
    class_folders(folder / "imagenet" / "val", CLASSES["IMAGENET"], count=2)
    for name in BOXES:
        voc(folder / name)
    shutil.copytree(folder / "bccd", folder / "VOCdevkit" / "VOC2007")
    shutil.copytree(folder / "bccd", folder / "VOC")
    others_answers(folder)
    masks(folder)
    camvid(folder / "camvid")
    pages(folder / "pages")
    pages(folder / "receipts")
    (folder / "letters").mkdir()
    image(1, 128, 96).save(folder / "letters" / "1.png")
    image(2, 128, 96).save(folder / "scan.pdf")
    words(folder)
    people(folder)
    texts(folder)
    points(folder)
    shapes(folder)
    fashion_mnist(folder / "fashion_mnist")
    for name in ("new_images", "images", "new"):
        (folder / name).mkdir()
        for number in range(2):
            image(number, 48, 64).save(folder / name / f"BloodImage_{7 + 4 * number:05}.jpg")
    for name in ("seven.png", "photo.jpg", "receipt.jpg"):
        image(7, 60, 80).save(folder / name)
    image(8, 300, 400).save(folder / "aerial.jpg")
    image(9, 180, 240).save(folder / "new" / "0001TP_008550.jpg")
    film(folder / "clip.mp4")
    theirs = opsin.create_model("resnet20", num_classes=len(CIFAR)).state_dict()
    torch.save({"state_dict": theirs, "state_dict_ema": theirs}, folder / "theirs.th")


def classifier(folder: Path, data: str, model: str = "lenet5", **options: Any) -> None:
    train(folder, {"task": "classify", "model": {"name": model, **options}, "data": {"source": data, "size": 32}})


def detector(folder: Path, data: str, model: str = "yolov3_tiny", **options: Any) -> None:
    train(folder, {"task": "detect", "model": {"name": model, **options}, "data": {"source": data, "size": 96}})


def digits(folder: Path) -> None:
    train(folder, "lenet5_digits")


def segmenter(folder: Path, data: str, model: str, **options: Any) -> None:
    section = {"segment": {"names": options.pop("names")}} if "names" in options else {}
    train(
        folder, {"task": "segment", "model": {"name": model, **options}, "data": {"source": data, "size": 64}} | section
    )


def recognizer(folder: Path, data: str, model: str) -> None:
    train(folder, {"task": "read", "model": {"name": model}, "data": {"source": data}})


def embedder(folder: Path) -> None:
    train(folder, {"task": "embed", "model": {"name": "conv4"}, "data": {"source": "people", "size": 32}})
    opsin.evaluate(folder, far=0.02)


def train(folder: Path, recipe: Any) -> None:
    settings = {"train.max_steps": 2, "data.limit": 20}
    opsin.train(recipe, settings, out=folder, say=lambda line: None)


def dates(folder: Path) -> None:
    """A step on dates, of which there are enough to know every character."""
    network = {"name": "seq2seq", "cell": "gru", "attention": "additive", "hidden": 8, "embedding": 8, "layers": 1}
    recipe = {"task": "sequence", "model": network, "data": {"source": "dates,count=500,val=8,test=8"}}
    opsin.train(recipe, {"train.max_steps": 1}, out=folder, say=lambda line: None)


def field(folder: Path) -> None:
    """A small field, trained until it has a surface."""
    network = {"name": "fast_nerf", "resolution": 16, "cells": 8, "steps": 24}
    recipe = {"task": "render", "model": network, "data": {"source": "spheres_views:12"}}
    own = {"render.rays": 256, "render.epoch_steps": 60, "render.val_views": 1, "render.test_views": 1}
    opsin.train(recipe, {**own, "train.epochs": 1}, out=folder, say=lambda line: None)


SMALL = {"backbone": "mobilenet_v3_small"}
RUNS: Mapping[str, Callable[[Path], None]] = {
    "digits": digits,
    "photos": lambda folder: classifier(folder, "photos"),
    "other": lambda folder: classifier(folder, "other", "resnet18"),
    "resnet18": lambda folder: classifier(folder, "photos", "resnet18"),
    "yolo": lambda folder: detector(folder, "bccd"),
    "retinanet": lambda folder: detector(folder, "boxes", "retinanet", **SMALL, channels=32, head_repeats=1),
    "fast_rcnn": lambda folder: detector(
        folder, "bccd", "fast_rcnn", **SMALL, proposals="sliding_windows", proposal_options={"limit": 50}
    ),
    "streets": lambda folder: segmenter(folder, "streets", "deeplabv3plus", backbone="resnet18", channels=16),
    "scans": lambda folder: segmenter(folder, "scans", "unet", width=4, names=["membrane", "interior"]),
    "faces": embedder,
    "points": lambda folder: train(
        folder, {"task": "landmark", "model": {"name": "wing_cnn6"}, "data": {"source": "drawn_faces:20"}}
    ),
    "words": lambda folder: recognizer(folder, "words_train.zip", "crnn"),
    "ctpn": lambda folder: detector(folder, "pages", "ctpn", **SMALL, hidden=8, features=16, text_threshold=0.0),
    "faster_rcnn": lambda folder: detector(folder, "bccd", "faster_rcnn", **SMALL, channels=32),
    "dates": dates,
    "toys": field,
}


def torchvision_weights(url: str, folder: Path) -> Path:
    """A file of weights at random in the layout of the one that torchvision has at a URL."""
    from torchvision import models

    path = folder / url.rpartition("/")[2]
    if not path.exists():
        for name in models.list_models(module=models):
            if any(weights.url == url for weights in models.get_model_weights(name)):
                network = models.get_model(name, **({"init_weights": False} if name in INCEPTIONS else {}))
                torch.save(network.state_dict(), path)
                break
    return path


INCEPTIONS = ("googlenet", "inception_v3")


def timm_weights(name: str, folder: Path) -> Path:
    """Weights at random of a network of timm, as its hub has them."""
    import timm
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    if not path.exists():
        save_file(timm.create_model(name.partition(".")[0]).state_dict(), path)
    return path


def cifar10(folder: Path) -> None:
    """A few images in the layout of CIFAR-10, for training and test."""
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    random = np.random.default_rng(0)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for file in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {"data": random.integers(0, 255, (20, 3072), np.uint8), "labels": [*range(10)] * 2}
        (folder / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(batch))
    (folder / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def fashion_mnist(folder: Path) -> None:
    """IDX files of ten classes."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 255, (40, 28, 28), np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    for split in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(head + array.tobytes())
