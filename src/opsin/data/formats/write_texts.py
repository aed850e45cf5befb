"""Texts as a list beside their images, and pages as ICDAR's: what the readers of these read back as the same.

Each writer returns what was not kept, in words.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.writing import ImageWriter, new_folder
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.ops.quads import quad_of

_IGNORED = "###"


def write_jsonl(source: Source, out: Path, link: bool = False) -> list[str]:
    """labels.jsonl: file, text, and split, page and lexicon where they are known; images in a folder a split."""

    def write(rows: list[dict[str, Any]], root: Path) -> None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (root / "labels.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")

    return _write_list(source, out, link, write, ("page", "lexicon"))


def write_tsv(source: Source, out: Path, link: bool = False) -> list[str]:
    """labels.tsv: file, text, and split where there are several; images in a folder a split."""

    def write(rows: list[dict[str, Any]], root: Path) -> None:
        header = [name for name in ("file", "text", "split") if any(name in row for row in rows)]
        with (root / "labels.tsv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerows([header, *([row[name] for name in header] for row in rows)])

    return _write_list(source, out, link, write, ())


def _write_list(
    source: Source, out: Path, link: bool, write: Callable[[list[dict[str, Any]], Path], None], kept: tuple[str, ...]
) -> list[str]:
    """Copy images and hand the rows to a writer of them. kept: what it keeps of a row beside file, text and split."""
    writer, rows, lost = ImageWriter(link), [], set[str]()
    with new_folder(out) as root:
        for key, split in source.splits.items():
            truth, home = split.kind, "images" if key == "all" else f"images/{key}"
            for i in range(len(split)):
                path = f"{home}/{writer.name(split, i, key)}"
                writer.write(split, i, root / path)
                row: dict[str, Any] = {"file": path, "text": truth.texts[i]}
                row |= {} if key == "all" else {"split": key}
                more = {} if truth.pages is None else {"page": truth.pages[i]}
                lexicon = truth.lexicon(i)
                more |= {} if lexicon is None else {"lexicon": list(lexicon)}
                lost |= more.keys() - set(kept)
                rows.append(row | {name: value for name, value in more.items() if name in kept})
        write(rows, root)
    names = {"page": "of which page each is", "lexicon": "the word lists"}
    return [f"{names[name]} is left out; write --as jsonl" for name in sorted(lost)]


def write_icdar(source: Source, out: Path, link: bool = False) -> list[str]:
    """Pages and, for each, gt_NAME.txt with `x1,y1,...,x4,y4,text`, as ICDAR 2015 has them, in a folder a split.

    Raises InputError for more classes than one: a line says a text, no class.
    """
    if len(source.classes) > 1:
        raise InputError(f"{source.name} has {len(source.classes)} classes, which pages of text cannot say")
    writer, cut = ImageWriter(link), 0
    with new_folder(out) as root:
        for key, split in source.splits.items():
            base = root if key == "all" else root / key
            for i in range(len(split)):
                name = writer.name(split, i, key)
                writer.write(split, i, base / "images" / name)
                regions, lines = split.kind.regions(i), []
                for polygon, text, label in zip(regions.polygons, regions.texts, regions.labels.tolist(), strict=True):
                    corners, rounded = _quad(polygon.numpy())
                    cut += rounded
                    lines.append(f"{corners},{text if label >= 0 and text else _IGNORED}\n")
                file = base / "gt" / f"gt_{Path(name).stem}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("".join(lines), encoding="utf-8", newline="\n")
    return [f"{cut} outlines of other than four corners are the smallest rectangle around them"] if cut else []


def _quad(outline: np.ndarray) -> tuple[str, bool]:
    values = quad_of(outline).ravel().tolist()
    return ",".join(f"{value:g}" for value in np.round(values, 2)), len(outline) != 4
