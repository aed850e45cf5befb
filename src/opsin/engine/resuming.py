"""Going on with a run: which checkpoint is whole, whether anything is left to train, and what stays equal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from opsin.data.loading import STOPPING, WorkerError
from opsin.data.members import Members
from opsin.engine.callbacks import StoppedError
from opsin.engine.checkpoint import HoldsCodeError, read_checkpoint
from opsin.engine.devices import describe_machine
from opsin.engine.run import RunFolder
from opsin.engine.task import Task
from opsin.errors import InputError, JobError, is_first_process
from opsin.files import sweep

Say = Callable[[str], None]
Content = Mapping[str, Any]

# What a checkpoint of a training has: Lightning's parts, and ours under "opsin".
_PARTS = ("state_dict", "optimizer_states", "callbacks", "loops", "global_step", "epoch", "opsin")
_OWN_PARTS = ("schedule", "sums", "batches", "position")


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Keep a run folder to this training. What writers that are no more have left half-written in it is removed.

    Raises InputError where another process trains it. Further processes of one training take the lock of the first.
    """
    if not is_first_process():
        yield
        return
    lock = FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder.path} is being trained by another process; wait for it, or stop it and resume then"
        ) from None
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        for place in (folder.path, *folder.path.glob("stages/*/")):
            sweep(place)
        yield
    finally:
        (folder.path / ".lock").unlink(missing_ok=True)
        lock.release()


def find_checkpoint(folder: RunFolder, say: Say) -> tuple[Path, Content] | None:
    """The newest whole checkpoint of a run and what it holds; None where there is none yet.

    On a damaged one `say` gets a line, and the one before is taken. Raises InputError where none can be read.
    """
    damaged: list[str] = []
    for path in (folder.last, folder.previous):
        if not path.exists():
            continue
        try:
            content = _whole(path)
        except HoldsCodeError:
            raise
        except InputError as error:
            damaged.append(str(error))
            continue
        if damaged:
            say(f"{damaged[0]}; going on from {path.name}, at step {content['global_step']}")
        return path, content
    if not damaged:
        return None
    hint = "start it anew"
    if folder.best.exists():
        hint = f"to go on from the best epoch: cp {folder.best} {folder.last}"
    raise InputError(f"{'; '.join(damaged)}; {hint}")


def find_members(folder: RunFolder) -> Members | None:
    """The members of the splits that an interrupted run was begun with; None of one that has saved none.

    Of a training in stages, those of any stage. A damaged checkpoint gives way to the next here; `find_checkpoint`
    says so.
    """
    for path in (folder.last, folder.previous, *sorted(folder.path.glob("stages/*/last.ckpt"))):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # of which little is read
            packed = content["opsin"].get("members")
            return None if packed is None else Members.unpack(packed.numpy().tobytes())
        except Exception:  # there is none, or it is damaged in any way
            continue
    return None


def _whole(path: Path) -> Content:
    """A checkpoint with all of its parts. Raises InputError that names the first that is missing."""
    content = read_checkpoint(path)
    own = content.get("opsin")
    missing = [part for part in _PARTS if part not in content]
    if not missing and isinstance(own, Mapping):
        missing = [f"opsin.{part}" for part in _OWN_PARTS if part not in own]
    elif not missing:
        missing = ["opsin"]
    if missing:
        raise InputError(f"{path} is damaged: it lacks {missing[0]}")
    return content


def check_fits(path: Path, content: Content, task: Task) -> None:
    """Refuse a checkpoint of other classes or another architecture, before Lightning meets it."""
    saved = content["opsin"]
    meaning = saved.get("meaning", {"classes": saved.get("classes")})  # earlier all tasks had classes
    if meaning.get("classes", []) != task.classes:
        raise InputError(f"{path} was trained on the classes {meaning.get('classes')}, the data now has {task.classes}")
    if {**task.facts.meaning, **meaning} != task.facts.meaning:
        raise InputError(f"{path} was trained on data that means {meaning}, not {task.facts.meaning}")
    own = task.state_dict()
    for key, value in content["state_dict"].items():
        if key not in own or own[key].shape != value.shape:
            raise InputError(
                f"{path} does not fit {task.recipe.model.name}: {key} differs; resume with the recipe it had"
            )


