"""An image of what an agent has learned: where it moves the border points of a text, and what becomes of it."""

from __future__ import annotations

import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.drawing import to_pil, to_tensor
from opsin.data.transforms.moving_points import reach
from opsin.engine.report import Gallery, GalleryItem
from opsin.ops.moving_least_squares import border_points
from opsin.read.learned_augmentation import LearnedAugmentation

_WIDTH = 300  # pixels of a drawn text
_BESIDE = 8  # pixels around it, beside what points on its borders may move by
_ARROW, _HEAD, _PAPER = (214, 39, 40), 5.0, (255, 255, 255)


def learned_moves(learned: LearnedAugmentation, images: Tensor, inputs: Tensor) -> Gallery:
    """Of each image, the text with an arrow for each point, and below it what these moves make of it.

    images: uint8 (B, C, H, W), as they look. inputs: float (B, C, H, W), as the agent sees them. An arrow is as long as
    the agent is certain: of the whole radius where a direction is, of nothing where both are as probable.
    """
    agent, training = learned.agent, learned.agent.training
    agent.eval()
    with torch.no_grad():
        leaning = 2 * agent(inputs).softmax(dim=3)[..., 1] - 1  # (B, K, 2) in [-1, 1]
    agent.train(training)
    bent = learned.bend(images.to(inputs), leaning).round().clamp(0, 255).to(torch.uint8).cpu()
    most = reach(learned.patches, (images.shape[2], images.shape[3]), learned.radius)
    moves = leaning.cpu() * most
    margin = _BESIDE + math.ceil(float(most.max()) * _WIDTH / images.shape[3])
    items = [
        GalleryItem(to_tensor(_draw(image, arrows, after, margin)), _certainty(row))
        for image, arrows, after, row in zip(images.cpu(), moves, bent, leaning.cpu(), strict=True)
    ]
    note = (
        "An arrow shows where the agent moves a point, and is as long as it is certain of the direction; below, the "
        "text after these moves. In training, directions are drawn from it, and distances at random."
    )
    return Gallery("What the augmentation has learned", items, note, large=True)


def _certainty(leaning: Tensor) -> str:
    return f"certain of a direction by {100 * float(leaning.abs().mean()):.0f} % on average"


def _draw(image: Tensor, moves: Tensor, bent: Tensor, margin: int) -> Image.Image:
    """image, bent: uint8 (C, H, W). moves: (K, 2) pixels. margin: of paper around each, pixels."""
    scale = _WIDTH / image.shape[2]
    size = _WIDTH, max(1, round(image.shape[1] * scale))
    upper, lower = (to_pil(one).convert("RGB").resize(size, Image.Resampling.BILINEAR) for one in (image, bent))
    sheet = Image.new("RGB", (size[0] + 2 * margin, 2 * size[1] + 3 * margin), _PAPER)
    sheet.paste(upper, (margin, margin))
    sheet.paste(lower, (margin, size[1] + 2 * margin))
    canvas = ImageDraw.Draw(sheet)
    starts = border_points(len(moves) // 2 - 1, size[1], size[0]) + margin
    for (x, y), (dx, dy) in zip(starts.tolist(), (moves * scale).tolist(), strict=True):
        _arrow(canvas, (x, y), (x + dx, y + dy))
    return sheet


def _arrow(canvas: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float]) -> None:
    canvas.ellipse([start[0] - 3, start[1] - 3, start[0] + 3, start[1] + 3], outline=_ARROW, width=2)
    if math.dist(start, end) < 1:
        return
    canvas.line([start, end], fill=_ARROW, width=2)
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    wings = [(end[0] - _HEAD * math.cos(angle + turn), end[1] - _HEAD * math.sin(angle + turn)) for turn in (0.6, -0.6)]
    canvas.polygon([end, *wings], fill=_ARROW)
