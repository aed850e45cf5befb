"""Drawing on images: words, boxes, masks, legends and captions, in contact sheets, predictions and reports alike.

A class has one colour everywhere, `color_of`. Boxes are in pixels of the image, x2 and y2 exclusive.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from opsin.errors import InputError, printable
from opsin.files import atomic, write_failure
from opsin.structures import Instances

Color = tuple[int, int, int]
Box = Sequence[float]

NARROWEST = 320  # pixels: the least width in which boxes and their labels can be read
# Okabe and Ito's palette, which the colour-blind can tell apart; then lighter and darker ones of other hues.
PALETTE: tuple[Color, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (240, 228, 66),
    (148, 103, 189), (140, 86, 75), (23, 190, 207), (188, 189, 34), (127, 127, 127),
)  # fmt: skip
IGNORED: Color = (150, 150, 150)
_BORDER = (224, 224, 192)  # that of VOC's 255
LIGHT, DARK = (255, 255, 255), (16, 18, 22)
_PAPER, _INK, _BAR = (22, 25, 30), (240, 243, 246), (86, 180, 233)
_LARGEST = 1024  # pixels: a tiny image is not enlarged beyond it
_MOST_LETTERS = 32  # of a class's name beside its box and in a legend


# Words


def shorten(text: str, length: int) -> str:
    """At most `length` characters on one line, with an ellipsis where some were cut."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= length else text[: max(0, length - 1)].rstrip() + "…"


