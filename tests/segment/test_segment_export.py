"""Segmenters in other runtimes: of any height and width, with the answers of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import data
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.export import export
from opsin.engine.program import FreeSides
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

from .conftest import RECIPE

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "unet": ({"width": 4}, (32, 48)),
    "unet_valid": ({"width": 4}, (204, 220)),
    "deeplabv3plus": ({"backbone": "resnet18"}, (64, 64)),
}


def save(folder: Path, name: str) -> Path:
    options, size = NETWORKS[name]
    torch.manual_seed(0)
    recipe = load_recipe({**RECIPE, "model": {"name": name, **options}})
    model: Any = opsin.create_model(name, num_classes=3, in_channels=3, **options)
    for parameter in model.parameters():  # layers that start at zero say the same everywhere
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    preprocessing = data.Preprocessing(size=size, channels=3, mean=(0.4,) * 3, std=(0.2,) * 3)
    facts = Facts(recipe, preprocessing, {"classes": ["a", "b", "c"]}, {"num_classes": 3, "in_channels": 3})
    folder.mkdir()
    save_model(folder / "model.safetensors", model.eval(), facts, {})
    return folder


@pytest.mark.parametrize("name", ["unet_valid", *(["deeplabv3plus"] if "OPSIN_SOAK" in os.environ else [])])
def test_files_take_images_of_any_size(segmenters: None, name: str, tmp_path: Path) -> None:
    run = save(tmp_path / "run", name)
    written = export(run, "onnx")
    assert written.free and written.to_dict()["free_sides"] and "other heights and widths" in written.describe()
    predictor, file = opsin.load(run, "cpu"), opsin.load(written.path)
    image = torch.randint(0, 256, (3, 90, 131), dtype=torch.uint8)
    one, other = (each.predict(image, scores=True) for each in (predictor, file))
    assert np.abs(one.scores - other.scores).max() < 1e-4 and one.keys() == other.keys()
    one, other = (each.predict(image, scores=True, tile=64) for each in (predictor, file))
    assert one["tiles"] > 1 and other["tiles"] > 1
    if name == "unet_valid":  # the only one whose tiles do not depend on a receptive field, which files do not say
        assert np.abs(one.scores - other.scores).max() < 1e-4
    sides = json.loads(_metadata(written.path)["sides"])
    assert sides["step"] == (16 if name == "unet_valid" else 1) and "probabilities" in _metadata(written.path)["usage"]


def _metadata(path: Path) -> dict[str, str]:
    import onnxruntime

    return dict(onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map)


def test_openvino_and_torch_take_them_too(segmenters: None, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    run = save(tmp_path / "run", "unet")
    image = torch.randint(0, 256, (3, 70, 101), dtype=torch.uint8)
    wanted = opsin.load(run, "cpu").predict(image, scores=True).scores
    file = opsin.load(export(run, "openvino").path)
    assert np.abs(file.predict(image, scores=True).scores - wanted).max() < 1e-3
    program = torch.export.load(export(run, "torch").path).module()
    found = program(image[None, :, :64, :96])["probabilities"]
    assert found.shape == (1, 3, 64, 96)


def test_free_sides_count_on_from_a_side() -> None:
    assert [FreeSides(188, 16, 12).after(side) for side in (1, 187, 188, 572)] == [188, 188, 204, 588]
    assert [FreeSides(1, 1, 0).after(side) for side in (0, 7)] == [1, 8]


def test_optimized_networks_give_the_same(segmenters: None) -> None:
    torch.manual_seed(0)
    model: Any = opsin.create_model("deeplabv3", num_classes=3, backbone="resnet18", aux_heads=True).eval()
    images = torch.randn(1, 3, 64, 64)
    faster = opsin.optimize(model, (3, 64, 64), compile=False)
    with torch.no_grad():
        torch.testing.assert_close(faster(images)["logits"], model(images)["logits"], atol=1e-4, rtol=1e-4)
    assert "auxiliary heads dropped" in faster.steps


def test_a_file_with_a_damaged_description_is_refused(segmenters: None, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = export(save(tmp_path / "run", "unet"), "onnx").path
    model = onnx.load(str(path))
    for one in model.metadata_props:
        if one.key == "sides":
            one.value = '{"least": 1, "step": 0, "margin": 0}'
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    with pytest.raises(InputError, match="damaged description"):
        opsin.load(tmp_path / "wrong.onnx")