def why_finished(content: Content, task: Task, trainer: Trainer) -> str | None:
    """Why nothing is left to train after a checkpoint, with what would give it more to do; None where something is."""
    train = task.recipe.train
    epoch, batch = content["opsin"]["position"]
    if epoch >= train.epochs and batch == 0:
        return f"its {train.epochs} epochs are done; for more: --set train.epochs={2 * train.epochs}"
    steps = content["global_step"] // max(1, len(content["optimizer_states"]))
    if train.max_steps is not None and steps >= train.max_steps:
        return f"its {train.max_steps} steps are done; for more: --set train.max_steps={2 * train.max_steps}"
    for part in _callbacks(trainer):
        state = content["callbacks"].get(part.state_key)
        if isinstance(part, EarlyStopping) and state and batch == 0 and state["wait_count"] >= part.patience:
            waited = f"{state['wait_count']} epochs without a better {part.monitor}"
            more = 2 * part.patience
            return f"it stopped early, after {waited}; for more: --set train.early_stopping_patience={more}"
    return None


def left_to_train(content: Content, task: Task, trainer: Trainer, device: torch.device, say: Say) -> bool:
    """Whether a training goes on after a checkpoint. `say` gets a line on why not, or what differs here.

    Where it does not, the callbacks are given the state that they had, as at the start of a training.
    """
    if (reason := why_finished(content, task, trainer)) is not None:
        say(f"nothing is left to train: {reason}")
        for part in _callbacks(trainer):
            if state := content["callbacks"].get(part.state_key):
                part.load_state_dict(state)
        return False
    if moved := describe_move(content, describe_machine(trainer.world_size, device)):
        say(moved)
    return True


def describe_move(content: Content, here: Mapping[str, Any]) -> str | None:
    """What differs from the machine of a checkpoint, and what stays equal; None where nothing is known to differ."""
    then = content["opsin"].get("machine")
    if not then:
        return None
    changed = [f"{here[what]} in the place of {then[what]} as {what}" for what in here if then.get(what) != here[what]]
    if not changed:
        return None
    equal = "order, draws and batches are as they would have been; sums may differ in the last bits"
    if then.get("processes") != here["processes"]:
        equal = "the order of the images stays; batches hold other numbers of them, and so do steps"
    return f"resumed with {', '.join(changed)}: {equal}"


def ended_by_another(error: Exception, folder: RunFolder, world_size: int) -> JobError | None:
    """The error for a training whose loading process or other process has ended; None for any other."""
    go_on = f"go on from the last checkpoint with: opsin train --resume {folder.path}"
    if isinstance(error, WorkerError):
        return JobError(f"{error}; {go_on}")
    text = " ".join(str(error).split())
    distributed = ("Connection closed", "Connection reset", "gloo", "NCCL", "Broken pipe", "Socket", "TCPStore")
    if world_size > 1 and any(word.lower() in text.lower() for word in distributed):
        return JobError(f"another process of this training has ended; {go_on}")
    return None


@contextmanager
def stopped_in_words(run: Callable[[], RunFolder | None]) -> Iterator[None]:
    """Make SIGTERM and SIGHUP outside of the training steps, while data is read or evaluated, one line as Ctrl-C is.

    run: gives the folder, once there is one.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        folder = run()
        if folder is None or not folder.recipe.exists():
            raise StoppedError("stopped before anything was trained") from None
        raise StoppedError(f"stopped; go on with: opsin train --resume {folder.path}") from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _callbacks(trainer: Trainer) -> list[Any]:
    held: Any = trainer
    return held.callbacks
