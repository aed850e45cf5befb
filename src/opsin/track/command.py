"""`opsin track`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.errors import InputError, JobError, printable

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN|DETECTIONS",
        help="A run that finds objects; or a file, folder or zip of detections: MOTChallenge, KITTI, UA-DETRAC, CVAT, "
        "COCO-video, csv and others.",
        show_default=False,
    ),
]
Input = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT",
        help="A video, a folder of the frames of one, a webcam by its number, rtsp://... Needed with a run; with "
        "detections, what the tracks are drawn on.",
        show_default=False,
    ),
]
Tracker = Annotated[
    str,
    typer.Option("--tracker", metavar="NAME", help="A name that --list shows, or a settings.json of --tune."),
]
ListTrackers = Annotated[
    bool, typer.Option("--list", help="Show all trackers and their settings, and do nothing else.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the tracker, for example max_age=30. Repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="A new folder for the tracks, as MOTChallenge txt and as JSON, and where there are images the video with "
        "tracks drawn on it. `opsin eval DIR --data TRUTH` evaluates it.",
        show_default=False,
    ),
]
Every = Annotated[int, typer.Option("--every", metavar="N", min=1, help="Look at every N-th frame alone.")]
Count = Annotated[
    Path | None,
    typer.Option(
        "--count",
        metavar="FILE",
        help="Count who crosses lines and who is in zones; FILE is JSON that says where they are.",
        show_default=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="X",
        min=0.0,
        max=1.0,
        help="Of a run: the least score of an object. Trackers such as byte_track make use of uncertain ones.",
        show_default=False,
    ),
]
Appearance = Annotated[
    str | None,
    typer.Option(
        "--appearance",
        metavar="RUN",
        help="For trackers that look at how objects look: a run that embeds or classifies images.",
        show_default=False,
    ),
]
Truth = Annotated[
    str | None,
    typer.Option(
        "--truth",
        metavar="SEQUENCE",
        help="Evaluate the tracks against this truth; with --out, report.html says what went wrong, when and why.",
        show_default=False,
    ),
]
Tune = Annotated[
    bool,
    typer.Option(
        "--tune",
        help="Search the tracker's settings on --truth instead, by Optuna. What is found goes to settings.json in "
        "--out, which --tracker takes, and is not evaluated on the same sequences.",
    ),
]
Metric = Annotated[
    str, typer.Option("--metric", metavar="NAME", help="With --tune: what to raise, hota, mota, idf1, assa or deta.")
]
Trials = Annotated[int, typer.Option("--trials", metavar="N", min=1, help="With --tune: how many settings are tried.")]
Rate = Annotated[
    float | None,
    typer.Option("--fps", metavar="X", help="Frames a second, if not as the input says.", show_default=False),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Frames that the run sees at once.")]
Device = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps; the best if not given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def track(
    source: Source = None,
    frames: Input = None,
    tracker: Tracker = "sort",
    settings: Settings = None,
    list_trackers: ListTrackers = False,
    out: Out = None,
    every: Every = 1,
    count: Count = None,
    threshold: Threshold = None,
    appearance: Appearance = None,
    truth: Truth = None,
    tune: Tune = False,
    metric: Metric = "hota",
    trials: Trials = 40,
    fps: Rate = None,
    batch_size: BatchSize = 8,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Follow objects through the frames of a video: which is which, by a run or by detections of any tool."""
    if list_trackers:
        _put(_described())
        return
    if source is None:
        raise InputError("say what to follow: opsin track RUN VIDEO, or opsin track DETECTIONS")
    _check_there(source)
    from opsin.engine.recipe import parse_setting
    from opsin.track.counting import read_plan
    from opsin.track.job import TrackJob

    chosen = dict(parse_setting(setting) for setting in settings or [])
    plan = None if count is None else read_plan(count)
    job = TrackJob(source, frames, tracker, chosen, every, plan, appearance, fps, batch_size, device, truth, out)
    job.options = {} if threshold is None else {"threshold": threshold}
    job.quiet = as_json and not sys.stderr.isatty()
    if tune:
        _tune(job, metric, trials, as_json)
        return
    done = job.run()
    if as_json:
        print(json.dumps(done.to_dict(), indent=1, ensure_ascii=True))
    else:
        _put([*done.lines(), *([] if out is None else [f"written: {out}"])])
    _end(done)


def _check_there(source: str) -> None:
    """Raise InputError for a path that is not there, before anything is imported for it."""
    home = os.environ.get("OPSIN_DATA")
    there = Path(source).expanduser().exists() or (home and (Path(home) / source).exists())
    if not there and ":" not in source:
        raise InputError(f"no run, file or folder at {source}")


def _described() -> list[str]:
    """Every tracker with its settings, and whether it uses later frames."""
    from opsin.track.trackers import find_tracker, list_trackers, settings_of

    lines = []
    for name in list_trackers():
        kind = find_tracker(name)
        what = (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        settings = ", ".join(f"{key}={value}" for key, value in settings_of(name).items() if key != "frame_rate")
        lines += [f"{name}  {what}{'' if kind.online else ', uses later frames'}", f"    {settings}"]
    return lines


def _tune(job: Any, metric: str, trials: int, as_json: bool) -> None:
    from opsin.track.tuning import describe, timed

    found, seconds = timed(lambda: job.tune(metric, trials))
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    _put(describe(found, seconds))
    if job.out is not None:
        _put([f"written: {job.out / 'settings.json'}; use it with --tracker {job.out / 'settings.json'}"])


def _put(lines: Iterable[str]) -> None:
    for line in lines:
        print(printable(line))


def _end(done: Any) -> None:
    """Raise JobError where not everything was followed that was there."""
    if done.stopped and not done.live:
        place = "" if done.job.out is None else f"; the tracks up to there are in {done.job.out}"
        count = sum(course.looked_at for course in done.courses.values())
        raise JobError(f"stopped after {count:,} frame{'' if count == 1 else 's'}{place}")
    if done.damage:
        raise JobError(f"{done.job.frames} is damaged: {done.damage}; what was read is tracked")
