"""Volumes: marched rays are held equal to a plain loop over rays and steps, and files to bytes written by hand."""

from __future__ import annotations

import gzip
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from opsin.cli import app_for
from opsin.errors import InputError
from opsin.ops.cameras import look_at
from opsin.render.one_image import side_camera
from opsin.render.transfer import Transfer, load_transfer, transfer_of
from opsin.render.volume_rendering import render_volume
from opsin.render.volumes import Volume, as_volume, read_volume

POINTS = [(0.2, (0.9, 0.1, 0.2), 0.0), (0.5, (0.2, 0.8, 0.3), 1.5), (0.9, (0.1, 0.2, 0.9), 9.0)]


def a_volume() -> Volume:
    values = np.random.default_rng(0).random((9, 8, 7)).astype(np.float32)
    values[:4, :, :3] = 0.1  # empty, so that something is skipped
    return as_volume(values, (0.3, 0.25, 0.4), "a volume")


def camera(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    pose = look_at(torch.tensor([4.0, -2.5, 1.7]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    return pose, torch.tensor([side * 1.4, side * 1.4, side / 2, side / 2])


def trilinear(grid: np.ndarray, point: np.ndarray) -> float:
    low = np.clip(np.floor(point).astype(int), 0, np.array(grid.shape) - 2)
    share = np.clip(point - low, 0, 1)
    total = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = math.prod(s if c else 1 - s for s, c in zip(share, corner, strict=True))
        total += weight * float(grid[tuple(low + corner)])
    return total


def plain(volume: Volume, side: int, step: float, shading: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A loop over pixels and steps, in doubles: what is composited, the largest value and the mean."""
    pose, intrinsics = (one.double().numpy() for one in camera(side))
    grid, spacing = volume.values.double().numpy(), np.array(volume.spacing)
    half = np.array(grid.shape) * spacing / 2
    slope = np.stack(list(np.gradient(grid, *spacing)))
    nodes = np.array([point[0] for point in POINTS])
    image, largest, mean = (
        np.zeros((side, side, 3)),
        np.full((side, side), grid.min()),
        np.full((side, side), grid.min()),
    )
    for row in range(side):
        for column in range(side):
            x, y = (column + 0.5 - intrinsics[2]) / intrinsics[0], -(row + 0.5 - intrinsics[3]) / intrinsics[1]
            way = pose[:3, :3] @ np.array([x, y, -1.0])
            way /= np.linalg.norm(way)
            slabs = np.sort([(-half - pose[:3, 3]) / way, (half - pose[:3, 3]) / way], axis=0)
            near, far = max(slabs[0].max(), 0.0), slabs[1].min()
            if far <= near:
                continue
            left, seen = 1.0, []
            for k in range(max(1, round((far - near) / step))):
                point = (pose[:3, 3] + (near + (k + 0.5) * step) * way + half) / spacing - 0.5
                value = trilinear(grid, point)
                seen.append(value)
                density = np.interp(value, nodes, [one[2] for one in POINTS])
                colour = np.array([np.interp(value, nodes, [one[1][c] for one in POINTS]) for c in range(3)])
                if shading and density > 0:
                    normal = np.array([trilinear(one, point) for one in slope])
                    colour *= 0.35 + 0.65 * abs(normal @ way) / np.linalg.norm(normal)
                alpha = 1 - math.exp(-density * step)
                image[row, column] += left * alpha * colour
                left *= 1 - alpha
            image[row, column] += left * 0.2
            largest[row, column], mean[row, column] = max(seen), np.mean(seen)
    image[mean == grid.min()] = 0.2
    return image, largest, mean


@pytest.mark.parametrize("shading", [False, True])
def test_an_image_is_that_of_a_plain_loop(shading: bool) -> None:
    volume, step = a_volume(), 0.11
    image, largest, mean = plain(volume, 9, step, shading)
    own = (volume, transfer_of(POINTS), *camera(9), (9, 9))
    found = render_volume(*own, step=step, shading=shading, background=0.2)
    np.testing.assert_allclose(found.values.numpy(), image, atol=1e-5)
    assert 0.2 < float(found.opacity.mean()) < 0.9 and 0 < found.asked < 81 * 30
    if not shading:
        np.testing.assert_allclose(render_volume(*own, step=step, mode="maximum").values.numpy(), largest, atol=1e-5)
        np.testing.assert_allclose(render_volume(*own, step=step, mode="average").values.numpy(), mean, atol=1e-5)


def test_a_slab_is_its_closed_form_and_its_gradients_are_differences() -> None:
    """A volume that is 1 everywhere with density 0.7: 1 - exp(-0.7 L) along its side L = 3."""
    volume = Volume(torch.ones(3, 3, 3), (1.0, 1.0, 1.0))
    transfer = transfer_of([(0.0, (1.0, 1.0, 1.0), 0.7), (2.0, (1.0, 1.0, 1.0), 0.7)])
    pose = look_at(torch.tensor([0.0, -10.0, 0.0]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    found = render_volume(volume, transfer, pose, torch.tensor([100.0, 100, 0.5, 0.5]), (1, 1), step=0.5)
    assert float(found.opacity) == pytest.approx(1 - math.exp(-2.1), rel=1e-6)

    volume = a_volume()

    def total(values: torch.Tensor, densities: torch.Tensor) -> torch.Tensor:
        transfer = transfer_of(POINTS)
        changed = Transfer(transfer.values, transfer.colours, densities)
        return render_volume(Volume(values, volume.spacing), changed, *camera(5), (5, 5), step=0.3).values.sum()

    values = volume.values.clone().requires_grad_()
    densities = transfer_of(POINTS).densities.clone().requires_grad_()
    total(values, densities).backward()
    assert values.grad is not None and densities.grad is not None
    place, small = np.unravel_index(int(values.grad.abs().argmax()), values.shape), 1e-3
    for tensor, slopes, at in ((values, values.grad, place), (densities, densities.grad, (2,))):
        changed = [tensor.detach().clone() for _ in range(2)]
        for one, sign in zip(changed, (1, -1), strict=True):
            one[at] += sign * small
        ends = [total(one, densities) if tensor is values else total(values, one) for one in changed]
        assert float((ends[0] - ends[1]) / (2 * small)) == pytest.approx(float(slopes[at]), rel=0.03)


def nifti(values: np.ndarray, matrix: np.ndarray, slope: float = 0.0, order: str = "<", spacing: float = 0.0) -> bytes:
    header = bytearray(352)
    header[:4] = struct.pack(f"{order}i", 348)
    struct.pack_into(f"{order}8h", header, 40, 3, *values.shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}h", header, 70, 4)
    struct.pack_into(f"{order}8f", header, 76, 1, 2, 3, 4, 0, 0, 0, 0)
    struct.pack_into(f"{order}3f", header, 108, 352, slope, 5.0 if slope else 0.0)
    struct.pack_into(f"{order}2h", header, 252, 0, 1)
    struct.pack_into(f"{order}12f", header, 280, *matrix.ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + values.astype(f"{order}i2").tobytes(order="F")


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_is_turned_to_the_axes_of_the_world(tmp_path: Path, order: str) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    # the file's first axis is the world's z downwards, its second x, its third y
    matrix = np.array([[0, 3.0, 0, 0], [0, 0, 4.0, 0], [-2.0, 0, 0, 0]])
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(values, matrix, 2.0, order)))
    found = read_volume(tmp_path / "a.nii.gz")
    assert found.spacing == (3.0, 4.0, 2.0)
    np.testing.assert_array_equal(found.values.numpy(), values.transpose(1, 2, 0)[:, :, ::-1] * 2.0 + 5)
    assert found.box[1].tolist() == [4.5, 8.0, 2.0]


def test_arrays_are_read_and_bad_volumes_refused(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", volume=values, spacing=np.array([1.0, 2, 3]))
    found = read_volume(tmp_path / "a.npz")
    assert found.values.shape == (4, 3, 2) and found.spacing == (1.0, 2.0, 3.0) and float(found.values[3, 1, 0]) == 7
    np.save(tmp_path / "one.npy", values[:1])
    np.save(tmp_path / "same.npy", np.ones((4, 4, 4)))
    np.save(tmp_path / "nan.npy", np.where(values == 3, np.nan, values))
    (tmp_path / "cut.nii").write_bytes(nifti(values, np.eye(3, 4))[:-4])
    (tmp_path / "no.nii").write_bytes(b"x" * 400)
    (tmp_path / "a.vol").write_text("x")
    (tmp_path / "points.json").write_text("[[0, [1, 1, 1], 0]]")
    for name, message in {
        "one.npy": "4x3x1 numbers; expected a volume of three axes with two slices or more",
        "same.npy": "1 everywhere; there is nothing to see",
        "nan.npy": "1 numbers that are not finite",
        "cut.nii": "its 24 numbers do not fit; copy it anew",
        "no.nii": "is no NIfTI-1 file",
        "a.vol": "is no volume; expected .nii",
        "lost.nii": "no file or folder at",
    }.items():
        with pytest.raises(InputError, match=message):
            read_volume(tmp_path / name)
    with pytest.raises(InputError, match="two points or more with rising values"):
        load_transfer(str(tmp_path / "points.json"))
    with pytest.raises(InputError, match="did you mean bone"):
        load_transfer("bones")


def test_the_command_writes_an_image(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", a_volume().values.numpy())
    (tmp_path / "t.json").write_text(json.dumps([[value, colour, density] for value, colour, density in POINTS]))
    words = ["render", str(tmp_path / "a.npy"), "--transfer", str(tmp_path / "t.json"), "--size", "16", "--json"]
    called = CliRunner().invoke(app_for(words), [*words, "--out", str(tmp_path / "a.png")])
    assert called.exit_code == 0 and json.loads(called.stdout)["what"] == "a volume of 7x8x9"
    assert Image.open(tmp_path / "a.png").size == (16, 16)
    called = CliRunner().invoke(app_for(words), [*words, "--mode", "mean"])
    assert isinstance(called.exception, InputError) and "unknown mode 'mean'" in str(called.exception)


@pytest.mark.real_data
def test_the_brain_and_the_stent_are_seen(data_dir: Path) -> None:
    for file, name in (("mni152/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz", "mri"),
                       ("ct_stent/stent.npz", "bone_and_stent")):  # fmt: skip
        volume = read_volume(data_dir / file)
        pose, intrinsics = side_camera(*volume.box, 48, 30.0, 20.0, "z")
        found = render_volume(volume, load_transfer(name), pose, intrinsics, (48, 48), step=2.0)
        assert 0.02 < float(found.opacity.mean()) < 0.5
