"""Batches are the same whatever loads them: workers, processes, resumes, epochs."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from PIL import Image

from opsin import data
from opsin.data import ImageLoader, Preprocessing, UnreadableImage, create_augmentation, create_loader
from opsin.data.inputs import ImageArray, ImageFiles
from opsin.data.labels import ClassLabels
from opsin.data.loading import WorkerError
from opsin.data.source import Split
from opsin.errors import InputError
from opsin.structures import Batch

N = 50
RANDOM = np.random.RandomState(0)
SPLIT = Split(
    ImageArray(torch.from_numpy(RANDOM.randint(0, 256, (N, 3, 12, 10), dtype=np.uint8)), "x"),
    ClassLabels(RANDOM.randint(0, 4, N).astype(np.int64), ["a", "b", "c", "d"]),
)
PREPROCESSING = Preprocessing(size=(12, 10), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
AUGMENTATION = create_augmentation(
    [{"random_crop": {"padding": 3}}, "random_horizontal_flip", "trivial_augment_wide", "random_erasing"], PREPROCESSING
)


def loader(split: data.Split = SPLIT, **options: object) -> ImageLoader:
    options = {"batch_size": 8, "training": True, "augmentation": AUGMENTATION, "seed": 3, **options}
    return create_loader(split, PREPROCESSING, **options)  # type: ignore[arg-type]


def epochs(made: ImageLoader, *numbers: int) -> list[Batch]:
    batches = []
    for number in numbers:
        made.set_epoch(number)
        batches += list(made)
    return batches


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        assert one["path"] == two["path"]
        for key in ("image", "label", "index"):
            assert torch.equal(one[key], two[key])


def indices(batches: list[Batch]) -> list[int]:
    return torch.cat([batch["index"] for batch in batches]).tolist()


def test_a_batch_is_what_it_says() -> None:
    batch = next(iter(loader(augmentation=None)))
    assert batch["image"].shape == (8, 3, 12, 10) and batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    for image, label, index, path in zip(*(batch[k] for k in ("image", "label", "index", "path")), strict=True):
        assert torch.equal(image, SPLIT.read(index)) and label == SPLIT.kind.presence[index] and path == f"x[{index}]"


def test_workers_change_nothing() -> None:
    here, there = loader(), loader(workers=2)
    assert_equal(epochs(here, 0, 1, 4), epochs(there, 0, 1, 4))  # the workers persist and learn of the new epoch


def test_workers_may_be_spawned() -> None:
    made = loader()
    samples = pickle.loads(pickle.dumps(made.dataset))  # what a spawned worker gets
    assert_equal([samples.__getitems__(keys) for keys in made.batches], list(made))


def test_random_numbers_outside_are_left_alone_and_change_nothing() -> None:
    torch.manual_seed(1)
    first = list(loader())
    states = random.getstate(), np.random.get_state(legacy=False)["state"]["key"]  # type: ignore[index]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_equal(list(loader()), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], states[1])  # type: ignore[index]


def test_epochs_and_seeds_differ_in_order_and_augmentation() -> None:
    zero, one, other = epochs(loader(), 0), epochs(loader(), 1), epochs(loader(seed=4), 0)
    assert indices(zero) != indices(one) != indices(other)
    images = [
        dict(zip(indices(batches), torch.cat([b["image"] for b in batches]), strict=True)) for batches in (zero, one)
    ]
    both = images[0].keys() & images[1].keys()
    assert sum(torch.equal(images[0][i], images[1][i]) for i in both) < len(both) / 4
    assert_equal(epochs(loader(), 0), zero)


def test_an_epoch_holds_each_sample_once() -> None:
    assert len(loader()) == 6 and len(set(indices(list(loader())))) == 48  # 2 of 50 dropped
    kept = loader(drop_last=False)
    assert len(kept) == 7 and sorted(indices(list(kept))) == list(range(N))
    small = loader(batch_size=64)
    assert len(small) == 1 and sorted(indices(list(small))) == list(range(N))  # the only batch is kept


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_each_global_batch(world: int, drop_last: bool) -> None:
    split = SPLIT.subset(range(47))
    one = epochs(loader(split, batch_size=4 * world, drop_last=drop_last), 2)
    ranks = [
        epochs(loader(split, batch_size=4, drop_last=drop_last, rank=r, world_size=world), 2) for r in range(world)
    ]
    assert [len(rank) for rank in ranks] == [len(one)] * world
    for place, batch in enumerate(one):
        for key in ("image", "label", "index"):
            assert torch.equal(torch.cat([rank[place][key] for rank in ranks]), batch[key])


def test_every_process_gets_a_sample_of_the_last_batch() -> None:
    ranks = [loader(SPLIT.subset(range(5)), batch_size=2, drop_last=False, rank=r, world_size=4) for r in range(4)]
    batches = [list(rank) for rank in ranks]
    assert [len(b) for b in batches] == [1] * 4
    assert sorted(indices([b[0] for b in batches])) == list(range(5))
    ranks = [loader(SPLIT.subset(range(2)), batch_size=2, rank=r, world_size=4) for r in range(4)]
    assert sorted(indices([next(iter(rank)) for rank in ranks])) == [0, 0, 1, 1]


def test_evaluation_is_in_order_and_whole() -> None:
    one = loader(training=False, augmentation=None)
    assert len(one) == 7 and indices(list(one)) == list(range(N))
    ranks = [loader(training=False, augmentation=None, rank=r, world_size=3) for r in range(3)]
    assert [indices(list(rank)) for rank in ranks] == [list(range(r, N, 3)) for r in range(3)]
    assert [len(rank) for rank in ranks] == [3, 3, 2]
    assert list(loader(SPLIT.subset([]), training=False, augmentation=None)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_where_it_was(workers: int) -> None:
    whole = epochs(loader(), 5)
    stopped = loader(workers=workers)
    stopped.position = (5, 2)
    assert stopped.state_dict() == {"epoch": 5, "batch": 2}
    resumed = loader(workers=workers)
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(5)  # as a trainer does at the start of the epoch that it is in
    assert len(resumed) == 6
    assert_equal(list(resumed), whole[2:])
    assert resumed.position == (5, 2)  # prefetching must not move it
    assert_equal(list(resumed), whole[2:])
    resumed.set_epoch(6)
    assert resumed.position == (6, 0)
    assert_equal(list(resumed), epochs(loader(), 6))
    resumed.position = (6, 6)
    assert list(resumed) == []


def test_lightning_finds_set_epoch() -> None:
    made = loader()
    _set_sampler_epoch(made, 7)
    assert made.position == (7, 0)


def test_multi_label_rows() -> None:
    rows = RANDOM.randint(0, 2, (N, 4)).astype(np.float32)
    batch = next(iter(loader(SPLIT.with_truth(ClassLabels(rows, ["a", "b", "c", "d"])))))
    assert batch["label"].dtype == torch.float32 and torch.equal(batch["label"], torch.from_numpy(rows[batch["index"]]))


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_file_is_one_clear_line(workers: int, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(SPLIT.read(0).permute(1, 2, 0).numpy()).save(stream, "PNG")
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(stream.getvalue() if name != "b.png" else stream.getvalue()[:-60])
    files = ImageFiles([str(tmp_path / f"{name}.png") for name in "abc"])
    split = Split(files, ClassLabels(np.zeros(3, np.int64), ["a"]))
    batches = iter(loader(split, training=False, augmentation=None, batch_size=1, workers=workers))
    next(batches)
    with pytest.raises(UnreadableImage) as caught:
        next(batches)
    assert caught.value.path == str(tmp_path / "b.png")
    assert "truncated" in str(caught.value) and "\n" not in str(caught.value)


ENDS = """
import multiprocessing, sys
sys.path.insert(0, {tests!r})
from test_loading import loader

