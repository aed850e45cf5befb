"""Maps of large images from tiles: exact where the network allows it, blended elsewhere, and never held as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import registry
from opsin.analyze.effective_field import effective_fields
from opsin.data import Preprocessing
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError
from opsin.segment.components import count_components
from opsin.segment.mirroring import answer_whole
from opsin.segment.predict import SegmentPredictor
from opsin.segment.reach import choose_dense_tiling, find_reach
from opsin.segment.tiling import DenseTiles, DenseTiling, Seams, grid_of

from .conftest import RECIPE, TinySegmenter, TinyValid
from .tiny_blobs import CLASSES, draw

PREPROCESSING = Preprocessing(size=(32, 32), channels=3, mean=(0.4,) * 3, std=(0.2,) * 3)


def predictor_of(model: Any, preprocessing: Preprocessing = PREPROCESSING, **facts: Any) -> SegmentPredictor:
    recipe = load_recipe({**RECIPE, "model": {"name": "tiny_segmenter"}})
    return SegmentPredictor(model.eval(), Facts(recipe, preprocessing, {"classes": list(CLASSES)}, **facts))


def image_of(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def tiled(predictor: SegmentPredictor, image: torch.Tensor, tiling: DenseTiling, at_once: int = 3) -> Any:
    seams = Seams()
    with torch.no_grad():
        strips = list(DenseTiles(tiling, at_once).stream(predictor, image, seams))
    assert [start for start, _ in strips] == np.cumsum([0, *(len(s[0]) for _, s in strips)])[:-1].tolist()
    return torch.cat([strip for _, strip in strips], dim=1), seams


@pytest.mark.parametrize("size", [(150, 97), (33, 200), (64, 64), (20, 21)])
@pytest.mark.parametrize("side", [(40, 56), (24, 24), (88, 40)])
def test_a_network_without_padding_has_no_seams(segmenters: None, size: Any, side: Any) -> None:
    torch.manual_seed(0)
    predictor = predictor_of(TinyValid().double())
    tiling, _ = choose_dense_tiling(max(side), {}, PREPROCESSING, predictor.model, "tiny_valid")
    assert tiling.grid == 16 and tiling.overlap == (0, 0)
    tiling = DenseTiling(side, (0, 0), grid=16)
    image = image_of(*size)
    found, seams = tiled(predictor, image, tiling)
    with torch.no_grad():
        whole = answer_whole(predictor.model, predictor.normalize(image[None]))
        wanted = predictor.model.decode(whole)[0]
    assert found.dtype == torch.float64 and float((found - wanted).abs().max()) < 1e-10
    assert all(place.top % 16 == 0 and place.left % 16 == 0 for place in tiling.places(size))
    assert seams.largest is None or seams.largest < 1e-10


@pytest.mark.parametrize(("size", "side"), [((101, 83), (36, 52)), ((40, 1), (20, 20)), ((70, 75), (68, 36))])
def test_tiles_of_the_paper_s_u_net_are_the_whole(segmenters: None, size: Any, side: Any) -> None:
    torch.manual_seed(0)
    predictor = predictor_of(registry.create_model("unet_valid", in_channels=3, num_classes=3, width=2).double())
    assert grid_of(predictor.model) == 16
    image = image_of(*size)
    found, seams = tiled(predictor, image, DenseTiling(side, (0, 0), grid=16))
    with torch.no_grad():
        whole = answer_whole(predictor.model, predictor.normalize(image[None]))
        wanted = predictor.model.decode(whole)[0]
    assert wanted.std() > 1e-6 and seams.tiles > 1
    assert float((found - wanted).abs().max()) < 1e-10


def test_wide_overlaps_make_padded_networks_exact_inside(segmenters: None) -> None:
    """Where the overlap is twice the receptive field, a seam is between pixels that both tiles know exactly."""
    torch.manual_seed(0)
    model = TinySegmenter().double()
    with torch.no_grad():
        model.body[0].bias.fill_(1.0)  # type: ignore[union-attr, operator]
    predictor, image = predictor_of(model), image_of(160, 224)
    with torch.no_grad():
        wanted = model.decode(model(predictor.normalize(image[None])))[0]
    exact, exact_seams = tiled(predictor, image, DenseTiling((96, 96), (32, 32), grid=16))
    _, rough_seams = tiled(predictor, image, DenseTiling((48, 48), (2, 2), grid=2))
    assert exact_seams.largest < 1e-12 < 1e-4 < rough_seams.largest
    assert float((exact - wanted).abs().max()) < 0.1 and float((exact - wanted).abs().mean()) < 1e-3
    middle = slice(20, 60)  # of the first tile, where no other reaches
    assert float((exact - wanted)[:, middle, middle].abs().max()) < 1e-12
    assert torch.allclose(exact.sum(dim=0), torch.ones(160, 224, dtype=torch.float64))


def test_a_batch_of_tiles_is_the_tiles_by_themselves(segmenters: None) -> None:
    torch.manual_seed(0)
    predictor, image, tiling = (
        predictor_of(TinySegmenter()),
        image_of(100, 150),
        DenseTiling((64, 48), (16, 16), grid=16),
    )
    one, seams = tiled(predictor, image, tiling, 1)
    several, others = tiled(predictor, image, tiling, 7)
    assert float((one - several).abs().max()) < 1e-6 and seams.tiles == others.tiles == len(tiling.places((100, 150)))


def test_images_are_looked_at_as_large_as_those_of_the_training(segmenters: None) -> None:
    """A model that saw images at half their size sees large ones so too; what comes back is what torch enlarges."""
    torch.manual_seed(0)
    quantiles = [[10.0, 10.0]] * 5
    objects = {"count": 9, "scale": [0.5, 0.5], "image": quantiles, "input": [[5.0, 5.0]] * 5}
    predictor, image = predictor_of(TinySegmenter(), objects=objects), image_of(300, 200)
    tiling = predictor.tiles("auto").tiling  # type: ignore[union-attr]
    assert isinstance(tiling, DenseTiling) and tiling.scale == (0.5, 0.5) and tiling.scaled((300, 200)) == (150, 100)
    large = DenseTiling((512, 512), (32, 32), scale=(0.5, 0.5))
    found, _ = tiled(predictor, image, large)
    half = predictor.preprocessing.resize(image, 150, 100)
    with torch.no_grad():
        scores = predictor.model.decode(answer_whole(predictor.model, predictor.normalize(half[None])))
    wanted = torch.nn.functional.interpolate(scores, (300, 200), mode="bilinear")[0]
    assert float((found - wanted).abs().max()) < 1e-5


def test_the_overlap_is_that_of_the_field_that_explain_measures(segmenters: None) -> None:
    torch.manual_seed(0)
    model = TinySegmenter().eval()
    reach = find_reach(model, (32, 32))
    assert reach is not None and 2 <= max(reach) <= 7  # 3 + 2 * 2 + 4 * 2 + interpolation: 13 pixels in theory
    field = effective_fields(model, torch.randn(4, 3, 32, 32), ["head"])[0]
    x1, _, x2, _ = field.box(0.99)
    assert abs((x2 - x1) - 2 * max(reach)) <= 4
    assert find_reach(TinyValid(), (32, 32)) is not None
    tiling, at_once = choose_dense_tiling(256, {}, PREPROCESSING, model, "tiny")
    assert tiling.size == (256, 256) and tiling.overlap == (32, 32) and at_once >= 1
    assert "effective receptive field reaches" in tiling.describe() and not tiling.to_dict()["whole"]
    with pytest.raises(InputError, match="tile=32"):
        choose_dense_tiling("auto", {}, PREPROCESSING, model, "tiny")
    assert grid_of(model) == 32 and grid_of(TinyValid()) == 16


def test_answers_of_tiles_on_a_trained_network(run: Path, segmenters: None) -> None:
    images, maps = draw(1, 160, seed=4)
    predictor, image = opsin.load(run), torch.from_numpy(images[0])
    answer = predictor.predict(image, tile=64, scores=True)
    assert answer.class_map.shape == (160, 160) and (answer.class_map == maps[0]).mean() > 0.9
    assert (answer.scores.argmax(axis=0) == answer.class_map).all()
    assert answer["tiles"] == 16 and 0 <= answer["seams"] < 1
    counted = np.bincount(answer.class_map.ravel(), minlength=3)
    assert answer.areas.tolist() == counted.tolist()
    assert answer.components.tolist() == count_components(answer.class_map, 3).tolist()
    assert "seams" in predictor.describe(answer)
    assert (predictor.predict(image, tile=64).class_map == answer.class_map).all()
    small = predictor.predict(image[:, :32, :32], tile=64)
    assert "tiles" not in small and small == predictor.predict(image[:, :32, :32])