def fit(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The longest beginning of the text that fits in `room` pixels."""
    text = shorten(text, 200)
    for length in range(len(text), 1, -1):
        if font.getlength(shorten(text, length)) <= room:
            return shorten(text, length)
    return text[:1]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans: comes with matplotlib, has Latin, Greek, Cyrillic and more where Pillow's own has Latin alone."""
    # Found, not imported: matplotlib takes longer to import than an answer takes to draw.
    package = importlib.util.find_spec("matplotlib")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


# Images


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W), C 1 or 3, as a PIL image."""
    array = image.detach().cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def save_image(image: Image.Image, path: Path, **options: Any) -> Path:
    """Write an image, in the format of the file's ending; the file appears whole, and its folder is made.

    options: Pillow's of the format, as `quality`.

    Raises InputError for an ending that Pillow cannot write, JobError if the folder cannot be written.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        reason = f"unknown file extension: {path.suffix}" if path.suffix else "no file extension"
        raise InputError(f"cannot write an image to {path}: {reason}; end its name in .png or .jpg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    with atomic(path, flush=False) as temporary:  # thousands are exported at once, and any can be written again
        image.save(temporary, kind, **options)
    return path


def enlarge(image: Image.Image, width: int) -> tuple[Image.Image, int]:
    """The image pixel by pixel, by the whole factor that makes it at least `width` wide; and that factor."""
    wanted = math.ceil(width / image.width)
    factor = max(1, min(wanted, _LARGEST // max(image.size)))
    if factor == 1:
        return image, 1
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST), factor


def cut_out(
    image: Tensor, boxes: Sequence[Box], context: float = 0.6, least: int = 48
) -> tuple[Tensor, tuple[int, int]]:
    """The part of an image (C, H, W) around boxes, and its left upper corner (x, y) in the image.

    context: how much of the boxes' size to show around them; least: pixels of a side, where there are so many.
    """
    height, width = image.shape[-2:]
    x1, y1 = (min(box[i] for box in boxes) for i in (0, 1))
    x2, y2 = (max(box[i] for box in boxes) for i in (2, 3))
    sides = []
    for low, high, end in ((x1, x2, width), (y1, y2, height)):
        reach = max(least, (1 + 2 * context) * (high - low)) / 2
        middle = min(max((low + high) / 2, 0), end)
        start, stop = max(0, int(middle - reach)), min(end, round(middle + reach))
        sides.append((min(start, end - 1), max(stop, min(start, end - 1) + 1)))
    (left, right), (top, bottom) = sides
    return image[..., top:bottom, left:right], (left, top)


def stack(upper: Image.Image, lower: Image.Image, paper: Color = LIGHT, *, centred: bool = False) -> Image.Image:
    """Two images, one under the other. paper: what is beside the narrower one; centred: it stands in the middle."""
    width = max(upper.width, lower.width)
    both = Image.new("RGB", (width, upper.height + lower.height), paper)
    for image, top in ((upper, 0), (lower, upper.height)):
        both.paste(image, ((width - image.width) // 2 if centred else 0, top))
    return both


# Boxes and masks


@dataclass(frozen=True)
class Mark:
    """A box to draw, in pixels of the image, with its words. Dashed ones are not there but should be."""

    box: Box
    text: str
    color: Color
    dashed: bool = False


def distinct_colours(count: int) -> list[Color]:
    """Colours of as many classes, no two the same: the palette's, then VOC's but black."""
    others = [(r, g, b) for r, g, b in voc_palette(count + 1)[1:].tolist()]
    return list(dict.fromkeys([*PALETTE, *others]))[:count]


def voc_palette(count: int = 256) -> np.ndarray:
    """(count, 3) uint8: VOC's colours, the bits of a class's number spread over red, green and blue."""
    numbers = np.arange(count)
    colours = np.zeros((count, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> channel) & 1) << (7 - bit)
        numbers >>= 3
    return colours.astype(np.uint8)


def index_image(class_map: np.ndarray, colours: Sequence[Color]) -> Image.Image:
    """A map (H, W) as an image whose pixels are class numbers: with a palette; of int16 with 16 bits; of bool 0, 255.

    What is unknown is 255, in 16 bits 65535.
    """
    if class_map.dtype == bool:
        return Image.fromarray(class_map.astype(np.uint8) * np.uint8(255))
    if class_map.dtype != np.uint8:
        return Image.fromarray(class_map.astype(np.uint16))  # -1 becomes 65535
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = np.array(colours, np.uint8).reshape(-1, 3)
    palette[255] = _BORDER
    indexed = Image.fromarray(class_map)
    indexed.putpalette(palette.ravel().tolist())
    return indexed


def color_of(label: str, classes: Sequence[str]) -> Color:
    """The colour of a class, the same in every image."""
    return PALETTE[list(classes).index(label) % len(PALETTE)]


def tint(image: Tensor, mask: Tensor, color: Color) -> Tensor:
    """An image whose pixels under a mask (H, W) are half of a colour: uint8 (C, H, W) -> (3, H, W)."""
    half = (image.expand(3, -1, -1).int() + torch.tensor(color)[:, None, None]) // 2
    return torch.where(mask, half.to(torch.uint8), image)


def tint_masks(image: Image.Image, instances: Instances, classes: Sequence[str]) -> Image.Image:
    """An image whose pixels under instances' masks, of any size, are half of their class's colour; of none, grey."""
    if instances.masks is None or not len(instances):
        return image
    labels = instances.labels.tolist() if instances.labels is not None else [-1] * len(instances)
    size = (image.height, image.width)
    masks = torch.nn.functional.interpolate(instances.masks[:, None].byte(), size, mode="nearest-exact")[:, 0].bool()
    tinted = to_tensor(image)
    for mask, label in zip(masks, labels, strict=True):
        tinted = tint(tinted, mask, IGNORED if label < 0 else color_of(classes[label], classes))
    return to_pil(tinted)


def lay_over(
    image: Image.Image, class_map: Tensor, colours: Sequence[Color], plain: Sequence[int] = (), share: float = 0.5
) -> Image.Image:
    """An image under a map of classes in their colours; what is unknown is grey.

    class_map: (H, W) of class numbers, those beyond the colours unknown; or (K, H, W) bool, classes that may overlap.
    Of any size: each pixel is that of the nearest of the map. plain: classes under which the image stays as it is, as
    it does where no class that may overlap is. share: of the colour in a pixel.
    """
    size = (image.height, image.width)
    several = class_map.dtype == torch.bool
    layers = class_map.float() if several else class_map.float()[None]
    resized = torch.nn.functional.interpolate(layers[None], size, mode="nearest-exact")[0].long()
    under = to_tensor(image).float()
    table = torch.tensor([*colours, IGNORED], dtype=torch.float32)
    if several:
        count = resized.sum(dim=0)
        mixed = torch.einsum("khw,kc->chw", resized.float(), table[:-1]) / count.clamp(min=1)
        over = torch.where(count > 0, mixed, under)
    else:
        numbers = resized[0]
        known = (numbers >= 0) & (numbers < len(colours))
        over = table[torch.where(known, numbers, len(colours))].permute(2, 0, 1)
        over = torch.where(torch.isin(numbers, torch.tensor(list(plain), dtype=torch.long)), under, over)
    return to_pil((share * over + (1 - share) * under).round().to(torch.uint8))


def cross_out(image: Image.Image) -> Image.Image:
    """An image with a red cross, of which something cannot be read."""
    crossed = image.convert("RGB")
    canvas = ImageDraw.Draw(crossed)
    canvas.line((0, 0, image.width, image.height), fill="red", width=2)
    canvas.line((0, image.height, image.width, 0), fill="red", width=2)
    return crossed


def draw_boxes(image: Image.Image, instances: Instances, classes: Sequence[str]) -> Image.Image:
    """The image, of the same size, with instances: boxes in their class's colour, and names where there is room.

    Regions to ignore, those of the label -1 and those without labels, are grey.
    """
    labels = instances.labels.tolist() if instances.labels is not None else [-1] * len(instances)
    marks = [
        Mark(box, "ignored", IGNORED) if label < 0 else Mark(box, classes[label], color_of(classes[label], classes))
        for box, label in zip(instances.boxes.tolist(), labels, strict=True)
    ]
    return draw_marks(image, marks, narrowest=0)[0]


def draw_marks(
    image: Image.Image, marks: Sequence[Mark], *, narrowest: int = NARROWEST, width: int | None = None
) -> tuple[Image.Image, bool]:
    """The image with boxes, the first on top, and whether all their words found room.

    narrowest: a narrower image is enlarged to it first, by a whole factor. width: of a box's line, in pixels after
    that; by the image's size if not given.
    """
    image, factor = enlarge(image.convert("RGB"), narrowest)
    canvas = ImageDraw.Draw(image)
    width = width or max(2, round(min(image.size) / 240))
    scaled = [tuple(factor * float(v) for v in mark.box) for mark in marks]
    for mark, box in reversed(list(zip(marks, scaled, strict=True))):
        _outline(canvas, box, mark.color, width, dashed=mark.dashed)
    placed: list[Box] = []
    for mark, box in zip(marks, scaled, strict=True):
        if mark.text:
            _write(canvas, image.size, mark, box, placed)
    return image, len(placed) == sum(bool(mark.text) for mark in marks)


def _outline(canvas: ImageDraw.ImageDraw, box: Box, color: Color, width: int, *, dashed: bool = False) -> None:
    x1, y1, x2, y2 = (round(value) for value in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # x2 and y2 are exclusive
    if not dashed:
        canvas.rectangle((x1, y1, x2, y2), outline=color, width=width)
        return
    dash = 4 * width
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, max(y1, y2 - width + 1)):
            canvas.rectangle((x, y, min(x + dash, x2), y + width - 1), fill=color)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, max(x1, x2 - width + 1)):
            canvas.rectangle((x, y, x + width - 1, min(y + dash, y2)), fill=color)


def _write(canvas: ImageDraw.ImageDraw, size: tuple[int, int], mark: Mark, box: Box, placed: list[Box]) -> None:
    """Write a mark's words at the first free place about its box: above, inside at the top, below, inside below."""
    letters = font(round(min(22, max(11, min(size) / 30))))
    text = shorten(mark.text, _MOST_LETTERS)
    room, height = letters.getlength(text) + 6, letters.size + 5
    left = min(max(0.0, box[0]), max(0.0, size[0] - room))
    right = min(max(0.0, box[2] - room), max(0.0, size[0] - room))
    rows = [box[1] - height, box[1], box[3], box[3] - height]
    for x, y in [(x, y) for y in rows for x in (left, right)]:
        tag = (x, y, x + room, y + height)
        if tag[1] < 0 or tag[3] > size[1] or any(_touch(tag, other) for other in placed):
            continue
        canvas.rectangle(tag, fill=mark.color)
        dark = sum(weight * part for weight, part in zip((0.299, 0.587, 0.114), mark.color, strict=True)) > 140
        canvas.text((x + 3, y + height / 2), text, DARK if dark else LIGHT, letters, anchor="lm")
        placed.append(tag)
        return


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# Strips under an image


class Line(NamedTuple):
    """A row of a caption: text at the left, a value at the right, and a share in [0, 1] as a bar under both."""

    text: str
    value: str = ""
    share: float | None = None


def add_caption(image: Image.Image, lines: Sequence[Line], narrowest: int = NARROWEST) -> Image.Image:
    """The image over a strip with rows of words; text that is too long is cut, its value never.

    narrowest: pixels; the strip is at least so wide, and narrower images get margins.
    """
    width = max(narrowest, image.width)
    size = round(min(32, max(14, width / 28)))
    letters, margin, height = font(size), size // 2, round(size * 1.75)
    strip = Image.new("RGB", (width, len(lines) * height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        top, bar = row * height, 3 if line.share is not None else 0
        middle = top + (height - bar) / 2
        room = width - 2 * margin - (margin + letters.getlength(line.value) if line.value else 0)
        draw.text((margin, middle), fit(line.text, letters, room), _INK, letters, anchor="lm")
        draw.text((width - margin, middle), line.value, _INK, letters, anchor="rm")
        filled = round(width * min(1.0, max(0.0, line.share or 0.0)))
        if filled:
            draw.rectangle((0, top + height - bar, filled - 1, top + height - 1), _BAR)
    return stack(image, strip, _PAPER, centred=True)


def write_under(image: Image.Image, text: str) -> Image.Image:
    """The image over a strip as wide with a text, cut where there is no room; what the font lacks is its number."""
    size = round(min(22, max(12, image.width / 14)))
    letters, height = font(size), round(size * 1.6)
    strip = Image.new("RGB", (image.width, height), _PAPER)
    written = "".join(one if _has_glyph(one) else f"[{ord(one):04X}]" for one in text)
    canvas = ImageDraw.Draw(strip)
    canvas.text((3, height / 2), fit(written, letters, image.width - 6), _INK, letters, anchor="lm")
    return stack(image, strip, _PAPER)


@cache
def _glyphs() -> frozenset[int]:
    """The code points that our font has."""
    file = font(12).path
    if not isinstance(file, str | Path):  # Pillow's own
        return frozenset(range(0x20, 0x17F))
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(file)).get_charmap())


def _has_glyph(sign: str) -> bool:
    return sign.isprintable() and (sign.isascii() or ord(sign) in _glyphs())


def add_legend(image: Image.Image, entries: Sequence[tuple[str, Color]]) -> Image.Image:
    """The image over a strip with every class in its colour."""
    size = round(min(22, max(12, image.width / 40)))
    letters, height, rows, x = font(size), size + 10, 0, 8.0
    places = []
    for name, color in entries:
        text = shorten(name, _MOST_LETTERS)
        needed = size + 6 + letters.getlength(text) + 16
        if x > 8 and x + needed > image.width:
            rows, x = rows + 1, 8.0
        places.append((text, color, x, rows))
        x += needed
    strip = Image.new("RGB", (image.width, (rows + 1) * height), DARK)
    draw = ImageDraw.Draw(strip)
    for text, color, x, row in places:
        top = row * height + 5
        draw.rectangle((x, top, x + size, top + size), fill=color)
        draw.text((x + size + 6, top + size / 2), text, LIGHT, letters, anchor="lm")
    return stack(image, strip, DARK)
