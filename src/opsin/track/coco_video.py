"""COCO's json for video, as of TAO (arXiv:2005.10356) and MMTracking: images belong to videos, annotations to tracks.

A frame is an image of a video, in the order of `frame_id` or `frame_index` whatever these begin with and leave out, or
of the image ids where there is neither. A bbox is left, top, width and height. `iscrowd` and `ignore` mark what is not
evaluated; without an identity it is a region. A list of results names images by their ids, and so is read together with
a truth that has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from opsin.data.formats.values import read_flag, read_key, read_number, shown
from opsin.errors import InputError
from opsin.files import load_json
from opsin.track.rows import Box, Rows, sided
from opsin.track.tracks import NO_CLASS, NOBODY, Tracks

Key = int | str
_FRAME, _TRACK = ("frame_id", "frame_index"), ("track_id", "instance_id")


@dataclass
class VideoImages:
    """What ids in a file mean. places: of images, sequence and frame. categories: names. lengths: of sequences."""

    places: dict[Key, tuple[str, int]] = field(default_factory=dict)
    categories: dict[Key, str] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)


def read_coco(content: bytes, where: str, images: VideoImages | None = None) -> dict[str, Tracks]:
    """The sequences of a file of truth, or of a list of results, by their names.

    images: of truth, filled with what its ids mean; of results, what they mean. Raises InputError with the place of
    what is wrong.
    """
    try:
        values = load_json(content)
        known = VideoImages() if images is None else images
        if isinstance(values, dict):
            return _read_truth(values, where, known)
        if isinstance(values, list):
            return _read_results(values, where, known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"it lacks {shown(error.args[0])}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{where} is no COCO json for video: {said}") from None
    raise InputError(f"{where} is no COCO json for video: expected an object or a list of results")


def _read_truth(values: Mapping[str, Any], where: str, known: VideoImages) -> dict[str, Tracks]:
    videos = {read_key(one["id"]): one for one in values["videos"]}
    names = _names(videos)
    known.categories |= {read_key(one["id"]): str(one["name"]) for one in values["categories"]}
    of_video: dict[Key, list[tuple[float, Key]]] = {key: [] for key in videos}
    for image in values["images"]:
        number = next((image[name] for name in _FRAME if name in image), image["id"])
        of_video[read_key(image["video_id"])].append((read_number(number), read_key(image["id"])))
    for video, found in of_video.items():
        for place, (_, key) in enumerate(sorted(found, key=lambda one: one[0])):
            known.places[key] = names[video], place
        known.lengths[names[video]] = len(found)
    tracks = {read_key(one["id"]): one for one in values.get("tracks") or ()}
    rows = {name: _rows(where, known) for name in names.values()}
    for number, one in enumerate(values.get("annotations") or (), 1):
        _add(one, number, rows, known, tracks)
    facts = {names[key]: _facts(one) for key, one in videos.items()}
    return {name: own.build(name, num_frames=known.lengths[name], **facts[name]) for name, own in rows.items()}


def _names(videos: Mapping[Key, Mapping[str, Any]]) -> dict[Key, str]:
    """The name of each video, its id where names are not of one each."""
    given = {key: str(one.get("name") or one.get("file_name") or key) for key, one in videos.items()}
    names = {key: PurePosixPath(name).name for key, name in given.items()}
    return names if len(set(names.values())) == len(names) else {key: str(key) for key in names}


def _facts(video: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(video.get("width"), int) and isinstance(video.get("height"), int):
        found["size"] = video["width"], video["height"]
    if isinstance(video.get("fps"), int | float):
        found["fps"] = float(video["fps"])
    return found


def _read_results(values: Sequence[Any], where: str, known: VideoImages) -> dict[str, Tracks]:
    if not known.places:
        raise InputError(f"{where} names images by ids; it is read together with a truth that is COCO json for video")
    rows = {name: _rows(where, known) for name in known.lengths}
    for number, one in enumerate(values, 1):
        _add(one, number, rows, known, {})
    return {name: own.build(name, num_frames=known.lengths[name]) for name, own in rows.items()}


def _rows(where: str, known: VideoImages) -> Rows:
    return Rows(where, {label: place for place, label in enumerate(known.categories.values())}, noun="annotation")


def _add(
    one: Mapping[str, Any], number: int, rows: Mapping[str, Rows], known: VideoImages, tracks: Mapping[Key, Any]
) -> None:
    """A row of one annotation or result. number: which in its list, from 1, as messages say it."""
    image = read_key(one["image_id"])
    if image not in known.places:
        raise ValueError(f"annotation {number} is of the image {shown(image)}, which is not there")
    sequence, frame = known.places[image]
    given = next((one[name] for name in _TRACK if one.get(name) is not None), None)
    key = None if given is None or given == -1 else read_key(given)
    category = one.get("category_id")
    if category is None and key is not None and key in tracks:
        category = tracks[key].get("category_id")
    label = known.categories.get(read_key(category)) if category is not None else None
    if label is None:
        raise ValueError(f"annotation {number} is of the category {shown(category)}, which is not there")
    score = read_number(one.get("score", 1.0))
    ignored = read_flag(one.get("iscrowd")) or read_flag(one.get("ignore"))
    rows[sequence].add(number, frame, key, _box(one["bbox"], number), label, score=score, ignored=ignored)


def _box(values: Any, number: int) -> Box:
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"the bbox of annotation {number} is not of four numbers")
    left, top, width, height = (read_number(value) for value in values)
    return sided(left, top, width, height)


def write_coco(sequences: Mapping[str, Tracks]) -> str:
    """The text of a file of truth, frames numbered from 0; scores are kept, regions of no class are not."""
    classes = list(dict.fromkeys(name for one in sequences.values() for name in one.classes))
    videos, images, annotations = [], [], []
    for video, (name, tracks) in enumerate(sequences.items(), 1):
        size = {} if tracks.size is None else {"width": tracks.size[0], "height": tracks.size[1]}
        rate = {} if tracks.fps is None else {"fps": tracks.fps}
        videos.append({"id": video, "name": name, **size, **rate})
        first = len(images) + 1
        images += [
            {"id": first + frame, "video_id": video, "frame_id": frame, "file_name": f"{name}/{frame:06d}.jpg", **size}
            for frame in range(tracks.num_frames)
        ]
        for row in np.flatnonzero(tracks.labels != NO_CLASS).tolist():
            annotations.append(_annotation(tracks, row, len(annotations) + 1, first, video, classes))
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    found = {"videos": videos, "images": images, "annotations": annotations, "categories": categories}
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def _annotation(tracks: Tracks, row: int, number: int, first: int, video: int, classes: list[str]) -> dict[str, Any]:
    left, top, right, bottom = tracks.boxes[row].tolist()
    known = {} if tracks.ids[row] == NOBODY else {"track_id": int(tracks.ids[row])}
    return {
        "id": number,
        "image_id": first + int(tracks.frames[row]),
        "video_id": video,
        "category_id": classes.index(tracks.classes[tracks.labels[row]]) + 1,
        **known,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": int(tracks.ignored[row]),
        **({} if tracks.scores[row] == 1 else {"score": float(tracks.scores[row])}),
    }
