"""What `opsin predict` writes beside drawn images: tables, annotations, lines of JSON and objects cut out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsin import rooms
from opsin.cli.printing import print_json
from opsin.cli.written_formats import find_writer, write_source
from opsin.errors import InputError, say, unknown
from opsin.files import check_new

if TYPE_CHECKING:
    from opsin.engine.answers import Answer


@dataclass
class PredictOutput:
    """Where answers go. csv, coco: files, written at the end; crops: a folder; jsonl: lines on standard output.

    written: a format and a new folder, into which images and what was found are written at the end. form: of what is
    written into the folder `out`; drawn images if None.
    """

    csv: Path | None = None
    coco: Path | None = None
    crops: Path | None = None
    jsonl: bool = False
    written: tuple[str, Path] | None = None
    form: str | None = None
    out: Path | None = None
    joins: bool = False  # whether all answers together are one file in `out`
    files: dict[str, Path] = field(default_factory=dict)  # of the task's own options that write all answers
    kept: list[Answer] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)

    def check(self, task: str | None, run: str, inputs: Sequence[Path], as_json: bool) -> None:
        """Before anything is loaded: that the task has these forms, and that no input is replaced.

        run: what is of the task, as it was given. Raises InputError.
        """
        if as_json and self.jsonl:
            raise InputError("--json prints one list, --jsonl a line for each answer; give one of them")
        for flag, path in (("--csv", self.csv), ("--coco", self.coco)):
            if path is not None and path.is_dir():
                raise InputError(f"{flag} {path} is a folder; name a file in it")
            if path is not None and path.exists() and any(one.exists() and path.samefile(one) for one in inputs):
                raise InputError(f"{flag} {path} is an input; name another file")
        if self.csv is not None and self.coco is not None and self.csv.absolute() == self.coco.absolute():
            raise InputError(f"--csv and --coco both name {self.csv}; name two files")
        if self.crops is not None and self.crops.is_file():
            raise InputError(f"--crops {self.crops} is a file; name a folder")
        if self.written is not None:
            check_new(self.written[1])
        if self.coco is not None or self.crops is not None or self.written is not None:
            self._check_task(task, run)

    def check_form(self, answer_class: type[Answer]) -> None:
        """Raise InputError for a form that the task's answers are not written in."""
        if self.form is None:
            return
        single, joined = answer_class.forms, answer_class.list_class.forms
        if self.form not in (*single, *joined):
            raise unknown("form", self.form, [*single, *joined])
        if self.out is None:
            raise InputError(f"--format {self.form} says what to write to --out; give --out FOLDER too")
        self.joins = self.form in joined

    def join(self, answer_class: type[Answer]) -> None:
        """Write the one answer of a model that needs no input, or all of it together, into `out`, by default first."""
        joined = answer_class.list_class.forms
        if joined and self.form is None:
            self.form, self.joins = joined[0], True

    def take_files(self, room: rooms.Room, options: Mapping[str, Any], inputs: Sequence[str]) -> dict[str, Any]:
        """The options without those that name a file for all answers, which are kept. Raises InputError."""
        for option in room.options_of("predict"):
            if option.writes and options.get(option.name) is not None:
                path = self.files[option.name] = Path(options[option.name])
                if path.is_dir():
                    raise InputError(f"{option.flag} {path} is a folder; name a file in it")
                if path.exists() and any(Path(one).exists() and path.samefile(one) for one in inputs):
                    raise InputError(f"{option.flag} {path} is an input; name another file")
        return {name: value for name, value in options.items() if name not in self.files}

    def _check_task(self, task: str | None, run: str) -> None:
        room = None if task is None else rooms.find_room(task)
        if room is None or room.predicts is None:
            return  # loading says what is wrong
        from opsin.engine.answers import owners_of

        if self.written is not None and room.formats:
            find_writer(room, self.written[0])
        forms = (
            ("--coco", self.coco, "to_coco"),
            ("--crops", self.crops, "save_crops"),
            ("--as", self.written, "to_source"),
        )
        for flag, path, form in forms:
            owners = owners_of(form, lambda answer_class: answer_class.list_class)
            if (
                path is not None
                and room.task not in owners
                and (getattr(rooms.load(room.predicts).answer_class.list_class, form, None) is None)
            ):
                raise InputError(f"{flag} is for answers of {' and '.join(owners)}; {run} is of {room.task}")

    def add(self, answer: Answer, shown: dict[str, Any]) -> None:
        """Take an answer as it comes. shown: it with what was made of it, for JSON."""
        if self.jsonl:
            print_json(shown, indent=None)
        if self.csv is not None or self.coco is not None or self.written is not None or self.joins or self.files:
            self.kept.append(answer)
        if self.crops is not None and answer.error is None:
            name = "image" if answer.path is None else answer.path.name
            if answer.frame in (None, 0):
                self.names[name] += 1
            # Two images of one name in different folders: the second gets a number, and replaces nothing.
            own = name if self.names[name] < 2 else f"{name}~{self.names[name]}"
            answer.save_crops(self.crops, own)

    def finish(self, answer_class: type[Answer], room: rooms.Room) -> None:
        """Write what is written at the end."""
        answers: Any = answer_class.list_class(self.kept)
        if self.csv is not None:
            answers.to_csv(self.csv)
        if self.coco is not None:
            answers.to_coco(self.coco)
        for name, file in self.files.items():
            say(f"written: {getattr(answers, f'to_{name}')(file)}")
        if self.joins and self.form is not None and self.out is not None:
            say(f"written: {answers.write(self.form, self.out)}")
        if self.written is not None:
            name, out = self.written
            say(write_source(answers.to_source(), room, name, out, False))
