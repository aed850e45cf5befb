"""hOCR, the form in which tools for scanned pages exchange text: hOCR 1.2 (kba.github.io/hocr-spec/1.2), as XHTML.

Pages, areas, lines and words, each with its box in whole pixels; lines with their outline and direction, words with how
certain they and each of their characters are, in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from opsin.version import __version__

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
 <head>
  <title></title>
  <meta http-equiv="Content-Type" content="text/html;charset=utf-8"/>
  <meta name="ocr-system" content="opsin {version}"/>
  <meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_line ocrx_word"/>
 </head>
 <body>
"""


def hocr_document(pages: Iterable[str]) -> str:
    """A whole document of the pages that `hocr_page` made."""
    return _HEAD.format(version=__version__) + "".join(pages) + " </body>\n</html>\n"


def hocr_page(answer: Mapping[str, Any], size: tuple[int, int], number: int = 0, name: str = "") -> str:
    """A page of hOCR. answer: of pages, see `opsin.read.pages`. size: (height, width). number: from 0."""
    height, width = size
    image = f'image "{name}"; ' if name else ""
    parts = [_open("div", "ocr_page", f"page_{number + 1}", f"{image}bbox 0 0 {width} {height}; ppageno {number}", 2)]
    for block, lines in groupby(answer["lines"], key=lambda line: line["block"]):
        own = list(lines)
        name = f"block_{number + 1}_{block + 1}"
        parts.append(_open("div", "ocr_carea", name, _bbox([corner for line in own for corner in line["quad"]]), 3))
        parts += [_line(line, f"{number + 1}_{block + 1}_{place + 1}") for place, line in enumerate(own)]
        parts.append("   </div>\n")
    return "".join([*parts, "  </div>\n"])


def _line(line: Mapping[str, Any], name: str) -> str:
    quad = line["quad"]
    outline = " ".join(f"{value:g}" for corner in quad for value in corner)
    # hOCR counts angles against the clock, y being downward.
    angle = -math.degrees(math.atan2(quad[1][1] - quad[0][1], quad[1][0] - quad[0][0]))
    turned = f"; textangle {angle:.2f}" if abs(angle) >= 0.01 else ""
    title = f"{_bbox(quad)}; poly {outline}{turned}; x_wconf {_percent(line['score'])}"
    words, characters = [], iter(one for one in line["characters"] if not one["text"].isspace())
    for place, word in enumerate(line["words"]):
        scores = [next(characters)["score"] for _ in range(word["characters"])]
        certain = line["score"] if word["score"] is None else word["score"]
        each = f"; x_confs {' '.join(_percent(score) for score in scores)}" if scores else ""
        said = f"{_bbox(word['quad'])}; x_wconf {_percent(certain)}{each}"
        own = _open("span", "ocrx_word", f"word_{name}_{place + 1}", said, 5)
        words.append(f"{own.rstrip()}{escape(_clean(word['text']))}</span>\n")
    return "".join([_open("span", "ocr_line", f"line_{name}", title, 4), *words, "    </span>\n"])


def _open(tag: str, kind: str, name: str, title: str, depth: int) -> str:
    return f'{" " * depth}<{tag} class="{kind}" id="{name}" title={quoteattr(_clean(title))}>\n'


def _bbox(corners: Sequence[Sequence[float]]) -> str:
    """Whole pixels around corners."""
    xs, ys = zip(*corners, strict=True)
    return f"bbox {math.floor(min(xs))} {math.floor(min(ys))} {math.ceil(max(xs))} {math.ceil(max(ys))}"


def _percent(score: float) -> str:
    return f"{round(100 * score)}"


def _clean(text: str) -> str:
    """Without what XML cannot hold: control characters and halves of characters."""
    return "".join(one for one in text if one >= " " and not "\ud800" <= one <= "\udfff" and one not in "\ufffe\uffff")
