"""Tracking from end to end: what is followed is opened, a tracker follows it, and what came out is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opsin import rooms
from opsin.engine.answers import safe_name
from opsin.engine.exported import FILES
from opsin.engine.frames import Frames, find_in_frames, look_of, open_frames
from opsin.engine.inputs import is_live
from opsin.engine.predict import Predictor, load
from opsin.engine.video import Frame, write_video
from opsin.errors import InputError, say
from opsin.files import check_new
from opsin.progress import Meter
from opsin.structures import Instances
from opsin.track.agreement import match_sequences
from opsin.track.counting import CountPlan
from opsin.track.drawing import TrackDrawer
from opsin.track.evaluate import Evaluation, evaluate
from opsin.track.following import Course, Seen, follow_batch, follow_online, frames_of
from opsin.track.mot_challenge import read_seqinfo
from opsin.track.online import Followed
from opsin.track.places import read_file
from opsin.track.reading import read_sequences
from opsin.track.report import write_track_report
from opsin.track.result_files import text_file, tracks_to_dict, write_results
from opsin.track.score import choose_rules
from opsin.track.track_files import Asked
from opsin.track.trackers import create_tracker
from opsin.track.tracks import NOBODY, Tracks
from opsin.track.tuned_settings import FILE as SETTINGS_FILE
from opsin.track.tuned_settings import TunedSettings, read_settings, refuse_tuned
from opsin.track.tuning import Search

_SHOWN = ("hota", "mota", "idf1", "switches", "fragments", "false_positives", "misses")
_IMAGES = "img1"  # the folder of a MOTChallenge sequence's frames
_MANY = 5  # frames with detections, from which on it is no chance that all are multiples of a number
_HEAD = 4096  # bytes in which an OpenVINO network is seen


@dataclass
class TrackJob:
    """What is asked for, and how.

    source: a run, or a file or folder of detections. frames: a video, a camera or the folder of a sequence's images;
    None where there are only detections. tracker: its name, or a file of settings that `tune` wrote; settings: of it.
    every: of so many frames the first alone is looked at. plan: what is counted. appearance: a run that says how
    objects look, for trackers that use it. fps: frames a second, where that is not what the input says. batch_size:
    frames that a run looks at together. device: of runs. truth: what the tracks are evaluated against, in the report.
    out: the folder to make. options: of the run's predictions. quiet: no progress is shown.
    """

    source: str
    frames: str | None = None
    tracker: str = "sort"
    settings: Mapping[str, Any] = field(default_factory=dict)
    every: int = 1
    plan: CountPlan | None = None
    appearance: str | None = None
    fps: float | None = None
    batch_size: int = 8
    device: str | None = None
    truth: str | None = None
    out: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    tuned: TunedSettings | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.tracker.endswith(".json"):
            self.tuned = read_settings(self.tracker)
            self.tracker, self.settings = self.tuned.tracker, {**self.tuned.settings, **self.settings}

    def run(self) -> Tracking:
        """Track, and write what `out` asks for. Raises InputError for what cannot be, before any frame is looked at."""
        self._check()
        truth = None if self.truth is None else read_truth(self.truth)
        if truth is not None and self.tuned is not None:
            self._refuse_tuned(self.tuned, truth)
        if self.frames is None:
            courses = self._follow_detections()
        else:
            courses = self._follow_frames(self.frames)
        done = Tracking(self, courses)
        if truth is not None:
            done.compare(truth)
        if self.out is not None:
            done.write(self.out)
        return done

    def _check(self) -> None:
        if self.every < 1:
            raise InputError(f"every is {self.every}; expected 1 or more")
        if self.out is not None:
            check_new(self.out)
        tracker = create_tracker(self.tracker, **self.settings)
        if self.appearance is not None and not tracker.takes_features:
            raise InputError(f"{self.tracker} does not look at how objects look; leave the run of appearance out")
        if self.frames is None and tracker.takes_images:
            say(f"{self.tracker} finds the camera's motion in images, and there are none: it is taken to stand still")
        if self.appearance is not None and self.frames is None:
            raise InputError("how objects look is seen in images; give the video or the folder of images too")
        if self.frames is not None and is_live(self.frames) and not tracker.online:
            raise InputError(f"{self.tracker} uses later frames, and a camera has no end; choose an online tracker")

    def _refuse_tuned(self, tuned: TunedSettings, truth: Mapping[str, Tracks]) -> None:
        """Raise InputError where the settings were found on what is to be tracked, before it is."""
        if self.frames is None and len(truth) > 1:
            known = open_detections(self.source)
            truth = {name: one for name, one in truth.items() if name in known}
        refuse_tuned(tuned.tuned_on, truth, self.tracker)

    @property
    def _explains(self) -> bool:
        """Whether it is wanted what the tracker compared: to say why something went wrong."""
        return self.truth is not None and self.out is not None

    def _create(self, fps: float | None) -> Any:
        return create_tracker(self.tracker, **{"frame_rate": fps or 1.0, **self.settings})

    # Detections alone

    def _follow_detections(self) -> dict[str, Course]:
        if is_run(self.source):
            raise InputError(f"say what {self.source} is to look at: opsin track {self.source} VIDEO")
        sequences = open_detections(self.source, self.fps)
        for name, one in sequences.items():
            _say_dropped(name, one, self.every)
        courses: dict[str, Course] = {}
        with self._meter(sum(-(-one.num_frames // self.every) for one in sequences.values())) as meter:
            for name, detections in sequences.items():
                before = sum(course.looked_at for course in courses.values())
                courses[name] = self._follow_sequence(detections, before, meter)
                if courses[name].stopped:
                    break
        return courses

    def tune(self, metric: str = "hota", trials: int | None = None, seed: int = 0) -> TunedSettings:
        """Search the tracker's settings on `truth`, and write them to `out`; those of `settings` stay as they are.

        metric: what is to be as high as it can be, see `opsin.track.tuning.METRICS`. trials: `tuning.TRIALS` if None.
        """
        if self.truth is None:
            raise InputError("settings are tuned on given truth; say where it is, with --truth")
        self._check()
        given = {name: replace(one, ids=np.arange(len(one))) for name, one in self.detections().items()}
        truth, found = match_sequences(read_truth(self.truth), given, Path(self.source))  # which asks for identities
        truth = {name: truth[name] for name in found}
        found = {name: replace(one, ids=np.full(len(one), NOBODY)) for name, one in found.items()}
        search = Search(self.tracker, found, truth, choose_rules(list(truth.values())), metric, every=self.every)
        search.trials, search.seed, search.fixed = trials or search.trials, seed, self.settings
        tuned = search.run(quiet=self.quiet)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            tuned.write(self.out / SETTINGS_FILE)
        return tuned

    def detections(self) -> dict[str, Tracks]:
        """What the tracker is given, by the names of sequences: those of files, or what the run finds in all frames."""
        if self.frames is None:
            return open_detections(self.source, self.fps)
        find, facts = self._finder(open_images(self.frames, self.fps))
        return {facts["name"]: follow_online(None, find(), facts).detections}

    def _follow_sequence(self, detections: Tracks, before: int, meter: Meter) -> Course:
        tracker = self._create(detections.fps)
        if not tracker.online:
            return follow_batch(tracker, detections, every=self.every, plan=self.plan)
        frames = _metered(frames_of(detections, self.every), meter, before)
        return follow_online(tracker, frames, facts_of(detections), plan=self.plan, keep=self._explains)

    def _meter(self, total: int | None) -> Meter:
        return Meter("tracking", total, "frames", quiet=self.quiet, rate=True)

    # With images

    def _follow_frames(self, given: str) -> dict[str, Course]:
        frames = open_images(given, self.fps)
        found, facts = self._finder(frames)
        tracker = self._create(float(frames.rate))
        with ExitStack() as stack, self._meter(_looked_at(frames, self.every)) as meter:
            seen = _metered(found(), meter, 0)
            if tracker.online:
                show, drawn = self._shower(stack, frames, facts)
                course = follow_online(tracker, seen, facts, plan=self.plan, show=show, keep=self._explains)
            else:
                course = self._follow_whole(tracker, seen, facts)
                show, drawn = self._shower(stack, frames, facts)
                if show is not None:
                    _show_again(course.tracks, frames, self.every, show)
        course.damage = str(frames.damage) if frames.damage and not frames.live else ""
        if drawn is not None:
            course.files["drawn"] = str(drawn)
        return {facts["name"]: course}

    def _finder(self, frames: Frames) -> tuple[Callable[[], Iterator[Seen]], dict[str, Any]]:
        """What gives the frames with what is found in them, and the facts of the tracks."""
        rate, name = float(frames.rate), safe_name(name_of(frames))
        look = None if self.appearance is None else load(self.appearance, self.device)
        facts: dict[str, Any] = {"name": name, "fps": rate, "num_frames": frames.count}
        if is_run(self.source):
            run = load(self.source, self.device)
            classes = tuple(run.classes)

            def find() -> Iterator[tuple[Frame, Instances]]:
                yield from find_in_frames(run, frames.read(self.every), batch_size=self.batch_size, **self.options)

        else:
            sequences = open_detections(self.source, self.fps)
            if len(sequences) > 1:
                listed = ", ".join(list(sequences)[:5])
                raise InputError(f"{self.source} holds the sequences {listed}; give the one that the images are of")
            (detections,) = sequences.values()
            facts |= {"name": detections.name or name}
            classes = detections.classes

            def find() -> Iterator[tuple[Frame, Instances]]:
                for frame in frames.read(self.every):
                    yield frame, detections.frame(frame.index)

        facts["classes"] = classes or ("object",)
        return lambda: _seen(find(), look, facts), facts

    def _follow_whole(self, tracker: Any, seen: Iterator[Seen], facts: dict[str, Any]) -> Course:
        """By a tracker that needs all frames: the detections are gathered first."""
        gathered = follow_online(None, seen, facts)
        course = follow_batch(tracker, gathered.detections, plan=self.plan)
        course.looked_at, course.seconds = gathered.looked_at, gathered.seconds + course.seconds
        course.stopped = gathered.stopped
        return course

    def _shower(
        self, stack: ExitStack, frames: Frames, facts: dict[str, Any]
    ) -> tuple[Callable[..., None] | None, Path | None]:
        """What draws frames into a video in `out`, and that video; None where nothing is to be written."""
        if self.out is None:
            return None, None
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{facts['name']}.mp4"
        write = stack.enter_context(write_video(path, frames.rate / self.every))
        drawer = TrackDrawer(facts["classes"], facts["fps"], plan=self.plan)

        def show(seen: Seen, tracked: Followed, counter: Any) -> None:
            labels = torch.from_numpy(seen.labels[tracked.detections])
            instances = Instances(torch.from_numpy(tracked.boxes), labels=labels, ids=torch.from_numpy(tracked.ids))
            write(drawer(seen.image, seen.frame, instances, counter))

        return show, path


@dataclass
class Tracking:
    """What a job gave: how each sequence was followed, by its name."""

    job: TrackJob
    courses: dict[str, Course]
    truth: dict[str, Tracks] | None = None
    evaluation: Evaluation | None = None

    @property
    def tracks(self) -> dict[str, Tracks]:
        """The tracks of each sequence, by its name."""
        return {name: course.tracks for name, course in self.courses.items()}

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it before its end."""
        return any(course.stopped for course in self.courses.values())

    @property
    def live(self) -> bool:
        """Whether a camera was followed, which somebody has to stop."""
        return self.job.frames is not None and is_live(self.job.frames)

    @property
    def damage(self) -> str:
        """What of a video could not be read; "" where all was."""
        return "; ".join(course.damage for course in self.courses.values() if course.damage)

    def compare(self, truth: Mapping[str, Tracks]) -> None:
        """Evaluate the tracks against the truth of their sequences, by the rules of its format.

        Raises InputError for a truth of other sequences.
        """
        truth, tracks = match_sequences(truth, self.tracks, Path(self.job.source))
        if len(truth) == len(self.courses) == 1:
            self.courses = dict(zip(truth, self.courses.values(), strict=True))
        self.truth = {name: truth[name] for name in tracks}
        self.evaluation = evaluate(self.truth, tracks, choose_rules(list(self.truth.values())))

    def facts(self) -> dict[str, Any]:
        """How it was made, plain values for JSON."""
        job = self.job
        return {
            "tracker": job.tracker,
            "settings": dict(job.settings),
            "source": job.source,
            "frames": job.frames,
            "appearance": job.appearance,
            "every": job.every,
            "truth": job.truth,
            **({} if job.tuned is None else {"tuned_on": job.tuned.to_dict()["tuned_on"]}),
            **({} if self.evaluation is None else {"metrics": self.evaluation.metrics}),
            "runs": {name: _facts_of(course) for name, course in self.courses.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything for machines: `facts`, and the tracks of each sequence."""
        return {**self.facts(), "sequences": [tracks_to_dict(tracks) for tracks in self.tracks.values()]}

    def write(self, folder: Path) -> None:
        """Write the tracks of all sequences; see `opsin.track.result_files`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, course in self.courses.items():
            course.files["tracks"] = str(text_file(folder, name))
        write_results(folder, self.facts(), self.tracks)
        rules = None if self.truth is None else choose_rules(list(self.truth.values()))
        write_track_report(folder / "report.html", self, self.truth, rules, self._images())

    def _images(self) -> Callable[[set[int]], Mapping[int, Any]] | None:
        """What gives the images of some frames; None where there are none, or they are gone."""
        if self.job.frames is None or self.live:
            return None
        given, fps = self.job.frames, self.job.fps
        return lambda wanted: images_of(given, fps, wanted)

    def lines(self) -> list[str]:
        """What came out, a line for each sequence and one for each line and zone that was counted."""
        lines = [line for name, course in self.courses.items() for line in _lines_of(name, course)]
        if self.evaluation is not None:
            room, metrics = rooms.find_room("track"), self.evaluation.metrics
            figures = [f"{name} {room.format(name, metrics.get(name))}" for name in _SHOWN]
            lines.append(f"against {self.job.truth}: {', '.join(figures)}")
        return lines


def read_truth(path: str) -> dict[str, Tracks]:
    """The truth of sequences by their names. Raises InputError for what holds none."""
    return read_sequences(_found(path), Asked(truth=True))


def open_images(given: str, fps: float | None = None) -> Frames:
    """The frames of a video, a camera or a folder; of a MOTChallenge sequence its img1, at the rate of its seqinfo."""
    folder = Path(given).expanduser()
    if is_live(given) or not folder.is_dir():
        return open_frames(given, fps)
    folder = folder / _IMAGES if (folder / _IMAGES).is_dir() else folder
    info = folder.parent / "seqinfo.ini"
    known = read_seqinfo(read_file(info), str(info)) if folder.name == _IMAGES and info.is_file() else {}
    return open_frames(folder, known.get("fps") if fps is None else fps)


def name_of(frames: Frames) -> str:
    """What a sequence is called after its frames: as the video, or the folder; of img1 as the one above."""
    folder = Path(str(frames.given))
    return folder.absolute().parent.name if frames.numbers is not None and folder.name == _IMAGES else frames.name


def images_of(given: str, fps: float | None, wanted: set[int]) -> dict[int, Any]:
    """The images of some frames of a video or a folder, read up to the last of them."""
    found: dict[int, Any] = {}
    for frame in open_images(given, fps).read():
        if frame.index in wanted:
            found[frame.index] = frame.image
        if len(found) == len(wanted):
            break
    return found


def _found(path: str) -> Path:
    """A path that is there, or is in the folder that OPSIN_DATA names."""
    home, own = os.environ.get("OPSIN_DATA"), Path(path).expanduser()
    if home is not None and not own.exists() and (Path(home) / path).exists():
        return Path(home) / path
    return own


def is_run(source: str) -> bool:
    """Whether a text names a run rather than a file or folder of detections."""
    path = Path(source).expanduser()
    if path.is_dir():
        return (path / "recipe.yaml").is_file() or (path / "model.safetensors").is_file()
    if path.suffix.lower() == ".xml" and path.is_file():
        with path.open("rb") as file:
            return b"<net" in file.read(_HEAD)
    if path.is_file():
        return path.suffix.lower() in {".safetensors", *FILES}
    return ":" in source


def open_detections(source: str, fps: float | None = None) -> dict[str, Tracks]:
    """The detections of a file, a folder or a zip, a sequence each. fps: frames a second, if not as they say it.

    Raises InputError for what holds none. Boxes without area, which reading says, are left out.
    """
    found = {name: _with_area(one) for name, one in read_sequences(_found(source)).items()}
    if fps is not None:
        found = {name: replace(one, fps=fps) for name, one in found.items()}
    return found


def _with_area(detections: Tracks) -> Tracks:
    return detections.select(np.flatnonzero((detections.boxes[:, 2:] > detections.boxes[:, :2]).all(axis=1)))


def _say_dropped(name: str, detections: Tracks, every: int) -> None:
    """Say where each second frame alone has detections, or each third and so on, as where frames were dropped."""
    frames = np.unique(detections.frames)
    step = int(np.gcd.reduce(frames))
    if len(frames) >= _MANY and step > every:
        say(f"{name} has detections in one frame of {step} alone; if the others were dropped, say --every {step}")


def facts_of(detections: Tracks) -> dict[str, Any]:
    """Those fields of tracks that are their detections' too."""
    names = ("name", "fps", "size", "num_frames", "open_ended", "classes")
    return {name: getattr(detections, name) for name in names}


def _facts_of(course: Course) -> dict[str, Any]:
    tracks = course.tracks
    return {
        "frames": course.looked_at,
        "tracks": len(set(tracks.ids.tolist())),
        "boxes": len(tracks),
        "uses_future": tracks.batch,
        "seconds": round(course.seconds, 3),
        "frames_per_second": round(course.frames_per_second, 1),
        "stopped": course.stopped,
        "damage": course.damage,
        "files": course.files,
        **({} if course.counts is None else {"counts": course.counts}),
    }


def _lines_of(name: str, course: Course) -> Iterator[str]:
    tracks = course.tracks
    count, frames = len(set(tracks.ids.tolist())), course.looked_at
    future = ", later frames were used" if tracks.batch else ""
    yield (
        f"{name}: {count:,} track{'' if count == 1 else 's'} of {len(tracks):,} boxes in {frames:,} frames, "
        f"{course.frames_per_second:,.0f} frames a second{future}"
    )
    counts = course.counts or {"lines": [], "zones": []}
    for line in counts["lines"]:
        yield f"  {line['name']}: {line['left_to_right']:,} left to right, {line['right_to_left']:,} right to left"
    for zone in counts["zones"]:
        yield (
            f"  {zone['name']}: {zone['objects']:,} were inside, {zone['most_at_once']:,} at once at most, "
            f"{zone['mean_seconds']:.1f} s each"
        )


def _looked_at(frames: Frames, every: int) -> int | None:
    if frames.numbers is not None:
        return sum(number % every == 0 for number in frames.numbers)
    return None if frames.count is None else -(-frames.count // every)


def _metered(seen: Iterator[Seen], meter: Meter, before: int) -> Iterator[Seen]:
    for place, one in enumerate(seen, before + 1):
        yield one
        meter(place)


def _seen(found: Iterator[tuple[Frame, Instances]], look: Predictor | None, facts: dict[str, Any]) -> Iterator[Seen]:
    """What trackers are given, of frames with what was found in them."""
    for frame, instances in found:
        facts.setdefault("size", (frame.image.shape[-1], frame.image.shape[-2]))
        with_area = (instances.boxes[:, 2:] > instances.boxes[:, :2]).all(dim=1)
        found_there = instances if bool(with_area.all()) else instances[with_area]
        assert found_there.labels is not None and found_there.scores is not None
        yield Seen(
            frame.index,
            frame.time,
            found_there.boxes.double().numpy(),
            found_there.scores.double().numpy(),
            found_there.labels.numpy(),
            frame.image,
            None if look is None else look_of(look, frame.image, found_there.boxes).numpy(),
        )


def _show_again(tracks: Tracks, frames: Frames, every: int, show: Callable[..., None]) -> None:
    """Draw finished tracks on frames that are read once more."""
    for frame in frames.read(every):
        if frame.index >= tracks.num_frames:
            return
        rows = tracks.rows(frame.index)
        places = np.arange(rows.stop - rows.start)
        seen = Seen(frame.index, frame.time, tracks.boxes[rows], tracks.scores[rows], tracks.labels[rows], frame.image)
        show(seen, Followed(tracks.boxes[rows], tracks.ids[rows], places), None)
