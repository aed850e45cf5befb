"""A segmenter in use: maps at the image's own size, whatever was done to make the network's input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faster_coco_eval.core.mask import decode, frPyObjects, merge
from PIL import Image
from scipy.ndimage import label

import opsin
from opsin.data import Preprocessing
from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.drawing import PALETTE
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.segment.components import ComponentCounter, count_components
from opsin.segment.drawing import colours_of
from opsin.segment.mirroring import answer_whole, fit_input, reflected
from opsin.segment.outlines import trace_outlines
from opsin.segment.predict import SegmentPredictor
from opsin.segment.resampling import lines_of, strips

from .conftest import RECIPE, TinyValid
from .tiny_blobs import draw


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_scores_come_back_to_the_images_pixels_as_torch_resizes_them(fit: Any) -> None:
    preprocessing = Preprocessing(size=(24, 32), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, fit=fit)
    scores = torch.rand(3, 24, 32)
    for size in ((48, 40), (10, 90), (24, 32), (7, 5)):
        found = torch.cat([part for _, part in strips(scores, *lines_of(size, preprocessing, (24, 32)))], dim=1)
        scale_x, scale_y, left, top = preprocessing.transform(*size)
        rows, columns = round(size[0] * scale_y), round(size[1] * scale_x)
        inner = scores[:, round(top) :, round(left) :][:, :rows, :columns]
        wanted = F.interpolate(inner[None], size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_what_a_centre_crop_leaves_out_is_unknown(run: Path) -> None:
    predictor = opsin.load(run)
    object.__setattr__(predictor.preprocessing, "fit", "crop")
    answer = predictor.predict(torch.zeros(3, 40, 80, dtype=torch.uint8))
    # 32 / 0.875 = 37 pixels high: 2 of 37 are cut off above and 3 below, of 40 rows; and sides of 20 columns and more.
    rows, columns = (answer.class_map != 255).any(axis=1), (answer.class_map != 255).any(axis=0)
    assert answer.class_map.shape == (40, 80)
    assert not columns[:20].any() and not columns[60:].any() and columns[24:56].all()
    assert rows[4:36].all() and not rows[0] and not rows[39]


def test_answers_learned_data(run: Path, segmenters: None, tmp_path: Path) -> None:
    images, maps = draw(4, seed=9)
    predictor = opsin.load(run)
    answers = predictor.predict([torch.from_numpy(image) for image in images], scores=True)
    for answer, truth in zip(answers, maps, strict=True):
        assert answer.class_map.dtype == np.uint8 and (answer.class_map == truth).mean() > 0.85
        assert answer.scores.shape == (3, 32, 32) and np.allclose(answer.scores.sum(axis=0), 1, atol=1e-5)
        assert (answer.scores.argmax(axis=0) == answer.class_map).all()
        assert answer.areas.tolist() == [int((answer.class_map == k).sum()) for k in range(3)]
        assert [one["pixels"] for one in answer["classes"]] == sorted(filter(None, answer.areas), reverse=True)
        assert (answer.mask("disc") == (answer.class_map == 1)).all()
        json.dumps(answer)
    with pytest.raises(InputError, match="scores=True"):
        _ = predictor.predict(torch.from_numpy(images[0])).scores
    assert (predictor.predict(torch.from_numpy(images[0]), threshold=1.0).class_map == 255).all()


def test_components_are_counted_as_scipy_counts_them() -> None:
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (9, 1), (20, 30), (300, 17)):
        for classes in (1, 2, 5):
            map_ = random.integers(0, classes + 1, shape).astype(np.uint8)
            map_[map_ == classes] = 255
            wanted = [label(map_ == k, np.ones((3, 3)))[1] for k in range(classes)]  # type: ignore[index]
            assert count_components(map_, classes).tolist() == wanted
            counter = ComponentCounter(classes)
            for start in range(0, len(map_), 3):
                counter.add(map_[start : start + 3])
            assert counter.counts().tolist() == wanted
    planes = random.random((3, 12, 12)) > 0.5
    assert count_components(planes, 3).tolist() == [label(p, np.ones((3, 3)))[1] for p in planes]  # type: ignore[index]


def draw_polygons(polygons: Any, size: Any) -> np.ndarray:
    parts: Any = frPyObjects(polygons, *size)
    return decode(merge(parts)).astype(bool)


def test_polygons_cover_exactly_the_mask() -> None:
    random = np.random.default_rng(1)
    ring = np.zeros((9, 9), bool)
    ring[1:8, 1:8], ring[3:6, 3:6] = True, False
    corner = np.eye(5, dtype=bool) | np.eye(5, dtype=bool)[::-1]
    for mask in (ring, corner, np.ones((1, 1), bool), *(random.random((14, 11)) > share for share in (0.2, 0.5, 0.8))):
        polygons = trace_outlines(mask)
        assert all(len(one) >= 8 for one in polygons)
        assert (draw_polygons(polygons, mask.shape) == mask).all()


def test_index_images_and_coco_files_say_the_same(run: Path, tmp_path: Path) -> None:
    images, _ = draw(2, seed=3)
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
    answers = opsin.load(run).predict([str(tmp_path / f"{n}.png") for n in range(2)])
    written = answers[0].save_index(tmp_path / "out" / "index.png")
    assert (np.array(Image.open(written)) == answers[0].class_map).all()
    assert Image.open(written).mode == "P"
    for form in ("runs", "polygons"):
        dataset = answers.to_coco(tmp_path / "coco.json", form=form)
        assert json.loads((tmp_path / "coco.json").read_text()) == dataset
        for one in dataset["annotations"]:
            outline = one["segmentation"]
            drawn = draw_polygons(outline, (32, 32)) if form == "polygons" else decode(outline).astype(bool)
            map_ = answers[one["image_id"] - 1].class_map
            assert (drawn == (map_ == one["category_id"] - 1)).all()
            assert one["area"] == (map_ == one["category_id"] - 1).sum()
    table = answers.to_csv()
    assert table.startswith("path,label,class_id,pixels,share,components\n") and len(table.splitlines()) > 3


def test_every_class_has_a_colour_of_its_own() -> None:
    for count in (3, 19, 300):
        colours = colours_of({}, count)
        assert len(set(colours)) == count and colours[:3] == list(PALETTE[:3])
    assert colours_of({"colours": [[1, 2, 3], [4, 5, 6]]}, 2) == [(1, 2, 3), (4, 5, 6)]


def test_borders_are_mirrored_for_a_network_without_padding() -> None:
    torch.manual_seed(0)
    model, images = TinyValid().eval().double(), torch.rand(2, 3, 21, 30, dtype=torch.float64)
    fitted = fit_input(model, (21, 30))
    assert fitted.input == (30, 38) and fitted.margin == (4, 4) and fitted.output == (22, 30)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 5), (4, 4)), mode="reflect")
    with torch.no_grad():
        wanted = model(torch.from_numpy(padded))["logits"][..., :21, :30]
        assert torch.equal(answer_whole(model, images)["logits"], wanted)
    assert reflected(-5, 12, 2).tolist() == np.pad(np.arange(2), 5, mode="reflect").tolist()
    assert reflected(-3, 7, 1).tolist() == [0] * 7


def test_views_are_averaged(run: Path) -> None:
    """Flip and scales, against the mean of single predictions of images that were changed by hand."""
    predictor, image = opsin.load(run), torch.from_numpy(draw(1, seed=8)[0][0])

    def single(images: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.from_numpy(predictor.predict(images, scores=True, **options).scores)

    flipped = (single(image) + single(image.flip(-1)).flip(-1)) / 2
    torch.testing.assert_close(single(image, flip=True), flipped)
    with torch.no_grad():
        normal = predictor.normalize(image[None])
        large = F.interpolate(normal, (48, 48), mode="bilinear", antialias=True)
        scores = predictor.model.decode(predictor.model(large))
    enlarged = F.interpolate(scores, (32, 32), mode="bilinear")[0]
    torch.testing.assert_close(single(image, scale=[1.5]), enlarged)
    torch.testing.assert_close(single(image, scale=[1.0, 1.5]), (single(image) + enlarged) / 2)
    forwards: list[torch.Size] = []
    hook = predictor.model.register_forward_pre_hook(lambda _, given: forwards.append(given[0].shape))
    predictor.predict(image, flip=True, scale=[1.0, 1.5])
    hook.remove()
    assert sorted(shape[-1] for shape in forwards) == [32, 32, 48, 48]  # no view twice
    with pytest.raises(InputError, match="scale is 0"):
        predictor.predict(image, scale=[0.0])
    with pytest.raises(InputError, match="held at no output stride"):
        predictor.predict(image, output_stride=8)


def test_a_network_is_held_at_another_stride_in_use() -> None:
    """Trained at 16, looked at at 8: the outputs are those of a network that is built at 8 with the same weights."""
    torch.manual_seed(0)
    options = {"num_classes": 3, "backbone": "resnet18", "aux_heads": False}
    model: Any = opsin.create_model("deeplabv3", output_stride=16, **options).eval()
    other: Any = opsin.create_model("deeplabv3", output_stride=8, **options).eval()
    other.load_state_dict(model.state_dict())
    recipe = load_recipe({**RECIPE, "model": {"name": "deeplabv3"}})
    preprocessing = Preprocessing(size=(64, 64), channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    predictor = SegmentPredictor(model, Facts(recipe, preprocessing, {"classes": ["a", "b", "c"]}))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    at_16 = predictor.predict(image, scores=True).scores
    at_8 = predictor.predict(image, scores=True, output_stride=8).scores
    with torch.no_grad():
        wanted = other.decode(other(predictor.normalize(image[None])))[0].numpy()
    assert np.abs(at_8 - wanted).max() < 1e-6 < 1e-3 < np.abs(at_16 - wanted).max()
    assert np.array_equal(predictor.predict(image, scores=True).scores, at_16)


def test_many_classes_have_the_colours_of_the_data_check() -> None:
    names = [f"class {k}" for k in range(30)]
    truth = ClassMaps(MapArray(np.zeros((1, 2, 2), np.uint8), "map", 30), names)
    assert colours_of({}, 30) == truth.palette()
    assert len(set(truth.palette())) == 30
