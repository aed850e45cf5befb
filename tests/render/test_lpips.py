"""LPIPS against a plain version, place by place, and what its files may hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from opsin.errors import InputError
from opsin.render.lpips import load_lpips

# torchvision's features: the numbers of convolutions with stride and padding, "M" for a pooling, "T": is compared.
_ALEX: list[Any] = [(0, 64, 11, 4, 2), "T", "M", (3, 192, 5, 1, 2), "T", "M", (6, 384, 3, 1, 1), "T"]
_ALEX += [(8, 256, 3, 1, 1), "T", (10, 256, 3, 1, 1), "T"]
_VGG: list[Any] = [(0, 64), (2, 64), "T", "M", (5, 128), (7, 128), "T", "M", (10, 256), (12, 256), (14, 256), "T", "M"]
_VGG += [(17, 512), (19, 512), (21, 512), "T", "M", (24, 512), (26, 512), (28, 512), "T"]
_NETS = {"alex": (_ALEX, (64, 192, 384, 256, 256), 3), "vgg": (_VGG, (64, 128, 256, 512, 512), 2)}


def files(net: str, *, packaged: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of channels, and convolutions by torchvision's names or the package's, at random."""
    plan, widths, _ = _NETS[net]
    generator, before, convolutions = torch.Generator().manual_seed(0), 3, {}
    for one in plan:
        if isinstance(one, str):
            continue
        number, width, side = (*one, 3)[:3]
        prefix = f"net.slice1.{number}." if packaged else f"features.{number}."
        fan = before * side * side
        convolutions[f"{prefix}weight"] = torch.randn(width, before, side, side, generator=generator) * (2 / fan) ** 0.5
        convolutions[f"{prefix}bias"] = 0.1 * torch.randn(width, generator=generator)
        before = width
    linear = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for k, c in enumerate(widths)}
    return linear, convolutions


def plain(net: str, linear: dict[str, Tensor], convolutions: dict[str, Tensor], one: Tensor, other: Tensor) -> float:
    """As the paper says it: unit vectors at each place, weighted squares, the mean of places, the sum of layers."""
    plan, _, pooled = _NETS[net]
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])  # of [-1, 1]
    pair = [(2 * image - 1 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1) for image in (one, other)]
    total, layer = 0.0, 0
    for step in plan:
        if step == "M":
            pair = [F.max_pool2d(image, pooled, 2) for image in pair]
        elif step == "T":
            weight, places = linear[f"lin{layer}.model.1.weight"].flatten(), pair[0].shape[1:]
            for row in range(places[0]):
                for column in range(places[1]):
                    a, b = (image[:, row, column] / (image[:, row, column].norm() + 1e-10) for image in pair)
                    total += float((weight * (a - b) ** 2).sum()) / (places[0] * places[1])
            layer += 1
        else:
            number, _, _, stride, padding = (*step, 3, 1, 1)[:5] if len(step) == 2 else step
            weight, bias = (convolutions[f"features.{number}.{part}"] for part in ("weight", "bias"))
            pair = [F.relu(F.conv2d(image[None], weight, bias, stride, padding))[0] for image in pair]
    return total


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_is_that_of_a_plain_version(net: str, tmp_path: Path) -> None:
    linear, convolutions = files(net)
    torch.save(linear, tmp_path / "linear.pth")
    save_file(convolutions, tmp_path / "network.safetensors")  # sorted by name: features.10 before features.8
    measure = load_lpips([tmp_path / "linear.pth", tmp_path / "network.safetensors"])
    least = {"alex": 31, "vgg": 16}[net]
    images = torch.rand(2, 3, least, least + 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = measure(images, images.flip(0))
        assert measure(images, images).tolist() == [0, 0]
    expected = plain(net, linear, convolutions, images[0], images[1])
    assert expected > 0.1 and found.tolist() == pytest.approx([expected, expected], rel=1e-4)
    with pytest.raises(InputError, match=rf"images are 40x{least - 1}; .* at least {least} pixels"):
        measure(torch.rand(1, 3, 40, least - 1), torch.rand(1, 3, 40, least - 1))


def test_one_file_may_hold_all_as_the_package_saves_it(tmp_path: Path) -> None:
    linear, convolutions = files("alex")
    packaged = files("alex", packaged=True)[1]
    twice = {f"lins.{key[3]}.model.1.weight": value for key, value in linear.items()}
    scaling = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    torch.save({**scaling, **packaged, **linear, **twice}, tmp_path / "whole.pth")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = float(load_lpips([tmp_path / "whole.pth"])(images[:1], images[1:]))
    assert found == pytest.approx(plain("alex", linear, convolutions, *images), rel=1e-4)


def test_without_convolutions_they_are_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(files("vgg")[0], tmp_path / "vgg.pth")
    asked = []

    def create(name: str, weights: str) -> Any:
        asked.append((name, weights))
        raise InputError("no network here")

    monkeypatch.setattr("opsin.render.lpips.create_model", create)
    with pytest.raises(InputError, match="no network here"):
        load_lpips([tmp_path / "vgg.pth"])
    assert asked == [("vgg16", "imagenet1k")]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    linear, convolutions = files("alex")

    def saved(content: Any) -> Path:
        torch.save(content, tmp_path / "some.pth")
        return tmp_path / "some.pth"

    with pytest.raises(InputError, match=r"no weights of LPIPS, lin0\.model\.1\.weight"):
        load_lpips([saved(convolutions)])
    with pytest.raises(InputError, match=r"for 64, 192 channels; expected those of AlexNet \(64, 192, 384"):
        load_lpips([saved({key: linear[key] for key in list(linear)[:2]})])
    with pytest.raises(
        InputError, match=r"not the convolutions of alexnet: .*tensor 0 is features\.0\.weight \(64, 3, 3, 3\)"
    ):
        load_lpips([saved({**linear, **{"features.0.weight": torch.zeros(64, 3, 3, 3)}})])
    with pytest.raises(InputError, match="not numbers"):
        load_lpips([saved({**linear, "lin0.model.1.weight": torch.full((1, 64, 1, 1), torch.nan)})])
    with pytest.raises(InputError, match="only code can rebuild"):
        load_lpips([saved({"lin0.model.1.weight": Path, "x": SimpleNamespace()})])
    with pytest.raises(InputError, match="no file of weights"):
        load_lpips([tmp_path / "none.pth"])