def fail():
    kept.append(iter(loader(workers=2)))  # as a traceback keeps it
    next(kept[0])
    sys.exit(3)

kept = []
if __name__ == "__main__":
    if {forked}:
        loader(workers=1)  # what the process before has arranged is not enough
        child = multiprocessing.get_context("fork").Process(target=fail)
        child.start()
        child.join(60)
        sys.exit(child.exitcode)
    fail()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")
@pytest.mark.parametrize("forked", [False, True])
def test_a_process_that_fails_ends_with_its_workers_and_in_silence(forked: bool) -> None:
    code = ENDS.format(tests=str(Path(__file__).parent), forked=forked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (3, "")


def test_workers_leave_an_interrupt_to_the_main_process() -> None:
    made = loader(workers=1)
    batches = iter(made)
    first = next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGINT)
    assert_equal([first, *batches], list(loader()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected 1 or more"),
        ({"workers": -1}, "workers is -1"),
        ({"rank": 2, "world_size": 2}, "rank is 2; expected 0 to 1"),
        ({"split": SPLIT.subset([])}, "holds no images"),
    ],
)
def test_wrong_calls(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loader(**options)


def _no_room(tensor: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def _killed(tensor: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return tensor


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked with what is patched here")
@pytest.mark.parametrize(("share", "words"), [(_no_room, "/dev/shm"), (_killed, "maybe for want of memory")])
def test_a_worker_that_fails_is_one_line(
    share: Callable[..., Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without room the thread that sends a batch loses it, and who waits for it waits for ever: workers share it before.
    monkeypatch.setattr(torch.Tensor, "share_memory_", share)
    with pytest.raises(WorkerError, match=words):
        list(loader(workers=1))
