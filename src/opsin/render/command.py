"""`opsin render`: an image of a volume or a mesh, without training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.errors import InputError

_MESHES = (".obj", ".ply", ".stl", ".xyz")

Input = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A volume (.nii, .nii.gz, .npz, .npy, DICOM's folder), a mesh (.obj, .ply, .stl) or points (.ply, .xyz).",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The image to write.")]
TransferName = Annotated[
    str,
    typer.Option("--transfer", metavar="NAME", help="Of a volume: mri, bone, bone_and_stent, auto, or a JSON file of "
                 "[value, [red, green, blue], density]."),
]  # fmt: skip
Mode = Annotated[str, typer.Option(metavar="NAME", help="Of a volume: composite, maximum or average.")]
Shading = Annotated[bool, typer.Option("--shading", help="Of a volume: light surfaces by the slope of the values.")]
Size = Annotated[int, typer.Option(metavar="N", min=8, max=8192, help="Pixels of a side.")]
Azimuth = Annotated[float, typer.Option(metavar="DEGREES", help="From where it is seen, around the upward axis.")]
Elevation = Annotated[float, typer.Option(metavar="DEGREES", min=-89, max=89, help="From how far above.")]
Up = Annotated[str, typer.Option(metavar="AXIS", help="Which axis points upwards, z or y.")]
Step = Annotated[
    float | None, typer.Option(metavar="LENGTH", help="Of a volume: length of a step, a cell if not given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


def render(
    file: Input,
    out: Out = Path("render.png"),
    transfer: TransferName = "auto",
    mode: Mode = "composite",
    shading: Shading = False,
    size: Size = 256,
    azimuth: Azimuth = 30.0,
    elevation: Elevation = 20.0,
    up: Up = "",
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Render a volume, a mesh or points from one side into an image; nothing is trained."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"):
        raise InputError(f"--out {out}: expected an image's name, such as {out.stem}.png")
    if up not in ("", "y", "z"):
        raise InputError(f"--up is {up!r}; expected y or z")
    from opsin.render.one_image import render_mesh_file, render_volume_file

    start = time.perf_counter()
    if Path(file).suffix.lower() in _MESHES:
        said: dict[str, Any] = render_mesh_file(file, out, size, azimuth, elevation, up or "y")
    else:
        options = {"transfer": transfer, "mode": mode, "shading": shading, "step": step}
        said = render_volume_file(file, out, size, azimuth, elevation, up or "z", **options)
    said["seconds"] = round(time.perf_counter() - start, 3)
    if as_json:
        print(json.dumps(said))
        return
    print(f"{said['what']}, {size}x{size} pixels in {said['rendering']:.2f} s, written to {out}")
