"""A source of posed views, of what a format has read: sizes, alpha, background, near and far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.images import UnreadableImage, decode_alpha
from opsin.data.source import Source, Split
from opsin.data.truth import Problem, Size
from opsin.errors import InputError, unknown
from opsin.ops.cameras import focal_length
from opsin.render.near_far import find_near_far
from opsin.render.posed_views import ALPHAS, BACKGROUNDS, PosedViews, ViewFiles, guess_alpha

OPTIONS = ("near", "far", "background", "alpha", "hold_out")  # of every format of views in files
_LOOKED = 5  # images by which it is found how colours and alpha go together
_NEAR_FAR = (0.1, 10.0)  # where nothing says it


@dataclass(frozen=True)
class Camera:
    """What a file says of a camera's lens, in pixels; None: not said, and found from the image's size.

    size: (height, width). angles: the fields of view across and along in radians, where there is no focal length.
    distortion: k1, k2, p1, p2. scaled: the numbers are of a larger image, and are scaled to the one that is there.
    """

    size: Size | None = None
    focal: tuple[float, float] | None = None
    centre: tuple[float, float] | None = None
    angles: tuple[float, float | None] | None = None
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    scaled: bool = False

    def intrinsics(self, size: Size) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in an image of (height, width)."""
        height, width = size
        if self.focal is not None:
            fx, fy = self.focal
        else:
            assert self.angles is not None
            fx = focal_length(self.angles[0], width)
            fy = fx if self.angles[1] is None else focal_length(self.angles[1], height)
        cx, cy = self.centre if self.centre is not None else (width / 2, height / 2)
        return fx, fy, cx, cy


@dataclass
class ViewRows:
    """What a format has read of a split, view by view. archive: the zip that the files are members of."""

    files: list[str] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    cameras: list[Camera] = field(default_factory=list)
    archive: str | None = None

    def add(self, file: str, pose: np.ndarray, camera: Camera) -> None:
        """Another view."""
        self.files.append(file)
        self.poses.append(pose)
        self.cameras.append(camera)

    def take(self, places: Sequence[int]) -> ViewRows:
        """Some of the views."""
        files, poses, cameras = self.files, self.poses, self.cameras
        return ViewRows(
            [files[i] for i in places], [poses[i] for i in places], [cameras[i] for i in places], self.archive
        )


def source_of_views(
    name: str,
    format_: str,
    splits: Mapping[str, ViewRows],
    *,
    near_far: tuple[float, float] | None = None,
    points: np.ndarray | None = None,
    problems: Sequence[Problem] = (),
    near: float | None = None,
    far: float | None = None,
    background: str | None = None,
    alpha: str | None = None,
    hold_out: int | None = None,
) -> Source:
    """The source of what was read. near_far, points: what the format says of depths.

    near, far, background, alpha: what the user says instead, see `PosedViews` and `ViewFiles`. hold_out: of views that
    are not divided, each so many-th is for testing, from the first on, as LLFF's are. Raises InputError for no views,
    and where no image of them exists.
    """
    splits = {key: rows for key, rows in splits.items() if rows.files}
    if not splits:
        raise InputError(f"{name} holds no views; expected frames with an image and a pose each")
    _check_choices(background, alpha, hold_out)
    if hold_out and list(splits) == ["all"]:
        splits = _held_out(splits["all"], hold_out)
    found, problems = {}, list(problems)
    kind, said = _alpha_of(list(splits.values()), alpha, name)
    problems += said
    background = background or ("white" if kind else "black")
    for key, rows in splits.items():
        inputs = ViewFiles(rows.files, rows.archive, background=background, alpha=kind or "straight")
        found[key] = Split(inputs, _truth(name, rows, inputs, background))
    truths = [split.kind for split in found.values()]
    poses = np.concatenate([one.poses[one.usable] for one in truths])
    guessed = near_far or find_near_far(poses, points)
    if guessed is None and (near is None or far is None):
        reason = (
            f"nothing says how near and far the scene is; {_NEAR_FAR[0]} to {_NEAR_FAR[1]} is taken: give near, far"
        )
        problems.append(Problem("depths_not_known", name, reason, "warning"))
    first, last = guessed or _NEAR_FAR
    depths = {"near": float(first if near is None else near), "far": float(last if far is None else far)}
    known = np.zeros((0, 3)) if points is None else points
    found = {k: split.with_truth(replace(split.kind, points=known, **depths)) for k, split in found.items()}
    return Source(name, format_, found, problems=problems)


