"""The truth of every pixel: what is counted, divided, matched, drawn and loaded, on maps worked by hand."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data import Preprocessing, contact_sheet
from opsin.data.class_maps import ClassMaps, MapArray, as_labels
from opsin.data.drawing import distinct_colours, lay_over
from opsin.data.inputs import ImageArray
from opsin.data.loading import create_loader
from opsin.data.source import Source, Split
from opsin.data.transforms.class_map import ClassMap
from opsin.errors import InputError

U = 255
MAPS = np.array(
    [
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, U]],
        [[0, 0, 0, 0], [0, 2, 2, 0], [0, 2, 0, 2]],
        [[U, U, U, U], [U, U, U, U], [U, U, U, U]],
    ],
    np.uint8,
)
CLASSES = ["ground", "tree", "car"]


def truth(maps: np.ndarray = MAPS, **given: object) -> ClassMaps:
    return ClassMaps(MapArray(maps, "map", len(CLASSES)), CLASSES, **given)  # type: ignore[arg-type]


def source(maps: np.ndarray = MAPS) -> Source:
    images = torch.full((len(maps), 3, 3, 4), 100, dtype=torch.uint8)
    return Source("made", "made", {"all": Split(ImageArray(images, "made"), truth(maps))}, task="segment")


def test_counts() -> None:
    found = truth()
    assert found.counts.tolist() == [[7, 4, 0, 1], [8, 0, 4, 0], [0, 0, 0, 12]]
    assert found.presence.tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert found.strata().tolist() == [1, 2, -1]  # of an image its rarest class
    assert found.members("ground").tolist() == [0, 1]
    assert found.shown(1) == [0, 2]
    chosen = found.select(np.array([2, 1]))
    assert chosen.counts.tolist() == [[0, 0, 0, 12], [8, 0, 4, 0]]
    assert pickle.loads(pickle.dumps(chosen)).counts.tolist() == chosen.counts.tolist()


def test_each_map_is_counted_once() -> None:
    class Once(MapArray):
        reads = 0

        def read(self, i: int, size: tuple[int, int] | None) -> np.ndarray:
            Once.reads += 1
            return super().read(i, size)

    found = ClassMaps(Once(MAPS, "map", 3), CLASSES)
    for one in (found, found.select(np.array([1, 0])), found.relabel([0, 0, 1], ["a", "b"])):
        assert one.counts.sum() and one.summary() and one.strata() is not None and one.digest(0)
    assert Once.reads == 3


def test_summary_has_shares_and_what_occurs_together() -> None:
    summary = truth().summary()
    facts = summary.facts([])
    assert summary.counts == {"ground": 2, "tree": 1, "car": 1}
    assert summary.weighed == {"ground": 15, "tree": 4, "car": 4}
    assert facts["unlabelled"] == 13 / 36 and facts["images_without"] == 1
    assert facts["shares"] == {"ground": pytest.approx(15 / 23, abs=1e-6), "tree": 0.173913, "car": 0.173913}
    assert facts["together"]["ground"] == {"tree": 0.5, "car": 0.5}
    assert facts["together"]["tree"] == {"ground": 1.0, "car": 0.0}
    both = summary.facts([summary])
    assert both["shares"] == facts["shares"] and both["images_without"] == 2
    text = "\n".join(summary.lines(facts))
    assert "pixels: 36.11 % unlabelled" in text and "never with car" in text
    assert json.loads(json.dumps(data.inspect(source(), "segment").to_dict()))["maps"] == facts


def test_a_model_knows_other_numbers() -> None:
    found = truth().match({"classes": ["car", "ground", "road", "tree"], "colours": [[k, k, k] for k in range(4)]})
    assert np.array_equal(found.maps.read(1, None), [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0]])
    assert found.counts.tolist()[:2] == [[0, 7, 0, 4, 1], [4, 8, 0, 0, 0]]
    assert found.select(np.array([1])).counts.tolist() == [[4, 8, 0, 0, 0]]
    assert found.colours == [(k, k, k) for k in range(4)]
    with pytest.raises(InputError, match="does not know the classes car"):
        truth().match({"classes": ["ground", "tree"]})
    with pytest.raises(InputError, match="the classes of the model may overlap, those of the data do not"):
        truth().match({"classes": CLASSES, "overlapping": True})


def test_many_classes_take_more_bits() -> None:
    names = [f"c{k}" for k in range(300)]
    found = truth().match({"classes": [*names, *CLASSES]})
    assert found.maps.read(0, None).dtype == np.int16
    assert found.maps.read(0, None).tolist()[2] == [300, 300, 300, -1]


def test_boxes_around_connected_parts() -> None:
    boxes = truth().extents(1)
    assert boxes is not None
    assert [0.0, 0.0, 4.0, 3.0] in boxes.tolist()  # the ground
    assert [1.0, 1.0, 3.0, 3.0] in boxes.tolist() and [3.0, 2.0, 4.0, 3.0] in boxes.tolist()
    two = ClassMaps(MapArray((MAPS[:2] == 2).astype(np.uint8), "map", 2), ["no", "yes"])
    extents = two.extents(1)
    assert extents is not None and len(extents) == 2  # of the second class alone


def test_samples_and_batches() -> None:
    preprocessing = Preprocessing(size=(3, 4), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    sample = truth().read(0, (3, 4))
    assert isinstance(sample["class_map"], ClassMap)
    batch = next(iter(create_loader(source().splits["all"], preprocessing, batch_size=3)))
    assert np.array_equal(batch["class_map"], MAPS)
    labels = as_labels(batch["class_map"])
    assert labels.dtype == torch.int64 and set(labels.unique().tolist()) == {-1, 0, 1, 2}
    with pytest.raises(
        InputError, match=r"map\[0\]: it is 4x3 pixels .width x height., the image 3x4; was the image turned"
    ):
        truth().read(0, (4, 3))


def test_twins_with_other_maps_are_in_conflict() -> None:
    problems = data.inspect(source(), "segment").problems
    assert {one.kind for one in problems if one.severity == "error"} == {"conflicting_labels"}
    assert "with another mask" in next(one.reason for one in problems if one.kind == "conflicting_labels")


def test_maps_are_laid_over_images(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6), (100, 100, 100))  # twice the map
    drawn = np.asarray(lay_over(image, torch.from_numpy(MAPS[0]), [(0, 0, 0), (200, 0, 50), (1, 1, 1)], plain=[0]))
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 7].tolist() == [150, 50, 75]
    assert drawn[5, 7].tolist() == [125, 125, 125]  # unknown is grey
    layers = torch.from_numpy(np.stack([MAPS[0] == 0, MAPS[0] == 1, MAPS[0] == 0]))
    drawn = np.asarray(lay_over(image, layers, [(0, 0, 0), (200, 0, 50), (200, 200, 200)]))
    assert drawn[0, 0].tolist() == [100, 100, 100] and drawn[5, 7].tolist() == [100, 100, 100]
    sheet = Image.open(contact_sheet(source(), tmp_path / "sheet.png"))
    colours = {tuple(pixel) for pixel in np.asarray(sheet.convert("RGB")).reshape(-1, 3).tolist()}
    assert set(truth().palette()) <= colours  # each class's beside its row
    assert len(set(distinct_colours(300))) == 300
