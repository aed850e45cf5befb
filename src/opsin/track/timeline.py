"""Charts over the frames of a sequence: who was followed when and as whom, and what a tracker compared in a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from opsin.data.drawing import PALETTE
from opsin.engine import charts
from opsin.track.events import Event, Scene
from opsin.track.online import Round
from opsin.track.tracks import Tracks

MOST_ROWS = 40  # of a timeline; more cannot be told apart on a page
_HEIGHT = 0.24  # inches of a row
_ROOM = 0.03  # of the frames that a segment needs for its track's number
_LARGEST = 24  # rows and columns of a matrix whose numbers can still be read

Segment = tuple[int, int, str, str]  # from and to, [from, to), of frames; colour; the words on it


def colour_of(identity: int) -> str:
    """The colour of a track, as in drawn frames, for charts."""
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[identity % len(PALETTE)])


def truth_timeline(scene: Scene, events: Sequence[Event]) -> bytes:
    """A row for each object of the truth: in the colour of the track that follows it, grey where none does; SVG.

    A black mark is a switch. Of many objects those are shown that lost most. The last row is where tracks follow
    nobody.
    """
    lost = dict.fromkeys(scene.of_object, 0)
    for one in events:
        if one.object is not None:
            lost[one.object] += one.frames
    chosen = sorted(sorted(lost, key=lambda one: -lost[one])[:MOST_ROWS])
    rows = [(f"object {identity}", _segments(scene, identity)) for identity in chosen]
    switches = {f"object {one.object}": [] for one in events if one.kind == "switch"}
    for one in events:
        if one.kind == "switch":
            switches[f"object {one.object}"].append(one.frame)
    wrong = [(one.frame, one.last + 1, charts.ORANGE, "") for one in events if one.kind == "false positive"]
    return _bars([*rows, ("nobody", wrong)], scene.truth.num_frames, switches)


def track_timeline(tracks: Tracks) -> bytes:
    """A row for each track, the longest if they are many: a bar over the frames in which it is seen; SVG."""
    ids, counts = np.unique(tracks.ids, return_counts=True)
    chosen = sorted(ids[np.argsort(-counts, kind="stable")][:MOST_ROWS].tolist())
    rows = []
    for identity in chosen:
        frames = np.unique(tracks.frames[tracks.ids == identity]).tolist()
        rows.append((str(identity), [(a, b, colour_of(identity), "") for a, b in _runs(frames)]))
    return _bars(rows, tracks.num_frames, {})


def _segments(scene: Scene, identity: int) -> list[Segment]:
    """What is seen of an object, and as which track."""
    rows = scene.of_object[identity]
    found = [(int(scene.truth.frames[row]), _answer(scene, row)) for row in rows]
    segments: list[Segment] = []
    for answer, group in groupby(found, key=lambda one: one[1]):
        colour = charts.GRID if answer is None else colour_of(answer)
        text = "" if answer is None else str(answer)
        segments += [(start, end, colour, text) for start, end in _runs([frame for frame, _ in group])]
    return segments


def _answer(scene: Scene, row: int) -> int | None:
    answer = scene.answer_of.get(row)
    return None if answer is None else int(scene.tracks.ids[answer])


def _runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Frames in ascending order as [from, to) of those without a gap."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if found and found[-1][1] == frame:
            found[-1] = (found[-1][0], frame + 1)
        else:
            found.append((frame, frame + 1))
    return found


def _bars(rows: Sequence[tuple[str, Sequence[Segment]]], num_frames: int, marks: Mapping[str, Sequence[int]]) -> bytes:
    """Rows of segments over frames as SVG. marks: by row, frames to mark."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for place, (name, segments) in enumerate(rows):
            spans = [(start, end - start) for start, end, *_ in segments]
            axes.broken_barh(spans, (place - 0.35, 0.7), facecolors=[one[2] for one in segments], linewidth=0)
            for start, end, _, text in segments:
                if end - start > _ROOM * num_frames:
                    middle = (start + end) / 2
                    axes.text(middle, place, text, ha="center", va="center", fontsize=7, color="white")
            for frame in marks.get(name, ()):
                axes.plot([frame, frame], [place - 0.48, place + 0.48], color=charts.INK, linewidth=1.6)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, max(1, num_frames))
        axes.set_xlabel("frame")
        axes.grid(visible=False)

    return charts.svg(draw, 9.0, 0.9 + _HEIGHT * max(2, len(rows)))


def matching_chart(one: Round, names: Mapping[int, str]) -> bytes:
    """The affinities that a tracker compared, tracks in rows and detections in columns, as SVG.

    Framed is what was matched; struck out what lies below the least affinity of a match. names: of detections, by their
    places in the frame, what they are of.
    """
    affinity = np.array(one.affinity[:_LARGEST, :_LARGEST], np.float64)
    shown = np.where(affinity < -1e5, np.nan, affinity)  # of different classes
    width = 1.9 + 0.52 * affinity.shape[1]
    return charts.svg(_draw_matrix(one, shown, names), max(3.4, width), 1.5 + 0.34 * len(affinity))


def _draw_matrix(one: Round, shown: np.ndarray, names: Mapping[int, str]) -> Callable[[Canvas], None]:
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for (row, column), value in np.ndenumerate(shown):
            share = 0.0 if not np.isfinite(value) else (value - low) / max(high - low, 1e-9)
            allowed = np.isfinite(value) and value >= one.least
            face = (0.0, 0.447, 0.698, 0.06 + 0.6 * float(share) if allowed else 0.0)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=face, edgecolor=charts.GRID, linewidth=0.6))
            text = "" if not np.isfinite(value) else f"{value:.2f}"
            colour = charts.INK if allowed else charts.MUTED
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
            if not allowed:
                axes.plot([column, column + 1], [row + 1, row], color=charts.GRID, linewidth=0.6)
        _frame_pairs(axes, one)
        _label(axes, one, shown.shape, names)

    return draw


def _frame_pairs(axes: Axes, one: Round) -> None:
    for row, column in zip(one.pairs.rows.tolist(), one.pairs.columns.tolist(), strict=True):
        if max(row, column) < _LARGEST:
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor="none", edgecolor=charts.ORANGE, linewidth=2.2, zorder=3)
            )


def _label(axes: Axes, one: Round, shape: tuple[int, ...], names: Mapping[int, str]) -> None:
    rows, columns = shape
    tracks = [f"track {identity}" for identity in one.ids[:rows].tolist()]
    axes.set_yticks(np.arange(rows) + 0.5, tracks, fontsize=8)
    places = one.detections[:columns].tolist()
    axes.set_xticks(
        np.arange(columns) + 0.5, [names.get(place, f"{place}") for place in places], fontsize=8, rotation=45
    )
    axes.xaxis.tick_top()
    axes.set_xlim(0, max(1, columns))
    axes.set_ylim(max(1, rows), 0)
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