def _check_choices(background: str | None, alpha: str | None, hold_out: int | None) -> None:
    if background is not None and background not in BACKGROUNDS:
        raise unknown("background", background, BACKGROUNDS)
    if alpha is not None and alpha not in ALPHAS:
        raise unknown("alpha", alpha, ALPHAS)
    if hold_out is not None and hold_out < 2:
        raise InputError(f"hold_out is {hold_out}; expected 2 or more: each 8th view is usual")


def _held_out(rows: ViewRows, step: int) -> dict[str, ViewRows]:
    order = range(len(rows.files))
    return {"train": rows.take([i for i in order if i % step]), "test": rows.take([i for i in order if i % step == 0])}


def _truth(name: str, rows: ViewRows, inputs: ViewFiles, background: str) -> PosedViews:
    sizes, known = [], None
    for i, camera in enumerate(rows.cameras):
        size = camera.size
        if size is None or camera.scaled:
            try:
                size = inputs.size(i)
            except UnreadableImage:
                size = None
        known = known or size
        sizes.append(size)
    if known is None:
        raise InputError(f"{name}: none of its {len(rows.files)} images can be read, {inputs.name(0)} the first")
    whole = [size or camera.size or known for size, camera in zip(sizes, rows.cameras, strict=True)]
    intrinsics = []
    for camera, size in zip(rows.cameras, whole, strict=True):
        own = np.array(camera.intrinsics(camera.size or size), np.float64)
        if camera.scaled and camera.size is not None:
            own *= np.array([size[1] / camera.size[1], size[0] / camera.size[0]] * 2)
        intrinsics.append(own)
    return PosedViews(
        poses=np.stack(rows.poses).astype(np.float64),
        intrinsics=np.stack(intrinsics),
        distortion=np.array([camera.distortion for camera in rows.cameras], np.float64),
        sizes=np.array(whole, np.int64),
        near=1.0,
        far=2.0,
        background=background,
    )


def _alpha_of(parts: Sequence[ViewRows], given: str | None, name: str) -> tuple[str | None, list[Problem]]:
    """How colours and alpha go together; None where images have no alpha. And a note, where that is guessed."""
    votes: list[str | None] = []
    for rows in parts[:1]:
        inputs = ViewFiles(rows.files, rows.archive)
        for i in np.unique(np.linspace(0, len(rows.files) - 1, min(_LOOKED, len(rows.files))).astype(int)).tolist():
            try:
                colours, alpha = decode_alpha(inputs.encoded(i), inputs.name(i))
            except UnreadableImage:
                continue
            if alpha is not None and int(alpha.min()) < 255:
                votes.append(guess_alpha(colours, alpha))
    if not votes:
        return given, []
    found = "straight" if "straight" in votes or "premultiplied" not in votes else "premultiplied"
    if given not in (None, found) and found in votes:
        reason = f"alpha={given} was given, but its images look {found}: edges will be too dark or too light"
        return given, [Problem("alpha", name, reason, "warning")]
    if given is None and found == "premultiplied":
        reason = "no colour exceeds its alpha: colours are taken to be premultiplied; give alpha=straight if not"
        return found, [Problem("alpha", name, reason, "note")]
    return given or found, []


def as_pose(value: Any, where: str) -> np.ndarray:
    """A pose (4, 4) float64 from rows of numbers, 3 or 4 of 4. Raises InputError for another shape."""
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise InputError(f"{where}: its pose is {'x'.join(map(str, matrix.shape)) or 'no matrix'}; expected 4x4 or 3x4")
    return np.concatenate([matrix[:3], [[0.0, 0.0, 0.0, 1.0]]])


def check_camera(camera: Camera, where: str) -> Camera:
    """The camera. Raises InputError for one without a positive focal length or angle."""
    numbers = camera.focal if camera.focal is not None else [one for one in camera.angles or () if one is not None]
    limit = 1e9 if camera.focal is not None else np.pi
    if not numbers or not all(0 < one < limit for one in numbers):
        raise InputError(f"{where}: no focal length; expected camera_angle_x, or fl_x in pixels, above 0")
    return camera


def image_path(folder: Path, name: str) -> str:
    """The file that a frame names, below a folder; ".png" is added where the name has no ending and no file."""
    place = folder / name
    if not place.suffix or not place.exists():
        for ending in (".png", ".jpg", ".jpeg", ".PNG", ".JPG"):
            if (other := place.with_name(place.name + ending)).exists():
                return str(other)
    return str(place)
