"""What a radiance field answers: images from cameras, with depths and normals."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from opsin.engine.answers import Answer, Answers
from opsin.errors import InputError

_RATE = 25  # images a second


class RenderAnswers(Answers):
    """The rendered views. forms: `images`, a PNG for each view with its depth and normals; `gif`; `video`, MP4."""

    forms: ClassVar[tuple[str, ...]] = ("images", "gif", "video")

    def write(self, form: str, folder: Path) -> Path:
        answer = self[0]
        frames = [Image.fromarray(one) for one in answer.images]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None
        if form == "gif":
            frames[0].save(
                folder / "views.gif", save_all=True, append_images=frames[1:], duration=1000 // _RATE, loop=0
            )
            return folder / "views.gif"
        if form == "video":
            return _write_video(folder / "views.mp4", frames)
        for k, frame in enumerate(frames):
            frame.save(folder / f"{k:04d}.png")
            Image.fromarray(answer.depth_images[k]).save(folder / f"{k:04d}_depth.png")
            Image.fromarray(answer.normal_images[k]).save(folder / f"{k:04d}_normals.png")
        return folder


def _write_video(path: Path, frames: list[Image.Image]) -> Path:
    from fractions import Fraction

    from opsin.engine.video import write_video

    with write_video(path, Fraction(_RATE)) as write:
        for frame in frames:
            write(frame)
    return path


class RenderAnswer(Answer):
    """As a dict: {"views", "size", "rays_per_second"} and, where a mesh was written, {"mesh", "faces"}.

    The images themselves are beside the dict.
    """

    arrays: ClassVar[tuple[str, ...]] = ("images", "depths", "normals", "opacities")
    list_class = RenderAnswers

    @property
    def images(self) -> np.ndarray:
        """(N, H, W, 3) uint8."""
        return self.value("images")

    @property
    def depths(self) -> np.ndarray:
        """(N, H, W) float32 along the axis of each camera; NaN where a ray saw nothing."""
        return self.value("depths")

    @property
    def normals(self) -> np.ndarray:
        """(N, H, W, 3) float32 in the world, of the depths, or of a shape's gradient; NaN where they are."""
        return self.value("normals")

    @property
    def opacities(self) -> np.ndarray:
        """(N, H, W) float32 in [0, 1]."""
        return self.value("opacities")

    @property
    def depth_images(self) -> np.ndarray:
        """(N, H, W) uint8: near is bright, nothing is black."""
        depths = self.depths
        known = depths[np.isfinite(depths)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        shades = 255 - 215 * (depths - low) / max(high - low, 1e-6)
        return np.where(np.isfinite(depths), shades, 0).astype(np.uint8)

    @property
    def normal_images(self) -> np.ndarray:
        """(N, H, W, 3) uint8: x, y, z from -1 to 1 as red, green, blue; nothing is grey."""
        return np.nan_to_num(127.5 + 127.5 * self.normals, nan=127.5).round().astype(np.uint8)
