"""What every registered embedder must keep, whatever its family."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin import registry
from opsin.embed.embedder import Embedder
from opsin.errors import InputError
from opsin.nn.counting import count_parameters

NAMES = registry.list_models(task="embed")
PUBLISHED = [name for name in NAMES if registry.find_model(name).facts is not None]
SMALL: dict[str, dict[str, Any]] = {
    "backbone_embedder": {"backbone": "resnet20", "features": 6},
    "conv4": {"width": 8},
    "deep_sort": {"num_classes": 3},
    "facenet_nn4_small2": {"features": 6},
    "lenets_plus_plus": {"num_classes": 3},
    "siamese_contrastive": {},
    "siamese_koch": {"hidden_features": 8},
    "triplet_network": {},
}
LABELS = torch.tensor([0, 0, 1, 1])


@functools.cache
def small(name: str) -> Embedder:
    torch.manual_seed(0)
    model = registry.create_model(name, in_channels=2, **SMALL[name])
    assert isinstance(model, Embedder)
    return model.eval()


def make_images(model: Embedder, batch: int = 4) -> Tensor:
    side = model.fixed_size or 64
    size = model.shape or (side, side)
    return torch.randn(batch, model.in_channels, *size, generator=torch.Generator().manual_seed(1))


@functools.cache
def embeddings_of(name: str) -> Tensor:
    with torch.no_grad():
        return small(name).decode(small(name)(make_images(small(name))))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    with torch.device("meta"):
        model = registry.create_model(name)
    assert count_parameters(model) == registry.find_model(name).published.params


@pytest.mark.parametrize("name", SMALL)
class TestEverySmallEmbedder:
    def test_embeddings_are_numbers_for_each_image(self, name: str) -> None:
        model, found = small(name), embeddings_of(name)
        assert found.shape == (4, model.features)
        assert found.isfinite().all()
        if model.normalized:
            torch.testing.assert_close(found.norm(dim=1), torch.ones(4))

    def test_an_image_alone_is_where_it_is_in_a_batch(self, name: str) -> None:
        model = small(name)
        with torch.no_grad():
            alone = torch.cat([model.decode(model(image[None])) for image in make_images(model)])
        torch.testing.assert_close(alone, embeddings_of(name), atol=1e-5, rtol=1e-4)

    def test_every_parameter_learns(self, name: str) -> None:
        model = copy.deepcopy(small(name)).train()
        losses = model.loss(model(make_images(model)), LABELS)
        torch.stack(list(losses.values())).sum().backward()
        still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert still == []

    def test_distances_of_all_are_those_of_pairs(self, name: str) -> None:
        model, found = small(name), embeddings_of(name)
        with torch.no_grad():
            table = model.distances(found, found[:3])
            pairs = model.pair_distances(found[:3], found[:3].flip(0))
        assert table.shape == (4, 3)
        torch.testing.assert_close(pairs, torch.stack([table[k, 2 - k] for k in range(3)]), atol=1e-5, rtol=1e-4)
        if name != "siamese_koch":  # whose weights may be below 0
            assert (table[:3].diagonal() <= table[:3].min(dim=1).values + 1e-4).all(), "nobody is nearer than oneself"

    def test_other_images_are_refused_in_words(self, name: str) -> None:
        model = small(name)
        with pytest.raises(InputError, match="channels"):
            model(torch.zeros(1, 3, *make_images(model).shape[2:]))
        if model.fixed_size or model.shape:
            with pytest.raises(InputError, match="only"):
                model(torch.zeros(1, 2, 40, 50))


@pytest.mark.parametrize("name", ["deep_sort", "lenets_plus_plus"])
def test_it_is_exported_as_it_is(name: str) -> None:
    model = small(name)
    images = make_images(model, 2)
    program = torch.export.export(model, (images,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images)["embedding"], model(images)["embedding"])
