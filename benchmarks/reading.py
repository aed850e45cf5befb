"""Reading: words and pages a second, accuracy and cost beside rapidocr's, and memory over many pages.

    python benchmarks/reading.py words --run runs/crnn --data words [--split test] [--limit 500] [--json]
    python benchmarks/reading.py pages --pipeline pages.safetensors --data sroie [--limit 10] [--json]
    python benchmarks/reading.py memory --pipeline pages.safetensors --page page.jpg [--count 2000] [--json]

rapidocr, where it is installed (`pip install rapidocr==3.10.0 onnxruntime`, Apache-2.0, weights in its wheel), reads
the same images by its own ONNX model. words: from pixels to text, preparation and decoding with it, at batch 1 and 32;
ours eager, as ONNX and by OpenVINO where it exports. Texts are compared in lower case, letters and digits alone.
Multiply-adds are those of one word: ours at the run's input, rapidocr's at 48 x 320. pages: seconds a page and the F1
of words, in lower case. memory: what the process holds after each tenth of the pages, read one by one from the file.
All on two threads.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import opsin
from opsin import data
from opsin.engine.evaluate import evaluate
from opsin.errors import InputError

THREADS, ROUNDS = 2, 3
Read = Callable[[Sequence[Tensor], int], list[str]]


def folded(text: str) -> str:
    """As texts of scenes are compared."""
    return re.sub("[^0-9a-z]", "", text.lower())


def ours(run: str | Path) -> Read:
    predictor = opsin.load(run, "cpu")
    return lambda images, batch: [answer.text for answer in predictor.predict(list(images), batch_size=batch)]


def exported(run: str, kind: str, folder: Path) -> Read:
    """A run's file of a format, read by the same predictor. Raises InputError where it does not export."""
    file = folder / ("model.onnx" if kind == "onnx" else "model.xml")
    opsin.export(run, format=kind, out=file)
    return ours(file)


def rapidocr_engine(batch: int) -> Any:
    from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports]  # not among our dependencies

    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": THREADS for kind in ("intra", "inter")}
    return RapidOCR(params={"Rec.rec_batch_num": batch, "Global.log_level": "error", **threads})


def bgr(image: Tensor) -> Any:
    return image.expand(3, -1, -1).flip(0).permute(1, 2, 0).contiguous().numpy()


def rapidocr_words() -> Read:
    from rapidocr.ch_ppocr_rec import TextRecInput  # pyright: ignore[reportMissingImports]

    engines = {batch: rapidocr_engine(batch) for batch in (1, 32)}

    def read(images: Sequence[Tensor], batch: int) -> list[str]:
        recognizer, given = engines[batch].text_rec, [bgr(image) for image in images]
        if batch > 1:
            return list(recognizer(TextRecInput(img=given)).txts)
        return [recognizer(TextRecInput(img=[one])).txts[0] for one in given]

    return read


def rapidocr_macs(width: int = 320) -> int | None:
    """Multiply-adds of convolutions and products of its recognizer for one word, by the shapes that onnx infers."""
    import onnx
    import rapidocr  # pyright: ignore[reportMissingImports]

    (file,) = (Path(str(rapidocr.__file__)).parent / "models").glob("*rec*.onnx")
    model = onnx.load(file)
    shape = model.graph.input[0].type.tensor_type.shape
    for place, side in zip(shape.dim, (1, 3, 48, width), strict=True):
        place.dim_value = side
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {one.name: [place.dim_value for place in one.type.tensor_type.shape.dim] for one in graph.value_info}
    sizes |= {one.name: list(one.dims) for one in graph.initializer}
    total = 0
    for node in graph.node:
        made = sizes.get(node.output[0], [])
        if node.op_type == "Conv":
            total += torch.Size(made).numel() * torch.Size(sizes[node.input[1]][1:]).numel()
        elif node.op_type in ("MatMul", "Gemm"):
            first = sizes.get(node.input[0], [])
            if not first or not made:
                return None
            total += torch.Size(made).numel() * first[-1]
    return total


