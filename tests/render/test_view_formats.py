"""Files of cameras: the same three views in every format are the same cameras; bad ones are refused in a line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.engine.membership import divide_for_training
from opsin.engine.recipe import load_recipe
from opsin.engine.recipe_data import open_own
from opsin.errors import InputError
from opsin.ops import cameras
from opsin.render.floors import find_floors
from opsin.render.posed_views import over_background
from opsin.render.transforms_json import write_transforms

SIZE = (24, 32)
FOCAL = 40.0


def poses() -> np.ndarray:
    eyes = torch.tensor([[3.0, 0, 1], [0, 3, 0.5], [-2, -2, 1]], dtype=torch.float64)
    return cameras.look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0, 1])).numpy()


def images(folder: Path, size: tuple[int, int] = SIZE) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"v{k}.png")
    return [f"v{k}.png" for k in range(3)]


def blender(root: Path) -> Path:
    images(root / "train")
    angle = 2 * np.arctan(SIZE[1] / 2 / FOCAL)
    frames = [{"file_path": f"./train/v{k}", "transform_matrix": pose.tolist()} for k, pose in enumerate(poses())]
    (root / "transforms_train.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return root


def nerfstudio(root: Path) -> Path:
    names = [f"images/{name}" for name in images(root / "images")]
    write_transforms(root / "transforms.json", names, poses(), (FOCAL, FOCAL, 16, 12), SIZE)
    return root


def world_to_camera() -> tuple[np.ndarray, np.ndarray]:
    """Rotations (3, 3, 3) and shifts (3, 3) as COLMAP has them."""
    inverse = np.linalg.inv(poses() * np.array([1.0, -1, -1, 1]))
    return inverse[:, :3, :3], inverse[:, :3, 3]


def quaternions(turns: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(turns).as_quat()[:, [3, 0, 1, 2]]


def colmap_text(root: Path) -> Path:
    names = images(root / "images")
    (root / "sparse/0").mkdir(parents=True)
    (root / "sparse/0/cameras.txt").write_text(f"# cameras\n7 PINHOLE 32 24 {FOCAL} {FOCAL} 16 12\n")
    turns, moves = world_to_camera()
    lines = ["# images"]
    for k, turn in enumerate(quaternions(turns)):
        numbers = " ".join(repr(float(one)) for one in (*turn, *moves[k]))
        lines += [f"{k + 1} {numbers} 7 {names[k]}", "" if k == 0 else "1.5 2.5 -1"]
    (root / "sparse/0/images.txt").write_text("\n".join(lines) + "\n")
    (root / "sparse/0/points3D.txt").write_text("1 0.5 0 0 255 0 0 0.1 1 0\n2 0 0.5 0.1 0 0 0 0.1 1 1 2 1\n")
    return root


def colmap_binary(root: Path) -> Path:
    names = images(root / "images")
    folder = root / "sparse/0"
    folder.mkdir(parents=True)
    (folder / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 7, 1, 32, 24, FOCAL, FOCAL, 16, 12))
    turns, moves = world_to_camera()
    encoded = struct.pack("<Q", 3)
    for k, turn in enumerate(quaternions(turns)):
        encoded += struct.pack("<i7di", k + 1, *turn, *moves[k], 7) + names[k].encode() + b"\0"
        encoded += struct.pack("<Q", k) + struct.pack("<ddq", 1.5, 2.5, -1) * k
    (folder / "images.bin").write_bytes(encoded)
    points = struct.pack("<Q", 2)
    for k, place in enumerate(((0.5, 0, 0), (0, 0.5, 0.1))):
        points += struct.pack("<Q3d3BdQ", k, *place, 1, 2, 3, 0.1, k) + struct.pack("<ii", 1, 1) * k
    (folder / "points3D.bin").write_bytes(points)
    return root


def llff(root: Path) -> Path:
    images(root / "images_2", (12, 16))
    rows = []
    for pose in poses():
        right, up, back, eye = pose[:3].T
        matrix = np.stack([-up, right, back, eye, np.array([*SIZE, FOCAL])], axis=-1)
        rows.append([*matrix.ravel(), 1.0, 5.0])
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


@pytest.mark.parametrize("make", [blender, nerfstudio, colmap_text, colmap_binary, llff])
def test_every_format_gives_the_same_cameras(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "scene")
    assert data.recognize_task(path) == "render"
    (split,) = data.open(path, "render").splits.values()
    views = split.kind
    half = 0.5 if make is llff else 1.0  # its images are smaller, and so are the numbers
    np.testing.assert_allclose(views.poses, poses(), atol=1e-9)
    np.testing.assert_allclose(views.intrinsics, np.tile([FOCAL, FOCAL, 16, 12], (3, 1)) * half)
    assert views.sizes.tolist() == [[SIZE[0] * half, SIZE[1] * half]] * 3
    assert split.read(1).shape[1:] == tuple(views.sizes[0])
    assert [Path(split.name(i)).name for i in range(3)] == ["v0.png", "v1.png", "v2.png"]
    fields = views.read(2, None)
    assert fields["pose"].dtype == torch.float32 and fields["intrinsics"].tolist() == views.intrinsics[2].tolist()
    assert views.usable.all()
    if make in (colmap_text, colmap_binary):
        assert views.points.tolist() == [[0.5, 0, 0], [0, 0.5, 0.1]]
        depths = [(point - pose[:3, 3]) @ -pose[:3, 2] for point in views.points for pose in poses()]
        assert 0.85 * min(depths) < views.near < min(depths) and max(depths) < views.far < 1.15 * max(depths)
    if make is llff:
        assert (views.near, views.far) == (0.9, 5.0)


def test_a_lens_and_splits_by_name_are_read(tmp_path: Path) -> None:
    path = nerfstudio(tmp_path)
    content = json.loads((path / "transforms.json").read_text())
    content |= {"k1": -0.1, "p2": 0.01, "camera_model": "OPENCV"}
    content |= {"train_filenames": ["images/v0.png", "./images/v2.png"], "test_filenames": ["images/v1.png"]}
    content["frames"][1]["fl_x"] = 50
    (path / "transforms.json").write_text(json.dumps(content))
    source = data.open(path, "render", near=1.5, far=4.0)
    assert {key: len(split) for key, split in source.splits.items()} == {"train": 2, "test": 1}
    views = source.splits["test"].kind
    assert views.distortion.tolist() == [[-0.1, 0, 0, 0.01]] and views.intrinsics[0, 0] == 50
    assert (views.near, views.far, views.background) == (1.5, 4.0, "black")


def test_missing_frames_are_named_and_skipped(tmp_path: Path) -> None:
    path = nerfstudio(tmp_path)
    (path / "images/v1.png").unlink()
    assert [problem.path for problem in data.verify(data.open(path, "render"))] == [str(path / "images/v1.png")]
    (split,) = data.open(path, "render", skip_bad=True).splits.values()
    np.testing.assert_allclose(split.kind.poses, poses()[[0, 2]])


def test_every_eighth_view_is_held_out(tmp_path: Path) -> None:
    source = data.open(llff(tmp_path), "render", hold_out=2)
    assert {key: [Path(s.name(i)).stem for i in range(len(s))] for key, s in source.splits.items()} == {
        "train": ["v1"],
        "test": ["v0", "v2"],
    }


def test_what_trivial_answers_reach_is_of_training_views_alone(tmp_path: Path) -> None:
    recipe = load_recipe({
        "task": "render",
        "model": {"name": "fast_nerf"},
        "data": {"source": str(nerfstudio(tmp_path)), "val_fraction": 0.4},
    })  # fmt: skip
    source, floors = open_own(recipe), find_floors(recipe)
    splits = divide_for_training(recipe, source)
    val = splits["val"]
    assert len(val) and len(floors.images) == len(splits["train"]) < 3
    kind: Any = val.kind
    for i in range(len(val)):
        found = floors.of(val.read(i).float() / 255, torch.from_numpy(kind.poses[i]))
        assert found["nearest"] == pytest.approx(7.78, abs=0.3)  # of two images of noise: -10 log10 (1/6)


def test_alpha_is_laid_over_the_background_once(tmp_path: Path) -> None:
    """An edge of red at half: straight it is (255, 0, 0), premultiplied (128, 0, 0); over white both are pink."""
    alpha = torch.full((1, 1), 128, dtype=torch.uint8)
    for kind, red in (("straight", 255), ("premultiplied", 128)):
        colours = torch.tensor([[[red]], [[0]], [[0]]], dtype=torch.uint8)
        assert over_background(colours, alpha, kind, "white").flatten().tolist() == [255, 127, 127]
        assert over_background(colours, alpha, kind, "black").flatten().tolist() == [128, 0, 0]
    for kind, red in (("straight", 200), ("premultiplied", 100)):
        path = nerfstudio(tmp_path / kind)
        for name in ("v0", "v1", "v2"):
            pixels = np.full((*SIZE, 4), (red, 20, 20, 128), np.uint8)
            pixels[:, :9] = 0
            Image.fromarray(pixels).save(path / f"images/{name}.png")
        source = data.open(path, "render")
        (split,) = source.splits.values()
        assert [problem.kind for problem in source.problems] == (["alpha"] if kind == "premultiplied" else [])
        assert split.kind.background == "white" and split.read(0)[0, 0, 20] == 227 and split.read(0)[0, 0, 0] == 255


BAD: list[tuple[str, Callable[[Path], Path], Callable[[Path], object], str]] = [
    ("no images", nerfstudio, lambda p: [f.unlink() for f in (p / "images").iterdir()], "a camera file without images"),
    ("no images", colmap_text, lambda p: [f.unlink() for f in (p / "images").iterdir()], "cameras without images"),
    ("fewer", llff, lambda p: (p / "images_2/v1.png").unlink(), "has 2 images and poses_bounds.npy 3 poses"),
    ("shape", llff, lambda p: np.save(p / "poses_bounds.npy", np.zeros((3, 5))), "expected a row of 17 a view"),
    ("cut", colmap_binary, lambda p: _cut(p / "sparse/0/images.bin"), "ends at byte .* in the middle of a record"),
    ("model", colmap_text, lambda p: _replace(p / "sparse/0/cameras.txt", "PINHOLE", "FOV"), "camera model FOV is not"),
    (
        "camera",
        colmap_text,
        lambda p: _replace(p / "sparse/0/images.txt", " 7 v0", " 8 v0"),
        "is of camera 8, which is",
    ),
    ("no number", colmap_text, lambda p: _replace(p / "sparse/0/cameras.txt", "40.0", "x"), "cameras.txt line 2"),
    ("focal", nerfstudio, lambda p: _replace(p / "transforms.json", "40.0", "0"), "frame 0: no focal length"),
    ("fisheye", nerfstudio, lambda p: _replace(p / "transforms.json", '{\n "fl_x"', '{"k3": 1, "fl_x"'), "k3 is not 0"),
    (
        "pose",
        nerfstudio,
        lambda p: _replace(p / "transforms.json", '"transform_matrix"', '"x"'),
        "its pose is no matrix",
    ),
    ("name", nerfstudio, lambda p: _replace(p / "transforms.json", '"file_path"', '"x"'), "frame 0: no file_path"),
]


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(("what", "make", "harm", "message"), BAD, ids=[f"{one[1].__name__}: {one[0]}" for one in BAD])
def test_what_cannot_be_read_is_refused_in_a_line(
    tmp_path: Path, what: str, make: Callable[[Path], Path], harm: Callable[[Path], object], message: str
) -> None:
    path = make(tmp_path)
    harm(path)
    with pytest.raises(InputError, match=message) as caught:
        data.open(path, "render")
    assert "\n" not in str(caught.value)


def _kinds(path: Path, **options: Any) -> dict[str, str]:
    found = data.inspect(data.open(path, "render", **options), "render").problems
    return {problem.kind: problem.severity for problem in found if problem.kind != "untrainable"}


def test_the_check_finds_poses_and_depths_that_cannot_be(tmp_path: Path) -> None:
    path = nerfstudio(tmp_path)
    assert not _kinds(path)
    file, content = path / "transforms.json", (path / "transforms.json").read_text()
    assert _kinds(path, near=4.0, far=2.0) == {"near_beyond_far": "error"}
    assert _kinds(path, near=40.0, far=90.0) == {"unseen_depths": "warning"}
    changed = json.loads(content)
    changed["frames"][0]["transform_matrix"][0][3] = float("nan")
    changed["frames"][1]["transform_matrix"][0][0] *= 3
    file.write_text(json.dumps(changed))
    assert _kinds(path, near=1.5, far=4.5) == {"not_finite": "error", "no_rotation": "error"}
    with pytest.raises(InputError, match="not finite; remove the frame"):
        data.check_trainable(data.open(path, "render", near=1.5, far=4.5))
    turned = poses()
    turned[2, :3, 0] *= -1  # turned about its own y axis
    turned[2, :3, 2] *= -1
    write_transforms(file, [f"images/v{k}.png" for k in range(3)], turned, (FOCAL, FOCAL, 16, 12), SIZE)
    assert _kinds(path, near=1.5, far=4.5) == {"looks_away": "warning"}
    file.write_text(content)
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(path / "images/v1.png")
    assert _kinds(path) == {"size_mismatch": "error"}
