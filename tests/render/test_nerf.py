"""NeRF against a plain version of its paper; what is skipped, against what is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opsin import registry
from opsin.nn.counting import count_parameters
from opsin.render.active_gradient import ask
from opsin.render.nerf import NeRF
from opsin.render.radiance_mlp import RadianceMLP

from .plain_nerf import render


def make(**options: object) -> NeRF:
    torch.manual_seed(0)
    sizes = {"depth": 6, "width": 16, "coarse_samples": 12, "fine_samples": 16, **options}
    return NeRF(**sizes).double()  # type: ignore[arg-type]


def some_rays(count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    origins = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    along = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    depths = torch.tensor([1.0, 3.5], dtype=torch.float64).expand(count, 2)
    return torch.cat([origins, along, depths], dim=1)


def draws_of(model: NeRF, count: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {name: value.double() for name, value in model.draw(count).items()}


def test_the_counts_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model: NeRF = registry.create_model("nerf")  # type: ignore[assignment]
    assert model.fine is not None
    assert count_parameters(model.coarse) == count_parameters(model.fine) == 595_844
    assert count_parameters(model) == 1_191_688 == registry.find_model("nerf").published.params
    assert model.coarse.trunk[0].in_features == 63 and model.coarse.view.in_features == 256 + 27
    assert model.coarse.trunk[5].in_features == 256 + 63 and model.coarse.trunk[4].in_features == 256


def test_colours_and_gradients_are_those_of_the_plain_version() -> None:
    model, rays = make(), some_rays()
    draws, truth = draws_of(model), torch.rand(5, 3, dtype=torch.float64)
    found = model(rays, draws)
    losses = model.loss(found, {"color": truth})
    torch.stack(list(losses.values())).sum().backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    parts = {
        part: {name.removeprefix(f"{part}."): p for name, p in weights.items() if name.startswith(f"{part}.")}
        for part in ("coarse", "fine")
    }
    plain = [render(parts, rays[k], {name: value[k] for name, value in draws.items()}, 6, 4) for k in range(5)]
    for key in ("coarse", "color"):
        torch.testing.assert_close(found[key], torch.stack([one[key] for one in plain]), rtol=1e-6, atol=1e-8)
    error = sum(((torch.stack([one[key] for one in plain]) - truth) ** 2).mean() for key in ("coarse", "color"))
    error.backward()  # type: ignore[union-attr]
    assert own.keys() == weights.keys()
    for name, p in weights.items():
        torch.testing.assert_close(own[name], p.grad, rtol=1e-5, atol=1e-10)


def test_places_without_density_cost_no_gradient_and_change_none() -> None:
    torch.manual_seed(3)
    network = RadianceMLP(6, 16).double()
    torch.nn.init.constant_(network.density.bias, -0.1)
    points, along = torch.randn(4, 30, 3).double(), torch.nn.functional.normalize(torch.randn(4, 3).double(), dim=-1)
    density, color = network(points, along[:, None].expand_as(points))
    share = float((density > 0).double().mean())
    assert 0.05 < share < 0.95
    found = ask(network, points, along)
    torch.testing.assert_close(found[0], density)
    torch.testing.assert_close(found[1], color * (density > 0)[..., None])
    pull = torch.randn(4, 30).double()
    expected = torch.autograd.grad((density[..., None] * color * pull[..., None]).sum(), list(network.parameters()))
    got = torch.autograd.grad((found[0][..., None] * found[1] * pull[..., None]).sum(), list(network.parameters()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fine", [0, 16])
def test_rendering_skips_what_adds_less_than_it_says(fine: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `stop` 0 the image is that of a training's forward; with it no colour moves by much more."""
    monkeypatch.setattr("opsin.render.nerf._SLAB", 4)
    model, rays = make(fine_samples=fine).eval(), some_rays(40)
    for part in (model.coarse, model.fine):
        if part is not None:
            torch.nn.init.constant_(part.density.bias, 1.0)  # light ends soon
            part.density.weight.data *= 8
    whole = {key: value.detach() for key, value in model(rays).items()}
    with torch.no_grad():
        model.stop = 0.0
        everything = model(rays)
        model.stop = 1e-4
        skipped = model(rays)
    lost = skipped["opacity"] == 0  # of which the coarse network saw nothing
    assert (skipped["color"][lost] == 1).all() and not lost.all()
    for key in ("color", "opacity", "depth"):
        torch.testing.assert_close(everything[key], whole[key], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(skipped[key][~lost], whole[key][~lost], rtol=0, atol=1e-3)
    assert not torch.equal(skipped["color"][~lost], everything["color"][~lost])


def test_the_loss_reaches_every_parameter_and_forward_is_pure() -> None:
    model, rays = make(), some_rays()
    draws = draws_of(model)
    first, second = model(rays, draws), model(rays, draws)
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.stack(list(model.loss(first, {"color": torch.zeros(5, 3).double()}).values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert model.loss(first, {"color": first["color"].detach()})["fine"] == 0