def measure_words(arguments: argparse.Namespace) -> dict[str, Any]:
    source = data.open(arguments.data, "read")
    split: Any = source.splits[arguments.split if arguments.split in source.splits else next(iter(source.splits))]
    count = min(arguments.limit, len(split))
    images = [split.inputs.read(i) for i in range(count)]
    texts = [folded(split.truth.texts[i]) for i in range(count)]
    found: dict[str, Any] = {"words": count, "data": source.name}
    with tempfile.TemporaryDirectory() as folder:
        makers: dict[str, Callable[[], Read]] = {
            "opsin": lambda: ours(arguments.run),
            "opsin onnx": lambda: exported(arguments.run, "onnx", Path(folder)),
            "opsin openvino": lambda: exported(arguments.run, "openvino", Path(folder)),
            "rapidocr": rapidocr_words,
        }
        for name, make in makers.items():
            try:
                found[name] = _measure(make(), images, texts)
            except (ImportError, InputError) as error:
                found[name] = {"absent": str(error).splitlines()[0]}
    found["opsin"]["macs"] = opsin.explain(arguments.run).totals.macs
    if "absent" not in found["rapidocr"]:
        found["rapidocr"]["macs"] = rapidocr_macs()
    return found


def _measure(read: Read, images: Sequence[Tensor], texts: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for batch in (1, 32):
        read(images[:batch], batch)  # what is built at first use
        seconds: list[float] = []
        answers: Sequence[str] = ()
        for _ in range(ROUNDS):
            start = time.perf_counter()
            answers = read(images, batch)
            seconds.append(time.perf_counter() - start)
        row[f"words/s at {batch}"] = round(len(images) / statistics.median(seconds), 1)
        row["accuracy"] = round(sum(folded(a) == b for a, b in zip(answers, texts, strict=True)) / len(texts), 4)
    return row


def measure_pages(arguments: argparse.Namespace) -> dict[str, Any]:
    predictor: Any = opsin.load(arguments.pipeline, "cpu")
    source = data.open(arguments.data, predictor.recipe.task)
    name = arguments.split if arguments.split in source.splits else next(iter(source.splits))
    split: Any = source.splits[name]
    pages = [split.inputs.read(i) for i in range(min(arguments.limit, len(split)))]
    found: dict[str, Any] = {"pages": len(pages), "data": source.name}
    start = time.perf_counter()
    answers = [list(predictor.predict(page).texts) for page in pages]
    found["opsin"] = {"seconds a page": round((time.perf_counter() - start) / len(pages), 3)}
    found["opsin"]["word_f1"] = word_f1(split, answers)
    if arguments.whole:
        found["opsin"] |= evaluate(predictor, arguments.data, name)
    try:
        engine = rapidocr_engine(6)
        start = time.perf_counter()
        theirs = [list(engine(bgr(page)).txts or ()) for page in pages]
        seconds = (time.perf_counter() - start) / len(pages)
        found["rapidocr"] = {"seconds a page": round(seconds, 3), "word_f1": word_f1(split, theirs)}
    except ImportError as error:
        found["rapidocr"] = {"absent": str(error)}
    return found


def word_f1(split: Any, answers: Sequence[Sequence[str]]) -> float:
    """Of words wherever on their page, in lower case."""
    both = read = there = 0
    for i, texts in enumerate(answers):
        true, own = _words(split.kind.regions(i).texts), _words(texts)
        both, read, there = both + sum((true & own).values()), read + sum(own.values()), there + sum(true.values())
    return round(2 * both / max(1, read + there), 4)


def _words(texts: Sequence[str]) -> Counter[str]:
    return Counter(word for text in texts for word in text.lower().split())


def resident() -> float:
    """Mebibytes of this process in memory, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    predictor = opsin.load(arguments.pipeline, "cpu")
    held: list[float] = []
    step = max(1, arguments.count // 10)
    answers = predictor.stream(arguments.page for _ in range(arguments.count))
    start = time.perf_counter()
    for number, _ in enumerate(answers, 1):
        if number % step == 0:
            held.append(round(resident(), 1))
    return {"pages": arguments.count, "seconds": round(time.perf_counter() - start, 1), "MiB": held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("words", "pages", "memory"))
    for flag in ("--run", "--pipeline", "--data", "--page"):
        parser.add_argument(flag)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--whole", action="store_true", help="of pages, every metric of `opsin eval` too")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    wanted = {"words": ("run", "data"), "pages": ("pipeline", "data"), "memory": ("pipeline", "page")}
    for name in wanted[arguments.what]:
        if getattr(arguments, name) is None:
            parser.error(f"{arguments.what} needs --{name}")
    torch.set_num_threads(THREADS)
    measure = {"words": measure_words, "pages": measure_pages, "memory": measure_memory}[arguments.what]
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        row = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        print(f"{name:16} {row}")


if __name__ == "__main__":
    main()
