"""What every registered recognizer must keep, whatever its family."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.read.recognizer import Outputs, Recognizer

NAMES = [name for name in registry.list_models(task="read") if registry.find_model(name).facts is not None]
# Each structure that there is, small.
SMALL: dict[str, dict[str, Any]] = {
    "crnn": {"width": 4, "hidden": 8},
    "crnn_stacked": {"width": 4, "hidden": 8, "blank": "last"},
    "trba": {"width": 4, "hidden": 8, "max_length": 6},
}
CLASSES, CHANNELS, SIZE = 6, 2, (32, 64)


def build_on_meta(name: str, **options: Any) -> Recognizer:
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    assert isinstance(model, Recognizer)
    return model.eval()


def build_small(name: str) -> Recognizer:
    torch.manual_seed(0)
    model = registry.create_model(name, num_classes=CLASSES, in_channels=CHANNELS, **SMALL[name])
    assert isinstance(model, Recognizer)
    for parameter in model.parameters():  # the points of a spline start at zero, which stops gradients
        if not parameter.any():
            nn.init.normal_(parameter, std=0.01)
    return model


@functools.cache
def small(name: str) -> Recognizer:
    return build_small(name).eval()


def make_images(batch: int = 2) -> Tensor:
    return torch.randn(batch, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(1))


@functools.cache
def outputs_of(name: str) -> Outputs:
    with torch.no_grad():
        return small(name)(make_images())


def targets() -> dict[str, Tensor]:
    return {"labels": torch.tensor([[0, 3, 1], [2, -1, -1]]), "lengths": torch.tensor([3, 1])}


def test_every_network_has_a_small_one() -> None:
    assert set(SMALL) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_published_facts_and_options(name: str) -> None:
    entry = registry.find_model(name)
    published, model = entry.published, build_on_meta(name)
    assert type(model) is entry.network and count_parameters(model) == published.params
    if published.macs is not None:
        assert count_macs(model, published.input) == pytest.approx(published.macs, rel=0.005)
    assert published.paper and published.idea and published.source
    assert all(option.default is not option.empty for option in entry.options.values())
    assert {"num_classes", "in_channels"} <= entry.options.keys()
    assert model.characters == model.num_classes - model.specials
    for option in ("num_classes", "in_channels"):
        with pytest.raises(InputError, match=f"{option} must be"):
            build_on_meta(name, **{option: 0})
    with pytest.raises(InputError, match="did you mean num_classes"):
        build_on_meta(name, num_clases=7)


@pytest.mark.parametrize("name", SMALL)
def test_probabilities_and_readings(name: str) -> None:
    model, outputs = small(name), outputs_of(name)
    probabilities = model.probabilities(outputs)
    assert probabilities.shape[0] == 2 and probabilities.shape[2] == CLASSES
    assert model.steps(SIZE) in (probabilities.shape[1], probabilities.shape[1] - 1)
    torch.testing.assert_close(probabilities.sum(dim=2), torch.ones(probabilities.shape[:2]))
    for reading in model.decode(outputs):
        assert len(reading.labels) == len(reading.scores) == len(reading.steps) <= model.steps(SIZE) + 1
        assert all(0 <= label < model.characters for label in reading.labels)


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_reaches_every_parameter(name: str) -> None:
    model = copy.deepcopy(small(name))
    losses = model.loss(model(make_images()), targets())
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    for one in (1, 2):  # images by themselves or together, and a batch of one is trained on
        assert all(v.isfinite() for v in model.train().loss(model(make_images(one)), _first(one)).values())


def _first(count: int) -> dict[str, Tensor]:
    return {name: value[:count] for name, value in targets().items()}


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_of_each_image_is_that_of_the_image_alone(name: str) -> None:
    model, outputs = small(name), outputs_of(name)
    with torch.no_grad():
        together = model.loss_of_each(outputs, targets())
        for k, length in enumerate(targets()["lengths"].tolist()):
            own = {"labels": targets()["labels"][k : k + 1, :length], "lengths": torch.tensor([length])}
            alone = model.loss({key: value[k : k + 1] for key, value in outputs.items()}, own)
            torch.testing.assert_close(together[k], torch.stack(list(alone.values())).sum())


@pytest.mark.parametrize("name", SMALL)
def test_reading_is_decoding_beside_the_probabilities(name: str) -> None:
    model, outputs = small(name), outputs_of(name)
    with torch.no_grad():
        readings, probabilities = model.read(outputs)
        assert readings == model.decode(outputs)
        torch.testing.assert_close(probabilities, model.probabilities(outputs), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_pure(name: str) -> None:
    model, images = copy.deepcopy(small(name)), make_images()
    model.train()
    for layer in model.modules():  # layers may differ in training, as batch norm does; networks may not
        layer.training = any(True for _ in layer.children()) or isinstance(layer, nn.RNNBase)
    with torch.no_grad():
        for outputs, place in ((model(images), slice(None)), (small(name)(images[1:]), slice(1, 2))):
            for key, value in outputs.items():
                torch.testing.assert_close(value, outputs_of(name)[key][place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_new_head_and_the_rows_of_characters(name: str) -> None:
    model = build_small(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = model.class_rows()  # type: ignore[attr-defined]
    assert rows
    for key, layout in rows.items():
        assert len(before[key]) == layout.before + model.characters + layout.after
    held = {id(p) for part in model.learned_parts() for p in part.parameters()}  # type: ignore[attr-defined]
    assert held and not held & {id(model.get_parameter(key)) for key in rows}
    model.reset_head(9)
    assert list(model.state_dict()) == list(before) and model.num_classes == 9
    with torch.no_grad():
        assert model.probabilities(model(make_images())).shape[2] == 9
    with pytest.raises(InputError, match="num_classes must be"):
        model.reset_head(0)


@pytest.mark.parametrize("name", SMALL)
def test_wrong_images_are_refused(name: str) -> None:
    model, images = small(name), make_images()
    with pytest.raises(InputError, match=f"in_channels={CHANNELS + 1}"):
        model(torch.cat([images, images[:, :1]], dim=1))
    with pytest.raises(InputError, match=r"\(B, C, H, W\)"):
        model(images[0])
    with pytest.raises(InputError, match="uint8"):
        model(images.byte())
    with pytest.raises(InputError, match="1x1"):
        model(images[..., :1, :1])


class Program(nn.Module):
    """What an exported file holds."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.probabilities(self.model(images))


@pytest.mark.parametrize("name", ["crnn", "trba"])
def test_exports_with_any_batch(name: str) -> None:
    images = make_images(3)
    program = torch.export.export(
        Program(small(name)), (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},)
    )
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), Program(small(name))(images), rtol=1e-4, atol=1e-5)
