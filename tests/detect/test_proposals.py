"""Proposals: their methods, their cache, their recall, and their way through the loader."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin import data
from opsin.data import Preprocessing, create_loader
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray
from opsin.data.source import Split
from opsin.data.transforms.augmentation import create_detection_augmentation
from opsin.detect import proposals
from opsin.detect.proposals import (
    SlidingWindows,
    cache_folder,
    create_proposer,
    find_proposals,
    proposal_recall,
    recall_figure,
)
from opsin.errors import InputError
from opsin.structures import Instances

pytestmark = pytest.mark.rendered


def images(count: int, side: int = 24, seed: int = 0) -> Split:
    """Noise, with an object each in the middle; every second one has another size below it."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=random)
    middle = Instances(torch.tensor([[side / 4, side / 4, side / 2, 3 * side / 4]]), torch.tensor([1]))
    return Split(ImageArray(images, "noise"), Boxes.of([middle] * count, ["a", "b"]))


class Counting:
    """Windows, and which images were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, image: Tensor) -> Tensor:
        self.asked += 1
        return SlidingWindows(limit=7)(image) + float(image[0, 0, 0])  # told apart by their image


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counting:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(proposals, "asdict", lambda proposer: {"limit": 7})
    return Counting()


def quiet(line: str) -> None:
    """Nobody listens."""


# Methods


def test_windows_of_a_square_by_hand() -> None:
    laid = SlidingWindows(smallest=1.0, ratios=(1.0,)).lay_out(10, 10)
    assert laid.tolist() == [[0, 0, 10, 10]]
    halves = SlidingWindows(smallest=0.5, ratios=(1.0,), step=1.0).lay_out(16, 16)
    sides = (halves[:, 2] - halves[:, 0]).tolist()
    root = 16 / 2**0.5
    assert sorted(sides) == pytest.approx([8] * 4 + [root] * 4 + [16], abs=1e-4)
    starts = {(round(x, 3), round(y, 3)) for (x, y, _, _), side in zip(halves.tolist(), sides, strict=True) if side < 9}
    assert starts == {(0, 0), (8, 0), (0, 8), (8, 8)}


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (480, 640)])
def test_windows_lie_in_the_image_and_differ(size: tuple[int, int]) -> None:
    boxes = SlidingWindows().lay_out(*size)
    assert 0 < len(boxes) <= 2000
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= size[1] + 1e-3
    assert boxes[:, 3].max() <= size[0] + 1e-3
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()
    assert len(boxes.unique(dim=0)) == len(boxes)
    assert torch.equal(boxes, SlidingWindows().lay_out(*size))
    assert torch.equal(boxes, SlidingWindows()(torch.zeros(3, *size)))  # (C, H, W): rows first


def test_fewer_windows_are_the_best_of_more() -> None:
    many, few = (SlidingWindows(limit=limit).lay_out(60, 80) for limit in (1000, 50))
    assert torch.equal(few, many[:50])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("selective_serch_fast", {}, "did you mean selective_search_fast"),
        ("sliding_windows", {"size": 3}, "size"),
        ("sliding_windows", {"step": 0}, "step must be above 0"),
        ("sliding_windows", {"step": 1.5}, "part of a side"),
        ("sliding_windows", {"limit": 0}, "limit must be a whole number"),
        ("sliding_windows", {"ratios": ()}, "ratios"),
    ],
)
def test_wrong_methods_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_proposer(name, **options)


def test_without_opencv_it_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'opsin\[detect\]'"):
        create_proposer("selective_search_fast")


def _scene() -> tuple[Tensor, Tensor]:
    """Two flat rectangles on a flat ground: what any segmentation finds."""
    image = torch.full((3, 90, 120), 40, dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 15, 50, 60], [70, 30, 110, 80]])
    for box, colour in zip(boxes.long().tolist(), ((220, 30, 30), (30, 60, 230)), strict=True):
        x1, y1, x2, y2 = box
        image[:, y1:y2, x1:x2] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return image, boxes


@pytest.mark.parametrize("name", ["selective_search_fast", "selective_search_quality"])
def test_selective_search_finds_what_stands_out(name: str) -> None:
    pytest.importorskip("cv2.ximgproc")
    image, truth = _scene()
    search = create_proposer(name)
    found = search(image)
    recall = proposal_recall([Instances(truth)], [found], counts=(2000,), thresholds=(0.8,))
    assert recall.values.item() == 1.0
    assert torch.equal(search(image), found)  # OpenCV's own order is another at every call
    assert found.dtype == torch.float32
    assert len(found.unique(dim=0)) == len(found)
    assert len(create_proposer(name, limit=2)(image)) == 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 5), (1, 40, 60)])
def test_selective_search_takes_any_image(shape: tuple[int, ...]) -> None:
    pytest.importorskip("cv2.ximgproc")
    found = create_proposer("selective_search_fast")(torch.full(shape, 7, dtype=torch.uint8))
    assert found.tolist() == [[0, 0, shape[2], shape[1]]]  # nothing stands out: the whole


def test_a_shrunk_image_gives_boxes_of_the_whole_one() -> None:
    pytest.importorskip("cv2.ximgproc")
    image, truth = _scene()
    found = create_proposer("selective_search_fast", width=60)(image)
    assert found[:, 2].max() == pytest.approx(120)
    recall = proposal_recall([Instances(truth)], [found], counts=(2000,), thresholds=(0.7,))
    assert recall.values.item() == 1.0


# Cache


def test_proposals_are_made_once(counting: Counting) -> None:
    split = images(5)
    made = find_proposals(split, counting, say=quiet)
    assert counting.asked == 5
    again = find_proposals(split, counting, say=pytest.fail)
    assert counting.asked == 5
    for index, (one, two) in enumerate(zip(made, again, strict=True)):
        assert torch.equal(one, two)
        assert torch.equal(one, Counting()(split.read(index)))


def test_a_killed_call_keeps_what_it_had(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "_IMAGES", 2)
    split, whole = images(7), None
    original = Counting.__call__

    def dying(self: Counting, image: Tensor) -> Tensor:
        if torch.equal(image, split.read(5)):
            raise KeyboardInterrupt
        return original(self, image)

    monkeypatch.setattr(Counting, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        find_proposals(split, counting, workers=1, say=quiet)
    monkeypatch.setattr(Counting, "__call__", original)
    before = Counting()
    progress: list[tuple[int, int]] = []
    whole = find_proposals(split, before, say=quiet, progress=lambda *told: progress.append(told))
    assert before.asked == 3  # the last two parts: images 4, 5 and 6
    assert progress == [(6, 7), (7, 7)]
    assert all(torch.equal(one, Counting()(split.read(i))) for i, one in enumerate(whole))


def test_a_cut_file_is_made_again(counting: Counting, tmp_path: Path) -> None:
    split, folder = images(3), tmp_path / "cache"
    made = find_proposals(split, counting, folder=folder, say=quiet)
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    assert all(map(torch.equal, find_proposals(split, counting, folder=folder, say=quiet), made))


def test_a_cache_of_other_data_is_refused(counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    find_proposals(images(3), counting, folder=folder, say=quiet)
    with pytest.raises(InputError, match=r"cache are of other images .*remove the folder"):
        find_proposals(images(3, seed=1), counting, folder=folder, say=quiet)
    monkeypatch.setattr(proposals, "asdict", lambda proposer: {"limit": 8})
    with pytest.raises(InputError, match="of other settings"):
        find_proposals(images(3), counting, folder=folder, say=quiet)
    assert json.loads((folder / "about.json").read_text())["pictures"] == 3
    (folder / "about.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        find_proposals(images(3), counting, folder=folder, say=quiet)


def test_the_cache_is_where_it_is_said_to_be(counting: Counting, tmp_path: Path) -> None:
    folder = cache_folder(images(2), counting)
    assert folder.is_relative_to(tmp_path / "home") and not folder.exists()
    find_proposals(images(2), counting, say=quiet)
    assert (folder / "000000.safetensors").exists()
    assert cache_folder(images(2, seed=1), counting) != folder


# Recall


def test_recall_by_hand() -> None:
    truth = Instances(torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]), torch.tensor([0, 1, -1]))
    given = torch.tensor([[0.0, 0, 10, 5], [50, 50, 60, 60], [20, 20, 30, 28], [0, 0, 10, 10]])  # IoU 0.5, -, 0.8, 1
    recall = proposal_recall([truth], [given], counts=(1, 3, 4, 100), thresholds=(0.5, 0.7, 0.9))
    assert recall.objects == 2
    assert recall.values.tolist() == [[0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5], [1, 1, 0.5]]
    assert recall.average.tolist() == pytest.approx([1 / 6, 0.5, 5 / 6, 5 / 6])
    assert recall.to_dict()["recall"]["0.7"] == [0, 0.5, 1, 1]


def test_recall_of_nothing() -> None:
    objects = Instances(torch.tensor([[0.0, 0, 10, 10]]))
    assert proposal_recall([objects], [torch.zeros(0, 4)]).values.max() == 0
    assert proposal_recall([objects[:0]], [torch.rand(3, 4)]).values.isnan().all()


def test_recall_equals_a_plain_count() -> None:
    torch.manual_seed(0)

    def some(count: int) -> Tensor:
        corners = 40 * torch.rand(count, 2)
        return torch.cat([corners, corners + 4 + 30 * torch.rand(count, 2)], dim=1)

    truth, given = [Instances(some(n)) for n in (3, 0, 5)], [some(n) for n in (40, 4, 60)]
    recall = proposal_recall(truth, given, counts=(1, 10, 50), thresholds=(0.3, 0.5))
    for (row, count), (column, level) in itertools.product(enumerate((1, 10, 50)), enumerate((0.3, 0.5))):
        hits = 0
        for one, boxes in zip(truth, given, strict=True):
            for a in one.boxes.tolist():
                overlaps = []
                for b in boxes[:count].tolist():
                    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                    inter = max(w, 0) * max(h, 0)
                    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
                    overlaps.append(inter / (areas - inter))
                hits += max(overlaps) >= level
        assert recall.values[row, column].item() == pytest.approx(hits / 8)


def test_recall_is_drawn() -> None:
    recall = proposal_recall([Instances(torch.tensor([[0.0, 0, 10, 10]]))], [torch.tensor([[0.0, 0, 10, 8]])])
    figure = recall_figure({"sliding_windows": recall})
    assert b"sliding_windows" in figure.image
    assert figure.caption.startswith("Of 1 objects")


# The way through the loader


def preprocessing(**options: Any) -> Preprocessing:
    return Preprocessing(**{"size": (48, 32), "channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3, **options})


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("augment", [None, "light_boxes", [{"mosaic": {"p": 1.0}}], "ssd", [{"letterbox": {}}]])
def test_proposals_move_as_boxes_do(fit: str, augment: Any) -> None:
    """A proposal on every object, and a smaller one: wherever the object goes, there the proposal is."""
    split = images(6)
    given = [torch.cat([one.boxes, one.boxes + torch.tensor([0, 0, -2.0, -4])]) for one in split.kind.instances]
    sized = preprocessing(fit=fit)
    steps = create_detection_augmentation(augment, sized) if augment is not None else None
    split = split.with_truth(split.kind.with_proposals(given))
    loader = create_loader(split, sized, batch_size=3, training=augment is not None, augmentation=steps)
    seen = 0
    for batch in loader:
        assert len(batch["proposals"]) == len(batch["instances"]) == 3
        for objects, boxes in zip(batch["instances"], batch["proposals"], strict=True):
            assert (objects.labels == 1).all()  # type: ignore[union-attr]
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] <= torch.tensor([32.0, 48])).all()
            for box in objects.boxes:
                assert (boxes == box).all(dim=1).any()
                seen += 1
    assert seen >= 3


def test_proposals_change_nothing_else() -> None:
    split, sized = images(6), preprocessing()
    augment = create_detection_augmentation("ssd", sized)
    windows = [SlidingWindows(limit=30)(split.read(i)) for i in range(6)]
    common: dict[str, Any] = {"batch_size": 2, "training": True, "augmentation": augment, "seed": 3}
    with_proposals = split.with_truth(split.kind.with_proposals(windows))
    loaders = (create_loader(one, sized, **common) for one in (split, with_proposals))
    for plain, more in zip(*loaders, strict=True):
        assert torch.equal(plain["image"], more["image"])
        assert "proposals" not in plain
        for one, two in zip(plain["instances"], more["instances"], strict=True):
            assert torch.equal(one.boxes, two.boxes)


def test_workers_give_the_same_and_the_order_stays() -> None:
    split, sized = images(4, side=32), preprocessing(size=(64, 64))
    windows = [SlidingWindows(limit=30)(split.read(i)) for i in range(3)] + [torch.zeros(0, 4)]
    split = split.with_truth(split.kind.with_proposals(windows))
    alone, shared = (list(create_loader(split, sized, batch_size=2, workers=workers)) for workers in (0, 1))
    for one, two in zip(alone, shared, strict=True):
        assert all(map(torch.equal, one["proposals"], two["proposals"]))
    flat = [boxes for batch in alone for boxes in batch["proposals"]]
    for boxes, own in zip(flat, windows, strict=True):
        torch.testing.assert_close(boxes, 2 * own)


def test_as_many_proposals_as_images() -> None:
    with pytest.raises(InputError, match="proposals of 2 images, and the split has 3"):
        images(3).kind.with_proposals([torch.zeros(0, 4)] * 2)


@pytest.mark.real_data
def test_selective_search_fits_blood_cells_better_than_windows(data_dir: Path) -> None:
    pytest.importorskip("cv2.ximgproc")
    split = data.open(str(data_dir / "bccd"), "detect").splits["test"].subset([0, 1])
    recalls = []
    for proposer in (create_proposer("selective_search_fast", width=320), SlidingWindows()):
        found = [proposer(split.read(i)) for i in range(2)]
        recalls.append(proposal_recall(split.kind.instances, found, counts=(300,)).average.item())
    assert recalls[0] > 2 * recalls[1]  # over 24 images 0.266 against 0.084
